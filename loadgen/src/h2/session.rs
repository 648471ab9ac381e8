//! Pure: one connection of HTTP/2 from the client's side (RFC 9113), sans IO: what arrives goes in,
//! what is to be sent stands in `out`, and an [`Ear`] hears what came of each stream. Streams have
//! places, which are used again. Written for judging: what a balancer must not send is an error.
//! Owned by `slot`.

use super::frame::{self, Frames, HEAD, Item, flag, kind};
use super::hpack::{Decoder, TABLE};
use super::reply::{self, Reply, Stage};
use crate::limits::{
    H2_ASSUMED_STREAMS, H2_OUT, H2_OUT_LIMIT, H2_STREAM_WINDOW, H2_WINDOW, MAX_HEAD,
};

/// What a client begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Windows and payloads until somebody says otherwise.
const DEFAULT_WINDOW: u32 = 65_535;
const DEFAULT_PAYLOAD: usize = 16_384;
/// Largest window.
const MAX_WINDOW: i64 = (1 << 31) - 1;
/// Error codes that loadgen sends (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;

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
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    frames: Frames,
    decoder: Decoder,
    streams: Vec<Stream<'a>>,
    open: usize,
    next: u32,
    /// A head that goes on in CONTINUATION frames: its stream, whether the stream ends with it.
    block: Option<(u32, bool, Vec<u8>)>,
    greeted: bool,
    window: i64,
    owed: u32,
    first_window: u32,
    payload: usize,
    most: usize,
    /// The last stream that the target looks at, and its reason.
    leaving: Option<(u32, u32)>,
}

