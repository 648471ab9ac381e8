//! Who speaks first, and when: the connect to a member takes along what the client has said by
//! then. Whatever happens to the connect, the member hears it once, and nobody waits for who is
//! silent.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use weir_core::time::clock;

use crate::process::moody::BlackHole;
use crate::process::{LIMIT, Server, count, until};
use crate::{Member, Plan, address, assert_reset, connect, echo, ended, nobody, read, reset, talk};

fn plan(lines: &str, pool: &str, members: &[(SocketAddr, u8)]) -> Plan {
    Plan::new(1).listener("web", 0, "app", lines).pool("app", pool, members)
}

/// Its own shard only, so that what happens there can be counted.
fn one_shard(plan: &Plan) -> Server {
    Server::start(&plan.text().replace("\"auto\"", "[0]"))
}

/// Of bytes that are there at once, that come while nothing else happens, and of FINs with them or
/// behind them nothing is lost, and the other direction stays open.
#[test]
fn clients_that_speak_first() {
    let member = Member::start();
    let server = plan("", "", &[(member.addr, 1)]).start();
    for n in 0..count(20, 1_000) {
        let mut client = connect(address(&server, "web"));
        let upstream = if n % 2 == 0 {
            client.write_all(b"question").unwrap();
            (n % 4 == 0).then(|| client.shutdown(Shutdown::Write).unwrap());
            member.accept()
        } else {
            let upstream = member.accept();
            client.write_all(b"question").unwrap();
            upstream
        };
        let mut upstream = upstream;
        assert_eq!(read::<8>(&mut upstream), "question");
        if n % 4 != 0 {
            talk(&mut client, &mut upstream);
            client.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(upstream.read(&mut [0; 1]).unwrap(), 0);
        upstream.write_all(b"answer").unwrap();
        assert_eq!(read::<6>(&mut client), "answer");
        drop(upstream);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }
    until("all have ended", || ended(&server, "client_fin") == count(20, 1_000) as f64);
    let per = |n: usize| (n * 8 + n * 3 / 4 * 4) as f64;
    assert_eq!(server.sum("weir_received_bytes_total"), per(count(20, 1_000)));
    assert_eq!(server.sum("weir_member_sent_bytes_total"), per(count(20, 1_000)));
}

/// Where the member speaks first nobody waits for the client; also when that has nothing to say,
/// and ends its side at once.
#[test]
fn clients_that_never_speak() {
    let greeter = echo("hello", "127.0.0.1:0");
    let server = plan("", "", &[(greeter, 1)]).start();
    let mut silent = connect(address(&server, "web"));
    assert_eq!(read::<5>(&mut silent), "hello");
    let mut ended_at_once = connect(address(&server, "web"));
    ended_at_once.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    ended_at_once.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

/// R3.1-1, R6.7-7: members that refuse, or do not answer within `connect_timeout`, are stepped
/// over, and the next one hears the whole, once, behind its own header.
#[test]
fn the_next_member_hears_all() {
    let (member, hole) = (Member::start(), BlackHole::new());
    let members = [(nobody(), 50), (hole.addr, 50), (member.addr, 1)];
    for (pool, header) in [("", 0), ("proxy_protocol = \"v2\"", 28)] {
        let server = one_shard(&plan("connect_timeout = 1", pool, &members));
        for len in [1, 4_096, 100_000] {
            let said: Vec<u8> = (0..len).map(|n| (n / 251 + n) as u8).collect();
            let mut client = connect(address(&server, "web"));
            client.write_all(&said).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            let mut upstream = member.accept();
            upstream.read_to_end(&mut heard).unwrap();
            assert_eq!(heard.len(), header + len);
            assert!(heard[header..] == said, "{len} bytes");
            upstream.write_all(b"answer").unwrap();
            assert_eq!(read::<6>(&mut client), "answer");
            drop(upstream);
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        }
        assert_eq!(ended(&server, "connect_failed"), 0.0);
        assert!(server.sum("weir_member_connect_failures_total") >= 2.0);
        let sent = 3.0 * header as f64 + 104_097.0;
        assert_eq!(server.sum("weir_member_sent_bytes_total"), sent);
        assert_eq!(server.sum("weir_received_bytes_total"), 104_097.0);
    }
}

/// A client that is gone before its member is there needs none: the connect is given up, and no
/// member is blamed. Said, or not, before that.
#[test]
fn clients_that_break_before_there_is_a_member() {
    let hole = BlackHole::new();
    let server = one_shard(&plan("connect_timeout = 60", "", &[(hole.addr, 1)]));
    let start = clock::mono();
    for (n, said) in [(1.0, &b""[..]), (2.0, b"question")] {
        let mut client = connect(address(&server, "web"));
        client.write_all(said).unwrap();
        until("it is being served", || server.sum("weir_active_connections") == 1.0);
        if !said.is_empty() {
            until("it is heard", || server.sum("weir_ring_leases") == 1.0);
        }
        reset(client);
        until("its end is counted", || ended(&server, "client_rst") == n);
        until("all is given back", || {
            server.sum("weir_ring_leases") == 0.0 && server.sum("weir_active_connections") == 0.0
        });
    }
    assert!(clock::mono().since(start) < Duration::from_secs(50), "the connect was waited for");
    assert_eq!(server.sum("weir_member_connect_failures_total"), 0.0);
    assert_eq!(server.sum("weir_received_bytes_total"), 8.0);
}

/// A client's FIN is no break: who waits for a member with nothing more to say is served.
#[test]
fn clients_that_end_before_there_is_a_member() {
    let (member, hole) = (Member::start(), BlackHole::new());
    let members = [(hole.addr, 50), (member.addr, 1)];
    let server = one_shard(&plan("connect_timeout = 1", "", &members));
    for said in [&b""[..], b"question"] {
        let mut client = connect(address(&server, "web"));
        client.write_all(said).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut upstream, mut heard) = (member.accept(), Vec::new());
        upstream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, said);
        upstream.write_all(b"answer").unwrap();
        assert_eq!(read::<6>(&mut client), "answer");
    }
}

