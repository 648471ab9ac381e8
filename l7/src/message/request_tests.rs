//! Tests of request heads: what passes, what is refused, what is written.

use proptest::prelude::*;
use weir_core::control::Headers;

use super::*;

/// The limits that hold where a listener says nothing.
fn limits() -> Limits {
    Limits::default()
}

/// What a head comes to: the facts, or a refusal.
fn parse(raw: &[u8]) -> Result<Option<(usize, RequestFacts)>, Error> {
    let mut fields = Vec::new();
    let request = Request::parse(raw, &limits(), &mut fields)?;
    Ok(request.map(|request| (request.len(), request.facts)))
}

/// The head as a member gets it.
fn forward(raw: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    let request = Request::parse(raw, &limits(), &mut fields).unwrap().unwrap();
    let mut out = Vec::new();
    let headers = Headers::default();
    let (peer, member) = (b"192.0.2.1", b"127.0.0.1:9001");
    request.write(
        &mut out,
        Via { peer, member, upgrade: None, key: None, headers: &headers, sides: None },
    );
    out
}

fn forward_text(raw: &str) -> String {
    String::from_utf8(forward(raw.as_bytes())).unwrap()
}

/// Heads that are refused, and with what. R2.3-400a, R2.3-400c, R2.3-414, R2.3-501a, R2.3-501b.
const REFUSED: &[(&str, u16)] = &[
    // Start lines.
    ("GET\r\n\r\n", 400),
    ("GET /\r\n\r\n", 400),
    ("GET / \r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\tx\r\nHost: a\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    ("{\"a\": 1}\r\n\r\n", 400),
    // Versions (505 does not exist here: requirements 18).
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/11\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    // Line ends.
    ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n\rX\r\n\r\n", 400),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Field lines.
    ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX b: c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\u{fc}: b\r\n\r\n", 400),
    // Host.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
    // Targets.
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Lengths and codings.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\
         \r\n\r\n",
        400,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;x=y\r\n\r\n", 501),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        501,
    ),
    // The rest.
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 400),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
];

#[test]
fn refused() {
    for &(raw, status) in REFUSED {
        let got = parse(raw.as_bytes()).map_err(|error| error.verdict().status);
        assert_eq!(got, Err(status), "{raw:?}");
    }
    assert!(REFUSED.len() >= 60);
}

/// What a head comes to under limits of its own.
fn judge(raw: &[u8], limits: Limits) -> Result<bool, Error> {
    Ok(Request::parse(raw, &limits, &mut Vec::new())?.is_some())
}

/// R2.3-400c: exactly the limit passes (C16), one more does not; whether the head is whole or not.
#[test]
fn head_size() {
    assert_eq!(limits().head, 65_536);
    for most in [1_024, 65_536, 1_048_576] {
        let limits = Limits { head: most, ..limits() };
        let head = |size: usize| {
            let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
            let filler = "x".repeat(size - start.len() - 4);
            [start, &filler, "\r\n\r\n"].concat().into_bytes()
        };
        assert_eq!(judge(&head(most), limits), Ok(true), "{most}");
        assert_eq!(judge(&head(most + 1), limits), Err(Error::HeadTooLarge), "{most}");
        let unfinished = head(most + 10);
        assert_eq!(judge(&unfinished[..most], limits), Ok(false), "{most}");
        assert_eq!(judge(&unfinished[..=most], limits), Err(Error::HeadTooLarge), "{most}");
    }
}

