//! HTTPS listeners of a running `weir serve`, by curl, openssl and raw sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use process::certs::Ca;
use process::{Client, LIMIT, Member, Server, address_after, config, run, until};
use tempfile::TempDir;

/// A server with an HTTPS listener for localhost, and its files.
struct Secure {
    server: Server,
    at: SocketAddr,
    folder: TempDir,
}

impl Secure {
    fn start(member: SocketAddr) -> Secure {
        Secure::start_with(member, "")
    }

    /// With these settings of the listener.
    fn start_with(member: SocketAddr, settings: &str) -> Secure {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("ca");
        ca.leaf(&["localhost"], 1).write(folder.path(), "site");
        std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        let path = folder.path().display();
        let more = format!(
            r#"
[[listener]]
name = "secure"
loadbalancer = "front"
protocol = "HTTPS"
protocol_port = 0
default_pool = "app"
default_certificate = "site"
{settings}
access_log = {{ path = "{path}/log", format = "json" }}
[[certificate]]
name = "site"
certificate = "{path}/site.pem"
private_key = "{path}/site.key"
"#
        );
        let server = Server::start(&(config("[0]", 5, 0, &[(member, 1)]) + &more));
        let at = address_after(&server.ready, "secure https://");
        Secure { server, at, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn curl(&self, arguments: &[&str], path: &str) -> String {
        let to = format!("localhost:{}:127.0.0.1", self.at.port());
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert", &self.path("ca.pem")]);
        command.args(["--resolve", &to]).args(arguments);
        command.arg(format!("https://localhost:{}{path}", self.at.port()));
        let (code, out, err) = run(&mut command);
        assert_eq!(code, Some(0), "{err}");
        out
    }

    fn failures(&self, reason: &str) -> f64 {
        let family = "weir_tls_handshake_failures_total";
        let series = format!("{family}{{listener=\"secure\",reason=\"{reason}\"}}");
        self.server.counted(&series)
    }

    fn shaken(&self, kind: &str, version: &str) -> f64 {
        let family = "weir_tls_handshakes_total";
        let labels = format!("listener=\"secure\",kind=\"{kind}\",version=\"{version}\"");
        self.server.metric(&format!("{family}{{{labels}}}"))
    }

    fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What is alive on the shard.
    fn alive(&self) -> [f64; 4] {
        ["tasks", "streams", "operations", "leases"]
            .map(|what| self.server.sum(&format!("weir_ring_{what}")))
    }
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&at, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// R13.1-4: both versions, what the log says of them, and what the member is told.
#[test]
fn https_is_served_logged_and_counted() {
    let member = Member::start("m");
    let secure = Secure::start(member.addr);
    for (version, arguments) in
        [("TLSv1.3", &["--tlsv1.3"][..]), ("TLSv1.2", &["--tls-max", "1.2"][..])]
    {
        let before = secure.log().len();
        // Two requests on one connection: only the first one tells the handshake's time.
        let url = format!("https://localhost:{}/two", secure.at.port());
        let out = secure.curl(&[arguments, &[&url]].concat(), "/one");
        assert!(out.contains('m'), "{out}");
        until("two lines", || secure.log().len() == before + 2);
        for (at, line) in secure.log()[before..].iter().enumerate() {
            assert_eq!(line["scheme"], "https");
            assert_eq!(line["ssl_protocol"], version);
            assert!(line["ssl_cipher"].as_str().unwrap().contains("AES"), "{line}");
            assert_eq!(line["sni_domain_name"], "localhost");
            assert_eq!(line["certificate_id"].as_str().unwrap().len(), 36, "{line}");
            assert_eq!(line["tls_handshake_time"].is_number(), at == 0, "{line}");
        }
        assert_eq!(secure.shaken("full", version), 1.0);
    }
    assert_eq!(secure.server.metric("weir_tls_handshake_seconds_count{listener=\"secure\"}"), 2.0);
}

/// R2.3-400b: who speaks plain HTTP to an HTTPS port is told so in plain HTTP.
#[test]
fn plain_http_is_told_that_the_port_is_for_https() {
    let member = Member::start("m");
    let secure = Secure::start(member.addr);
    let before = secure.alive();
    let mut client = Client::connect(secure.at);
    client.send("/x", "");
    let answer = client.answer().unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("plain HTTP was sent to an HTTPS port"), "{}", answer.body);
    assert_eq!(client.end().unwrap(), 0);
    until("a line", || secure.log().len() == 1);
    let line = &secure.log()[0];
    assert_eq!(line["error_reason"], "plain HTTP was sent to an HTTPS port");
    assert!(line["ssl_protocol"].is_null());
    // What was spoken, whatever the port is for.
    assert_eq!((&line["scheme"], &line["uri"]), (&"http".into(), &"/x".into()));
    assert_eq!(secure.failures("plain_http"), 1.0);
    drop(client);
    until("nothing is left", || secure.alive() == before);
}

/// Bytes that a client begins with, what it hears, and what is counted.
struct Bad {
    name: &'static str,
    bytes: Vec<u8>,
    /// The description of the alert; `None` = none comes.
    alert: Option<u8>,
    reason: &'static str,
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 1];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// A ClientHello of openssl's, as it goes over the wire.
fn hello(arguments: &[&str]) -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to]).args(arguments).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut body).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    [&head[..], &body].concat()
}

