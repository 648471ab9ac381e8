//! Floods of connections that are given up at once: afterwards all is as it was.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::namespaces::{self, Namespace, done};
use crate::process::{LIMIT, Server, address_after, count, until};
use crate::{echo, plan};

/// What a flood may leave behind.
#[derive(Debug, PartialEq)]
struct State {
    descriptors: usize,
    active: f64,
    member_active: f64,
}

fn state(server: &Server) -> State {
    State {
        descriptors: server.descriptors(),
        active: server.sum("weir_active_connections"),
        member_active: server.sum("weir_member_active_connections"),
    }
}

/// Connects and resets, at once or after a few bytes; now and then without waiting for the
/// handshake's end.
fn flood(web: SocketAddr, rounds: usize) {
    for n in 0..rounds {
        let patience = if n % 3 == 0 { Duration::from_micros(1) } else { LIMIT };
        let Ok(stream) = TcpStream::connect_timeout(&web, patience) else { continue };
        if n % 2 == 0 {
            let _cut_short = std::io::Write::write(&mut &stream, b"hello");
        }
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A connection and a flow by which it is seen that both listeners serve.
fn served(web: SocketAddr, dns: SocketAddr) -> (TcpStream, std::net::UdpSocket) {
    let (mut stream, socket) = (echo::connect(web), echo::socket(dns));
    echo::talk(&mut stream, b"hello").unwrap();
    echo::ask(&socket, "hello").unwrap();
    (stream, socket)
}

/// Thousands of connections that are reset at once, by several clients at a time,
/// leave no descriptor, no connection to a member and no count behind; who was there before is
/// served on.
#[test]
fn reset_connections_leave_nothing() {
    let (a, b) = (echo::member(), echo::member());
    let server = Server::start(&plan("", "", &[(a, 1), (b, 1)], ""));
    let (web, dns) =
        (address_after(&server.ready, "web tcp://"), address_after(&server.ready, "dns udp://"));
    let (mut stream, socket) = served(web, dns);
    let before = state(&server);
    // Of the very first flood the kernel and the allocator keep something; of the others nothing.
    let mut memory = 0;
    for round in 0..count(4, 40) {
        let clients: Vec<_> =
            (0..4).map(|_| std::thread::spawn(move || flood(web, count(300, 2_000)))).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        until("all to be as before", || state(&server) == before);
        echo::talk(&mut stream, b"still").unwrap();
        echo::ask(&socket, "still").unwrap();
        if round == 1 {
            memory = server.memory("VmRSS");
        }
    }
    let grown = server.memory("VmRSS").saturating_sub(memory);
    assert!(grown < 4_096, "{grown} KiB more");
    let (began, ended) =
        (server.sum("weir_connections_total"), server.sum("weir_ended_connections_total"));
    assert_eq!(began - ended, 2.0, "what is counted at its beginning is counted at its end");
}

/// Connections of which the kernel has seen the SYN alone (state 03 of proc(5)'s net/tcp).
fn half_open() -> usize {
    let text = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    text.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count()
}

/// Connections that are begun and never answered: nothing of them reaches the listener, and who
/// speaks is served meanwhile.
#[test]
fn half_open_connections_leave_nothing() {
    if !namespaces::inside("floods::half_open_connections_leave_nothing") {
        return;
    }
    let attacker = Namespace::join("attacker", &[("10.9.0.1/24", "10.9.0.2/24")]);
    // The made-up sources are behind the attacker, who does not forward.
    namespaces::ip("route add 10.9.8.0/24 via 10.9.0.2");
    let member = echo::member();
    let text = plan("", "", &[(member, 1)], "")
        .replace("vip_address = \"127.0.0.1\"", "vip_address = [\"127.0.0.1\", \"10.9.0.1\"]");
    let server = Server::start(&text);
    let web = SocketAddr::from(([127, 0, 0, 1], address_after(&server.ready, "web tcp://").port()));
    let dns = SocketAddr::from(([127, 0, 0, 1], address_after(&server.ready, "dns udp://").port()));
    let (mut stream, socket) = served(web, dns);
    let before = state(&server);
    let (port, n) = (web.port().to_string(), count(2_000, 50_000).to_string());
    done(&mut attacker.host(&["syn", "10.9.8", "10.9.0.1", &port, &n]));
    assert!(half_open() > 0, "the SYNs have not arrived");
    assert_eq!(state(&server), before);
    echo::talk(&mut stream, b"still").unwrap();
    echo::ask(&socket, "still").unwrap();
    // Among all that, who comes by the flooded address is served, too.
    let mut other = echo::connect(SocketAddr::from(([10, 9, 0, 1], web.port())));
    echo::talk(&mut other, b"me, too").unwrap();
    drop(other);
    until("all to be as before", || state(&server) == before);
}