impl<'a> Session<'a> {
    /// A fresh connection of `places` streams at a time.
    pub(super) fn new(places: usize) -> Session<'a> {
        let mut out = PREFACE.to_vec();
        // SETTINGS_ENABLE_PUSH, SETTINGS_INITIAL_WINDOW_SIZE.
        frame::put_head(&mut out, 12, kind::SETTINGS, 0, 0);
        out.extend_from_slice(&[0, 2, 0, 0, 0, 0, 0, 4]);
        out.extend_from_slice(&H2_STREAM_WINDOW.to_be_bytes());
        frame::put_number(&mut out, kind::WINDOW_UPDATE, 0, H2_WINDOW - DEFAULT_WINDOW);
        Session {
            out,
            frames: Frames::default(),
            decoder: Decoder::default(),
            streams: (0..places).map(|_| Stream::default()).collect(),
            open: 0,
            next: 1,
            block: None,
            greeted: false,
            window: i64::from(DEFAULT_WINDOW),
            owed: 0,
            first_window: DEFAULT_WINDOW,
            payload: DEFAULT_PAYLOAD,
            most: H2_ASSUMED_STREAMS,
            leaving: None,
        }
    }

    /// How many more streams may be opened now.
    pub(super) fn room(&self) -> usize {
        match self.leaving.is_some() || self.next > i32::MAX as u32 {
            true => 0,
            false => self.streams.len().min(self.most).saturating_sub(self.open),
        }
    }

    /// No stream may ever be opened again.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some() || self.next > i32::MAX as u32
    }

    /// The reason that the target gave for leaving, if it was a complaint.
    pub(super) fn complaint(&self) -> Option<u32> {
        self.leaving.map(|(_, code)| code).filter(|&code| code != 0)
    }

    /// Opens a stream with these header fields; gives its place. `None` without room.
    pub(super) fn open(&mut self, block: &[u8], body: &'a [u8], is_head: bool) -> Option<usize> {
        let place = self.streams.iter().position(|stream| stream.id == 0)?;
        if self.room() == 0 {
            return None;
        }
        let before = self.out.len();
        let mut kind = kind::HEADERS;
        let mut end = if body.is_empty() { flag::END_STREAM } else { 0 };
        let mut rest = block;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(self.payload));
            let last = if after.is_empty() { flag::END_HEADERS } else { 0 };
            frame::put_head(&mut self.out, piece.len(), kind, end | last, self.next);
            self.out.extend_from_slice(piece);
            (kind, end, rest) = (kind::CONTINUATION, 0, after);
            if rest.is_empty() {
                break;
            }
        }
        *self.streams.get_mut(place)? = Stream {
            id: self.next,
            body,
            sending: !body.is_empty(),
            window: i64::from(self.first_window),
            owed: 0,
            sent: (self.out.len() - before) as u64,
            received: 0,
            reply: Reply::new(is_head),
        };
        self.next += 2;
        self.open += 1;
        Some(place)
    }

    /// True once all of the request stands in `out`, or has stood there.
    pub(super) fn is_said(&self, place: usize) -> bool {
        self.streams.get(place).is_none_or(|stream| !stream.sending)
    }

    /// There is more of a body than was put into `out`, and the target would take it.
    pub(super) fn has_more(&self) -> bool {
        let can = |stream: &Stream<'_>| stream.sending && stream.window > 0;
        self.window > 0 && self.streams.iter().any(can)
    }

    /// Puts as much of the bodies into `out` as the target takes, in pieces, stream by stream.
    pub(super) fn pump(&mut self) {
        for stream in self.streams.iter_mut().filter(|stream| stream.sending) {
            while self.out.len() < H2_OUT && stream.sending {
                let most = self.window.min(stream.window).clamp(0, self.payload as i64) as usize;
                let (piece, after) = stream.body.split_at(most.min(stream.body.len()));
                if piece.is_empty() {
                    break;
                }
                stream.sending = !after.is_empty();
                let end = if after.is_empty() { flag::END_STREAM } else { 0 };
                frame::put_head(&mut self.out, piece.len(), kind::DATA, end, stream.id);
                self.out.extend_from_slice(piece);
                self.window -= piece.len() as i64;
                stream.window -= piece.len() as i64;
                stream.sent += (HEAD + piece.len()) as u64;
                stream.body = after;
            }
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn cancel(&mut self, place: usize) {
        if let Some(stream) = self.streams.get_mut(place).filter(|stream| stream.id != 0) {
            frame::put_number(&mut self.out, kind::RST_STREAM, stream.id, CANCEL);
            self.free(place);
        }
    }

    /// Takes what has arrived.
    ///
    /// # Errors
    /// What makes the connection useless.
    pub(super) fn feed(&mut self, data: &[u8], ear: &mut impl Ear) -> Result<(), &'static str> {
        if !self.greeted && data.starts_with(b"HTTP/") {
            return Err("the target speaks HTTP/1 here, not HTTP/2; leave out --http2");
        }
        let mut frames = std::mem::take(&mut self.frames);
        let mut rest = data;
        let result = loop {
            match frames.next(&mut rest) {
                Ok(None) => break Ok(()),
                Ok(Some(item)) => {
                    if let Err(why) = self.item(item, ear) {
                        break Err(why);
                    }
                }
                Err(why) => break Err(why),
            }
        };
        self.frames = frames;
        match (result, self.out.len() > H2_OUT_LIMIT) {
            (Ok(()), true) => Err("the target asks for more answers than it takes"),
            // The first bytes tell what is spoken better than whatever came of reading them.
            (Err(_), _) if !self.greeted => Err("the target does not speak HTTP/2 here"),
            (result, _) => result,
        }
    }

    fn item(&mut self, item: Item<'_>, ear: &mut impl Ear) -> Result<(), &'static str> {
        match item {
            Item::Frame { kind: kind::SETTINGS, flags, payload, .. } => {
                self.greeted = true;
                self.settings(flags, payload)
            }
            _ if !self.greeted => Err("the first frame was none of SETTINGS"),
            Item::Data { stream, content, counted, end } => {
                self.data(stream, content, counted, end, ear)
            }
            Item::Frame { kind: kind::CONTINUATION, flags, stream, payload } => {
                self.goes_on(stream, flags, payload, ear)
            }
            _ if self.block.is_some() => Err("a frame came between the parts of a head"),
            Item::Frame { kind, flags, stream, payload } => {
                self.frame(kind, flags, stream, payload, ear)
            }
        }
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        ear: &mut impl Ear,
    ) -> Result<(), &'static str> {
        match kind {
            kind::HEADERS => {
                let block = frame::unpadded(flags, payload)?;
                let end = flags & flag::END_STREAM != 0;
                self.account(stream, HEAD + payload.len());
                match flags & flag::END_HEADERS != 0 {
                    true => self.head(stream, end, block, ear)?,
                    false => self.block = Some((stream, end, block.to_vec())),
                }
            }
            kind::RST_STREAM => {
                let code = number(payload)?;
                if let Some(place) = self.place(stream)? {
                    self.free(place);
                    ear.lost(place, Lost::Reset(code));
                }
            }
            kind::PING if payload.len() != 8 => return Err("a PING of another length than 8"),
            kind::PING if flags & flag::ACK == 0 => {
                frame::put_head(&mut self.out, 8, kind::PING, flag::ACK, 0);
                self.out.extend_from_slice(payload);
            }
            kind::GOAWAY => self.goaway(payload, ear)?,
            kind::WINDOW_UPDATE => self.more_window(stream, number(payload)?)?,
            kind::PUSH_PROMISE => return Err("a PUSH_PROMISE, which was forbidden"),
            // PRIORITY, and what nobody knows yet.
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, flags: u8, payload: &[u8]) -> Result<(), &'static str> {
        if flags & flag::ACK != 0 {
            return Ok(());
        }
        if !payload.len().is_multiple_of(6) {
            return Err("SETTINGS of a length that is no multiple of 6");
        }
        for setting in payload.chunks_exact(6) {
            let &[i0, i1, v0, v1, v2, v3] = setting else { continue };
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                3 => self.most = value as usize,
                4 if i64::from(value) > MAX_WINDOW => return Err("a window beyond 2 GiB"),
                4 => {
                    let change = i64::from(value) - i64::from(self.first_window);
                    self.first_window = value;
                    self.streams.iter_mut().for_each(|stream| stream.window += change);
                }
                5 if !(16_384..1 << 24).contains(&value) => return Err("a bad MAX_FRAME_SIZE"),
                // More would only make larger pieces.
                5 => self.payload = DEFAULT_PAYLOAD,
                _ => {}
            }
        }
        frame::put_head(&mut self.out, 0, kind::SETTINGS, flag::ACK, 0);
        Ok(())
    }

    fn more_window(&mut self, stream: u32, more: u32) -> Result<(), &'static str> {
        let window = match (stream, self.place(stream)?) {
            (0, _) => &mut self.window,
            (_, None) => return Ok(()),
            (_, Some(place)) => match self.streams.get_mut(place) {
                Some(stream) => &mut stream.window,
                None => return Ok(()),
            },
        };
        *window += i64::from(more & 0x7fff_ffff);
        match more == 0 || *window > MAX_WINDOW {
            true => Err("a WINDOW_UPDATE of nothing, or beyond 2 GiB"),
            false => Ok(()),
        }
    }

    fn goaway(&mut self, payload: &[u8], ear: &mut impl Ear) -> Result<(), &'static str> {
        let (last, rest) = payload.split_at_checked(4).ok_or("a GOAWAY that is cut off")?;
        let code = number(rest.get(..4).unwrap_or_default())?;
        let last = number(last)? & 0x7fff_ffff;
        self.leaving = Some((last, code));
        for place in 0..self.streams.len() {
            if self.streams.get(place).is_some_and(|stream| stream.id > last) {
                self.free(place);
                ear.lost(place, Lost::Unseen);
            }
        }
        Ok(())
    }

    fn goes_on(
        &mut self,
        stream: u32,
        flags: u8,
        payload: &[u8],
        ear: &mut impl Ear,
    ) -> Result<(), &'static str> {
        self.account(stream, HEAD + payload.len());
        let (begun, end, mut block) = self.block.take().ok_or("a CONTINUATION of nothing")?;
        if begun != stream {
            return Err("a CONTINUATION of another stream's head");
        }
        if block.len() + payload.len() > MAX_HEAD {
            return Err("the head is longer than 64 KiB");
        }
        block.extend_from_slice(payload);
        match flags & flag::END_HEADERS != 0 {
            true => self.head(stream, end, &block, ear)?,
            false => self.block = Some((stream, end, block)),
        }
        Ok(())
    }

    fn head(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        ear: &mut impl Ear,
    ) -> Result<(), &'static str> {
        let place = self.place(id)?;
        let stream = place.and_then(|place| Some((place, self.streams.get_mut(place)?)));
        let Some((place, stream)) = stream else {
            // Of a stream that was given up: the table has to know it all the same.
            return self.decoder.decode(block, |_, _| {});
        };
        if stream.reply.stage == Stage::Nothing {
            ear.begun(place);
        }
        let mut head = reply::Fields::default();
        let is_trailer = stream.reply.stage == Stage::Body;
        if !is_trailer {
            ear.head_begins();
        }
        self.decoder.decode(block, |name, value| {
            if head.take(name, value, is_trailer) {
                ear.field(name, value);
            }
        })?;
        match stream.reply.head(&head, end) {
            Ok(true) => ear.head(place),
            Ok(false) => {}
            Err(why) => {
                self.malformed(place, why, ear);
                return Ok(());
            }
        }
        if end {
            self.end(place, ear);
        }
        Ok(())
    }

    fn data(
        &mut self,
        id: u32,
        content: &[u8],
        counted: u32,
        end: bool,
        ear: &mut impl Ear,
    ) -> Result<(), &'static str> {
        if self.block.is_some() {
            return Err("a frame came between the parts of a head");
        }
        self.owed += counted;
        if self.owed > H2_WINDOW / 2 {
            frame::put_number(&mut self.out, kind::WINDOW_UPDATE, 0, self.owed);
            self.owed = 0;
        }
        let place = self.place(id)?;
        let Some((place, stream)) = place.and_then(|p| Some((p, self.streams.get_mut(p)?))) else {
            return Ok(());
        };
        stream.received += u64::from(counted);
        stream.owed += counted;
        if stream.owed > H2_STREAM_WINDOW / 2 && !end {
            frame::put_number(&mut self.out, kind::WINDOW_UPDATE, id, stream.owed);
            stream.owed = 0;
        }
        if let Err(why) = stream.reply.data(content.len()) {
            self.malformed(place, why, ear);
            return Ok(());
        }
        ear.body(place, content);
        if end {
            self.end(place, ear);
        }
        Ok(())
    }

    /// The target has said all on this stream.
    fn end(&mut self, place: usize, ear: &mut impl Ear) {
        let Some(stream) = self.streams.get(place) else { return };
        if let Err(why) = stream.reply.end() {
            return self.malformed(place, why, ear);
        }
        let Stream { id, sending, sent, received, .. } = *stream;
        let status = stream.reply.status;
        if sending {
            frame::put_number(&mut self.out, kind::RST_STREAM, id, CANCEL);
        }
        self.free(place);
        ear.ended(place, Ended { status, sent, received });
    }

    fn malformed(&mut self, place: usize, why: &'static str, ear: &mut impl Ear) {
        if let Some(stream) = self.streams.get(place) {
            frame::put_number(&mut self.out, kind::RST_STREAM, stream.id, PROTOCOL_ERROR);
        }
        self.free(place);
        ear.lost(place, Lost::Malformed(why));
    }

    fn account(&mut self, id: u32, bytes: usize) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| id != 0 && stream.id == id) {
            stream.received += bytes as u64;
        }
    }

    fn free(&mut self, place: usize) {
        if let Some(stream) = self.streams.get_mut(place)
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
        Ok(self.streams.iter().position(|stream| id != 0 && stream.id == id))
    }
}

fn number(payload: &[u8]) -> Result<u32, &'static str> {
    let bytes = payload.try_into().map_err(|_| "a frame of another length than 4")?;
    Ok(u32::from_be_bytes(bytes))
}

/// The name of an error code (RFC 9113, section 7).
pub(super) fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).copied().unwrap_or("an unknown error")
}

// The table that the target may fill is the protocol's own, which SETTINGS needn't name.
const _: () = assert!(TABLE == 4_096);

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
