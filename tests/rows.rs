//! Checks that `tests/rows.toml` accounts for every row of `docs/requirements.md`, and that what it
//! names exists. Owns the check, not the rows; run by `cargo test`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot read its input fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

/// Work that comes after the numbered issues.
const BATCHES: [&str; 4] = ["admin API", "diagnose", "limits", "documentation"];
/// The row ids that a test names have to be near it: in the same file.
const KINDS: [&str; 4] = ["test", "doc", "later", "na"];

/// Reads a file of the project by its path from the root; `None` when there is none.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

#[test]
fn every_requirement_row_is_accounted_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let requirements = read("docs/requirements.md").expect("docs/requirements.md");
    let rows: Table = read("tests/rows.toml").expect("tests/rows.toml").parse().expect("TOML");
    let found = problems(&requirements, &rows, &read);
    assert!(found.is_empty(), "{} problems:\n{}", found.len(), found.join("\n"));
    println!("{}", summary(&rows));
}

/// All that is wrong with `rows`, one line each.
fn problems(requirements: &str, rows: &Table, read: Read<'_>) -> Vec<String> {
    let required: BTreeSet<&str> = requirements.lines().filter_map(row_id).collect();
    let listed: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    let missing = required.difference(&listed).map(|id| format!("{id}: not in rows.toml"));
    let unknown = listed.difference(&required).map(|id| format!("{id}: no such requirement"));
    let wrong = rows.iter().flat_map(|(id, value)| {
        row_problems(id, value, read).into_iter().map(move |what| format!("{id}: {what}"))
    });
    missing.chain(unknown).chain(wrong).collect()
}

/// The id in the first cell of a table line.
fn row_id(line: &str) -> Option<&str> {
    let cell = line.strip_prefix('|')?.split('|').next()?.trim();
    let (section, number) = cell.strip_prefix('R')?.rsplit_once('-')?;
    let numeric = !section.is_empty() && section.chars().all(|c| c.is_ascii_digit() || c == '.');
    let word = !number.is_empty() && number.chars().all(|c| c.is_ascii_alphanumeric());
    (numeric && word).then_some(cell)
}

/// What is wrong with one entry.
fn row_problems(id: &str, value: &Value, read: Read<'_>) -> Vec<String> {
    let Some((kind, value)) = only_entry(value) else {
        return vec![format!("exactly one of {} is needed", KINDS.join(", "))];
    };
    match kind {
        "test" => tests_problems(id, value, read),
        "doc" => text(value, |anchor| doc_problem(anchor, read)),
        "later" => text(value, later_problem),
        "na" => text(value, |reason| reason.is_empty().then(|| "no reason given".to_owned())),
        other => vec![format!("unknown key `{other}`")],
    }
}

/// Key and value of a table that has just one.
fn only_entry(value: &Value) -> Option<(&str, &Value)> {
    let table = value.as_table().filter(|table| table.len() == 1)?;
    table.iter().next().map(|(key, value)| (key.as_str(), value))
}

/// Applies `check` to a string; anything else is wrong.
fn text(value: &Value, check: impl Fn(&str) -> Option<String>) -> Vec<String> {
    match value.as_str() {
        Some(text) => check(text).into_iter().collect(),
        None => vec!["a string is needed".to_owned()],
    }
}

/// Checks one test name or a list of them.
fn tests_problems(id: &str, value: &Value, read: Read<'_>) -> Vec<String> {
    match value.as_array() {
        Some(list) if list.is_empty() => vec!["an empty list of tests".to_owned()],
        Some(list) => {
            list.iter().flat_map(|one| text(one, |name| test_problem(id, name, read))).collect()
        }
        None => text(value, |name| test_problem(id, name, read)),
    }
}

/// A test has to exist, and its file has to name the row.
fn test_problem(id: &str, place: &str, read: Read<'_>) -> Option<String> {
    let Some((path, name)) = place.split_once("::") else {
        return Some(format!("`{place}` is not path::name"));
    };
    let Some(source) = read(path) else {
        return Some(format!("no file `{path}`"));
    };
    if !source.contains(&format!("fn {name}(")) {
        return Some(format!("`{path}` has no test `{name}`"));
    }
    (!names_row(&source, id)).then(|| format!("`{path}` does not name the row"))
}

