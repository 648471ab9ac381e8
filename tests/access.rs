//! Who may connect, end to end: access control lists and limits of connections, through the real
//! program. Clients come from several addresses of loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;

use process::{Client, LIMIT, Member, Server, config, get, until};
use socket2::{Domain, SockAddr, Socket, Type};

/// A connection to `to` from this address of loopback; an early reset shows as an error.
fn connect(from: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let from: IpAddr = from.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0))).unwrap();
    socket.connect_timeout(&SockAddr::from(to), LIMIT)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    Ok(stream)
}

/// A client from this address whose first request was answered.
fn served(from: &str, to: SocketAddr) -> Client {
    let mut client = Client::over(connect(from, to).unwrap());
    client.send("/", "");
    assert_eq!(client.answer().unwrap().status, 200, "from {from}");
    client
}

/// Whether a connection from this address is reset without a byte (C19).
fn is_reset(from: &str, to: SocketAddr) -> bool {
    let read = connect(from, to).and_then(|mut stream| {
        // The reset may already be here; it shows once, to whoever asks first.
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        stream.read(&mut [0; 100])
    });
    match read {
        Ok(n) => {
            assert!(n > 0, "closed, but not by a reset");
            false
        }
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{e}");
            true
        }
    }
}

/// One listener with further keys, on both loopbacks, and further sections.
fn text(member: &Member, keys: &str, sections: &str) -> String {
    config("\"auto\"", 5, 0, &[(member.addr, 1)])
        .replace("vip_address = \"127.0.0.1\"", "vip_address = [\"127.0.0.1\", \"::1\"]")
        .replace("default_pool = \"app\"\n", &format!("default_pool = \"app\"\n{keys}\n"))
        + sections
}

fn refused(server: &Server, reason: &str) -> f64 {
    let series = "weir_refused_connections_total";
    server.counted(&format!("{series}{{listener=\"web\",reason=\"{reason}\"}}"))
}

/// The server's address of the other family.
fn v6(server: &Server) -> SocketAddr {
    SocketAddr::new("::1".parse().unwrap(), server.web.port())
}

const GROUPS: &str = r#"
[[ipgroup]]
name = "office"
ip_list = ["127.0.0.2/31", { ip = "127.1.0.0/16", description = "lab" }]
[[ipgroup]]
name = "home"
ip_list = ["127.0.0.9", "::1"]
"#;

/// R2.1-6, R7.13-1: who is not on the white list is reset, and no member hears of it; the list
/// protects nothing but the way through the balancer.
#[test]
fn a_white_list_lets_only_the_listed_in() {
    let member = Member::start("a");
    let keys = "ipgroup = { name = [\"office\"] }";
    let server = Server::start(&text(&member, keys, GROUPS));
    for inside in ["127.0.0.2", "127.0.0.3", "127.1.2.3"] {
        served(inside, server.web);
    }
    let before = member.requests.load(Relaxed);
    for outside in ["127.0.0.1", "127.0.0.4", "127.2.0.1"] {
        assert!(is_reset(outside, server.web), "{outside}");
    }
    assert!(is_reset("::1", v6(&server)));
    assert_eq!(member.requests.load(Relaxed), before);
    assert_eq!(refused(&server, "acl_denied"), 4.0);
    assert_eq!(server.sum("weir_connections_total"), 3.0, "the refused are not among them");
    assert_eq!(get(member.addr, "/").body, "a");
}

/// R5.14-1: several groups of both families, other lists while the program runs; who is connected
/// stays.
#[test]
fn lists_change_by_reload() {
    let member = Member::start("a");
    let both = "ipgroup = { name = [\"office\", \"home\"], type = \"white\", enable = true }";
    let server = Server::start(&text(&member, both, GROUPS));
    served("127.1.0.1", server.web);
    served("127.0.0.9", server.web);
    let mut kept = served("::1", v6(&server));
    assert!(is_reset("127.0.0.1", server.web));
    let black = both.replace("white", "black");
    let (code, out, err) = server.reload(&text(&member, &black, GROUPS));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("listener web: ipgroup changed"), "{out}");
    served("127.0.0.1", server.web);
    assert!(is_reset("127.1.0.1", server.web));
    assert!(is_reset("::1", v6(&server)));
    kept.send("/", "");
    assert_eq!(kept.answer().unwrap().status, 200);
    // A group that changes changes the list.
    let (_, out, _) = server.reload(&text(&member, &black, &GROUPS.replace("::1", "::2")));
    assert!(out.contains("listener web: ipgroup changed"), "{out}");
    served("::1", v6(&server));
    let off = black.replace("true", "false");
    server.reload(&text(&member, &off, GROUPS));
    served("127.1.0.1", server.web);
}

