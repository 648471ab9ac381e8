//! Reads the files of a configuration: the one that is named, and what it includes.
//!
//! Owns `include`, the bounds of size, number and depth, and the errors of reading. Doesn't look at
//! any other key. Called by `config::load`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::bounds::{MAX_FILE_BYTES, MAX_FILES, MAX_INCLUDE_DEPTH};
use super::problem::{Findings, Placed, Problem, Span, quoted};
use super::reader::Table;
use super::values::{Fault, fault, file};
use super::{DUPLICATE, glob};

/// A file that was read.
#[derive(Debug)]
pub(super) struct Text {
    pub path: PathBuf,
    /// As messages name it.
    pub name: String,
    /// Without a byte order mark, which some editors write; columns count without it.
    pub text: String,
}

impl Text {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        Self { name: path.display().to_string(), path: path.to_owned(), text }
    }

    /// The folder that relative paths in it start from.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Reads a file and everything that it includes, in order.
///
/// # Errors
/// The file itself can't be used. What is wrong with an include goes to `findings`.
pub(super) fn collect(path: &Path, findings: &mut Findings) -> Result<Vec<Text>, Box<Problem>> {
    let mut tree = Tree { files: Vec::new(), left: MAX_FILE_BYTES, seen: HashSet::new() };
    let bytes = read(path, &mut tree.left).map_err(|error| {
        let (what, cure) = error.of_main();
        Box::new(Problem::of_file(&path.display().to_string(), what, cure))
    })?;
    let text = utf8(path, &bytes)?;
    tree.files.push(text);
    let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    tree.seen.insert(canonical.clone());
    tree.follow(0, &mut vec![canonical], findings);
    Ok(tree.files)
}

/// What is read so far.
struct Tree {
    files: Vec<Text>,
    /// Bytes that may still be read.
    left: u64,
    /// Every file is read once.
    seen: HashSet<PathBuf>,
}

/// One `include` at work: where it stands and what it stands in.
struct Include<'a> {
    span: Span,
    key: String,
    /// Was the path found by a pattern?
    by_pattern: bool,
    /// The files that led here, each included by the one before.
    line: &'a mut Vec<PathBuf>,
}

impl Tree {
    /// Follows the includes of a file.
    fn follow(&mut self, index: usize, line: &mut Vec<PathBuf>, findings: &mut Findings) {
        let Some(text) = self.files.get(index) else { return };
        let folder = text.folder().to_owned();
        for (at, wanted) in includes(&text.text, index, findings).into_iter().enumerate() {
            let key = format!("include[{at}]");
            let mut include = Include {
                span: wanted.span,
                key,
                by_pattern: glob::is_pattern(&wanted.value),
                line,
            };
            if !include.by_pattern {
                self.add(&folder.join(&wanted.value), &mut include, findings);
                continue;
            }
            match glob::expand(&folder, &wanted.value) {
                Ok(paths) if paths.is_empty() => {
                    let what = format!("{} matches no file", quoted(&wanted.value));
                    findings.warning(include.span, include.key, what);
                }
                Ok(paths) => {
                    for path in paths {
                        self.add(&path, &mut include, findings);
                    }
                }
                Err(error) => {
                    let what = format!("{} can't be searched: {error}", quoted(&wanted.value));
                    refuse(&include, what, "let this user read the folder", findings);
                }
            }
        }
    }

    /// Reads one included file and follows its includes.
    fn add(&mut self, path: &Path, include: &mut Include<'_>, findings: &mut Findings) {
        let shown = path.display();
        let canonical = match path.canonicalize() {
            Ok(canonical) => canonical,
            Err(error) => {
                let what = format!("{shown} can't be read: {error}");
                return refuse(include, what, "name a file that this user may read", findings);
            }
        };
        if let Some(at) = include.line.iter().position(|other| *other == canonical) {
            // A pattern over its own folder finds its own file too; that is no mistake.
            if !include.by_pattern || at + 1 < include.line.len() {
                let what = format!("{shown} includes this file, so it would never end");
                refuse(include, what, "take one of the includes out", findings);
            }
            return;
        }
        if !self.seen.insert(canonical.clone()) {
            return;
        }
        if include.line.len() > MAX_INCLUDE_DEPTH {
            let what = format!("{shown} is included more than {MAX_INCLUDE_DEPTH} deep");
            return refuse(include, what, "include it higher up", findings);
        }
        if self.files.len() >= MAX_FILES {
            let what = format!("{shown} is one file too many: at most {MAX_FILES}");
            return refuse(include, what, "check the pattern", findings);
        }
        let bytes = match read(path, &mut self.left) {
            Ok(bytes) => bytes,
            Err(error) => {
                let (what, cure) = error.of_include();
                return refuse(include, format!("{shown} {what}"), cure, findings);
            }
        };
        match utf8(path, &bytes) {
            Ok(text) => {
                self.files.push(text);
                include.line.push(canonical);
                self.follow(self.files.len() - 1, include.line, findings);
                include.line.pop();
            }
            Err(problem) => findings.file_error(*problem),
        }
    }
}

