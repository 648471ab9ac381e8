//! Reads configuration files: TOML text in, the validated model or every mistake out.
//!
//! A file passes these modules in order: `files` reads it and what it includes, `keys` (what may
//! stand in it) drives `reader` (one value), `read` types every section, `named` has the
//! certificates read that it names, `rules` applies what concerns several objects and builds the
//! [`model::Config`](crate::model::Config), `problem` shows what was found. Doesn't look at the
//! machine beyond the files themselves: whether a core, an address or a folder exists is asked by
//! who uses it. Called by the server (`serve`, `check`, reload) and by tests.

mod bounds;
mod files;
mod glob;
mod keys;
mod named;
mod places;
mod problem;
mod read;
mod reader;
mod reference;
mod rules;
mod suggest;
mod values;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod model_tests;

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use crate::cert::Store;
use crate::model::Config;
use bounds::MAX_FILE_BYTES;
use files::Text;
use problem::{Findings, Source, Span};
use read::{Document, Root};
use reader::Table;

pub use places::Places;
pub use problem::{Failure, Problem, Severity};
pub use reference::reference_markdown;

/// What a valid configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The validated configuration.
    pub config: Config,
    /// What its certificates hold; `None` for each when it was not read from a file.
    pub certificates: Store,
    /// What is probably not meant so, sorted by place.
    pub warnings: Vec<Problem>,
    /// The files that it was read from: the one that was named, then the included ones in the
    /// order of reading.
    pub files: Vec<PathBuf>,
    /// Where the keys stand of which only a machine can tell whether they can be had.
    pub places: Places,
}

/// Reads and checks a file with everything that it includes, 16 MiB at most.
///
/// # Errors
/// One problem if the file can't be read, is too large or isn't UTF-8; else every mistake in it and
/// in what it includes, as [`parse`] does.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    let mut findings = Findings::default();
    let files = files::collect(path, &mut findings).map_err(|problem| Failure::single(*problem))?;
    check(&files, findings, named::check)
}

/// Checks the text of a configuration; `file_name` is only named in messages. An `include` is an
/// error, since there is no file to start from.
///
/// # Errors
/// Every mistake in the text, sorted by place. Only errors of TOML's own syntax hide others.
pub fn parse(text: &str, file_name: &str) -> Result<Loaded, Failure> {
    if text.len() as u64 > MAX_FILE_BYTES {
        let cure = "check that this is the configuration file";
        let problem = Problem::of_file(file_name, files::too_large(), cure);
        return Err(Failure::single(problem));
    }
    let files = [Text::new(Path::new(file_name), text)];
    let mut findings = Findings::default();
    let (root, _) = DeTable::parse_recoverable(&files[0].text);
    let table = Table::root(root.get_ref(), 0);
    let wanted = table.texts("include", &mut findings, files::pattern).unwrap_or_default();
    if let Some(first) = wanted.first() {
        findings.incomplete = true;
        findings
            .error(first.span, "include", "a text without a file can't include others")
            .help("read it from a file");
    }
    drop(root);
    check(&files, findings, |_, _| Store::default())
}

/// Reads the certificates of a document.
type Look = fn(&Document<'_, '_>, &mut Findings) -> Store;

/// Publishes what [`evaluate`] finds.
fn check(files: &[Text], mut findings: Findings, look: Look) -> Result<Loaded, Failure> {
    let (config, certificates, spans) = evaluate(files, &mut findings, look);
    let sources: Vec<_> =
        files.iter().map(|file| Source { name: &file.name, text: &file.text }).collect();
    let warnings = findings.publish(&sources)?;
    let places = Places::found(spans, &sources);
    let files = files.iter().map(|file| file.path.clone()).collect();
    Ok(Loaded { config, certificates, warnings, files, places })
}

/// Parses and checks all files. The result is meaningless if `findings` has errors.
fn evaluate(
    files: &[Text],
    findings: &mut Findings,
    look: Look,
) -> (Config, Store, Vec<(String, Span)>) {
    let parsed: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(index, file)| parse_toml(index, &file.text, findings))
        .collect();
    let roots: Vec<_> = parsed
        .iter()
        .zip(files)
        .enumerate()
        .map(|(file, (root, text))| Root { entries: root.get_ref(), file, folder: text.folder() })
        .collect();
    let document = Document::read(&roots, findings);
    let certificates = look(&document, findings);
    let spans = places::collect(&document);
    (rules::resolve(document, findings), certificates, spans)
}

/// The TOML crate's words for a key that stands twice.
const DUPLICATE: &str = "duplicate key";

/// Does this stand in the header of a section that repeats?
fn begins_section(text: &str, span: Option<std::ops::Range<usize>>) -> bool {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    before.rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with("[["))
}

/// Parses one file; nothing of it is left where its syntax is wrong.
fn parse_toml<'t>(file: usize, text: &'t str, findings: &mut Findings) -> Spanned<DeTable<'t>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut readable = true;
    // The parser says the same thing once for each of many brackets that nobody closed.
    let mut last = None;
    for error in &errors {
        if last.replace((error.span(), error.message())) == Some((error.span(), error.message())) {
            continue;
        }
        // A key that stands twice leaves a sound table; anything else leaves guesses.
        readable &= error.message() == DUPLICATE;
        let message = error.message().trim_end().replace('\n', "; ");
        let help = match error.message() {
            DUPLICATE if begins_section(text, error.span()) => {
                "a list stands either inside its section, as name = [ … ], or in [[…]] sections of \
                 its own: move all of it to one of them"
            }
            DUPLICATE => "take one of them out; a section that repeats begins with [[name]]",
            _ => "see https://toml.io for the syntax",
        };
        let span = Span::new(file, error.span().unwrap_or(0..0));
        findings.error(span, "TOML", message).help(help);
    }
    match readable {
        true => root,
        false => {
            findings.incomplete = true;
            Spanned::new(0..0, DeTable::new())
        }
    }
}
