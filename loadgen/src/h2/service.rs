//! Pure: one connection of HTTP/2 from a member's side (RFC 9113), sans IO: what arrives goes in,
//! whole requests come out, and their answers, bodies of the pattern, go into `out` as fast as the
//! client takes them. Owned by `origin_h2`.

use super::asked::{Asked, Fields};
use super::frame;
use super::link::{Event, Link, PREFACE, PROTOCOL_ERROR, REFUSED_STREAM, setting, widen};
use crate::limits::{H2_OUT, ORIGIN_STREAMS};
use crate::pattern;

/// A request that is whole; its stream waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stream: u32,
    pub(crate) is_head: bool,
}

/// A stream that is not over.
#[derive(Debug)]
struct Stream {
    id: u32,
    asked: Asked,
    /// The request is whole.
    is_whole: bool,
    window: i64,
    /// Received and not given back to the client.
    owed: u32,
    /// What of the answer's body was sent.
    at: u64,
    /// Its size; `None` until it is answered.
    size: Option<u64>,
    /// How much of it may have been sent by now.
    allowed: u64,
}

impl Stream {
    fn new(id: u32, window: u32) -> Stream {
        Stream {
            id,
            asked: Asked::default(),
            is_whole: false,
            window: i64::from(window),
            owed: 0,
            at: 0,
            size: None,
            allowed: 0,
        }
    }

    /// Bytes that may go out now, windows aside.
    fn ready(&self) -> usize {
        let until = self.size.unwrap_or(0).min(self.allowed);
        usize::try_from(until.saturating_sub(self.at)).unwrap_or(usize::MAX)
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Service {
    link: Link,
    streams: Streams,
    /// Bytes of the preface that are still to come.
    preface: &'static [u8],
    /// Which stream sends first, so that none waits for another one's large answer.
    turn: usize,
}

/// Its streams.
#[derive(Debug, Default)]
struct Streams {
    open: Vec<Stream>,
    /// The highest id that the client has opened.
    last: u32,
}

impl Service {
    /// A fresh connection.
    pub(crate) fn new() -> Service {
        Service {
            link: Link::new(&[], &[(setting::MAX_CONCURRENT_STREAMS, ORIGIN_STREAMS)]),
            streams: Streams::default(),
            preface: PREFACE,
            turn: 0,
        }
    }

    /// Does a connection begin as one of HTTP/2 does? No method of HTTP/1 begins so.
    pub(crate) fn is_meant(data: &[u8]) -> bool {
        data.starts_with(b"PRI")
    }

    /// What is to be sent; whoever sends it empties it.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.link.out
    }

    /// Takes what has arrived; requests that are whole now go to `wanted`.
    ///
    /// # Errors
    /// What makes the connection useless; a GOAWAY stands in `out` then.
    pub(crate) fn feed(
        &mut self,
        data: &[u8],
        wanted: &mut Vec<Wanted>,
    ) -> Result<(), &'static str> {
        let (preface, data) = data.split_at(data.len().min(self.preface.len()));
        let fed = match self.preface.strip_prefix(preface) {
            None => Err("no preface of HTTP/2"),
            Some(rest) => {
                self.preface = rest;
                let Service { link, streams, .. } = self;
                link.feed(data, |link, event| streams.hear(link, event, wanted))
            }
        };
        if fed.is_err() {
            frame::put_head(&mut self.link.out, 8, frame::kind::GOAWAY, 0, 0);
            self.link.out.extend_from_slice(&self.streams.last.to_be_bytes());
            self.link.out.extend_from_slice(&PROTOCOL_ERROR.to_be_bytes());
        }
        fed
    }

    /// Answers a stream with this head and a body of `size` bytes, of which `allowed` may go out
    /// now. Nothing happens when the client has ended it.
    pub(crate) fn answer(&mut self, stream: u32, block: &[u8], size: u64, allowed: u64) {
        let Some(known) = self.streams.get(stream) else { return };
        (known.size, known.allowed) = (Some(size), allowed);
        self.link.put_block(stream, block, size == 0);
        if size == 0 {
            self.streams.end(stream);
        }
    }

    /// Lets so many more bytes of an answer go out; false when all may, or the stream is over.
    pub(crate) fn allow(&mut self, stream: u32, more: u64) -> bool {
        let Some(known) = self.streams.get(stream) else { return false };
        known.allowed = known.allowed.saturating_add(more);
        known.size.is_some_and(|size| known.allowed < size)
    }

