//! Clients that mean harm (`floods.py`): each is stopped, costs little memory, and harms nobody
//! beside it. The codes are those that the client is told; the reasons are the log's.

use std::thread;

use crate::process::{Server, address_after, python, run};
use crate::serve::h2load;
use crate::{Front, Origin};

/// Connections that flood at a time.
const CONNECTIONS: usize = 4;
/// KiB by which one flood that is told off may let the process grow …
const GROWTH: u64 = 16 * 1024;
/// … and all, with those that make it hold bodies: two shards' receive buffers are 192 MiB at most.
const GROWTH_IN_ALL: u64 = 224 * 1024;

/// A flood, how it ends (`closed`: without a word), and the reason that the log has.
const FLOODS: [(&str, &str, &str); 19] = [
    ("rapid_reset", "CALM", "too many streams that come to nothing"),
    ("made_to_reset", "CALM", "too many streams that come to nothing"),
    ("malformed", "CALM", "too many streams that come to nothing"),
    ("refused", "CALM", "too many streams that come to nothing"),
    ("continuation", "CALM", "a block of fields that does not end"),
    ("large_continuation", "CALM", "a block of fields that does not end"),
    ("settings", "CALM", "too many frames without use"),
    ("settings_acks", "CALM", "too many frames without use"),
    ("ping", "CALM", "too many frames without use"),
    ("priority", "CALM", "too many frames without use"),
    ("unknown", "CALM", "too many frames without use"),
    ("empty_data", "CALM", "too many frames without use"),
    ("padded_data", "CALM", "too many frames without use"),
    ("window_updates", "CALM", "too many frames without use"),
    ("bomb", "CALM", "a block of fields that is far too large"),
    ("crumbs", "closed", ""),
    ("tiny_windows", "reset", ""),
    ("never_reading", "closed", ""),
    ("pings_unread", "closed", "too many frames without use"),
];

/// Every flood ends as it should, while others are served.
#[test]
fn floods_are_stopped() {
    let member = Origin::start();
    let log = "[log]\nlevel = \"debug\"\n";
    let mut server = Server::start(&(Front::text(member.addr, "client_timeout = 2") + log));
    let addr = address_after(&server.ready, "secure https://");
    let good = |requests: &str| {
        let line = h2load(addr, "/bytes/1000", &["-n", requests, "-c", "2", "-m", "4"]);
        assert!(line.contains(&format!("{requests} succeeded, 0 failed, 0 errored")), "{line}");
    };
    good("1000");
    let before = server.memory("VmRSS");
    for (kind, ending, reason) in FLOODS {
        let held = server.memory("VmRSS");
        let port = addr.port().to_string();
        let mut command = python("tests/h2/floods.py");
        command.args([&port, kind, &CONNECTIONS.to_string()]);
        let flooding = thread::spawn(move || run(&mut command));
        while !flooding.is_finished() {
            good("200");
        }
        let (code, out, err) = flooding.join().unwrap();
        assert_eq!((code, out.lines().count()), (Some(0), CONNECTIONS), "{kind}: {out}{err}");
        let right = out.lines().all(|line| line.starts_with(&format!("{ending} ")));
        assert!(right, "{kind}: {out}{err}");
        if !reason.is_empty() {
            server.line_with(reason);
            let more = server.memory("VmRSS").saturating_sub(held);
            assert!(more < GROWTH, "{kind}: {held} KiB, then {more} more");
        }
    }
    let floods = FLOODS.iter().filter(|(.., reason)| !reason.is_empty()).count() * CONNECTIONS;
    let series = "weir_http2_faults_total{listener=\"secure\",kind=\"flood\"}";
    assert_eq!(server.metric(series), floods as f64);
    good("1000");
    let peak = server.memory("VmHWM");
    assert!(peak < before + GROWTH_IN_ALL, "{before} KiB, then at most {peak}");
}
