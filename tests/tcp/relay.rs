//! Bytes both ways: half-close, resets, bulk, back-pressure, and whom a connection leads to.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use crate::process::{count, until};
use crate::{
    Member, Plan, address, assert_refused, assert_reset, connect, ended, nobody, read, reset, talk,
};

/// R5.2-1, R9.1-1, R6.8-1: the member sees an address of Weir's, the client Weir's own.
#[test]
fn both_sides_see_the_balancer() {
    let member = Member::start();
    let plan = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    let server = plan.start();
    let web = address(&server, "web");
    let mut client = crate::connect_from("127.0.0.7:0", web);
    let mut upstream = member.accept();
    talk(&mut client, &mut upstream);
    assert_eq!(upstream.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
    assert_eq!(client.peer_addr().unwrap(), web);
    // R7.12-2: as many connections on either side.
    assert_eq!(server.sum("weir_active_connections"), 1.0);
    assert_eq!(server.sum("weir_member_active_connections"), 1.0);
    assert_eq!(server.sum("weir_received_bytes_total"), 4.0);
    assert_eq!(server.sum("weir_member_received_bytes_total"), 4.0);
}

/// A FIN goes through and the other way goes on, whoever ends first.
#[test]
fn half_closes_are_kept() {
    let member = Member::start();
    let plan = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    let server = plan.start();
    for client_first in [true, false] {
        let client = connect(address(&server, "web"));
        let upstream = member.accept();
        let (mut one, mut two) = if client_first { (client, upstream) } else { (upstream, client) };
        one.write_all(b"question").unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        two.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        for _ in 0..3 {
            two.write_all(b"an").unwrap();
            assert_eq!(read::<2>(&mut one), "an");
        }
        two.shutdown(Shutdown::Write).unwrap();
        assert_eq!(one.read(&mut [0; 9]).unwrap(), 0);
    }
    until("both ends are counted", || {
        ended(&server, "client_fin") == 1.0 && ended(&server, "member_fin") == 1.0
    });
    assert_eq!(server.sum("weir_member_active_connections"), 0.0);
}

/// A reset on one side is one on the other; what came before it is not taken for the whole.
#[test]
fn resets_pass_on() {
    let member = Member::start();
    let plan = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    let server = plan.start();
    let mut client = connect(address(&server, "web"));
    let mut upstream = member.accept();
    talk(&mut client, &mut upstream);
    reset(upstream);
    assert_reset(&mut client);
    let mut client = connect(address(&server, "web"));
    let mut upstream = member.accept();
    talk(&mut client, &mut upstream);
    reset(client);
    assert_reset(&mut upstream);
    until("both ends are counted", || {
        ended(&server, "client_rst") == 1.0 && ended(&server, "member_rst") == 1.0
    });
}

/// R3.1-1, R2.2-1: a member that can't be had is stepped over, and nobody notices.
#[test]
fn the_next_member_is_tried() {
    let member = Member::start();
    let members = [(nobody(), 1), (member.addr, 1), (nobody(), 1)];
    let plan = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &members);
    let server = plan.start();
    for _ in 0..count(20, 200) {
        let mut client = connect(address(&server, "web"));
        talk(&mut client, &mut member.accept());
    }
    assert!(server.sum("weir_member_connect_failures_total") > 0.0);
    assert_eq!(ended(&server, "connect_failed"), 0.0);
}

/// R3.1-1, C18: nobody can be had, or there is nobody: RST, at once.
#[test]
fn without_a_member_clients_are_reset() {
    let dead = [(nobody(), 1), (nobody(), 1), (nobody(), 1), (nobody(), 1)];
    let idle = Member::start();
    let plan = Plan::new(1)
        .listener("web", 0, "dead", "")
        .listener("empty", 0, "none", "")
        .listener("zero", 0, "zero", "")
        .pool("dead", "", &dead)
        .pool("none", "", &[])
        .pool("zero", "", &[(idle.addr, 0)]);
    let server = plan.start();
    for name in ["web", "empty", "zero"] {
        assert_refused(address(&server, name));
    }
    assert!(idle.is_quiet());
    until("the end is counted", || ended(&server, "connect_failed") == 1.0);
    assert_eq!(server.sum("weir_member_connect_failures_total"), 3.0, "three attempts at most");
}

/// Much in both directions at once arrives whole; a receiver that does not read holds the sender
/// up, and the balancer keeps little of it.
#[test]
fn bulk_and_back_pressure() {
    let member = Member::start();
    let plan = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    let server = plan.start();
    let before = server.memory("VmRSS");
    let mut client = connect(address(&server, "web"));
    let upstream = member.accept();
    let size: usize = count(24 << 20, 1 << 30);
    let byte = |at: usize, salt: usize| (at / 4093 * 31 + at + salt) as u8;
    let send = move |mut to: std::net::TcpStream, salt: usize| {
        thread::spawn(move || {
            let mut at = 0;
            while at < size {
                let piece: Vec<u8> = (at..size.min(at + 65_521)).map(|n| byte(n, salt)).collect();
                to.write_all(&piece).unwrap();
                at += piece.len();
            }
            to.shutdown(Shutdown::Write).unwrap();
        })
    };
    let check = move |mut from: std::net::TcpStream, salt: usize| {
        let (mut at, mut piece) = (0, vec![0; 65_536]);
        loop {
            let n = from.read(&mut piece).unwrap();
            if n == 0 {
                break;
            }
            assert!(piece[..n].iter().zip(at..).all(|(got, at)| *got == byte(at, salt)));
            at += n;
        }
        assert_eq!(at, size);
    };
    let up = send(client.try_clone().unwrap(), 1);
    let down = send(upstream.try_clone().unwrap(), 2);
    let reader = thread::spawn(move || check(upstream, 1));
    // The client reads nothing before all of the other direction is through.
    reader.join().unwrap();
    let grown = server.memory("VmRSS").saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
    check(client.try_clone().unwrap(), 2);
    up.join().unwrap();
    down.join().unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    let moved = server.sum("weir_received_bytes_total") + server.sum("weir_sent_bytes_total");
    assert_eq!(moved, 2.0 * size as f64);
}

/// An idle session costs at most 1.5 KiB, both connections together, and holds no buffer.
#[test]
fn idle_sessions_are_small() {
    weir_core::net::sys::raise_nofile().unwrap();
    let member = Member::start();
    let plan = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    let server = plan.start();
    let web = address(&server, "web");
    let mut sessions = Vec::new();
    let mut open = |count: usize| {
        for _ in 0..count {
            let (mut client, mut upstream) = (connect(web), member.accept());
            talk(&mut client, &mut upstream);
            sessions.push((client, upstream));
        }
        server.memory("VmRSS")
    };
    // Enough of them that buffers of a busy moment are few beside them.
    let (warm, more) = (500, count(3_500, 8_000));
    let before = open(warm);
    let grown = open(more).saturating_sub(before) << 10;
    let each = grown / more as u64;
    println!("{each} bytes a session");
    assert!(each <= 1_536, "{each} bytes a session");
}
