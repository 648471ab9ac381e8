//! How client connections are spread over the shards, and `max_skew_percent`: connections that the
//! kernel gives to one shard are handed over to another, and nothing about them changes by that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use process::certs::{Ca, replace};
use process::mirror::mirror;
use process::{Client, LIMIT, Member, Server, address_after, config, run, until, weir};

/// Connections that the kernel gives to one shard.
const CROWD: usize = 24;
const BOUND: &str = "max_skew_percent = 10\n";

/// Two cores; `None` where the machine has one.
fn cores() -> Option<String> {
    let all = weir_core::net::sys::allowed_cores().unwrap();
    match all[..] {
        [a, b, ..] => Some(format!("[{a}, {b}]")),
        _ => {
            eprintln!("one core only: there is no other shard");
            None
        }
    }
}

/// With these lines in `[runtime]`.
fn with(text: &str, lines: &str) -> String {
    text.replace("[runtime]\n", &format!("[runtime]\n{lines}"))
}

/// A listener beside `web`, with its pool.
fn listener(name: &str, protocol: &str, lines: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"{protocol}\"\n\
         protocol_port = 0\ndefault_pool = \"{name}\"\n{lines}\n"
    )
}

fn pool(name: &str, protocol: &str, member: SocketAddr) -> String {
    let (ip, port) = (member.ip(), member.port());
    format!(
        "[[pool]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\n\
         members = [{{ address = \"{ip}\", protocol_port = {port} }}]\n"
    )
}

/// What the shards have open, and what each has handed over.
fn shards(server: &Server) -> [[f64; 2]; 2] {
    let of = |family: &str| {
        [0, 1].map(|shard| server.metric(&format!("weir_shard_{family}{{shard=\"{shard}\"}}")))
    };
    [of("active_connections"), of("handed_over_connections_total")]
}

fn open(server: &Server) -> [f64; 2] {
    shards(server)[0]
}

/// Waits until so many connections are open, wherever.
fn until_open(server: &Server, n: usize) {
    until("connections that are counted", || open(server).iter().sum::<f64>() == n as f64);
}

/// A connection from this address; port 0 = any.
fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), LIMIT)?;
    Ok(socket.into())
}

/// Any port of a client address. Each test has addresses of its own, so that nobody takes a port
/// that it comes back to.
fn any_port(of: &str) -> SocketAddr {
    SocketAddr::new(of.parse().unwrap(), 0)
}

/// Closes by a reset, so that the port is free again at once.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Connections all of which the kernel gives to shard 0, as long as the listener is the same.
fn crowd(server: &Server, from: &str, to: SocketAddr) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    while crowd.len() < CROWD {
        let stream = connect(any_port(from), to).unwrap();
        until_open(server, crowd.len() + 1);
        match open(server)[1] {
            0.0 => crowd.push(stream),
            _ => reset(stream),
        }
        until_open(server, crowd.len());
    }
    crowd
}

fn asks(stream: &TcpStream) -> std::io::Result<u16> {
    let mut client = Client::over(stream.try_clone()?);
    client.try_send("/")?;
    client.answer().map(|answer| answer.status)
}

fn reload(server: &Server, text: &str) {
    let (code, out, err) = server.reload(text);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("max_skew_percent 0 → 10"), "{out}{err}");
}

/// What the kernel puts on one shard stays there without `max_skew_percent`; with it the skew keeps
/// within the bound. Each connection is counted and limited once, where it is served.
fn spreads(text: &str, name: &str, scheme: &str, [from, elsewhere]: [&str; 2]) {
    let server = Server::start(text);
    let to = address_after(&server.ready, &format!("{name} {scheme}://"));
    let held = crowd(&server, from, to);
    assert_eq!(shards(&server), [[CROWD as f64, 0.0], [0.0, 0.0]]);
    assert_eq!(server.metric("weir_shard_connection_skew"), 2.0);
    let ports: Vec<SocketAddr> = held.iter().map(|one| one.local_addr().unwrap()).collect();
    held.into_iter().for_each(reset);
    until_open(&server, 0);
    let before = server.sum("weir_connections_total");

    reload(&server, &with(text, BOUND));
    let again =
        || -> Vec<TcpStream> { ports.iter().map(|&from| connect(from, to).unwrap()).collect() };
    let held = again();
    until_open(&server, CROWD);
    let [open, handed] = shards(&server);
    let skew = server.metric("weir_shard_connection_skew");
    assert!(skew <= 1.1, "{skew}: {open:?}");
    assert_eq!(handed, [open[1], 0.0]);
    for stream in held.iter().chain(&held) {
        assert_eq!(asks(stream).unwrap(), 200);
    }
    assert_eq!(server.sum("weir_connections_total"), before + CROWD as f64);
    assert_eq!(server.sum("weir_refused_connections_total"), 0.0);
    // One more of this address is too many, wherever it comes in; of another it is not.
    connect(any_port(from), to).and_then(|stream| asks(&stream)).unwrap_err();
    until("a refusal", || server.sum("weir_refused_connections_total") == 1.0);
    let other = connect(any_port(elsewhere), to).unwrap();
    assert_eq!(asks(&other).unwrap(), 200);
    until_open(&server, CROWD + 1);
    held.into_iter().chain([other]).for_each(reset);
    until_open(&server, 0);
    assert_eq!(server.sum("weir_active_connections"), 0.0);
    // Room for the address again.
    let held = again();
    assert!(held.iter().all(|stream| asks(stream).unwrap() == 200));
}

