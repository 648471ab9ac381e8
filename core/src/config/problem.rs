//! What is wrong with a file, and how it is shown.
//!
//! Owns the problem's public form, the collector that the readers report to, and the rendering:
//! one line that tools can grep (`FILE:LINE:COLUMN: key: message`), then an excerpt for people.
//! Doesn't know any key or rule.

use std::fmt;
use std::ops::Range;

use codespan_reporting::diagnostic::{Diagnostic, Label};
use codespan_reporting::files::{Files, SimpleFile};
use codespan_reporting::term::{self, Chars};

use super::bounds::{MAX_EXCERPT_LINE, MAX_PROBLEMS, MAX_QUOTED_CHARS};

/// Does a problem refuse the file?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is valid, but probably not what its author wants.
    Warning,
}

/// One mistake of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The file, as the caller named it; an included one as its folder and name.
    pub file: String,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// Path of the offending key, such as `listener[1].member_timeout` (elements count from 0).
    /// `TOML` for a syntax error; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong, with the value.
    pub message: String,
    /// Requirement row of the rule, such as `R6.7-6`.
    pub row: Option<&'static str>,
    /// How to mend it.
    pub help: Option<String>,
    excerpt: String,
}

impl Problem {
    /// A problem of the file as a whole, which has no place inside it.
    pub(super) fn of_file(file: &str, message: String, help: &str) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            message,
            row: None,
            help: Some(help.to_owned()),
            excerpt: String::new(),
        }
    }

    /// `FILE:LINE:COLUMN: key: message [row]`, in one line; warnings say `warning:` before the key.
    #[must_use]
    pub fn headline(&self) -> String {
        let severity = if self.severity == Severity::Warning { "warning: " } else { "" };
        self.in_one_line(severity)
    }

    /// The same and the cure, in one line; without `warning:`, for a log that says so itself.
    #[must_use]
    pub fn log_line(&self) -> String {
        let line = self.in_one_line("");
        match &self.help {
            Some(help) => format!("{line}; help: {help}"),
            None => line,
        }
    }

    fn in_one_line(&self, severity: &str) -> String {
        let mut line = self.file.clone();
        if self.line > 0 {
            line += &format!(":{}:{}", self.line, self.column);
        }
        line = line + ": " + severity;
        if !self.key.is_empty() {
            line = line + &self.key + ": ";
        }
        line += &self.message;
        if let Some(row) = self.row {
            line += &format!(" [{row}]");
        }
        line
    }
}

impl fmt::Display for Problem {
    /// The headline, then the excerpt, then the help.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.headline())?;
        formatter.write_str(&self.excerpt)?;
        if let Some(help) = &self.help {
            writeln!(formatter, "  help: {help}")?;
        }
        Ok(())
    }
}

/// Why a file was refused: every mistake, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    problems: Vec<Problem>,
    more: usize,
}

impl Failure {
    /// A failure with one problem.
    pub(super) fn single(problem: Problem) -> Self {
        Self { problems: vec![problem], more: 0 }
    }

    /// The errors, sorted by place; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Errors beyond the thousand that are kept.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(formatter, "{problem}")?;
        }
        match self.problems.len() + self.more {
            1 => formatter.write_str("1 error"),
            total => write!(formatter, "{total} errors"),
        }?;
        if self.more > 0 {
            write!(formatter, ", of which the first {} are shown", self.problems.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl<'a> IntoIterator for &'a Failure {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.problems.iter()
    }
}

/// A problem as the readers find it: with a byte range instead of a line.
#[derive(Debug)]
pub(super) struct Finding {
    severity: Severity,
    span: Span,
    key: String,
    message: String,
    row: Option<&'static str>,
    help: Option<String>,
    related: Option<(Span, &'static str)>,
}

/// A place: the number of a file, and a byte range inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    file: usize,
    start: usize,
    end: usize,
}

impl Span {
    /// A range of the file with that number, counted in the order in which files are read.
    pub(super) fn new(file: usize, range: Range<usize>) -> Self {
        Self { file, start: range.start, end: range.end }
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub value: T,
    pub span: Span,
}

/// A file that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// As the user named it.
    pub name: &'a str,
    pub text: &'a str,
}

impl Finding {
    /// Names the rule.
    pub(super) fn row(&mut self, row: impl Into<Option<&'static str>>) -> &mut Self {
        self.row = row.into();
        self
    }

    /// Says how to mend it.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a second place, with a word on what stands there.
    pub(super) fn related(&mut self, span: Span, label: &'static str) -> &mut Self {
        self.related = Some((span, label));
        self
    }
}

/// Collects findings up to [`MAX_PROBLEMS`] of each severity.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    errors_dropped: usize,
    spare: Option<Finding>,
    /// Problems of files as a whole, which have no place.
    of_files: Vec<Problem>,
    /// A file could not be read to its end, so that what others refer to may stand there.
    pub incomplete: bool,
}

