//! Tests of `bind`: real sockets on loopback.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

const BACKLOG: u32 = 128;

fn wish(addresses: &[&str]) -> Wanted {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Wanted { listener: "web".into(), transport: Transport::Tcp, addresses, shards: 1 }
}

/// All of `wanted`, on so many shards each.
fn bind_all(wanted: &[Wanted], shards: usize, backlog: u32) -> Result<Bound, BindError> {
    let wanted: Vec<_> = wanted.iter().map(|wish| Wanted { shards, ..wish.clone() }).collect();
    super::bind_all(&wanted, backlog)
}

fn tcp(address: SocketAddr) -> Place {
    Place { transport: Transport::Tcp, address }
}

fn port_of(bound: &Bound) -> u16 {
    bound.groups[0].place.address.port()
}

#[test]
fn port_zero_is_shared_by_all_shards() {
    let bound = bind_all(&[wish(&["127.0.0.1:0"])], 4, BACKLOG).unwrap();
    assert_ne!(port_of(&bound), 0);
    assert_eq!(bound.groups[0].sockets.len(), 4);
    let addrs: BTreeSet<_> = (bound.groups.into_iter().flat_map(|g| g.sockets))
        .map(|fd| TcpListener::from(fd).local_addr().unwrap())
        .collect();
    assert_eq!(addrs.len(), 1, "{addrs:?}");
}

#[test]
fn the_first_socket_takes_part_in_the_group() {
    let bound = bind_all(&[wish(&["127.0.0.1:0"])], 2, BACKLOG).unwrap();
    let addr = bound.groups[0].place.address;
    let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let sockets = bound.groups.into_iter().flat_map(|g| g.sockets).map(TcpListener::from);
    let counts: Vec<usize> = sockets
        .map(|l| {
            l.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| l.accept().ok()).count()
        })
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), clients.len());
    assert!(counts.iter().all(|&n| n > 0), "one shard got nothing: {counts:?}");
}

#[test]
fn addresses_of_one_listener_share_the_port() {
    let wanted = [wish(&["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"])];
    let bound = bind_all(&wanted, 2, BACKLOG).unwrap();
    let ports: BTreeSet<_> = bound.groups.iter().map(|g| g.place.address.port()).collect();
    assert_eq!((bound.groups.len(), ports.len()), (3, 1));
}

#[test]
fn a_second_group_is_refused_and_names_the_owner() {
    let first = bind_all(&[wish(&["127.0.0.1:0"])], 2, BACKLOG).unwrap();
    let again = wish(&[&format!("127.0.0.1:{}", port_of(&first))]);
    let error = bind_all(&[again], 2, BACKLOG).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(error.owner.as_ref().unwrap().pid, std::process::id());
    let text = error.to_string();
    assert!(text.contains("listener `web`"), "{text}");
    assert!(text.contains(&port_of(&first).to_string()), "{text}");
}

#[test]
fn the_wildcard_clashes_with_one_address() {
    let first = bind_all(&[wish(&["127.0.0.1:0"])], 1, BACKLOG).unwrap();
    let all = wish(&[&format!("0.0.0.0:{}", port_of(&first))]);
    assert!(bind_all(&[all], 1, BACKLOG).is_err());
}

#[test]
fn two_listeners_of_one_file_cannot_share_a_port() {
    let port = port_of(&bind_all(&[wish(&["127.0.0.1:0"])], 1, BACKLOG).unwrap());
    let addr = format!("127.0.0.1:{port}");
    let error = bind_all(&[wish(&[&addr]), wish(&[&addr])], 2, BACKLOG).unwrap_err();
    assert!(error.to_string().contains("another listener of this configuration"), "{error}");
}

#[test]
fn a_foreign_socket_with_reuseport_is_not_joined() {
    let foreign = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    foreign.set_reuse_port(true).unwrap();
    foreign.set_reuse_address(true).unwrap();
    foreign.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    foreign.listen(8).unwrap();
    let addr = foreign.local_addr().unwrap().as_socket().unwrap();
    assert!(bind_all(&[wish(&[&addr.to_string()])], 2, BACKLOG).is_err());
}

#[test]
fn two_that_race_never_both_win() {
    const ROUNDS: usize = 50;
    let mut won = 0;
    for round in 0..ROUNDS {
        let port = port_of(&bind_all(&[wish(&["127.0.0.3:0"])], 1, BACKLOG).unwrap());
        let wanted = [wish(&[&format!("127.0.0.3:{port}")])];
        let start = std::sync::Barrier::new(2);
        let contend = || {
            start.wait();
            bind_all(&wanted, 3, BACKLOG)
        };
        let (a, b) = std::thread::scope(|s| {
            let other = s.spawn(contend);
            (contend(), other.join().unwrap())
        });
        let winners = [&a, &b].iter().filter(|r| r.is_ok()).count();
        // Both may lose: the kernel marks a socket as listening before it looks for a conflict, so
        // that each can find the other.
        assert!(winners <= 1, "round {round}: {a:?} {b:?}");
        won += winners;
    }
    assert!(won > 0, "nobody ever won");
}

#[test]
fn a_failure_closes_what_was_bound_before() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = port_of(&bind_all(&[wish(&["127.0.0.1:0"])], 1, BACKLOG).unwrap());
    let good = wish(&[&format!("127.0.0.1:{free}")]);
    let bad = wish(&[&busy.local_addr().unwrap().to_string()]);
    assert!(bind_all(&[good, bad], 2, BACKLOG).is_err());
    TcpListener::bind(("127.0.0.1", free)).unwrap();
}

