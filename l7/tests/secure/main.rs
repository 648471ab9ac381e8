//! Members that are spoken to inside TLS: what they see, and what comes of handshakes that fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod member;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use member::{Authority, Secure, Shown, own, request, store};
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use support::{Member, Shard, config, eventually, listener};
use weir_core::cert::Store;
use weir_core::model::{
    AccessLog, AccessLogFormat, Config, ListenerLog, LogTarget, MemberTls, PoolProtocol,
};
use weir_core::time::clock;

const GET: &str = "GET /a HTTP/1.1\r\nHost: Web.example:80\r\n\r\n";

/// One HTTPS pool; the listener logs.
fn secured(tls: MemberTls, members: &[SocketAddr]) -> Config {
    let mut listener = listener();
    let (target, format) = (LogTarget::Standard, AccessLogFormat::Elb);
    listener.access_log = ListenerLog::Own(AccessLog { target, format });
    listener.connect_timeout = Duration::from_secs(2);
    let members: Vec<_> = members.iter().map(|&address| (address, 1)).collect();
    let mut config = config(listener, &members);
    config.pools[0].protocol = PoolProtocol::Https;
    config.pools[0].tls = Some(tls);
    config
}

fn shard(tls: MemberTls, members: &[SocketAddr]) -> Shard {
    Shard::start(secured(tls, members))
}

fn any() -> MemberTls {
    MemberTls::default()
}

fn verified(name: &str) -> MemberTls {
    MemberTls { verify: true, ca: Some(0), server_name: name.to_owned() }
}

fn ask(shard: &Shard, host: &str) -> u16 {
    shard.once(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status
}

/// R3.14-1, R10.1-1, R10.1-4: requests go inside TLS, by default to whatever shows a certificate,
/// be it expired; the name that is asked for is the request's host, and connections are kept for
/// their host only.
#[test]
fn members_are_asked_for_the_requests_host() {
    let member = Secure::start(member::config(&own(&["old.example"], 2_020)));
    let shard = shard(any(), &[member.address]);
    for _ in 0..3 {
        let answer = shard.once(GET);
        assert_eq!((answer.status, answer.text()), (200, "GET /a HTTP/1.1"));
    }
    let names = || -> Vec<_> { member.seen().into_iter().map(|seen| seen.name).collect() };
    let web = Some("web.example".to_owned());
    assert_eq!(names(), std::slice::from_ref(&web));
    assert_eq!(ask(&shard, "other.example"), 200);
    assert_eq!(ask(&shard, "127.0.0.1:80"), 200);
    assert_eq!(ask(&shard, "other.example"), 200);
    assert_eq!(ask(&shard, "web.example"), 200);
    // An address is never asked for by name (RFC 6066, 3).
    assert_eq!(names(), [web, Some("other.example".to_owned()), None]);
    assert_eq!(shard.member(0).connections.get(), 3);
    assert_eq!(member.seen()[0].version, ProtocolVersion::TLSv1_3);
}

/// R10.1-4: with a name of its own a pool asks all members for it, whatever the request's host.
#[test]
fn a_pool_has_a_name_for_all() {
    let member = Secure::start(member::config(&own(&["x"], 2_100)));
    let tls = MemberTls { server_name: "pool.example".to_owned(), ..any() };
    let shard = shard(tls, &[member.address]);
    assert_eq!((ask(&shard, "a.example"), ask(&shard, "b.example")), (200, 200));
    let seen = member.seen();
    assert_eq!(seen.len(), 1, "one connection for both");
    assert_eq!(seen[0].name.as_deref(), Some("pool.example"));
}

/// Kept connections for hosts that nobody asks for any more make room.
#[test]
fn hosts_do_not_crowd_each_other_out() {
    let member = Secure::start(member::config(&own(&["x"], 2_100)));
    let shard = shard(any(), &[member.address]);
    for host in 0..140 {
        assert_eq!(ask(&shard, &format!("h{host}.example")), 200);
    }
    let before = member.seen().len();
    assert_eq!(before, 140);
    assert_eq!(ask(&shard, "h139.example"), 200);
    assert_eq!(member.seen().len(), before, "the newest is kept");
    assert_eq!(ask(&shard, "h0.example"), 200);
    assert_eq!(member.seen().len(), before + 1, "the oldest is not");
    assert!(shard.member(0).idle_connections.get() <= 128);
}

/// The same where requests share connections: one a host, and no more than enough.
#[test]
fn hosts_do_not_crowd_each_other_out_of_shared_connections() {
    let mut settings = member::config(&own(&["x"], 2_100));
    settings.alpn_protocols = vec![b"h2".to_vec()];
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let member = Secure::with(settings, move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        member::answer_streams(stream);
        count.fetch_sub(1, Ordering::SeqCst);
    });
    let mut config = secured(any(), &[member.address]);
    config.pools[0].protocol = PoolProtocol::Grpc;
    let shard = Shard::start(config);
    for host in 0..140 {
        assert_eq!(ask(&shard, &format!("h{host}.example")), 204);
    }
    let before = member.seen().len();
    assert_eq!(before, 140);
    assert_eq!(ask(&shard, "h139.example"), 204);
    assert_eq!(member.seen().len(), before, "the newest is kept");
    assert_eq!(ask(&shard, "h0.example"), 204);
    assert_eq!(member.seen().len(), before + 1, "the oldest is not");
    eventually("idle ones make room", || open.load(Ordering::SeqCst) <= 128);
}