fn bad_beginnings() -> Vec<Bad> {
    let good = hello(&[]);
    let bad = |name, bytes: Vec<u8>, alert, reason| Bad { name, bytes, alert, reason };
    // A message that says it is longer than anybody may send, in records that go on and on.
    let endless = [&record(22, &[1, 0xff, 0xff, 0xff])[..], &record(22, &[0; 16_000]).repeat(9)];
    let mut cut = good.clone();
    // The message ends before what its inner lengths promise.
    let len = cut.len() as u16 - 5 - 40;
    cut.truncate(cut.len() - 40);
    cut[3..5].copy_from_slice(&len.to_be_bytes());
    cut[6..9].copy_from_slice(&[0, ((len - 4) >> 8) as u8, (len - 4) as u8]);
    let tls11 = hello(&["-tls1_1", "-cipher", "ALL@SECLEVEL=0"]);
    let tls10 = hello(&["-tls1", "-cipher", "ALL@SECLEVEL=0"]);
    // In TLS 1.3 it would come sealed.
    let alpn = hello(&["-tls1_2", "-alpn", "gopher"]);
    let cbc = hello(&["-tls1_2", "-cipher", "AES128-SHA@SECLEVEL=0"]);
    vec![
        bad(
            "garbage",
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".to_vec(),
            Some(50),
            "malformed",
        ),
        bad("an oversize record", vec![22, 3, 1, 0xff, 0xff, 1, 0, 0], Some(22), "malformed"),
        bad("an endless message", endless.concat(), Some(50), "oversize"),
        bad("a cut ClientHello", cut, Some(50), "malformed"),
        bad("data first", record(23, &[0; 100]), Some(10), "malformed"),
        bad("an empty record", record(22, &[]), Some(50), "malformed"),
        bad("a fatal alert", record(21, &[2, 40]), None, "refused"),
        bad("a flood of warnings", record(21, &[1, 90]).repeat(9), Some(50), "malformed"),
        bad("TLS 1.1", tls11, Some(70), "version"),
        bad("TLS 1.0", tls10, Some(70), "version"),
        bad("no cipher in common", cbc, Some(40), "cipher"),
        bad("no protocol in common", alpn, Some(120), "protocol"),
    ]
}

/// Issue 5, bad input: the right alert, counted by its reason, and nothing stays.
#[test]
fn bad_beginnings_get_their_alerts() {
    let member = Member::start("m");
    let secure = Secure::start(member.addr);
    let before = secure.alive();
    for Bad { name, bytes, alert, reason } in bad_beginnings() {
        let counted = secure.failures(reason);
        let mut client = connect(secure.at);
        // It may close while the bytes are still on their way.
        let _cut = client.write_all(&bytes);
        let mut heard = Vec::new();
        let _cut = client.read_to_end(&mut heard);
        println!("{name}: {heard:?}");
        match alert {
            Some(alert) => {
                assert_eq!(heard.len(), 7, "{name}: {heard:?}");
                assert_eq!([heard[0], heard[5], heard[6]], [21, 2, alert], "{name}: {heard:?}");
            }
            None => assert_eq!(heard, b"", "{name}"),
        }
        until(name, || secure.failures(reason) == counted + 1.0);
    }
    until("nothing is left", || secure.alive() == before);
}

