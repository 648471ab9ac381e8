//! Pure: one connection of HTTP/2 from the client's side (RFC 9113), sans IO: what arrives goes in,
//! what is to be sent stands in `out`, and an [`Ear`] hears what came of each stream. Streams have
//! places, which are used again. Owned by `slot` and `single`.

use super::link::{CANCEL, Event, Link, PREFACE, PROTOCOL_ERROR, setting, widen};
use super::reply::{self, Reply, Stage};
use crate::limits::{H2_ASSUMED_STREAMS, H2_OUT};

/// Why a stream has no right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The target said that it hasn't looked at it (GOAWAY): it may be sent again.
    Unseen,
    /// The target ended it, with this code.
    Reset(u32),
    /// The answer is wrong, for this reason.
    Malformed(&'static str),
}

/// Hears what becomes of the streams, by their places.
pub(super) trait Ear {
    /// The first byte of the answer is there.
    fn begun(&mut self, place: usize);
    /// The fields of a head follow.
    fn head_begins(&mut self);
    /// A field of a final head.
    fn field(&mut self, name: &[u8], value: &[u8]);
    /// The final head is read.
    fn head(&mut self, place: usize);
    /// A part of the answer's body.
    fn body(&mut self, place: usize, part: &[u8]);
    /// The answer is whole; its place is free again.
    fn ended(&mut self, place: usize, answer: Ended);
    /// There will be none; the place is free again.
    fn lost(&mut self, place: usize, why: Lost);
}

/// What a whole answer was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) status: u16,
    /// Bytes of the request's frames.
    pub(super) sent: u64,
    /// Bytes of the answer's frames.
    pub(super) received: u64,
}

#[derive(Debug, Default)]
struct Stream<'a> {
    /// 0 = the place is free.
    id: u32,
    /// What of the request's body is still to be sent.
    body: &'a [u8],
    /// The request has not been said whole.
    sending: bool,
    /// What the target lets us send.
    window: i64,
    /// Received and not given back to the target.
    owed: u32,
    sent: u64,
    received: u64,
    reply: Reply,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session<'a> {
    link: Link,
    streams: Streams<'a>,
}

/// Its streams, and what the target says of them.
#[derive(Debug)]
struct Streams<'a> {
    places: Vec<Stream<'a>>,
    open: usize,
    /// The id of the next one.
    next: u32,
    /// The last one that the target looks at, and its reason.
    leaving: Option<(u32, u32)>,
}

impl<'a> Session<'a> {
    /// A fresh connection of `places` streams at a time.
    pub(super) fn new(places: usize) -> Session<'a> {
        let places = (0..places).map(|_| Stream::default()).collect();
        Session {
            link: Link::new(PREFACE, &[(setting::ENABLE_PUSH, 0)]),
            streams: Streams { places, open: 0, next: 1, leaving: None },
        }
    }

    /// What is to be sent; whoever sends it empties it.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.link.out
    }

    /// How many more streams may be opened now.
    pub(super) fn room(&self) -> usize {
        let most = self.link.most.unwrap_or(H2_ASSUMED_STREAMS);
        match self.is_leaving() {
            true => 0,
            false => self.streams.places.len().min(most).saturating_sub(self.streams.open),
        }
    }

    /// No stream may ever be opened again.
    pub(super) fn is_leaving(&self) -> bool {
        self.streams.leaving.is_some() || self.streams.next > i32::MAX as u32
    }

    /// The reason that the target gave for leaving, if it was a complaint.
    pub(super) fn complaint(&self) -> Option<u32> {
        self.streams.leaving.map(|(_, code)| code).filter(|&code| code != 0)
    }

    /// Opens a stream with these header fields; gives its place. `None` without room.
    pub(super) fn open(&mut self, block: &[u8], body: &'a [u8], is_head: bool) -> Option<usize> {
        let place = self.streams.places.iter().position(|stream| stream.id == 0)?;
        if self.room() == 0 {
            return None;
        }
        let id = self.streams.next;
        let sent = self.link.put_block(id, block, body.is_empty());
        *self.streams.places.get_mut(place)? = Stream {
            id,
            body,
            sending: !body.is_empty(),
            window: i64::from(self.link.first_window),
            owed: 0,
            sent,
            received: 0,
            reply: Reply::new(is_head),
        };
        self.streams.next += 2;
        self.streams.open += 1;
        Some(place)
    }

    /// True once all of the request stands in `out`, or has stood there.
    pub(super) fn is_said(&self, place: usize) -> bool {
        self.streams.places.get(place).is_none_or(|stream| !stream.sending)
    }

    /// There is more of a body than was put into `out`, and the target would take it.
    pub(super) fn has_more(&self) -> bool {
        let can = |stream: &Stream<'_>| stream.sending && stream.window > 0;
        self.link.window > 0 && self.streams.places.iter().any(can)
    }

    /// Puts as much of the bodies into `out` as the target takes, in pieces, stream by stream.
    pub(super) fn pump(&mut self) {
        let Session { link, streams } = self;
        for stream in streams.places.iter_mut().filter(|stream| stream.sending) {
            while link.out.len() < H2_OUT && stream.sending {
                let length = link.piece(stream.window, stream.body.len());
                let (piece, after) = stream.body.split_at(length);
                if piece.is_empty() {
                    break;
                }
                stream.sending = !after.is_empty();
                stream.sent +=
                    link.put_data(stream.id, &mut stream.window, piece, after.is_empty());
                stream.body = after;
            }
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn cancel(&mut self, place: usize) {
        let stream = self.streams.places.get(place);
        if let Some(stream) = stream.filter(|stream| stream.id != 0) {
            self.link.put_reset(stream.id, CANCEL);
            self.streams.free(place);
        }
    }

    /// Takes what has arrived.
    ///
    /// # Errors
    /// What makes the connection useless.
    pub(super) fn feed(&mut self, data: &[u8], ear: &mut impl Ear) -> Result<(), &'static str> {
        let Session { link, streams } = self;
        if !link.is_greeted() && data.starts_with(b"HTTP/") {
            return Err("the target speaks HTTP/1 here, not HTTP/2; leave out --http2");
        }
        let result = link.feed(data, |link, event| streams.hear(link, event, ear));
        match result {
            // The first bytes tell what is spoken better than whatever came of reading them.
            Err(_) if !link.is_greeted() => Err("the target does not speak HTTP/2 here"),
            result => result,
        }
    }
}

