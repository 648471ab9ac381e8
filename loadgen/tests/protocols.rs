//! Runs over everything but plain HTTP, one request after another: HTTPS, pipelining, several kinds
//! of requests, TCP, UDP and WebSocket, against loadgen's own members.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "common/certs.rs"]
mod certs;
mod common;
#[path = "common/server.rs"]
mod server;

use std::time::Duration;

use certs::Files;
use common::until;
use server::{plan, scripted};
use weir_core::model::TlsVersion;
use weir_core::time::clock::mono;
use weir_loadgen::template::{Expect, Template};
use weir_loadgen::{
    Delay, ErrorClass, Exchange, Length, Live, OriginSpec, OriginTls, Origins, Plan, Report, Reuse,
    RunError, Speaks, Target, run, run_with,
};

fn members(change: impl Fn(&mut OriginSpec)) -> Origins {
    let mut spec = OriginSpec::new("a");
    change(&mut spec);
    Origins::start(None, vec![spec]).unwrap()
}

fn secure_speaker(files: &Files, speaks: Speaks) -> Origins {
    let tls = OriginTls { certificate: files.chain.clone(), private_key: files.key.clone() };
    members(|spec| (spec.tls, spec.speaks) = (Some(tls.clone()), speaks))
}

/// A short plan against the only member by another scheme than http.
fn plan_of(origins: &Origins, scheme: &str, connections: usize, requests: u64) -> Plan {
    let addr = origins.addrs()[0];
    let target = Target::parse(&format!("{scheme}://{addr}")).unwrap();
    Plan { target, ..plan(addr, connections, requests) }
}

fn good(report: &Report, requests: u64) {
    assert_eq!((report.requests, report.answers), (requests, requests), "{report:?}");
    assert_eq!(report.errors.total, 0, "{:?}", report.error_causes);
}

fn secure(files: &Files) -> Origins {
    secure_speaker(files, Speaks::Http)
}

