//! WebSocket through the real program (R6.6-1), and tunnels whose member is to leave (C12, R6.6-2).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use weir_core::time::clock;

use crate::process::certs::Ca;
use crate::process::{self, LIMIT, Server, address_after, config, count, pass_time, run, until};
use crate::{alone, core_choices};

/// Mebibytes of the largest frame.
const FRAME: usize = 16;

fn python() -> Command {
    process::python("tests/e2e/websocket.py")
}

/// An echo server; it ends when its input does.
struct Echo {
    child: Child,
    _input: Option<ChildStdin>,
    address: SocketAddr,
}

impl Echo {
    fn start() -> Echo {
        let mut command = python();
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap_or_else(|_| panic!("no port: {line:?}"));
        let input = child.stdin.take();
        Echo { child, _input: input, address: ([127, 0, 0, 1], port).into() }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

/// Python's library on both sides: large frames, pings, compression, closing handshake, half-close.
#[test]
fn websockets_need_no_configuration() {
    let _turn = alone();
    let echo = Echo::start();
    for cores in core_choices() {
        let server = Server::start(&config(cores, 5, 0, &[(echo.address, 1)]));
        let connections = count(2, 20);
        for _ in 0..count(1, 10) {
            let url = format!("ws://{}/chat", server.web);
            let counts = [connections.to_string(), FRAME.to_string()];
            let (code, out, err) = run(python().args(["client", &url]).args(counts));
            assert_eq!(code, Some(0), "{out}{err}");
            assert!(out.starts_with("all well"), "{out}{err}");
        }
        until("all tunnels gone", || server.sum("weir_active_tunnels") == 0.0);
        until("all leases back", || server.sum("weir_ring_leases") == 0.0);
        let switched = server.sum("weir_responses_total{listener=\"web\",code=\"101\"}");
        assert!(switched >= 3.0, "{}", server.metrics());
        let bytes = (connections * FRAME) as f64 * 1_048_576.0 / 2.0;
        assert!(server.sum("weir_sent_bytes_total") > bytes, "{}", server.metrics());
        assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
    }
}

/// The same over TLS (WSS).
#[test]
fn secure_websockets_need_no_configuration() {
    let _turn = alone();
    let (echo, folder) = (Echo::start(), tempfile::tempdir().unwrap());
    let ca = Ca::new("ca");
    ca.leaf(&["localhost"], 1).write(folder.path(), "site");
    let trust = folder.path().join("ca.pem");
    std::fs::write(&trust, &ca.pem).unwrap();
    let site = folder.path().join("site").display().to_string();
    let https = "protocol = \"HTTPS\"\ndefault_certificate = \"site\"";
    let text =
        config("[0, 1]", 5, 0, &[(echo.address, 1)]).replacen("protocol = \"HTTP\"", https, 1)
            + "[[certificate]]\nname = \"site\"\n"
            + &format!("certificate = \"{site}.pem\"\nprivate_key = \"{site}.key\"\n");
    let server = Server::start(&text);
    let web = address_after(&server.ready, "web https://");
    let url = format!("wss://localhost:{}/chat", web.port());
    let counts = [count(2, 20).to_string(), FRAME.to_string()];
    let (code, out, err) = run(python().args(["client", &url]).args(counts).arg(&trust));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.starts_with("all well"), "{out}{err}");
    until("all tunnels gone", || server.sum("weir_active_tunnels") == 0.0);
    until("all leases back", || server.sum("weir_ring_leases") == 0.0);
    assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
}

/// A member that switches and then sends back what it gets.
fn echo_member() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || switch_and_echo(stream));
        }
    });
    address
}

fn switch_and_echo(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
    }
    let mut answer = String::from("HTTP/1.1 101 Switching Protocols\r\n");
    answer += "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let _gone = stream.write_all(answer.as_bytes());
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = reader.read(&mut piece) {
        let _gone = stream.write_all(&piece[..n]);
    }
}

/// A client in a tunnel.
fn tunnel(web: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(web).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: w\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    reader
}

fn echoes(client: &mut BufReader<TcpStream>) {
    client.get_mut().write_all(b"ping").unwrap();
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
}

/// C12: a tunnel to a member of weight 0, or one that was removed, goes on while something moves,
/// and until it was quiet for member_timeout, however long tunnel_timeout is.
#[test]
fn tunnels_to_members_that_leave_end_when_quiet() {
    let _turn = alone();
    let (member, other) = (echo_member(), echo_member());
    let limits = "default_pool = \"app\"\nmember_timeout = 2\ntunnel_timeout = 3600\n";
    let text = |members: &[(SocketAddr, u8)]| {
        config("[0]", 5, 0, members).replacen("default_pool = \"app\"\n", limits, 1)
    };
    let server = Server::start(&text(&[(member, 1)]));
    for next in [vec![(member, 0)], vec![(other, 1)]] {
        assert_eq!(server.reload(&text(&[(member, 1)])).0, Some(0));
        let mut client = tunnel(server.web);
        let start = clock::mono();
        while clock::mono().since(start) < Duration::from_millis(2_500) {
            pass_time(Duration::from_millis(500));
        }
        // Quiet for longer than member_timeout: tunnel_timeout is what holds.
        echoes(&mut client);
        let (code, _, err) = server.reload(&text(&next));
        assert_eq!(code, Some(0), "{err}");
        echoes(&mut client);
        let quiet = clock::mono();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "more than was sent");
        let took = clock::mono().since(quiet);
        assert!(took >= Duration::from_millis(1_900), "{took:?}");
        until("the tunnel is gone", || server.sum("weir_active_tunnels") == 0.0);
    }
}
