//! Pure: the client's side of one HTTP/2 connection (RFC 9113): bytes of the member in, what
//! concerns each stream out to a [`Receiver`]; heads and frames for the member are appended to a
//! buffer. Owns what belongs to the connection: header compression, settings, the send window, what
//! is owed to the peer. Streams, their windows and their order are the caller's.

use crate::h2::frame::{self, Code, FrameHead, HEAD, flag, kind, setting};
use crate::h2::hpack::{Decoder, Encoder, Error};
use crate::limits::{LANE_WINDOW, LANES_MOST, LINK_OWED_BYTES, LINK_WINDOW_STEP};
use crate::message::Request;
use weir_core::limits::MAX_HEAD_BYTES;

/// What becomes of a stream; each call is told which one.
pub(super) trait Receiver {
    /// A head: of the answer, or of an interim one. `lines` are its fields, each with CR LF.
    fn head(&mut self, stream: u32, status: u16, lines: &[u8], end: bool);
    /// What stands behind the body; nothing follows.
    fn trailers(&mut self, stream: u32, lines: &[u8]);
    /// Part of the body. It has used up `flow` bytes of the stream's window.
    fn data(&mut self, stream: u32, bytes: &[u8], flow: u32, end: bool);
    /// The stream has ended before its time.
    fn reset(&mut self, stream: u32, code: Code);
    /// So much more may be sent on the stream; false when that is more than a window can be.
    fn window(&mut self, stream: u32, more: i64) -> bool;
    /// The same on all streams.
    fn all_windows(&mut self, more: i64) -> bool;
    /// The peer takes no streams above `last` any more.
    fn going_away(&mut self, last: u32);
}

/// A DATA frame under way.
#[derive(Clone, Copy, Debug)]
struct Data {
    stream: u32,
    /// Bytes of its payload to come, padding included.
    left: u32,
    /// Of these the padding; `None` until its length is known.
    pad: Option<u32>,
    end: bool,
}

/// A block of fields under way.
#[derive(Clone, Copy, Debug)]
struct Block {
    stream: u32,
    end: bool,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    decoder: Decoder,
    encoder: Encoder,
    /// A frame's head, or its payload, that has not come whole.
    gathered: Vec<u8>,
    head: Option<FrameHead>,
    data: Option<Data>,
    block: Option<Block>,
    fields: Vec<u8>,
    /// Lines of the block that was decoded last.
    lines: Vec<u8>,
    /// Bytes that may be sent on all streams together.
    window: i64,
    /// What a new stream may send.
    initial: i64,
    max_frame: usize,
    most: u32,
    next: u32,
    /// Bytes that came and are not yet given back to the connection's window.
    received: u32,
    /// Frames that the peer is owed.
    owed: Vec<u8>,
    settled: bool,
}

impl Wire {
    /// A connection on which nothing has been sent; what begins it is owed already.
    pub(super) fn new() -> Wire {
        let mut owed = frame::PREFACE.to_vec();
        frame::put_settings(
            &mut owed,
            &[
                (setting::ENABLE_PUSH, 0),
                (setting::INITIAL_WINDOW_SIZE, LANE_WINDOW),
                (setting::MAX_HEADER_LIST_SIZE, MAX_HEAD_BYTES as u32),
            ],
        );
        // Streams bound what is kept; the connection's own window must not let one stall another.
        frame::put_window(&mut owed, 0, frame::MAX_WINDOW - WINDOW as u32);
        Wire {
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            gathered: Vec::new(),
            head: None,
            data: None,
            block: None,
            fields: Vec::new(),
            lines: Vec::new(),
            window: WINDOW,
            initial: WINDOW,
            max_frame: frame::DEFAULT_MAX_FRAME as usize,
            most: LANES_MOST,
            next: 1,
            received: 0,
            owed,
            settled: false,
        }
    }

    /// Streams that the peer takes at a time, bounded by ours.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Streams that may be open now. Until the peer has told its limit one is sent alone, since
    /// more might be refused.
    pub(super) fn allowed(&self) -> usize {
        if self.settled { self.most as usize } else { 1 }
    }

    /// The numbers of streams are used up.
    pub(super) fn is_used_up(&self) -> bool {
        self.next > frame::MAX_STREAM
    }

    /// Appends what the peer is owed to `out`.
    pub(super) fn pay(&mut self, out: &mut Vec<u8>) {
        if self.received >= LINK_WINDOW_STEP {
            frame::put_window(out, 0, std::mem::take(&mut self.received));
        }
        out.append(&mut self.owed);
    }

