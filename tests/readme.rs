//! What the README promises a newcomer: the configuration that it shows is valid, and so is what it
//! says about the commands. The figures in it are checked by `benches/compare/run --readme check`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot read its input fails"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// The README's text.
fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The first code block of a kind.
fn block<'a>(text: &'a str, kind: &str) -> &'a str {
    let start = text.split_once(&format!("```{kind}\n")).expect("a code block").1;
    start.split_once("```").expect("its end").0
}

#[test]
fn the_shown_configuration_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    fs::write(&path, block(&readme(), "toml")).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["check", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn every_linked_file_exists() {
    let text = readme();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local: Vec<&str> = targets.filter(|target| !target.contains("://")).collect();
    assert!(local.len() >= 5, "the README links only {local:?}");
    for target in local {
        assert!(root.join(target).exists(), "README.md links {target}, which is not there");
    }
}

/// What the README's commands ask on loopback is served by the file that it shows, or started by
/// another of its commands.
#[test]
fn every_address_that_is_asked_is_served() {
    let text = readme();
    let file: toml::Table = block(&text, "toml").parse().unwrap();
    let listener = &file["listener"][0]["protocol_port"];
    let admin = file.get("admin").and_then(|admin| admin.get("listen")).expect("[admin] listen");
    let served = [format!("127.0.0.1:{listener}"), admin.as_str().unwrap().to_owned()];
    let asked: Vec<&str> = text
        .split("http://")
        .skip(1)
        .filter_map(|rest| rest.split(['/', ' ', '`', '\n']).next())
        .filter(|address| address.starts_with("127."))
        .collect();
    assert!(asked.len() >= 3, "the README asks only {asked:?}");
    for address in asked {
        assert!(served.iter().any(|one| one == address), "nothing serves {address}");
    }
    for member in file["pool"][0]["members"].as_array().unwrap() {
        let listen = format!("--listen 127.0.0.1:{}", member["protocol_port"]);
        assert!(text.contains(&listen), "the README starts no member by `{listen}`");
    }
}
