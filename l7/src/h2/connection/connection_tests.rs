//! Tests of the state machine, frame by frame, by section of RFC 9113; and that no split of the
//! input changes what happens.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::h2::frame::{HEAD, flag, kind};
use crate::h2::hpack::Encoder;
use crate::limits::{H2_FRAME_BUDGET, H2_RESET_BUDGET};

const LIMITS: HeadLimits = HeadLimits { bytes: 16_384, fields: 100 };
const END: u8 = flag::END_STREAM;
const WHOLE: u8 = flag::END_HEADERS;
const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];

/// A frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let head = FrameHead { len: payload.len() as u32, kind, flags, stream };
    [&head.bytes()[..], payload].concat()
}

/// A block of fields that leaves the tables alone.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new();
    fields.iter().for_each(|(n, v)| encoder.field(n.as_bytes(), v.as_bytes(), &mut out));
    out
}

fn get(stream: u32, flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, &block(&GET))
}

fn data(stream: u32, flags: u8, bytes: usize) -> Vec<u8> {
    frame(kind::DATA, flags, stream, &vec![b'x'; bytes])
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_settings(&mut out, pairs);
    out
}

/// What one side of a connection did with its input.
struct Side {
    connection: Connection,
    head: Head,
    out: Vec<u8>,
    events: Vec<Event>,
    body: Vec<u8>,
    now: Mono,
}

impl Side {
    fn new(connection: Connection) -> Side {
        let (head, out, body) = (Head::default(), Vec::new(), Vec::new());
        Side { connection, head, out, events: Vec::new(), body, now: Mono::from_nanos(1) }
    }

    /// A server that has had its peer's preface and settings.
    fn server() -> Side {
        let mut side = Side::new(Connection::server(LIMITS, Mono::from_nanos(1)));
        side.feed(PREFACE).unwrap();
        side.feed(&settings(&[])).unwrap();
        side.out.clear();
        side
    }

    fn client() -> Side {
        let mut side = Side::new(Connection::client(LIMITS, Mono::from_nanos(1)));
        side.feed(&settings(&[])).unwrap();
        side.out.clear();
        side
    }

    /// Feeds input; returns the events that came of it.
    fn feed(&mut self, input: &[u8]) -> Result<Vec<Event>, Fault> {
        let before = self.events.len();
        let mut rest = input;
        loop {
            let step = self.connection.step(rest, &mut self.head, &mut self.out, self.now)?;
            rest = &rest[step.used..];
            let Some(event) = step.event else {
                assert!(rest.is_empty());
                return Ok(self.events[before..].to_vec());
            };
            if let Event::Data { len, .. } = event {
                self.body.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
            self.events.push(event);
        }
    }

    /// The code that the connection ended with, for this input.
    fn code(&mut self, input: &[u8]) -> Code {
        self.out.clear();
        let fault = self.feed(input).expect_err("no fault");
        let frames = frames(&self.out);
        let (head, payload) = frames.last().unwrap();
        assert_eq!((head.kind, &payload[4..8]), (kind::GOAWAY, &fault.code.0.to_be_bytes()[..]));
        fault.code
    }

    /// The code that this stream was reset with, for this input.
    fn reset_code(&mut self, stream: u32, input: &[u8]) -> Code {
        self.out.clear();
        self.feed(input).unwrap();
        let all = frames(&self.out);
        let found = all.iter().find(|(h, _)| h.kind == kind::RST_STREAM && h.stream == stream);
        Code(frame::number(&found.expect("no RST_STREAM").1).unwrap())
    }

    fn stream(&self, id: u32) -> StreamRef {
        self.connection.streams.find(id).expect("no stream")
    }

    fn respond(&mut self, id: u32, end: bool) {
        let stream = self.stream(id);
        assert!(self.connection.send_head(stream, end, &mut self.out, |b| b.status(200)));
    }

    fn open(&mut self, end: bool) -> StreamRef {
        let write = |block: &mut crate::h2::block::BlockWriter<'_>| {
            GET.iter().for_each(|(n, v)| block.field(n.as_bytes(), v.as_bytes()));
        };
        self.connection.open(false, end, &mut self.out, write).unwrap()
    }
}

