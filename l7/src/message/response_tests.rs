//! Tests of response heads: what passes, what is refused, what is written.

use proptest::prelude::*;

use super::*;

const KEEP: ClientSide =
    ClientSide { http11: true, persistent: true, chunked: false, upgrade: false };

fn parse(raw: &[u8], to_head: bool) -> Result<Option<(usize, ResponseFacts)>, Flaw> {
    let mut fields = Vec::new();
    let response = Response::parse(raw, to_head, &mut fields)?;
    Ok(response.map(|response| (response.len(), response.facts)))
}

fn forward(raw: &str, side: ClientSide) -> String {
    let mut fields = Vec::new();
    let response = Response::parse(raw.as_bytes(), false, &mut fields).unwrap().unwrap();
    let mut out = Vec::new();
    response.write(&mut out, side);
    String::from_utf8(out).unwrap()
}

/// R2.3-502c.
#[test]
fn malformed() {
    for raw in [
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTP/1.1 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\x01K\r\n\r\n",
        "HTTP/1.1 200 OK\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(parse(raw.as_bytes(), false).is_err(), "{raw:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
    assert!(parse(long.as_bytes(), false).is_err());
    assert!(parse(&long.as_bytes()[..=MAX_HEAD_BYTES], false).is_err());
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1001));
    assert!(parse(many.as_bytes(), false).is_err());
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert!(parse(many.as_bytes(), false).is_ok());
}

#[test]
fn facts() {
    let close = Framing::UntilClose;
    for (raw, to_head, framing, persistent) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false, Framing::Length(3), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, Framing::None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::Chunked, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, Framing::None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", false, close, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 304 X\r\nContent-Length: 3\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 100 Continue\r\n\r\n", false, Framing::None, true),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            false,
            Framing::Length(0),
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false, Framing::Length(1), false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            false,
            Framing::Length(1),
            true,
        ),
        ("HTTP/1.1 999 \r\n\r\n", false, close, true),
    ] {
        let (len, facts) = parse(raw.as_bytes(), to_head).unwrap().unwrap();
        assert_eq!(
            (len, facts.framing, facts.persistent),
            (raw.len(), framing, persistent),
            "{raw}"
        );
    }
}

#[test]
fn written_anew() {
    let closing = ClientSide { persistent: false, ..KEEP };
    let old = ClientSide { http11: false, ..KEEP };
    let chunked = ClientSide { chunked: true, ..KEEP };
    for (raw, side, wanted) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\n",
            KEEP,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\n",
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive, x\r\nX: 1\r\nKeep-Alive: 3\r\nA:b\r\n\r\n",
            closing,
            "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            old,
            "HTTP/1.1 200 \r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
            chunked,
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            KEEP,
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            KEEP,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", closing, "HTTP/1.1 100 Continue\r\n\r\n"),
        (
            // What a listener may insert into requests is the member's own in its answers.
            "HTTP/1.1 200 OK\r\nX-Request-ID: 7\r\nX_Real_IP: a\r\nContent-Length: 0\r\n\r\n",
            KEEP,
            "HTTP/1.1 200 OK\r\nX-Request-ID: 7\r\nX_Real_IP: a\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            // R2.3-401: passed untouched.
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
            KEEP,
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        assert_eq!(forward(raw, side), wanted, "{raw}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&raw, false);
        let _ = parse(&[b"HTTP/1.1 200 OK\r\n", raw.as_slice()].concat(), false);
    }

    #[test]
    fn rewriting_is_idempotent(
        status in 200u16..600,
        version in 0u8..2,
        reason in "( [ -~]{0,10})?",
        fields in prop::collection::vec(("[A-Za-z]{1,8}", "[ ]{0,2}", "[!-~]{0,8}"), 0..8),
    ) {
        let mut raw = format!("HTTP/1.{version} {status}{reason}\r\n");
        for (name, space, value) in &fields {
            raw += &format!("{name}:{space}{value}\r\n");
        }
        raw += "\r\n";
        let once = forward(&raw, KEEP);
        prop_assert_eq!(forward(&once, KEEP), once.clone());
        let (_, facts) = parse(once.as_bytes(), false).unwrap().unwrap();
        prop_assert_eq!(facts.status, status);
    }
}
