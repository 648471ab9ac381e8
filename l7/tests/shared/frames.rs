//! Members that speak HTTP/2 by hand, frame by frame: what the library in `member` would not say.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use super::{GET, eventually, shard};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END: u8 = 1;
const WHOLE: u8 = 4;

/// A frame.
#[derive(Clone, Debug)]
struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A member's side of a connection, after the preface. Its thread returns it, so that it is not
/// closed before the client has heard the last answer.
struct Wire(TcpStream);

impl Wire {
    fn accept(listener: &TcpListener) -> Wire {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(super::support::SOON)).unwrap();
        let mut wire = Wire(stream);
        wire.0.read_exact(&mut [0; 24]).unwrap();
        wire.send(SETTINGS, 0, 0, b"");
        wire
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = (payload.len() as u32).to_be_bytes();
        let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        // The other side may have ended it.
        let _ = self.0.write_all(&[&head[..], payload].concat());
    }

    fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let [a, b, c, kind, _, s, t, u, v] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { kind, stream: u32::from_be_bytes([s, t, u, v]), payload })
    }

    /// The next frame of this kind; all that come before it go to `seen`.
    fn until(&mut self, kind: u8, seen: &mut Vec<Frame>) -> io::Result<Frame> {
        loop {
            let frame = self.read()?;
            seen.push(frame.clone());
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }

    /// Answers the next request with this block, and the connection's frames behind it.
    fn answer(&mut self, flags: u8, block: &[u8]) -> u32 {
        let stream = self.until(HEADERS, &mut Vec::new()).unwrap().stream;
        self.send(HEADERS, WHOLE | flags, stream, block);
        stream
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A literal that is not entered into the table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// What is wrong with an answer ends its stream only (RFC 9113, 8.1): the client hears 502, the
/// member why, and the connection goes on.
#[test]
fn malformed_answers_end_their_stream() {
    let (listener, address) = listen();
    let with = |name, value| [&b"\x88"[..], &field(name, value)].concat();
    let blocks = [
        b"\x88\x88".to_vec(),
        [&field("a", "b")[..], b"\x88"].concat(),
        b"\x82\x88".to_vec(),
        b"\x08\x0220".to_vec(),
        with("A", "b"),
        with("connection", "close"),
        with("a", "b\r\nc"),
        with("content-length", "x"),
        [&with("content-length", "1")[..], &field("content-length", "1")].concat(),
        b"\x08\x03101".to_vec(),
        field("a", "b"),
    ];
    let wanted = blocks.len();
    let member = thread::spawn(move || {
        let (mut wire, mut resets) = (Wire::accept(&listener), Vec::new());
        for block in blocks {
            let stream = wire.answer(0, &block);
            let reset = wire.until(RESET, &mut Vec::new()).unwrap();
            assert_eq!(reset.stream, stream);
            resets.push(reset.payload);
        }
        let stream = wire.answer(0, b"\x88");
        wire.send(DATA, END, stream, b"good");
        (resets, wire)
    });
    let shard = shard(&[address]);
    for at in 0..wanted {
        assert_eq!(shard.once(GET).status, 502, "{at}");
    }
    assert_eq!(shard.once(GET).text(), "good");
    assert!(member.join().unwrap().0.iter().all(|code| code == &[0, 0, 0, 1]), "PROTOCOL_ERROR");
}

/// A length that an answer names holds (RFC 9113, 8.1.1): more or less cuts the client's.
#[test]
fn lengths_hold() {
    let (listener, address) = listen();
    let head = [&b"\x88"[..], &field("content-length", "4")].concat();
    let (tell, heard) = mpsc::channel();
    let member = thread::spawn(move || {
        let mut wire = Wire::accept(&listener);
        for body in [&b"abc"[..], b"abcde", b"abcd"] {
            let stream = wire.answer(0, &head);
            heard.recv_timeout(super::support::SOON).unwrap();
            wire.send(DATA, END, stream, body);
        }
        let stream = wire.answer(END, &head);
        assert_eq!(wire.until(RESET, &mut Vec::new()).unwrap().stream, stream);
        wire
    });
    let shard = shard(&[address]);
    for whole in [false, false, true] {
        let mut client = shard.client();
        client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(client.answer_head().status, 200);
        tell.send(()).unwrap();
        let rest = client.conn.rest();
        assert_eq!(rest.is_ok_and(|rest| rest == b"abcd"), whole);
    }
    assert_eq!(shard.once(GET).status, 502, "nothing where four bytes were told");
    member.join().unwrap();
}

/// What ends the connection (RFC 9113, 4 to 6): the member is told, and the next request has
/// another.
#[test]
fn broken_rules_end_the_connection() {
    let (listener, address) = listen();
    let wrong: [(u8, u8, u32, Vec<u8>); 8] = [
        (5, WHOLE, 1, vec![0; 4]),
        (DATA, 0, 0, b"x".to_vec()),
        (DATA, 0, 3, b"never opened".to_vec()),
        (HEADERS, WHOLE, 1, b"\xff".to_vec()),
        (SETTINGS, 0, 0, vec![0; 5]),
        (6, 0, 0, vec![0; 7]),
        (9, WHOLE, 1, vec![]),
        (DATA, 0, 1, vec![0; 16_385]),
    ];
    let wanted = wrong.len();
    let member = thread::spawn(move || {
        for (kind, flags, stream, payload) in wrong {
            let mut wire = Wire::accept(&listener);
            wire.until(HEADERS, &mut Vec::new()).unwrap();
            wire.send(kind, flags, stream, &payload);
            let goaway = wire.until(GOAWAY, &mut Vec::new()).unwrap();
            assert_ne!(goaway.payload[4..], [0; 4], "{kind}");
        }
        let mut wire = Wire::accept(&listener);
        wire.answer(END, b"\x88");
        wire
    });
    let shard = shard(&[address]);
    for at in 0..wanted {
        assert_eq!(shard.once(GET).status, 502, "{at}");
    }
    assert_eq!(shard.once(GET).status, 200);
    member.join().unwrap();
}

/// More clients leave at once than streams are remembered, and what the member had sent them comes
/// in the smallest of frames: the connection carries the others all the same.
#[test]
fn late_answers_are_let_pass() {
    const LEAVE: usize = 100;
    let (listener, address) = listen();
    let (left, tell) = mpsc::channel();
    let member = thread::spawn(move || {
        let (mut wire, mut streams) = (Wire::accept(&listener), Vec::new());
        while streams.len() < LEAVE {
            streams.push(wire.until(HEADERS, &mut Vec::new()).unwrap().stream);
        }
        left.send(()).unwrap();
        for _ in 0..LEAVE {
            wire.until(RESET, &mut Vec::new()).unwrap();
        }
        for stream in streams {
            wire.send(HEADERS, WHOLE, stream, b"\x88");
            (0..20).for_each(|_| wire.send(DATA, 0, stream, b"x"));
            wire.send(HEADERS, WHOLE | END, stream, &field("grpc-status", "0"));
        }
        wire.answer(END, b"\x88");
        wire
    });
    let shard = shard(&[address]);
    let mut clients: Vec<_> = (0..LEAVE).map(|_| shard.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    tell.recv_timeout(super::support::SOON).unwrap();
    clients.into_iter().for_each(|client| client.conn.reset());
    eventually("all to have left", || shard.active() == 0);
    assert_eq!(shard.once(GET).status, 200);
    assert_eq!(shard.member(0).connections.get(), 1);
    member.join().unwrap();
}

/// The end of an answer that is whole otherwise may come late: that is no reason for a reset, of
/// which members take few. Only one that is never ended is given up at last.
#[test]
fn ends_may_come_late() {
    let (listener, address) = listen();
    let head = [&b"\x88"[..], &field("content-length", "2")].concat();
    let member = thread::spawn(move || {
        let (mut wire, mut seen) = (Wire::accept(&listener), Vec::new());
        for _ in 0..30 {
            let stream = wire.until(HEADERS, &mut seen).unwrap().stream;
            wire.send(HEADERS, WHOLE, stream, &head);
            wire.send(DATA, 0, stream, b"hi");
            let next = wire.until(HEADERS, &mut seen).unwrap().stream;
            wire.send(DATA, END, stream, b"");
            wire.send(HEADERS, WHOLE | END, next, b"\x88");
        }
        assert!(seen.iter().all(|frame| frame.kind != RESET), "{seen:?}");
        let mut resets = Vec::new();
        for _ in 0..40 {
            let stream = wire.until(HEADERS, &mut resets).unwrap().stream;
            wire.send(HEADERS, WHOLE, stream, &head);
            wire.send(DATA, 0, stream, b"hi");
        }
        (resets.iter().filter(|frame| frame.kind == RESET).count(), wire)
    });
    let shard = shard(&[address]);
    let mut client = shard.client();
    for _ in 0..30 {
        client.send(GET);
        assert_eq!(client.answer().text(), "hi");
        client.send(GET);
        assert_eq!(client.answer().status, 200);
    }
    for _ in 0..40 {
        client.send(GET);
        assert_eq!(client.answer().text(), "hi");
    }
    let (resets, _) = member.join().unwrap();
    assert!((20..40).contains(&resets), "{resets}");
    assert_eq!(shard.member(0).connections.get(), 1);
}

/// A gRPC answer that names a length keeps its trailers.
#[test]
fn lengths_do_not_cost_trailers() {
    let (listener, address) = listen();
    let head = [
        &b"\x88"[..],
        &field("content-type", "application/grpc+proto"),
        &field("content-length", "5"),
    ];
    let head = head.concat();
    let member = thread::spawn(move || {
        let mut wire = Wire::accept(&listener);
        let stream = wire.answer(0, &head);
        wire.send(DATA, 0, stream, &[0; 5]);
        wire.send(HEADERS, WHOLE | END, stream, &field("grpc-status", "0"));
        wire
    });
    let answer = shard(&[address]).once(GET);
    assert_eq!((answer.status, answer.body.len()), (200, 5));
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.field("content-length"), None);
    member.join().unwrap();
}
