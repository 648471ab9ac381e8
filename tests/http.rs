//! What clients and members of a running `weir serve` see of HTTP, requirement by requirement.
//!
//! Owns the rows that need the whole program; the finer cases of forwarding and failing are in the
//! tests of `weir-l7`. `rows.toml` names these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use process::{Answer, Client, LIMIT, Member, Server, config, get, until};

/// A member that shows what reached it: it answers with the status that the path names, a header
/// of its own, and the request's head and body as the answer's body.
struct Mirror {
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
}

impl Mirror {
    fn start() -> Mirror {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicU64::new(0));
        let counter = accepted.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Relaxed);
                std::thread::spawn(move || reflect(stream));
            }
        });
        Mirror { addr, accepted }
    }
}

/// Answers the requests of one connection until it ends.
fn reflect(stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let code = path.strip_prefix("/status/").unwrap_or("200");
        let answer = format!(
            "HTTP/1.1 {code} Said\r\nWWW-Authenticate: Basic realm=\"m\"\r\n\
             Content-Length: {}\r\n\r\n{request}",
            request.len()
        );
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A whole request with a body by Content-Length; `None` when the connection has ended.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// The value of one header.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
}

/// A server in front of `members` on one shard.
fn server(members: &[(SocketAddr, u8)]) -> Server {
    Server::start(&config("[0]", 5, 0, members))
}

/// Sends bytes as they are on a connection of their own; the answer.
fn raw(addr: SocketAddr, request: &str) -> Answer {
    let stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
    (&stream).write_all(request.as_bytes()).unwrap();
    Client::over(stream).answer().unwrap()
}

