//! The client's side of HTTP/2 against frames written by hand.

use proptest::prelude::*;

use super::*;
use crate::h2::frame::{put_goaway, put_ping, put_reset, put_settings, put_window};

/// What was told, in words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told(Vec<String>);

impl Receiver for Told {
    fn head(&mut self, stream: u32, status: u16, lines: &[u8], end: bool) {
        self.0.push(format!("head {stream} {status} {} {end}", lines.escape_ascii()));
    }

    fn trailers(&mut self, stream: u32, lines: &[u8]) {
        self.0.push(format!("trailers {stream} {}", lines.escape_ascii()));
    }

    fn data(&mut self, stream: u32, bytes: &[u8], flow: u32, end: bool) {
        // However it is cut, the same bytes come in the same order.
        let text = bytes.escape_ascii().to_string();
        match self.0.last_mut() {
            Some(last) if last.starts_with(&format!("data {stream} ")) && !last.ends_with('!') => {
                let (head, flow_before) = last.rsplit_once('+').unwrap();
                let flow = flow + flow_before.parse::<u32>().unwrap();
                *last = format!("{head}{text}+{flow}");
            }
            _ => self.0.push(format!("data {stream} {text}+{flow}")),
        }
        if end && let Some(last) = self.0.last_mut() {
            last.push('!');
        }
    }

    fn reset(&mut self, stream: u32, code: Code) {
        self.0.push(format!("reset {stream} {}", code.0));
    }

    fn window(&mut self, stream: u32, more: i64) -> bool {
        self.0.push(format!("window {stream} {more}"));
        more < 1_000_000
    }

    fn all_windows(&mut self, more: i64) -> bool {
        self.0.push(format!("all {more}"));
        true
    }

    fn going_away(&mut self, last: u32) {
        self.0.push(format!("away {last}"));
    }
}

fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let head = FrameHead { len: payload.len() as u32, kind, flags, stream };
    out.extend_from_slice(&head.bytes());
    out.extend_from_slice(payload);
}

/// A connection with so many streams open.
fn open(streams: usize) -> Wire {
    let mut wire = Wire::new();
    let mut out = Vec::new();
    wire.pay(&mut out);
    assert!(out.starts_with(frame::PREFACE));
    let mut fields = Vec::new();
    let head = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-A: b\r\n\r\n";
    for at in 0..streams {
        let request = super::super::lane::parse(head, &mut fields).unwrap();
        let (stream, window) = wire.open(&request, b"http", true, &mut out);
        assert_eq!((stream as usize, window), (2 * at + 1, WINDOW));
    }
    wire
}

/// A whole answer of each kind, an interim one, and what concerns the connection.
fn script() -> Vec<u8> {
    let mut out = Vec::new();
    put_settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, 70_000), (0x99, 7)]);
    put(&mut out, kind::HEADERS, flag::END_HEADERS, 1, b"\x08\x03100");
    put(&mut out, 0xee, 0xff, 9, b"what is this");
    put(&mut out, kind::HEADERS, 0, 1, b"\x88\x00\x01");
    put(&mut out, kind::CONTINUATION, flag::END_HEADERS, 1, b"a\x01b");
    put(&mut out, kind::DATA, 0, 1, b"some");
    put(&mut out, kind::DATA, flag::PADDED, 1, b"\x03 more\0\0\0");
    put(&mut out, kind::PRIORITY, 0, 1, &[0; 5]);
    put(&mut out, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"\x00\x01t\x010");
    put(&mut out, kind::HEADERS, flag::END_HEADERS, 3, b"\x89");
    put(&mut out, kind::DATA, flag::END_STREAM, 3, b"");
    put_ping(&mut out, false, b"12345678");
    put_window(&mut out, 0, 5);
    put_window(&mut out, 5, 9);
    put_reset(&mut out, 5, Code::REFUSED);
    put_goaway(&mut out, 3, Code::NO_ERROR);
    out
}