impl Findings {
    /// Reports an error at a byte range.
    pub(super) fn error(
        &mut self,
        span: Span,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(Severity::Error, span, key.into(), message.into())
    }

    /// Reports a warning at a byte range.
    pub(super) fn warning(
        &mut self,
        span: Span,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(Severity::Warning, span, key.into(), message.into())
    }

    fn add(
        &mut self,
        severity: Severity,
        span: Span,
        key: String,
        message: String,
    ) -> &mut Finding {
        let finding =
            Finding { severity, span, key, message, row: None, help: None, related: None };
        let list = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if list.len() < MAX_PROBLEMS {
            return list.push_mut(finding);
        }
        self.errors_dropped += usize::from(severity == Severity::Error);
        self.spare.insert(finding)
    }

    /// Reports a file that could not be used at all.
    pub(super) fn file_error(&mut self, problem: Problem) {
        self.incomplete = true;
        self.of_files.push(problem);
    }

    /// Number of errors reported so far.
    pub(super) fn errors(&self) -> usize {
        self.errors.len() + self.errors_dropped
    }

    /// Will further errors only be counted? Then their text is not worth a search.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_PROBLEMS
    }

    /// The warnings if there is no error, else the failure; both with lines and excerpts.
    pub(super) fn publish(self, sources: &[Source<'_>]) -> Result<Vec<Problem>, Failure> {
        let sources: Vec<_> =
            sources.iter().map(|source| SimpleFile::new(source.name, source.text)).collect();
        if self.errors.is_empty() && self.of_files.is_empty() {
            return Ok(publish_all(self.warnings, &sources));
        }
        let mut problems = self.of_files;
        problems.extend(publish_all(self.errors, &sources));
        Err(Failure { problems, more: self.errors_dropped })
    }
}

type Shown<'a> = SimpleFile<&'a str, &'a str>;

