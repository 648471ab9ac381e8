//! Members that die, keep silent or can't be reached, while clients ask on: R2.3-504a, R4.4-5,
//! R6.7-6, R6.7-7, R6.7-11.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use weir_core::time::clock;

use crate::alone;
use crate::nginx::Nginx;
use crate::process::moody::BlackHole;
use crate::process::{Client, Member, Server, config, count, get, sum, until};

const SECOND: Duration = Duration::from_secs(1);

/// A configuration whose member-side limits are one second.
fn impatient(members: &[SocketAddr]) -> String {
    let members: Vec<_> = members.iter().map(|&address| (address, 1)).collect();
    let text = config("\"auto\"", 5, 0, &members);
    let limits = "default_pool = \"app\"\nmember_timeout = 1\nconnect_timeout = 1\n";
    text.replacen("default_pool = \"app\"\n", limits, 1)
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    good: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// Asks on one connection until told to stop; a new connection after a failure.
fn ask(web: SocketAddr, seen: &Seen) {
    while !seen.stop.load(Relaxed) {
        let mut client = Client::connect(web);
        while !seen.stop.load(Relaxed) {
            let answer = client.try_send("/").and_then(|()| client.answer());
            match answer {
                Ok(answer) if answer.status == 200 => seen.good.fetch_add(1, Relaxed),
                _ => {
                    seen.failed.fetch_add(1, Relaxed);
                    break;
                }
            };
        }
    }
}

/// One of three members is killed under load: every GET gets its answer. The answers are so short
/// that none can have been cut in its middle.
#[test]
fn a_killed_member_costs_no_get() {
    let _turn = alone();
    let mut members: Vec<Nginx> = ["a", "b", "c"].map(|name| Nginx::start(&[name])).into();
    let addresses: Vec<_> = members.iter().map(|member| (member.addrs[0], 1)).collect();
    let server = Server::start(&config("\"auto\"", 5, 0, &addresses));
    let seen = Seen::default();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| ask(server.web, &seen));
        }
        let more = |n: u64| {
            let wanted = seen.good.load(Relaxed) + n;
            until("answers", || seen.good.load(Relaxed) >= wanted);
        };
        more(count(500, 20_000));
        // The process gets SIGKILL.
        drop(members.remove(1));
        more(count(500, 20_000));
        seen.stop.store(true, Relaxed);
    });
    assert_eq!(seen.failed.load(Relaxed), 0);
    let metrics = server.metrics();
    let of_b = "weir_member_connect_failures_total{pool=\"app\",member=\"m1\"}";
    assert!(server.metric(of_b) > 0.0, "{metrics}");
    assert!(sum(&metrics, "weir_member_retries_total") > 0.0);
}

/// R6.7-11: a silent member is stepped over after member_timeout; when all are, that is a 504.
#[test]
fn silent_members() {
    let _turn = alone();
    let (mute, good) = (Member::shut("mute"), Member::start("good"));
    let server = Server::start(&impatient(&[mute.addr, good.addr]));
    let start = clock::mono();
    let answers = [get(server.web, "/"), get(server.web, "/"), get(server.web, "/")];
    assert!(answers.iter().all(|answer| answer.body == "good"), "{answers:?}");
    // Two shards begin where they like, so that all three may be another shard's first.
    let tried = server.sum("weir_member_retries_total");
    assert!(tried >= 1.0 && clock::mono().since(start) >= SECOND);
    let all = [Member::shut("a"), Member::shut("b"), Member::shut("c")];
    let server = Server::start(&impatient(&all.each_ref().map(|member| member.addr)));
    let start = clock::mono();
    assert_eq!(get(server.web, "/").status, 504);
    assert!(clock::mono().since(start) >= 3 * SECOND);
    assert_eq!(server.sum("weir_member_requests_total"), 3.0);
}

/// R4.4-5: a member that drops SYNs costs connect_timeout, then the next one answers; R2.3-504a:
/// alone it is a 504 (R6.7-7).
#[test]
fn a_member_that_drops_syns() {
    let _turn = alone();
    let hole = BlackHole::new();
    let deaf = hole.addr;
    let good = Member::start("good");
    let server = Server::start(&impatient(&[deaf, good.addr]));
    let start = clock::mono();
    let answers = [get(server.web, "/"), get(server.web, "/"), get(server.web, "/")];
    assert!(answers.iter().all(|answer| answer.body == "good"), "{answers:?}");
    assert!(server.sum("weir_member_connect_failures_total") >= 1.0);
    assert!(clock::mono().since(start) >= SECOND);
    let server = Server::start(&impatient(&[deaf]));
    let start = clock::mono();
    assert_eq!(get(server.web, "/").status, 504);
    assert!(clock::mono().since(start) >= SECOND);
}
