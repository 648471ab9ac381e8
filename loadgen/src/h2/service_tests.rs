//! The service against the client's own session, and against what no client may send.

use proptest::prelude::*;

use super::super::frame::{flag, kind};
use super::super::hpack;
use super::super::session::{Ear, Ended, Lost, Session};
use super::*;

/// Counts the bytes of each answer, and whether they are those of the pattern.
#[derive(Default)]
struct Heard {
    bodies: [u64; 3],
    ended: Vec<(usize, u16)>,
    lost: Vec<Lost>,
}

impl Ear for Heard {
    fn begun(&mut self, _: usize) {}
    fn head_begins(&mut self) {}
    fn field(&mut self, _: &[u8], _: &[u8]) {}
    fn head(&mut self, _: usize) {}

    fn body(&mut self, place: usize, part: &[u8]) {
        assert!(pattern::stands_at(self.bodies[place], part));
        self.bodies[place] += part.len() as u64;
    }

    fn ended(&mut self, place: usize, answer: Ended) {
        self.ended.push((place, answer.status));
    }

    fn lost(&mut self, _: usize, why: Lost) {
        self.lost.push(why);
    }
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|(name, value)| hpack::write(&mut out, name, value));
    out
}

const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/")];

/// A frame of stream 1 behind a client's greeting.
fn greeted(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame::put_head(&mut out, 0, kind::SETTINGS, 0, 0);
    frame::put_head(&mut out, payload.len(), kind, flags, stream);
    [&out, payload].concat()
}

proptest! {
    /// Three requests with bodies and large answers, however the bytes are cut: windows fill and
    /// open again both ways.
    #[test]
    fn answers_come_whole(piece in 1usize..40_000, slow in any::<bool>()) {
        let body = vec![b'b'; 100_000];
        let (mut session, mut service, mut heard) =
            (Session::new(3), Service::new(), Heard::default());
        let get = block(&GET);
        (0..3).for_each(|_| assert!(session.open(&get, &body, false).is_some()));
        let mut wanted = Vec::new();
        while heard.ended.len() < 3 {
            session.pump();
            for part in std::mem::take(session.out()).chunks(piece) {
                service.feed(part, &mut wanted).unwrap();
            }
            for Wanted { stream, is_head } in wanted.drain(..) {
                prop_assert!(!is_head);
                let allowed = if slow { 10_000 } else { u64::MAX };
                service.answer(stream, &block(&[(":status", "200")]), 3 << 20, allowed);
            }
            if slow {
                [1, 3, 5].iter().for_each(|&stream| { service.allow(stream, 1 << 19); });
            }
            service.pump();
            prop_assert!(service.out().len() <= 2 * H2_OUT);
            for part in std::mem::take(service.out()).chunks(piece) {
                session.feed(part, &mut heard).unwrap();
            }
        }
        prop_assert_eq!(heard.bodies, [3 << 20; 3]);
        prop_assert!(heard.lost.is_empty() && heard.ended.iter().all(|&(_, s)| s == 200));
        prop_assert!(!service.has_more() && service.streams.open.is_empty());
    }

    #[test]
    fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut service = Service::new();
        let mut greeting = PREFACE.to_vec();
        frame::put_head(&mut greeting, 0, kind::SETTINGS, 0, 0);
        service.feed(&greeting, &mut Vec::new()).unwrap();
        let _ = service.feed(&data, &mut Vec::new());
    }
}

#[test]
fn small_answers_and_head() {
    let mut service = Service::new();
    let head = block(&[(":method", "HEAD"), GET[1], GET[2]]);
    let mut wanted = Vec::new();
    let end = flag::END_HEADERS | flag::END_STREAM;
    service.feed(&greeted(kind::HEADERS, end, 1, &head), &mut wanted).unwrap();
    assert_eq!(wanted, [Wanted { stream: 1, is_head: true }]);
    service.answer(1, &block(&[(":status", "204")]), 0, u64::MAX);
    assert!(service.streams.open.is_empty() && !service.has_more());
    service.answer(1, b"", 9, 9);
    assert!(!service.allow(1, 9), "it is over");
    assert!(Service::is_meant(PREFACE) && !Service::is_meant(b"PUT / HTTP/1.1"));
}

#[test]
fn a_bad_request_ends_its_stream_alone() {
    for fields in [&GET[1..], &[GET[0], GET[1], GET[2], ("connection", "close")][..]] {
        let (mut service, mut wanted) = (Service::new(), Vec::new());
        let end = flag::END_HEADERS | flag::END_STREAM;
        let input = greeted(kind::HEADERS, end, 1, &block(fields));
        service.out().clear();
        service.feed(&input, &mut wanted).unwrap();
        assert!(wanted.is_empty() && service.streams.open.is_empty());
        let out = service.out();
        assert_eq!(out[out.len() - 13..][3], kind::RST_STREAM);
    }
}

#[test]
fn what_breaks_the_connection_is_said() {
    let even = greeted(kind::HEADERS, flag::END_HEADERS, 2, &block(&GET));
    let unopened = greeted(kind::DATA, 0, 1, b"x");
    let promise = greeted(kind::PUSH_PROMISE, 0, 1, b"");
    for (input, part) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "preface"),
        (&even, "even number"),
        (&unopened, "nobody opened"),
        (&promise, "PUSH_PROMISE"),
    ] {
        let mut service = Service::new();
        service.out().clear();
        let why = service.feed(input, &mut Vec::new()).unwrap_err();
        assert!(why.contains(part), "{why}");
        let out = service.out();
        assert_eq!(out[out.len() - 17..][3], kind::GOAWAY);
    }
}

/// More streams than are taken at once are refused, and may be asked for again.
#[test]
fn streams_have_a_bound() {
    let (mut service, mut wanted) = (Service::new(), Vec::new());
    let mut input = greeted(kind::SETTINGS, flag::ACK, 0, b"");
    let get = block(&GET);
    for stream in 0..=ORIGIN_STREAMS {
        let end = flag::END_HEADERS | flag::END_STREAM;
        frame::put_head(&mut input, get.len(), kind::HEADERS, end, 2 * stream + 1);
        input.extend_from_slice(&get);
    }
    service.feed(&input, &mut wanted).unwrap();
    assert_eq!(wanted.len(), ORIGIN_STREAMS as usize);
    assert!(service.out().ends_with(&REFUSED_STREAM.to_be_bytes()));
}