#[test]
fn the_members_codes_pass_untouched() {
    // R2.3-401, R2.3-403, R2.3-404, R2.3-500, R2.3-503, R14.2-2, R14.2-3
    let mirror = Mirror::start();
    let server = server(&[(mirror.addr, 1)]);
    for code in [200, 401, 403, 404, 500, 503] {
        let answer = get(server.web, &format!("/status/{code}"));
        assert_eq!(answer.status, code);
        assert_eq!(header(&answer.head, "www-authenticate"), Some("Basic realm=\"m\""));
        assert!(answer.body.starts_with(&format!("GET /status/{code} HTTP/1.1\r\n")));
        let client = format!(r#"weir_responses_total{{listener="web",code="{code}"}}"#);
        let member =
            format!(r#"weir_member_responses_total{{pool="app",member="m0",code="{code}"}}"#);
        assert_eq!((server.metric(&client), server.metric(&member)), (1.0, 1.0), "{code}");
    }
}

#[test]
fn a_listener_without_a_pool_answers_404() {
    // R2.3-404
    let mirror = Mirror::start();
    let text = config("[0]", 5, 0, &[(mirror.addr, 1)]).replace("default_pool = \"app\"\n", "");
    let server = Server::start(&text);
    assert_eq!(get(server.web, "/").status, 404);
    assert_eq!(mirror.accepted.load(Relaxed), 0);
}

#[test]
fn a_thousand_requests_share_one_connection_on_each_side() {
    // R3.2-1, R3.2-2
    let mirror = Mirror::start();
    let server = server(&[(mirror.addr, 1)]);
    let mut client = Client::connect(server.web);
    for _ in 0..1000 {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    assert_eq!(server.metric(r#"weir_requests_total{listener="web"}"#), 1000.0);
    assert_eq!(server.metric(r#"weir_connections_total{listener="web"}"#), 1.0);
    assert_eq!(mirror.accepted.load(Relaxed), 1);
}

#[test]
fn requests_follow_the_weights() {
    // R4.3-5, R2.1-4, R3.10-1: three ports, weights 1, 3 and 0, 10,000 requests, 1 %.
    let members = [Member::start("a"), Member::start("b"), Member::start("none")];
    let weighted = [(members[0].addr, 1), (members[1].addr, 3), (members[2].addr, 0)];
    let server = server(&weighted);
    let mut client = Client::connect(server.web);
    for _ in 0..10_000 {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    let counts = members.each_ref().map(|member| member.requests.load(Relaxed));
    assert!(counts[0].abs_diff(2500) <= 25 && counts[1].abs_diff(7500) <= 75, "{counts:?}");
    assert_eq!(counts[2], 0);
}

/// R3.17-4: an IPv6 client is served by an IPv4 member.
#[test]
fn ipv6_clients_reach_ipv4_members() {
    let mirror = Mirror::start();
    let vip = "vip_address = [\"127.0.0.1\", \"::1\"]";
    let text = config("[0]", 5, 0, &[(mirror.addr, 1)]);
    let server = Server::start(&text.replace("vip_address = \"127.0.0.1\"", vip));
    let web = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), server.web.port());
    assert!(server.ready.contains(&format!("http://{web}")), "{}", server.ready);
    let answer = raw(web, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert_eq!(header(&answer.body, "x-forwarded-for"), Some("::1"), "{}", answer.body);
}

#[test]
fn the_client_address_is_appended() {
    // R9.1-2, R9.1-3
    let mirror = Mirror::start();
    let server = server(&[(mirror.addr, 1)]);
    let mut client = Client::connect(server.web);
    for (sent, expected) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7, 127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7, 198.51.100.1\r\n", "192.0.2.7, 198.51.100.1, 127.0.0.1"),
    ] {
        client.send("/", sent);
        let answer = client.answer().unwrap();
        assert_eq!(header(&answer.body, "x-forwarded-for"), Some(expected), "{}", answer.body);
    }
}

#[test]
fn clients_cannot_choose_where_weir_connects_to() {
    // R5.10-1
    let (mirror, other) = (Mirror::start(), Mirror::start());
    let server = server(&[(mirror.addr, 1)]);
    let absolute =
        format!("GET http://{}/x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", other.addr);
    let answer = raw(server.web, &absolute);
    assert_eq!((answer.status, mirror.accepted.load(Relaxed)), (200, 1));
    assert!(answer.body.starts_with("GET /x HTTP/1.1\r\n"), "{}", answer.body);
    let connect = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", other.addr);
    assert_eq!(raw(server.web, &connect).status, 501);
    assert_eq!(other.accepted.load(Relaxed), 0);
}

#[test]
fn heads_of_64_kib_pass_and_longer_ones_do_not() {
    // R2.3-400c, C16
    let mirror = Mirror::start();
    let server = server(&[(mirror.addr, 1)]);
    for (bytes, status) in [(65_536, 200), (65_537, 400)] {
        let start = "GET / HTTP/1.1\r\nHost: test\r\nX-Long: ";
        let fill = bytes - start.len() - "\r\n\r\n".len();
        let answer = raw(server.web, &format!("{start}{}\r\n\r\n", "x".repeat(fill)));
        assert_eq!(answer.status, status, "{bytes} bytes");
    }
    assert_eq!(mirror.accepted.load(Relaxed), 1);
}

#[test]
fn only_chunked_and_identity_are_understood() {
    // R2.3-501b, R2.3-501a
    let mirror = Mirror::start();
    let server = server(&[(mirror.addr, 1)]);
    let post = |fields: &str| {
        raw(server.web, &format!("POST / HTTP/1.1\r\nHost: test\r\n{fields}\r\nbody"))
    };
    assert_eq!(post("Transfer-Encoding: gzip, chunked\r\n").status, 501);
    assert_eq!(post("Transfer-Encoding: compress\r\n").status, 501);
    assert_eq!(mirror.accepted.load(Relaxed), 0);
    let packed = post("Content-Encoding: gzip\r\nContent-Length: 4\r\n");
    assert_eq!(header(&packed.body, "content-encoding"), Some("gzip"));
    assert!(packed.body.ends_with("\r\n\r\nbody"), "{}", packed.body);
    let identity = raw(
        server.web,
        "GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(identity.status, 200);
}

#[test]
fn a_closed_port_is_a_502() {
    // R2.3-502a
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap();
    drop(held);
    let server = server(&[(addr, 1)]);
    let answer = get(server.web, "/");
    assert_eq!(answer.status, 502);
    let failures = r#"weir_member_connect_failures_total{pool="app",member="m0"}"#;
    until("the failure is counted", || server.metric(failures) >= 1.0);
}
