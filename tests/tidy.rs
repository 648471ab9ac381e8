//! Reads the project's own files and fails, with file and line, where a written rule is broken.
//!
//! Owns the rules that no lint of the compiler knows: sizes, the runtime's one door, where `unsafe`
//! may stand, what tests may not do. Run by `cargo test`; CONTRIBUTING.md explains the rules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot read its input fails"
)]

use std::fs;
use std::path::Path;

/// Lines of a file, its test module at the end not counted.
const MAX_FILE_LINES: usize = 800;
/// Lines of a function, from `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;
/// Columns of a line.
const MAX_COLUMNS: usize = 100;

/// The one door to the ring and its executor.
const RUNTIME: &str = "core/src/rt/";
/// The runtime's own tests.
const RUNTIME_TESTS: &str = "core/tests/rt/";
/// Words that only the runtime may say; put together here, so that this file does not say them.
const RUNTIME_WORDS: [&str; 2] = [concat!("glom", "mio"), concat!("io", "_uring")];
/// Where `unsafe` may stand; each block there carries its reason.
const UNSAFE_PLACES: [&str; 5] = [
    RUNTIME,
    RUNTIME_TESTS, // raise signals, count allocations
    "core/src/net/sys",
    "core/src/time/clock.rs",    // reads the clock without a system call
    "core/tests/policy_cost.rs", // counts bytes allocated, too
];
/// Folders of one developer's machine, which mean nothing to others.
const PRIVATE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/tmp/", "wt"), concat!("/ro", "ot/")];
/// Notes to oneself; they belong into an issue.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Folders that are not ours or not sources.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];
/// Files of these kinds are read for private paths and notes.
const TEXT_KINDS: [&str; 8] = ["rs", "toml", "md", "py", "sh", "json", "service", "h"];

/// A broken rule: line (from 1) and what is wrong.
type Finding = (usize, String);

#[test]
fn sources_keep_the_written_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(root, root, &mut files);
    assert!(files.iter().any(|file| file == "src/main.rs"), "the walk found no sources");
    let mut broken = Vec::new();
    for file in &files {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        broken.extend(
            findings(file, &text).into_iter().map(|(n, what)| format!("{file}:{n}: {what}")),
        );
    }
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}

/// Paths of all files under `folder` from `root`, ours only, in order.
fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            collect(root, &path, files);
        } else if kind.is_file() {
            files.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        }
    }
}

/// All rules that the file `path` with this text breaks.
fn findings(path: &str, text: &str) -> Vec<Finding> {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    let mut found = Vec::new();
    if kind.is_empty() || TEXT_KINDS.contains(&kind) {
        found.extend(each_line(text, private_or_unfinished));
    }
    if kind == "rs" {
        found.extend(size_findings(text));
        found.extend(opening(text));
        found.extend(each_line(text, |line| source_line(path, line)));
        found.extend(bare_allows(text));
    }
    found.sort();
    found
}

/// Applies a rule to every line.
fn each_line(text: &str, rule: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    (1..).zip(text.lines()).filter_map(|(n, line)| Some((n, rule(line)?))).collect()
}

/// Rules that hold for every kind of text.
fn private_or_unfinished(line: &str) -> Option<String> {
    if let Some(place) = PRIVATE_PATHS.iter().find(|place| line.contains(**place)) {
        return Some(format!("`{place}` is a path of one machine"));
    }
    let word = UNFINISHED.iter().find(|word| has_word(line, word))?;
    Some(format!("`{word}`: finish it or open an issue"))
}

/// Rules for one line of Rust.
fn source_line(path: &str, line: &str) -> Option<String> {
    let columns = line.chars().count();
    if columns > MAX_COLUMNS {
        return Some(format!("{columns} columns, at most {MAX_COLUMNS}"));
    }
    let said = RUNTIME_WORDS.iter().find(|word| line.to_lowercase().contains(**word));
    if let Some(word) =
        said.filter(|_| ![RUNTIME, RUNTIME_TESTS].iter().any(|place| path.starts_with(place)))
    {
        return Some(format!("`{word}` outside {RUNTIME}"));
    }
    let code = line.split("//").next().unwrap_or_default();
    if opens_unsafe(code) && !UNSAFE_PLACES.iter().any(|place| path.starts_with(place)) {
        return Some("`unsafe` here".to_owned());
    }
    if code.contains(concat!("thread::", "sleep")) {
        return Some("a sleeping thread: wait for a condition with a deadline".to_owned());
    }
    code.contains(concat!("#[ig", "nore]")).then(|| "an ignored test without a reason".to_owned())
}

/// True when code (not an attribute that forbids it) opens something unsafe.
fn opens_unsafe(code: &str) -> bool {
    let kinds = [" {", " fn", " impl", " extern", " trait"];
    kinds.iter().any(|kind| code.contains(&format!("{}{kind}", concat!("un", "safe"))))
}

/// True when `word` stands in `line` with no letter or digit beside it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// The file opens with what it owns; an attribute of the whole file may stand before it.
fn opening(text: &str) -> Option<Finding> {
    let attribute = text.strip_prefix("#![").and_then(|rest| rest.split_once(")]\n"));
    let start = attribute.map_or(text, |(_, rest)| rest);
    (!start.starts_with("//!")).then(|| (1, "does not open with `//!`".to_owned()))
}

