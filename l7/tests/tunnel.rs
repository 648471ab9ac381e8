//! Switching protocols (R6.6-1, R6.6-2): what is asked and answered, then bytes both ways between
//! scripted members and raw clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use support::{Ask, Client, Conn, Member, Shard, config, eventually, listener, ok};
use weir_core::model;
use weir_core::time::clock;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: w\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: abc\r\n\r\n";
const PLAIN: &str = "GET /plain HTTP/1.1\r\nHost: w\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A member that switches, then echoes until the other side has ended.
fn echo() -> Member {
    Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            if request.field("Upgrade").is_none() {
                conn.send(ok("plain"));
                continue;
            }
            conn.send(SWITCH);
            return echo_bytes(&mut conn);
        }
    })
}

fn echo_bytes(conn: &mut Conn) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(n @ 1..) = conn.reader.read(&mut piece) {
        conn.send(&piece[..n]);
    }
    conn.finish();
}

/// A client whose request has been answered with 101.
fn tunnel(shard: &Shard) -> Client {
    let mut client = shard.client();
    client.send(ASK);
    expect_switch(&mut client);
    client
}

fn expect_switch(client: &mut Client) {
    let head = client.answer_head().head;
    assert_eq!(
        head,
        SWITCH.replace(
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        )
    );
}

#[test]
fn bytes_pass_both_ways_until_both_have_ended() {
    let member = echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = tunnel(&shard);
    client.send("hello");
    assert_eq!(client.conn.exactly(5), b"hello");
    assert_eq!(shard.counters().active_tunnels.get(), 1);
    // In bulk, as fast as both go.
    let data: Vec<u8> = (0..8 << 20).map(|at: u32| (at / 3) as u8).collect();
    let mut writer = client.conn.stream().try_clone().unwrap();
    let sent = data.clone();
    let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    assert!(client.conn.exactly(data.len()) == data, "other bytes");
    writing.join().unwrap();
    // Quiet, it holds no buffer.
    eventually("no lease is lent", || shard.ring.leases.get() == 0);
    // Half-close: the member still answers what it has.
    client.send("last");
    client.conn.finish();
    assert_eq!(client.conn.rest().unwrap(), b"last");
    eventually("the tunnel is gone", || shard.counters().active_tunnels.get() == 0);
    shard.wait_idle();
    let moved = data.len() as u64 + 9;
    let (client, member) = (shard.counters(), shard.member(0));
    assert_eq!(client.bytes_received.get(), ASK.len() as u64 + moved);
    assert_eq!(client.bytes_sent.get(), SWITCH.len() as u64 + moved);
    assert_eq!(member.bytes_received.get(), SWITCH.len() as u64 + moved);
    assert_eq!((shard.status(101), client.requests.get(), member.requests.get()), (1, 1, 1));
    assert_eq!(member.statuses.seen().collect::<Vec<_>>(), [(101, 1)]);
    assert_eq!((member.active_connections.get(), member.idle_connections.get()), (0, 0));
}

