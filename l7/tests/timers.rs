//! The time limits of table 6-3 against clients and members that trickle: drips are ended, slow but
//! steady ones are not, and no limit is early.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use support::{Client, Conn, Member, SOON, Shard, config, eventually, listener, ok};
use weir_core::model;
use weir_core::time::clock::{self, Mono};

const GET: &str = "GET /a HTTP/1.1\r\nHost: web\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

fn pass(time: Duration) {
    let end = clock::mono().plus(time);
    while clock::mono() < end {
        std::thread::park_timeout(end.since(clock::mono()));
    }
}

fn since(start: Mono) -> Duration {
    clock::mono().since(start)
}

fn shard(member: &Member, change: impl FnOnce(&mut model::Listener)) -> Shard {
    let mut settings = listener();
    change(&mut settings);
    Shard::start(config(settings, &[(member.address, 1)]))
}

/// R6.7-15, R6.7-4, R6.7-5, R6.7-6: no limit is early. (Late by a turn: the wheel's own tests.)
#[test]
fn limits_are_never_early() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            match request.line() {
                "GET /silent" => drop(conn.rest()),
                "GET /half" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
                _ => conn.send(ok("")),
            }
        }
    });
    let shard = shard(&member, |l| {
        (l.keepalive_timeout, l.client_timeout, l.member_timeout) = (SECOND, SECOND, SECOND);
        l.enable_member_retry = false;
    });
    type Script = fn(&mut Client);
    let cases: [(&str, Script); 6] = [
        ("a connection that sends nothing", |client| client.expect_end()),
        ("an idle connection", |client| {
            client.send(GET);
            assert_eq!(client.answer().status, 200);
            client.expect_end();
        }),
        ("a head that does not go on", |client| {
            client.send("GET / HTTP/1.1\r\nHost:");
            assert_eq!(client.answer().status, 408);
        }),
        ("a body that does not go on", |client| {
            client.send("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\nab");
            assert_eq!(client.answer().status, 408);
        }),
        ("a member that says nothing", |client| {
            client.send("GET /silent HTTP/1.1\r\nHost: w\r\n\r\n");
            assert_eq!(client.answer().status, 504);
        }),
        ("a member that stops in the middle", |client| {
            client.send("GET /half HTTP/1.1\r\nHost: w\r\n\r\n");
            assert_eq!(client.answer_head().status, 200);
            assert!(client.conn.rest().is_err(), "cut, not ended");
        }),
    ];
    for (what, script) in cases {
        let start = clock::mono();
        let mut client = shard.client();
        script(&mut client);
        assert!((SECOND..SOON).contains(&since(start)), "{what}: {:?}", since(start));
    }
}

/// R6.3-3: the idle time begins anew with each request.
#[test]
fn requests_keep_a_connection_alive() {
    let member = Member::echo();
    let shard = shard(&member, |l| l.keepalive_timeout = 3 * SECOND);
    let mut client = shard.client();
    let start = clock::mono();
    while since(start) < 4 * SECOND {
        client.send(GET);
        assert_eq!(client.answer().status, 200);
        pass(SECOND / 2);
    }
    let last = clock::mono();
    client.expect_end();
    assert!(since(last) >= 2 * SECOND, "{:?}", since(last));
}

/// R6.7-5: each byte of a body begins a new gap, but a byte now and then is not enough: the client
/// is given up long before its body ends (slow body).
#[test]
fn dripped_bodies_end() {
    let member = Member::start(|mut conn, _| drop(conn.rest()));
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let shard = shard(&member, |l| l.client_timeout = SECOND);
        let mut client = shard.client();
        let start = clock::mono();
        client.send(format!("POST / HTTP/1.1\r\nHost: w\r\n{framing}\r\n\r\n"));
        while shard.status(408) == 0 {
            assert!(since(start) < SOON, "{framing}: still served");
            client.send(if framing.ends_with("chunked") { "1\r\nx\r\n" } else { "x" });
            pass(SECOND / 10);
        }
        assert!(since(start) >= SECOND);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true));
    }
}

/// A member that sends a great deal, and a client with little room for it.
fn flood() -> Member {
    Member::start(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        (0..64).for_each(|_| conn.send(&piece));
    })
}

