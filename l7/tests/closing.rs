//! How connections end behind their last answer: its last bytes and the FIN in one segment, and
//! never a byte less for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, mpsc};

use socket2::SockRef;
use support::{Ask, Client, Conn, Member, SOON, Shard, config, eventually, listener, ok};
use weir_core::{model, rt};

const KEEPING: &str = "GET / HTTP/1.1\r\nHost: w\r\n\r\n";
const CLOSING: &str = "GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\nHost: w\r\n\r\n";

/// MSG_MORE.
const MORE: i32 = 0x8000;
/// TCP_CLOSE.
const CLOSED: u8 = 7;

/// What the kernel knows of a client's connection.
fn info(shard: &Shard, client: &Client) -> rt::TcpInfo {
    let socket = OwnedFd::from(client.conn.stream().try_clone().unwrap());
    shard.run(move || rt::TcpStream::from_fd(socket).tcp_info().unwrap())
}

/// A member that waits for a word before it answers a request.
struct Held {
    member: Member,
    asked: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

impl Held {
    fn new(answer: impl Fn(&mut Conn) + Send + Sync + 'static) -> Held {
        let ((tell, asked), (go, told)) = (mpsc::channel(), mpsc::channel());
        let told = Mutex::new(told);
        let member = Member::start(move |mut conn, _| {
            while conn.request().is_some() {
                let _ = tell.send(());
                told.lock().unwrap().recv_timeout(SOON).unwrap();
                answer(&mut conn);
            }
        });
        Held { member, asked, go }
    }