/// The member may half-close first, and the client still speaks.
#[test]
fn half_close_by_the_member() {
    let member = Member::start(|mut conn, _| {
        let _request = conn.request().unwrap();
        conn.send(SWITCH);
        conn.send("bye");
        conn.finish();
        assert_eq!(conn.rest().unwrap(), b"still here");
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = tunnel(&shard);
    assert_eq!(client.conn.rest().unwrap(), b"bye");
    client.send("still here");
    client.conn.finish();
    shard.wait_idle();
    assert_eq!(shard.counters().active_tunnels.get(), 0);
}

/// A 101 in pieces, with what follows it right behind; the client's bytes behind its request wait
/// until then.
#[test]
fn early_bytes_of_both_sides() {
    let member = Member::start(|mut conn, number| {
        let _request = conn.request().unwrap();
        // Nothing of the tunnel may come before the switch.
        conn.stream().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let early = conn.reader.read(&mut [0; 8]).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        conn.stream().set_read_timeout(Some(support::SOON)).unwrap();
        if number == 0 {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            conn.send(format!("{SWITCH}from the member"));
        } else {
            for byte in format!("{SWITCH}from the member").as_bytes() {
                conn.send([*byte]);
            }
        }
        assert_eq!(conn.exactly(15), b"from the client");
        echo_bytes(&mut conn);
    });
    let shard = Shard::with(&[(member.address, 1)]);
    for number in 0..2 {
        let mut client = shard.client();
        client.send(format!("{ASK}from the client"));
        if number == 0 {
            assert_eq!(client.answer_head().status, 100);
        }
        expect_switch(&mut client);
        assert_eq!(client.conn.exactly(15), b"from the member");
        client.send("more");
        assert_eq!(client.conn.exactly(4), b"more");
    }
}

/// An answer other than 101 is an answer as any: both connections go on, and what the client sent
/// behind its request is its next request.
#[test]
fn refused_upgrades_stay_http() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            assert_eq!(request.field("Upgrade").is_some(), request.line() == "GET /chat");
            conn.send(match request.line() {
                "GET /chat" => "HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\n\
                                Connection: upgrade\r\nContent-Length: 2\r\n\r\nno"
                    .into(),
                line => ok(line),
            });
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    for _ in 0..2 {
        client.send(format!("{ASK}{PLAIN}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (426, "no"));
        assert!(!answer.closes() && answer.field("Upgrade").is_none());
        assert_eq!(client.answer().text(), "GET /plain");
    }
    assert_eq!((member.accepted(), shard.status(101)), (1, 0));
    assert_eq!(shard.counters().active_tunnels.get(), 0);
}

/// What may not be asked for isn't, and the member's plain answer is passed on.
#[test]
fn unlisted_protocols_are_not_asked_for() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(ok(&format!("{:?}", request.field("Upgrade"))));
        }
    });
    let none = model::Listener { upgrade_protocols: vec![], ..listener() };
    let shard = Shard::start(config(none, &[(member.address, 1)]));
    assert_eq!(shard.once(ASK).text(), "None");
    let own = model::Listener { upgrade_protocols: vec!["own".into()], ..listener() };
    let shard = Shard::start(config(own, &[(member.address, 1)]));
    assert_eq!(shard.once(ASK).text(), "None");
    assert_eq!(shard.once(&ASK.replace(": websocket", ": websocket, own")).text(), "Some(\"own\")");
}

/// R2.3-502c.
#[test]
fn a_101_that_nobody_asked_for_is_a_bad_answer() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            let protocol = request.field("X-Switch").unwrap();
            conn.send(SWITCH.replace("websocket", protocol));
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut answers = 0;
    for (request, protocol) in [(PLAIN, "websocket"), (ASK, "h2c"), (ASK, "websocket, h2c")] {
        let asked = request.replace("Host:", &format!("X-Switch: {protocol}\r\nHost:"));
        assert_eq!(shard.once(&asked).status, 502, "{asked}");
        answers += 1;
        assert_eq!((shard.status(502), shard.status(101)), (answers, 0));
    }
}