fn narrow(shard: &Shard) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&shard.address.into()).unwrap();
    let mut client = Client { conn: Conn::new(socket.into()) };
    client.send(GET);
    client
}

/// A client that takes nothing, or a few bytes now and then, of its answer is cut off (slow read).
#[test]
fn slow_readers_end() {
    let member = flood();
    for bytes in [0, 3] {
        let shard = shard(&member, |l| l.client_timeout = SECOND);
        let client = narrow(&shard);
        let start = clock::mono();
        eventually("it is served", || shard.counters().requests.get() == 1);
        while shard.active() == 1 {
            assert!(since(start) < SOON, "{bytes} bytes: still served");
            let _ = client.conn.stream().read(&mut [0; 3][..bytes]);
            pass(SECOND / 10);
        }
        assert!(since(start) >= SECOND);
    }
}

/// One that reads slowly but steadily is served, though the kernel takes nothing new for much
/// longer than client_timeout.
#[test]
fn steady_readers_are_served() {
    let member = flood();
    let shard = shard(&member, |l| l.client_timeout = 4 * SECOND);
    let mut client = narrow(&shard);
    let start = clock::mono();
    while since(start) < 9 * SECOND {
        client.conn.exactly(8_192);
        pass(SECOND / 8);
    }
    assert_eq!(shard.active(), 1);
    client.conn.exactly(1 << 20);
}

/// A last piece that the client takes slowly is not cut off by the close behind it.
#[test]
fn the_end_of_an_answer_waits_for_its_reader() {
    const SIZE: usize = 8 << 20;
    let member = Member::start(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.0 200 OK\r\n\r\n");
        conn.send(vec![b'x'; SIZE]);
    });
    let shard = shard(&member, |l| l.client_timeout = 4 * SECOND);
    let mut client = narrow(&shard);
    let head = client.answer_head();
    assert_eq!(head.status, 200);
    client.conn.finish();
    let start = clock::mono();
    while since(start) < 5 * SECOND {
        client.conn.exactly(8_192);
        pass(SECOND / 8);
    }
    assert!(client.conn.rest().unwrap().ends_with(b"0\r\n\r\n"));
}

/// R6.7-6: a member that takes an upload slowly but steadily is not given up.
#[test]
fn steady_takers_are_served() {
    const SIZE: usize = 16 << 20;
    let listening = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listening = listening.unwrap();
    listening.set_recv_buffer_size(4_096).unwrap();
    listening.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listening.listen(1).unwrap();
    let listening = TcpListener::from(listening);
    let address = listening.local_addr().unwrap();
    let member = std::thread::spawn(move || {
        let mut conn = Conn::new(listening.accept().unwrap().0);
        conn.head();
        for _ in 0..40 {
            conn.exactly(8_192);
            pass(SECOND / 8);
        }
        conn.exactly(SIZE - 40 * 8_192);
        conn.send(ok("taken"));
    });
    let mut settings = listener();
    settings.member_timeout = 3 * SECOND;
    let shard = Shard::start(config(settings, &[(address, 1)]));
    let mut client = shard.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.send(vec![b'x'; SIZE]);
    assert_eq!(client.answer().text(), "taken");
    member.join().unwrap();
}

/// C38: kept connections that nobody uses go when their time is over, also while others are closed
/// by the member all the time.
#[test]
fn kept_connections_go_whatever_happens_to_others() {
    const COUNT: usize = 40;
    let (tell, told) = std::sync::mpsc::channel();
    let all_here = std::sync::Barrier::new(COUNT);
    let member = Member::start(move |mut conn, number| {
        conn.request();
        all_here.wait();
        conn.send(ok(""));
        if number == 0 {
            drop(conn.rest());
            let _ = tell.send(());
        } else {
            pass(u32::try_from(number).unwrap() * 3 * SECOND / 10);
        }
    });
    let shard = shard(&member, |l| l.member_timeout = 2 * SECOND);
    let mut clients: Vec<Client> = (0..COUNT).map(|_| shard.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    clients.iter_mut().for_each(|client| drop(client.answer()));
    assert!(told.recv_timeout(SOON).is_ok(), "still kept while others were closed");
}
