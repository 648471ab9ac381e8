//! One request, one answer, and what stays of both connections: the everyday path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use support::{Ask, Client, Member, Shard, config, eventually, listener, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: web\r\n\r\n";

#[test]
fn connections_are_kept_on_both_sides() {
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for _ in 0..3 {
        client.send(GET);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "GET /a 0"));
        assert!(!answer.closes());
    }
    drop(client);
    assert_eq!(shard.once(GET).status, 200);
    assert_eq!(member.accepted(), 1);
    assert_eq!(shard.status(200), 4);
    assert_eq!(shard.counters().requests.get(), 4);
    assert_eq!(shard.counters().bytes_received.get(), 4 * GET.len() as u64);
    assert_eq!(shard.member(0).requests.get(), 4);
    assert_eq!(shard.member(0).connections.get(), 1);
    eventually("the client's connection is gone", || {
        shard.counters().active_connections.get() == 0 && shard.active() == 0
    });
    assert_eq!(shard.member(0).idle_connections.get(), 1);
    assert_eq!(shard.member(0).active_connections.get(), 1);
}

/// What the member gets is written anew.
#[test]
fn head_for_the_member() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(ok(&request.head));
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let answer = shard.once(
        "GET http://other/x HTTP/1.1\r\nHost: web\r\nConnection: x-a\r\nX-A: 1\r\nUpgrade: h2c\r\n\
         X-Forwarded-For: 9.9.9.9\r\nAccept:  */*\r\n\r\n",
    );
    // R5.10-1, and X-Forwarded-For appended.
    assert_eq!(
        answer.text(),
        "GET /x HTTP/1.1\r\nHost: other\r\nAccept: */*\r\n\
         X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n\r\n"
    );
    let answer = shard.once("GET /y HTTP/1.0\r\n\r\n");
    assert!(answer.text().contains(&format!("\r\nHost: {}\r\n", member.address)));
    assert!(answer.closes());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    let mut all = String::new();
    for i in 0..100 {
        match i % 3 {
            0 => all += &format!("\r\nGET /{i} HTTP/1.1\r\nHost: w\r\n\r\n"),
            1 => all += &format!("POST /{i} HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\nhello"),
            _ => {
                all += &format!(
                    "POST /{i} HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n\
                     2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
                );
            }
        }
    }
    client.send(&all);
    for i in 0..100 {
        let wanted = if i % 3 == 0 { format!("GET /{i} 0") } else { format!("POST /{i} 5") };
        assert_eq!(client.answer().text(), wanted);
    }
    client.conn.finish();
    client.expect_end();
}

#[test]
fn a_head_may_come_in_any_pieces() {
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    let request = "POST /bits HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\n\r\nabc";
    for at in 0..request.len() {
        let before = shard.counters().bytes_received.get();
        client.send(&request.as_bytes()[at..=at]);
        eventually("the byte has arrived", || shard.counters().bytes_received.get() > before);
    }
    assert_eq!(client.answer().text(), "POST /bits 3");
    // A head of many leases, R2.3-400c: 64 KiB pass.
    let start = "GET /long HTTP/1.1\r\nHost: w\r\nX: ";
    let long = [start, &"x".repeat(65_536 - start.len() - 4), "\r\n\r\n"].concat();
    client.send(&long);
    client.send(GET);
    assert_eq!(client.answer().text(), "GET /long 0");
    assert_eq!(client.answer().text(), "GET /a 0");
}

#[test]
fn bodiless_answers() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(match request.line() {
                "HEAD /h" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                "HEAD /c" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "GET /204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "GET /304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            });
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send("HEAD /h HTTP/1.1\r\nHost: w\r\n\r\n");
    assert_eq!(client.answer_head().field("Content-Length"), Some("1000"));
    client.send("HEAD /c HTTP/1.1\r\nHost: w\r\n\r\n");
    assert_eq!(client.answer_head().status, 200);
    client.send("GET /204 HTTP/1.1\r\nHost: w\r\n\r\n");
    assert_eq!(client.answer().status, 204);
    client.send("GET /304 HTTP/1.1\r\nHost: w\r\n\r\n");
    assert_eq!(client.answer().field("Content-Length"), Some("7"));
    client.send("GET /0 HTTP/1.1\r\nHost: w\r\n\r\n");
    assert_eq!(client.answer().field("Content-Length"), Some("0"));
    assert_eq!(member.accepted(), 1);
}

