//! What a listener takes and refuses on the wire: its limits, Expect, old versions on either side,
//! trailers, and answers that come before the request has ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::sync::atomic::Ordering;

use support::{Client, Member, Shard, config, eventually, listener, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: web\r\n\r\n";
const MIB: usize = 1 << 20;

/// A listener with small limits in front of `member`.
fn limited(member: &Member) -> Shard {
    let mut settings = listener();
    settings.max_header_bytes = 1_024;
    settings.max_headers = 5;
    settings.max_uri_bytes = 256;
    settings.max_body_bytes = 1_000;
    Shard::start(config(settings, &[(member.address, 1)]))
}

/// Sends a request; the status of the answer, and whether it ends the connection. When it does,
/// it must.
fn refused(shard: &Shard, request: &[u8]) -> (u16, bool) {
    let mut client = shard.client();
    client.send(request);
    let answer = client.answer();
    if answer.closes() {
        client.conn.finish();
        client.expect_end();
    }
    (answer.status, answer.closes())
}

/// R2.3-400c, R2.3-413, R2.3-414, R6.4-2: each limit of the listener's own; exactly it passes.
#[test]
fn limits_of_a_listener() {
    let member = Member::echo();
    let shard = limited(&member);
    let filled = |start: &str, size: usize, end: &str| {
        [start, &"x".repeat(size - start.len() - end.len()), end].concat().into_bytes()
    };
    let head = |size| filled("GET / HTTP/1.1\r\nHost: a\r\nX: ", size, "\r\n\r\n");
    let uri = |size: usize| filled("GET /", size + 26, " HTTP/1.1\r\nHost: a\r\n\r\n");
    let fields =
        |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n - 1));
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let length = |n: usize| format!("{post}Content-Length: {n}\r\n\r\n{}", "x".repeat(n));
    let chunk = |n: usize| format!("{n:x}\r\n{}\r\n", "x".repeat(n));
    let chunked = |n: usize| {
        let (a, b) = (chunk(n / 2), chunk(n - n / 2));
        format!("{post}Transfer-Encoding: chunked\r\n\r\n{a}{b}0\r\n\r\n")
    };
    assert_eq!(refused(&shard, &head(1_024)), (200, false));
    assert_eq!(refused(&shard, &head(1_025)), (400, true));
    assert_eq!(refused(&shard, fields(5).as_bytes()), (200, false));
    assert_eq!(refused(&shard, fields(6).as_bytes()), (400, true));
    assert_eq!(refused(&shard, &uri(256)), (200, false));
    assert_eq!(refused(&shard, &uri(257)), (414, true));
    // Tested first (C16): the head is too large as well.
    assert_eq!(refused(&shard, &uri(5_000)), (414, true));
    assert_eq!(refused(&shard, length(1_000).as_bytes()), (200, false));
    assert_eq!(refused(&shard, length(1_001).as_bytes()), (413, true));
    assert_eq!(refused(&shard, chunked(1_000).as_bytes()), (200, false));
    assert_eq!(refused(&shard, chunked(1_001).as_bytes()), (413, true));
    assert_eq!(shard.status(413), 2);
}

/// A head in pieces is judged when it passes a limit, not only at its end.
#[test]
fn limits_hold_for_unfinished_heads() {
    let member = Member::echo();
    let shard = limited(&member);
    for (start, piece, status) in
        [("GET /", "xxxxxxxx", 414), ("GET / HTTP/1.1\r\nHost: a\r\nX: ", "yyyyyyyy", 400)]
    {
        let mut client = shard.client();
        client.send(start);
        while shard.status(status) == 0 {
            let before = shard.counters().bytes_received.get();
            client.send(piece);
            eventually("it came", || {
                shard.counters().bytes_received.get() > before || shard.status(status) > 0
            });
            assert!(before < 10_000, "never refused");
        }
        assert_eq!(client.answer().status, status);
    }
    assert_eq!(member.accepted(), 0);
}

/// R2.3-413, R6.4-2: known from Content-Length, the answer comes before any of the body, also to a
/// client that asks first; no member hears of it. A limit of 0 is none.
#[test]
fn too_large_bodies() {
    let member = Member::echo();
    let shard = limited(&member);
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut client = shard.client();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 1001\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (413, true));
    }
    assert_eq!(member.accepted(), 0);
    let mut settings = listener();
    settings.max_body_bytes = 0;
    let shard = Shard::start(config(settings, &[(member.address, 1)]));
    let mut client = shard.client();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {MIB}\r\n\r\n"));
    client.send(vec![b'x'; MIB]);
    assert_eq!(client.answer().text(), format!("PUT / {MIB}"));
}

/// R2.3-413: a chunked body that grows beyond the limit; the member never sees a whole request.
#[test]
fn chunks_beyond_the_limit() {
    let member = Member::start(|mut conn, _| {
        assert!(conn.head().unwrap().contains("chunked"));
        assert!(!conn.rest().unwrap_or_default().ends_with(b"0\r\n\r\n"));
    });
    let shard = limited(&member);
    let mut client = shard.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("1f4\r\n{}\r\n", "x".repeat(500)));
    eventually("the member has the head", || shard.member(0).requests.get() == 1);
    client.send("1f5\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (413, true));
}

/// Any number of empty lines in front of a request takes no memory.
#[test]
fn empty_lines_are_not_kept() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
    };
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send("\r");
    eventually("it came", || shard.counters().bytes_received.get() == 1);
    let (before, lines) = (resident(), "\n\r".repeat(MIB / 2));
    for _ in 0..128 {
        client.send(&lines);
    }
    client.send(format!("\n{GET}"));
    assert_eq!(client.answer().status, 200);
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 * MIB, "{grown} bytes");
}

