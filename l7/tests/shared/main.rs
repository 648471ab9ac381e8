//! Members that speak HTTP/2, which requests share connections to: the crate h2 as member, clients
//! in HTTP/1.1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod frames;
mod member;
#[path = "../support/mod.rs"]
mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use member::{Call, Member, echo};
use support::{Shard, config, eventually, listener};
use weir_core::model::{Config, PoolProtocol};

fn pool(members: &[SocketAddr]) -> Config {
    let mut listener = listener();
    listener.connect_timeout = Duration::from_secs(2);
    let members: Vec<_> = members.iter().map(|&address| (address, 1)).collect();
    let mut config = config(listener, &members);
    config.pools[0].protocol = PoolProtocol::Grpc;
    config
}

fn shard(members: &[SocketAddr]) -> Shard {
    Shard::start(pool(members))
}

const GET: &str = "GET /a?b HTTP/1.1\r\nHost: web.example\r\nX-One: 1\r\n\r\n";

/// A request becomes a stream with the fields of its version, and what comes back an answer in
/// HTTP/1.1; nothing of either connection passes.
#[test]
fn requests_and_answers_are_translated() {
    let member = Member::start(|mut call: Call| async move {
        let (head, body) = call.whole().await;
        let field =
            |name: &str| head.headers.get(name).map_or("-", |value| value.to_str().unwrap());
        let told = format!(
            "{} {} {:?} te={} x-one={} host={} connection={} xff={} len={} {}",
            head.method,
            head.uri,
            head.version,
            field("te"),
            field("x-one"),
            field("host"),
            field("connection"),
            field("x-forwarded-for"),
            field("content-length"),
            String::from_utf8_lossy(&body)
        );
        let answer = Response::builder().status(207).header("x-two", "2").body(()).unwrap();
        call.answer(answer, &[Bytes::from(told)], None).await;
    });
    let shard = shard(&[member.address]);
    let mut client = shard.client();
    client.send(GET);
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("x-two")), (207, Some("2")));
    assert_eq!(answer.field("Transfer-Encoding"), Some("chunked"));
    let wanted = "GET http://web.example/a?b HTTP/2.0 te=trailers x-one=1 host=- connection=- \
                  xff=127.0.0.1 len=- ";
    assert_eq!(answer.text(), wanted);
    client.send("POST /p HTTP/1.1\r\nHost: h:1\r\nContent-Length: 2\r\nTE: x\r\n\r\nhi");
    assert!(
        client
            .answer()
            .text()
            .contains("te=trailers x-one=- host=- connection=- xff=127.0.0.1 len=2 hi")
    );
    client.send("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert!(client.answer().text().ends_with("len=- abcde"));
    client.send("HEAD /p HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((client.answer_head().status, client.answer().status), (207, 207));
    assert_eq!(member.connections(), 1, "all on one connection");
}

/// Answers without a body, and interim ones.
#[test]
fn answers_without_a_body() {
    let member = Member::start(|mut call: Call| async move {
        let (head, _) = call.whole().await;
        let status = match head.uri.path() {
            "/204" => 204,
            "/304" => 304,
            _ => 200,
        };
        let answer =
            Response::builder().status(status).header("grpc-status", "5").body(()).unwrap();
        call.respond.send_response(answer, true).unwrap();
    });
    let shard = shard(&[member.address]);
    let mut client = shard.client();
    for status in [204, 304, 200] {
        client.send(format!("GET /{status} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (status, 0));
        assert_eq!(answer.field("grpc-status"), Some("5"));
    }
}

/// Hundreds at once share few connections, whatever the member takes at a time.
#[test]
fn many_share_few_connections() {
    for at_a_time in [1_000, 100, 7] {
        let member = Member::with(at_a_time, echo);
        let shard = shard(&[member.address]);
        let mut clients: Vec<_> = (0..300).map(|_| shard.client()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.send(format!("POST /{at} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"));
        }
        for client in &mut clients {
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (200, "abc"));
        }
        let connections = member.connections();
        assert!(
            connections <= 300 / at_a_time.min(100) as usize + 3,
            "{connections} of {at_a_time}"
        );
        assert_eq!(shard.member(0).requests.get(), 300);
    }
}

/// Bodies of some MiB pass both ways at once, many beside each other, within the windows.
#[test]
fn large_bodies_pass() {
    let member = Member::start(echo);
    let shard = shard(&[member.address]);
    let body: Vec<u8> = (0..2 << 20).map(|at: u32| (at.wrapping_mul(31) >> 3) as u8).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = shard.client();
                let mut reader = client.conn.stream().try_clone().unwrap();
                client.send(format!(
                    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                ));
                let heard = scope.spawn(move || {
                    let mut all = Vec::new();
                    reader.read_to_end(&mut all).unwrap();
                    all
                });
                client.send(&body);
                let heard = heard.join().unwrap();
                assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", heard.len());
                assert!(unchunked(&heard) == body, "altered");
            });
        }
    });
    eventually("all leases back", || shard.run(|| weir_core::rt::audit().leases) == 0);
}

