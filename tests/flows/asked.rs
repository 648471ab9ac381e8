//! Hosts with several addresses of IPv6: which one answers.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::process::{LIMIT, Server, address_after};
use crate::{namespaces, plan};

/// Not the address that the kernel would take, which is the same for all, but the one that was
/// asked: a listener on all addresses answers from it, first and later datagrams alike.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    if !namespaces::inside("asked::answers_come_from_the_address_that_was_asked") {
        return;
    }
    for address in ["fd00::1", "fd00::2", "fd00::3"] {
        namespaces::ip(&format!("address add {address}/64 dev lo nodad"));
    }
    let member = UdpSocket::bind("[::1]:0").unwrap();
    let addr = member.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 64];
        while let Ok((len, from)) = member.recv_from(&mut buf) {
            member.send_to(&buf[..len], from).unwrap();
        }
    });
    let text = plan("", "", &[(addr, 1)], "").replace("\"127.0.0.1\"\n", "\"::\"\n");
    let server = Server::start(&text);
    let listener = address_after(&server.ready, "dns udp://");
    assert!(listener.ip().is_unspecified() && listener.is_ipv6(), "{listener}");
    // Bound, not connected: it hears everybody, and who that is.
    let client = UdpSocket::bind("[fd00::3]:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let asked = ["fd00::1", "fd00::2", "::1", "fd00::3"];
    let mut buf = [0; 64];
    for round in 0..3u8 {
        for (n, ip) in (0u8..).zip(asked) {
            let to = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), listener.port());
            client.send_to(&[round, n], to).unwrap();
            let (len, from) = client.recv_from(&mut buf).unwrap();
            assert_eq!((&buf[..len], from), (&[round, n][..], to));
        }
    }
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(client.recv_from(&mut buf).is_err(), "one answer each");
    assert_eq!(server.sum("weir_active_connections"), asked.len() as f64, "a flow each");
}