const SCRIPT: [&str; 11] = [
    "all 4465",
    "head 1 100  false",
    "head 1 200 a: b\\r\\n false",
    "data 1 some more+13",
    "trailers 1 t: 0\\r\\n",
    "head 3 204  false",
    "data 3 +0!",
    "window 5 9",
    "reset 5 7",
    "away 3",
    "",
];

proptest! {
    /// Any split of the input comes to the same.
    #[test]
    fn any_split_comes_to_the_same(cuts in prop::collection::vec(0usize..400, 0..20)) {
        let script = script();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(script.len())).collect();
        cuts.extend([0, script.len()]);
        cuts.sort_unstable();
        let (mut wire, mut told) = (open(3), Told::default());
        for pair in cuts.windows(2) {
            wire.take(&script[pair[0]..pair[1]], &mut told).unwrap();
        }
        prop_assert_eq!(&told.0, &SCRIPT[..10]);
        let mut out = Vec::new();
        wire.pay(&mut out);
        let mut wanted = Vec::new();
        frame::put_settings_ack(&mut wanted);
        put_ping(&mut wanted, true, b"12345678");
        prop_assert_eq!(out, wanted);
    }

    /// Whatever comes, nothing panics.
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, behind in 0usize..400) {
        let script = script();
        let (mut wire, mut told) = (open(3), Told::default());
        let _ = wire.take(&script[..behind.min(script.len())], &mut told);
        let _ = wire.take(&bytes, &mut told);
    }
}

fn refused(what: impl FnOnce(&mut Vec<u8>)) -> Code {
    let mut script = Vec::new();
    put_settings(&mut script, &[]);
    what(&mut script);
    open(1).take(&script, &mut Told::default()).unwrap_err()
}

/// What ends the connection (RFC 9113, 4 to 6).
#[test]
fn broken_rules_end_the_connection() {
    let early = |kind| {
        let mut script = Vec::new();
        put(&mut script, kind, 0, 0, &[0; 8]);
        open(1).take(&script, &mut Told::default()).unwrap_err()
    };
    assert_eq!(early(kind::PING), Code::PROTOCOL, "settings come first");
    let http1 = open(1).take(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut Told::default());
    assert_eq!(http1, Err(Code::FRAME_SIZE));
    assert_eq!(refused(|out| put(out, kind::DATA, 0, 0, b"x")), Code::PROTOCOL);
    assert_eq!(refused(|out| put(out, kind::DATA, 0, 3, b"x")), Code::PROTOCOL, "not opened");
    assert_eq!(refused(|out| put(out, kind::HEADERS, 4, 2, b"\x88")), Code::PROTOCOL, "not ours");
    assert_eq!(refused(|out| put(out, kind::DATA, 8, 1, b"\x05ab")), Code::PROTOCOL, "padding");
    assert_eq!(refused(|out| put(out, kind::DATA, 8, 1, b"")), Code::FRAME_SIZE);
    assert_eq!(refused(|out| put(out, kind::HEADERS, 4, 1, b"\xff")), Code::COMPRESSION);
    assert_eq!(refused(|out| put(out, kind::CONTINUATION, 4, 1, b"")), Code::PROTOCOL);
    let between = refused(|out| {
        put(out, kind::HEADERS, 0, 1, b"\x88");
        put_ping(out, false, &[0; 8]);
    });
    assert_eq!(between, Code::PROTOCOL);
    assert_eq!(refused(|out| put(out, kind::PUSH_PROMISE, 4, 1, &[0; 4])), Code::PROTOCOL);
    assert_eq!(refused(|out| put(out, kind::SETTINGS, 0, 0, &[0; 5])), Code::FRAME_SIZE);
    assert_eq!(refused(|out| put(out, kind::SETTINGS, 1, 0, &[0; 6])), Code::FRAME_SIZE);
    let settings = |pair| refused(|out| put_settings(out, &[pair]));
    assert_eq!(settings((setting::INITIAL_WINDOW_SIZE, 1 << 31)), Code::FLOW_CONTROL);
    assert_eq!(settings((setting::MAX_FRAME_SIZE, 1)), Code::PROTOCOL);
    assert_eq!(refused(|out| put(out, kind::PING, 0, 0, &[0; 7])), Code::FRAME_SIZE);
    assert_eq!(refused(|out| put(out, kind::RST_STREAM, 0, 1, &[0; 3])), Code::FRAME_SIZE);
    assert_eq!(refused(|out| put(out, kind::RST_STREAM, 0, 5, &[0; 4])), Code::PROTOCOL);
    assert_eq!(refused(|out| put(out, kind::WINDOW_UPDATE, 0, 0, &[0; 4])), Code::FLOW_CONTROL);
    let wide = refused(|out| put(out, kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]));
    assert_eq!(wide, Code::FLOW_CONTROL);
    let flood = refused(|out| (0..10_000).for_each(|_| put_ping(out, false, &[0; 8])));
    assert_eq!(flood, Code::CALM);
    let long = refused(|out| {
        put(out, kind::HEADERS, 0, 1, &[0; 16_384]);
        (0..40).for_each(|_| put(out, kind::CONTINUATION, 0, 1, &[0; 16_384]));
    });
    assert_eq!(long, Code::CALM);
}