/// Bodies of 1 MiB pass both ways unaltered, by either version.
#[test]
fn large_bodies_pass() {
    for versions in [&[&TLS12], &[&TLS13]] {
        let shown = own(&["x"], 2_100);
        let member = Secure::start(member::config_of(&shown, versions));
        let shard = shard(any(), &[member.address]);
        let body: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(31) >> 3) as u8).collect();
        let mut client = shard.client();
        for _ in 0..3 {
            client
                .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 20));
            client.send(&body);
            let answer = client.answer();
            assert_eq!(answer.status, 200);
            assert!(answer.body.strip_prefix(b"POST / HTTP/1.1") == Some(&body), "altered");
        }
        let wanted =
            if versions[0] == &TLS12 { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
        assert_eq!(member.seen().len(), 1);
        assert_eq!(member.seen()[0].version, wanted);
    }
}

/// Sessions are resumed with the member that they are of, in either version.
#[test]
fn sessions_are_resumed() {
    for versions in [&[&TLS12], &[&TLS13]] {
        let start = || {
            let mut config = member::config_of(&own(&["x"], 2_100), versions);
            config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
            Secure::with(config, |mut stream| {
                request(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            })
        };
        let (a, b) = (start(), start());
        let shard = shard(any(), &[a.address, b.address]);
        for _ in 0..6 {
            assert_eq!(ask(&shard, "a.example"), 204);
        }
        for member in [a, b] {
            let resumed: Vec<_> = member.seen().iter().map(|seen| seen.resumed).collect();
            assert_eq!(resumed, [false, true, true], "{versions:?}");
        }
    }
}

/// R10.1-4: with a CA members must show a certificate of it, in time and for the right name; a
/// member's own certificate may be its CA. The log says what was wrong.
#[test]
fn members_are_verified() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let listed = own(&["a.example"], 2_100);
    let store = store(&[&ca.certificate, &listed.certificate]);
    let try_one = |shown: &Shown, tls: MemberTls| {
        let member = Secure::start(member::config(shown));
        let shard = Shard::start_with(secured(tls, &[member.address]), &store);
        let status = ask(&shard, "a.example");
        shard.wait_idle();
        (status, shard.logged())
    };
    let good = ca.sign(&["a.example", "127.0.0.1"], 2_100);
    for (shown, name) in [(&good, ""), (&good, "a.example"), (&good, "127.0.0.1"), (&listed, "")] {
        let (status, log) = try_one(shown, verified(name));
        assert_eq!(status, 200, "{log}");
    }
    for (shown, name, reason) in [
        (
            ca.sign(&["a.example"], 2_020),
            "",
            "member's certificate has expired or is not valid yet",
        ),
        (ca.sign(&["b.example"], 2_100), "", "member's certificate is for another name"),
        (ca.sign(&["a.example"], 2_100), "c.example", "member's certificate is for another name"),
        (other.sign(&["a.example"], 2_100), "", "member's certificate is of an unknown issuer"),
        (own(&["a.example"], 2_099), "", "member's certificate is of an unknown issuer"),
    ] {
        let (status, log) = try_one(&shown, verified(name));
        assert_eq!(status, 502, "{log}");
        assert!(log.contains(&reason.replace(' ', "_")), "{reason}: {log}");
        assert_eq!(try_one(&shown, any()).0, 200, "nobody asked");
    }
}

