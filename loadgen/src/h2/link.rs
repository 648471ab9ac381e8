//! Pure: what both ends of a connection of HTTP/2 (RFC 9113) do alike, sans IO: frames and header
//! blocks are put together, SETTINGS and PING answered, the connection's windows kept. What
//! concerns streams is told as an [`Event`] to whoever keeps them: `session`, which asks, and
//! `service`, which answers. Written for judging: what the peer must not send is an error.

use super::frame::{self, Frames, HEAD, Item, flag, kind};
use super::hpack::{Decoder, TABLE};
use crate::limits::{H2_OUT_LIMIT, H2_STREAM_WINDOW, H2_WINDOW, MAX_HEAD};

/// What a client begins with (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Windows and payloads until somebody says otherwise.
const DEFAULT_WINDOW: u32 = 65_535;
const DEFAULT_PAYLOAD: usize = 16_384;
/// Largest window.
const MAX_WINDOW: i64 = (1 << 31) - 1;
/// Error codes that loadgen sends (RFC 9113, section 7).
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;

/// Settings that loadgen sends (RFC 9113, 6.5.2).
pub(super) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// What the peer did to streams.
#[derive(Debug)]
pub(super) enum Event<'e> {
    /// A whole block of header fields, in frames of so many bytes together.
    Head { stream: u32, end: bool, block: &'e [u8], bytes: usize },
    /// A part of a body, and what it counts for flow control.
    Data { stream: u32, content: &'e [u8], counted: u32, end: bool },
    /// It ended a stream, with this code.
    Reset { stream: u32, code: u32 },
    /// A stream may carry so much more.
    Window { stream: u32, more: u32 },
    /// Every stream may carry so much more, or less.
    Windows(i64),
    /// It looks at no stream beyond this one, for this reason.
    Goaway { last: u32, code: u32 },
}

/// A block of header fields that goes on in CONTINUATION frames.
#[derive(Debug)]
struct Block {
    stream: u32,
    end: bool,
    fields: Vec<u8>,
    bytes: usize,
}

/// One connection, without its streams.
#[derive(Debug)]
pub(super) struct Link {
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    pub(super) decoder: Decoder,
    /// What the peer lets us send on all streams together.
    pub(super) window: i64,
    /// What it lets us send on a stream at first.
    pub(super) first_window: u32,
    /// How many streams it takes at once.
    pub(super) most: Option<usize>,
    frames: Frames,
    block: Option<Block>,
    greeted: bool,
    /// Received and not given back to the peer.
    owed: u32,
    payload: usize,
}

impl Link {
    /// A fresh connection that begins with `preface`, and with these settings besides the window
    /// of a stream.
    pub(super) fn new(preface: &[u8], settings: &[(u16, u32)]) -> Link {
        let mut out = preface.to_vec();
        frame::put_head(&mut out, 6 * (settings.len() + 1), kind::SETTINGS, 0, 0);
        let window = (setting::INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW);
        for (id, value) in settings.iter().chain([&window]) {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        frame::put_number(&mut out, kind::WINDOW_UPDATE, 0, H2_WINDOW - DEFAULT_WINDOW);
        Link {
            out,
            decoder: Decoder::default(),
            window: i64::from(DEFAULT_WINDOW),
            first_window: DEFAULT_WINDOW,
            most: None,
            frames: Frames::default(),
            block: None,
            greeted: false,
            owed: 0,
            payload: DEFAULT_PAYLOAD,
        }
    }

    /// The peer has said its SETTINGS: it does speak HTTP/2.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Takes what has arrived; `on` hears what concerns streams, and may put answers into `out`.
    ///
    /// # Errors
    /// What makes the connection useless.
    pub(super) fn feed(
        &mut self,
        data: &[u8],
        mut on: impl FnMut(&mut Link, Event<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let mut frames = std::mem::take(&mut self.frames);
        let mut rest = data;
        let result = loop {
            match frames.next(&mut rest) {
                Ok(None) => break Ok(()),
                Ok(Some(item)) => {
                    if let Err(why) = self.item(item, &mut on) {
                        break Err(why);
                    }
                }
                Err(why) => break Err(why),
            }
        };
        self.frames = frames;
        match result.is_ok() && self.out.len() > H2_OUT_LIMIT {
            true => Err("the peer asks for more answers than it takes"),
            false => result,
        }
    }

    fn item(
        &mut self,
        item: Item<'_>,
        on: &mut impl FnMut(&mut Link, Event<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        match item {
            Item::Frame { kind: kind::SETTINGS, flags, payload, .. } => {
                self.greeted = true;
                let change = self.settings(flags, payload)?;
                if change == 0 { Ok(()) } else { on(self, Event::Windows(change)) }
            }
            _ if !self.greeted => Err("the first frame was none of SETTINGS"),
            Item::Frame { kind: kind::CONTINUATION, flags, stream, payload } => {
                self.goes_on(stream, flags, payload, on)
            }
            _ if self.block.is_some() => Err("a frame came between the parts of a head"),
            Item::Data { stream, content, counted, end } => {
                self.give_back(counted);
                on(self, Event::Data { stream, content, counted, end })
            }
            Item::Frame { kind, flags, stream, payload } => {
                self.frame(kind, flags, stream, payload, on)
            }
        }
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        on: &mut impl FnMut(&mut Link, Event<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        match kind {
            kind::HEADERS => {
                let block = frame::unpadded(flags, payload)?;
                let end = flags & flag::END_STREAM != 0;
                let bytes = HEAD + payload.len();
                if flags & flag::END_HEADERS != 0 {
                    return on(self, Event::Head { stream, end, block, bytes });
                }
                self.block = Some(Block { stream, end, fields: block.to_vec(), bytes });
            }
            kind::RST_STREAM => return on(self, Event::Reset { stream, code: number(payload)? }),
            kind::PING if payload.len() != 8 => return Err("a PING of another length than 8"),
            kind::PING if flags & flag::ACK == 0 => {
                frame::put_head(&mut self.out, 8, kind::PING, flag::ACK, 0);
                self.out.extend_from_slice(payload);
            }
            kind::GOAWAY => {
                let (last, rest) = payload.split_at_checked(4).ok_or("a GOAWAY that is cut off")?;
                let code = number(rest.get(..4).unwrap_or_default())?;
                let last = number(last)? & 0x7fff_ffff;
                return on(self, Event::Goaway { last, code });
            }
            kind::WINDOW_UPDATE => match (stream, number(payload)? & 0x7fff_ffff) {
                (0, more) => widen(&mut self.window, more)?,
                (stream, more) => return on(self, Event::Window { stream, more }),
            },
            kind::PUSH_PROMISE => return Err("a PUSH_PROMISE, which was forbidden"),
            // PRIORITY, and what nobody knows yet.
            _ => {}
        }
        Ok(())
    }

    /// Gives by how much the windows of streams change.
    fn settings(&mut self, flags: u8, payload: &[u8]) -> Result<i64, &'static str> {
        if flags & flag::ACK != 0 {
            return Ok(0);
        }
        if !payload.len().is_multiple_of(6) {
            return Err("SETTINGS of a length that is no multiple of 6");
        }
        let before = i64::from(self.first_window);
        for setting in payload.chunks_exact(6) {
            let &[i0, i1, v0, v1, v2, v3] = setting else { continue };
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                setting::MAX_CONCURRENT_STREAMS => self.most = Some(value as usize),
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return Err("a window beyond 2 GiB");
                }
                setting::INITIAL_WINDOW_SIZE => self.first_window = value,
                5 if !(16_384..1 << 24).contains(&value) => return Err("a bad MAX_FRAME_SIZE"),
                // More would only make larger pieces.
                5 => self.payload = DEFAULT_PAYLOAD,
                _ => {}
            }
        }
        frame::put_head(&mut self.out, 0, kind::SETTINGS, flag::ACK, 0);
        Ok(i64::from(self.first_window) - before)
    }

    fn goes_on(
        &mut self,
        stream: u32,
        flags: u8,
        payload: &[u8],
        on: &mut impl FnMut(&mut Link, Event<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let mut block = self.block.take().ok_or("a CONTINUATION of nothing")?;
        if block.stream != stream {
            return Err("a CONTINUATION of another stream's head");
        }
        if block.fields.len() + payload.len() > MAX_HEAD {
            return Err("the head is longer than 64 KiB");
        }
        block.bytes += HEAD + payload.len();
        block.fields.extend_from_slice(payload);
        if flags & flag::END_HEADERS == 0 {
            self.block = Some(block);
            return Ok(());
        }
        let Block { end, fields, bytes, .. } = block;
        on(self, Event::Head { stream, end, block: &fields, bytes })
    }

    fn give_back(&mut self, counted: u32) {
        self.owed += counted;
        if self.owed > H2_WINDOW / 2 {
            frame::put_number(&mut self.out, kind::WINDOW_UPDATE, 0, self.owed);
            self.owed = 0;
        }
    }

    /// Puts a block of header fields into `out`; gives the bytes of its frames.
    pub(super) fn put_block(&mut self, stream: u32, block: &[u8], end: bool) -> u64 {
        let before = self.out.len();
        let mut kind = kind::HEADERS;
        let mut end = if end { flag::END_STREAM } else { 0 };
        let mut rest = block;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(self.payload));
            let last = if after.is_empty() { flag::END_HEADERS } else { 0 };
            frame::put_head(&mut self.out, piece.len(), kind, end | last, stream);
            self.out.extend_from_slice(piece);
            (kind, end, rest) = (kind::CONTINUATION, 0, after);
            if rest.is_empty() {
                return (self.out.len() - before) as u64;
            }
        }
    }

    /// How much of `wanted` bytes may go out in one frame of a stream with this window.
    pub(super) fn piece(&self, window: i64, wanted: usize) -> usize {
        let most = self.window.min(window).clamp(0, self.payload as i64) as usize;
        most.min(wanted)
    }

    /// Puts a piece of a body into `out`, and counts it in both windows; gives the frame's bytes.
    pub(super) fn put_data(
        &mut self,
        stream: u32,
        window: &mut i64,
        piece: &[u8],
        end: bool,
    ) -> u64 {
        let end = if end { flag::END_STREAM } else { 0 };
        frame::put_head(&mut self.out, piece.len(), kind::DATA, end, stream);
        self.out.extend_from_slice(piece);
        self.window -= piece.len() as i64;
        *window -= piece.len() as i64;
        (HEAD + piece.len()) as u64
    }

    /// Ends a stream.
    pub(super) fn put_reset(&mut self, stream: u32, code: u32) {
        frame::put_number(&mut self.out, kind::RST_STREAM, stream, code);
    }

    /// Gives a stream room again for `owed` bytes, if that is worth it.
    pub(super) fn give_back_to(&mut self, stream: u32, owed: &mut u32) {
        if *owed > H2_STREAM_WINDOW / 2 {
            frame::put_number(&mut self.out, kind::WINDOW_UPDATE, stream, *owed);
            *owed = 0;
        }
    }
}

/// Adds to a window.
pub(super) fn widen(window: &mut i64, more: u32) -> Result<(), &'static str> {
    *window += i64::from(more);
    match more == 0 || *window > MAX_WINDOW {
        true => Err("a WINDOW_UPDATE of nothing, or beyond 2 GiB"),
        false => Ok(()),
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

// The table that the peer may fill is the protocol's own, which SETTINGS needn't name.
const _: () = assert!(TABLE == 4_096);