/// Expect goes to the member, 100 comes back, or a final answer without it; then the connection
/// can't go on, since nobody knows whether the body still comes.
#[test]
fn expect_end_to_end() {
    let member = Member::start(|mut conn, _| {
        while let Some(head) = conn.head() {
            assert!(head.contains("\r\nExpect: 100-continue\r\n"), "{head}");
            if head.starts_with("PUT /no ") {
                conn.send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
                let _ = conn.rest();
                return;
            }
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = conn.exactly(5);
            conn.send(ok(std::str::from_utf8(&body).unwrap()));
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    let put = |path| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    for _ in 0..2 {
        client.send(put("/yes"));
        assert_eq!(client.answer().head, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("hello");
        let answer = client.answer();
        assert_eq!((answer.text(), answer.closes()), ("hello", false));
    }
    client.send(put("/no"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (403, true));
    // A client that sends the body all the same is not misunderstood.
    client.send(format!("hello{GET}"));
    client.conn.finish();
    client.expect_end();
    assert_eq!(shard.member(0).requests.get(), 3);
    // An error of Weir's own before the 100.
    let shard = Shard::start(config(listener(), &[]));
    let mut client = shard.client();
    client.send(put("/"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (502, true));
}

/// A member of HTTP/1.0 knows no 100: the client sends after a while on its own. A client of 1.0
/// can't ask: its expectation goes nowhere, and no interim answer comes.
#[test]
fn expect_and_old_versions() {
    let member = Member::start(|mut conn, _| {
        let request = conn.request().unwrap();
        let asked = request.field("Expect").is_some();
        let body = format!("{asked} {}", request.body.len());
        let length = body.len();
        conn.send(format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let request = |version| {
        format!(
            "PUT / HTTP/{version}\r\nHost: w\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = shard.client();
    client.send(request("1.1"));
    eventually("the member has it", || shard.member(0).requests.get() == 1);
    client.send("hello");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.closes()), (200, "true 5", false));
    let mut client = shard.client();
    client.send(request("1.0"));
    client.send("hello");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.closes()), (200, "false 5", true));
}

/// A member of HTTP/1.0: its connection is kept only where it says so.
#[test]
fn old_members() {
    let keep =
        Member::fixed("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok");
    let close = Member::start(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    for (member, connections) in [(keep, 1), (close, 3)] {
        let shard = Shard::with(&[(member.address, 1)]);
        let mut client = shard.client();
        for _ in 0..3 {
            client.send(GET);
            let answer = client.answer();
            assert_eq!((answer.text(), answer.closes()), ("ok", false));
        }
        assert_eq!(member.accepted.load(Ordering::SeqCst), connections);
    }
}

/// Trailers end here in both directions, are never taken for header fields, and TE isn't sent on;
/// no Via is added in either direction.
#[test]
fn trailers_are_dropped() {
    let member = Member::start(|mut conn, _| {
        while let Some(head) = conn.head() {
            let lower = head.to_ascii_lowercase();
            for name in ["te:", "trailer:", "via:", "x-late:"] {
                assert!(!lower.contains(&format!("\n{name}")), "{head}");
            }
            assert_eq!(conn.exactly(8), b"2\r\nab\r\n0");
            assert_eq!(conn.exactly(4), b"\r\n\r\n");
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n");
            conn.send("2\r\ncd\r\n0\r\nX-Late: 1\r\nContent-Length: 9\r\n\r\n");
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: w\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Late\r\n\r\n2\r\nab\r\n0\r\nX-Late: 1\r\nHost: other\r\n\r\n",
        );
        let answer = client.answer_head();
        for name in ["Trailer", "X-Late", "Via"] {
            assert_eq!(answer.field(name), None);
        }
        assert_eq!(client.conn.exactly(12), b"2\r\ncd\r\n0\r\n\r\n");
    }
}

/// R2.3-501b: identity means no body; what follows is not taken for a request.
#[test]
fn nothing_follows_identity() {
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: identity\r\n\r\n{GET}"));
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("POST / 0", true));
    client.conn.finish();
    client.expect_end();
    assert_eq!(shard.member(0).requests.get(), 1);
}

/// Whatever ends a request early, its answer reaches a client that reads only after it has written
/// 1 MiB: half-close, bounded discarding, then close.
#[test]
fn early_answers_reach_clients_that_write_first() {
    let early = Member::start(|mut conn, _| {
        conn.head();
        conn.send("HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno");
        let _ = conn.rest();
    });
    let shard = limited(&early);
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let unlimited = Shard::with(&[(early.address, 1)]);
    let empty = Shard::start(config(listener(), &[]));
    // More than the client writes: the request has not ended when it is answered.
    let size = 2 * MIB;
    let chunk = format!("{size:x}\r\n");
    for (shard, head, status) in [
        (&shard, format!("{post}Content-Length: {size}\r\n\r\n"), 413),
        (&shard, format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}"), 413),
        (&shard, format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n"), 400),
        (&shard, format!("{post}Transfer-Encoding: gzip\r\n\r\n"), 501),
        (&shard, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".into(), 501),
        (&shard, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
        (&shard, format!("GET /{} HTTP/1.1\r\n", "x".repeat(300)), 414),
        (&unlimited, format!("{post}Content-Length: {size}\r\n\r\n"), 409),
        (&unlimited, format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}"), 409),
        (&empty, format!("{post}Content-Length: {size}\r\n\r\n"), 502),
    ] {
        let mut client: Client = shard.client();
        client.send(&head);
        client.send(vec![b'x'; MIB]);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "{head:.80}");
        client.conn.finish();
        client.expect_end();
    }
}
