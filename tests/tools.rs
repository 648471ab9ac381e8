//! The project's own tools have to be able to say no: the runner of test binaries where nothing
//! ran or something is stuck, and the judge of loadgen where requests failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use process::line::is_alive;
use process::{run, until};

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `tests/binaries` with these arguments, where the one test binary there is does as `body` says;
/// it has one test. In place of a build stands a program that names it.
fn binaries(folder: &Path, body: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let binary = folder.join("test-binary");
    script(
        &binary,
        &format!(
            "cd {}\n[ \"$1\" = --list ] && echo a::one: test && exit\n{body}",
            folder.display()
        ),
    );
    let message = serde_json::json!({
        "reason": "compiler-artifact",
        "package_id": "path+file:///nowhere#fake@0.1.0",
        "manifest_path": folder.join("Cargo.toml"),
        "target": {"name": "only", "kind": ["test"]},
        "profile": {"test": true},
        "executable": binary,
    });
    fs::write(folder.join("messages"), format!("{message}\n")).unwrap();
    script(&folder.join("cargo"), &format!("exec cat {}", folder.join("messages").display()));
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/binaries");
    run(Command::new(program).env("PATH", path).arg("fake/only").args(args))
}

#[test]
fn a_filter_that_meets_no_test_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = binaries(folder.path(), "echo ran > ran", &["--", "one", "two"]);
    assert_eq!(code, Some(2), "{out}{err}");
    assert!(err.contains("no test's name contains two"), "{err}");
    assert!(!folder.path().join("ran").exists());
    let (code, out, err) = binaries(folder.path(), "echo \"$@\" > ran", &["--", "one", "a::"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(fs::read_to_string(folder.path().join("ran")).unwrap(), "one a::\n");
}

#[test]
fn a_stuck_binary_ends_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    // One child is its own, one leads a session, and one has lost its parent.
    let body = "sleep 600 & echo $! > near\nsetsid sleep 600 & echo $! > far\n\
                sh -c 'sleep 600 & echo $! > orphan'\nwait";
    let (code, out, err) = binaries(folder.path(), body, &["--patience", "2"]);
    let pids = ["near", "far", "orphan"].map(|name| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        text.trim().parse::<u32>().unwrap()
    });
    let left: Vec<u32> = pids.into_iter().filter(|&pid| is_alive(pid)).collect();
    for pid in &left {
        process::signal(*pid, "KILL");
    }
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("ended, since it took more than 2 s"), "{out}");
    assert!(left.is_empty(), "{left:?} of {pids:?}");
    // So does one that fails: what it leaves would disturb the next.
    let body = "sleep 600 & echo $! > near\nexit 1";
    let (code, out, err) = binaries(folder.path(), body, &[]);
    assert_eq!(code, Some(1), "{out}{err}");
    let pid = fs::read_to_string(folder.path().join("near")).unwrap().trim().parse().unwrap();
    until("its end", || !is_alive(pid));
}

#[test]
fn a_run_with_errors_holds_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = fs::read_to_string(root.join("benches/accuracy/runs/third.json")).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rows = |kept: &serde_json::Value| {
        let path = folder.path().join("run.json");
        fs::write(&path, kept.to_string()).unwrap();
        let program = root.join("benches/accuracy/run");
        let (code, out, err) = run(Command::new(program).arg("--render").arg(path));
        assert_eq!(code, Some(0), "{err}");
        let of_cost = ["throughput", "own CPU", "no request failed"];
        let rows = out.lines().filter(|line| of_cost.iter().any(|what| line.contains(what)));
        rows.map(str::to_string).collect::<Vec<_>>()
    };
    let clean = rows(&kept);
    assert!(clean.len() == 2 && clean.iter().all(|row| row.ends_with("| holds |")), "{clean:#?}");
    for tool in ["wrk", "loadgen"] {
        let samples = kept["samples"].as_array_mut().unwrap();
        let of_tool = |s: &&mut serde_json::Value| s["check"] == "cost" && s["name"] == tool;
        samples.iter_mut().find(of_tool).unwrap()["errors"] = 3.into();
        let judged = rows(&kept);
        assert_eq!(judged.len(), 3, "{judged:#?}");
        assert!(judged.iter().all(|row| row.ends_with("| MISSED |")), "{judged:#?}");
        assert!(judged[0].contains(&format!("3 of {tool}'s")), "{judged:#?}");
        let samples = kept["samples"].as_array_mut().unwrap();
        samples.iter_mut().for_each(|sample| sample["errors"] = 0.into());
    }
}