fn frames(mut out: &[u8]) -> Vec<(FrameHead, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(head) = FrameHead::parse(out) {
        let len = HEAD + head.len as usize;
        all.push((head, out[HEAD..len].to_vec()));
        out = &out[len..];
    }
    assert!(out.is_empty());
    all
}

fn kinds(out: &[u8]) -> Vec<u8> {
    frames(out).iter().map(|(head, _)| head.kind).collect()
}

/// 3.4: preface and first settings.
#[test]
fn preface() {
    let fresh = || Side::new(Connection::server(LIMITS, Mono::from_nanos(1)));
    assert_eq!(fresh().code(b"GET / HTTP/1.1\r\n"), Code::PROTOCOL);
    assert_eq!(fresh().code(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n\n"), Code::PROTOCOL);
    let mut side = fresh();
    side.feed(PREFACE).unwrap();
    assert_eq!(side.code(&get(1, WHOLE | END)), Code::PROTOCOL);
    let mut side = fresh();
    side.feed(PREFACE).unwrap();
    assert_eq!(side.code(&frame(kind::SETTINGS, flag::ACK, 0, b"")), Code::PROTOCOL);
    let mut out = Vec::new();
    Connection::client(LIMITS, Mono::from_nanos(1)).start(&mut out);
    assert!(out.starts_with(PREFACE));
    assert_eq!(kinds(&out[PREFACE.len()..]), [kind::SETTINGS, kind::WINDOW_UPDATE]);
}

/// A request with a body and trailers, and its answer.
#[test]
fn exchange() {
    let mut side = Side::server();
    let fields = [&GET[..], &[("content-length", "5")]].concat();
    let events = side.feed(&frame(kind::HEADERS, WHOLE, 1, &block(&fields))).unwrap();
    let stream = side.stream(1);
    assert_eq!(events, [Event::Head { stream, end: false }]);
    assert_eq!(side.head.length(), Some(5));
    let padded = frame(kind::DATA, flag::PADDED, 1, b"\x02hel\0\0");
    let events = side.feed(&padded).unwrap();
    assert_eq!(events, [Event::Data { stream, len: 3, end: false }]);
    side.feed(&frame(kind::DATA, 0, 1, b"lo")).unwrap();
    let events = side.feed(&frame(kind::HEADERS, WHOLE | END, 1, &block(&[("t", "v")]))).unwrap();
    assert_eq!(events, [Event::Trailers { stream }]);
    assert_eq!((&side.body[..], side.head.lines().count()), (&b"hello"[..], 1));
    let connection = &mut side.connection;
    side.out.clear();
    assert!(connection.send_head(stream, false, &mut side.out, |b| b.status(100)));
    assert!(connection.send_head(stream, false, &mut side.out, |b| {
        b.status(200);
        b.field(b"Server", b"weir");
    }));
    assert!(!connection.send_head(stream, false, &mut side.out, |b| b.status(200)), "twice");
    assert!(connection.send_data(stream, 2, false, &mut side.out));
    side.out.extend_from_slice(b"ok");
    assert!(connection.send_trailers(stream, &mut side.out, |b| b.field(b"a", b"b")));
    let all: Vec<_> = frames(&side.out).into_iter().map(|(h, _)| (h.kind, h.flags)).collect();
    let whole = (kind::HEADERS, WHOLE);
    assert_eq!(all, [whole, whole, (kind::DATA, 0), (kind::HEADERS, WHOLE | END)]);
    assert_eq!(connection.streams(), 0);
    assert!(!connection.send_data(stream, 0, true, &mut side.out), "gone");
}

/// 4.1, 4.2: unknown kinds are ignored, sizes are bounded.
#[test]
fn frame_sizes() {
    let mut side = Side::server();
    assert_eq!(side.feed(&frame(0xee, 0xff, 7, &[1; 300])).unwrap(), []);
    assert_eq!(side.code(&[0, 0x40, 1, kind::DATA, 0, 0, 0, 0, 1]), Code::FRAME_SIZE);
    for bad in [
        frame(kind::PING, 0, 0, b"1234567"),
        frame(kind::RST_STREAM, 0, 1, b"12345"),
        frame(kind::WINDOW_UPDATE, 0, 0, b"123"),
        frame(kind::SETTINGS, 0, 0, b"12345"),
        frame(kind::SETTINGS, flag::ACK, 0, b"123456"),
        frame(kind::GOAWAY, 0, 0, b"1234567"),
        frame(kind::PRIORITY, 0, 1, b"1234"),
        frame(kind::HEADERS, WHOLE | flag::PRIORITY, 1, b"1234"),
        frame(kind::DATA, flag::PADDED, 1, b""),
    ] {
        let mut side = Side::server();
        if bad[3] == kind::DATA {
            side.feed(&get(1, WHOLE)).unwrap();
        }
        assert_eq!(side.code(&bad), Code::FRAME_SIZE, "{bad:?}");
    }
}

/// 4.3, 6.10: nothing stands within a block; a block that can't be decoded ends the connection.
#[test]
fn blocks() {
    let whole = block(&GET);
    let (first, second) = whole.split_at(5);
    let begun = frame(kind::HEADERS, END, 1, first);
    let mut side = Side::server();
    side.feed(&begun).unwrap();
    side.feed(&frame(kind::CONTINUATION, 0, 1, b"")).unwrap();
    let events = side.feed(&frame(kind::CONTINUATION, WHOLE, 1, second)).unwrap();
    assert_eq!(events, [Event::Head { stream: side.stream(1), end: true }]);
    for within in [
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::CONTINUATION, WHOLE, 3, second),
        get(1, WHOLE),
        frame(0xee, 0, 1, b""),
    ] {
        let mut side = Side::server();
        side.feed(&begun).unwrap();
        assert_eq!(side.code(&within), Code::PROTOCOL, "{within:?}");
    }
    assert_eq!(Side::server().code(&frame(kind::CONTINUATION, WHOLE, 1, b"")), Code::PROTOCOL);
    let bad = frame(kind::HEADERS, WHOLE, 1, b"\x80");
    assert_eq!(Side::server().code(&bad), Code::COMPRESSION);
    let mut side = Side::server();
    side.feed(&begun).unwrap();
    let mut flood = || side.feed(&frame(kind::CONTINUATION, 0, 1, b""));
    assert_eq!((0..100).find_map(|_| flood().err()).unwrap().code, Code::CALM);
    let mut side = Side::server();
    side.feed(&begun).unwrap();
    let mut flood = || side.feed(&frame(kind::CONTINUATION, 0, 1, &[0; 16_384]));
    assert_eq!((0..6).find_map(|_| flood().err()).unwrap().code, Code::CALM);
    // A bomb: an entry of nearly 4 KiB, and many references to it.
    let mut bomb = block(&GET);
    bomb.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0xa0, 0x1e]);
    bomb.extend_from_slice(&[b'v'; 0x7f + 0x20 + (0x1e << 7)]);
    bomb.extend_from_slice(&[0xbe; 100]);
    assert_eq!(Side::server().code(&frame(kind::HEADERS, WHOLE, 1, &bomb)), Code::CALM);
}

