//! Pure: one HTTP/2 connection, in either role: takes received bytes apart into frames, holds what
//! both sides have agreed on, and hands out events. `receive` judges the frames, `send` writes
//! ours, `streams` and `budget` keep their books. See `h2` for how it is used.

mod budget;
mod receive;
mod send;
mod streams;

use weir_core::time::clock::Mono;

use self::budget::Budget;
use self::receive::OpenBlock;
use self::streams::Streams;
use super::frame::{self, Code, FrameHead, PREFACE, setting};
use super::head::{Head, HeadLimits};
use super::hpack::{Decoder, Encoder};
use crate::limits::{
    H2_CONNECTION_WINDOW, H2_GATHER_KEPT, H2_STREAM_WINDOW, H2_STREAMS, LANE_WINDOW, LINK_WINDOW,
};

pub(crate) use self::streams::StreamRef;

/// The window of a stream or a connection before anything else is agreed on (RFC 9113, 6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;

/// Which side we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

impl Role {
    /// Bytes of body that the peer may send on a stream, and on all together, before any have gone
    /// on. On a connection to a member the streams of many clients meet, of which none may hold up
    /// the others.
    const fn windows(self) -> [u32; 2] {
        match self {
            Role::Server => [H2_STREAM_WINDOW, H2_CONNECTION_WINDOW],
            Role::Client => [LANE_WINDOW, LINK_WINDOW],
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A request or a response, an interim one perhaps; it was decoded into the head given.
    Head {
        /// A new stream in a server, one of ours in a client.
        stream: StreamRef,
        /// Nothing follows.
        end: bool,
    },
    /// A trailer section, decoded into the head given; nothing follows.
    Trailers {
        /// Its stream.
        stream: StreamRef,
    },
    /// A piece of body: the next `len` bytes of the input, which are for the caller to take.
    Data {
        /// Its stream.
        stream: StreamRef,
        /// Bytes; zero only at an end.
        len: usize,
        /// Nothing follows.
        end: bool,
    },
    /// A stream is gone: given up by the peer, or by us for what the peer did.
    Reset {
        /// The stream, which `StreamRef` doesn't reach any more.
        stream: StreamRef,
        /// Why.
        code: Code,
        /// The peer gave it up.
        by_peer: bool,
        /// The peer has done nothing about it: it may be tried again elsewhere.
        unprocessed: bool,
    },
    /// The peer takes no new streams.
    GoAway {
        /// Why.
        code: Code,
    },
}

/// One step: so many bytes of the input were used, and this happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes; body that `event` speaks of stands behind them.
    pub(crate) used: usize,
    /// `None`: the input is used up.
    pub(crate) event: Option<Event>,
}

/// Why the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What the peer is told.
    pub(crate) code: Code,
    /// What is wrong, for the log.
    pub(crate) reason: &'static str,
}

/// Where in the input we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// In a client's first bytes, of which so many have come.
    Preface(usize),
    /// Before a frame.
    Head,
    /// Before a frame's payload, which is taken as a whole.
    Payload(FrameHead),
    /// Before the first byte of padded DATA.
    PadLength { stream: StreamRef, len: u32, end: bool },
    /// In a stream's body.
    Data { stream: StreamRef, left: u32, padding: u32, end: bool },
    /// In what nobody looks at.
    Skip(u32),
}

/// How far we have come in ending the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// The peer was told to open no more streams; those under way are still taken.
    Announced,
    /// Streams above this one are not taken.
    Final(u32),
}

/// What the peer has told in its settings.
#[derive(Clone, Copy, Debug)]
struct Peer {
    window: u32,
    max_streams: u32,
    connect_protocol: bool,
    /// It has told any.
    known: bool,
}

/// A connection without its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    role: Role,
    limits: HeadLimits,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    budget: Budget,
    reading: Reading,
    /// The part of a frame that has come, when it is not whole.
    gathered: Vec<u8>,
    /// A block whose CONTINUATION is awaited.
    open_block: Option<OpenBlock>,
    peer: Peer,
    send_window: i64,
    receive_window: u32,
    /// Bytes that have gone on and the peer has not been told of.
    credit: u32,
    /// The highest stream that the peer has opened (server), or the next of ours (client).
    last: u32,
    drain: Drain,
    /// The highest of our streams that the peer looks after, once it goes away.
    peer_last: Option<u32>,
}