fn refuse(include: &Include<'_>, what: String, cure: &str, findings: &mut Findings) {
    findings.incomplete = true;
    findings.error(include.span, include.key.clone(), what).help(cure);
}

/// The includes of a text, with their places; none if its syntax is wrong, which is reported later.
fn includes(text: &str, file: usize, findings: &mut Findings) -> Vec<Placed<String>> {
    if !text.contains("include") && !text.contains('\\') {
        return Vec::new(); // spares most files a second parse
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.iter().any(|error| error.message() != DUPLICATE) {
        return Vec::new();
    }
    Table::root(root.get_ref(), file).texts("include", findings, pattern).unwrap_or_default()
}

/// A path or a pattern.
pub(super) fn pattern(text: &str) -> Result<String, Fault> {
    file(text)?;
    if text.contains("**") {
        return fault("has a `**`, which is not understood", "write one `*` for each folder");
    }
    Ok(text.to_owned())
}

/// Why a file could not be read.
enum Unread {
    Io(io::Error),
    TooLarge,
}

impl Unread {
    fn of_main(&self) -> (String, &'static str) {
        match self {
            Unread::Io(error) => (
                format!("the configuration file can't be read: {error}"),
                "name a file that exists and that this user may read",
            ),
            Unread::TooLarge => (too_large(), "check that this is the configuration file"),
        }
    }

    fn of_include(&self) -> (String, &'static str) {
        match self {
            Unread::Io(error) => {
                (format!("can't be read: {error}"), "name a file that this user may read")
            }
            Unread::TooLarge => {
                let limit = MAX_FILE_BYTES / 1024 / 1024;
                (format!("makes the configuration larger than {limit} MiB"), "check the path")
            }
        }
    }
}

pub(super) fn too_large() -> String {
    format!("the file is larger than {} MiB", MAX_FILE_BYTES / 1024 / 1024)
}

/// Reads a file of at most `left` bytes, which become fewer by its own. A file that says that it
/// is larger is not read at all; nor is what is no file: a pipe would wait for a writer, and could
/// not be read again by a reload.
fn read(path: &Path, left: &mut u64) -> Result<Vec<u8>, Unread> {
    if !path.metadata().map_err(Unread::Io)?.is_file() {
        return Err(Unread::Io(io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(Unread::Io)?;
    let size = file.metadata().map_err(Unread::Io)?.len();
    let mut bytes = Vec::new();
    if size <= *left {
        file.take(*left + 1).read_to_end(&mut bytes).map_err(Unread::Io)?;
    }
    let read = (bytes.len() as u64).max(size);
    *left = left.checked_sub(read).ok_or(Unread::TooLarge)?;
    Ok(bytes)
}

fn utf8(path: &Path, bytes: &[u8]) -> Result<Text, Box<Problem>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Text::new(path, text)),
        Err(error) => {
            let sound = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let sound = String::from_utf8_lossy(sound);
            let sound = sound.strip_prefix('\u{feff}').unwrap_or(&sound);
            let line = sound.rsplit('\n').next().unwrap_or_default();
            let what = "this is not UTF-8 text".to_owned();
            let name = path.display().to_string();
            let mut problem = Problem::of_file(&name, what, "save the file as UTF-8");
            problem.line = 1 + sound.matches('\n').count();
            problem.column = 1 + line.chars().count();
            Err(Box::new(problem))
        }
    }
}