/// 5.1, 5.1.1: which frames a state allows.
#[test]
fn states() {
    // Idle.
    for idle in [data(1, 0, 1), reset(1), window(1, 1), data(2, 0, 1), get(2, WHOLE)] {
        assert_eq!(Side::server().code(&idle), Code::PROTOCOL, "{idle:?}");
    }
    // Half-closed by the peer.
    let half = || {
        let mut side = Side::server();
        side.feed(&get(1, WHOLE | END)).unwrap();
        side
    };
    assert_eq!(half().reset_code(1, &data(1, 0, 1)), Code::STREAM_CLOSED);
    assert_eq!(half().reset_code(1, &get(1, WHOLE | END)), Code::STREAM_CLOSED);
    assert!(half().feed(&window(1, 1)).unwrap().is_empty());
    // Closed: both sides have ended.
    let closed = || {
        let mut side = half();
        side.respond(1, true);
        assert_eq!(side.connection.streams(), 0);
        side
    };
    assert_eq!(closed().reset_code(1, &data(1, 0, 1)), Code::STREAM_CLOSED);
    assert_eq!(closed().code(&get(1, WHOLE | END)), Code::STREAM_CLOSED);
    assert!(closed().feed(&[window(1, 1), reset(1)].concat()).unwrap().is_empty());
    // Given up by the peer.
    let mut side = Side::server();
    side.feed(&[get(1, WHOLE), reset(1)].concat()).unwrap();
    assert_eq!(side.code(&get(1, WHOLE)), Code::STREAM_CLOSED);
    // Given up by us: what was under way is ignored.
    let mut side = Side::server();
    side.feed(&get(1, WHOLE)).unwrap();
    let stream = side.stream(1);
    side.connection.reset(stream, Code::NO_ERROR, &mut side.out);
    let late = [data(1, 0, 10), get(1, WHOLE | END), reset(1), window(1, 1)].concat();
    assert!(side.feed(&late).unwrap().is_empty());
    // Passed over: a lower number than the last.
    let mut side = Side::server();
    side.feed(&get(5, WHOLE | END)).unwrap();
    assert_eq!(side.code(&get(3, WHOLE | END)), Code::PROTOCOL);
    // Trailers that don't end it.
    let mut side = Side::server();
    side.feed(&get(1, WHOLE)).unwrap();
    let trailers = frame(kind::HEADERS, WHOLE, 1, &block(&[("a", "b")]));
    assert_eq!(side.reset_code(1, &trailers), Code::PROTOCOL);
}

