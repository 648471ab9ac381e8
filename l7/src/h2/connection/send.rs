//! Pure: what we send: heads, body within the peer's windows, resets, and the steps of a drain.

use super::streams::{Receiving, Sending};
use super::{Connection, Drain, Role, StreamRef};
use crate::h2::block::BlockWriter;
use crate::h2::frame::{
    self, Code, DEFAULT_MAX_FRAME, FrameHead, HEAD, MAX_STREAM, flag, kind, patch_len,
};
use crate::limits::H2_STREAMS;

/// What the PING of a drain carries: once it comes back, the peer has seen the first GOAWAY.
pub(super) const DRAIN_PING: &[u8] = b"draining";

impl Connection {
    /// Whether a stream may be opened now, by a client.
    pub(crate) fn may_open(&self) -> bool {
        self.role == Role::Client && !self.is_spent() && self.streams.alive() < self.capacity()
    }

    /// Streams that may be open at a time, as far as is known, by a client.
    pub(crate) fn capacity(&self) -> usize {
        self.peer.max_streams.min(H2_STREAMS) as usize
    }

    /// The peer has told its settings.
    pub(crate) fn is_settled(&self) -> bool {
        self.peer.known
    }

    /// No more streams can be opened, ever: the peer goes away, or the numbers are used up.
    pub(crate) fn is_spent(&self) -> bool {
        self.peer_last.is_some() || self.last > MAX_STREAM
    }

    /// The peer takes extended CONNECT (RFC 8441, 3).
    pub(crate) fn takes_protocols(&self) -> bool {
        self.peer.connect_protocol
    }

