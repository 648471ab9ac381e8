//! A client on our `Connection`: makes the requests that it is given, and keeps what comes of them.
//! Knows neither sockets nor who its server is.

use super::Chance;
use super::app::{LIMITS, now};
use crate::h2::connection::{Connection, Event, StreamRef};
use crate::h2::frame::Code;
use crate::h2::head::Head;

/// Bytes that wait for the pipe before no more body is added to them.
const MUCH: usize = 32_768;

/// A request.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
    /// It is given up once so many bytes of its answer have come.
    pub(super) give_up: Option<usize>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    InFull,
    Reset {
        code: Code,
        unprocessed: bool,
    },
    GivenUp,
    /// The server takes no more.
    Refused,
}

/// A request and its answer.
#[derive(Default)]
pub(super) struct Call {
    pub(super) request: Request,
    stream: Option<StreamRef>,
    sent: usize,
    /// Bytes received whose window is not open again.
    held: usize,
    pub(super) status: u16,
    pub(super) interim: usize,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
    pub(super) ending: Option<Ending>,
}

pub(super) struct Caller {
    pub(super) connection: Connection,
    head: Head,
    pub(super) calls: Vec<Call>,
    pub(super) out: Vec<u8>,
    /// How the connection has ended.
    pub(super) ended: Option<&'static str>,
    chance: Chance,
}

/// The fields of a head.
fn texts(head: &Head) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut lines: Vec<_> = head.lines().map(|(n, v)| (text(n), text(v))).collect();
    lines.sort();
    lines
}

impl Caller {
    pub(super) fn new(requests: Vec<Request>, chance: Chance) -> Caller {
        let connection = Connection::client(LIMITS, now());
        let mut out = Vec::new();
        connection.start(&mut out);
        let call = |request| Call { request, ..Call::default() };
        let calls = requests.into_iter().map(call).collect();
        Caller { connection, head: Head::default(), calls, out, ended: None, chance }
    }

    pub(super) fn is_done(&self) -> bool {
        self.calls.iter().all(|call| call.ending.is_some())
    }

    fn call(&mut self, stream: StreamRef) -> &mut Call {
        self.calls.iter_mut().find(|call| call.stream == Some(stream)).expect("an unknown stream")
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
                Some(Event::Head { stream, end }) => self.answer(stream, end),
                Some(Event::Data { stream, len, end }) => {
                    let (piece, behind) = rest.split_at(len);
                    rest = behind;
                    let call = self.call(stream);
                    assert!(call.status >= 200 && call.ending.is_none());
                    call.body.extend_from_slice(piece);
                    call.held += len;
                    call.ending = end.then_some(Ending::InFull);
                }
                Some(Event::Trailers { stream }) => {
                    let trailers = texts(&self.head);
                    let call = self.call(stream);
                    (call.trailers, call.ending) = (trailers, Some(Ending::InFull));
                }
                Some(Event::Reset { stream, code, unprocessed, .. }) => {
                    let ending = Ending::Reset { code, unprocessed };
                    self.call(stream).ending.get_or_insert(ending);
                }
                Some(Event::GoAway { .. }) => {}
            }
        }
    }

    fn answer(&mut self, stream: StreamRef, end: bool) {
        let (status, fields) = (self.head.status(), texts(&self.head));
        let call = self.call(stream);
        assert!(call.status < 200, "two heads");
        if status < 200 {
            call.interim += 1;
        } else {
            (call.status, call.fields) = (status, fields);
            call.ending = end.then_some(Ending::InFull);
        }
    }

    /// Opens streams, sends what the windows allow, opens windows, gives up.
    pub(super) fn pump(&mut self) {
        let Caller { connection, calls, out, chance, .. } = self;
        for call in calls.iter_mut().filter(|call| call.ending.is_none()) {
            if call.stream.is_none() && connection.is_spent() {
                call.ending = Some(Ending::Refused);
            } else if call.stream.is_none() {
                // Before the settings are here it is not known how many streams there may be.
                if connection.is_settled() && out.len() < MUCH {
                    begin(connection, call, out);
                }
            } else if call.request.give_up.is_some_and(|most| call.body.len() >= most)
                && let Some(stream) = call.stream
            {
                connection.reset(stream, Code::CANCEL, out);
                call.ending = Some(Ending::GivenUp);
            }
        }
        for call in calls.iter_mut().filter(|call| call.held > 0) {
            if let Some(stream) = call.stream.filter(|_| chance.below(3) == 0) {
                connection.consumed(stream, call.held, out);
                call.held = 0;
            }
        }
        while out.len() < MUCH
            && let Some((stream, room)) = connection.next_sender()
        {
            let call = calls.iter_mut().find(|call| call.stream == Some(stream)).unwrap();
            send(connection, call, room, out);
        }
    }
}

fn begin(connection: &mut Connection, call: &mut Call, out: &mut Vec<u8>) {
    let request = &call.request;
    let whole = request.body.is_empty() && request.trailers.is_empty();
    call.stream = connection.open(false, whole, out, |block| {
        let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "site.example")];
        let path = [(":path", request.path.as_str())];
        let fields = request.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in pseudo.into_iter().chain(path).chain(fields) {
            block.field(name.as_bytes(), value.as_bytes());
        }
    });
    if let Some(stream) = call.stream.filter(|_| !whole) {
        connection.want(stream, !request.body.is_empty());
        end(connection, call, stream, out);
    }
}

/// Sends trailers once the body is out.
fn end(connection: &mut Connection, call: &Call, stream: StreamRef, out: &mut Vec<u8>) {
    let Request { body, trailers, .. } = &call.request;
    if call.sent == body.len() && !trailers.is_empty() {
        assert!(connection.send_trailers(stream, out, |block| {
            let bytes = trailers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            bytes.for_each(|(name, value)| block.field(name, value));
        }));
    }
}

fn send(connection: &mut Connection, call: &mut Call, room: usize, out: &mut Vec<u8>) {
    let stream = call.stream.unwrap();
    let rest = &call.request.body[call.sent..];
    let len = room.min(rest.len());
    let all = len == rest.len();
    assert!(connection.send_data(stream, len, all && call.request.trailers.is_empty(), out));
    out.extend_from_slice(&rest[..len]);
    call.sent += len;
    connection.want(stream, !all);
    end(connection, call, stream, out);
}