/// RFC 9113, 5.1: a window full of body may be on its way to a stream that we gave up, in frames
/// however small; and streams may be given up as many at a time as there are.
#[test]
fn late_body() {
    let mut side = Side::server();
    let ids = (0..H2_STREAMS).map(|n| 2 * n + 1);
    for id in ids.clone() {
        side.feed(&get(id, WHOLE)).unwrap();
    }
    for id in ids.clone() {
        let stream = side.stream(id);
        side.connection.reset(stream, Code::NO_ERROR, &mut side.out);
    }
    for id in ids.clone() {
        side.feed(&data(id, 0, 1).repeat(100)).unwrap();
    }
    let left = H2_STREAM_WINDOW as usize - 100;
    (0..left / 16_384).for_each(|_| drop(side.feed(&data(1, 0, 16_384)).unwrap()));
    assert_eq!(side.feed(&data(1, END, left % 16_384)).unwrap(), []);
    assert_eq!(side.code(&data(1, 0, 1)), Code::FLOW_CONTROL);
}

/// 5.1.2: no more streams than allowed; one that is refused may be tried again.
#[test]
fn concurrency() {
    let mut side = Side::server();
    for n in 0..H2_STREAMS {
        side.feed(&get(2 * n + 1, WHOLE | END)).unwrap();
    }
    let next = 2 * H2_STREAMS + 1;
    assert_eq!(side.reset_code(next, &get(next, WHOLE | END)), Code::REFUSED);
    side.respond(1, true);
    let events = side.feed(&get(next + 2, WHOLE | END)).unwrap();
    assert_eq!(events, [Event::Head { stream: side.stream(next + 2), end: true }]);
}

/// 5.3.2, 6.3: priorities are ignored, but for a stream that depends on itself.
#[test]
fn priorities() {
    let priority = |stream, on: u32| {
        frame(kind::PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[16]].concat())
    };
    let mut side = Side::server();
    assert!(side.feed(&priority(7, 5)).unwrap().is_empty());
    side.feed(&get(1, WHOLE)).unwrap();
    assert_eq!(side.reset_code(1, &priority(1, 1)), Code::PROTOCOL);
    let payload = [&3u32.to_be_bytes()[..], &[16], &block(&GET)].concat();
    let own = frame(kind::HEADERS, WHOLE | END | flag::PRIORITY, 3, &payload);
    assert_eq!(side.reset_code(3, &own), Code::PROTOCOL);
    assert_eq!(side.code(&priority(0, 1)), Code::PROTOCOL);
}

