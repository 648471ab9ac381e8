//! Jobs of several runs: two sides in turn, the knee, drills; as a library and as commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "common/command.rs"]
mod command;
#[path = "common/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use command::{loadgen, text};
use server::{hanging_after, plan};
use weir_loadgen::drill::{self, Deed, Drill, Kind};
use weir_loadgen::knee::{self, Search};
use weir_loadgen::verdict::FailIf;
use weir_loadgen::{Control, Delay, Length, OriginSpec, Origins, Plan, RunError, rounds};

const MS: Duration = Duration::from_millis(1);

fn origin(delay: Delay) -> Origins {
    Origins::start(None, vec![OriginSpec { delay, ..OriginSpec::new("a") }]).unwrap()
}

fn slo(text: &str) -> Vec<FailIf> {
    vec![FailIf::parse(text).unwrap()]
}

/// A sweep as a command: the best file is copied, and nothing when there is none. The program that
/// it starts is a member, whose flags are its file.
#[test]
fn the_best_file_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let (weir, good, bad, best) = (path("weir"), path("good"), path("bad"), path("best"));
    let program = assert_cmd::cargo::cargo_bin!("loadgen").display().to_string();
    std::fs::write(&weir, format!("#!/bin/sh\nexec {program} serve $(cat \"$3\")\n")).unwrap();
    let may_run = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&weir, may_run).unwrap();
    std::fs::write(&good, format!("--listen {addr}\n")).unwrap();
    std::fs::write(&bad, format!("--listen {addr} --error-rate 1\n")).unwrap();
    let url = format!("http://{addr}/");
    let sweep = |configs: &[&str]| {
        let (configs, more) = match configs.iter().position(|word| *word == "--json") {
            Some(at) => configs.split_at(at),
            None => (configs, &[][..]),
        };
        let job = ["sweep", &url, "--weir", &weir, "--slo", "p99<5s", "--slo", "errors<1"];
        let rates = ["--from", "100", "--most", "100", "--duration", "1s", "--warmup", "0s"];
        let files = configs.iter().flat_map(|config| ["--config", config]).collect::<Vec<_>>();
        loadgen(&[&job[..], &rates[..], &files[..], more, &["--write-best", &best]].concat())
    };
    let out = sweep(&[&bad]);
    assert_eq!(out.status.code(), Some(3), "{}{}", text(&out.stdout), text(&out.stderr));
    assert!(!std::path::Path::new(&best).exists());
    let out = sweep(&[&bad, &good]);
    assert_eq!(out.status.code(), Some(0), "{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!(std::fs::read_to_string(&best).unwrap(), format!("--listen {addr}\n"));
    assert!(text(&out.stdout).contains("good  ← best"), "{}", text(&out.stdout));
    // Two that can do it have to show it in turn.
    let also = path("also");
    std::fs::write(&also, format!("--listen {addr} --delay 1ms\n")).unwrap();
    let out = sweep(&[&good, &bad, &also, "--json", "-"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{json}");
    let finals = &json["finals"];
    let turns = finals["tries"].as_array().unwrap();
    assert!(turns.iter().all(|turns| turns.as_array().unwrap().len() == 5), "{finals}");
    assert!(finals["verdict"].as_str().unwrap().contains("in turn at 100 requests"), "{finals}");
    let winner = finals["winner"].as_u64().unwrap_or(0) as usize;
    assert_eq!(json["best"], finals["configs"][winner]);
    let written = std::fs::read_to_string(&best).unwrap();
    assert_eq!(written, std::fs::read_to_string(json["best"].as_str().unwrap()).unwrap());
}

#[test]
fn two_sides_in_turn_show_what_one_adds() {
    let (slow, quick) = (origin(Delay::Fixed(5 * MS)), origin(Delay::None));
    let (through, direct) = (plan(slow.addrs()[0], 2, 60), plan(quick.addrs()[0], 2, 60));
    let mut told = Vec::new();
    let sides = rounds::run(&through, &direct, 3, &Control::default(), &mut |label, _, _| {
        told.push(label.to_string());
    });
    let sides = sides.unwrap();
    assert_eq!((sides.rounds.len(), sides.errors()), (3, 0));
    assert_eq!((slow.requests(0), quick.requests(0)), (180, 180));
    let p50 = sides.added[0].1;
    assert!(p50.low > 0.003 && p50.median > 0.004, "{:?}", sides.added);
    assert!(sides.to_text().contains("added latency, p50"));
    let stopped = Control::default();
    stopped.stop();
    let error = rounds::run(&through, &direct, 3, &stopped, &mut |_, _, _| {}).unwrap_err();
    assert!(matches!(error, RunError::Stopped));
}

#[test]
fn the_knee_of_a_target_that_bears_so_much() {
    // Four connections at 10 ms an answer: at most 400 a second.
    let origins = origin(Delay::Fixed(10 * MS));
    let mut plan = plan(origins.addrs()[0], 4, 0);
    plan.length = Length::Duration(500 * MS);
    let search = Search::new(50, 0.25, 1 << 30);
    let found = knee::search(&plan, &slo("p99<2s"), search, &Control::default(), &mut |_, _, _| {});
    let knee = found.unwrap();
    let (met, missed) = (knee.rate.unwrap(), knee.missed.unwrap());
    assert!((50..=404).contains(&met) && missed > met, "{knee:?}");
    assert!(knee.to_text().contains("The objective holds up to"));
    let none = Search::new(256, 0.25, 1 << 30);
    let knee = knee::search(&plan, &slo("p50<1us"), none, &Control::default(), &mut |_, _, _| {});
    let knee = knee.unwrap();
    assert_eq!(knee.rate, None);
    // At 128 a second it would be 64 requests, which say nothing of a percentile.
    assert_eq!(knee.tries.iter().map(|tried| tried.asked).collect::<Vec<_>>(), [256, 256]);
    // It is in the report of both runs.
    assert!(knee.notes.iter().any(|note| note.contains("shorter than a second")), "{knee:?}");
    let text = knee.to_text();
    for part in ["not p50<1us: ", "the nearest was 256 requests", "like --slo 'p50<"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// Who sheds half of its requests with quick errors has no knee there.
#[test]
fn a_target_that_fails_half_meets_no_objective_of_latency() {
    let spec = OriginSpec { error_rate: 0.5, ..OriginSpec::new("a") };
    let origins = Origins::start(None, vec![spec]).unwrap();
    let mut plan = plan(origins.addrs()[0], 4, 0);
    plan.length = Length::Duration(500 * MS);
    let knee = |slo: &[FailIf]| {
        let search = Search::new(250, 0.25, 250);
        knee::search(&plan, slo, search, &Control::default(), &mut |_, _, _| {}).unwrap()
    };
    let shed = knee(&slo("p99<2s"));
    assert_eq!((shed.rate, shed.slo.join(" ").as_str()), (None, "p99<2s errors<1%"));
    assert!(shed.tries.iter().all(|tried| tried.achieved < 200.0 && !tried.met), "{shed:?}");
    assert_eq!(knee(&slo("errors<90%")).rate, Some(250));
}

/// What else the machine does once is no reason to give a rate up.
#[test]
fn a_rate_that_missed_once_is_tried_again() {
    let origins = origin(Delay::Fixed(50 * MS));
    let mut plan = plan(origins.addrs()[0], 4, 0);
    plan.length = Length::Duration(1500 * MS);
    let mut tried = 0;
    let control = Control::default();
    // In the first try the member loses what it is about to answer.
    let found = knee::search(
        &plan,
        &slo("errors<1"),
        Search::new(40, 0.5, 40),
        &control,
        &mut |_, _, _| {
            tried += 1;
            if tried == 1 {
                origins.kill(0).unwrap();
                origins.revive(0).unwrap();
            }
        },
    );
    let knee = found.unwrap();
    let met: Vec<(u64, bool)> = knee.tries.iter().map(|tried| (tried.asked, tried.met)).collect();
    assert_eq!(met, [(40, false), (40, true), (40, true)], "{knee:?}");
    assert_eq!(knee.rate, Some(40));
}

#[test]
fn a_stopped_search_tells_what_it_has() {
    let origins = origin(Delay::None);
    let mut plan = plan(origins.addrs()[0], 2, 0);
    plan.length = Length::Duration(1500 * MS);
    let control = Arc::new(Control::default());
    let stopper = Arc::clone(&control);
    let search = Search::new(10, 0.05, 1 << 30);
    let mut seconds = 0;
    let knee = knee::search(&plan, &slo("p99<2s"), search, &control, &mut |_, _, _| {
        seconds += 1;
        if seconds == 3 {
            stopper.stop();
        }
    });
    let knee = knee.unwrap();
    assert_eq!(knee.tries.len(), 1, "{knee:?}");
    assert!(knee.notes[0].contains("stopped early"));
}

/// What a run has asked when it is to finish is answered or has failed: nothing is left out.
#[test]
fn a_run_that_finishes_knows_what_became_of_everything() {
    let slow = origin(Delay::Fixed(300 * MS));
    // Connections come about; nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let finish = |addr| {
        let mut plan = plan(addr, 8, 0);
        plan.length = Length::Duration(Duration::from_secs(3_600));
        plan.rate = Some(20);
        plan.timeout = Duration::from_secs(4);
        let control = Control::default();
        control.run(&plan, &mut |_, _| control.finish())
    };
    let answered = finish(slow.addrs()[0]).unwrap();
    assert!(answered.stopped_early && answered.requests > 0, "{answered:?}");
    assert_eq!((answered.unfinished, answered.errors.total), (0, 0), "{answered:?}");
    assert_eq!(answered.requests, slow.requests(0));
    match finish(silent.local_addr().unwrap()).unwrap_err() {
        RunError::NoAnswer { tried, cause, .. } => {
            assert!(tried >= 8 && cause.contains("within the time limit"), "{tried}: {cause}");
        }
        other => panic!("{other}"),
    }
}

fn held(origins: &Origins) -> Plan {
    let mut plan = plan(origins.addrs()[0], 4, 0);
    plan.length = Length::Duration(2500 * MS);
    plan.rate = Some(400);
    plan
}

#[test]
fn a_killed_member_is_seen_by_its_clients() {
    let origins = origin(Delay::None);
    let (deed, undo) = (Deed::Kill, Some(Deed::Revive));
    let drill = Drill { kind: Kind::KillMember, deed, at: 500 * MS, undo, after: 600 * MS };
    let control = Control::default();
    let report =
        drill::run(&held(&origins), &drill, Some(&origins), &control, &mut |_, _| {}).unwrap();
    let view = report.drill.as_ref().unwrap();
    assert_eq!((view.failure.as_deref(), view.lost_before), (None, 0), "{view:?}");
    // Nobody was there for 600 ms, of 400 requests a second.
    assert!(view.lost > 100 && view.lost == report.errors.total + view.never, "{view:?}");
    let after = |time: Option<f64>| time.is_none_or(|time| time > 0.4);
    assert!(view.gap > 0.4 && after(view.detect) && after(view.recover), "{view:?}");
    assert!(view.undone_at.unwrap() > view.at + 0.5);
    for (condition, holds) in [("lost>0", true), ("gap>10s", false), ("recover>100ms", true)] {
        let condition = FailIf::parse(condition).unwrap();
        assert_eq!(condition.holds(&report).is_some(), holds, "{condition}");
    }
    let text = report.to_text();
    assert!(text.contains("drill kill-member") && text.contains("longest gap"), "{text}");
}

/// What is never sent because the target hangs is lost, and nothing has recovered.
#[test]
fn a_target_that_hangs_for_ever_loses_all_that_is_due() {
    let server = hanging_after(100);
    let mut plan = Plan { rate: Some(200), ..plan(server.addr, 4, 0) };
    (plan.length, plan.timeout) = (Length::Duration(2000 * MS), 700 * MS);
    let deed = Deed::Shell("true".to_string());
    let drill = Drill { kind: Kind::Reload, deed, at: 200 * MS, undo: None, after: MS };
    let report = drill::run(&plan, &drill, None, &Control::default(), &mut |_, _| {}).unwrap();
    let view = report.drill.as_ref().unwrap();
    assert_eq!((report.answers, view.lost), (100, 300), "{view:?}");
    assert!(view.never > 200 && view.gap > 1.0, "{view:?}");
    assert_eq!((view.detect, view.recover), (None, None), "{view:?}");
    for condition in ["lost>250", "gap>1s", "detect>168h", "recover>168h"] {
        let condition = FailIf::parse(condition).unwrap();
        assert!(condition.holds(&report).is_some(), "{condition}");
    }
    assert!(FailIf::parse("recover<1h").unwrap().holds(&report).is_none());
    assert_eq!(report.to_text().matches("not within the run").count(), 2);
}

#[test]
fn a_drill_that_can_not_happen_is_told() {
    let origins = origin(Delay::None);
    let deed = Deed::Shell("exit 9".to_string());
    let drill = Drill { kind: Kind::Reload, deed, at: 200 * MS, undo: None, after: MS };
    let mut plan = held(&origins);
    plan.length = Length::Duration(600 * MS);
    let report = drill::run(&plan, &drill, None, &Control::default(), &mut |_, _| {}).unwrap();
    let view = report.drill.unwrap();
    assert!(view.failure.as_ref().unwrap().contains("exit 9"), "{view:?}");
    assert_eq!(view.lost, view.never);
    let late = Drill { at: Duration::from_secs(60), ..drill };
    let report = drill::run(&plan, &late, None, &Control::default(), &mut |_, _| {}).unwrap();
    assert!(report.drill.unwrap().failure.unwrap().contains("ended before"));
}

/// R4.5-1: members inside the program, which the same run loads.
#[test]
fn jobs_as_commands() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap().to_string();
    drop(free);
    let url = format!("http://{addr}/");
    let members = ["--serve", addr.as_str(), "--serve-delay", "1ms", "--warmup", "0s"];
    let with = |args: &[&str]| loadgen(&[args, &members[..]].concat());
    let out = with(&[&url, "--requests", "50", "--connections", "2"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));

    let out = with(&[
        "knee",
        &url,
        "--slo",
        "p99<2s",
        "--from",
        "20",
        "--most",
        "40",
        "--duration",
        "300ms",
        "--json",
        "-",
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let knee: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&knee["schema"], &knee["rate"]), (&"weir-loadgen-knee/1".into(), &40.into()));

    let drill = ["drill", "kill-member", &url, "--rate", "200", "--duration", "1500ms"];
    let when = ["--at", "300ms", "--undo-after", "300ms", "--fail-if", "lost>0"];
    let out = with(&[&drill[..], &when[..]].concat());
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("time to recover"), "{}", text(&out.stdout));

    let sides = [&url, "--direct", &url, "--rounds", "2", "--requests", "40"];
    let out = with(&[&sides[..], &["--fail-if", "added.mean>60s"]].concat());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("2 rounds in turn"));
    let out = with(&[&sides[..], &["--fail-if", "added.mean<60s"]].concat());
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
}