    /// The peer may send so much more on `stream`.
    pub(super) fn give_back(&mut self, stream: u32, bytes: u32) {
        frame::put_window(&mut self.owed, stream, bytes);
    }

    /// Ends a stream before its time.
    pub(super) fn reset(&mut self, stream: u32, code: Code) {
        frame::put_reset(&mut self.owed, stream, code);
    }

    /// Ends the connection.
    pub(super) fn goodbye(&mut self, code: Code, out: &mut Vec<u8>) {
        frame::put_goaway(out, 0, code);
    }

    /// Appends the head of `request` as a new stream, which it returns with its window.
    pub(super) fn open(
        &mut self,
        request: &Request<'_>,
        scheme: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> (u32, i64) {
        let stream = self.next;
        self.next += 2;
        let mut block = std::mem::take(&mut self.lines);
        let encoder = &mut self.encoder;
        encoder.begin(&mut block);
        encoder.field(b":method", request.method(), &mut block);
        encoder.field(b":scheme", scheme, &mut block);
        encoder.field(b":authority", request.host(), &mut block);
        encoder.field(b":path", &request.target().concat(), &mut block);
        for (name, value) in request.all_fields().filter(|(name, _)| passes(name)) {
            encoder.field(name, value, &mut block);
        }
        // All that comes behind a body is passed on; a gRPC member wants to hear that.
        encoder.field(b"te", b"trailers", &mut block);
        let mut pieces = block.chunks(self.max_frame).peekable();
        let (mut kind, mut flags) = (kind::HEADERS, if end { flag::END_STREAM } else { 0 });
        while let Some(piece) = pieces.next() {
            flags |= if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            out.extend_from_slice(
                &FrameHead { len: piece.len() as u32, kind, flags, stream }.bytes(),
            );
            out.extend_from_slice(piece);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
        block.clear();
        self.lines = block;
        (stream, self.initial)
    }

    /// Appends a DATA frame of the first bytes of `body`, at most `most`; returns how many. With
    /// `end` the stream ends behind the last of them.
    pub(super) fn send(
        &mut self,
        stream: u32,
        body: &[u8],
        most: usize,
        end: bool,
        out: &mut Vec<u8>,
    ) -> usize {
        let window = usize::try_from(self.window).unwrap_or_default();
        let len = body.len().min(most).min(window).min(self.max_frame);
        let ends = end && len == body.len();
        if len == 0 && !ends {
            return 0;
        }
        let flags = if ends { flag::END_STREAM } else { 0 };
        let head = FrameHead { len: len as u32, kind: kind::DATA, flags, stream };
        out.extend_from_slice(&head.bytes());
        out.extend_from_slice(body.get(..len).unwrap_or_default());
        self.window -= len as i64;
        len
    }

    /// Takes bytes of the peer.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn take(&mut self, mut bytes: &[u8], to: &mut impl Receiver) -> Result<(), Code> {
        // A frame without a payload is whole when its head is.
        while !bytes.is_empty() || self.data.is_some_and(|data| data.left == 0) {
            if self.data.is_some() {
                bytes = self.take_data(bytes, to)?;
                continue;
            }
            let wanted = match self.head {
                None => HEAD,
                Some(head) => head.len as usize,
            };
            let missing = wanted.saturating_sub(self.gathered.len()).min(bytes.len());
            let (now, rest) = bytes.split_at(missing);
            self.gathered.extend_from_slice(now);
            bytes = rest;
            if self.gathered.len() == wanted {
                self.take_gathered(to)?;
            }
        }
        if self.owed.len() > LINK_OWED_BYTES {
            // It asks for answers and takes none.
            return Err(Code::CALM);
        }
        Ok(())
    }

    /// A frame's head, or its payload, is whole.
    fn take_gathered(&mut self, to: &mut impl Receiver) -> Result<(), Code> {
        let Some(head) = self.head.take() else {
            let head = FrameHead::parse(&self.gathered).ok_or(Code::INTERNAL)?;
            self.gathered.clear();
            self.begin(head)?;
            // A payload of no bytes is whole.
            let empty = head.len == 0 && self.head.is_some();
            return if empty { self.take_gathered(to) } else { Ok(()) };
        };
        let payload = std::mem::take(&mut self.gathered);
        let taken = self.take_frame(head, &payload, to);
        self.gathered = payload;
        self.gathered.clear();
        taken
    }

    /// A frame begins.
    fn begin(&mut self, head: FrameHead) -> Result<(), Code> {
        if head.len > frame::DEFAULT_MAX_FRAME {
            return Err(Code::FRAME_SIZE);
        }
        let goes_on = head.kind == kind::CONTINUATION;
        if goes_on != self.block.is_some() || !self.settled && head.kind != kind::SETTINGS {
            return Err(Code::PROTOCOL);
        }
        if head.kind != kind::DATA {
            self.head = Some(head);
            return Ok(());
        }
        self.is_ours(head.stream)?;
        let pad = (!head.has(flag::PADDED)).then_some(0);
        if pad.is_none() && head.len == 0 {
            return Err(Code::FRAME_SIZE);
        }
        let end = head.has(flag::END_STREAM);
        self.data = Some(Data { stream: head.stream, left: head.len, pad, end });
        self.received = self.received.saturating_add(head.len);
        Ok(())
    }

    /// Bytes of a DATA frame; the rest.
    fn take_data<'b>(&mut self, bytes: &'b [u8], to: &mut impl Receiver) -> Result<&'b [u8], Code> {
        let Some(mut data) = self.data.take() else { return Ok(bytes) };
        let mut rest = bytes;
        let mut flow = 0;
        let pad = match (data.pad, bytes.split_first()) {
            (Some(pad), _) => pad,
            (None, Some((&pad, behind))) => {
                rest = behind;
                data.left -= 1;
                flow += 1 + u32::from(pad);
                data.pad = Some(u32::from(pad));
                u32::from(pad)
            }
            (None, None) => return Ok(bytes),
        };
        let body = data.left.checked_sub(pad).ok_or(Code::PROTOCOL)? as usize;
        let (now, behind) = rest.split_at(body.min(rest.len()));
        data.left -= now.len() as u32;
        let skipped = if now.len() == body { (data.left as usize).min(behind.len()) } else { 0 };
        data.left -= skipped as u32;
        data.pad = Some(pad - skipped as u32);
        let whole = data.left == 0;
        let (end, flow) = (whole && data.end, flow + now.len() as u32);
        if flow > 0 || end {
            to.data(data.stream, now, flow, end);
        }
        self.data = (!whole).then_some(data);
        Ok(behind.get(skipped..).unwrap_or_default())
    }

    /// Only streams that we have opened can be spoken of.
    fn is_ours(&self, stream: u32) -> Result<(), Code> {
        if stream % 2 == 1 && stream < self.next { Ok(()) } else { Err(Code::PROTOCOL) }
    }

    fn take_frame(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        to: &mut impl Receiver,
    ) -> Result<(), Code> {
        match head.kind {
            kind::HEADERS => {
                self.is_ours(head.stream)?;
                let (block, _) = head.fields(payload)?;
                self.fields.clear();
                self.block = Some(Block { stream: head.stream, end: head.has(flag::END_STREAM) });
                self.take_block(head, block, to)
            }
            kind::CONTINUATION => self.take_block(head, payload, to),
            kind::RST_STREAM => {
                self.is_ours(head.stream)?;
                let code = exactly::<4>(payload).map(u32::from_be_bytes)?;
                to.reset(head.stream, Code(code));
                Ok(())
            }
            kind::SETTINGS => self.take_settings(head, payload, to),
            kind::PING => {
                let data = exactly::<8>(payload)?;
                if head.stream != 0 {
                    return Err(Code::PROTOCOL);
                }
                if !head.has(flag::ACK) {
                    frame::put_ping(&mut self.owed, true, &data);
                }
                Ok(())
            }
            kind::GOAWAY => {
                let last = frame::number(payload).ok_or(Code::FRAME_SIZE)?;
                to.going_away(last & frame::MAX_STREAM);
                Ok(())
            }
            kind::WINDOW_UPDATE => self.take_window(head.stream, payload, to),
            kind::PUSH_PROMISE => Err(Code::PROTOCOL),
            // PRIORITY means nothing any more, others may mean anything.
            _ => Ok(()),
        }
    }

    fn take_window(
        &mut self,
        stream: u32,
        payload: &[u8],
        to: &mut impl Receiver,
    ) -> Result<(), Code> {
        let more = exactly::<4>(payload).map(u32::from_be_bytes)? & frame::MAX_WINDOW;
        if stream == 0 {
            self.window += i64::from(more);
            let good = more > 0 && self.window <= i64::from(frame::MAX_WINDOW);
            return if good { Ok(()) } else { Err(Code::FLOW_CONTROL) };
        }
        self.is_ours(stream)?;
        if more == 0 || !to.window(stream, i64::from(more)) {
            self.reset(stream, Code::FLOW_CONTROL);
            to.reset(stream, Code::FLOW_CONTROL);
        }
        Ok(())
    }

    fn take_settings(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        to: &mut impl Receiver,
    ) -> Result<(), Code> {
        if head.stream != 0 {
            return Err(Code::PROTOCOL);
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Code::FRAME_SIZE) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Code::FRAME_SIZE);
        }
        self.settled = true;
        for (name, value) in frame::settings(payload) {
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.allow(value),
                setting::MAX_CONCURRENT_STREAMS => self.most = value.min(LANES_MOST),
                setting::INITIAL_WINDOW_SIZE => {
                    let more = i64::from(value) - self.initial;
                    self.initial = i64::from(value);
                    if value > frame::MAX_WINDOW || !to.all_windows(more) {
                        return Err(Code::FLOW_CONTROL);
                    }
                }
                setting::MAX_FRAME_SIZE => {
                    if !(frame::DEFAULT_MAX_FRAME..1 << 24).contains(&value) {
                        return Err(Code::PROTOCOL);
                    }
                    // Larger ones would only let one stream hold the others up.
                    self.max_frame = frame::DEFAULT_MAX_FRAME as usize;
                }
                _ => {}
            }
        }
        frame::put_settings_ack(&mut self.owed);
        Ok(())
    }

    /// A piece of a block of fields; with the last one it is decoded.
    fn take_block(
        &mut self,
        head: FrameHead,
        piece: &[u8],
        to: &mut impl Receiver,
    ) -> Result<(), Code> {
        let block = self.block.ok_or(Code::PROTOCOL)?;
        if block.stream != head.stream {
            return Err(Code::PROTOCOL);
        }
        if self.fields.len() + piece.len() > MAX_HEAD_BYTES {
            return Err(Code::CALM);
        }
        self.fields.extend_from_slice(piece);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        self.block = None;
        let mut lines = std::mem::take(&mut self.lines);
        let decoded = self.decode(&mut lines);
        if decoded.is_ok() {
            self.tell(block, decoded, &lines, to);
        }
        lines.clear();
        self.lines = lines;
        self.fields.clear();
        decoded.map(|_| ()).map_err(|_| Code::COMPRESSION)
    }

    /// Decodes the block into lines; what it is.
    fn decode(&mut self, lines: &mut Vec<u8>) -> Result<Decoded, Error> {
        let (mut status, mut good) = (None, true);
        self.decoder.decode(&self.fields, lines, |lines, line| {
            let name = lines.get(line.name.clone()).unwrap_or_default();
            if name == b":status" {
                let value = lines.get(line.value.clone()).unwrap_or_default();
                good &= status.is_none() && line.name.start == 0;
                status = Some(number(value));
                lines.truncate(line.name.start);
            } else {
                good &= line.valid && !name.starts_with(b":") && passes(name) && name != b"te";
            }
            if lines.len() > MAX_HEAD_BYTES { Err(Error::TooLarge) } else { Ok(()) }
        })?;
        Ok(match status {
            _ if !good => Decoded::Malformed,
            Some(Some(status)) => Decoded::Head(status),
            Some(None) => Decoded::Malformed,
            None => Decoded::Trailers,
        })
    }

    fn tell(
        &mut self,
        block: Block,
        decoded: Result<Decoded, Error>,
        lines: &[u8],
        to: &mut impl Receiver,
    ) {
        match decoded {
            Ok(Decoded::Head(status)) if status >= 200 || !block.end => {
                to.head(block.stream, status, lines, block.end);
            }
            Ok(Decoded::Trailers) if block.end => to.trailers(block.stream, lines),
            _ => {
                self.reset(block.stream, Code::PROTOCOL);
                to.reset(block.stream, Code::PROTOCOL);
            }
        }
    }
}

/// What a window is before anybody says anything (RFC 9113, 6.9.2).
const WINDOW: i64 = 65_535;

/// What a block of fields is.
#[derive(Clone, Copy, Debug)]
enum Decoded {
    Head(u16),
    Trailers,
    Malformed,
}

/// A field that is of the message, not of its connection (RFC 9113, 8.2.2). Host has become
/// `:authority`.
fn passes(name: &[u8]) -> bool {
    const CONNECTION: [&[u8]; 7] = [
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    ];
    !CONNECTION.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], Code> {
    payload.try_into().map_err(|_| Code::FRAME_SIZE)
}

/// A status of three digits.
fn number(value: &[u8]) -> Option<u16> {
    let digits: [u8; 3] = value.try_into().ok()?;
    let good = digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0';
    good.then(|| digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
