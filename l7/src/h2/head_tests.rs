//! Tests of heads: what RFC 9113, 8 demands, limits, and the form in which they are kept.

use super::super::hpack::{Decoder, Encoder};
use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 1_000, fields: 10 };

/// A head decoded from fields; the verdict and the head.
fn head(kind: Block, fields: &[(&str, &str)]) -> (Result<bool, hpack::Error>, Head) {
    let (mut block, mut head) = (Vec::new(), Head::default());
    let mut encoder = Encoder::new();
    fields.iter().for_each(|(n, v)| encoder.field(n.as_bytes(), v.as_bytes(), &mut block));
    (head.decode(&mut Decoder::new(), &block, kind, LIMITS), head)
}

fn request(fields: &[(&str, &str)]) -> bool {
    head(Block::Request, fields).0.unwrap()
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a.b"), (":path", "/x")];

/// `GET` with more behind it.
fn with(more: &[(&str, &str)]) -> bool {
    request(&[&GET, more].concat())
}

/// The fields are lines, as in HTTP/1; :authority is Host.
#[test]
fn form() {
    let (verdict, head) =
        head(Block::Request, &[&GET[..], &[("host", "A.B"), ("x", "y"), ("z", "")]].concat());
    assert_eq!(verdict, Ok(true));
    let fields: Vec<_> = head.lines().collect();
    assert_eq!(fields, [(&b"host"[..], &b"a.b"[..]), (b"x", b"y"), (b"z", b"")]);
    assert!(head.bytes().ends_with(b":path: /x\r\nx: y\r\nz: \r\n"));
    let pseudo = head.pseudo();
    let text = |span: Option<Span>| span.unwrap().get(head.bytes());
    assert_eq!((text(pseudo.method), text(pseudo.path)), (&b"GET"[..], &b"/x"[..]));
    assert_eq!((text(pseudo.scheme), text(pseudo.authority)), (&b"https"[..], &b"a.b"[..]));
    assert_eq!((pseudo.protocol, pseudo.status, head.length()), (None, None, None));
}

/// RFC 9113, 8.2.1 and 8.2.2.
#[test]
fn fields() {
    assert!(with(&[
        ("te", "trailers"),
        ("content-length", "12"),
        ("cookie", "a"),
        ("trailer", "x")
    ]));
    for bad in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "x"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("content-length", "x"),
        ("content-length", ""),
        ("content-length", "99999999999999999999"),
        ("host", "other"),
        ("a b", "x"),
        ("a", " x"),
        ("a", "x\r\ny: z"),
        ("a", "x\0"),
        (":path", "/"),
        (":unknown", "/"),
    ] {
        assert!(!with(&[bad]), "{bad:?}");
    }
    assert!(!with(&[("content-length", "1"), ("content-length", "1")]));
    assert_eq!(
        head(Block::Request, &[&GET[..], &[("content-length", "7")]].concat()).1.length(),
        Some(7)
    );
}