/// A kept connection that the member has closed: the request goes to a fresh one.
#[test]
fn a_dead_connection_is_replaced_before_the_switch() {
    let member = Member::start(|mut conn, number| {
        let request = conn.request().unwrap();
        if number == 0 {
            assert_eq!(request.line(), "GET /plain");
            conn.send(ok("plain"));
            // The next request finds it closed, after it was sent.
            let _next = conn.request();
            return;
        }
        conn.send(SWITCH);
        echo_bytes(&mut conn);
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = shard.client();
    client.send(PLAIN);
    assert_eq!(client.answer().text(), "plain");
    client.send(ASK);
    expect_switch(&mut client);
    client.send("x");
    assert_eq!(client.conn.exactly(1), b"x");
    assert_eq!(shard.member(0).reuse_retries.get(), 1);
}

#[test]
fn resets_pass_on_as_resets() {
    let member = Member::start(|mut conn, number| {
        let _request = conn.request().unwrap();
        conn.send(SWITCH);
        if number == 0 {
            assert_eq!(conn.exactly(2), b"go");
            return conn.reset();
        }
        let broken = conn.rest().unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = tunnel(&shard);
    client.send("go");
    assert_eq!(client.conn.rest().unwrap_err().kind(), ErrorKind::ConnectionReset);
    tunnel(&shard).conn.reset();
    shard.wait_idle();
    assert_eq!(shard.counters().active_tunnels.get(), 0);
    assert_eq!(shard.member(0).active_connections.get(), 0);
}

fn patient(tunnel_timeout: Option<u64>, member_timeout: u64) -> model::Listener {
    model::Listener {
        tunnel_timeout: tunnel_timeout.map(Duration::from_secs),
        member_timeout: Duration::from_secs(member_timeout),
        client_timeout: Duration::from_secs(1),
        ..listener()
    }
}

/// R6.6-2, R6.7-15: a quiet tunnel ends, not before its time; bytes of either side keep it.
#[test]
fn quiet_tunnels_end() {
    let member = Member::start(|mut conn, _| {
        let _request = conn.request().unwrap();
        conn.send(SWITCH);
        // Every second byte is the member's own.
        while let Ok(1) = conn.reader.read(&mut [0; 1]) {
            conn.send("m");
        }
    });
    // Longer than member_timeout and client_timeout, which end no tunnel.
    for (settings, talk) in [(patient(Some(2), 1), 2_500), (patient(None, 2), 0)] {
        let shard = Shard::start(config(settings, &[(member.address, 1)]));
        // Before it begins: when its first limit was set is not known here.
        let start = clock::mono();
        let mut client = tunnel(&shard);
        let mut quiet = start;
        while clock::mono().since(start) < Duration::from_millis(talk) {
            std::thread::park_timeout(Duration::from_millis(200));
            quiet = clock::mono();
            client.send("c");
            assert_eq!(client.conn.exactly(1), b"m");
        }
        client.expect_end();
        let took = clock::mono().since(quiet);
        assert!(took >= Duration::from_secs(2), "{took:?}");
        drop(client);
        shard.wait_idle();
        assert_eq!(shard.counters().active_tunnels.get(), 0);
    }
}

/// A client that stops reading: the member is held back, few leases are lent, and the tunnel ends
/// when nothing moves any more.
#[test]
fn a_client_that_stops_reading_holds_little() {
    let member = Member::start(|mut conn, _| {
        let _request = conn.request().unwrap();
        conn.send(SWITCH);
        conn.send(vec![7; 64 << 20]);
    });
    let shard = Shard::start(config(patient(Some(2), 2), &[(member.address, 1)]));
    let client = tunnel(&shard);
    let mut most = 0;
    eventually("the tunnel is gone", || {
        most = most.max(shard.ring.leases.get());
        shard.counters().active_tunnels.get() == 0
    });
    // A handful as a rule; the kernel hands out up to 32 at once before a receive can be cancelled.
    assert!((1..=40).contains(&most), "{most} leases");
    let taken = shard.member(0).bytes_received.get();
    assert!(taken < 32 << 20, "{taken} bytes taken");
    drop(client);
    shard.wait_idle();
}

/// A drain ends no tunnel: it lives until its sides end it, or shutdown_timeout.
#[test]
fn drains_wait_for_tunnels() {
    let member = echo();
    let shard = Shard::with(&[(member.address, 1)]);
    let mut client = tunnel(&shard);
    let mut plain = shard.client();
    plain.send(PLAIN);
    assert_eq!(plain.answer().text(), "plain");
    shard.ask(Ask::Drain);
    plain.expect_end();
    client.send("hello");
    assert_eq!(client.conn.exactly(5), b"hello");
    assert_eq!(shard.active(), 1);
    client.conn.finish();
    client.expect_end();
    shard.wait_idle();
}