impl Streams<'_> {
    fn hear(
        &mut self,
        link: &mut Link,
        event: Event<'_>,
        ear: &mut impl Ear,
    ) -> Result<(), &'static str> {
        match event {
            Event::Head { stream, end, block, bytes } => {
                let place = self.place(stream)?;
                match place {
                    Some(place) => self.head(link, place, end, block, bytes, ear),
                    // Of a stream that was given up: the table has to know it all the same.
                    None => link.decoder.decode(block, |_, _| {}),
                }
            }
            Event::Data { stream, content, counted, end } => {
                if let Some(place) = self.place(stream)? {
                    self.data(link, place, content, counted, end, ear);
                }
                Ok(())
            }
            Event::Reset { stream, code } => {
                if let Some(place) = self.place(stream)? {
                    self.free(place);
                    ear.lost(place, Lost::Reset(code));
                }
                Ok(())
            }
            Event::Window { stream, more } => {
                let place = self.place(stream)?;
                let stream = place.and_then(|place| self.places.get_mut(place));
                stream.map_or(Ok(()), |stream| widen(&mut stream.window, more))
            }
            Event::Windows(change) => {
                self.places.iter_mut().for_each(|stream| stream.window += change);
                Ok(())
            }
            Event::Goaway { last, code } => {
                self.leaving = Some((last, code));
                for place in 0..self.places.len() {
                    if self.places.get(place).is_some_and(|stream| stream.id > last) {
                        self.free(place);
                        ear.lost(place, Lost::Unseen);
                    }
                }
                Ok(())
            }
        }
    }

    fn head(
        &mut self,
        link: &mut Link,
        place: usize,
        end: bool,
        block: &[u8],
        bytes: usize,
        ear: &mut impl Ear,
    ) -> Result<(), &'static str> {
        let Some(stream) = self.places.get_mut(place) else { return Ok(()) };
        stream.received += bytes as u64;
        if stream.reply.stage == Stage::Nothing {
            ear.begun(place);
        }
        let mut head = reply::Fields::default();
        let is_trailer = stream.reply.stage == Stage::Body;
        if !is_trailer {
            ear.head_begins();
        }
        link.decoder.decode(block, |name, value| {
            if head.take(name, value, is_trailer) {
                ear.field(name, value);
            }
        })?;
        match stream.reply.head(&head, end) {
            Ok(true) => ear.head(place),
            Ok(false) => {}
            Err(why) => {
                self.malformed(link, place, why, ear);
                return Ok(());
            }
        }
        if end {
            self.end(link, place, ear);
        }
        Ok(())
    }

    fn data(
        &mut self,
        link: &mut Link,
        place: usize,
        content: &[u8],
        counted: u32,
        end: bool,
        ear: &mut impl Ear,
    ) {
        let Some(stream) = self.places.get_mut(place) else { return };
        stream.received += u64::from(counted);
        stream.owed += counted;
        if !end {
            link.give_back_to(stream.id, &mut stream.owed);
        }
        if let Err(why) = stream.reply.data(content.len()) {
            return self.malformed(link, place, why, ear);
        }
        ear.body(place, content);
        if end {
            self.end(link, place, ear);
        }
    }

    /// The target has said all on this stream.
    fn end(&mut self, link: &mut Link, place: usize, ear: &mut impl Ear) {
        let Some(stream) = self.places.get(place) else { return };
        if let Err(why) = stream.reply.end() {
            return self.malformed(link, place, why, ear);
        }
        let Stream { id, sending, sent, received, .. } = *stream;
        let status = stream.reply.status;
        if sending {
            link.put_reset(id, CANCEL);
        }
        self.free(place);
        ear.ended(place, Ended { status, sent, received });
    }

    fn malformed(&mut self, link: &mut Link, place: usize, why: &'static str, ear: &mut impl Ear) {
        if let Some(stream) = self.places.get(place) {
            link.put_reset(stream.id, PROTOCOL_ERROR);
        }
        self.free(place);
        ear.lost(place, Lost::Malformed(why));
    }

    fn free(&mut self, place: usize) {
        if let Some(stream) = self.places.get_mut(place)
            && stream.id != 0
        {
            stream.id = 0;
            stream.sending = false;
            stream.body = &[];
            self.open -= 1;
        }
    }

    /// The place of stream `id`; `None` when it is over, or names the connection.
    fn place(&self, id: u32) -> Result<Option<usize>, &'static str> {
        if id >= self.next || (id != 0 && id.is_multiple_of(2)) {
            return Err("a frame of a stream that nobody opened");
        }
        Ok(self.places.iter().position(|stream| id != 0 && stream.id == id))
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