/// 6.1, 6.2, 6.4, 6.5, 6.6, 6.7, 6.8, 6.9: which streams frames belong to, and what they hold.
#[test]
fn frame_rules() {
    for bad in [
        data(0, 0, 1),
        get(0, WHOLE),
        reset(0),
        frame(kind::SETTINGS, 0, 1, b""),
        frame(kind::PING, 0, 1, &[0; 8]),
        frame(kind::GOAWAY, 0, 1, &[0; 8]),
        frame(kind::PUSH_PROMISE, WHOLE, 1, &[0, 0, 0, 2]),
        window(0, 0),
        settings(&[(setting::ENABLE_PUSH, 2)]),
        settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 2)]),
        settings(&[(setting::MAX_FRAME_SIZE, 16_383)]),
        settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)]),
        frame(kind::HEADERS, WHOLE | flag::PADDED, 1, b"\x05\x82"),
        [get(1, WHOLE), frame(kind::DATA, flag::PADDED, 1, b"\x05abcd")].concat(),
    ] {
        assert_eq!(Side::server().code(&bad), Code::PROTOCOL, "{bad:?}");
    }
    let bad = settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]);
    assert_eq!(Side::server().code(&bad), Code::FLOW_CONTROL);
    assert_eq!(Side::client().code(&settings(&[(setting::ENABLE_PUSH, 1)])), Code::PROTOCOL);
    let mut side = Side::server();
    side.feed(&frame(kind::PING, 0, 0, b"12345678")).unwrap();
    side.feed(&settings(&[(0xfff, 1)])).unwrap();
    let all = frames(&side.out);
    assert_eq!((all[0].0.kind, all[0].0.flags, &all[0].1[..]), (6, 1, &b"12345678"[..]));
    assert_eq!((all[1].0.kind, all[1].0.flags, all[1].0.len), (4, 1, 0));
}

/// 5.2, 6.9: what we send stays within both windows, and streams take turns.
#[test]
fn sending() {
    let mut side = Side::server();
    side.feed(&settings(&[(setting::INITIAL_WINDOW_SIZE, 40_000)])).unwrap();
    for id in [1, 3] {
        side.feed(&get(id, WHOLE | END)).unwrap();
        side.respond(id, false);
        let stream = side.stream(id);
        side.connection.want(stream, true);
    }
    let mut sent = Vec::new();
    while let Some((stream, room)) = side.connection.next_sender() {
        assert!(side.connection.send_data(stream, room, false, &mut side.out));
        assert!(!side.connection.send_data(stream, 20_000, false, &mut side.out), "too much");
        sent.push((stream.id(), room));
    }
    // The connection's window has 65,535 bytes.
    let turns = [(1, 16_384), (3, 16_384), (1, 16_384), (3, 16_383)];
    assert_eq!(sent, turns);
    let (one, three) = (side.stream(1), side.stream(3));
    assert!(side.connection.is_stalled(one));
    side.feed(&window(0, 100_000)).unwrap();
    let rooms = |side: &Side| [one, three].map(|stream| side.connection.room(stream));
    assert_eq!(rooms(&side), [7_232, 7_233]);
    // 6.9.2: a smaller first window may leave a stream with a negative one.
    side.feed(&settings(&[(setting::INITIAL_WINDOW_SIZE, 30_000)])).unwrap();
    assert_eq!((rooms(&side), side.connection.next_sender()), ([0, 0], None));
    side.feed(&window(1, 2_768)).unwrap();
    assert_eq!((rooms(&side), side.connection.is_stalled(one)), ([0, 0], true));
    side.feed(&window(1, 1)).unwrap();
    assert_eq!(side.connection.next_sender(), Some((one, 1)));
    // 6.9.1: windows end at 2^31-1.
    assert_eq!(side.reset_code(1, &window(1, 0x7fff_ffff)), Code::FLOW_CONTROL);
    side.feed(&get(5, WHOLE | END)).unwrap();
    assert_eq!(side.reset_code(5, &window(5, 0)), Code::PROTOCOL);
    assert_eq!(side.code(&window(0, 0x7fff_ffff)), Code::FLOW_CONTROL);
}