/// RFC 9113, 8.3 and 8.3.1; RFC 8441, 4.
#[test]
fn requests() {
    let line = |method, scheme, path| {
        request(&[(":method", method), (":scheme", scheme), (":path", path)])
    };
    for (method, scheme, path) in [
        ("GET", "https", "/"),
        ("OPTIONS", "https", "*"),
        ("M-SEARCH", "http", "/a?b"),
        ("GET", "coap+tcp", "/"),
    ] {
        assert!(line(method, scheme, path), "{method} {scheme} {path}");
    }
    for (method, scheme, path) in [
        ("", "https", "/"),
        ("GE T", "https", "/"),
        ("GET", "", "/"),
        ("GET", "1", "/"),
        ("GET", "https", ""),
        ("GET", "https", "*"),
        ("GET", "https", "a"),
        ("GET", "https", "http://a/"),
        ("GET", "https", "/a b"),
        ("GET", "https", "/a\tb"),
    ] {
        assert!(!line(method, scheme, path), "{method} {scheme} {path}");
    }
    for missing in [0, 1, 3] {
        let mut fields = GET.to_vec();
        fields.remove(missing);
        assert!(!request(&fields), "{missing}");
    }
    for doubled in GET {
        assert!(!with(&[doubled]));
        assert!(!request(&[&[doubled], &GET[..]].concat()));
    }
    assert!(!request(&[("x", "y"), GET[0], GET[1], GET[3]]), "behind a field");
    assert!(!request(&[&GET[..], &[(":status", "200")]].concat()));
    let connect = [(":method", "CONNECT"), (":authority", "a:443")];
    assert!(request(&connect));
    assert!(!request(&connect[..1]));
    assert!(!request(&[&connect[..], &GET[1..2]].concat()));
    assert!(!request(&[&connect[..], &GET[3..]].concat()));
    let protocol = (":protocol", "websocket");
    assert!(request(&[(":method", "CONNECT"), GET[1], GET[2], GET[3], protocol]));
    assert!(!request(&[(":method", "CONNECT"), GET[1], GET[3], protocol]));
    assert!(!request(&[connect[0], connect[1], protocol]));
    assert!(!request(&[&GET[..], &[protocol]].concat()));
}

/// RFC 9113, 8.3.2 and 8.1.
#[test]
fn responses_and_trailers() {
    let response = |fields: &[(&str, &str)]| head(Block::Response, fields).0.unwrap();
    for good in ["200", "100", "999", "103"] {
        let (verdict, head) = head(Block::Response, &[(":status", good), ("a", "b")]);
        assert_eq!((verdict, head.status().to_string().as_str()), (Ok(true), good));
    }
    for bad in ["", "20", "2000", "099", "2x0", "101", "-20"] {
        assert!(!response(&[(":status", bad)]), "{bad}");
    }
    assert!(!response(&[("a", "b")]));
    assert!(!response(&[(":status", "200"), (":status", "200")]));
    assert!(!response(&[("a", "b"), (":status", "200")]));
    assert!(!response(&[(":method", "GET"), (":status", "200")]));
    let trailers = |fields: &[(&str, &str)]| head(Block::Trailers, fields).0.unwrap();
    assert!(trailers(&[("grpc-status", "0")]) && trailers(&[]));
    assert!(!trailers(&[(":status", "200")]) && !trailers(&[("connection", "x")]));
}

/// What is beyond a limit is left out; a bomb is refused.
#[test]
fn limits() {
    let mut fields = GET.to_vec();
    fields.extend([("a", "b"); 9]);
    assert_eq!(head(Block::Request, &fields).1.excess(), None);
    fields.push(("c", "d"));
    let (verdict, crowded) = head(Block::Request, &fields);
    assert_eq!((verdict, crowded.excess()), (Ok(true), Some(Excess::Fields)));
    assert_eq!(crowded.fields().len(), 10);
    assert!(crowded.bytes().ends_with(b"a: b\r\n"));
    let long = "v".repeat(900);
    let (verdict, large) =
        head(Block::Request, &[&GET[..], &[("long", &long), ("x", "")]].concat());
    assert_eq!((verdict, large.excess()), (Ok(true), Some(Excess::Bytes)));
    assert!(large.bytes().ends_with(b":path: /x\r\n"));
    let (verdict, _) = head(Block::Request, &[("long", long.as_str()); 6]);
    assert_eq!(verdict, Err(hpack::Error::TooLarge));
}

/// Memory is kept up to a bound, and nothing of the head before shows.
#[test]
fn reuse() {
    let (_, mut head) = head(Block::Request, &[&GET[..], &[("content-length", "5")]].concat());
    let room = head.bytes.capacity();
    head.clear(usize::MAX);
    assert_eq!((head.bytes.capacity(), head.length(), head.fields().len()), (room, None, 0));
    assert_eq!(head.pseudo(), Pseudo::default());
    head.clear(10);
    assert_eq!((head.bytes.capacity(), head.fields.capacity()), (0, 0));
}