#[test]
fn https_measures_handshakes() {
    let files = Files::new(&["127.0.0.1"]);
    let origins = secure(&files);
    let mut plan = plan_of(&origins, "https", 3, 60);
    plan.tls.ca = Some(files.ca.clone());
    let report = run(&plan).unwrap();
    good(&report, 60);
    assert_eq!(report.latency.tls.unwrap().count, 3);
    assert_eq!((report.connections_opened, report.tls_resumed), (3, 0));
    assert_eq!((report.tls[0].version.as_str(), report.tls[0].connections), ("TLSv1.3", 3));
    // One version, and one cipher suite.
    let cipher = "ECDHE-ECDSA-AES128-GCM-SHA256";
    plan.tls.offer.ciphers = vec![cipher.to_string(), "TLS_AES_256_GCM_SHA384".to_string()];
    for (only, told) in [
        (TlsVersion::Tls12, ("TLSv1.2", cipher)),
        (TlsVersion::Tls13, ("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
    ] {
        plan.tls.offer.only = Some(only);
        let report = run(&plan).unwrap();
        good(&report, 60);
        let agreed = &report.tls[..];
        assert_eq!(agreed.len(), 1, "{agreed:?}");
        assert_eq!((agreed[0].version.as_str(), agreed[0].cipher.as_str()), told);
        assert!(report.to_text().contains(told.1));
        assert_eq!(report.setting.tls.unwrap().version.as_deref(), Some(told.0));
    }
    plan.tls.offer.ciphers = vec!["RC4-MD5".to_string()];
    let error = run(&plan).unwrap_err().to_string();
    assert!(error.contains("no cipher `RC4-MD5`; there are TLS_"), "{error}");
    let total = report.latency.total.unwrap();
    assert!(total.max > 0.0 && report.latency.sent.is_some() && report.latency.body.is_some());
    assert_eq!(report.members[0].name, "a");
    assert_eq!(report.members[0].answers, 60);
}

#[test]
fn sessions_are_resumed_when_asked() {
    let files = Files::new(&["127.0.0.1"]);
    let origins = secure(&files);
    for resume in [false, true] {
        let mut plan = plan_of(&origins, "https", 1, 20);
        plan.reuse = Reuse::Requests(1);
        (plan.tls.insecure, plan.tls.resume) = (true, resume);
        let report = run(&plan).unwrap();
        good(&report, 20);
        assert_eq!(report.latency.tls.unwrap().count, 20);
        assert_eq!(report.tls_resumed, if resume { 19 } else { 0 });
        assert_eq!(report.to_text().contains("19  TLS sessions"), resume);
    }
}

#[test]
fn a_wrong_certificate_is_told_with_its_cure() {
    let files = Files::new(&["other.example"]);
    let origins = secure(&files);
    let mut plan = plan_of(&origins, "https", 2, 10);
    plan.tls.ca = Some(files.ca.clone());
    for reuse in [Reuse::KeepAlive, Reuse::Requests(1)] {
        plan.reuse = reuse;
        let error = run(&plan).unwrap_err();
        assert!(matches!(error, RunError::Handshake { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("another name") && text.contains("--insecure"), "{text}");
    }
    plan.tls.server_name = "other.example".to_string();
    good(&run(&plan).unwrap(), 10);
    let strangers = Files::new(&["x"]);
    plan.tls.ca = Some(strangers.ca.clone());
    let error = run(&plan).unwrap_err().to_string();
    assert!(error.contains("unknown issuer"), "{error}");
    let plain = members(|_| {});
    let mut plan = plan_of(&plain, "https", 1, 5);
    plan.tls.insecure = true;
    let error = run(&plan).unwrap_err().to_string();
    assert!(error.contains("HTTPS") || error.contains("TLS"), "{error}");
}

#[test]
fn pipelined_requests_get_their_answers_in_order() {
    let origins = members(|spec| spec.delay = Delay::Fixed(Duration::from_millis(1)));
    for (depth, rate) in [(8, None), (64, None), (8, Some(2000))] {
        let before = (origins.requests(0), origins.connections(0));
        let mut plan = plan_of(&origins, "http", 3, 300);
        (plan.pipeline, plan.rate) = (depth, rate);
        good(&run(&plan).unwrap(), 300);
        assert_eq!(origins.requests(0) - before.0, 300);
        assert_eq!(origins.connections(0) - before.1, 3);
    }
    let mut plan = plan_of(&origins, "http", 2, 60);
    (plan.pipeline, plan.reuse) = (4, Reuse::Requests(10));
    let before = origins.connections(0);
    good(&run(&plan).unwrap(), 60);
    assert!((6..=8).contains(&(origins.connections(0) - before)));
}

#[test]
fn pipelined_requests_fail_together() {
    let closing = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 99, true);
    let mut plan = plan(closing.addr, 1, 40);
    plan.pipeline = 4;
    // What is closed with requests unread is reset, which may take the one answer away, too.
    match run(&plan) {
        Ok(report) => {
            assert_eq!(report.requests, 40);
            assert!(report.errors.reset >= 30, "{:?}", report.errors);
        }
        Err(error) => assert!(matches!(error, RunError::NoAnswer { .. }), "{error}"),
    }
}

/// The time limit of pipelined requests runs from when each began, also where others come due
/// behind it all the time.
#[test]
fn pipelined_requests_that_are_never_answered_are_timeouts() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = plan(silent.local_addr().unwrap(), 1, 0);
    (plan.pipeline, plan.rate) = (64, Some(20));
    plan.length = Length::Duration(Duration::from_secs(2));
    plan.timeout = Duration::from_millis(500);
    let live = Live::new(&plan);
    let error = run_with(&plan, &live, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("time limit"), "{error}");
    let seen = live.snapshot();
    assert!(seen.opened > 1, "no connection is kept that does not answer: {}", seen.opened);
    assert_eq!(seen.error_count(), seen.errors_of(ErrorClass::Timeout), "{:?}", seen.errors);
}

fn template(path: &str, weight: u32, expect: Expect) -> Template {
    let (method, headers, body) = ("GET".to_string(), Vec::new(), Vec::new());
    Template { weight, method, path: path.to_string(), headers, body, expect }
}

#[test]
fn kinds_of_requests_and_what_is_expected_of_answers() {
    let origins = members(|spec| spec.body_size = 200);
    let mut plan = plan_of(&origins, "http", 2, 200);
    let contains = |text: &str| Expect {
        statuses: vec![200],
        contains: Some(weir_loadgen::search::Needle::new(text.as_bytes())),
    };
    let right = contains("WXYZ-\n0123");
    plan.templates = vec![template("/a", 3, right.clone()), template("/b", 1, right.clone())];
    good(&run(&plan).unwrap(), 200);
    plan.templates = vec![template("/a", 3, right), template("/b", 1, contains("not there"))];
    let report = run(&plan).unwrap();
    assert_eq!(report.answers, 200);
    assert!((25..=80).contains(&report.errors.check), "{:?}", report.errors);
    assert_eq!(report.errors.total, report.errors.check);
    plan.templates = vec![template("/a", 1, Expect { statuses: vec![404], contains: None })];
    assert_eq!(run(&plan).unwrap().errors.status, 200);
}

/// Each way of using a connection of bytes, inside TLS, with the handshake as a phase of its own.
#[test]
fn bytes_inside_tls() {
    let files = Files::new(&["127.0.0.1"]);
    let origins = secure_speaker(&files, Speaks::Echo);
    let verified = |origins: &Origins, connections, requests| {
        let mut plan = plan_of(origins, "tls", connections, requests);
        plan.tls.ca = Some(files.ca.clone());
        plan
    };
    for size in [1, 64, 300_000] {
        let mut plan = verified(&origins, 3, 30);
        plan.size = size;
        let report = run(&plan).unwrap();
        good(&report, 30);
        assert_eq!(report.latency.tls.unwrap().count, 3);
        assert_eq!(report.bytes.received, 30 * size);
    }
    let sink = secure_speaker(&files, Speaks::Sink);
    let mut plan = verified(&sink, 2, 20);
    (plan.exchange, plan.size) = (Exchange::Upload, 200_000);
    good(&run(&plan).unwrap(), 20);
    let source = secure_speaker(&files, Speaks::Source);
    let mut plan = verified(&source, 2, 20);
    (plan.exchange, plan.size) = (Exchange::Download, 200_000);
    let report = run(&plan).unwrap();
    good(&report, 20);
    assert_eq!(report.bytes.received, 20 * 200_000);
    // Whoever shows what nobody trusts is told from one that does not answer.
    let (strangers, mut plan) = (Files::new(&["127.0.0.1"]), plan_of(&origins, "tls", 1, 5));
    plan.tls.ca = Some(strangers.ca.clone());
    assert!(matches!(run(&plan).unwrap_err(), RunError::Handshake { .. }));
}

/// Handshakes alone, full ones and resumed ones.
#[test]
fn handshakes_without_a_byte() {
    let files = Files::new(&["127.0.0.1"]);
    let origins = secure_speaker(&files, Speaks::Echo);
    for resume in [false, true] {
        let mut plan = plan_of(&origins, "tls", 1, 30);
        plan.exchange = Exchange::Connect;
        (plan.tls.insecure, plan.tls.resume) = (true, resume);
        let report = run(&plan).unwrap();
        good(&report, 30);
        assert_eq!(report.latency.tls.unwrap().count, 30);
        assert_eq!(report.tls_resumed, if resume { 29 } else { 0 });
    }
}

#[test]
fn connections_come_from_several_addresses() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut plan = plan(addr, 4, 4);
    plan.sources = vec!["127.0.0.5".parse().unwrap(), "127.0.0.6".parse().unwrap()];
    plan.timeout = Duration::from_millis(500);
    let load = std::thread::spawn(move || run(&plan));
    let peers = (0..4).map(|_| listener.accept().unwrap().1.ip().to_string());
    let mut peers: Vec<_> = peers.collect();
    peers.sort();
    assert_eq!(peers, ["127.0.0.5", "127.0.0.5", "127.0.0.6", "127.0.0.6"]);
    assert!(matches!(load.join().unwrap(), Err(RunError::NoAnswer { .. })));
}

#[test]
fn bytes_over_tcp() {
    let origins = members(|spec| spec.speaks = Speaks::Echo);
    for size in [1, 64, 300_000] {
        let mut plan = plan_of(&origins, "tcp", 3, 30);
        plan.size = size;
        let report = run(&plan).unwrap();
        good(&report, 30);
        assert_eq!(report.bytes.received, 30 * size);
    }
    let before = origins.connections(0);
    let mut plan = plan_of(&origins, "tcp", 2, 50);
    plan.exchange = Exchange::Connect;
    let report = run(&plan).unwrap();
    good(&report, 50);
    assert_eq!(report.latency.connect.unwrap().count, 50);
    // For the client a connection counts once the kernel has made it, for the member once taken.
    until("50 connections at the member", || origins.connections(0) - before >= 50);
    for (speaks, exchange) in
        [(Speaks::Sink, Exchange::Upload), (Speaks::Source, Exchange::Download)]
    {
        let origins = members(|spec| spec.speaks = speaks);
        let mut plan = plan_of(&origins, "tcp", 2, 20);
        (plan.exchange, plan.size) = (exchange, 1 << 20);
        let report = run(&plan).unwrap();
        good(&report, 20);
        assert_eq!(report.bytes.sent + report.bytes.received, 20 << 20);
    }
}

#[test]
fn other_bytes_than_were_sent_are_told() {
    let server = scripted(b"x", 1, false);
    let mut plan = plan(server.addr, 1, 3);
    plan.target = Target::parse(&format!("tcp://{}", server.addr)).unwrap();
    // The script answers an empty line; the pattern holds none, so that nothing comes at all.
    plan.timeout = Duration::from_millis(50);
    assert!(matches!(run(&plan), Err(RunError::NoAnswer { .. })));
    let origins = members(|spec| spec.speaks = Speaks::Source);
    let mut plan = plan_of(&origins, "tcp", 1, 1);
    plan.size = 1 << 20;
    let outcome = run(&plan);
    assert!(matches!(&outcome, Err(RunError::NoAnswer { .. })), "{outcome:?}");
}

#[test]
fn messages_over_websocket() {
    let files = Files::new(&["127.0.0.1"]);
    for (origins, scheme) in [(members(|_| {}), "ws"), (secure(&files), "wss")] {
        for size in [1, 125, 70_000, 300_000] {
            let mut plan = plan_of(&origins, scheme, 2, 20);
            (plan.size, plan.tls.insecure) = (size, true);
            good(&run(&plan).unwrap(), 20);
        }
        let mut plan = plan_of(&origins, scheme, 2, 20);
        (plan.reuse, plan.tls.insecure) = (Reuse::Requests(5), true);
        let before = origins.connections(0);
        good(&run(&plan).unwrap(), 20);
        assert!((4..=5).contains(&(origins.connections(0) - before)));
    }
    let plain = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 99, false);
    let mut plan = plan(plain.addr, 1, 3);
    plan.target = Target::parse(&format!("ws://{}/", plain.addr)).unwrap();
    let error = run(&plan).unwrap_err().to_string();
    assert!(error.contains("101"), "{error}");
}