/// True when `source` holds `id` as a whole word.
fn names_row(source: &str, id: &str) -> bool {
    source.match_indices(id).any(|(at, _)| {
        let after = source[at + id.len()..].chars().next();
        !after.is_some_and(|c| c.is_ascii_alphanumeric())
    })
}

/// The file has to have a heading with that anchor.
fn doc_problem(place: &str, read: Read<'_>) -> Option<String> {
    let Some((path, anchor)) = place.split_once('#') else {
        return Some(format!("`{place}` is not file.md#anchor"));
    };
    let Some(page) = read(path) else {
        return Some(format!("no file `{path}`"));
    };
    let found = page.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
    (!found).then(|| format!("`{path}` has no heading `#{anchor}`"))
}

/// The anchor that a Markdown heading gets.
fn slug(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter_map(|c| match c {
        ' ' | '-' => Some('-'),
        c if c.is_alphanumeric() || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

/// Somebody has to be named who builds it.
fn later_problem(who: &str) -> Option<String> {
    let issue = who.strip_prefix("issue ").is_some_and(|n| n.parse::<u32>().is_ok());
    let batch = who.strip_prefix("batch ").is_some_and(|name| BATCHES.contains(&name));
    (!issue && !batch).then(|| format!("`{who}` is neither `issue N` nor a known batch"))
}

/// How many rows stand where.
fn summary(rows: &Table) -> String {
    let count = |kind: &str| rows.values().filter(|v| v.get(kind).is_some()).count();
    let counts: Vec<String> = KINDS.iter().map(|kind| format!("{kind} {}", count(kind))).collect();
    format!("{} rows: {}", rows.len(), counts.join(", "))
}

/// What the checker says about `rows` in a project of one requirement and one test file.
fn judged(rows: &str) -> Vec<String> {
    let requirements = "| Id | K |\n|---|---|\n| R1-1 | M |\n| Retry | next |\n";
    let read = |path: &str| match path {
        "a.rs" => Some("// R1-1\n#[test]\nfn holds() {}\n".to_owned()),
        "b.rs" => Some("// R1-12\n#[test]\nfn holds() {}\n".to_owned()),
        "d.md" => Some("# What it's for\n".to_owned()),
        _ => None,
    };
    problems(requirements, &rows.parse().unwrap(), &read)
}

#[test]
fn good_rows_have_no_problem() {
    for good in [
        r#""R1-1" = { test = "a.rs::holds" }"#,
        r#""R1-1" = { test = ["a.rs::holds"] }"#,
        r#""R1-1" = { doc = "d.md#what-its-for" }"#,
        r#""R1-1" = { later = "issue 3" }"#,
        r#""R1-1" = { later = "batch limits" }"#,
        r#""R1-1" = { na = "no cloud" }"#,
    ] {
        assert_eq!(judged(good), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn each_mistake_is_named() {
    for (rows, expected) in [
        ("", "R1-1: not in rows.toml"),
        (
            r#""R1-1" = { na = "x" }
            "R1-2" = { na = "x" }"#,
            "R1-2: no such requirement",
        ),
        (r#""R1-1" = { na = "x", later = "issue 3" }"#, "R1-1: exactly one of"),
        (r#""R1-1" = { test = "a.rs::gone" }"#, "R1-1: `a.rs` has no test `gone`"),
        (r#""R1-1" = { test = "c.rs::holds" }"#, "R1-1: no file `c.rs`"),
        (r#""R1-1" = { test = "b.rs::holds" }"#, "R1-1: `b.rs` does not name the row"),
        (r#""R1-1" = { test = [] }"#, "R1-1: an empty list of tests"),
        (r#""R1-1" = { doc = "d.md#gone" }"#, "R1-1: `d.md` has no heading `#gone`"),
        (r#""R1-1" = { later = "someday" }"#, "R1-1: `someday` is neither"),
        (r#""R1-1" = { na = "" }"#, "R1-1: no reason given"),
    ] {
        let found = judged(rows);
        assert!(found.iter().any(|line| line.starts_with(expected)), "{rows}: {found:?}");
    }
}
