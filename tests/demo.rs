//! `weir demo` end to end: it needs no file and no free port in particular, and tells the truth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::process::Command;
use std::time::Duration;

use process::weir;

/// Longest that a demo of three seconds may take here.
const LIMIT: Duration = Duration::from_secs(30);

fn run(command: Command) -> (String, String) {
    let assert = assert_cmd::Command::from_std(command).timeout(LIMIT).assert().success();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&assert.get_output().stdout), text(&assert.get_output().stderr))
}

/// The first number after `words`.
fn number(text: &str, words: &str) -> f64 {
    let rest = text.split_once(words).unwrap_or_else(|| panic!("no `{words}` in:{text}")).1;
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || ",.".contains(*c))
        .filter(|c| *c != ',')
        .collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after `{words}` in:{text}"))
}

#[test]
fn the_demo_reports_speed_shares_and_the_outage() {
    let mut command = weir();
    // Long enough for a machine that other tests keep busy.
    command.args(["demo", "--seconds", "8"]);
    let (report, progress) = run(command);
    assert!(number(&report, "Throughput") > 0.0);
    assert!(report.contains("answers, all good\n  Latency     p50"), "{report}");
    assert!(number(&report, "Balancer") > 0.0, "{report}");
    for (member, due) in [("small", 100.0 / 6.0), ("medium", 100.0 / 3.0), ("large", 50.0)] {
        let line = report.lines().find(|l| l.trim_start().starts_with(member)).unwrap();
        let share = number(line, " = ");
        assert!((share - due).abs() <= 1.0, "{line}");
    }
    // R2.2-1: what the dead member had not begun to answer went to the others.
    assert!(report.contains("What clients noticed  nothing"), "{report}");
    assert!(number(&report, "found it down after") > 0.0, "{report}");
    assert!(report.contains("Back in service       yes"), "{report}");
    assert!(progress.contains("warming up") && progress.contains("killed"), "{progress}");
    assert!(!progress.contains("WARN"), "{progress}");
}

#[test]
fn the_demo_runs_on_a_single_core() {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_weir"), "demo", "--seconds", "3"]);
    let (report, _) = run(command);
    assert!(report.contains("share core 0"), "{report}");
    assert!(number(&report, "Throughput") > 0.0);
}