#[test]
fn interim_answers() {
    let member = Member::start(|mut conn, _| {
        while let Some(head) = conn.head() {
            conn.send(
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
            );
            let body = if head.starts_with("POST") { conn.exactly(5) } else { vec![] };
            conn.send(ok(&String::from_utf8(body).unwrap()));
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().head, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
    // Not to a client of 1.0.
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("Connection")), (200, Some("keep-alive")));
    assert_eq!(member.accepted(), 1);
}

#[test]
fn chunked_both_ways() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            assert_eq!(request.field("Transfer-Encoding"), Some("chunked"));
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n");
            let mut sent = 0;
            for (i, piece) in request.body.chunks(777).enumerate() {
                conn.send(format!("{:X};n={i}\r\n", piece.len()));
                conn.send(piece);
                conn.send("\r\n");
                sent += piece.len();
            }
            assert_eq!(sent, request.body.len());
            conn.send("0\r\nX: y\r\n\r\n");
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for size in [0usize, 1, 10, 4096, 100_000, 1_000_000] {
        let data: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        let mut request =
            b"POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in data.chunks(1234) {
            request.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            request.extend(piece);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        client.send(&request);
        let answer = client.answer();
        assert_eq!(answer.field("Trailer"), None);
        assert!(answer.body == data, "{size} bytes");
    }
    assert_eq!(member.accepted(), 1);
    // A client of 1.0 gets the data as it is, ended by the close.
    client.send("POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn old_clients_get_plain_bodies() {
    let member = Member::fixed(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert!(answer.closes());
    assert_eq!(answer.field("Transfer-Encoding"), None);
    assert_eq!(answer.text(), "abcde");
}

#[test]
fn answers_that_end_by_close() {
    let member = Member::start(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.0 200 OK\r\n\r\nup to ");
        conn.send("the end");
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for _ in 0..2 {
        client.send(GET);
        let answer = client.answer();
        assert_eq!(answer.field("Transfer-Encoding"), Some("chunked"));
        assert_eq!(answer.text(), "up to the end");
    }
    assert_eq!(member.accepted(), 2);
}

/// Large bodies pass byte for byte, by length.
#[test]
fn large_bodies() {
    const SIZE: usize = 24 << 20;
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()));
            conn.send(&request.body);
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let data: Vec<u8> = (0..SIZE).map(|i| (i * 7 % 253) as u8).collect();
    let mut client = shard.client();
    for _ in 0..2 {
        client.send(format!("PUT / HTTP/1.1\r\nHost: w\r\nContent-Length: {SIZE}\r\n\r\n"));
        client.send(&data);
        assert!(client.answer().body == data);
    }
    assert_eq!(member.accepted(), 1);
    client.send(GET);
    assert_eq!(client.answer().status, 200);
}

/// The answer may come, and end, while the request is still being sent.
#[test]
fn both_ways_at_once() {
    let member = Member::start(|mut conn, _| {
        let head = conn.head().unwrap();
        assert!(head.contains("chunked"));
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..50 {
            let chunk = conn.exactly(3 + 4 + 2);
            conn.send(chunk);
        }
        conn.send("0\r\n\r\n");
        conn.rest().unwrap();
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send("POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n");
    for i in 0..50 {
        client.send(format!("4\r\n{i:04}\r\n"));
        if i == 0 {
            assert!(client.answer_head().closes());
        }
        assert_eq!(client.conn.exactly(9), format!("4\r\n{i:04}\r\n").into_bytes());
    }
    assert_eq!(client.conn.exactly(5), b"0\r\n\r\n");
}

/// Half-close: once the answer has begun, the client's FIN is no reason to stop.
#[test]
fn half_closed_client_gets_the_rest_of_its_answer() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let member = Member::start(move |mut conn, _| {
        conn.request();
        let answer = ok(&"x".repeat(100_000));
        conn.send(&answer[..1_000]);
        told.lock().unwrap().recv().unwrap();
        conn.send(&answer[1_000..]);
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send(GET);
    assert_eq!(client.answer_head().status, 200);
    client.conn.finish();
    tell.send(()).unwrap();
    assert_eq!(client.conn.exactly(100_000), "x".repeat(100_000).as_bytes());
    client.expect_end();
}

/// A client that stops reading stops the member.
#[test]
fn slow_reader_holds_the_member_back() {
    // The half is more than the kernel lets the buffers of four sockets grow to (tcp_rmem,
    // tcp_wmem): the one that Weir receives by alone to 32 MiB.
    const SIZE: usize = 128 << 20;
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&written);
    let member = Member::start(move |mut conn, _| {
        conn.request();
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        let piece = vec![b'x'; 65_536];
        for _ in 0..SIZE / piece.len() {
            conn.send(&piece);
            count.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    let socket = socket2::SockRef::from(client.conn.stream());
    socket.set_recv_buffer_size(65_536).unwrap();
    client.send(GET);
    let answer = client.answer_head();
    assert_eq!(answer.status, 200);
    // Nothing moves for a while: all buffers on the way are full.
    let written = || written.load(std::sync::atomic::Ordering::SeqCst);
    let stalled_at = stalled(&written);
    assert!(stalled_at < SIZE / 2, "{stalled_at} bytes were taken from the member");
    assert_eq!(client.conn.exactly(SIZE).len(), SIZE);
    client.send(GET);
}

/// The value of `now` once it has stayed the same for half a second.
fn stalled(now: &dyn Fn() -> usize) -> usize {
    let quiet = Duration::from_millis(500);
    let mut last = now();
    let mut since = weir_core::time::clock::mono();
    loop {
        if now() != last {
            last = now();
            since = weir_core::time::clock::mono();
        }
        if last > 0 && weir_core::time::clock::mono().since(since) > quiet {
            return last;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// R2.1-4 and the demo's promise: requests land by weight.
#[test]
fn requests_land_by_weight() {
    let members: Vec<Member> = (0..3).map(|_| Member::echo()).collect();
    let weighted: Vec<_> = members.iter().zip([1, 2, 3]).map(|(m, w)| (m.address, w)).collect();
    let shard = Shard::with(&weighted);
    let mut client = shard.client();
    for _ in 0..600 {
        client.send(GET);
        assert_eq!(client.answer().status, 200);
    }
    let counts: Vec<u64> = (0..3).map(|at| shard.member(at).requests.get()).collect();
    assert_eq!(counts, [100, 200, 300]);
}

/// C21: no persistent connections with a keep-alive time of zero.
#[test]
fn keepalive_zero() {
    let member = Member::echo();
    let mut settings = listener();
    settings.keepalive_timeout = Duration::ZERO;
    let shard = Shard::start(config(settings, &[(member.address, 1)]));
    let mut client = shard.client();
    client.send(GET);
    assert!(client.answer().closes());
    client.expect_end();
}

#[test]
fn draining() {
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut busy = shard.client();
    let mut idle = shard.client();
    for client in [&mut busy, &mut idle] {
        client.send(GET);
        assert!(!client.answer().closes());
    }
    let mut silent = Client::connect(shard.address);
    eventually("all are accepted", || shard.active() == 3);
    shard.ask(Ask::Drain);
    busy.send(GET);
    assert!(busy.answer().closes());
    busy.expect_end();
    idle.expect_end();
    silent.expect_end();
    drop(busy);
    shard.wait_idle();
    assert_eq!(shard.active(), 0);
}

/// A connection's future is what an idle connection costs beside its socket.
#[test]
fn an_idle_connection_is_small() {
    let member = Member::echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let plot = shard.plot.clone();
    let address = shard.address;
    let (tell, told) = std::sync::mpsc::channel();
    shard.ask(Ask::Run(Box::new(move || {
        weir_core::rt::spawn(async move {
            let site = plot.view().site(plot.listener()).unwrap();
            let service = weir_l7::Service::start();
            let options = weir_core::rt::ConnectOptions::default();
            let stream = weir_core::rt::TcpStream::connect(address, &options).await.unwrap();
            let ticket = site.admit(address.ip(), weir_core::rt::now()).unwrap();
            tell.send(size_of_val(&service.serve(ticket, stream, address))).unwrap();
        });
    })));
    let size = told.recv_timeout(support::SOON).unwrap();
    assert!(size <= 400, "{size} bytes");
}