/// What waits for a member is one lease a client, however much that sends.
#[test]
fn who_waits_for_a_member_is_heard_little() {
    let hole = BlackHole::new();
    let server = one_shard(&plan("connect_timeout = 60", "", &[(hole.addr, 1)]));
    let mut clients: Vec<_> = (0..8).map(|_| connect(address(&server, "web"))).collect();
    for client in &mut clients {
        client.write_all(&[7; 64 << 10]).unwrap();
    }
    until("all are heard", || server.sum("weir_ring_leases") >= 8.0);
    assert_eq!(server.sum("weir_ring_leases"), 8.0);
    for client in clients {
        reset(client);
    }
    until("all are gone", || server.sum("weir_active_connections") == 0.0);
    assert_eq!(server.sum("weir_ring_leases"), 0.0);
}

/// R6.3-1: what ends sessions ends those without a member, too; the connect is given up.
#[test]
fn who_waits_for_a_member_can_be_cut() {
    let hole = BlackHole::new();
    let members = [(hole.addr, 1)];
    let both = plan("connect_timeout = 60", "", &members).listener("other", 0, "app", "");
    let server = one_shard(&both);
    let mut clients: Vec<_> = (0..4).map(|_| connect(address(&server, "web"))).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        (n % 2 == 0).then(|| client.write_all(b"question").unwrap());
    }
    until("all are served", || server.sum("weir_active_connections") == 4.0);
    let one = Plan::new(1).listener("other", 0, "app", "").pool("app", "", &members);
    let (code, out, err) = server.reload(one.text());
    assert_eq!(code, Some(0), "{out}{err}");
    clients.iter_mut().for_each(assert_reset);
    until("all is given back", || server.sum("weir_ring_leases") == 0.0);
}

/// R7.14-2, R7.14-4, C12: a member that gets weight 0, or is removed, while it is being connected
/// to keeps who waits for it, and `connection_drain` holds for them, too; nobody new goes there.
#[test]
fn who_waits_for_a_member_that_leaves() {
    const NAMES: [&str; 2] = ["plain", "brief"];
    let (hole, other) = (BlackHole::new(), Member::start());
    let plan = |members: &[_]| {
        Plan::new(1)
            .listener("plain", 0, "app", "connect_timeout = 60")
            .listener("brief", 0, "limited", "connect_timeout = 60")
            .pool("app", "", members)
            .pool("limited", "connection_drain = { enable = true, timeout = 10 }", members)
    };
    let server = one_shard(&plan(&[(hole.addr, 1)]));
    let [plain, brief] = NAMES.map(|name| address(&server, name));
    let mut waiting = [connect(plain), connect(brief)];
    for (client, name) in waiting.iter_mut().zip(NAMES) {
        client.write_all(name.as_bytes()).unwrap();
    }
    until("both are heard", || server.sum("weir_ring_leases") == 2.0);
    for members in [&[(hole.addr, 0), (other.addr, 1)][..], &[(other.addr, 1)]] {
        let (code, out, err) = server.reload(plan(members).text());
        assert_eq!(code, Some(0), "{out}{err}");
        let (mut client, mut upstream) = (connect(plain), other.accept());
        talk(&mut client, &mut upstream);
    }
    // The member answers at last.
    let start = clock::mono();
    let mut upstreams: HashMap<String, TcpStream> = NAMES
        .map(|_| {
            let mut upstream = hole.accept();
            (read::<5>(&mut upstream), upstream)
        })
        .into();
    for (client, name) in waiting.iter_mut().zip(NAMES) {
        talk(client, upstreams.get_mut(name).unwrap());
    }
    let [unlimited, limited] = &mut waiting;
    assert_reset(limited);
    assert!(clock::mono().since(start) >= Duration::from_secs(10), "its time is the session's");
    until("its end is counted", || {
        let drained = "weir_ended_connections_total{listener=\"brief\",how=\"drained\"}";
        server.counted(drained) == 1.0
    });
    talk(unlimited, upstreams.get_mut("plain").unwrap());
    assert_eq!(server.sum("weir_member_connect_failures_total"), 0.0);
}

/// The process's end does not wait for connects either.
#[test]
fn the_process_ends_without_a_member() {
    let hole = BlackHole::new();
    let server = one_shard(&plan("connect_timeout = 60", "", &[(hole.addr, 1)]));
    let mut client = connect(address(&server, "web"));
    client.write_all(b"question").unwrap();
    until("it is served", || server.sum("weir_active_connections") == 1.0);
    let start = clock::mono();
    server.signal("TERM");
    assert_reset(&mut client);
    server.wait();
    assert!(clock::mono().since(start) < LIMIT);
}