    /// There is more than was put into `out`, and the client would take it.
    pub(crate) fn has_more(&self) -> bool {
        let can = |stream: &Stream| stream.window > 0 && stream.ready() > 0;
        self.link.window > 0 && self.streams.open.iter().any(can)
    }

    /// Puts pieces of the bodies into `out`, one of each stream in turn.
    pub(crate) fn pump(&mut self) {
        while self.link.out.len() < H2_OUT && self.has_more() {
            self.turn = if self.turn < self.streams.open.len() { self.turn } else { 0 };
            let Some(stream) = self.streams.open.get_mut(self.turn) else { return };
            let length = self.link.piece(stream.window, stream.ready());
            let piece = pattern::piece_at(stream.at, length);
            if !piece.is_empty() {
                stream.at += piece.len() as u64;
                let end = stream.size == Some(stream.at);
                self.link.put_data(stream.id, &mut stream.window, piece, end);
                if end {
                    self.streams.open.swap_remove(self.turn);
                    continue;
                }
            }
            self.turn += 1;
        }
    }
}

impl Streams {
    fn hear(
        &mut self,
        link: &mut Link,
        event: Event<'_>,
        wanted: &mut Vec<Wanted>,
    ) -> Result<(), &'static str> {
        match event {
            Event::Head { stream, end, block, .. } => {
                self.head(link, stream, end, block, wanted)?;
            }
            Event::Data { stream: id, .. } if id == 0 || id > self.last => {
                return Err("a frame of a stream that nobody opened");
            }
            Event::Data { stream: id, content, counted, end } => {
                let stream = self.get(id).filter(|stream| !stream.is_whole);
                let Some(stream) = stream else { return Ok(()) };
                stream.owed += counted;
                if !end {
                    link.give_back_to(id, &mut stream.owed);
                }
                let judged = stream.asked.data(content.len());
                self.go_on(link, id, judged, end, wanted);
            }
            Event::Reset { stream, .. } => self.end(stream),
            Event::Window { stream, more } => {
                if let Some(stream) = self.get(stream) {
                    widen(&mut stream.window, more)?;
                }
            }
            Event::Windows(change) => {
                self.open.iter_mut().for_each(|stream| stream.window += change);
            }
            // What it has asked already is answered all the same.
            Event::Goaway { .. } => {}
        }
        Ok(())
    }

    fn head(
        &mut self,
        link: &mut Link,
        id: u32,
        end: bool,
        block: &[u8],
        wanted: &mut Vec<Wanted>,
    ) -> Result<(), &'static str> {
        if id > self.last {
            if id.is_multiple_of(2) {
                return Err("a stream of an even number");
            }
            self.last = id;
            match self.open.len() < ORIGIN_STREAMS as usize {
                true => self.open.push(Stream::new(id, link.first_window)),
                false => link.put_reset(id, REFUSED_STREAM),
            }
        }
        let mut fields = Fields::default();
        let stream = self.get(id);
        let is_trailer = stream.as_ref().is_some_and(|stream| stream.asked.has_head());
        // The table has to know it, whoever's it is.
        link.decoder.decode(block, |name, value| fields.take(name, value, is_trailer))?;
        if let Some(stream) = stream {
            let judged = stream.asked.head(&fields, end);
            self.go_on(link, id, judged, end, wanted);
        }
        Ok(())
    }

    /// A part of a request was `judged`; with its `end` it is wanted.
    fn go_on(
        &mut self,
        link: &mut Link,
        id: u32,
        judged: Result<(), &'static str>,
        end: bool,
        wanted: &mut Vec<Wanted>,
    ) {
        let Some(stream) = self.get(id) else { return };
        let judged = if end { judged.and_then(|()| stream.asked.end()) } else { judged };
        if judged.is_err() {
            link.put_reset(id, PROTOCOL_ERROR);
            self.end(id);
        } else if end && !stream.is_whole {
            stream.is_whole = true;
            wanted.push(Wanted { stream: id, is_head: stream.asked.is_head });
        }
    }

    fn get(&mut self, id: u32) -> Option<&mut Stream> {
        self.open.iter_mut().find(|stream| stream.id == id)
    }

    fn end(&mut self, id: u32) {
        self.open.retain(|stream| stream.id != id);
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