#[test]
fn time_wait_does_not_keep_the_port_busy() {
    let bound = bind_all(&[wish(&["127.0.0.1:0"])], 1, BACKLOG).unwrap();
    let addr = bound.groups[0].place.address;
    let listener = TcpListener::from(bound.groups.into_iter().next().unwrap().sockets.remove(0));
    let mut client = TcpStream::connect(addr).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"bye").unwrap();
    // The listening side closes first, so its end goes to TIME_WAIT.
    drop((server, listener));
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    drop(client);
    assert_eq!(text, "bye");
    bind_all(&[wish(&[&addr.to_string()])], 2, BACKLOG).unwrap();
}

#[test]
fn ipv6_sockets_leave_ipv4_alone() {
    // Another test may have the port that is free for IPv6 for IPv4.
    let both = (0..20).find_map(|_| {
        let six = bind_all(&[wish(&["[::]:0"])], 1, BACKLOG).unwrap();
        let four = wish(&[&format!("0.0.0.0:{}", port_of(&six))]);
        bind_all(&[four], 1, BACKLOG).is_ok().then_some(six)
    });
    let six = both.expect("an IPv6 socket keeps the port of IPv4");
    let addr = ("127.0.0.1", port_of(&six));
    assert!(TcpStream::connect(addr).is_err(), "[::] answered IPv4");
}

#[test]
fn an_address_of_nobody_is_explained() {
    let error = bind_all(&[wish(&["192.0.2.1:0"])], 1, BACKLOG).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("192.0.2.1") && text.contains("ip_nonlocal_bind"), "{text}");
}

#[test]
fn only_the_wildcard_beside_ipv4_may_be_left_out() {
    let none = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
    let any6 = "[::]:80".parse().unwrap();
    assert!(wish(&["0.0.0.0:80", "[::]:80"]).may_skip(any6, &none));
    assert!(!wish(&["[::]:80"]).may_skip(any6, &none));
    assert!(!wish(&["0.0.0.0:80", "[::1]:80"]).may_skip("[::1]:80".parse().unwrap(), &none));
    let busy = io::Error::from_raw_os_error(libc::EADDRINUSE);
    assert!(!wish(&["0.0.0.0:80", "[::]:80"]).may_skip(any6, &busy));
}

#[test]
fn the_admin_listener_is_exclusive() {
    let (addr, held) = bind_exclusive("admin", "127.0.0.1:0".parse().unwrap(), 16).unwrap();
    assert_eq!(held.local_addr().unwrap(), addr);
    let error = bind_exclusive("admin", addr, 16).unwrap_err();
    assert!(error.to_string().starts_with("listener `admin`: cannot listen on 127.0.0.1:"));
}

#[test]
fn every_refusal_names_a_cure() {
    for (code, words) in [
        (libc::EADDRINUSE, "choose another port"),
        (libc::EADDRNOTAVAIL, "ip address add"),
        (libc::EAFNOSUPPORT, "vip_address"),
        (libc::EMFILE, "LimitNOFILE"),
    ] {
        let error =
            error("web", tcp("127.0.0.1:1".parse().unwrap()), io::Error::from_raw_os_error(code));
        assert!(error.to_string().contains(words), "{error}");
    }
    let denied =
        error("web", tcp("127.0.0.1:80".parse().unwrap()), io::Error::from_raw_os_error(13));
    let text = denied.to_string();
    assert!(text.contains("CAP_NET_BIND_SERVICE") || text.contains("permission"), "{text}");
}

#[test]
fn a_free_port_is_none_that_another_wish_names() {
    let named = port_of(&bind_all(&[wish(&["127.0.0.1:0"])], 1, BACKLOG).unwrap());
    let named = format!("127.0.0.1:{named}");
    let bound = bind_all(&[wish(&["127.0.0.1:0"]), wish(&[&named])], 1, BACKLOG).unwrap();
    let order: Vec<usize> = bound.groups.iter().map(|group| group.wanted).collect();
    assert_eq!(order, [1, 0], "named ports come first");
}

#[test]
fn who_joins_gets_connections_only_when_it_listens() {
    let bound = bind_all(&[wish(&["127.0.0.1:0"])], 1, BACKLOG).unwrap();
    let addr = bound.groups[0].place.address;
    let joining = bind_join("web", tcp(addr), 1).unwrap();
    let early: Vec<_> = (0..32).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let count = |fd: std::os::fd::OwnedFd| {
        let listener = TcpListener::from(fd);
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    };
    let joined = joining.listen(BACKLOG).unwrap();
    let first = bound.groups.into_iter().flat_map(|group| group.sockets);
    assert_eq!(first.map(count).sum::<usize>(), early.len());
    assert_eq!(joined.into_iter().map(count).sum::<usize>(), 0);
}

/// UDP ports are their own: taken beside a TCP listener, refused where another UDP socket is, and
/// shared by the sockets of a group.
#[test]
fn udp_ports_are_bound_like_tcp_ones() {
    let tcp = bind_all(&[wish(&["127.0.0.1:0"])], 1, BACKLOG).unwrap();
    let addr = tcp.groups[0].place.address;
    let wish = Wanted { transport: Transport::Udp, ..wish(&[&addr.to_string()]) };
    let bound = bind_all(std::slice::from_ref(&wish), 2, BACKLOG).unwrap();
    let error = bind_all(&[wish], 2, BACKLOG).unwrap_err();
    assert_eq!(error.owner.as_ref().unwrap().pid, std::process::id());
    let sockets = bound.groups.into_iter().flat_map(|group| group.sockets);
    let sockets: Vec<_> = sockets.map(std::net::UdpSocket::from).collect();
    for _ in 0..64 {
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", addr).unwrap();
    }
    let counts: Vec<usize> = sockets
        .iter()
        .map(|socket| {
            socket.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| socket.recv(&mut [0]).ok()).count()
        })
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 64);
    assert!(counts.iter().all(|&n| n > 0), "one shard got nothing: {counts:?}");
}
