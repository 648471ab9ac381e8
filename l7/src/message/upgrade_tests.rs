//! Tests of what heads say about a switch of protocols: which requests may ask, what is forwarded,
//! which 101 is the right answer.

use std::sync::Arc;

use weir_core::control::{Headers, Limits};

use super::{ClientSide, Request, Response, Via};

/// What a member is sent, where `websocket` and `x/2` may be asked for.
fn forward(raw: &str) -> String {
    let mut fields = Vec::new();
    let request = Request::parse(raw.as_bytes(), &Limits::default(), &mut fields).unwrap().unwrap();
    let allowed = || Arc::from(["websocket".to_owned(), "x/2".to_owned()]);
    let upgrade = request.upgrade(allowed);
    let mut out = Vec::new();
    let (peer, member, headers) = (b"192.0.2.1", b"m", Headers::default());
    request
        .write(&mut out, Via { peer, member, upgrade, key: None, headers: &headers, sides: None });
    String::from_utf8(out).unwrap()
}

/// R6.6-1.
#[test]
fn the_first_allowed_protocol_is_asked_for() {
    let end = "X-Forwarded-For: 192.0.2.1\r\nConnection: Upgrade\r\nUpgrade:";
    for (fields, protocol) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", "websocket"),
        ("Upgrade: WebSocket\r\nConnection: keep-alive, uPGRADE\r\n", "WebSocket"),
        ("Connection: upgrade\r\nUpgrade: h2c, x/1, x/2, websocket\r\n", "x/2"),
        ("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", "websocket"),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", "websocket"),
    ] {
        let head = forward(&format!("GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\n{fields}\r\n"));
        assert!(head.contains(&format!("{end} {protocol}\r\n")), "{fields:?}: {head}");
        assert!(head.starts_with("GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\n"), "{head}");
        assert_eq!(head.to_lowercase().matches("upgrade:").count(), 1, "{head}");
    }
}

#[test]
fn others_go_on_as_plain_requests() {
    let both = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    for (line, fields) in [
        ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
        ("GET / HTTP/1.1", "Connection: upgrade, http2-settings\r\nUpgrade: other\r\n"),
        ("GET / HTTP/1.1", "Upgrade: websocket\r\n"),
        ("GET / HTTP/1.1", "Connection: upgrade\r\n"),
        ("GET / HTTP/1.1", "Connection: close\r\nUpgrade: websocket\r\n"),
        ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket/13\r\n"),
        ("GET / HTTP/1.0", both),
        ("HEAD / HTTP/1.1", both),
        ("POST / HTTP/1.1", both),
        ("GET / HTTP/1.1", &format!("{both}Content-Length: 1\r\n")),
        ("GET / HTTP/1.1", &format!("{both}Transfer-Encoding: chunked\r\n")),
    ] {
        let head = forward(&format!("{line}\r\nHost: a\r\n{fields}B: 1\r\n\r\n"));
        let lower = head.to_lowercase();
        assert!(head.contains("B: 1\r\n"), "{head}");
        assert!(!lower.contains("upgrade") && !lower.contains("http2-settings"), "{head}");
    }
}

#[test]
fn what_belongs_to_the_handshake_passes_untouched() {
    let sec = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Protocol: chat, superchat\r\n\
               Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
               Origin: http://a\r\n";
    let both = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let head = forward(&format!("GET /chat HTTP/1.1\r\nHost: a\r\n{both}{sec}\r\n"));
    assert!(head.contains(sec), "{head}");
}

fn switches(raw: &str) -> bool {
    let mut fields = Vec::new();
    let response = Response::parse(raw.as_bytes(), false, &mut fields).unwrap().unwrap();
    response.switches_to(b"websocket")
}

#[test]
fn only_the_very_protocol_is_an_answer() {
    let ok = "HTTP/1.1 101 Switching Protocols\r\n";
    let both = "Connection: upgrade\r\nUpgrade: WebSocket\r\n";
    assert!(switches(&format!("{ok}{both}\r\n")));
    for raw in [
        format!("{ok}\r\n"),
        format!("{ok}Upgrade: websocket\r\n\r\n"),
        format!("{ok}Connection: upgrade\r\n\r\n"),
        format!("{ok}Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
        format!("{ok}Connection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n"),
        format!("{ok}{both}Upgrade: websocket\r\n\r\n"),
        format!("HTTP/1.0 101 Switching Protocols\r\n{both}\r\n"),
        format!("HTTP/1.1 200 OK\r\n{both}Content-Length: 0\r\n\r\n"),
    ] {
        assert!(!switches(&raw), "{raw}");
    }
}

#[test]
fn the_client_is_told_of_the_switch() {
    let raw = "HTTP/1.1 101 Switching Protocols\r\nConnection: x-a, upgrade\r\nX-A: 1\r\n\
               Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
               Content-Length: 5\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 1\r\n\r\n";
    let side = ClientSide { http11: true, persistent: true, chunked: false, upgrade: true };
    let mut fields = Vec::new();
    // A length beside a coding is refused in any answer.
    assert!(Response::parse(raw.as_bytes(), false, &mut fields).is_err());
    let raw = raw.replace("Transfer-Encoding: chunked\r\n", "");
    let response = Response::parse(raw.as_bytes(), false, &mut fields).unwrap().unwrap();
    let mut out = Vec::new();
    response.write(&mut out, side);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nConnection: Upgrade\r\n\r\n"
    );
}