    /// Opens a stream with the request that `fields` writes; `end`: no body follows. `to_head`
    /// says that it is HEAD. `None`: not now.
    pub(crate) fn open(
        &mut self,
        to_head: bool,
        end: bool,
        out: &mut Vec<u8>,
        fields: impl FnOnce(&mut BlockWriter<'_>),
    ) -> Option<StreamRef> {
        if !self.may_open() {
            return None;
        }
        let windows = [self.peer.window, self.role.windows()[0]];
        let stream = self.streams.open(self.last, Receiving::Head, windows);
        self.last += 2;
        self.budget.moved();
        if let Some(known) = self.streams.get_mut(stream) {
            known.to_head = to_head;
        }
        self.send_head(stream, end, out, fields);
        Some(stream)
    }

    /// Sends a response's head, or an interim one; `end`: no body follows. False: the stream is
    /// gone, or its head was sent before.
    pub(crate) fn send_head(
        &mut self,
        stream: StreamRef,
        end: bool,
        out: &mut Vec<u8>,
        fields: impl FnOnce(&mut BlockWriter<'_>),
    ) -> bool {
        if self.streams.get(stream).is_none_or(|known| known.sending != Sending::Head) {
            return false;
        }
        let interim = self.put_block(stream.id(), end, out, fields);
        if !interim && let Some(known) = self.streams.get_mut(stream) {
            known.sending = Sending::Body;
            if end {
                self.end_sending(stream, out);
            }
        }
        true
    }

    /// Sends trailers, which end our side. False: the stream is gone, or can't have them now.
    pub(crate) fn send_trailers(
        &mut self,
        stream: StreamRef,
        out: &mut Vec<u8>,
        fields: impl FnOnce(&mut BlockWriter<'_>),
    ) -> bool {
        if self.streams.get(stream).is_none_or(|known| known.sending != Sending::Body) {
            return false;
        }
        self.put_block(stream.id(), true, out, fields);
        self.end_sending(stream, out);
        true
    }

    /// Appends HEADERS, and CONTINUATION where one frame is too small; says whether the head is an
    /// interim one.
    fn put_block(
        &mut self,
        id: u32,
        end: bool,
        out: &mut Vec<u8>,
        fields: impl FnOnce(&mut BlockWriter<'_>),
    ) -> bool {
        let end_stream = if end { flag::END_STREAM } else { 0 };
        let flags = flag::END_HEADERS | end_stream;
        let head = FrameHead { len: 0, kind: kind::HEADERS, flags, stream: id };
        out.extend_from_slice(&head.bytes());
        let start = out.len();
        let mut writer = BlockWriter::new(&mut self.encoder, out);
        fields(&mut writer);
        let interim = writer.is_interim();
        let len = out.len() - start;
        if len <= DEFAULT_MAX_FRAME as usize {
            patch_len(out, start, len as u32);
        } else {
            split(out, start, head);
        }
        interim
    }

    /// Says whether the stream has body to send; see `next_sender`.
    pub(crate) fn want(&mut self, stream: StreamRef, wants: bool) {
        if let Some(known) = self.streams.get_mut(stream) {
            known.wants = wants;
        }
    }

    /// The stream whose turn it is to send body, and how many bytes it may in one frame. Each with
    /// body and a window has its turn.
    #[inline]
    pub(crate) fn next_sender(&mut self) -> Option<(StreamRef, usize)> {
        if self.send_window <= 0 {
            return None;
        }
        let (stream, window) = self.streams.next_sender()?;
        Some((stream, self.frame_room(window)))
    }

    /// How many bytes of body the stream may send in one frame now.
    pub(crate) fn room(&self, stream: StreamRef) -> usize {
        self.streams.get(stream).map_or(0, |known| self.frame_room(known.send_window))
    }

    fn frame_room(&self, window: i64) -> usize {
        let most = self.send_window.min(window).min(i64::from(DEFAULT_MAX_FRAME));
        usize::try_from(most).unwrap_or_default()
    }

    /// The stream waits for the peer to open a window.
    pub(crate) fn is_stalled(&self, stream: StreamRef) -> bool {
        let short = |known: &super::streams::Stream| known.wants && known.send_window <= 0;
        let known = self.streams.get(stream);
        known.is_some_and(|known| short(known) || known.wants && self.send_window <= 0)
    }

    /// Appends the head of DATA, behind which `len` bytes of body have to follow at once, no more
    /// than `room`; `end`: nothing follows them. False: the stream is gone, or `len` too much;
    /// nothing was appended then.
    pub(crate) fn send_data(
        &mut self,
        stream: StreamRef,
        len: usize,
        end: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let room = self.room(stream);
        let Some(known) = self.streams.get_mut(stream) else { return false };
        if known.sending != Sending::Body || len > room {
            return false;
        }
        known.send_window -= len as i64;
        self.send_window -= len as i64;
        let flags = if end { flag::END_STREAM } else { 0 };
        let head = FrameHead { len: len as u32, kind: kind::DATA, flags, stream: stream.id() };
        out.extend_from_slice(&head.bytes());
        self.budget.sent(len);
        if end {
            self.end_sending(stream, out);
        }
        true
    }

    fn end_sending(&mut self, stream: StreamRef, out: &mut Vec<u8>) {
        let Some(known) = self.streams.get_mut(stream) else { return };
        known.sending = Sending::Ended;
        known.wants = false;
        self.budget.answered();
        self.close_if_ended(stream, out);
    }

    pub(super) fn close_if_ended(&mut self, stream: StreamRef, out: &mut Vec<u8>) {
        let ended = self.streams.get(stream).is_some_and(|known| {
            known.receiving == Receiving::Ended && known.sending == Sending::Ended
        });
        if ended {
            self.close(stream, false, out);
        }
    }

    /// Gives a stream up. A server that has answered in full and doesn't want the rest of the
    /// request says `NO_ERROR` (RFC 9113, 8.1).
    pub(crate) fn reset(&mut self, stream: StreamRef, code: Code, out: &mut Vec<u8>) {
        if self.streams.get(stream).is_some() {
            frame::put_reset(out, stream.id(), code);
            self.close(stream, true, out);
        }
    }

    /// The first step of a drain: the peer is told to open no more streams; those that it has
    /// opened meanwhile are taken. The second follows by itself once the peer has seen it.
    pub(crate) fn go_away(&mut self, out: &mut Vec<u8>) {
        if self.drain == Drain::No {
            self.drain = Drain::Announced;
            frame::put_goaway(out, MAX_STREAM, Code::NO_ERROR);
            frame::put_ping(out, false, DRAIN_PING);
        }
    }

    /// The second step, for a peer that doesn't answer to the first: no more streams are taken.
    pub(crate) fn finish_drain(&mut self, out: &mut Vec<u8>) {
        if self.drain == Drain::Announced {
            let last = if self.role == Role::Server { self.last } else { 0 };
            self.drain = Drain::Final(last);
            frame::put_goaway(out, last, Code::NO_ERROR);
        }
    }
}

/// Splits a block that is too long for one frame (RFC 9113, 4.3).
#[cold]
fn split(out: &mut Vec<u8>, start: usize, head: FrameHead) {
    let block = out.split_off(start);
    out.truncate(start - HEAD);
    let pieces = block.chunks(DEFAULT_MAX_FRAME as usize);
    let last = pieces.len() - 1;
    for (n, piece) in pieces.enumerate() {
        let kind = if n == 0 { kind::HEADERS } else { kind::CONTINUATION };
        let end_stream = if n == 0 { head.flags & flag::END_STREAM } else { 0 };
        let end_headers = if n == last { flag::END_HEADERS } else { 0 };
        let flags = end_stream | end_headers;
        let frame = FrameHead { len: piece.len() as u32, kind, flags, stream: head.stream };
        out.extend_from_slice(&frame.bytes());
        out.extend_from_slice(piece);
    }
}