/// Clients that don't read hold nobody else up on the connection they share.
#[test]
fn who_does_not_read_holds_nobody_up() {
    let member = Member::start(|mut call: Call| async move {
        let (head, _) = call.whole().await;
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let pieces = if head.uri.path() == "/large" { 16 } else { 1 };
        call.answer(Response::new(()), &vec![piece; pieces], None).await;
    });
    let shard = shard(&[member.address]);
    let mut idle: Vec<_> = (0..40).map(|_| shard.client()).collect();
    for client in &mut idle {
        client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("all to be asked", || shard.member(0).requests.get() == 40);
    for _ in 0..20 {
        assert_eq!(shard.once(GET).body.len(), 1 << 20);
    }
    assert_eq!(member.connections(), 1);
}

/// The body of a chunked answer.
fn unchunked(answer: &[u8]) -> Vec<u8> {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let (mut rest, mut body) = (&answer[at + 4..], Vec::new());
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
        if size == 0 {
            return body;
        }
    }
}

/// A stream that the member refuses, or never looked at when it went away, goes again, even a POST;
/// what it has begun doesn't.
#[test]
fn refused_streams_go_again() {
    let refusing = Member::start(|mut call: Call| async move {
        call.respond.send_reset(h2::Reason::REFUSED_STREAM);
    });
    let good = Member::start(echo);
    let shard = shard(&[refusing.address, good.address]);
    for _ in 0..4 {
        let answer = shard.once("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!((answer.status, answer.text()), (200, "hi"));
    }
    assert!(shard.member(0).retries.get() >= 1);
    let going = Member::going_after(3, echo);
    let shard = self::shard(&[going.address]);
    let mut clients: Vec<_> = (0..20).map(|_| shard.client()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    }
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "hi"));
    }
    assert!((0..8).all(|_| shard.once(GET).status == 200));
    assert!(going.connections() > 1);
}

/// A reset in the middle of an answer cuts the client's; before it, it is 502.
#[test]
fn resets_cut() {
    let member = Member::start(|mut call: Call| async move {
        let (head, _) = call.whole().await;
        if head.uri.path() == "/before" {
            return call.respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        let mut body = call.respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"some"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let shard = shard(&[member.address]);
    assert_eq!(
        shard.once("POST /before HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").status,
        502
    );
    let mut client = shard.client();
    client.send(GET);
    assert_eq!(client.answer_head().status, 200);
    let end = client.conn.rest();
    assert!(!end.is_ok_and(|rest| rest.ends_with(b"0\r\n\r\n")), "it looks whole");
    assert_eq!(member.connections(), 1, "the connection goes on");
}

/// A client that leaves has its stream reset, and others go on.
#[test]
fn a_client_that_leaves_is_told() {
    let member = Member::start(|mut call: Call| async move {
        let (head, _) = call.whole().await;
        if head.uri.path() == "/slow" {
            let reason = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await.unwrap();
            assert_eq!(reason, h2::Reason::CANCEL);
            call.told.given_up();
            return;
        }
        call.answer(Response::new(()), &[], None).await;
    });
    let shard = shard(&[member.address]);
    let mut client = shard.client();
    client.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("it to be asked", || shard.member(0).requests.get() == 1);
    client.conn.reset();
    eventually("the member to be told", || member.given_up() == 1);
    assert_eq!(shard.once(GET).status, 200);
    assert_eq!(member.connections(), 1);
}

/// Members that don't speak HTTP/2, or nothing at all.
#[test]
fn other_members_fail() {
    let plain = support::Member::fixed("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(shard(&[plain.address]).once(GET).status, 502);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = shard(&[closed]);
    assert_eq!(refused.once(GET).status, 502);
    assert_eq!(refused.member(0).connect_failures.get(), 1);
    let good = Member::start(echo);
    let both = shard(&[closed, good.address]);
    for _ in 0..4 {
        assert_eq!(both.once(GET).status, 200);
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = pool(&[silent.local_addr().unwrap()]);
    config.listeners[0].member_timeout = Duration::from_secs(1);
    let shard = Shard::start(config);
    assert_eq!(shard.once(GET).status, 504);
}

/// Trailers pass to clients of HTTP/1.1 that get chunks.
#[test]
fn trailers_end_an_answer() {
    let member = Member::start(|mut call: Call| async move {
        call.whole().await;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        call.answer(Response::new(()), &[Bytes::from_static(b"body")], Some(trailers)).await;
    });
    let shard = shard(&[member.address]);
    let mut client = shard.client();
    for _ in 0..2 {
        client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = client.answer_head();
        assert_eq!((head.status, head.field("Transfer-Encoding")), (200, Some("chunked")));
        let mut rest = vec![0; 9];
        std::io::Read::read_exact(&mut client.conn.reader, &mut rest).unwrap();
        assert_eq!(rest, b"4\r\nbody\r\n");
        let mut end = Vec::new();
        while !end.ends_with(b"0\r\n\r\n") && !end.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut client.conn.reader, &mut byte).unwrap();
            end.push(byte[0]);
        }
    }
}