fn publish_all(mut findings: Vec<Finding>, sources: &[Shown<'_>]) -> Vec<Problem> {
    findings.sort_by(|a, b| (a.span, &a.key).cmp(&(b.span, &b.key)));
    let mut cursor = Cursor::of_file(0);
    findings.into_iter().filter_map(|finding| publish(finding, &mut cursor, sources)).collect()
}

/// Walks through a file once, however many places are asked for, and however long its lines are.
struct Cursor {
    file: usize,
    at: usize,
    line: usize,
    column: usize,
}

impl Cursor {
    fn of_file(file: usize) -> Self {
        Cursor { file, at: 0, line: 1, column: 1 }
    }

    /// Goes on to a place, which is never before the last one.
    fn go(&mut self, file: usize, to: usize, text: &str) {
        if file != self.file {
            *self = Cursor::of_file(file);
        }
        for char in text.get(self.at..to).unwrap_or_default().chars() {
            match char {
                '\n' => (self.line, self.column) = (self.line + 1, 1),
                _ => self.column += 1,
            }
        }
        self.at = to.max(self.at);
    }
}

fn publish(mut finding: Finding, cursor: &mut Cursor, sources: &[Shown<'_>]) -> Option<Problem> {
    let source = sources.get(finding.span.file)?;
    let span = inside(finding.span, source.source());
    cursor.go(finding.span.file, span.start, source.source());
    // An excerpt quotes one file; a second place in another one is named.
    let file = finding.span.file;
    if let Some((other, label)) = finding.related.take_if(|(other, _)| other.file != file)
        && let Some(file) = sources.get(other.file)
    {
        let help = finding.help.unwrap_or_default();
        finding.help = Some(format!("{help}; {label}: {}", place_in(file, other)));
    }
    let excerpt = excerpt(&finding, &span, source);
    Some(Problem {
        severity: finding.severity,
        file: source.name().to_string(),
        line: cursor.line,
        column: cursor.column,
        key: finding.key,
        message: finding.message,
        row: finding.row,
        help: finding.help,
        excerpt,
    })
}

/// `FILE:LINE:COLUMN`; without the column where the line is too long to be worth it.
fn place_in(file: &Shown<'_>, span: Span) -> String {
    let start = inside(span, file.source()).start;
    let line = file.line_index((), start).unwrap_or_default();
    let from = file.line_range((), line).map_or(start, |range| range.start);
    let place = format!("{}:{}", file.name(), line + 1);
    match file.source().get(from..start) {
        Some(before) if before.len() <= MAX_EXCERPT_LINE => {
            format!("{place}:{}", before.chars().count() + 1)
        }
        _ => place,
    }
}

/// `FILE:LINE:COLUMN` of each span, in the order of places; one of no file is left out.
pub(super) fn locate(
    mut spans: Vec<(String, Span)>,
    sources: &[Source<'_>],
) -> Vec<(String, String)> {
    spans.sort_by_key(|(_, span)| *span);
    let mut cursor = Cursor::of_file(0);
    let place = |(key, span): (String, Span)| {
        let source = sources.get(span.file)?;
        cursor.go(span.file, inside(span, source.text).start, source.text);
        Some((key, format!("{}:{}:{}", source.name, cursor.line, cursor.column)))
    };
    spans.into_iter().filter_map(place).collect()
}

/// The range cut to the text and to whole characters.
fn inside(span: Span, text: &str) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.floor_char_boundary(span.end.max(start))
}

/// The quoted lines with the place marked, without codespan's own headline (ours comes first).
/// Empty where quoting would do harm: an over-long line, or bytes that a terminal would obey.
fn excerpt(finding: &Finding, span: &Range<usize>, source: &Shown<'_>) -> String {
    // A range over several lines (a whole list) is marked at its beginning only.
    let first_line = line_end(source.source(), span.start);
    let mut labels = vec![Label::primary((), span.start..span.end.min(first_line).max(span.start))];
    if let Some((other, label)) = finding.related {
        let other = inside(other, source.source());
        let end = other.end.min(line_end(source.source(), other.start)).max(other.start);
        labels.push(Label::secondary((), other.start..end).with_message(label));
    }
    if !labels.iter().all(|label| is_quotable(source, label.range.start)) {
        return String::new();
    }
    let style = term::Config { chars: Chars::ascii(), ..term::Config::default() };
    let diagnostic = Diagnostic::error().with_labels(labels);
    let rendered = term::emit_into_string(&style, source, &diagnostic).unwrap_or_default();
    let body = rendered.split_once('\n').map_or("", |(_, body)| body);
    format!("{}\n", body.trim_end())
}

/// The end of the line; of one that is too long for a quote, any place behind that length.
fn line_end(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let seen = rest.iter().take(MAX_EXCERPT_LINE + 1);
    at + seen.take_while(|byte| !matches!(byte, b'\r' | b'\n')).count()
}

fn is_quotable(source: &Shown<'_>, at: usize) -> bool {
    let range = source.line_index((), at).and_then(|line| source.line_range((), line));
    let line = range.ok().and_then(|range| source.source().get(range)).unwrap_or_default();
    let line = line.trim_end_matches(['\r', '\n']);
    line.len() <= MAX_EXCERPT_LINE && !line.chars().any(|char| char.is_control() && char != '\t')
}

/// A piece of the file for a message: control characters escaped, cut to a bearable length.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// As [`quoted`], without the quotes.
pub(super) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String =
        chars.by_ref().take(MAX_QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, span: Range<usize>) -> Problem {
        let mut findings = Findings::default();
        findings.error(Span::new(0, span), "key", "message");
        findings.publish(&[Source { name: "f", text }]).unwrap_err().problems()[0].clone()
    }

    #[test]
    fn columns_count_characters_and_lines_end_with_cr_lf_too() {
        let text = "a\r\n\u{e4}\u{1f600}b"; // b is the third character of the second line
        let problem = one(text, text.len() - 1..text.len());
        assert_eq!((problem.line, problem.column), (2, 3));
        assert_eq!(one("", 0..0).line, 1);
        assert_eq!(one("a", 70..90).column, 2);
    }

    #[test]
    fn lines_that_would_harm_the_terminal_are_not_quoted() {
        assert_eq!(one("a = \u{1b}[2J", 0..1).excerpt, "");
        assert_eq!(one(&"x".repeat(5_000), 9..10).excerpt, "");
        assert!(one("a\tb\r\nc", 0..1).excerpt.contains('^'));
    }

    #[test]
    fn problems_are_bounded_and_the_rest_is_counted() {
        let mut findings = Findings::default();
        for at in 0..MAX_PROBLEMS + 7 {
            findings.error(Span::new(0, at..at), "key", "message");
        }
        let failure = findings.publish(&[Source { name: "f", text: "text" }]).unwrap_err();
        assert_eq!((failure.problems().len(), failure.more()), (MAX_PROBLEMS, 7));
        assert!(failure.to_string().ends_with("1007 errors, of which the first 1000 are shown"));
    }

    #[test]
    fn quotes_are_cut_and_escaped() {
        assert_eq!(quoted("a\u{1b}b"), "\"a\\u{1b}b\"");
        assert_eq!(shown(&"é".repeat(100)).chars().count(), MAX_QUOTED_CHARS + 1);
    }
}