#[test]
fn datagrams_are_matched_and_lost_ones_counted() {
    let origins = members(|spec| spec.speaks = Speaks::Udp);
    for (size, rate) in [(48, None), (1200, None), (64, Some(2000))] {
        let mut plan = plan_of(&origins, "udp", 4, 400);
        (plan.size, plan.rate) = (size, rate);
        let report = run(&plan).unwrap();
        good(&report, 400);
        let datagrams = report.datagrams.unwrap();
        assert_eq!((datagrams.sent, datagrams.doubled, datagrams.strange), (400, 0, 0));
        assert_eq!((report.members[0].answers, report.stickiness_violations), (400, 0));
    }
    // Every fifth, or so, is not answered.
    let lossy = members(|spec| (spec.speaks, spec.error_rate) = (Speaks::Udp, 0.2));
    let mut plan = plan_of(&lossy, "udp", 2, 200);
    (plan.rate, plan.timeout) = (Some(2000), Duration::from_millis(300));
    let report = run(&plan).unwrap();
    assert_eq!(report.requests, 200);
    assert!((15..=80).contains(&report.errors.timeout), "{:?}", report.errors);
    assert_eq!(report.answers + report.errors.timeout, 200);
}

/// A peer of one flow at 50 a second, whose first ten are the warm-up. It sends things back in
/// another order, twice, too late, and what nobody asked for; until it hears nothing for 10 s.
fn odd_peer() -> std::net::SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::thread::spawn(move || {
        let (mut buffer, mut held, mut overdue) = ([0; 2048], None, Vec::new());
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let datagram = buffer[..length].to_vec();
            let send = |datagram: &[u8]| socket.send_to(datagram, peer).unwrap();
            let now = mono();
            match u64::from_be_bytes(*datagram[24..].first_chunk().unwrap()) {
                5 | 17 => overdue.push((now, datagram)),
                12 => held = Some(datagram),
                serial => {
                    send(&datagram);
                    held.take().iter().for_each(|held| assert!(send(held) > 0));
                    if matches!(serial, 3 | 15) {
                        send(&datagram);
                    }
                    if matches!(serial, 4 | 19) {
                        send(b"who are you?");
                    }
                }
            }
            overdue.retain(|(since, datagram)| {
                let waits = now.since(*since) < Duration::from_millis(1500);
                if !waits {
                    send(datagram);
                }
                waits
            });
        }
    });
    addr
}