/// Without the bundle that it wants to verify with, a pool has no members, rather than such that
/// nobody verifies.
#[test]
fn without_a_bundle_nobody_is_asked() {
    let member = Secure::start(member::config(&own(&["a.example"], 2_100)));
    let shard = Shard::start_with(secured(verified(""), &[member.address]), &Store::default());
    assert_eq!(ask(&shard, "a.example"), 502);
    assert!(member.seen().is_empty());
}

/// R3.14-1, R12.3-6: a member that speaks clear text is told from others, and others are tried.
#[test]
fn a_plain_member_fails() {
    let raw = Member::start(|mut conn, _| conn.send("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let good = Secure::start(member::config(&own(&["x"], 2_100)));
    let alone = shard(any(), &[raw.address]);
    assert_eq!(ask(&alone, "a.example"), 502);
    alone.wait_idle();
    let log = alone.logged();
    assert!(log.contains("member_speaks_clear_text_where_TLS_is_due"), "{log}");
    assert_eq!(alone.member(0).connect_failures.get(), 1);
    let both = shard(any(), &[raw.address, good.address]);
    for _ in 0..4 {
        // Even a POST: none of it was sent.
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(both.once(post).text(), "POST / HTTP/1.1hi");
    }
    assert!((1..=4).contains(&both.member(0).retries.get()));
}

/// R10.1-3: members are shown no certificate, so that one which wants one fails.
#[test]
fn members_are_shown_no_certificate() {
    let (ca, shown) = (Authority::new("ca"), own(&["x"], 2_100));
    for versions in [&[&TLS12], &[&TLS13]] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let config = member::config_wanting(&shown, versions, verifier.build().unwrap());
        let member = Secure::start(config);
        let shard = shard(any(), &[member.address]);
        assert_eq!(ask(&shard, "a.example"), 502);
        assert!(member.seen().is_empty());
    }
}

/// connect_timeout bounds connecting and the handshake together (504); upstream_connect_time has
/// both (R4.1-7).
#[test]
fn time_limits_hold_for_the_handshake() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = secured(any(), &[silent.local_addr().unwrap()]);
    config.listeners[0].connect_timeout = Duration::from_secs(1);
    let shard = Shard::start(config);
    let begin = clock::mono();
    assert_eq!(ask(&shard, "a.example"), 504);
    let took = clock::mono().since(begin);
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    drop(shard);
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = slow.local_addr().unwrap();
    let late = std::thread::spawn(move || {
        let (stream, _) = slow.accept().unwrap();
        std::thread::park_timeout(Duration::from_millis(300));
        let config = Arc::new(member::config(&own(&["x"], 2_100)));
        let mut stream = member::shake(stream, config).unwrap();
        request(&mut stream);
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
    });
    let shard = Shard::start(secured(any(), &[address]));
    assert_eq!(ask(&shard, "a.example"), 204);
    late.join().unwrap();
    shard.wait_idle();
    let log = shard.logged();
    let quoted: Vec<&str> = log.split('"').collect();
    let connect: f64 = quoted[5].parse().unwrap();
    assert!((0.25..2.0).contains(&connect), "{log}");
    eventually("its connection to go", || shard.member(0).active_connections.get() == 0);
}

/// A member that ends an answer without close_notify has cut it, unless the answer told its length.
#[test]
fn a_cut_answer_is_no_answer() {
    let start = |answer: &'static [u8]| {
        Secure::with(member::config(&own(&["x"], 2_100)), move |mut stream| {
            request(&mut stream);
            stream.write_all(answer).unwrap();
        })
    };
    let whole = start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let shard_of = |member: &Secure| shard(any(), &[member.address]);
    assert_eq!(shard_of(&whole).once(GET).text(), "hi");
    let cut = start(b"HTTP/1.1 200 OK\r\n\r\nhi");
    let shard = shard_of(&cut);
    let mut client = shard.client();
    client.send(GET);
    assert_eq!(client.answer_head().status, 200);
    let mut end = client.conn.rest();
    if let Ok(rest) = &mut end {
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole: {rest:?}");
    }
}