/// 6.9: a peer may send what has gone on, and no more; what is lost with a stream is given back.
#[test]
fn receiving() {
    let mut side = Side::server();
    side.feed(&get(1, WHOLE)).unwrap();
    for _ in 0..8 {
        side.feed(&data(1, 0, 16_384)).unwrap();
    }
    assert_eq!(side.reset_code(1, &data(1, 0, 1)), Code::FLOW_CONTROL);
    // The connection got back what the dead stream held, in steps of half its window.
    for id in [3, 5] {
        side.feed(&get(id, WHOLE)).unwrap();
        for _ in 0..8 {
            side.feed(&data(id, 0, 16_384)).unwrap();
        }
    }
    let stream = side.stream(3);
    side.out.clear();
    side.connection.consumed(stream, 65_535, &mut side.out);
    assert!(side.out.is_empty());
    side.connection.consumed(stream, 1, &mut side.out);
    let all = frames(&side.out);
    assert_eq!(all[0], (FrameHead { len: 4, kind: 8, flags: 0, stream: 3 }, vec![0, 1, 0, 0]));
    assert_eq!(all.len(), 1);
    side.feed(&data(3, 0, 16_384)).unwrap();
    // More than was handed out can't be given back.
    side.connection.consumed(stream, usize::MAX, &mut side.out);
    side.connection.consumed(stream, usize::MAX, &mut side.out);
    let given: u32 = (frames(&side.out).iter())
        .filter(|(head, _)| head.stream == 0)
        .map(|(_, payload)| frame::number(payload).unwrap())
        .sum();
    assert_eq!(given, 131_072 + 1 + 131_072 + 16_384);
    let mut side = Side::server();
    for id in [1, 3, 5, 7] {
        side.feed(&get(id, WHOLE)).unwrap();
        (0..8).for_each(|_| drop(side.feed(&data(id, 0, 16_384)).unwrap()));
    }
    side.feed(&get(9, WHOLE)).unwrap();
    assert_eq!(side.code(&data(9, 0, 1)), Code::FLOW_CONTROL);
}

/// 8.1.1: Content-Length and the body agree.
#[test]
fn lengths() {
    let post = |length: &str, flags| {
        frame(kind::HEADERS, flags, 1, &block(&[&GET[..], &[("content-length", length)]].concat()))
    };
    let code = |parts: &[Vec<u8>]| Side::server().reset_code(1, &parts.concat());
    assert_eq!(code(&[post("5", WHOLE | END)]), Code::PROTOCOL);
    assert_eq!(code(&[post("5", WHOLE), data(1, 0, 6)]), Code::PROTOCOL);
    assert_eq!(code(&[post("5", WHOLE), data(1, END, 4)]), Code::PROTOCOL);
    let trailers = frame(kind::HEADERS, WHOLE | END, 1, &block(&[("a", "b")]));
    assert_eq!(code(&[post("5", WHOLE), data(1, 0, 4), trailers.clone()]), Code::PROTOCOL);
    let mut side = Side::server();
    side.feed(&[post("5", WHOLE), data(1, 0, 5), trailers].concat()).unwrap();
    assert_eq!(side.events.len(), 3);
    // A malformed request never shows.
    let mut side = Side::server();
    let bad = frame(kind::HEADERS, WHOLE, 1, &block(&GET[..3]));
    assert_eq!(side.reset_code(1, &bad), Code::PROTOCOL);
    assert!(side.events.is_empty());
}

/// 8.1, 6.8: the client's side: interim answers, answers, trailers; a server that goes away.
#[test]
fn client() {
    let mut side = Side::client();
    let answer = |stream, flags, status: &str| {
        frame(kind::HEADERS, flags | WHOLE, stream, &block(&[(":status", status)]))
    };
    let stream = side.open(true);
    let (events, end) = (side.feed(&answer(1, 0, "103")).unwrap(), false);
    assert_eq!((events, side.head.status()), (vec![Event::Head { stream, end }], 103));
    side.feed(&answer(1, 0, "200")).unwrap();
    let events = side.feed(&data(1, END, 3)).unwrap();
    assert_eq!(events, [Event::Data { stream, len: 3, end: true }]);
    assert_eq!(side.connection.streams(), 0);
    // Body in front of the head; an interim answer that ends; a head where trailers belong.
    for bad in [
        data(3, 0, 1),
        answer(3, END, "100"),
        [answer(3, 0, "200"), answer(3, END, "200")].concat(),
    ] {
        let mut side = Side::client();
        side.open(true);
        side.open(true);
        assert_eq!(side.reset_code(3, &bad), Code::PROTOCOL, "{bad:?}");
    }
    assert_eq!(Side::client().code(&answer(1, 0, "200")), Code::PROTOCOL);
    assert_eq!(Side::client().code(&answer(2, 0, "200")), Code::PROTOCOL);
    // Going away: what the server doesn't look after may be tried again.
    let mut side = Side::client();
    let (_, second) = (side.open(true), side.open(true));
    let events = side.feed(&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).unwrap();
    let gone =
        Event::Reset { stream: second, code: Code::REFUSED, by_peer: true, unprocessed: true };
    assert_eq!(events, [Event::GoAway { code: Code::NO_ERROR }, gone]);
    assert!(!side.connection.may_open() && side.connection.streams() == 1);
    // The server's limit.
    let mut side = Side::client();
    side.feed(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)])).unwrap();
    side.open(false);
    assert!(!side.connection.may_open());
    // The answer to HEAD has a length and no body.
    let mut side = Side::client();
    let write = |b: &mut crate::h2::block::BlockWriter<'_>| b.field(b":method", b"HEAD");
    side.connection.open(true, true, &mut side.out, write).unwrap();
    let fields = block(&[(":status", "200"), ("content-length", "9")]);
    let events = side.feed(&frame(kind::HEADERS, WHOLE | END, 1, &fields)).unwrap();
    assert!(matches!(events[..], [Event::Head { end: true, .. }]));
}