impl Connection {
    /// The side of a server, whose requests may be as large as `limits`.
    pub(crate) fn server(limits: HeadLimits, now: Mono) -> Connection {
        Connection::new(Role::Server, limits, now)
    }

    /// The side of a client, whose responses may be as large as `limits`.
    pub(crate) fn client(limits: HeadLimits, now: Mono) -> Connection {
        Connection::new(Role::Client, limits, now)
    }

    fn new(role: Role, limits: HeadLimits, now: Mono) -> Connection {
        let server = role == Role::Server;
        Connection {
            role,
            limits,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            streams: Streams::new(),
            budget: Budget::new(now),
            reading: if server { Reading::Preface(0) } else { Reading::Head },
            gathered: Vec::new(),
            open_block: None,
            peer: Peer {
                window: DEFAULT_WINDOW,
                max_streams: H2_STREAMS,
                connect_protocol: false,
                known: false,
            },
            send_window: i64::from(DEFAULT_WINDOW),
            receive_window: role.windows()[1],
            credit: 0,
            last: u32::from(!server),
            drain: Drain::No,
            peer_last: None,
        }
    }

    /// Appends what comes before anything else: a client's preface, and our settings.
    pub(crate) fn start(&self, out: &mut Vec<u8>) {
        let bytes = u32::try_from(self.limits.bytes).unwrap_or(u32::MAX);
        let own = match self.role {
            Role::Client => (setting::ENABLE_PUSH, 0),
            Role::Server => (setting::ENABLE_CONNECT_PROTOCOL, 1),
        };
        if self.role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        let [window, all] = self.role.windows();
        let common = [
            (setting::INITIAL_WINDOW_SIZE, window),
            (setting::MAX_HEADER_LIST_SIZE, bytes),
            own,
            (setting::MAX_CONCURRENT_STREAMS, H2_STREAMS),
        ];
        let streams = usize::from(self.role == Role::Server);
        frame::put_settings(out, common.get(..3 + streams).unwrap_or_default());
        frame::put_window(out, 0, all - DEFAULT_WINDOW);
    }

    /// Takes the next step through `input`, which begins where the step before ended. What is to
    /// be sent is appended to `out`. Call it until it has no event and has used all.
    ///
    /// # Errors
    /// What ends the connection; GOAWAY was appended then. Nothing may be called after it.
    pub(crate) fn step(
        &mut self,
        input: &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Result<Step, Fault> {
        let result = self.take_step(input, head, out, now);
        if let Err(fault) = &result {
            let last = if self.role == Role::Server { self.last } else { 0 };
            frame::put_goaway(out, last, fault.code);
        }
        result
    }

    fn take_step(
        &mut self,
        input: &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Result<Step, Fault> {
        let mut rest = input;
        loop {
            if let Some(event) = self.forsaken(out) {
                return Ok(Step { used: input.len() - rest.len(), event: Some(event) });
            }
            let event = match self.reading {
                Reading::Data { stream, left, padding, end } => {
                    let Some(event) = self.body(stream, [left, padding], end, rest.len(), out)
                    else {
                        return Ok(Step { used: input.len(), event: None });
                    };
                    event
                }
                Reading::Skip(left) => {
                    let (_, behind) = rest.split_at(rest.len().min(left as usize));
                    let left = left - (rest.len() - behind.len()) as u32;
                    rest = behind;
                    if left > 0 {
                        self.reading = Reading::Skip(left);
                        return Ok(Step { used: input.len(), event: None });
                    }
                    self.reading = Reading::Head;
                    None
                }
                _ if rest.is_empty() && !self.is_due() => {
                    return Ok(Step { used: input.len(), event: None });
                }
                Reading::Preface(seen) => {
                    rest = self.preface(seen, rest)?;
                    None
                }
                Reading::PadLength { stream, len, end } => {
                    let (&padding, behind) = rest.split_first().unwrap_or((&0, rest));
                    rest = behind;
                    self.padded(stream, len, u32::from(padding), end, out, now)?
                }
                Reading::Head | Reading::Payload(_) => {
                    let Some(event) = self.frame(&mut rest, head, out, now)? else {
                        return Ok(Step { used: input.len(), event: None });
                    };
                    event
                }
            };
            if event.is_some() {
                return Ok(Step { used: input.len() - rest.len(), event });
            }
        }
    }

    /// A frame without a payload needs no more input.
    fn is_due(&self) -> bool {
        matches!(self.reading, Reading::Payload(FrameHead { len: 0, .. }))
    }

    fn preface<'a>(&mut self, seen: usize, input: &'a [u8]) -> Result<&'a [u8], Fault> {
        let wanted = PREFACE.get(seen..).unwrap_or_default();
        let len = wanted.len().min(input.len());
        let (part, rest) = input.split_at(len);
        if wanted.get(..len) != Some(part) {
            return Err(Fault { code: Code::PROTOCOL, reason: "not the preface of HTTP/2" });
        }
        let whole = len == wanted.len();
        self.reading = if whole { Reading::Head } else { Reading::Preface(seen + len) };
        Ok(rest)
    }

