//! Time limits of a running `weir serve` that need the whole program: TCP keep-alive, and limits
//! that change while connections use them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use process::{Client, LIMIT, Member, Server, address_after, config, pass_time, until};
use weir_core::time::clock;

/// Timer and its time, in hundredths of a second, of the IPv4 connection from `local` to `remote`:
/// `tr` and `tm->when` of /proc/net/tcp, where 2 is keep-alive.
fn kernel_timer(local: SocketAddr, remote: SocketAddr) -> Option<(u8, u64)> {
    let text = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => {
            format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port())
        }
        std::net::IpAddr::V6(_) => unreachable!("tests use IPv4"),
    };
    let (local, remote) = (text(local), text(remote));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&*local) && words.next() == Some(&*remote)
    })?;
    let (timer, when) = line.split_whitespace().nth(5)?.split_once(':')?;
    Some((timer.parse().unwrap(), u64::from_str_radix(when, 16).unwrap()))
}

/// The local end of the connection of a process on this machine to `remote`.
fn local_end(remote: SocketAddr) -> SocketAddr {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{:04X}", remote.port());
    let mut ends = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, peer, state) = (words.next()?, words.next()?, words.next()?);
        (peer.ends_with(&wanted) && state == "01").then_some(local)
    });
    let port = ends.next_back().unwrap().split_once(':').unwrap().1;
    ([127, 0, 0, 1], u16::from_str_radix(port, 16).unwrap()).into()
}

fn with_keepalive(text: &str, idle: u32) -> String {
    let line = format!("[runtime]\ntcp_keepalive = {{ idle = {idle}, interval = 1, count = 9 }}\n");
    text.replace("[runtime]\n", &line)
}

/// R11.1-2: on by default and with the file's times on both sides, also after a reload.
#[test]
fn tcp_keepalive_on_both_sides() {
    let member = Member::shut("m");
    let text = config("[0]", 1, 0, &[(member.addr, 1)]);
    let server = Server::start(&text);
    for (round, idle) in [(1, 60), (2, 1_000)] {
        if round == 2 {
            let (code, out, err) = server.reload(&with_keepalive(&text, idle));
            assert_eq!(code, Some(0), "{out}{err}");
            assert!(out.contains("tcp_keepalive"), "{out}");
        }
        let stream = TcpStream::connect_timeout(&server.web, LIMIT).unwrap();
        (&stream).write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        member.wait_for(round);
        let peer = stream.local_addr().unwrap();
        let (member_side, seconds) = (local_end(member.addr), u64::from(idle));
        for (local, remote) in [(server.web, peer), (member_side, member.addr)] {
            // While something is unacknowledged the kernel shows another timer.
            until("the keep-alive timer", || {
                let timer = kernel_timer(local, remote);
                timer.is_some_and(|(kind, when)| kind == 2 && when > 0)
            });
            let (_, when) = kernel_timer(local, remote).unwrap();
            let range = seconds * 100 - 3_000..=seconds * 100 + 100;
            assert!(range.contains(&when), "{local} to {remote}: {when} of {seconds} s");
        }
    }
}

/// R11.1-2: of a TCP listener, too; towards the member once the connection is a second old.
#[test]
fn tcp_sessions_are_probed_on_both_sides() {
    let member = TcpListener::bind("127.0.0.1:0").unwrap();
    let member_addr = member.local_addr().unwrap();
    let text = config("[0]", 1, 0, &[(member_addr, 1)]);
    let server = Server::start(&with_keepalive(&text.replace("\"HTTP\"", "\"TCP\""), 1_000));
    let web = address_after(&server.ready, "web tcp://");
    let client = TcpStream::connect_timeout(&web, LIMIT).unwrap();
    let (_upstream, member_side) = member.accept().unwrap();
    let client_side = (web, client.local_addr().unwrap());
    for (local, remote) in [client_side, (member_side, member_addr)] {
        until("the keep-alive timer", || {
            let timer = kernel_timer(local, remote);
            timer.is_some_and(|(kind, when)| kind == 2 && (97_000..=100_100).contains(&when))
        });
    }
}

/// R11.1-2, R2.3-408: a client's own TCP keep-alive, and Weir's, extend no limit.
#[test]
fn tcp_keepalive_extends_nothing() {
    let member = Member::start("m");
    let text = config("[0]", 5, 0, &[(member.addr, 1)]);
    let text = with_keepalive(&text, 1).replace("[[pool]]", "client_timeout = 3\n[[pool]]");
    let server = Server::start(&text);
    let stream = TcpStream::connect_timeout(&server.web, LIMIT).unwrap();
    let often = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&often).unwrap();
    let start = clock::mono();
    (&stream).write_all(b"GET / HTTP/1.1\r\nHost: a").unwrap();
    let answer = Client::over(stream).answer().unwrap();
    let took = clock::mono().since(start);
    assert_eq!(answer.status, 408);
    assert!((Duration::from_secs(3)..LIMIT).contains(&took), "{took:?}");
}

/// R6.7-14: a limit that changes holds from the next time it is set; what was set before stays.
#[test]
fn changed_limits_hold_from_the_next_wait_on() {
    let member = Member::start("m");
    let text = |seconds: u32| {
        let line = format!("keepalive_timeout = {seconds}\n[[pool]]");
        config("[0]", 5, 0, &[(member.addr, 1)]).replace("[[pool]]", &line)
    };
    let server = Server::start(&text(1_000));
    let mut clients = [Client::connect(server.web), Client::connect(server.web)];
    for client in &mut clients {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    let (code, out, err) = server.reload(&text(1));
    assert_eq!(code, Some(0), "{out}{err}");
    let [mut idle, mut busy] = clients;
    busy.send("/", "");
    assert_eq!(busy.answer().unwrap().status, 200);
    let start = clock::mono();
    busy.end().unwrap();
    let took = clock::mono().since(start);
    assert!((Duration::from_millis(900)..LIMIT).contains(&took), "{took:?}");
    // The other one waits on under the old limit.
    pass_time(Duration::from_secs(1));
    idle.send("/", "");
    assert_eq!(idle.answer().unwrap().status, 200);
    idle.end().unwrap();
}
