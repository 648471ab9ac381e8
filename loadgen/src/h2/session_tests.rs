//! The session against a target that says what the tests want.

use proptest::prelude::*;

use super::super::frame::{self, flag, kind};
use super::super::hpack;
use super::super::link::code_name;
use super::*;

/// What an ear heard, in words.
#[derive(Default)]
struct Heard(Vec<String>);

impl Ear for Heard {
    fn begun(&mut self, place: usize) {
        self.0.push(format!("{place} begun"));
    }

    fn head_begins(&mut self) {}

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.0.push(format!("{}={}", text(name), text(value)));
    }

    fn head(&mut self, place: usize) {
        self.0.push(format!("{place} head"));
    }

    fn body(&mut self, _: usize, part: &[u8]) {
        // However it was cut.
        match self.0.last_mut().filter(|last| last.starts_with("body ")) {
            Some(last) => last.push_str(&String::from_utf8_lossy(part)),
            None => self.0.push(format!("body {}", String::from_utf8_lossy(part))),
        }
    }

    fn ended(&mut self, place: usize, answer: Ended) {
        self.0.push(format!("{place} ended {}", answer.status));
    }

    fn lost(&mut self, place: usize, why: Lost) {
        self.0.push(format!("{place} lost {why:?}"));
    }
}

/// What a target says.
#[derive(Default)]
struct Target(Vec<u8>);

impl Target {
    fn greeting(settings: &[(u16, u32)]) -> Target {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        Target::default().frame(kind::SETTINGS, 0, 0, &payload)
    }

    fn frame(mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Target {
        frame::put_head(&mut self.0, payload.len(), kind, flags, stream);
        self.0.extend_from_slice(payload);
        self
    }

    fn head(self, stream: u32, end: bool, fields: &[(&str, &str)]) -> Target {
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| hpack::write(&mut block, name, value));
        let end = if end { flag::END_STREAM } else { 0 };
        self.frame(kind::HEADERS, flag::END_HEADERS | end, stream, &block)
    }

    fn data(self, stream: u32, end: bool, body: &[u8]) -> Target {
        self.frame(kind::DATA, if end { flag::END_STREAM } else { 0 }, stream, body)
    }

    fn goaway(self, last: u32, code: u32) -> Target {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.frame(kind::GOAWAY, 0, 0, &payload)
    }
}

/// A session with so many requests under way, greeted and with nothing left to send.
fn session(places: usize, requests: usize) -> Session<'static> {
    let mut session = Session::new(places);
    for _ in 0..requests {
        session.open(&[0x82], b"", false).unwrap();
    }
    session.feed(&Target::greeting(&[]).0, &mut Heard::default()).unwrap();
    session.out().clear();
    session
}