/// R2.3-400c: the number of fields.
#[test]
fn field_count() {
    assert_eq!(limits().fields, 1_000);
    for most in [1, 10, 63, 64, 65, 1_000, 5_000] {
        let limits = Limits { fields: most, ..limits() };
        for count in [most, most + 1] {
            let mut head = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
            (1..count).for_each(|i| head += &format!("x{i}: {i}\r\n"));
            head += "\r\n";
            let wanted = if count == most { Ok(true) } else { Err(Error::TooManyFields) };
            assert_eq!(judge(head.as_bytes(), limits), wanted, "{count} of {most}");
        }
    }
    let many: String = (1..1000).map(|i| format!("x{i}: {i}\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    assert!(forward(head.as_bytes()).ends_with(b"\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"));
    let options = vec!["x"; 33].join(",");
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\n\r\n");
    assert_eq!(parse(head.as_bytes()), Err(Error::TooManyFields));
}

/// R2.3-414, tested before R2.3-400c (C16), whether the line is whole or not.
#[test]
fn target_size() {
    assert_eq!(limits().uri, 16_384);
    for most in [256, 16_384, 65_536] {
        let limits = Limits { uri: most, ..limits() };
        let head =
            |size: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(size - 1));
        let at = |size: usize| judge(head(size).as_bytes(), Limits { head: 1 << 20, ..limits });
        assert_eq!(at(most), Ok(true), "{most}");
        assert_eq!(at(most + 1), Err(Error::UriTooLong), "{most}");
        let cut = &head(most + 9).into_bytes()[..most + 5];
        assert_eq!(judge(cut, limits), Err(Error::UriTooLong), "{most}");
        assert_eq!(judge(head(70_000).as_bytes(), limits), Err(Error::UriTooLong), "{most}");
    }
}

/// R2.3-413, C15: known from Content-Length; exactly the limit passes.
#[test]
fn body_size() {
    assert_eq!(limits().body, 10 << 30);
    for most in [1, 10 << 30, u64::MAX] {
        let limits = Limits { body: most, ..limits() };
        let head = |size: u64| {
            format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").into_bytes()
        };
        assert_eq!(judge(&head(most), limits), Ok(true), "{most}");
        if let Some(more) = most.checked_add(1) {
            assert_eq!(judge(&head(more), limits), Err(Error::BodyTooLarge), "{most}");
        }
    }
}

#[test]
fn facts() {
    let plain = RequestFacts { http11: true, persistent: true, ..RequestFacts::default() };
    let get = RequestFacts { idempotent: true, ..plain };
    let old = RequestFacts { http11: false, names_member: true, ..get };
    for (raw, facts) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", get),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFacts { is_head: true, ..get }),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", get),
        ("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", plain),
        ("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", plain),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            RequestFacts { persistent: false, ..get },
        ),
        ("GET / HTTP/1.0\r\n\r\n", RequestFacts { persistent: false, ..old }),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", old),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
            RequestFacts { names_member: false, ..old },
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            RequestFacts { framing: Framing::Length(5), ..plain },
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
            RequestFacts { framing: Framing::Chunked, ..plain },
        ),
        (
            // R2.3-501b: identity is accepted, but what follows is not read as a request.
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            RequestFacts { persistent: false, ..plain },
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n",
            RequestFacts { framing: Framing::Length(5), expects_continue: true, ..plain },
        ),
        (
            "POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            RequestFacts {
                http11: false,
                persistent: false,
                names_member: true,
                framing: Framing::Length(5),
                ..plain
            },
        ),
    ] {
        let (len, got) = parse(raw.as_bytes()).unwrap().unwrap();
        assert_eq!(got, facts, "{raw}");
        assert_eq!(len, raw.find("\r\n\r\n").unwrap() + 4);
    }
}

