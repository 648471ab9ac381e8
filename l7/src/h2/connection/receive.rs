//! Pure: what received frames mean (RFC 9113, 5, 6 and 8.1): which are errors, of a stream or of
//! the connection, and which are events.

use weir_core::time::clock::Mono;

use super::streams::{Past, Receiving};
use super::{Connection, Drain, Event, Fault, Reading, Role, StreamRef};
use crate::h2::frame::{
    self, Code, DEFAULT_MAX_FRAME, FrameHead, MAX_WINDOW, flag, kind, number, setting,
};
use crate::h2::head::{Block, Head};
use crate::h2::hpack;
use crate::limits::{H2_SPARE_CONTINUATIONS, H2_STREAMS};

/// A block of fields in several frames.
#[derive(Debug)]
pub(super) struct OpenBlock {
    stream: u32,
    end: bool,
    depends: Option<u32>,
    bytes: Vec<u8>,
    /// Frames that it has come in.
    frames: usize,
}

fn fault<T>(code: Code, reason: &'static str) -> Result<T, Fault> {
    Err(Fault { code, reason })
}

type Outcome = Result<Option<Event>, Fault>;

impl Connection {
    /// Judges a frame by its head.
    pub(super) fn begin_frame(
        &mut self,
        frame: FrameHead,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        if frame.len > DEFAULT_MAX_FRAME {
            return fault(Code::FRAME_SIZE, "a frame of more than 16 KiB");
        }
        let open = self.open_block.as_ref();
        let continues = frame.kind == kind::CONTINUATION;
        if open.map(|block| block.stream) != continues.then_some(frame.stream) {
            let within = open.is_some();
            let reason =
                if within { "a frame within a block of fields" } else { "no block to go on" };
            return fault(Code::PROTOCOL, reason);
        }
        if !self.peer.known && (frame.kind != kind::SETTINGS || frame.has(flag::ACK)) {
            return fault(Code::PROTOCOL, "another frame than SETTINGS at first");
        }
        let of_connection = matches!(frame.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        let of_stream = matches!(
            frame.kind,
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION
        );
        if of_connection && frame.stream != 0 || of_stream && frame.stream == 0 {
            return fault(Code::PROTOCOL, "a frame with the number of a wrong stream");
        }
        match frame.kind {
            kind::DATA => self.begin_data(frame, out, now),
            kind::PUSH_PROMISE => fault(Code::PROTOCOL, "PUSH_PROMISE, which is not enabled"),
            kind::RST_STREAM | kind::WINDOW_UPDATE if frame.len != 4 => {
                fault(Code::FRAME_SIZE, "a frame of a wrong size")
            }
            kind::PING if frame.len != 8 => fault(Code::FRAME_SIZE, "a PING of a wrong size"),
            kind::GOAWAY if frame.len < 8 => fault(Code::FRAME_SIZE, "a GOAWAY of a wrong size"),
            known if known <= kind::CONTINUATION => Ok(None),
            _ => {
                self.reading = Reading::Skip(frame.len);
                self.useless(1 + frame.len / 1_024, now)
            }
        }
    }

    /// Counts a frame that brings nothing.
    fn useless(&mut self, cost: u32, now: Mono) -> Outcome {
        if self.budget.frame(cost, now) {
            return Ok(None);
        }
        fault(Code::CALM, "too many frames without use")
    }

    /// Judges DATA by its head: flow control, and what state its stream is in.
    fn begin_data(&mut self, frame: FrameHead, out: &mut Vec<u8>, now: Mono) -> Outcome {
        let len = frame.len;
        let Some(window) = self.receive_window.checked_sub(len) else {
            return fault(Code::FLOW_CONTROL, "more body than the connection's window");
        };
        self.receive_window = window;
        self.reading = Reading::Skip(len);
        let Some(stream) = self.streams.find(frame.stream) else {
            self.give_credit(len, out);
            return self.late(frame.stream, Some(len), out, now);
        };
        let end = frame.has(flag::END_STREAM);
        if len == 0 && !end {
            self.useless(1, now)?;
        }
        let refused = self.streams.get_mut(stream).and_then(|known| {
            let code = match known.receiving {
                Receiving::Head => Some(Code::PROTOCOL),
                Receiving::Ended => Some(Code::STREAM_CLOSED),
                Receiving::Body if known.receive_window < len => Some(Code::FLOW_CONTROL),
                Receiving::Body => None,
            };
            if code.is_none() {
                known.receive_window -= len;
            }
            known.held += len;
            code
        });
        if let Some(code) = refused {
            return self.stream_error(stream, code, out, now);
        }
        if !frame.has(flag::PADDED) {
            return self.begin_body(stream, [len, 0], end, out, now);
        }
        let Some(len) = len.checked_sub(1) else {
            return fault(Code::FRAME_SIZE, "no room for the length of the padding");
        };
        self.reading = Reading::PadLength { stream, len, end };
        Ok(None)
    }

    /// The length of the padding of DATA with `len` more bytes was read.
    pub(super) fn padded(
        &mut self,
        stream: StreamRef,
        len: u32,
        padding: u32,
        end: bool,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        let Some(body) = len.checked_sub(padding) else {
            return fault(Code::PROTOCOL, "padding longer than its frame");
        };
        self.consumed(stream, padding as usize + 1, out);
        if body == 0 && !end {
            self.useless(1, now)?;
        }
        self.begin_body(stream, [body, padding], end, out, now)
    }

    /// Compares the body with Content-Length (8.1.1).
    fn begin_body(
        &mut self,
        stream: StreamRef,
        [len, padding]: [u32; 2],
        end: bool,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        self.reading = Reading::Skip(len + padding);
        let Some(known) = self.streams.get_mut(stream) else { return Ok(None) };
        if let Some(expected) = &mut known.expected {
            let left = expected.checked_sub(u64::from(len));
            *expected = left.unwrap_or_default();
            if left.is_none() || end && left != Some(0) {
                return self.stream_error(stream, Code::PROTOCOL, out, now);
            }
        }
        if len > 0 || end {
            self.budget.moved();
            self.reading = Reading::Data { stream, left: len, padding, end };
        }
        Ok(None)
    }

    /// A frame for a stream that is not alive: DATA of so many bytes, or another that has no effect
    /// any more.
    fn late(&mut self, id: u32, data: Option<u32>, out: &mut Vec<u8>, now: Mono) -> Outcome {
        if self.is_idle(id) {
            return fault(Code::PROTOCOL, "a frame of a stream that was never opened");
        }
        let body = data.is_some_and(|len| len > 0);
        match self.past(id) {
            Past::Closed if data.is_some() => {
                frame::put_reset(out, id, Code::STREAM_CLOSED);
                self.came_to_nothing(now).map(|()| None)
            }
            // Too long ago to tell whether we gave it up.
            Past::Unknown if data.is_some() && !self.is_untaken(id) => {
                frame::put_reset(out, id, Code::STREAM_CLOSED);
                self.useless(1, now)
            }
            // A window full of it was on its way when we gave the stream up, in frames however
            // small.
            Past::GivenUp if body && self.streams.take_late(id, data.unwrap_or_default()) => {
                Ok(None)
            }
            Past::GivenUp if body => {
                fault(Code::FLOW_CONTROL, "more body than the window of a stream given up")
            }
            _ => self.useless(1, now),
        }
    }

    /// What is known of a stream that is not alive. Clients may all leave at once, so that of the
    /// streams to a member more are given up at a time than are remembered.
    fn past(&self, id: u32) -> Past {
        match self.streams.past(id) {
            Past::Unknown if self.role == Role::Client => Past::GivenUp,
            past => past,
        }
    }

    /// Whether a stream with this number has not been opened so far (5.1.1).
    fn is_idle(&self, id: u32) -> bool {
        let odd = !id.is_multiple_of(2);
        match self.role {
            Role::Server => !odd || (id > self.last && !self.is_untaken(id)),
            Role::Client => !odd || id >= self.last,
        }
    }

    /// Whether the peer was told that this stream is not looked after.
    fn is_untaken(&self, id: u32) -> bool {
        matches!(self.drain, Drain::Final(last) if id > last)
    }

    /// Counts a stream that came to nothing by the peer's doing.
    fn came_to_nothing(&mut self, now: Mono) -> Result<(), Fault> {
        if self.budget.reset(now) {
            return Ok(());
        }
        fault(Code::CALM, "too many streams that come to nothing")
    }

    fn stream_error(
        &mut self,
        stream: StreamRef,
        code: Code,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        self.reset(stream, code, out);
        self.came_to_nothing(now)?;
        Ok(Some(Event::Reset { stream, code, by_peer: false, unprocessed: false }))
    }

    /// Takes a whole frame other than DATA.
    pub(super) fn take_frame(
        &mut self,
        frame: FrameHead,
        payload: &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        match frame.kind {
            kind::HEADERS => {
                let parts = frame.fields(payload);
                let Ok((block, depends)) = parts else {
                    let code = parts.err().unwrap_or(Code::PROTOCOL);
                    return fault(code, "HEADERS shorter than its padding or priority");
                };
                let (stream, end) = (frame.stream, frame.has(flag::END_STREAM));
                if frame.has(flag::END_HEADERS) {
                    return self.take_block(stream, block, depends, end, head, out, now);
                }
                let bytes = block.to_vec();
                self.open_block = Some(OpenBlock { stream, end, depends, bytes, frames: 1 });
                Ok(None)
            }
            kind::CONTINUATION => self.take_continuation(frame, payload, head, out, now),
            kind::PRIORITY => self.take_priority(frame, payload, out, now),
            kind::RST_STREAM => self.take_reset(frame.stream, payload, out, now),
            kind::SETTINGS => self.take_settings(frame, payload, out, now),
            kind::PING => self.take_ping(frame, payload, out, now),
            kind::GOAWAY => self.take_goaway(payload, now),
            kind::WINDOW_UPDATE => self.take_window(frame.stream, payload, out, now),
            _ => Ok(None),
        }
    }

    fn take_continuation(
        &mut self,
        frame: FrameHead,
        payload: &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        let Some(mut block) = self.open_block.take() else { return Ok(None) };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        // Encoded, a head is hardly ever longer than it is.
        let most = 2 * self.limits.bytes + DEFAULT_MAX_FRAME as usize;
        let needed = block.bytes.len() / DEFAULT_MAX_FRAME as usize;
        if block.bytes.len() > most || block.frames > 2 * needed + H2_SPARE_CONTINUATIONS {
            return fault(Code::CALM, "a block of fields that does not end");
        }
        if !frame.has(flag::END_HEADERS) {
            self.open_block = Some(block);
            return Ok(None);
        }
        let OpenBlock { stream, end, depends, bytes, .. } = block;
        self.take_block(stream, &bytes, depends, end, head, out, now)
    }

    #[allow(clippy::too_many_arguments, reason = "a block, its frame, and the caller's memory")]
    fn take_block(
        &mut self,
        id: u32,
        block: &[u8],
        depends: Option<u32>,
        end: bool,
        head: &mut Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        let known = self.streams.find(id);
        let receiving = known.and_then(|stream| self.streams.get(stream)).map(|s| s.receiving);
        let kind = match (receiving, self.role) {
            (None, Role::Server) => Block::Request,
            (None | Some(Receiving::Head), _) => Block::Response,
            _ => Block::Trailers,
        };
        let fresh = known.is_none() && self.role == Role::Server && self.is_new(id);
        if known.is_none() && !fresh {
            self.judge_late_head(id)?;
        }
        // Decoded in any case, for the tables are the connection's.
        let good = match head.decode(&mut self.decoder, block, kind, self.limits) {
            Ok(good) => good && depends != Some(id),
            Err(hpack::Error::Malformed) => {
                return fault(Code::COMPRESSION, "a malformed block of fields");
            }
            Err(hpack::Error::TooLarge) => {
                return fault(Code::CALM, "a block of fields that is far too large");
            }
        };
        match (known, receiving) {
            (Some(stream), Some(receiving)) => {
                self.take_known(stream, receiving, good, end, head, out, now)
            }
            _ if fresh => self.take_request(id, good, end, head, out, now),
            _ => self.useless(1, now),
        }
    }

    /// Whether a client may open this stream now.
    fn is_new(&self, id: u32) -> bool {
        !id.is_multiple_of(2) && id > self.last && !self.is_untaken(id)
    }

    /// A head for a stream that is not alive: late, or wrong.
    fn judge_late_head(&self, id: u32) -> Result<(), Fault> {
        if self.is_idle(id) {
            return fault(Code::PROTOCOL, "HEADERS of a stream that the peer can't open");
        }
        match self.past(id) {
            Past::GivenUp => Ok(()),
            _ if self.is_untaken(id) => Ok(()),
            Past::Closed => fault(Code::STREAM_CLOSED, "HEADERS of a stream that has ended"),
            Past::Unknown => fault(Code::PROTOCOL, "HEADERS of a stream that is passed over"),
        }
    }

    /// A head opens a stream.
    fn take_request(
        &mut self,
        id: u32,
        good: bool,
        end: bool,
        head: &Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        self.last = id;
        let short = end && head.length().is_some_and(|length| length > 0);
        let crowded = self.streams.alive() >= H2_STREAMS as usize;
        if crowded || !good || short {
            let code = if crowded { Code::REFUSED } else { Code::PROTOCOL };
            frame::put_reset(out, id, code);
            self.streams.remember(id, true, self.role.windows()[0]);
            return self.came_to_nothing(now).map(|()| None);
        }
        let receiving = if end { Receiving::Ended } else { Receiving::Body };
        let windows = [self.peer.window, self.role.windows()[0]];
        let stream = self.streams.open(id, receiving, windows);
        if let Some(known) = self.streams.get_mut(stream) {
            known.expected = head.length();
        }
        self.budget.moved();
        Ok(Some(Event::Head { stream, end }))
    }

    /// A response, or trailers.
    #[allow(clippy::too_many_arguments, reason = "a head, its frame, and the caller's memory")]
    fn take_known(
        &mut self,
        stream: StreamRef,
        receiving: Receiving,
        good: bool,
        end: bool,
        head: &Head,
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        let Some(known) = self.streams.get_mut(stream) else { return Ok(None) };
        let code = match receiving {
            Receiving::Ended => Some(Code::STREAM_CLOSED),
            // Trailers end a stream, and all of the body has come before them (8.1).
            Receiving::Body if !good || !end || known.expected.is_some_and(|left| left > 0) => {
                Some(Code::PROTOCOL)
            }
            Receiving::Head if !good || end && head.status() < 200 => Some(Code::PROTOCOL),
            _ => None,
        };
        if let Some(code) = code {
            return self.stream_error(stream, code, out, now);
        }
        if receiving == Receiving::Body {
            self.end_receiving(stream, out);
            return Ok(Some(Event::Trailers { stream }));
        }
        if head.status() < 200 {
            self.useless(1, now)?;
            return Ok(Some(Event::Head { stream, end }));
        }
        let bodiless = known.to_head || head.status() == 304;
        known.expected = if bodiless { None } else { head.length() };
        if end && known.expected.is_some_and(|length| length > 0) {
            return self.stream_error(stream, Code::PROTOCOL, out, now);
        }
        known.receiving = Receiving::Body;
        self.budget.moved();
        if end {
            self.end_receiving(stream, out);
        }
        Ok(Some(Event::Head { stream, end }))
    }

    /// Priorities are not followed (5.3.2); a stream that depends on itself is wrong all the same.
    fn take_priority(
        &mut self,
        frame: FrameHead,
        payload: &[u8],
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        let depends = number(payload).map(|stream| stream & MAX_WINDOW);
        let code = if frame.len != 5 {
            Code::FRAME_SIZE
        } else if depends == Some(frame.stream) {
            Code::PROTOCOL
        } else {
            return self.useless(1, now);
        };
        match self.streams.find(frame.stream) {
            Some(stream) => self.stream_error(stream, code, out, now),
            None => fault(code, "a malformed PRIORITY"),
        }
    }

    fn take_reset(&mut self, id: u32, payload: &[u8], out: &mut Vec<u8>, now: Mono) -> Outcome {
        let code = Code(number(payload).unwrap_or_default());
        let Some(stream) = self.streams.find(id) else {
            return self.late(id, None, out, now);
        };
        self.close(stream, false, out);
        if self.role == Role::Server {
            self.came_to_nothing(now)?;
        }
        let unprocessed = code == Code::REFUSED;
        Ok(Some(Event::Reset { stream, code, by_peer: true, unprocessed }))
    }

    fn take_settings(
        &mut self,
        frame: FrameHead,
        payload: &[u8],
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        let ack = frame.has(flag::ACK);
        if ack && frame.len > 0 || !frame.len.is_multiple_of(6) {
            return fault(Code::FRAME_SIZE, "SETTINGS of a wrong size");
        }
        self.useless(1 + frame.len / 64, now)?;
        if ack {
            return Ok(None);
        }
        for (name, value) in frame::settings(payload) {
            self.set(name, value)?;
        }
        self.peer.known = true;
        frame::put_settings_ack(out);
        Ok(None)
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), Fault> {
        let flag = |value| match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => fault(Code::PROTOCOL, "a setting that is neither 0 nor 1"),
        };
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.allow(value),
            setting::ENABLE_PUSH if flag(value)? && self.role == Role::Client => {
                return fault(Code::PROTOCOL, "a server that enables push");
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting::INITIAL_WINDOW_SIZE => return self.set_window(value),
            setting::MAX_FRAME_SIZE if !(DEFAULT_MAX_FRAME..1 << 24).contains(&value) => {
                return fault(Code::PROTOCOL, "SETTINGS_MAX_FRAME_SIZE out of range");
            }
            setting::ENABLE_CONNECT_PROTOCOL => self.peer.connect_protocol = flag(value)?,
            _ => {}
        }
        Ok(())
    }

