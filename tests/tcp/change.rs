//! Changes under established sessions: weights, members, pools, algorithms, checks, limits.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use weir_core::time::clock;

use crate::process::{count, until};
use crate::{
    Member, Plan, address, assert_refused, assert_reset, connect, echo, ended, read, talk,
};

/// R7.14-2, R7.14-4, R5.12-1, C12: established sessions stay at their member whatever its weight or
/// the algorithm, also when it is removed; new ones follow what is new.
#[test]
fn established_sessions_stay() {
    let (a, b) = (Member::start(), Member::start());
    let plan = |lines: &str, members: &[_]| {
        Plan::new(1).listener("web", 0, "app", "").pool("app", lines, members)
    };
    let server = plan("", &[(a.addr, 1)]).start();
    let web = address(&server, "web");
    let mut client = connect(web);
    let mut upstream = a.accept();
    let least = "lb_algorithm = \"LEAST_CONNECTIONS\"";
    let source = "lb_algorithm = \"SOURCE_IP\"";
    for (lines, members) in [
        ("", vec![(a.addr, 100), (b.addr, 1)]),
        ("", vec![(a.addr, 0), (b.addr, 1)]),
        (least, vec![(a.addr, 0), (b.addr, 1)]),
        (source, vec![(b.addr, 1)]),
        ("", vec![(b.addr, 1)]),
    ] {
        let (code, out, err) = server.reload(plan(lines, &members).text());
        assert_eq!(code, Some(0), "{out}{err}");
        talk(&mut client, &mut upstream);
    }
    for _ in 0..4 {
        talk(&mut connect(web), &mut b.accept());
    }
    assert!(a.is_quiet());
    talk(&mut client, &mut upstream);
    assert_eq!(ended(&server, "client_rst") + ended(&server, "drained"), 0.0);
}

/// R7.14-4: with `connection_drain` sessions of a member that leaves end after its timeout, not
/// before, with RST; those of the others go on.
#[test]
fn drains_are_limited() {
    let (a, b) = (Member::start(), Member::start());
    let plan = |members: &[_]| {
        let lines = "connection_drain = { enable = true, timeout = 10 }";
        Plan::new(1).listener("web", 0, "app", "").pool("app", lines, members)
    };
    let server = plan(&[(a.addr, 1)]).start();
    let web = address(&server, "web");
    let (mut client, mut upstream) = (connect(web), a.accept());
    let start = clock::mono();
    let (code, ..) = server.reload(plan(&[(a.addr, 0), (b.addr, 1)]).text());
    assert_eq!(code, Some(0));
    talk(&mut client, &mut upstream);
    let (mut other, mut other_upstream) = (connect(web), b.accept());
    assert_reset(&mut client);
    assert!(clock::mono().since(start) >= Duration::from_secs(10), "too early");
    assert_reset(&mut upstream);
    talk(&mut other, &mut other_upstream);
    until("the end is counted", || ended(&server, "drained") == 1.0);
}

/// R2.2-1, R8.1-22: a TCP check, and an HTTP check of which only 200 is a success, decide who gets
/// new connections.
#[test]
fn checks_of_tcp_pools() {
    let http = |code: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 4_096];
                let _n = stream.read(&mut head);
                let answer = format!("HTTP/1.1 {code} x\r\nContent-Length: 0\r\n\r\n");
                let _gone = stream.write_all(answer.as_bytes());
            }
        });
        addr
    };
    let (good, wrong) = (http("200"), http("202"));
    let (up, down) = (echo("u", "127.0.0.1:0"), crate::nobody());
    let check = |kind: &str| {
        format!("healthmonitor = {{ type = \"{kind}\", delay = 1, timeout = 1, max_retries = 1 }}")
    };
    let plan = Plan::new(1)
        .listener("web", 0, "app", "")
        .listener("two", 0, "plain", "")
        .pool("app", &check("HTTP"), &[(good, 1), (wrong, 1)])
        .pool("plain", &check("TCP"), &[(up, 1), (down, 1)]);
    let server = plan.start();
    let is_up = |pool: &str, addr: std::net::SocketAddr| {
        server.metric(&format!("weir_member_up{{pool=\"{pool}\",member=\"{addr}\"}}"))
    };
    until("the checks have judged", || {
        is_up("app", good) == 1.0 && is_up("plain", up) == 1.0 && is_up("app", wrong) == 0.0
    });
    assert_eq!(is_up("plain", down), 0.0);
    for _ in 0..6 {
        let mut client = connect(address(&server, "two"));
        assert_eq!(read::<1>(&mut client), "u");
    }
    let failures = server.sum("weir_member_connect_failures_total");
    assert_eq!(failures, 0.0, "who is down is not tried");
}

/// R7.13-1, C19 at Layer 4: lists and limits hold for TCP listeners.
#[test]
fn lists_and_limits_hold() {
    let member = Member::start();
    let group = "[[ipgroup]]\nname = \"office\"\nip_list = [\"127.0.0.8\"]";
    let plan = Plan::new(1)
        .listener("web", 0, "app", "ipgroup = { name = [\"office\"], type = \"white\" }")
        .listener("few", 0, "app", "connection = 1")
        .pool("app", "", &[(member.addr, 1)])
        .more(group);
    let server = plan.start();
    assert_refused(address(&server, "web"));
    assert!(member.is_quiet());
    let mut client = crate::connect_from("127.0.0.8:0", address(&server, "web"));
    talk(&mut client, &mut member.accept());
    let mut first = connect(address(&server, "few"));
    talk(&mut first, &mut member.accept());
    assert_refused(address(&server, "few"));
    let refused = |listener: &str, reason: &str| {
        let labels = format!("{{listener=\"{listener}\",reason=\"{reason}\"}}");
        server.counted(&format!("weir_refused_connections_total{labels}"))
    };
    assert_eq!((refused("web", "acl_denied"), refused("few", "connection_limit")), (1.0, 1.0));
    assert_eq!(server.sum("weir_refused_connections_total"), 2.0);
}

/// Reloads of all kinds drop no established session.
#[test]
fn reloads_drop_nothing() {
    let (a, b) = (echo("a", "127.0.0.1:0"), echo("b", "127.0.0.1:0"));
    let plan = |n: usize| {
        let weights = [(a, (n % 3) as u8), (b, 1 + (n % 5) as u8)];
        let algorithm = ["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"][n % 3];
        let lines = format!("lb_algorithm = \"{algorithm}\"");
        let more = format!("keepalive_timeout = {}", 300 + n % 7);
        let plan = Plan::new(1).listener("web", 0, "app", &more);
        let plan = if n.is_multiple_of(2) { plan.listener("x", 0, "app", "") } else { plan };
        plan.pool("app", &lines, &weights[n % 2..])
    };
    let server = plan(1).start();
    let web = address(&server, "web");
    let mut clients: Vec<TcpStream> = (0..32).map(|_| connect(web)).collect();
    for client in &mut clients {
        assert!(["a", "b"].contains(&read::<1>(client).as_str()));
    }
    for n in 0..count(25, 1_000) {
        let (code, out, err) = server.reload(plan(n).text());
        assert_eq!(code, Some(0), "{out}{err}");
        for client in &mut clients {
            client.write_all(b"12345").unwrap();
        }
        for client in &mut clients {
            assert_eq!(read::<5>(client), "12345");
        }
        assert!(["a", "b"].contains(&read::<1>(&mut connect(web)).as_str()));
    }
    for how in ["idle", "drained", "member_rst", "client_rst", "connect_failed"] {
        assert_eq!(ended(&server, how), 0.0, "{how}");
    }
}