/// Issue 5, bad input: who goes away, or says nothing, is counted and forgotten.
#[test]
fn clients_that_go_or_fall_silent_leave_nothing() {
    let member = Member::start("m");
    let secure = Secure::start_with(member.addr, "tls_handshake_timeout = 1");
    let before = secure.alive();
    let hello = hello(&[]);
    let begun = |n: usize| {
        let mut client = connect(secure.at);
        client.write_all(&hello[..n]).unwrap();
        let active = "weir_active_connections{listener=\"secure\"}";
        until("it is accepted", || secure.server.metric(active) == 1.0);
        client
    };
    drop(begun(0));
    until("silent", || secure.failures("silent") == 1.0);
    begun(hello.len() / 2).shutdown(Shutdown::Both).unwrap();
    until("FIN", || secure.failures("closed") == 1.0);
    let cut = socket2::Socket::from(begun(hello.len() / 2));
    cut.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(cut);
    until("RST", || secure.failures("closed") == 2.0);
    // Half a ClientHello, none, and no answer to the server's part.
    for (at, n) in [(1.0, hello.len() / 2), (2.0, 0), (3.0, hello.len())] {
        let mut client = begun(n);
        let mut heard = Vec::new();
        let _reset = client.read_to_end(&mut heard);
        assert_eq!(heard.is_empty(), n < hello.len());
        until("timeout", || secure.failures("timeout") == at);
    }
    until("nothing is left", || secure.alive() == before);
    assert_eq!(secure.server.sum("weir_ring_task_panics_total"), 0.0);
}

/// Issue 5, bad input: a record that doesn't open ends the connection by bad_record_mac.
#[test]
fn garbage_behind_the_handshake_ends_the_connection() {
    let member = Member::start("m");
    let secure = Secure::start(member.addr);
    let before = secure.alive();
    let script = r#"
import os, socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
tls = context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
os.write(tls.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)
try:
    print(tls.recv(100))
except ssl.SSLError as error:
    print(error.reason)
"#;
    let out = python(script, &[&secure.at.port().to_string(), &secure.path("ca.pem")]);
    assert!(out.contains("SSLV3_ALERT_BAD_RECORD_MAC"), "{out}");
    until("nothing is left", || secure.alive() == before);
}

fn python(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", script]).args(arguments);
    let (code, out, err) = run(&mut command);
    assert_eq!(code, Some(0), "{out}{err}");
    out
}

/// A member that answers each upload with its SHA-256 and each download with the bytes of a file.
fn file_member(folder: &Path) -> Mirror {
    let script = r#"
import hashlib, http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(open("body", "rb").read())
    def do_POST(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 65536))
            digest.update(piece)
            left -= len(piece)
        self.answer(digest.hexdigest().encode())
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    # Clients that go away are what is tested.
    def handle_error(self, *args): pass
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;
    let mut command = Command::new("python3");
    command.args(["-c", script]).current_dir(folder).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], line.trim().parse().unwrap()));
    Mirror { child, at }
}

struct Mirror {
    child: std::process::Child,
    at: SocketAddr,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Large bodies both ways, whole and unaltered, and memory that does not follow a client that
/// doesn't read.
#[test]
fn large_bodies_pass_and_slow_readers_cost_little() {
    let folder = tempfile::tempdir().unwrap();
    let body: Vec<u8> =
        (0..30_000_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let file = folder.path().join("body");
    std::fs::write(&file, &body).unwrap();
    let member = file_member(folder.path());
    let secure = Secure::start(member.at);
    let before = secure.alive();
    let got = folder.path().join("got");
    let sent = format!("@{}", file.display());
    for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        secure.curl(&[version, &["-o", got.to_str().unwrap()]].concat(), "/");
        assert!(std::fs::read(&got).unwrap() == body, "{version:?}");
        let digest = secure.curl(&[version, &["--data-binary", &sent]].concat(), "/");
        let (_, own, _) = run(Command::new("sha256sum").arg(&file));
        assert_eq!(Some(digest.as_str()), own.split(' ').next());
    }
    let script = r#"
import socket, ssl, sys, time
context = ssl.create_default_context(cafile=sys.argv[2])
streams = []
for n in range(50):
    raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    tls = context.wrap_socket(raw, server_hostname="localhost")
    tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    streams.append(tls)
print("waiting", flush=True)
sys.stdin.read()
"#;
    let rss = || secure.server.metric("process_resident_memory_bytes");
    let small = rss();
    let mut child = Command::new("python3")
        .args(["-c", script, &secure.at.port().to_string(), &secure.path("ca.pem")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut word).unwrap();
    let active = "weir_active_connections{listener=\"secure\"}";
    until("all are there", || secure.server.metric(active) == 50.0);
    // 50 answers of 30 MB are under way; what is held of each is a few leases.
    process::pass_time(std::time::Duration::from_secs(1));
    let grown = rss() - small;
    assert!(grown < 64e6, "{grown} bytes");
    drop(child.stdin.take());
    child.wait().unwrap();
    until("nothing is left", || secure.alive() == before);
}