    /// Takes a frame's head, or its payload, off `rest`; outer `None`: it is not there yet.
    fn frame(
        &mut self,
        rest: &mut &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Result<Option<Option<Event>>, Fault> {
        let wanted = match self.reading {
            Reading::Payload(frame) => frame.len as usize,
            _ => frame::HEAD,
        };
        if self.gathered.is_empty()
            && let Some((part, behind)) = rest.split_at_checked(wanted)
        {
            *rest = behind;
            return self.part(part, head, out, now).map(Some);
        }
        let more = (wanted - self.gathered.len()).min(rest.len());
        let (part, behind) = rest.split_at(more);
        *rest = behind;
        self.gathered.extend_from_slice(part);
        if self.gathered.len() < wanted {
            return Ok(None);
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let result = self.part(&gathered, head, out, now);
        gathered.clear();
        if gathered.capacity() <= H2_GATHER_KEPT {
            self.gathered = gathered;
        }
        result.map(Some)
    }

    fn part(
        &mut self,
        part: &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Result<Option<Event>, Fault> {
        match self.reading {
            Reading::Payload(frame) => {
                self.reading = Reading::Head;
                self.take_frame(frame, part, head, out, now)
            }
            _ => {
                let frame = FrameHead::parse(part).unwrap_or_default();
                self.reading = Reading::Payload(frame);
                self.begin_frame(frame, out, now)
            }
        }
    }

    /// What comes next of a stream's body, of which `there` bytes are in the input at most; outer
    /// `None`: nothing yet.
    fn body(
        &mut self,
        stream: StreamRef,
        [left, padding]: [u32; 2],
        end: bool,
        there: usize,
        out: &mut Vec<u8>,
    ) -> Option<Option<Event>> {
        if self.streams.get(stream).is_none() {
            // It was given up since the frame began.
            self.reading = Reading::Skip(left + padding);
            return Some(None);
        }
        if there == 0 && left > 0 {
            return None;
        }
        let len = there.min(left as usize);
        let left = left - len as u32;
        self.reading = if left > 0 {
            Reading::Data { stream, left, padding, end }
        } else {
            Reading::Skip(padding)
        };
        let end = end && left == 0;
        if end {
            self.end_receiving(stream, out);
        }
        Some(Some(Event::Data { stream, len, end }))
    }

    /// One of our streams that the peer, going away, doesn't look after.
    fn forsaken(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        let last = self.peer_last?;
        let (stream, _) = self.streams.iter_mut().find(|(stream, _)| stream.id() > last)?;
        self.close(stream, false, out);
        Some(Event::Reset { stream, code: Code::REFUSED, by_peer: true, unprocessed: true })
    }

    /// Streams that are alive.
    pub(crate) fn streams(&self) -> usize {
        self.streams.alive()
    }

    /// A drain has come to its end: both steps were taken, and the streams have ended.
    pub(crate) fn drained(&self) -> bool {
        matches!(self.drain, Drain::Final(_)) && self.streams.alive() == 0
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