/// What comes back oddly is told by its kind, and what was sent in the warm-up is not.
#[test]
fn datagrams_out_of_order_doubled_late_and_strange() {
    let addr = odd_peer();
    let mut plan = plan(addr, 1, 0);
    plan.target = Target::parse(&format!("udp://{addr}")).unwrap();
    (plan.rate, plan.warmup) = (Some(50), Duration::from_millis(200));
    (plan.length, plan.timeout) =
        (Length::Duration(Duration::from_secs(4)), Duration::from_secs(1));
    let report = run(&plan).unwrap();
    let seen = report.datagrams.unwrap();
    assert_eq!((seen.sent, report.answers, report.errors.timeout), (200, 199, 1), "{report:?}");
    assert_eq!((seen.reordered, seen.doubled, seen.late, seen.strange), (1, 1, 1, 1), "{seen:?}");
    assert_eq!((seen.not_sent, seen.missed), (0, 0));
    let told = "1 lost (0.50 %), 1 out of order, 1 doubled, 1 late, 1 of nobody here";
    assert!(report.to_text().contains(told), "{}", report.to_text());
}

#[test]
fn a_port_without_datagrams_is_told() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = port.local_addr().unwrap();
    let mut plan = plan(addr, 2, 20);
    plan.target = Target::parse(&format!("udp://{addr}")).unwrap();
    plan.timeout = Duration::from_millis(50);
    let error = run(&plan).unwrap_err();
    assert!(matches!(error, RunError::NoAnswer { .. }), "{error}");
    drop(port);
    let error = run(&plan).unwrap_err();
    assert!(matches!(&error, RunError::Unreachable { .. }), "{error}");
}

