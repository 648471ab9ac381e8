//! What goes wrong, and what the client then hears: the rows of table 2-1 on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use support::{Member, Shard, config, eventually, listener, ok};
use weir_core::time::clock;

const GET: &str = "GET /a HTTP/1.1\r\nHost: web\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";

/// A port that nobody listens on, held by a bound socket.
fn closed_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// R3.1-1, R2.3-404, C18: no pool, no member, no usable member. The client's connection goes on.
#[test]
fn nobody_to_ask() {
    let (_held, address) = closed_port();
    let mut no_pool = listener();
    no_pool.default_pool = None;
    for (config, status) in [
        (config(no_pool, &[]), 404),
        (config(listener(), &[]), 502),
        (config(listener(), &[(address, 0), (address, 0)]), 503),
    ] {
        let shard = Shard::start(config);
        let mut client = shard.client();
        for _ in 0..2 {
            client.send(GET);
            let answer = client.answer();
            assert_eq!(answer.status, status);
            assert!(!answer.closes());
        }
        client.send("HEAD / HTTP/1.1\r\nHost: w\r\n\r\nGET / HTTP/1.1\r\nHost: w\r\n\r\n");
        assert_eq!(client.answer_head().status, status);
        assert_eq!(client.answer().status, status);
        assert_eq!(shard.status(status), 4);
        // A request that is still coming can't be stepped over.
        client.send("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true));
    }
}

/// R2.3-502a.
#[test]
fn refused() {
    let (_held, address) = closed_port();
    let shard = Shard::with(&[(address, 1)]);
    let mut client = shard.client();
    for request in [GET, POST] {
        client.send(request);
        assert_eq!(client.answer().status, 502);
    }
    assert_eq!(shard.member(0).connect_failures.get(), 2);
}

/// R2.3-502d: the network has no way to the member. No TCP leads to a broadcast address, which the
/// kernel says as it does for a missing route.
#[test]
fn unreachable() {
    let shard = Shard::with(&[("127.255.255.255:80".parse().unwrap(), 1)]);
    assert_eq!(shard.once(GET).status, 502);
    assert_eq!(shard.member(0).connect_failures.get(), 1);
}

/// R2.3-502b: reset, or closed, before the answer.
#[test]
fn member_breaks_off() {
    let member = Member::start(|mut conn, _| {
        let request = conn.request().unwrap();
        match request.line() {
            "GET /reset" => conn.reset(),
            "GET /half" => conn.send("HTTP/1.1 200 OK\r\nContent-Le"),
            _ => {}
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for path in ["reset", "close", "half"] {
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: w\r\n\r\n"));
        assert_eq!(client.answer().status, 502, "{path}");
    }
    // A fresh connection's failure is not tried again.
    assert_eq!(member.accepted(), 3);
    assert_eq!(shard.member(0).reuse_retries.get(), 0);
}

/// R2.3-502c.
#[test]
fn malformed_answers() {
    for answer in [
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        let member = Member::fixed(answer);
        let shard = Shard::with(&[(member.address, 1)]);
        assert_eq!(shard.once(GET).status, 502, "{answer:?}");
        assert_eq!(shard.member(0).idle_connections.get(), 0);
    }
    let member = Member::fixed("HTTP/1.1 103 Early\r\n\r\n");
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send(GET);
    assert_eq!(client.answer().status, 103);
    client.conn.reset();
}

/// R2.3-502c: a body that is wrong while its head is still here. The client hears that, not the
/// member's status, and so do the counters; its connection goes on.
#[test]
fn bodies_wrong_from_the_beginning() {
    for body in ["zz\r\nabc", "3\r\nabc\r\nx\r\n", "3\r\nabcdef\r\n"] {
        let member = Member::start(move |mut conn, _| {
            while conn.request().is_some() {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                conn.send([head, body].concat());
            }
        });
        let shard = Shard::with(&[(member.address, 1)]);
        let mut client = shard.client();
        for _ in 0..2 {
            client.send(GET);
            let answer = client.answer();
            assert_eq!((answer.status, answer.closes()), (502, false), "{body:?}");
        }
        assert_eq!((shard.status(502), shard.status(200)), (2, 0), "{body:?}");
    }
}

/// An answer that can't be completed is cut: never a short body that looks whole.
#[test]
fn cut_answers() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let member = Member::start(move |mut conn, _| {
            conn.request();
            conn.send(answer);
        });
        let shard = Shard::with(&[(member.address, 1)]);
        let mut client = shard.client();
        client.send(GET);
        let rest = client.conn.rest();
        let whole = rest.as_ref().is_ok_and(|data| data.ends_with(b"0\r\n\r\n"));
        assert!(rest.is_err() && !whole, "{answer:?}: {rest:?}");
    }
}

/// More than the answer is not taken for the answer to the next request.
#[test]
fn surplus_from_the_member_is_not_forwarded() {
    let member = Member::start(|mut conn, _| {
        while conn.request().is_some() {
            conn.send([ok("one").as_str(), &ok("stray")].concat());
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(client.answer().text(), "one");
    }
    assert_eq!(member.accepted(), 3);
}

/// A reused connection turns out to be dead: GET goes once more, POST does not.
#[test]
fn dead_reused_connection() {
    let member = Member::start(|mut conn, _| {
        // Answers one request, takes another, and closes without a word.
        conn.request();
        conn.send(ok("first"));
        conn.request();
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(client.answer().text(), "first");
    }
    assert_eq!(shard.member(0).reuse_retries.get(), 2);
    client.send(POST);
    assert_eq!(client.answer().status, 502);
    // Idempotent with a body that is still at hand.
    client.send(POST);
    assert_eq!(client.answer().status, 200);
    client.send(POST.replace("POST", "PUT"));
    assert_eq!(client.answer().status, 200);
    assert_eq!(shard.member(0).reuse_retries.get(), 3);
}

/// An idle connection that the member closes leaves at once, so that even a POST is safe.
#[test]
fn closed_idle_connection_leaves() {
    let member = Member::start(|mut conn, number| {
        conn.request();
        conn.send(ok(&number.to_string()));
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for number in 0..5 {
        client.send(POST);
        assert_eq!(client.answer().text(), number.to_string());
        eventually("it has left", || shard.member(0).active_connections.get() == 0);
        assert_eq!(shard.member(0).idle_connections.get(), 0);
    }
}

/// C38: idle connections are kept no longer than member_timeout.
#[test]
fn idle_connections_expire() {
    let member = Member::echo();
    let mut settings = listener();
    settings.member_timeout = Duration::from_secs(1);
    let shard = Shard::start(config(settings, &[(member.address, 1)]));
    assert_eq!(shard.once(GET).status, 200);
    assert_eq!(shard.member(0).idle_connections.get(), 1);
    eventually("it has expired", || shard.member(0).active_connections.get() == 0);
}

/// R2.3-504b: the member is silent.
#[test]
fn silent_member() {
    let member = Member::start(|mut conn, _| {
        conn.request();
        conn.rest().unwrap();
    });
    let mut settings = listener();
    settings.member_timeout = Duration::from_secs(1);
    let shard = Shard::start(config(settings, &[(member.address, 1)]));
    let start = clock::mono();
    assert_eq!(shard.once(GET).status, 504);
    let took = clock::mono().since(start);
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(2), "{took:?}");
}

/// R6.7-6, C14: silence within an answer cuts it.
#[test]
fn member_falls_silent() {
    let member = Member::start(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        conn.rest().unwrap();
    });
    let mut settings = listener();
    settings.member_timeout = Duration::from_secs(1);
    let shard = Shard::start(config(settings, &[(member.address, 1)]));
    let mut client = shard.client();
    client.send(GET);
    assert_eq!(client.answer_head().status, 200);
    assert_eq!(client.conn.exactly(3), b"abc");
    assert!(client.conn.rest().is_err());
}

/// R2.3-504a, R2.3-504c, R6.7-7: the member's accept queue is full, so that SYNs are dropped.
#[test]
fn connect_timeout() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let full = TcpListener::from(socket);
    let address = full.local_addr().unwrap();
    let mut settings = listener();
    settings.connect_timeout = Duration::from_secs(1);
    // Two handshakes fill a queue of length 0.
    let _fill: Vec<_> = (0..4)
        .filter_map(|_| {
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok()
        })
        .collect();
    let shard = Shard::start(config(settings, &[(address, 1)]));
    let start = clock::mono();
    assert_eq!(shard.once(GET).status, 504);
    let took = clock::mono().since(start);
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(shard.member(0).connect_failures.get(), 1);
}

/// R2.3-400a, R2.3-414, R2.3-501a, R2.3-501b: refused, closed, and no member hears of it.
#[test]
fn refusals() {
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(16_384));
    let fat = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(65_536));
    for (request, status) in [
        ("GET / HTTP/1.1\n\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\x02", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (long.as_str(), 414),
        (fat.as_str(), 400),
    ] {
        let mut client = shard.client();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "{request:.60?}");
        client.expect_end();
    }
    assert_eq!(member.accepted(), 0);
    assert_eq!(shard.status(400), 7);
}

/// Bad framing behind a good head: the member gets no complete request.
#[test]
fn bad_chunks_after_the_head() {
    let member = Member::start(|mut conn, _| {
        let head = conn.head().unwrap();
        assert!(head.contains("chunked"));
        let rest = conn.rest().unwrap_or_default();
        assert!(!rest.ends_with(b"0\r\n\r\n"));
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    eventually("the member has the head", || shard.member(0).requests.get() == 1);
    client.send("3\r\nabc\r\n3\r\nabcd\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (400, true));
}

/// R2.3-408: a head, or a body, that does not go on.
#[test]
fn slow_clients() {
    let member = Member::echo();
    let mut settings = listener();
    settings.client_timeout = Duration::from_secs(1);
    let shard = Shard::start(config(settings, &[(member.address, 1)]));
    for request in [
        "GET / HTTP/1.1\r\nHost:",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
    ] {
        let start = clock::mono();
        let mut client = shard.client();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true), "{request}");
        client.expect_end();
        let took = clock::mono().since(start);
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    }
    // The whole head has one limit: a drip doesn't extend it.
    let mut client = shard.client();
    let start = clock::mono();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    while shard.status(408) < 4 {
        let before = shard.counters().bytes_received.get();
        client.send("y");
        eventually("it came", || {
            shard.counters().bytes_received.get() > before || shard.status(408) == 4
        });
        assert!(clock::mono().since(start) < Duration::from_secs(3));
    }
}

/// A connection that never sends a byte is closed without a word, and counted.
#[test]
fn silent_clients() {
    let (_held, address) = closed_port();
    let mut settings = listener();
    settings.client_timeout = Duration::from_secs(1);
    let shard = Shard::start(config(settings, &[(address, 1)]));
    let mut client = shard.client();
    client.expect_end();
    assert_eq!(shard.counters().silent_closes.get(), 1);
    assert_eq!(shard.counters().requests.get(), 0);
}

/// R6.7-4, R6.3-3: an idle connection closes after keepalive_timeout, counted from the last answer.
#[test]
fn idle_client_connection_closes() {
    let member = Member::echo();
    let mut settings = listener();
    settings.keepalive_timeout = Duration::from_secs(1);
    let shard = Shard::start(config(settings, &[(member.address, 1)]));
    let mut client = shard.client();
    client.send(GET);
    assert_eq!(client.answer().status, 200);
    let start = clock::mono();
    client.expect_end();
    let took = clock::mono().since(start);
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(2), "{took:?}");
    assert_eq!(shard.counters().silent_closes.get(), 0);
}

/// R2.3-499, R14.3-1, R14.3-2: the client leaves, and the member's connection is given up: by a
/// reset, by closing, and in the middle of its body.
#[test]
fn client_leaves() {
    let member = Member::start(|mut conn, _| {
        conn.request();
        let _ = conn.rest();
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send(GET);
    eventually("the member has it", || shard.member(0).requests.get() == 1);
    client.conn.reset();
    eventually("given up", || shard.member(0).active_connections.get() == 0);
    assert_eq!(shard.status(499), 1);
    let half = "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\nhello";
    for (at, request) in (2..).zip([GET, half]) {
        let mut client = shard.client();
        client.send(request);
        eventually("the member has it", || shard.member(0).requests.get() == at);
        // Not right behind the request, which would be a half-close.
        let start = clock::mono();
        let while_ago = || clock::mono().since(start) > Duration::from_millis(200);
        eventually("it waits for a while", while_ago);
        client.conn.finish();
        // Nothing on the wire.
        assert!(client.conn.rest().unwrap_or_default().is_empty());
        eventually("given up", || shard.member(0).active_connections.get() == 0);
        assert_eq!(shard.status(499), at);
    }
    assert_eq!(shard.counters().forwarded.get(), 3);
    assert_eq!(shard.member(0).statuses.seen().count(), 0);
}

/// An early final answer reaches a client that reads only after it has written 1 MiB.
#[test]
fn early_answer() {
    let member = Member::start(|mut conn, _| {
        conn.head();
        conn.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        let _ = conn.rest();
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
    client.send(vec![b'x'; 1 << 20]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (401, "no"));
    let (_held, address) = closed_port();
    let shard = Shard::with(&[(address, 1)]);
    let mut client = shard.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
    client.send(vec![b'x'; 1 << 20]);
    assert_eq!(client.answer().status, 502);
}
