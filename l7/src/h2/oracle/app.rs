//! A server on our `Connection`: reads requests, and sends back what their paths ask for, within
//! the windows. Knows neither sockets nor who its client is.

use std::collections::{BTreeMap, VecDeque};

use weir_core::time::clock::Mono;

use crate::h2::connection::{Connection, Event, StreamRef};
use crate::h2::frame::Code;
use crate::h2::head::{Head, HeadLimits};

pub(super) const LIMITS: HeadLimits = HeadLimits { bytes: 65_536, fields: 1_000 };
/// Bytes that wait for the pipe before no more body is added to them.
const MUCH: usize = 32_768;

/// A request under way.
struct Talk {
    stream: StreamRef,
    /// Bytes that go back.
    queue: VecDeque<u8>,
    /// Of those so many are the request's, whose window reopens as they leave.
    echoed: usize,
    /// Nothing is added to `queue` any more.
    whole: bool,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    plan: Plan,
}

/// What a path asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// The body and the trailers go back.
    Echo,
    /// The body is taken, and answered when it is whole.
    Fixed,
    /// Nothing is answered, and no body taken.
    Hold,
    /// The stream is reset once so many bytes of the body have come.
    Reset(usize),
}

pub(super) struct App {
    pub(super) connection: Connection,
    head: Head,
    talks: BTreeMap<u32, Talk>,
    pub(super) out: Vec<u8>,
    /// How the connection has ended.
    pub(super) ended: Option<&'static str>,
    /// Streams that the client gave up.
    pub(super) given_up: usize,
}

impl App {
    pub(super) fn new() -> App {
        let connection = Connection::server(LIMITS, now());
        let mut out = Vec::new();
        connection.start(&mut out);
        let (head, talks) = (Head::default(), BTreeMap::new());
        App { connection, head, talks, out, ended: None, given_up: 0 }
    }

    /// Takes received bytes.
    pub(super) fn feed(&mut self, input: &[u8]) {
        let mut rest = input;
        while self.ended.is_none() {
            let step = self.connection.step(rest, &mut self.head, &mut self.out, now());
            let step = match step {
                Ok(step) => step,
                Err(fault) => return self.ended = Some(fault.reason),
            };
            rest = &rest[step.used..];
            match step.event {
                None => return assert!(rest.is_empty(), "input is left"),
                Some(Event::Head { stream, end }) => self.begin(stream, end),
                Some(Event::Data { stream, len, end }) => {
                    let (piece, behind) = rest.split_at(len);
                    rest = behind;
                    self.body(stream, piece, end);
                }
                Some(Event::Trailers { stream }) => self.trailers(stream),
                Some(Event::Reset { stream, by_peer, .. }) => {
                    assert!(self.talks.remove(&stream.id()).is_some(), "a reset of nothing");
                    self.given_up += usize::from(by_peer);
                }
                Some(Event::GoAway { .. }) => {}
            }
        }
    }

    fn begin(&mut self, stream: StreamRef, end: bool) {
        let path = self.head.pseudo().path.map(|span| span.get(self.head.bytes()).to_vec());
        let path = String::from_utf8(path.unwrap_or_default()).unwrap();
        let number = |prefix| path.strip_prefix(prefix).and_then(|n: &str| n.parse().ok());
        let mut queue = VecDeque::new();
        let plan = match path.as_str() {
            "/hold" => Plan::Hold,
            _ if self.head.excess().is_some() => Plan::Fixed,
            "/echo" => Plan::Echo,
            "/request" => {
                queue.extend(self.head.lines().flat_map(|(n, v)| [n, b": ", v, b"\n"].concat()));
                Plan::Fixed
            }
            _ => match (number("/bytes/"), number("/reset/")) {
                (Some(count), _) => {
                    queue.extend(std::iter::repeat_n(b'x', count));
                    Plan::Fixed
                }
                (_, Some(after)) => Plan::Reset(after),
                _ => {
                    queue.extend(b"member");
                    Plan::Fixed
                }
            },
        };
        let excess = self.head.excess().is_some();
        let talk = Talk { stream, queue, echoed: 0, whole: end, trailers: Vec::new(), plan };
        self.talks.insert(stream.id(), talk);
        if plan == Plan::Echo || plan == Plan::Fixed {
            let status = if excess { 431 } else { 200 };
            let lines: Vec<_> = self.head.lines().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            self.connection.send_head(stream, false, &mut self.out, |block| {
                block.status(status);
                // So that the tables have some work.
                for (name, value) in lines.iter().filter(|(name, _)| name.starts_with(b"x-")) {
                    block.field(name, value);
                }
            });
        }
        self.reset_if_due(stream.id(), 0);
        self.want(stream.id());
    }

