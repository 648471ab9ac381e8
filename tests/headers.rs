//! What members learn of clients, end to end: X-Forwarded-For and the headers beside it, request
//! ids, and whose word counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpStream};

use process::mirror::mirror;
use process::{Client, LIMIT, Member, Server, config};
use socket2::{Domain, SockAddr, Socket, Type};

/// A listener on both loopbacks with further keys, in front of these members.
fn text(members: &[SocketAddr], keys: &str) -> String {
    let members: Vec<(SocketAddr, u8)> = members.iter().map(|&address| (address, 1)).collect();
    config("[0]", 5, 0, &members)
        .replace("vip_address = \"127.0.0.1\"", "vip_address = [\"127.0.0.1\", \"::1\"]")
        .replace("default_pool = \"app\"\n", &format!("default_pool = \"app\"\n{keys}\n"))
}

fn client(from: &str, to: SocketAddr) -> Client {
    let from: IpAddr = from.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0))).unwrap();
    socket.connect_timeout(&SockAddr::from(to), LIMIT).unwrap();
    Client::over(socket.into())
}

/// Has these header fields sent; what came back: the head that the member got, or its name.
fn ask(client: &mut Client, fields: &str) -> String {
    client.send("/", fields);
    client.answer().unwrap().body
}

/// The values of a header, in their order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// R9.1-2, R9.1-3, R9.1-4: each mode, changed while the program runs.
#[test]
fn each_mode_of_forwarded_for() {
    let member = mirror();
    let server = Server::start(&text(&[member], ""));
    let mut client = client("127.0.0.1", server.web);
    let sent = "X-Forwarded-For: 9.9.9.9\r\n";
    let xff = |head: &str| values(head, "X-Forwarded-For").join("|");
    assert_eq!(xff(&ask(&mut client, "")), "127.0.0.1");
    assert_eq!(xff(&ask(&mut client, sent)), "9.9.9.9, 127.0.0.1");
    for (mode, alone, behind) in [
        ("replace", "127.0.0.1", "127.0.0.1"),
        ("remove", "", ""),
        ("preserve", "", "9.9.9.9"),
        ("append", "127.0.0.1", "9.9.9.9, 127.0.0.1"),
    ] {
        let keys = format!("insert_headers = {{ X-Forwarded-For-Processing-Mode = \"{mode}\" }}");
        let (code, out, err) = server.reload(&text(&[member], &keys));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("insert_headers changed") || mode == "append", "{out}");
        assert_eq!(xff(&ask(&mut client, "")), alone, "{mode}");
        assert_eq!(xff(&ask(&mut client, sent)), behind, "{mode}");
    }
}

/// R9.1-4: all headers over IPv6, and none that the client forged.
#[test]
fn inserted_headers_cannot_be_forged() {
    let names = [
        "X-Forwarded-ELB-IP",
        "X-Forwarded-ELB-ID",
        "X-Forwarded-Port",
        "X-Forwarded-For-Port",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "X-Request-ID",
    ];
    let switches: Vec<String> = names.iter().map(|name| format!("{name} = true")).collect();
    let keys = format!("insert_headers = {{ {} }}", switches.join(", "));
    let server = Server::start(&text(&[mirror()], &keys));
    let v6 = SocketAddr::new("::1".parse().unwrap(), server.web.port());
    let stream = TcpStream::connect_timeout(&v6, LIMIT).unwrap();
    let (own_port, port) = (stream.local_addr().unwrap().port(), v6.port().to_string());
    let forged: String = names.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let head = ask(&mut Client::over(stream), &forged);
    assert!(!head.contains("forged"), "{head}");
    for (name, value) in [
        ("X-Forwarded-For", "::1"),
        ("X-Forwarded-ELB-IP", "::1"),
        ("X-Forwarded-Port", &port),
        ("X-Forwarded-For-Port", &own_port.to_string()),
        ("X-Forwarded-Host", "test"),
        ("X-Forwarded-Proto", "http"),
        ("X-Real-IP", "::1"),
    ] {
        assert_eq!(values(&head, name), [value], "{name}");
    }
    assert_eq!(values(&head, "X-Forwarded-ELB-ID")[0].len(), 36, "{head}");
    assert_eq!(values(&head, "X-Request-ID")[0].len(), 32, "{head}");
}

/// Request ids: one a request, over connections and restarts; kept from a trusted proxy alone.
#[test]
fn request_ids() {
    let member = mirror();
    let keys = "insert_headers = { X-Request-ID = true }\ntrusted_proxies = [\"127.0.0.2\"]";
    let id = |head: &str| values(head, "X-Request-ID").join("|");
    let mut seen = HashSet::new();
    for _start in 0..2 {
        let server = Server::start(&text(&[member], keys));
        for _connection in 0..3 {
            let mut client = client("127.0.0.1", server.web);
            for _request in 0..5 {
                let id = id(&ask(&mut client, "X-Request-ID: mine\r\n"));
                assert!(id.len() == 32 && seen.insert(id.clone()), "{id}");
            }
        }
        let mut proxy = client("127.0.0.2", server.web);
        assert_eq!(id(&ask(&mut proxy, "X-Request-ID: 7b0a-4e58\r\n")), "7b0a-4e58");
        assert_eq!(id(&ask(&mut proxy, "X-Request-ID: a b\r\n")).len(), 32);
        assert_eq!(id(&ask(&mut proxy, "")).len(), 32);
    }
}

/// R9.1-4: the address that a trusted proxy names decides the member; what others claim doesn't.
#[test]
fn the_source_is_whom_a_trusted_proxy_names() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let keys = "trusted_proxies = [\"127.0.0.2\", \"127.1.0.0/16\"]";
    let text = text(&[a.addr, b.addr], keys).replace("ROUND_ROBIN", "SOURCE_IP");
    let server = Server::start(&text);
    let answers = |from: &str, tail: &str| -> Vec<String> {
        let mut client = client(from, server.web);
        let field = |n| format!("X-Forwarded-For: 6.6.6.6, 192.0.2.{n}{tail}\r\n");
        (0..24).map(|n| ask(&mut client, &field(n))).collect()
    };
    let by_proxy = answers("127.0.0.2", "");
    assert!(by_proxy.iter().any(|name| name == "a") && by_proxy.iter().any(|name| name == "b"));
    assert_eq!(by_proxy, answers("127.0.0.2", ""), "the same client, the same member");
    assert_eq!(by_proxy, answers("127.1.2.3", ", 127.0.0.2"), "over two proxies");
    let stranger = answers("127.0.0.1", "");
    assert!(stranger.iter().all(|name| *name == stranger[0]), "{stranger:?}");
}