#[test]
fn a_flow_that_changes_its_member_is_a_violation() {
    // Two members behind one address: the kernel's own group, told apart by name.
    let first = members(|spec| spec.speaks = Speaks::Udp);
    let addr = first.addrs()[0];
    let mut plan = plan_of(&first, "udp", 1, 0);
    plan.length = Length::Duration(Duration::from_secs(600));
    let live = weir_loadgen::Live::new(&plan);
    let watched = std::sync::Arc::clone(&live);
    let load = std::thread::spawn(move || weir_loadgen::run_with(&plan, &watched, &mut |_| {}));
    let answers = |n: u64| {
        while live.snapshot().answers < n {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    };
    answers(10);
    drop(first);
    let mut spec = OriginSpec::new("b");
    (spec.speaks, spec.listen) = (Speaks::Udp, addr);
    let second = Origins::start(None, vec![spec]).unwrap();
    let so_far = live.snapshot().answers;
    answers(so_far + 10);
    live.stop();
    let report = load.join().unwrap().unwrap();
    assert_eq!(report.stickiness_violations, 1, "{:?}", report.members);
    assert_eq!(report.members.len(), 2);
    drop(second);
}

#[test]
fn members_that_misbehave_on_purpose() {
    let origins = members(|spec| (spec.reset_rate, spec.seed) = (0.5, 3));
    let report = run(&plan_of(&origins, "http", 1, 100)).unwrap();
    assert!((25..=75).contains(&report.errors.reset), "{:?}", report.errors);
    let slow = members(|spec| (spec.body_size, spec.bytes_per_second) = (3000, 10_000));
    let report = run(&plan_of(&slow, "http", 2, 4)).unwrap();
    good(&report, 4);
    assert!(report.latency.body.unwrap().min > 0.15, "{:?}", report.latency.body);
}