    /// The windows of all streams change by as much as the first ones (6.9.2).
    fn set_window(&mut self, value: u32) -> Result<(), Fault> {
        if value > MAX_WINDOW {
            return fault(Code::FLOW_CONTROL, "SETTINGS_INITIAL_WINDOW_SIZE out of range");
        }
        let change = i64::from(value) - i64::from(self.peer.window);
        self.peer.window = value;
        for (_, stream) in self.streams.iter_mut() {
            stream.send_window += change;
            if stream.send_window > i64::from(MAX_WINDOW) {
                return fault(Code::FLOW_CONTROL, "a window beyond 2^31-1");
            }
        }
        Ok(())
    }

    fn take_ping(
        &mut self,
        frame: FrameHead,
        payload: &[u8],
        out: &mut Vec<u8>,
        now: Mono,
    ) -> Outcome {
        self.useless(1, now)?;
        if !frame.has(flag::ACK) {
            frame::put_ping(out, true, payload);
        } else if payload == super::send::DRAIN_PING {
            self.finish_drain(out);
        }
        Ok(None)
    }

    fn take_goaway(&mut self, payload: &[u8], now: Mono) -> Outcome {
        self.useless(1, now)?;
        let (last, code) = payload.split_at_checked(4).unwrap_or_default();
        let [last, code] = [last, code].map(|bytes| number(bytes).unwrap_or_default());
        if self.role == Role::Client {
            let last = last & MAX_WINDOW;
            self.peer_last = Some(self.peer_last.map_or(last, |before| before.min(last)));
        }
        Ok(Some(Event::GoAway { code: Code(code) }))
    }