/// [`spreads`], for a listener of this protocol, whose clients have two addresses of their own.
fn spreads_over(protocol: &str, scheme: &str, clients: [&str; 2]) {
    let Some(cores) = cores() else { return };
    let member = Member::start("m");
    let limit = format!("connections_per_source = {CROWD}");
    let text = config(&cores, 5, 0, &[(member.addr, 1)])
        + &listener("site", protocol, &limit)
        + &pool("site", protocol, member.addr);
    spreads(&text, "site", scheme, clients);
}

#[test]
fn tcp_connections_are_handed_over() {
    spreads_over("TCP", "tcp", ["127.77.1.1", "127.77.1.2"]);
}

#[test]
fn http_connections_are_handed_over() {
    spreads_over("HTTP", "http", ["127.77.2.1", "127.77.2.2"]);
}

/// A PROXY header and a TLS handshake come after the hand-over, to the shard that serves.
#[test]
fn headers_and_handshakes_are_untouched() {
    let Some(cores) = cores() else { return };
    let (member, mirror) = (Member::start("m"), mirror());
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let ca_file = folder.path().join("ca.pem");
    replace(&ca_file, &ca.pem);
    let [certificate, key] = ca.leaf(&["localhost"], 1).write(folder.path(), "site");
    let told = "proxy_protocol = { accept = true, from = [\"127.0.0.0/8\"] }";
    let text = config(&cores, 5, 0, &[(member.addr, 1)])
        + &listener("told", "HTTP", told)
        + &pool("told", "HTTP", mirror)
        + &listener("safe", "HTTPS", "default_certificate = \"site\"")
        + &pool("safe", "HTTP", member.addr)
        + &format!(
            "[[certificate]]\nname = \"site\"\ncertificate = {certificate:?}\n\
             private_key = {key:?}\n"
        );
    let server = Server::start(&text);
    let from = "127.77.3.1";
    let web = crowd(&server, from, server.web);
    reload(&server, &with(&text, BOUND));
    // Shard 0 has far too many now, so all that comes in there is handed over.
    let to = address_after(&server.ready, "told http://");
    let mut clients = Vec::new();
    for port in 1..=8 {
        let mut client = Client::over(connect(any_port(from), to).unwrap());
        client.raw(&format!("PROXY TCP4 203.0.113.9 203.0.113.1 {port} 80\r\n"));
        client.send("/", "");
        let seen = client.answer().unwrap().body;
        assert!(seen.contains("X-Forwarded-For: 203.0.113.9\r\n"), "{seen}");
        clients.push(client);
    }
    let secure = address_after(&server.ready, "safe https://");
    for _ in 0..8 {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(&ca_file);
        curl.args(["--connect-to", &format!("localhost:443:{secure}"), "https://localhost/"]);
        assert_eq!(run(curl.stdin(Stdio::null())), (Some(0), "m".to_owned(), String::new()));
    }
    let [open, handed] = shards(&server);
    assert_eq!(open, [CROWD as f64, 8.0]);
    assert!(handed[0] > 0.0, "the kernel gave all sixteen to the other shard");
    assert_eq!(web.iter().map(|one| asks(one).unwrap()).max(), Some(200));
}

/// While shards hand over every second connection, another process takes over, and then it drains:
/// whoever could connect gets an answer.
#[test]
fn nothing_is_lost_by_upgrades_and_drains() {
    let Some(cores) = cores() else { return };
    let member = Member::start("m");
    let text = config(&cores, 5, 0, &[(member.addr, 1)]);
    let mut server = Server::start(&text);
    let from = "127.77.4.1";
    let (web, held) = (server.web, crowd(&server, from, server.web));
    reload(&server, &with(&text, BOUND));
    let over = AtomicBool::new(false);
    let ask = || {
        let (mut answers, mut lost) = (0, Vec::new());
        while !over.load(Relaxed) {
            // Nobody listens any more at the end.
            let Ok(stream) = connect(any_port(from), web) else { continue };
            let mut client = Client::over(stream);
            let asked = client.try_send_with("/", "Connection: close\r\n");
            match asked.and_then(|()| client.answer()) {
                Ok(answer) if answer.status == 200 => answers += 1,
                other => lost.push(format!("{other:?}")),
            }
        }
        (answers, lost)
    };
    std::thread::scope(|scope| {
        let clients = [scope.spawn(ask), scope.spawn(ask)];
        until("hand-overs under load", || shards(&server)[1][0] >= 20.0);
        let mut command = weir();
        command.args(["upgrade", "--config"]).arg(&server.file.path);
        let (code, out, err) = run(&mut command);
        let next = out.split_once("process ").and_then(|(_, rest)| rest.split(' ').next());
        let next: Option<u32> = next.and_then(|pid| pid.parse().ok());
        if code == Some(0) {
            server.line_with("drained");
        }
        if let Some(pid) = next {
            let term = ["-c", "kill -TERM $0", &pid.to_string()];
            std::process::Command::new("sh").args(term).status().unwrap();
            until("its end", || !is_alive(pid));
        }
        over.store(true, Relaxed);
        for client in clients {
            let (answers, lost) = client.join().unwrap();
            assert!(answers > 0 && lost.is_empty(), "{answers} {lost:?}");
        }
        assert_eq!(code, Some(0), "{out}{err}");
    });
    drop(held);
    let (status, log, _) = server.wait();
    assert!(status.success(), "{log}");
}

/// Does it run? What its parent has not looked after is dead all the same.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}
