//! Drills as a user meets them: what they replace, what they put back, and what they say when they
//! can't. A script stands in the place of Weir's program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "common/certs.rs"]
mod certs;
#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/running.rs"]
mod running;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use certs::Files;
use command::{command, loadgen, text};
use common::until;
use running::{Running, origin, signal};
use weir_core::time::clock::mono;
use weir_loadgen::{OriginSpec, OriginTls, Origins};

/// The command of a drill of the member `m` of a file, with a script in the place of Weir.
fn drain(folder: &Path, url: &str, script: &str) -> Command {
    let (config, weir) = (folder.join("weir.toml"), folder.join("weir"));
    let member = "{ name = 'm', address = '::1', protocol_port = 80 }";
    fs::write(&config, format!("[[pool]]\nname = 'p'\nmembers = [{member}]\n")).unwrap();
    fs::write(&weir, format!("#!/bin/sh\ncd \"${{0%/*}}\"\n{script}\n")).unwrap();
    fs::set_permissions(&weir, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command();
    command.args(["drill", "drain", url, "--member", "m", "--rate", "100", "--warmup", "0s"]);
    command.args(["--at", "0s", "--undo-after", "200ms", "-q", "--config"]).arg(config);
    command.arg("--weir").arg(weir);
    command
}

#[test]
fn what_a_drill_can_not_undo_is_told_beside_its_figures() {
    let ((_origins, url), folder) = (origin(), tempfile::tempdir().unwrap());
    // Reloads once, and never again.
    let mut drill = drain(folder.path(), &url, "mkdir once || { echo no more >&2; exit 7; }");
    let former = fs::read(folder.path().join("weir.toml")).unwrap();
    let out = drill.args(["--duration", "1s", "--fail-if", "lost>0"]).output().unwrap();
    let (report, told) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("was not undone") && told.contains("no more"), "{told}");
    assert!(report.contains("NOT UNDONE") && report.contains("longest gap"), "{report}");
    assert_eq!(fs::read(folder.path().join("weir.toml")).unwrap(), former);
    assert!(!folder.path().join("weir.toml.before-drill").exists());
    // The verdict is judged, and says more than that.
    fs::remove_dir(folder.path().join("once")).unwrap();
    let out = drill.args(["--fail-if", "p50>0s"]).output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
}

#[test]
fn a_drill_that_is_ended_at_once_keeps_what_it_replaced() {
    let ((_origins, url), folder) = (origin(), tempfile::tempdir().unwrap());
    let place = |name: &str| folder.path().join(name);
    fs::write(place("hold"), "").unwrap();
    let script = "touch begun; while [ -e hold ]; do sleep 0.05; done; touch ended";
    let mut drill = drain(folder.path(), &url, script);
    let former = fs::read(place("weir.toml")).unwrap();
    drill.args(["--duration", "600s"]).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = Running(drill.spawn().unwrap());
    until("the reload", || place("begun").exists());
    signal(&child.0, "INT");
    signal(&child.0, "TERM");
    let code = child.0.wait().unwrap().code();
    fs::remove_file(place("hold")).unwrap();
    let mut told = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    until("the script's end", || place("ended").exists());
    assert_eq!(code, Some(130), "{told}");
    assert!(told.contains("weir.toml.before-drill"), "{told}");
    assert_ne!(fs::read(place("weir.toml")).unwrap(), former);
    assert_eq!(fs::read(place("weir.toml.before-drill")).unwrap(), former);
}

#[test]
fn what_somebody_writes_during_a_drill_stays() {
    let ((_origins, url), folder) = (origin(), tempfile::tempdir().unwrap());
    // Whoever is asked to reload has something to add.
    let mut drill = drain(folder.path(), &url, "echo '# of an operator' >> weir.toml");
    let (config, kept) =
        (folder.path().join("weir.toml"), folder.path().join("weir.toml.before-drill"));
    let former = fs::read_to_string(&config).unwrap();
    let out = drill.args(["--duration", "1s"]).output().unwrap();
    let (report, told) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("somebody else has changed"), "{told}");
    assert!(told.contains(kept.to_str().unwrap()), "{told}");
    assert!(report.contains("NOT UNDONE") && report.contains("longest gap"), "{report}");
    let now = fs::read_to_string(&config).unwrap();
    assert!(now.ends_with("# of an operator\n") && now.contains("weight = 0"), "{now}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), former);
}