/// `connection` and `connections_per_source` hold over all shards, and a connection that ends makes
/// room.
#[test]
fn open_connections_are_limited() {
    let member = Member::start("a");
    let keys = "connection = 6\nconnections_per_source = 4";
    let server = Server::start(&text(&member, keys, ""));
    let mut first: Vec<Client> = (0..4).map(|_| served("127.0.0.1", server.web)).collect();
    assert!(is_reset("127.0.0.1", server.web));
    let _second: Vec<Client> = (0..2).map(|_| served("127.0.0.2", server.web)).collect();
    assert!(is_reset("127.0.0.3", server.web));
    assert_eq!(
        (refused(&server, "source_limit"), refused(&server, "connection_limit")),
        (1.0, 1.0)
    );
    drop(first.pop());
    let active = "weir_active_connections{listener=\"web\"}";
    until("the connection to be gone", || server.metric(active) == 5.0);
    first.push(served("127.0.0.1", server.web));
    // A lower limit cuts nobody.
    server.reload(&text(&member, &keys.replace('6', "2"), ""));
    for client in &mut first {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    assert!(is_reset("127.0.0.3", server.web));
    server.reload(&text(&member, "", ""));
    served("127.0.0.1", server.web);
}

/// `cps` lets one second's worth in at once, and no more.
#[test]
fn new_connections_are_limited() {
    let member = Member::start("a");
    let server = Server::start(&text(&member, "cps = 1", ""));
    served("127.0.0.1", server.web);
    // One a second: of so many in a row, most are refused however slow this machine is.
    let mut reset = 0;
    until("a refusal", || {
        reset += usize::from(is_reset("127.0.0.2", server.web));
        reset > 0
    });
    assert_eq!(refused(&server, "cps_limit"), reset as f64);
    until("the next second", || !is_reset("127.0.0.1", server.web));
}

/// `[runtime] max_connections` holds for the process and follows a reload.
#[test]
fn connections_of_the_process_are_limited() {
    let member = Member::start("a");
    let with = |n: u32| {
        text(&member, "", "").replace("[runtime]\n", &format!("[runtime]\nmax_connections = {n}\n"))
    };
    let mut server = Server::start(&with(2));
    let _open = [served("127.0.0.1", server.web), served("::1", v6(&server))];
    assert!(is_reset("127.0.0.1", server.web));
    assert_eq!(refused(&server, "process_limit"), 1.0);
    let said = server.line_with("refused (process_limit)");
    assert!(said.contains(" WARN ") && said.contains("2 are open"), "{said}");
    assert!(said.contains("[runtime] max_connections"), "{said}");
    let (_, out, _) = server.reload(&with(3));
    assert!(out.contains("[runtime]: max_connections 2 → 3"), "{out}");
    served("127.0.0.1", server.web);
}

/// R7.12-1, R7.12-3: open client sockets and connections to members are two gauges.
#[test]
fn both_sides_connections_are_gauges_of_their_own() {
    let member = Member::start("a");
    let server = Server::start(&text(&member, "", ""));
    let clients: Vec<Client> = (0..30).map(|_| served("127.0.0.1", server.web)).collect();
    let (active, towards) = ("weir_active_connections", "weir_member_active_connections");
    assert_eq!(server.sum(active), 30.0);
    let upstream = server.sum(towards);
    assert!((1.0..30.0).contains(&upstream), "{upstream} to the member, one after the other");
    drop(clients);
    until("the clients to be gone", || server.sum(active) == 0.0);
    assert!(server.sum(towards) >= 1.0, "idle ones are kept");
}