    /// Waits for the request and for its acknowledgement, has it answered, and returns what comes
    /// from then on, and in how many segments.
    fn answer(
        &self,
        shard: &Shard,
        client: &mut Client,
        meanwhile: impl FnOnce(),
    ) -> (String, u32) {
        self.asked.recv_timeout(SOON).unwrap();
        meanwhile();
        eventually("the request is acknowledged", || info(shard, client).unacked == 0);
        let before = info(shard, client).segments_in;
        self.go.send(()).unwrap();
        let text = String::from_utf8(client.conn.rest().expect("a clean end")).unwrap();
        (text, info(shard, client).segments_in - before)
    }
}

/// Whatever the reason for which the connection ends, if it is known with the last bytes.
#[test]
fn the_end_goes_with_the_last_bytes() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let bare = "HTTP/1.1 204 No Content\r\n\r\n";
    let half_closed = |client: &mut Client| {
        client.send(KEEPING);
        client.conn.finish();
    };
    type Send = fn(&mut Client);
    let cases: [(&str, Send, String, &str); 6] = [
        ("asked for", |client| client.send(CLOSING), ok("abc"), "\r\n\r\nabc"),
        ("HTTP/1.0", |client| client.send(OLD), ok("abc"), "\r\n\r\nabc"),
        ("chunks", |client| client.send(CLOSING), chunked.into(), "\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("chunks for HTTP/1.0", |client| client.send(OLD), chunked.into(), "\r\n\r\nabc"),
        ("without a body", |client| client.send(CLOSING), bare.into(), "\r\n\r\n"),
        ("half-closed", half_closed, ok("abc"), "\r\n\r\nabc"),
    ];
    for (what, send, answer, end) in cases {
        let held = Held::new(move |conn| conn.send(&answer));
        let shard = Shard::with(&[(held.member.address, 1)]);
        let mut client = shard.client();
        send(&mut client);
        let (text, segments) = held.answer(&shard, &mut client, || {});
        assert!(text.starts_with("HTTP/1.1 20") && text.ends_with(end), "{what}: {text}");
        assert_eq!(segments, 1, "{what}");
    }
}

/// A member that delimits its answer by its end: that goes on with the last bytes, too, if it came
/// with them.
#[test]
fn answers_that_the_end_delimits() {
    let features = rt::Features::from_environment().unwrap();
    for (request, end) in [(OLD, "\r\n\r\nabc"), (CLOSING, "\r\n\r\n3\r\nabc\r\n0\r\n\r\n")] {
        let held = Held::new(move |conn| {
            let answer = b"HTTP/1.1 200 OK\r\n\r\nabc";
            SockRef::from(conn.stream()).send_with_flags(answer, MORE).unwrap();
            conn.finish();
        });
        let shard = Shard::with(&[(held.member.address, 1)]);
        let mut client = shard.client();
        client.send(request);
        let (text, segments) = held.answer(&shard, &mut client, || {});
        assert!(text.ends_with(end), "{text}");
        if features.multishot_recv {
            assert_eq!(segments, 1, "{request}");
        }
    }
}

/// A connection that the drain ends, and the requests that a client had sent behind.
#[test]
fn drained_connections() {
    let held = Held::new(|conn| conn.send(ok("abc")));
    for behind in ["", KEEPING] {
        let shard = Shard::with(&[(held.member.address, 1)]);
        let mut client = shard.client();
        client.send(format!("{KEEPING}{behind}"));
        let drain = || shard.ask(Ask::Drain);
        let (text, segments) = held.answer(&shard, &mut client, drain);
        assert!(text.contains("\r\nConnection: close\r\n") && text.ends_with("abc"), "{text}");
        assert_eq!(segments, 1);
    }
}

/// Weir's own answers. The request's acknowledgement may come apart.
#[test]
fn pages_with_which_the_connection_ends() {
    let nowhere = model::Listener { default_pool: None, ..listener() };
    let shard = Shard::start(config(nowhere, &[]));
    for (request, status) in [
        (CLOSING, "404"),
        (OLD, "404"),
        ("GET / HTTP/9.9\r\nHost: w\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 9\r\n\r\nmore", "404"),
    ] {
        let mut client = shard.client();
        let before = info(&shard, &client).segments_in;
        client.send(request);
        let text = String::from_utf8(client.conn.rest().expect("a clean end")).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        let segments = info(&shard, &client).segments_in - before;
        assert!(segments <= 2, "{segments} segments for {request}");
    }
}

/// An answer that goes on after its first bytes, to a client that takes it slowly: it has all of
/// it, and the end behind.
#[test]
fn a_large_answer_for_a_slow_reader() {
    const LEN: usize = 6 << 20;
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            let body: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
            match request.line() {
                "GET /length" => {
                    conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"));
                    conn.send(body);
                }
                "GET /chunks" => {
                    conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for piece in body.chunks(70_001) {
                        conn.send(format!("{:x}\r\n", piece.len()));
                        conn.send(piece);
                        conn.send("\r\n");
                    }
                    conn.send("0\r\n\r\n");
                }
                _ => {
                    conn.send("HTTP/1.1 200 OK\r\n\r\n");
                    conn.send(body);
                    return;
                }
            }
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    for path in ["length", "chunks", "end"] {
        let mut client = narrow(shard.address);
        client.send(format!("GET /{path} HTTP/1.0\r\nHost: w\r\n\r\n"));
        let head = client.answer_head();
        assert_eq!(head.status, 200);
        let mut taken = 0;
        loop {
            let piece = std::io::Read::take(&mut client.conn.reader, 3_000);
            let piece = read_all(piece);
            if piece.is_empty() {
                break;
            }
            for byte in piece {
                assert_eq!(byte, (taken % 251) as u8, "{path}: at {taken}");
                taken += 1;
            }
        }
        assert_eq!(taken, LEN, "{path}");
    }
}

fn read_all(mut from: impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("a clean end");
    bytes
}

/// A client whose kernel takes little at a time.
fn narrow(address: SocketAddr) -> Client {
    let client = Client::connect(address);
    SockRef::from(client.conn.stream()).set_recv_buffer_size(64 << 10).unwrap();
    client
}

/// Bytes that come when Weir has looked for the last time: it closes with them unread, at which the
/// kernel drops what it still holds back. The answer has left before that.
#[test]
fn bytes_that_nobody_reads_any_more() {
    let held = Held::new(|conn| conn.send(ok("abc")));
    let shard = Shard::with(&[(held.member.address, 1)]);
    let mut client = shard.client();
    client.send(CLOSING);
    held.asked.recv_timeout(SOON).unwrap();
    let socket = client.conn.stream().try_clone().unwrap();
    let plot = shard.plot.clone();
    let (tell, told) = mpsc::channel();
    // Polled in each turn, and before the connection's task, which only completions wake: so in the
    // turn in which that one finds its answer taken.
    let work = async move {
        while plot.counters().bytes_sent.get() == 0 {
            rt::yield_now().await;
        }
        (&socket).write_all(b"\r\n").unwrap();
        let info = rt::TcpStream::from_fd(OwnedFd::from(socket));
        eventually("the kernel has them", || info.tcp_info().unwrap().unacked == 0);
        tell.send(()).unwrap();
    };
    shard.run(|| rt::spawn(work));
    held.go.send(()).unwrap();
    told.recv_timeout(SOON).unwrap();
    let text = String::from_utf8(client.conn.rest().expect("a clean end")).unwrap();
    assert!(text.ends_with("\r\n\r\nabc"), "{text}");
    // They were not read: else the connection would end without a reset. Where a receive completes
    // in the middle of a turn, they may have been.
    if rt::Features::from_environment().unwrap().defer_taskrun {
        eventually("the reset", || info(&shard, &client).state == CLOSED);
    }
}

/// A client that never stops sending hears the whole answer, and no reset.
#[test]
fn a_client_that_goes_on_sending() {
    let held = Held::new(|conn| conn.send(ok("abc")));
    let shard = Shard::with(&[(held.member.address, 1)]);
    let mut client = shard.client();
    client.send(KEEPING);
    // More requests than it gets answers for, since the drain ends the connection.
    client.send(KEEPING.repeat(200));
    let (text, _) = held.answer(&shard, &mut client, || shard.ask(Ask::Drain));
    assert!(text.ends_with("\r\n\r\nabc") && text.matches("HTTP/1.1 200").count() == 1, "{text}");
}