    fn take_window(&mut self, id: u32, payload: &[u8], out: &mut Vec<u8>, now: Mono) -> Outcome {
        let more = i64::from(number(payload).unwrap_or_default() & MAX_WINDOW);
        self.useless(1, now)?;
        if id == 0 {
            self.send_window += more;
            return match more {
                0 => fault(Code::PROTOCOL, "WINDOW_UPDATE of nothing"),
                _ if self.send_window > i64::from(MAX_WINDOW) => {
                    fault(Code::FLOW_CONTROL, "a window beyond 2^31-1")
                }
                _ => Ok(None),
            };
        }
        let Some(stream) = self.streams.find(id) else {
            return if self.is_idle(id) {
                fault(Code::PROTOCOL, "WINDOW_UPDATE of a stream that was never opened")
            } else {
                Ok(None)
            };
        };
        let Some(known) = self.streams.get_mut(stream) else { return Ok(None) };
        known.send_window += more;
        let code = match more {
            0 => Code::PROTOCOL,
            _ if known.send_window > i64::from(MAX_WINDOW) => Code::FLOW_CONTROL,
            _ => return Ok(None),
        };
        self.stream_error(stream, code, out, now)
    }

    /// `bytes` of the stream's body have gone on: its window and the connection's reopen, in large
    /// steps.
    pub(crate) fn consumed(&mut self, stream: StreamRef, bytes: usize, out: &mut Vec<u8>) {
        let Some(known) = self.streams.get_mut(stream) else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(known.held);
        known.held -= bytes;
        known.credit += bytes;
        if known.credit >= self.role.windows()[0] / 2 && known.receiving != Receiving::Ended {
            known.receive_window += known.credit;
            frame::put_window(out, stream.id(), std::mem::take(&mut known.credit));
        }
        self.give_credit(bytes, out);
    }

    /// Gives back part of the connection's window.
    fn give_credit(&mut self, bytes: u32, out: &mut Vec<u8>) {
        self.credit += bytes;
        if self.credit >= self.role.windows()[1] / 2 {
            self.receive_window += self.credit;
            frame::put_window(out, 0, std::mem::take(&mut self.credit));
        }
    }

    /// The peer's side of a stream has ended.
    pub(super) fn end_receiving(&mut self, stream: StreamRef, out: &mut Vec<u8>) {
        let Some(known) = self.streams.get_mut(stream) else { return };
        known.receiving = Receiving::Ended;
        self.close_if_ended(stream, out);
    }

    /// Ends a stream; what it holds of the connection's window is given back.
    pub(super) fn close(&mut self, stream: StreamRef, given_up: bool, out: &mut Vec<u8>) {
        if let Some(was) = self.streams.close(stream, given_up) {
            self.give_credit(was.held, out);
        }
    }
}
