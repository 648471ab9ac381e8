//! A request on warm connections allocates nothing: shown by counting what the shard's thread asks
//! of the allocator. One test only, since the count is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../../core/tests/rt/counting.rs"]
mod counting;
mod support;

use std::time::Duration;

use support::{Member, Shard, eventually};
use weir_core::model::{AccessLog, AccessLogFormat, Listener, ListenerLog, LogTarget};
use weir_core::model::{Action, Compare, Persistence, PersistenceKind, Policy, Rule, RuleKind};

/// Allocations of the shard's thread so far. Asking costs some itself.
fn allocations(shard: &Shard) -> u64 {
    shard.run(counting::so_far)
}

/// Allocations that `requests` rounds of `round` cause.
fn cost(shard: &Shard, requests: usize, round: &mut dyn FnMut()) -> u64 {
    let before = allocations(shard);
    (0..requests).for_each(|_| round());
    allocations(shard) - before
}

/// Every kind of condition.
fn policy() -> Policy {
    use RuleKind::{Cookie, Header, HostName, Method, Path, QueryString, SourceIp};
    let rule = |kind, compare, value: &str| Rule {
        kind,
        compare,
        values: vec![value.into()],
        invert: false,
    };
    Policy {
        id: weir_core::model::Id::from_u128(9),
        name: "all".into(),
        listener: 0,
        priority: Some(1),
        rules: vec![
            rule(HostName, Compare::EqualTo, "a.example"),
            rule(Path, Compare::Regex, "^/[a-c]$"),
            rule(Method, Compare::EqualTo, "GET"),
            rule(Header("cookie".into()), Compare::StartsWith, "c"),
            rule(QueryString("q".into()), Compare::EqualTo, "x"),
            rule(Cookie("c".into()), Compare::Regex, "[0-9]"),
            rule(SourceIp, Compare::EqualTo, "127.0.0.0/8"),
        ],
        action: Action::Pools(vec![(0, 1)]),
    }
}

/// `logged`: each request leaves a line.
fn allocates_nothing(shard: &Shard, request: &str, logged: bool) {
    let mut client = shard.client();
    let mut round = || {
        client.send(request);
        assert_eq!(client.answer().status, 200);
        // What went through a pipe has left before its line is written.
        if logged {
            eventually("its line", || shard.logged().lines().count() == 1);
        }
    };
    // A connection's first request does allocate: the count counts.
    assert!(cost(shard, 1, &mut round) > 0);
    // Pools and queues reach their size; asking has its own price. On a busy machine a queue grows
    // now and then all the same; what a request costs shows every time.
    let mut extra = || {
        cost(shard, 50, &mut round);
        let asking = cost(shard, 0, &mut round);
        cost(shard, 100, &mut round).saturating_sub(asking)
    };
    let extras: Vec<u64> = (0..5).map(|_| extra()).take_while(|n| *n > 0).collect();
    assert!(extras.len() < 5, "{extras:?} allocations in 100 times {request:?}, each time");
}

#[test]
fn warm_requests_allocate_nothing() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(match request.line() {
                "GET /chunked" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                        .into()
                }
                "GET /large" => support::ok(&"x".repeat(90_000)),
                // Through a pipe.
                "GET /huge" => support::ok(&"x".repeat(1_000_000)),
                _ => support::ok("hello"),
            });
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let requests = [
        "GET / HTTP/1.1\r\nHost: w\r\nAccept: */*\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET /chunked HTTP/1.1\r\nHost: w\r\n\r\n",
        "GET /large HTTP/1.1\r\nHost: w\r\n\r\n",
        "GET /huge HTTP/1.1\r\nHost: w\r\n\r\n",
    ];
    requests.iter().for_each(|request| allocates_nothing(&shard, request, false));
    drop(shard);
    // With a policy to the same pool that looks at everything, in a form that has to be changed.
    let mut config = support::config(support::listener(), &[(member.address, 1)]);
    config.policies.push(policy());
    let shard = Shard::start(config);
    let special = "GET /b/../%61?q=%78 HTTP/1.1\r\nHost: A.Example.:80\r\nCookie: c=1\r\n\r\n";
    allocates_nothing(&shard, special, false);
    drop(shard);
    // With sessions, told by either kind of cookie.
    for kind in [PersistenceKind::HttpCookie, PersistenceKind::AppCookie("sid".into())] {
        let mut config = support::config(support::listener(), &[(member.address, 1)]);
        let (timeout, cookie_name) = (Duration::from_secs(60), String::new());
        config.pools[0].persistence = Some(Persistence { kind, timeout, cookie_name });
        let shard = Shard::start(config);
        for cookie in ["", "Cookie: a=1; sid=2; LBSTICKY=3\r\n"] {
            allocates_nothing(&shard, &format!("GET / HTTP/1.1\r\nHost: w\r\n{cookie}\r\n"), false);
        }
    }
    // With the access log in either form: lines go into blocks that are used again.
    for format in [AccessLogFormat::Elb, AccessLogFormat::Json] {
        let log = AccessLog { target: LogTarget::Standard, format };
        let listener = Listener { access_log: ListenerLog::Own(log), ..support::listener() };
        let shard = Shard::start(support::config(listener, &[(member.address, 1)]));
        requests.iter().for_each(|request| allocates_nothing(&shard, request, true));
    }
}