#[test]
fn written_anew() {
    let tail = "X-Forwarded-For: 192.0.2.1\r\n\r\n";
    for (raw, wanted) in [
        (
            "GET /a?b HTTP/1.1\r\nHost: a.b:80\r\nAccept: */*\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHost: a.b:80\r\nAccept: */*\r\n",
        ),
        (
            // Space around values is not part of them.
            "GET / HTTP/1.1\r\nhost:a\r\nX:  b \t\r\nY:\r\nZ: \r\nA: 1 2\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nX: b\r\nY: \r\nZ: \r\nA: 1 2\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nA: 1\r\nConnection: keep-alive, x-Foo, host\r\nX-FOO: 1\r\n\
             Host: a\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers\r\nTrailer: A\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: x\r\nB: 2\r\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\n",
        ),
        (
            // R5.10-1: the authority replaces Host.
            "GET http://x.y:8/p HTTP/1.1\r\nHost: a\r\nA: 1\r\n\r\n",
            "GET /p HTTP/1.1\r\nHost: x.y:8\r\nA: 1\r\n",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n"),
        (
            // Twins of fields that mean something, which CGI programs can't tell apart.
            "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\
             X_Forwarded_For: 9.9.9.9\r\nX_Other: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX_Other: 1\r\n",
        ),
        ("GET http://x HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"),
        ("OPTIONS http://x HTTP/1.1\r\nHost: y\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n"),
    ] {
        assert_eq!(forward_text(raw), format!("{wanted}{tail}"), "{raw}");
    }
}

#[test]
fn framing_is_written_anew() {
    let out = forward_text("POST / HTTP/1.1\r\ncontent-length: 007\r\nHost: a\r\n\r\n");
    let tail = "X-Forwarded-For: 192.0.2.1\r\nContent-Length: 7\r\n\r\n";
    assert_eq!(out, format!("POST / HTTP/1.1\r\nHost: a\r\n{tail}"));
    let out = forward_text("POST / HTTP/1.1\r\ntransfer-encoding: CHUNKED\r\nHost: a\r\n\r\n");
    let tail = "X-Forwarded-For: 192.0.2.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(out, format!("POST / HTTP/1.1\r\nHost: a\r\n{tail}"));
    let out = forward_text("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n");
    assert_eq!(out, "POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
}

#[test]
fn forwarded_for_is_appended() {
    let out = forward_text(
        "GET / HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1\r\nHost: a\r\nx-forwarded-for:\r\n\
         X-Forwarded-For: 2.2.2.2, 3.3.3.3\r\nConnection: X-Forwarded-For\r\n\r\n",
    );
    assert_eq!(
        out,
        "GET / HTTP/1.1\r\nHost: a\r\n\
         X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1\r\n\r\n"
    );
}

fn arb_field() -> impl Strategy<Value = (String, String, String)> {
    let name = prop_oneof![
        "[A-Za-z][A-Za-z0-9-]{0,12}",
        Just("Connection".to_owned()),
        Just("TE".to_owned()),
        Just("X-Forwarded-For".to_owned()),
    ];
    (name, "[ \t]{0,2}", "[!-~]([ -~]{0,12}[!-~])?")
}

proptest! {
    /// Whatever is cut off from a head, it is incomplete rather than refused or complete.
    #[test]
    fn prefixes_are_incomplete(cut in 0usize..1000) {
        let raw = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y\r\n\r\n";
        let cut = cut % raw.len();
        prop_assert_eq!(parse(&raw[..cut]), Ok(None));
    }

    /// What is written for a member, parsed and written again, is the same but for the address
    /// appended, and says the same of body and connection.
    #[test]
    fn rewriting_is_idempotent(fields in prop::collection::vec(arb_field(), 0..12)) {
        let mut raw = String::from("POST /p?q HTTP/1.1\r\nHost: a\r\n");
        for (name, space, value) in &fields {
            raw += &format!("{name}:{space}{value}{space}\r\n");
        }
        raw += "\r\n";
        let Ok(Some((_, facts))) = parse(raw.as_bytes()) else {
            // The generator may hit a name whose value matters (Host, Expect, TE, …).
            return Ok(());
        };
        let once = forward(raw.as_bytes());
        let (len, facts_once) = parse(&once).unwrap().unwrap();
        prop_assert_eq!(len, once.len());
        prop_assert_eq!(facts_once.framing, facts.framing);
        prop_assert!(facts_once.persistent);
        let twice = forward(&once);
        let again = String::from_utf8(twice).unwrap();
        let cleaned = again.replacen("192.0.2.1, 192.0.2.1", "192.0.2.1", 1);
        prop_assert_eq!(cleaned, String::from_utf8(once).unwrap());
    }

    /// The shortcut for lines that already have the right form writes what the long way writes.
    #[test]
    fn copied_runs_equal_lines_written_one_by_one(
        fields in prop::collection::vec(arb_field(), 0..12),
    ) {
        let mut raw = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
        let mut wanted = raw.clone();
        let special = |name: &str| {
            let name = name.to_ascii_lowercase();
            ["connection", "te", "x-forwarded-for", "host", "expect", "trailer", "upgrade"]
                .contains(&name.as_str())
        };
        for (name, space, value) in fields.iter().filter(|(name, ..)| !special(name)) {
            raw += &format!("{name}:{space}{value}{space}\r\n");
            wanted += &format!("{name}: {value}\r\n");
        }
        raw += "\r\n";
        wanted += "X-Forwarded-For: 192.0.2.1\r\n\r\n";
        prop_assert_eq!(forward_text(&raw), wanted);
    }

    #[test]
    fn random_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&raw);
    }

    /// A valid head with one byte changed is refused, incomplete or still unambiguous: whatever is
    /// written for it parses to the same body framing.
    #[test]
    fn one_changed_byte(at in 0usize..200, byte: u8) {
        let mut raw = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: y\r\n\
            Connection: keep-alive\r\nExpect: 100-continue\r\n\r\n".to_vec();
        let at = at % raw.len();
        raw[at] = byte;
        if let Ok(Some((_, facts))) = parse(&raw) {
            let (_, again) = parse(&forward(&raw)).unwrap().unwrap();
            prop_assert_eq!(again.framing, facts.framing);
        }
    }
}