    fn body(&mut self, stream: StreamRef, piece: &[u8], end: bool) {
        let Some(talk) = self.talks.get_mut(&stream.id()) else { return };
        talk.whole |= end;
        match talk.plan {
            Plan::Echo => {
                talk.queue.extend(piece);
                talk.echoed += piece.len();
            }
            Plan::Fixed => self.connection.consumed(stream, piece.len(), &mut self.out),
            Plan::Hold => {}
            Plan::Reset(_) => {
                self.connection.consumed(stream, piece.len(), &mut self.out);
                self.reset_if_due(stream.id(), piece.len());
            }
        }
        self.want(stream.id());
    }

    fn trailers(&mut self, stream: StreamRef) {
        let Some(talk) = self.talks.get_mut(&stream.id()) else { return };
        talk.whole = true;
        talk.trailers.extend(self.head.lines().map(|(n, v)| (n.to_vec(), v.to_vec())));
        self.want(stream.id());
    }

    fn reset_if_due(&mut self, id: u32, more: usize) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        let Plan::Reset(left) = &mut talk.plan else { return };
        *left = left.saturating_sub(more);
        if *left == 0 {
            self.connection.reset(talk.stream, Code::INTERNAL, &mut self.out);
            self.talks.remove(&id);
        }
    }

    fn want(&mut self, id: u32) {
        let Some(talk) = self.talks.get(&id) else { return };
        let some = matches!(talk.plan, Plan::Echo | Plan::Fixed) && !talk.queue.is_empty();
        self.connection.want(talk.stream, some);
    }

    /// Sends what the windows allow.
    pub(super) fn pump(&mut self) {
        if self.ended.is_some() {
            return;
        }
        while self.out.len() < MUCH
            && let Some((stream, room)) = self.connection.next_sender()
        {
            let talk = self.talks.get_mut(&stream.id()).expect("a sender that is gone");
            let len = room.min(talk.queue.len());
            let last = talk.whole && talk.trailers.is_empty() && len == talk.queue.len();
            assert!(self.connection.send_data(stream, len, last, &mut self.out));
            self.out.extend(talk.queue.drain(..len));
            let back = len.min(talk.echoed);
            talk.echoed -= back;
            self.connection.consumed(stream, back, &mut self.out);
            if last {
                self.talks.remove(&stream.id());
            }
            self.want(stream.id());
        }
        self.end_some();
    }

    /// Ends those whose bytes are out.
    fn end_some(&mut self) {
        let App { connection, talks, out, .. } = self;
        talks.retain(|_, talk| {
            let answers = matches!(talk.plan, Plan::Echo | Plan::Fixed);
            if !(answers && talk.whole && talk.queue.is_empty()) {
                return true;
            }
            if talk.trailers.is_empty() {
                assert!(connection.send_data(talk.stream, 0, true, out));
            } else {
                let trailers = &talk.trailers;
                assert!(connection.send_trailers(talk.stream, out, |block| {
                    trailers.iter().for_each(|(name, value)| block.field(name, value));
                }));
            }
            false
        });
    }

    /// Requests under way.
    pub(super) fn talks(&self) -> usize {
        self.talks.len()
    }
}

pub(super) fn now() -> Mono {
    Mono::from_nanos(1)
}