/// What comes of `target`'s words, and what the session answers: kinds and streams of its frames.
fn heard(session: &mut Session<'_>, target: &Target) -> Result<Vec<String>, &'static str> {
    let mut heard = Heard::default();
    session.feed(&target.0, &mut heard)?;
    Ok(heard.0)
}

fn said(session: &mut Session<'_>) -> Vec<(u8, u32, usize)> {
    let out = std::mem::take(session.out());
    let (mut rest, mut found) = (out.strip_prefix(PREFACE).unwrap_or(&out), Vec::new());
    while let Some((&[a, b, c, kind, _, s0, s1, s2, s3], after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        found.push((kind, u32::from_be_bytes([s0, s1, s2, s3]), length));
        rest = &after[length..];
    }
    found
}

#[test]
fn a_connection_begins_and_answers_what_it_must() {
    let mut session = Session::new(2);
    assert_eq!(session.open(&[0x82], b"", false), Some(0));
    assert!(session.is_said(0));
    assert_eq!(
        said(&mut session),
        [(kind::SETTINGS, 0, 12), (kind::WINDOW_UPDATE, 0, 4), (kind::HEADERS, 1, 1)]
    );
    let target = Target::greeting(&[(3, 1), (9, 9)]).frame(kind::PING, 0, 0, &[7; 8]);
    heard(&mut session, &target.frame(2, 0, 1, &[0; 5])).unwrap();
    assert_eq!(said(&mut session), [(kind::SETTINGS, 0, 0), (kind::PING, 0, 8)]);
    assert_eq!((session.room(), session.open(&[0x82], b"", false)), (0, None), "one at a time");
}

proptest! {
    #[test]
    fn answers_are_heard_however_they_are_cut(size in 1usize..50) {
        let target = Target::greeting(&[])
            .head(3, false, &[(":status", "103"), ("link", "x")])
            .head(3, false, &[(":status", "200"), ("content-length", "5"), ("x-origin", "a")])
            .head(1, true, &[(":status", "404")])
            .data(3, false, b"he")
            .data(3, true, b"llo");
        let mut session = session(2, 2);
        let mut heard = Heard::default();
        for piece in target.0.chunks(size) {
            session.feed(piece, &mut heard).unwrap();
        }
        prop_assert_eq!(
            heard.0.join(", "),
            "1 begun, content-length=5, x-origin=a, 1 head, 0 begun, 0 head, 0 ended 404, \
             body hello, 1 ended 200"
        );
        prop_assert_eq!(session.room(), 2);
        prop_assert_eq!(session.open(&[0x82], b"", false), Some(0));
    }

    #[test]
    fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = heard(&mut session(3, 2), &Target(data));
    }
}

#[test]
fn bodies_keep_to_both_windows() {
    let body = vec![b'x'; 100_000];
    let mut session = Session::new(2);
    let places = [session.open(&[0x82], &body, false), session.open(&[0x82], &body, false)];
    assert_eq!(places, [Some(0), Some(1)]);
    let sum = |said: &[(u8, u32, usize)], of: u32| -> usize {
        said.iter().filter(|s| (s.0, s.1) == (kind::DATA, of)).map(|s| s.2).sum()
    };
    // The target lets a stream have 40,000 bytes, and the connection 65,535.
    heard(&mut session, &Target::greeting(&[(4, 40_000)])).unwrap();
    session.pump();
    let first = said(&mut session);
    assert_eq!((sum(&first, 1), sum(&first, 3)), (40_000, 25_535));
    assert!(first.iter().all(|frame| frame.2 <= 16_384));
    session.pump();
    assert!(session.out().is_empty() && !session.is_said(0) && !session.has_more());
    let more = |stream: u32, by: u32| {
        Target::default().frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
    };
    for (stream, by) in [(0, 1 << 20), (1, 60_000), (3, 60_000)] {
        heard(&mut session, &more(stream, by)).unwrap();
    }
    assert!(session.has_more());
    let mut got = (0, 0);
    loop {
        session.pump();
        let said = said(&mut session);
        if said.is_empty() {
            break;
        }
        got = (got.0 + sum(&said, 1), got.1 + sum(&said, 3));
    }
    assert_eq!(got, (60_000, 74_465));
    assert!(session.is_said(0) && session.is_said(1));
    assert!(heard(&mut session, &more(0, i32::MAX as u32)).unwrap_err().contains("2 GiB"));
}

#[test]
fn an_early_answer_ends_the_request() {
    let body = vec![b'x'; 100_000];
    let mut session = Session::new(1);
    session.open(&[0x82], &body, false).unwrap();
    session.pump();
    let target = Target::greeting(&[]).head(1, true, &[(":status", "413")]);
    let words = heard(&mut session, &target).unwrap();
    assert_eq!(words.last().unwrap(), "0 ended 413");
    assert_eq!(said(&mut session).last().unwrap(), &(kind::RST_STREAM, 1, 4));
    session.pump();
    assert!(session.out().is_empty());
}

#[test]
fn room_is_given_back_to_the_target() {
    let mut session = session(1, 1);
    heard(&mut session, &Target::default().head(1, false, &[(":status", "200")])).unwrap();
    let piece = vec![0; 16_384];
    for _ in 0..600 {
        heard(&mut session, &Target::default().data(1, false, &piece)).unwrap();
    }
    let updates = said(&mut session);
    assert!(updates.iter().all(|frame| frame.0 == kind::WINDOW_UPDATE));
    let of = |stream: u32| updates.iter().filter(|frame| frame.1 == stream).count();
    assert_eq!((of(0), of(1)), (1, 18));
}

#[test]
fn streams_end_badly() {
    let code = 7u32.to_be_bytes();
    let mut session = session(4, 4);
    let target = Target::default()
        .frame(kind::RST_STREAM, 0, 1, &code)
        .head(3, false, &[(":status", "200"), ("content-length", "1")])
        .data(3, true, b"")
        .head(5, false, &[(":status", "200"), ("connection", "close")]);
    let words = heard(&mut session, &target).unwrap().join(", ");
    assert!(words.contains("0 lost Reset(7)"), "{words}");
    assert!(words.contains("1 lost Malformed(\"fewer bytes"), "{words}");
    assert!(words.contains("2 lost Malformed(\"a field about"), "{words}");
    assert_eq!(code_name(7), "REFUSED_STREAM");
    // Given up by us: what still comes of it is passed over.
    session.cancel(3);
    let late = Target::default().head(7, false, &[(":status", "200")]).data(7, true, b"x");
    assert_eq!(heard(&mut session, &late).unwrap(), Vec::<String>::new());
    assert_eq!(said(&mut session).last().unwrap(), &(kind::RST_STREAM, 7, 4));
    assert_eq!(session.room(), 4);
}

#[test]
fn a_target_that_leaves_names_what_it_has_not_seen() {
    let mut session = session(3, 2);
    let words = heard(&mut session, &Target::default().goaway(1, 11)).unwrap();
    assert_eq!(words, ["1 lost Unseen"]);
    assert!(session.is_leaving() && session.room() == 0);
    assert_eq!(session.complaint().map(code_name), Some("ENHANCE_YOUR_CALM"));
    let rest = Target::default().head(1, true, &[(":status", "200")]);
    assert_eq!(heard(&mut session, &rest).unwrap().last().unwrap(), "0 ended 200");
}

#[test]
fn what_ends_a_connection() {
    let greeting = || Target::greeting(&[]);
    let big = vec![0; 16_000];
    for (target, part) in [
        (Target(b"HTTP/1.1 400 Bad Request\r\n".to_vec()), "speaks HTTP/1 here"),
        (Target(b"SSH-2.0-x\r\n".to_vec()), "does not speak HTTP/2"),
        (Target::default().frame(kind::PING, 0, 0, &[0; 8]), "does not speak HTTP/2"),
        (greeting().head(9, true, &[(":status", "200")]), "nobody opened"),
        (greeting().data(2, true, b""), "nobody opened"),
        (greeting().frame(kind::PUSH_PROMISE, 4, 1, &[0; 5]), "PUSH_PROMISE"),
        (greeting().frame(kind::CONTINUATION, 4, 1, b""), "CONTINUATION"),
        (greeting().frame(kind::HEADERS, 0, 1, b"").data(1, true, b""), "between the parts"),
        (greeting().frame(kind::HEADERS, 0, 1, b"").goaway(0, 0), "between the parts"),
        (greeting().frame(kind::HEADERS, 4, 1, &[0x80]), "index 0"),
        (greeting().frame(kind::PING, 0, 0, &[0; 7]), "PING"),
        (greeting().frame(kind::SETTINGS, 0, 0, &[0; 7]), "SETTINGS"),
        (Target::greeting(&[(4, u32::MAX)]), "a window beyond"),
        (greeting().frame(kind::WINDOW_UPDATE, 0, 1, &[0; 4]), "WINDOW_UPDATE"),
        (greeting().frame(kind::RST_STREAM, 0, 1, &[0; 3]), "length than 4"),
        (
            (0..5).fold(greeting().frame(kind::HEADERS, 0, 1, &big), |target, _| {
                target.frame(kind::CONTINUATION, 0, 1, &big)
            }),
            "longer than 64 KiB",
        ),
    ] {
        let mut session = Session::new(1);
        session.open(&[0x82], b"", false).unwrap();
        let why = heard(&mut session, &target).unwrap_err();
        assert!(why.contains(part), "{part}: {why}");
    }
    let mut asked = session(1, 1);
    let pings = (0..70_000).fold(Target::default(), |t, _| t.frame(kind::PING, 0, 0, &[0; 8]));
    assert!(heard(&mut asked, &pings).unwrap_err().contains("more answers"));
}
