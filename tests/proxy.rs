//! The PROXY protocol, end to end: connections from trusted proxies say whom they speak for, by
//! hand-made bytes and by HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use process::mirror::mirror;
use process::{Client, LIMIT, Server, config, until};

/// A listener that expects PROXY headers from 127.0.0.1, with further keys and sections.
fn server(keys: &str, sections: &str) -> Server {
    let proxies = "proxy_protocol = { accept = true, from = [\"127.0.0.1\"] }";
    let keys = format!("default_pool = \"app\"\n{proxies}\n{keys}\n");
    let text = config("[0]", 5, 0, &[(mirror(), 1)]).replace("default_pool = \"app\"\n", &keys);
    Server::start(&(text + sections))
}

/// A connection that has sent these bytes.
fn sent(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // A refusal may come at once.
    let _refused = stream.write_all(bytes);
    stream
}

/// What the member sees of the client behind this header.
fn named(to: SocketAddr, header: &[u8]) -> String {
    let mut client = Client::over(sent(to, header));
    client.send("/", "");
    forwarded_for(&client.answer().unwrap().body)
}

fn forwarded_for(head: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix("X-Forwarded-For: "));
    line.unwrap_or_else(|| panic!("no X-Forwarded-For in {head}")).to_owned()
}

/// Whether a connection that sends this is reset without a byte.
fn is_reset(to: SocketAddr, bytes: &[u8]) -> bool {
    match sent(to, bytes).read(&mut [0; 100]) {
        Err(e) => matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        // A write that met the reset has taken the error with it.
        Ok(n) => n == 0,
    }
}

fn refused(server: &Server, reason: &str) -> f64 {
    let series = "weir_refused_connections_total";
    server.counted(&format!("{series}{{listener=\"web\",reason=\"{reason}\"}}"))
}

/// A header of version 2.
fn block(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    out.extend_from_slice(&[command, family, 0, body.len() as u8]);
    out.extend_from_slice(body);
    out
}

const V4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 2, 0x12, 0x67, 0, 80];
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n";

#[test]
fn headers_name_the_client() {
    let server = server("insert_headers = { X-Real-IP = true, X-Forwarded-For-Port = true }", "");
    assert_eq!(named(server.web, LINE), "192.0.2.1");
    assert_eq!(named(server.web, b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n"), "2001:db8::7");
    assert_eq!(named(server.web, &block(0x21, 0x11, &V4)), "192.0.2.7");
    let with_values = [&V4[..], &[0xe0, 0, 3, 1, 2, 3]].concat();
    assert_eq!(named(server.web, &block(0x21, 0x11, &with_values)), "192.0.2.7");
    // Whoever speaks for itself, or for nobody with an IP address, is the client.
    for own in [&b"PROXY UNKNOWN\r\n"[..], &block(0x20, 0, b""), &block(0x21, 0x31, &[1; 216])] {
        assert_eq!(named(server.web, own), "127.0.0.1");
    }
    // One header a connection, however many requests.
    let mut client = Client::over(sent(server.web, LINE));
    for _ in 0..3 {
        client.send("/", "");
        let head = client.answer().unwrap().body;
        assert!(head.contains("X-Forwarded-For-Port: 4711\r\nX-Real-IP: 192.0.2.1\r\n"), "{head}");
    }
}

#[test]
fn headers_may_come_in_pieces_or_with_the_request() {
    let server = server("", "");
    for header in [LINE.to_vec(), block(0x21, 0x11, &V4)] {
        let whole = [&header[..], b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"].concat();
        let mut together = Client::over(sent(server.web, &whole));
        assert_ne!(forwarded_for(&together.answer().unwrap().body), "127.0.0.1");
        let mut stream = sent(server.web, b"");
        for byte in whole.chunks(1) {
            stream.write_all(byte).unwrap();
            // Lets the byte out on its own: the other side may see it before the next.
            std::thread::yield_now();
        }
        let answer = Client::over(stream).answer().unwrap();
        assert_ne!(forwarded_for(&answer.body), "127.0.0.1");
    }
}

#[test]
fn bad_headers_and_strangers_are_reset_and_counted() {
    let server = server("", "");
    let wrong_sum = [&V4[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
    let bad: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
        &block(0x21, 0x11, &V4[..11]),
        &block(0x21, 0x11, &wrong_sum),
        &block(0x22, 0x11, &V4),
    ];
    for bytes in bad {
        assert!(is_reset(server.web, bytes), "{}", bytes.escape_ascii());
    }
    assert_eq!(refused(&server, "proxy_header"), 5.0);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    let stranger = socket.connect_timeout(&server.web.into(), LIMIT).and_then(|()| {
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(LINE)?;
        stream.read(&mut [0; 1])
    });
    assert!(stranger.is_err(), "{stranger:?}");
    assert_eq!(refused(&server, "proxy_untrusted"), 1.0);
    assert_eq!(server.sum("weir_requests_total"), 0.0);
    until("the connections to be gone", || server.sum("weir_active_connections") == 0.0);
}

/// Who says nothing, or only a part, is reset when its time is over.
#[test]
fn a_header_has_to_come_in_time() {
    let server = server("", "");
    let silent = sent(server.web, b"");
    assert!(is_reset(server.web, b"PROXY TCP4 192.0.2.1"));
    drop(silent);
    until("both to be counted", || {
        refused(&server, "proxy_timeout") + refused(&server, "proxy_header") == 2.0
    });
    assert!(refused(&server, "proxy_timeout") >= 1.0);
}

/// The access control list goes by the client that is named (C19).
#[test]
fn lists_apply_to_the_named_client() {
    let group = "[[ipgroup]]\nname = \"g\"\nip_list = [\"192.0.2.7\"]\n";
    let server = server("ipgroup = { name = [\"g\"] }", group);
    assert_eq!(named(server.web, &block(0x21, 0x11, &V4)), "192.0.2.7");
    assert!(is_reset(server.web, LINE));
    assert!(is_reset(server.web, b"PROXY UNKNOWN\r\n"));
    assert_eq!(refused(&server, "acl_denied"), 2.0);
}

/// A running HAProxy; ended by its process when dropped.
struct Haproxy {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    /// In front of `server`, with these options on the way there.
    fn start(server: SocketAddr, options: &str) -> Haproxy {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let text = format!(
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 10s\n\
             \x20 timeout client 20s\n  timeout server 20s\nlisten front\n  bind {address}\n\
             \x20 server weir {server} {options}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("haproxy (tests/packages.sh): {e}"));
        until("haproxy to listen", || TcpStream::connect(address).is_ok());
        Haproxy { child, address, _folder: folder }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

#[test]
fn haproxy_is_understood() {
    let server = server("", "");
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
        let haproxy = Haproxy::start(server.web, options);
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 77], 0)).into()).unwrap();
        socket.connect_timeout(&haproxy.address.into(), LIMIT).unwrap();
        let mut client = Client::over(socket.into());
        for _ in 0..2 {
            client.send("/", "");
            assert_eq!(forwarded_for(&client.answer().unwrap().body), "127.0.0.77", "{options}");
        }
    }
}
