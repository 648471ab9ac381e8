//! Families, several addresses, ranges of ports, several balancers.

use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::process::{LIMIT, Server, until};
use crate::{Member, Plan, address, assert_refused, connect, echo, read, talk};

/// Every address of a listener.
fn all(server: &Server, name: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    let mut rest = server.ready.as_str();
    let words = format!("{name} tcp://");
    while let Some(at) = rest.find(&words) {
        found.push(crate::process::address_after(rest, &words));
        rest = &rest[at + words.len()..];
    }
    found
}

/// R3.17-2: clients of both families are served, each by members of its own.
#[test]
fn both_families() {
    let (four, six) = (echo("4", "127.0.0.1:0"), echo("6", "[::1]:0"));
    let plan = Plan::on(1, "[\"127.0.0.1\", \"127.0.0.9\", \"::1\"]")
        .listener("web", 0, "app", "")
        .pool("app", "", &[(four, 1), (six, 1), (crate::nobody(), 1)]);
    let server = plan.start();
    let port = address(&server, "web").port();
    for (ip, name) in [("127.0.0.1", "4"), ("127.0.0.9", "4"), ("::1", "6")] {
        for _ in 0..6 {
            let addr = SocketAddr::new(ip.parse().unwrap(), port);
            assert_eq!(read::<1>(&mut connect(addr)), name);
        }
    }
}

/// R3.17-3: a client of a family that the pool has no member of is refused.
#[test]
fn a_family_without_members_is_refused() {
    let member = Member::start();
    let text = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    // A balancer that does not say its addresses has those of both families.
    let text = text.text().replace("vip_address = \"127.0.0.1\"\n", "");
    let server = Server::start(&text);
    let port = address(&server, "web").port();
    assert_refused(SocketAddr::new("::1".parse().unwrap(), port));
    let four = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    talk(&mut connect(four), &mut member.accept());
}

/// R6.5-1: two balancers forward to the same member.
#[test]
fn two_balancers_share_a_member() {
    let member = Member::start();
    let plan = Plan::new(1)
        .more("[[loadbalancer]]\nname = \"second\"\nvip_address = \"127.0.0.2\"")
        .listener("web", 0, "app", "")
        .listener_of("second", "two", 0, "other", "")
        .pool("app", "", &[(member.addr, 1)])
        .pool("other", "", &[(member.addr, 1)]);
    let server = plan.start();
    for name in ["web", "two"] {
        talk(&mut connect(address(&server, name)), &mut member.accept());
    }
}

/// A listener on ranges of ports serves each of them, and says so; a reload can move a range.
#[test]
fn port_ranges() {
    let member = Member::start();
    // An address of the test's own, where nobody else takes a port.
    let own = [127, 0, 0, 75];
    let plan = |first: u16| {
        Plan::on(1, "\"127.0.0.75\"")
            .more(&format!(
                "[[listener]]\nname = \"web\"\nloadbalancer = \"front\"\nprotocol = \"TCP\"\n\
                 port_ranges = [\"{first}-{}\"]\ndefault_pool = \"app\"",
                first + 2
            ))
            .pool("app", "", &[(member.addr, 1)])
    };
    // Three ports in a row that are free now, in a place of the kernel's choice.
    let free = |first: &u16| {
        (*first..first + 3).all(|port| TcpListener::bind(SocketAddr::from((own, port))).is_ok())
    };
    let some = TcpListener::bind(SocketAddr::from((own, 0))).unwrap().local_addr().unwrap().port();
    let first = (some.min(60_000)..65_000).step_by(3).find(free).unwrap();
    let server = plan(first).start();
    let told = all(&server, "web");
    let wanted: Vec<_> = (first..first + 3).map(|port| (own, port).into()).collect();
    assert_eq!(told, wanted, "what the ready line says");
    for port in first..first + 3 {
        talk(&mut connect((own, port).into()), &mut member.accept());
    }
    let next = (first + 3..65_530).step_by(3).find(free).unwrap();
    let (code, out, err) = server.reload(plan(next).text());
    assert_eq!(code, Some(0), "{out}{err}");
    for port in next..next + 3 {
        talk(&mut connect((own, port).into()), &mut member.accept());
    }
    let gone = SocketAddr::from((own, first));
    until("the old ports are closed", || TcpStream::connect_timeout(&gone, LIMIT).is_err());
}