#[test]
fn what_a_drill_has_left_is_told_before_the_load() {
    let ((_origins, url), folder) = (origin(), tempfile::tempdir().unwrap());
    let mut drill = drain(folder.path(), &url, "touch begun");
    fs::write(folder.path().join("weir.toml.before-drill"), "left").unwrap();
    let out = drill.args(["--duration", "600s"]).output().unwrap();
    let told = text(&out.stderr);
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(4), ""), "{told}");
    assert!(told.contains("weir.toml.before-drill is left of a drill"), "{told}");
    assert!(!folder.path().join("begun").exists());
}

#[test]
fn a_certificate_that_is_not_shown_is_told_before_the_load() {
    let [shown, other, new] = ["a.example"; 3].map(|name| Files::new(&[name]));
    let (_origins, url) = steadfast(&shown);
    let mut command = command();
    command.args(["drill", "rotate-cert", &url, "--insecure", "--rate", "50"]);
    for (flag, path) in [
        ("--certificate", &other.chain),
        ("--private-key", &other.key),
        ("--new-certificate", &new.chain),
        ("--new-private-key", &new.key),
    ] {
        command.arg(flag).arg(path);
    }
    let before = fs::read(&other.chain).unwrap();
    let out = command.args(["--duration", "600s"]).output().unwrap();
    let told = text(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{told}");
    assert!(told.contains("shows another certificate than the one given"), "{told}");
    assert_eq!(fs::read(&other.chain).unwrap(), before);
}

/// A member inside TLS that goes on showing its first certificate, whatever stands in its files.
fn steadfast(files: &Files) -> (Origins, String) {
    let tls = OriginTls { certificate: files.chain.clone(), private_key: files.key.clone() };
    let spec = OriginSpec { tls: Some(tls), ..OriginSpec::new("a") };
    let origins = Origins::start(None, vec![spec]).unwrap();
    let url = format!("https://{}/", origins.addrs()[0]);
    (origins, url)
}

#[test]
fn an_interrupt_ends_the_wait_for_a_certificate() {
    let [files, new] = ["a.example", "b.example"].map(|name| Files::new(&[name]));
    let (_origins, url) = steadfast(&files);
    let pair = [&files.chain, &files.key].map(|path| (path.clone(), fs::read(path).unwrap()));
    let mut command = command();
    command.args(["drill", "rotate-cert", &url, "--insecure", "--rate", "50", "--warmup", "0s"]);
    command.args(["--at", "100ms", "--duration", "600s", "--json", "-", "-q"]);
    for (flag, path) in [
        ("--certificate", &files.chain),
        ("--private-key", &files.key),
        ("--new-certificate", &new.chain),
        ("--new-private-key", &new.key),
    ] {
        command.arg(flag).arg(path);
    }
    let mut child = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let issued = fs::read(&new.chain).unwrap();
    until("the new pair in its place", || fs::read(&files.chain).unwrap() == issued);
    let begun = mono();
    signal(&child.0, "INT");
    let mut out = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130), "{out}");
    // Half of what it takes to give up; twice, since the former pair is waited for, too.
    assert!(mono().since(begun) < Duration::from_secs(15), "{:?}", mono().since(begun));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["stopped_early"], true);
    let failure = json["drill"]["failure"].as_str().unwrap();
    assert!(failure.contains("stopped before the certificate"), "{failure}");
    for (path, former) in &pair {
        assert_eq!(&fs::read(path).unwrap(), former, "{}", path.display());
        let kept = format!("{}.before-drill", path.display());
        assert!(!Path::new(&kept).exists(), "{kept}");
    }
}

#[test]
fn what_a_command_did_is_undone_although_the_run_ended_first() {
    let ((_origins, url), folder) = (origin(), tempfile::tempdir().unwrap());
    let place = |name: &str| folder.path().join(name);
    let [did, undid] = ["did", "undid"].map(|name| format!("touch {}", place(name).display()));
    let drill = ["drill", "reload", &url, "--rate", "50", "--warmup", "0s", "--at", "0s"];
    let length = ["--undo-after", "60s", "--duration", "500ms", "-q", "--json", "-"];
    let out = loadgen(&[&drill[..], &length, &["--do", &did, "--undo", &undid]].concat());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(place("did").exists() && place("undid").exists());
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(json["drill"]["undone_at"].is_null(), "not within the run: {}", json["drill"]);
}