/// Files and functions that are too long.
fn size_findings(text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|two| {
        two[0] == "#[cfg(test)]" && two[1].starts_with("mod ") && two[1].ends_with('{')
    });
    let production = tests.unwrap_or(lines.len());
    let mut found = Vec::new();
    if production > MAX_FILE_LINES {
        found.push((MAX_FILE_LINES, format!("{production} lines, at most {MAX_FILE_LINES}")));
    }
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| opens_function(line)) {
        let length = function_lines(line, &lines[at..]);
        if length > MAX_FUNCTION_LINES {
            found.push((
                at + 1,
                format!("{length} lines in a function, at most {MAX_FUNCTION_LINES}"),
            ));
        }
    }
    found
}

/// True for the first line of a function.
fn opens_function(line: &str) -> bool {
    let Some(at) = line.find("fn ") else { return false };
    line[..at].split_whitespace().all(|word| {
        word.starts_with("pub")
            || word.starts_with('"')
            || ["const", "async", "extern", concat!("un", "safe"), "crate)", "super)"]
                .contains(&word)
    })
}

/// Lines of the function whose text starts at `rest`: rustfmt puts its closing brace below its
/// `fn`.
fn function_lines(first: &str, rest: &[&str]) -> usize {
    let indent = &first[..first.len() - first.trim_start().len()];
    let close = format!("{indent}}}");
    for (n, line) in rest.iter().enumerate() {
        let bodiless = n == 0 && (line.ends_with(';') || line.ends_with("{}"));
        let declared = line.starts_with(&format!("{indent})")) && line.ends_with(';');
        if bodiless || declared || *line == close {
            return n + 1;
        }
    }
    rest.len()
}

/// Attributes that lift a lint without saying why.
fn bare_allows(text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for opening in [concat!("#[al", "low("), concat!("#![al", "low("), concat!("#[ex", "pect(")] {
        for (at, _) in text.match_indices(opening) {
            let attribute = text[at..].split(")]").next().unwrap_or_default();
            let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let comment = text[line_start..at].contains("//");
            if !comment && !attribute.contains("reason") {
                let line = text[..at].matches('\n').count() + 1;
                found.push((line, "a lint is lifted without a reason".to_owned()));
            }
        }
    }
    found
}

/// The rules broken by a file of this text, without their lines.
fn judged(path: &str, text: &str) -> Vec<String> {
    findings(path, text).into_iter().map(|(_, what)| what).collect()
}

#[test]
fn good_files_break_no_rule() {
    let body = "    x();\n".repeat(MAX_FUNCTION_LINES - 2);
    let good = format!("//! Owns.\npub fn f() {{\n{body}}}\ntrait T {{\n    fn g();\n}}\n");
    assert_eq!(judged("src/a.rs", &good), Vec::<String>::new());
    let long_tests = format!("//! Owns.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(900));
    assert_eq!(judged("src/a.rs", &long_tests), Vec::<String>::new());
    let unsafe_line = format!("//! Owns.\n{} {{ x() }}\n", concat!("un", "safe"));
    assert_eq!(judged("core/src/rt/a.rs", &unsafe_line), Vec::<String>::new());
    let reasoned = format!("//! Owns.\n{}dead_code, reason = \"r\")]\n", concat!("#[al", "low("));
    assert_eq!(judged("src/a.rs", &reasoned), Vec::<String>::new());
    assert_eq!(judged("src/a.rs", "#![cfg(test)]\n//! Owns.\n"), Vec::<String>::new());
}

#[test]
fn each_broken_rule_is_named() {
    let long_function = format!("fn f() {{\n{}}}", "    x();\n".repeat(MAX_FUNCTION_LINES));
    let long_file = "\n".repeat(MAX_FILE_LINES);
    let cases: [(&str, &str, &str); 10] = [
        ("a.rs", &long_function, "72 lines in a function"),
        ("a.rs", &long_file, "802 lines"),
        ("a.rs", &"x".repeat(MAX_COLUMNS + 1), "101 columns"),
        ("l7/src/a.rs", RUNTIME_WORDS[0], "outside core/src/rt/"),
        ("l7/src/a.rs", concat!("un", "safe { x() }"), "`unsafe` here"),
        ("tests/a.rs", concat!("std::thread::", "sleep(d);"), "a sleeping thread"),
        ("tests/a.rs", concat!("#[ig", "nore]"), "an ignored test"),
        ("docs/a.md", concat!("see /ho", "me/me"), "path of one machine"),
        ("tests/run", concat!("# TO", "DO later"), "finish it"),
        ("a.rs", concat!("#[al", "low(dead_code)]"), "without a reason"),
    ];
    for (path, text, expected) in cases {
        let found = judged(path, &format!("//! Owns.\n{text}\n"));
        assert!(found.iter().any(|what| what.contains(expected)), "{path}: {found:?}");
    }
    assert_eq!(judged("a.rs", "fn f() {}\n"), ["does not open with `//!`"]);
}
