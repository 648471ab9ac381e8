//! Reads configuration files: TOML text in, the validated model or every mistake out.
//!
//! A file passes these modules in order: `keys` (what may stand in it) drives `reader` (one value),
//! `document` types every section, `resolve` applies the rules between objects and builds the
//! [`model::Config`](crate::model::Config), `problem` shows what was found. Doesn't look at the
//! machine: whether a core, an address or a folder exists is asked by who uses it. Called by the
//! server (`serve`, `check`, reload) and by tests.

mod bounds;
mod document;
mod keys;
mod problem;
mod reader;
mod reference;
mod resolve;
mod suggest;
mod values;

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use toml::de::DeTable;

use crate::model::Config;
use bounds::MAX_FILE_BYTES;
use document::Document;
use problem::Findings;

pub use problem::{Failure, Problem, Severity};
pub use reference::reference_markdown;

/// Where `[admin]` listens when it doesn't say: loopback only, since it knows no password.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// Folder of the control socket when `[runtime]` doesn't say.
const DEFAULT_RUN_DIR: &str = "/run/weir";

/// What a valid file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The validated configuration.
    pub config: Config,
    /// What is probably not meant so, sorted by place.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file of at most 16 MiB.
///
/// # Errors
/// One problem if the file can't be read, is too large or isn't UTF-8; else every mistake in it,
/// as [`parse`] does.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    let file_name = path.display().to_string();
    let refuse =
        |what: String, cure: &str| Err(Failure::single(Problem::of_file(&file_name, what, cure)));
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let what = format!("the configuration file can't be read: {error}");
        return refuse(what, "name a file that exists and that this user may read");
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return refuse(too_large(), "check that this is the configuration file");
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &file_name),
        Err(error) => {
            let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|b| **b == b'\n').count();
            refuse(format!("line {line} is not UTF-8 text"), "save the file as UTF-8")
        }
    }
}

fn too_large() -> String {
    format!("the file is larger than {} MiB", MAX_FILE_BYTES / 1024 / 1024)
}

/// Checks the text of a configuration; `file_name` is only named in messages.
///
/// # Errors
/// Every mistake in the text, sorted by place. Only errors of TOML's own syntax hide others.
pub fn parse(text: &str, file_name: &str) -> Result<Loaded, Failure> {
    if text.len() as u64 > MAX_FILE_BYTES {
        let cure = "check that this is the configuration file";
        return Err(Failure::single(Problem::of_file(file_name, too_large(), cure)));
    }
    // Some editors write a byte order mark; columns count without it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::default();
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut readable = true;
    for error in &errors {
        // A key that stands twice leaves a sound table; anything else leaves guesses.
        readable &= error.message() == DUPLICATE;
        report_syntax(error, &mut findings);
    }
    let empty = DeTable::new();
    let document = Document::read(if readable { root.get_ref() } else { &empty }, &mut findings);
    let config = resolve::resolve(document, &mut findings);
    let warnings = findings.publish(file_name, text)?;
    Ok(Loaded { config, warnings })
}

/// The TOML crate's words for a key that stands twice.
const DUPLICATE: &str = "duplicate key";

fn report_syntax(error: &toml::de::Error, findings: &mut Findings) {
    let message = error.message().trim_end().replace('\n', "; ");
    let help = match error.message() {
        DUPLICATE => "take one of them out; a section that repeats begins with [[name]]",
        _ => "see https://toml.io for the syntax",
    };
    findings.error(error.span().unwrap_or(0..0), "TOML", message).help(help);
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{Preset, find};

    /// The defaults that aren't numbers stand here as values and in the rows as text.
    #[test]
    fn rows_tell_the_true_defaults() {
        let preset = |section, name| find(section, name).map(|key| key.preset);
        let said = |section, name| match preset(section, name) {
            Some(Preset::Text(text)) => text.trim_matches('"').to_owned(),
            other => panic!("{section} {name}: {other:?}"),
        };
        let config = parse("[admin]\n[[loadbalancer]]\nname = 'x'", "f").unwrap().config;
        assert_eq!(said("admin", "listen"), config.admin.unwrap().listen.to_string());
        assert_eq!(said("runtime", "run_dir"), config.runtime.run_dir.display().to_string());
        assert_eq!(said("runtime", "cores"), "auto");
        assert_eq!(config.runtime.cores, crate::model::CoreChoice::Auto);
        assert_eq!(said("loadbalancer", "flavor"), "dedicated");
        assert_eq!(config.balancers[0].flavor, crate::model::Flavor::Dedicated);
    }
}