/// 6.8: two steps, so that no request is lost.
#[test]
fn drain() {
    let mut side = Side::server();
    side.feed(&get(1, WHOLE | END)).unwrap();
    side.connection.go_away(&mut side.out);
    assert_eq!(kinds(&side.out), [kind::GOAWAY, kind::PING]);
    side.feed(&get(3, WHOLE | END)).unwrap();
    assert_eq!(side.connection.streams(), 2);
    side.out.clear();
    side.feed(&frame(kind::PING, flag::ACK, 0, send::DRAIN_PING)).unwrap();
    assert_eq!(frames(&side.out)[0].1, [0, 0, 0, 3, 0, 0, 0, 0]);
    let late = [get(5, WHOLE), data(5, END, 10), reset(5), window(5, 1)].concat();
    assert!(side.feed(&late).unwrap().is_empty());
    assert!(!side.connection.drained());
    side.respond(1, true);
    side.respond(3, true);
    assert!(side.connection.drained());
}

/// CVE-2023-44487, CVE-2025-8671, and floods of frames that cost nothing to send; a peer whose
/// requests are answered, or that takes its time, may go on.
#[test]
fn floods() {
    let budget = u32::max(H2_RESET_BUDGET, H2_FRAME_BUDGET) + 10;
    type Flood = (&'static str, fn(u32) -> Vec<u8>);
    let floods: [Flood; 9] = [
        ("rapid reset", |n| [get(2 * n + 1, WHOLE), reset(2 * n + 1)].concat()),
        ("made you reset", |n| [get(2 * n + 1, WHOLE), window(2 * n + 1, 0)].concat()),
        ("malformed requests", |n| frame(kind::HEADERS, WHOLE, 2 * n + 1, b"\x82")),
        ("PING", |_| frame(kind::PING, 0, 0, &[0; 8])),
        ("SETTINGS", |_| settings(&[])),
        ("WINDOW_UPDATE", |_| window(0, 1)),
        ("PRIORITY", |_| frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 0])),
        ("unknown", |_| frame(0xee, 0, 0, b"")),
        ("empty DATA", |n| if n == 0 { get(1, WHOLE) } else { data(1, 0, 0) }),
    ];
    for (name, flood) in floods {
        let mut side = Side::server();
        let fault = (0..budget).find_map(|n| side.feed(&flood(n)).err());
        assert_eq!(fault.map(|fault| fault.code), Some(Code::CALM), "{name}");
        let mut side = Side::server();
        for n in 0..budget {
            side.now = side.now.plus(Duration::from_millis(100));
            side.feed(&flood(n)).unwrap_or_else(|fault| panic!("{name}, slowly: {fault:?}"));
        }
    }
    let mut side = Side::server();
    for n in 0..1_000 {
        let id = 4 * n + 1;
        side.feed(&[get(id, WHOLE | END), get(id + 2, WHOLE), reset(id + 2)].concat()).unwrap();
        side.respond(id, false);
        let stream = side.stream(id);
        assert!(side.connection.send_data(stream, 0, true, &mut side.out));
        side.feed(&[window(0, 1), window(0, 1)].concat()).unwrap();
    }
}