/// What ends a stream only (RFC 9113, 8.1).
#[test]
fn malformed_heads_end_their_stream() {
    let told = |flags, block: &[u8]| {
        let mut script = Vec::new();
        put_settings(&mut script, &[]);
        put(&mut script, kind::HEADERS, flag::END_HEADERS | flags, 1, block);
        let (mut wire, mut told) = (open(1), Told::default());
        wire.take(&script, &mut told).unwrap();
        told.0.pop().unwrap()
    };
    let reset = "reset 1 1";
    assert_eq!(told(0, b"\x88"), "head 1 200  false");
    assert_eq!(told(0, b"\x88\x88"), reset, "two statuses");
    assert_eq!(told(0, b"\x00\x01a\x01b\x88"), reset, "status behind a field");
    assert_eq!(told(0, b"\x82\x88"), reset, ":method in an answer");
    assert_eq!(told(0, b"\x08\x0220"), reset, "two digits");
    assert_eq!(told(0, b"\x88\x00\x01A\x01b"), reset, "a capital letter");
    assert_eq!(told(0, b"\x88\x00\x0aconnection\x05close"), reset);
    assert_eq!(told(0, b"\x88\x00\x01a\x03b\r\n"), reset, "a line end in a value");
    assert_eq!(told(flag::END_STREAM, b"\x08\x03100"), reset, "an interim answer that ends");
    assert_eq!(told(0, b"\x00\x01a\x01b"), reset, "trailers that don't end");
}

/// Bodies stay within both windows, and within frames.
#[test]
fn windows_bound_what_is_sent() {
    let mut wire = open(1);
    let body = vec![7; 200_000];
    let mut out = Vec::new();
    assert_eq!(wire.send(1, &body, 10, true, &mut out), 10);
    assert_eq!(FrameHead::parse(&out).unwrap().flags, 0, "more is to come");
    let sent = (0..10).map(|_| wire.send(1, &body, usize::MAX, true, &mut out)).sum::<usize>();
    assert_eq!(sent as i64, WINDOW - 10);
    let mut script = Vec::new();
    put_settings(&mut script, &[]);
    put_window(&mut script, 0, 3);
    wire.take(&script, &mut Told::default()).unwrap();
    let start = out.len();
    assert_eq!(wire.send(1, b"abc", usize::MAX, true, &mut out), 3);
    assert_eq!(FrameHead::parse(&out[start..]).unwrap().flags, flag::END_STREAM);
    let start = out.len();
    assert_eq!(wire.send(1, b"", usize::MAX, true, &mut out), 0);
    assert_eq!(out.len(), start + HEAD, "an end needs no window");
}