/// Who reads little at a time opens both windows each time, and is no flood by that, however large
/// what is read: Go's client tells of each 4 KiB.
#[test]
fn small_steps_of_a_large_answer() {
    for step in [512, 4_096] {
        let mut side = Side::server();
        side.feed(&get(1, WHOLE | END)).unwrap();
        side.respond(1, false);
        let stream = side.stream(1);
        let mut sent = 0;
        while sent < 32 << 20 {
            side.connection.want(stream, true);
            let (_, room) = side.connection.next_sender().expect("a window");
            assert!(side.connection.send_data(stream, room, false, &mut side.out));
            side.out.clear();
            sent += room;
            let told = [window(1, step), window(0, step)].concat();
            side.feed(&told.repeat(room / step as usize)).unwrap();
        }
        // What follows no body is counted as before.
        let idle = (0..H2_FRAME_BUDGET).find_map(|_| side.feed(&window(0, 1)).err());
        let idle = idle.or_else(|| side.feed(&window(0, 1)).err());
        assert_eq!(idle.map(|fault| fault.code), Some(Code::CALM), "{step}");
    }
}

/// A head that is too long for one frame goes out in several.
#[test]
fn long_heads() {
    let (mut side, mut peer) = (Side::server(), Side::client());
    peer.open(true);
    side.feed(&peer.out).unwrap();
    side.out.clear();
    let stream = side.stream(1);
    peer.connection.limits = HeadLimits { bytes: 100_000, fields: 100 };
    assert!(side.connection.send_head(stream, true, &mut side.out, |b| {
        b.status(200);
        (0..5).for_each(|_| b.field(b"long", "y".repeat(8_000).as_bytes()));
        b.field(b"last", b"");
    }));
    assert_eq!(kinds(&side.out), [kind::HEADERS, kind::CONTINUATION, kind::CONTINUATION]);
    let events = peer.feed(&side.out).unwrap();
    assert!(matches!(events[..], [Event::Head { end: true, .. }]));
    assert_eq!(peer.head.lines().count(), 6);
}

/// Input of many kinds, good and bad.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop::sample::select(vec![0u32, 1, 3, 5, 7]);
    let piece = prop_oneof![
        4 => (stream.clone(), 0u8..2).prop_map(|(s, end)| get(s, WHOLE | end)),
        1 => stream.clone().prop_map(|s| frame(kind::HEADERS, 0, s, &block(&GET[..2]))),
        1 => stream.clone().prop_map(|s| frame(kind::CONTINUATION, WHOLE, s, &block(&GET[2..]))),
        4 => (stream.clone(), 0u8..2, 0usize..400).prop_map(|(s, end, n)| data(s, end, n)),
        1 => (stream.clone(), 0u8..20, 20usize..40).prop_map(|(s, pad, n)| {
            let mut padded = data(s, flag::PADDED, n);
            padded[HEAD] = pad;
            padded
        }),
        1 => stream.clone().prop_map(reset),
        1 => (stream.clone(), 0u32..9).prop_map(|(s, n)| window(s, n)),
        1 => Just(settings(&[(4, 70_000), (1, 0)])),
        1 => Just(frame(kind::PING, 0, 0, &[7; 8])),
        1 => (any::<u8>(), any::<u8>(), stream, prop::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(kind, flags, s, payload)| frame(kind % 12, flags, s, &payload)),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// Everything that came of an input: events with the pieces of one body joined, and what was sent.
fn outcome(input: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<u8>, Vec<u8>, Option<Fault>) {
    let mut side = Side::server();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    let mut fed = cuts.windows(2).map(|pair| side.feed(&input[pair[0]..pair[1]]));
    let fault = fed.find_map(Result::err);
    let mut texts: Vec<String> = Vec::new();
    for event in &side.events {
        match event {
            Event::Data { stream, end, .. } => {
                let text = format!("body of {} ", stream.id());
                if texts.last().is_none_or(|last| *last != text) {
                    texts.push(text.clone());
                }
                texts.extend(end.then(|| format!("end of {}", stream.id())));
            }
            event => texts.push(format!("{event:?}")),
        }
    }
    (texts, side.body, side.out, fault)
}

proptest! {
    #[test]
    fn any_split(input in script(), cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        let whole = outcome(&input, &[]);
        prop_assert_eq!(outcome(&input, &cuts), whole.clone());
        let bytes: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(outcome(&input, &bytes), whole);
    }
}
