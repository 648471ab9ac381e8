//! Moves a body from leases to payloads: data goes out in the lease it came in, behind a chunk
//! prefix where one is needed; only small pieces are copied, so that they share a send with what
//! stands in front of them.

use weir_core::rt::{Lease, Payload, SendBuf};

use super::decode::{BadBody, Decoder, Step};
use super::{Frame, Framing, MAX_END, MAX_PREFIX};
use crate::limits::{BULK_BYTES, COPY_MAX};

/// One direction of an exchange: the decoder of what comes, the framing of what goes.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    decoder: Decoder,
    frame: Frame,
    /// The end of a chunked body still has to follow the payload handed out last.
    end_owed: bool,
    /// What has come of the trailer section, where somebody wants it.
    trailer: Option<Vec<u8>>,
}

/// What became of a lease.
#[derive(Debug)]
pub(crate) struct Piece {
    /// To be sent; `None` when the lease held framing only and there was nothing in front.
    pub(crate) payload: Option<Payload>,
    /// What stands behind the body's end.
    pub(crate) rest: Option<Lease>,
}

impl Relay {
    /// A relay of a body delimited by `framing`, in chunks of together at most `most` bytes, that
    /// goes out as `frame`.
    pub(crate) fn new(framing: Framing, most: u64, frame: Frame) -> Relay {
        Relay { decoder: Decoder::new(framing, most), frame, end_owed: false, trailer: None }
    }

    /// The same, with its trailer section kept.
    pub(crate) fn with_trailer(mut self) -> Relay {
        self.trailer = Some(Vec::new());
        self
    }

    /// The field lines of the trailer section, once the body has ended; `None`: there are none.
    pub(crate) fn take_trailer(&mut self) -> Option<Vec<u8>> {
        // The line that ends it is empty.
        self.trailer.take().filter(|lines| lines.len() > 2)
    }

    fn keep(&mut self, input: &[u8], step: Step) {
        if let Some(kept) = &mut self.trailer {
            let start = step.skip - step.trailer;
            kept.extend_from_slice(input.get(start..step.skip).unwrap_or_default());
        }
    }

    /// The body's end has come in.
    #[inline]
    pub(crate) fn ended(&self) -> bool {
        self.decoder.ended()
    }

    /// It has, and its end was handed out.
    #[inline]
    pub(crate) fn finished(&self) -> bool {
        self.decoder.ended() && !self.end_owed
    }

    /// So much is known to come that large leases pay.
    pub(crate) fn is_bulk(&self) -> bool {
        self.decoder.expected() > BULK_BYTES
    }

    /// Bytes still to come of a body that goes out as it comes, whose head told their number.
    pub(crate) fn plain_left(&self) -> Option<u64> {
        let plain = self.frame == Frame::Plain && self.decoder.has_length();
        plain.then(|| self.decoder.expected())
    }

    /// So many bytes of such a body went another way.
    pub(crate) fn pass(&mut self, bytes: u64) {
        self.decoder.pass(bytes);
    }

    /// How long it is only its end tells, which has not come.
    pub(crate) fn is_open_ended(&self) -> bool {
        !self.decoder.ended() && !self.decoder.has_length()
    }

    /// The body may end by the peer's FIN; then this is what ends it on the other side.
    pub(crate) fn end_by_close(&mut self) -> Option<&'static [u8]> {
        if !self.decoder.ends_by_close() {
            return None;
        }
        self.decoder = Decoder::default();
        Some(self.frame.end())
    }

    /// The same behind the bytes that were pushed last: the body's end is owed.
    pub(crate) fn end_behind(&mut self) {
        if self.decoder.ends_by_close() {
            self.decoder = Decoder::default();
            self.end_owed = self.frame != Frame::Plain;
        }
    }

    /// The end of a chunked body, when it didn't fit behind the last payload. Taken once.
    #[inline]
    pub(crate) fn take_end(&mut self) -> Option<&'static [u8]> {
        if !self.end_owed {
            return None;
        }
        self.end_owed = false;
        Some(self.frame.end())
    }

    /// The end of the chunk that was sent last, if it didn't fit behind its data. To be sent before
    /// waiting for more data, which would otherwise bring it.
    #[inline]
    pub(crate) fn take_chunk_end(&mut self) -> Option<&'static [u8]> {
        let end = self.frame.close();
        (!end.is_empty()).then_some(end)
    }

    /// Whether `lease` fits behind `head` without making it grow.
    #[inline]
    pub(crate) fn fits(head: &SendBuf, lease: &Lease) -> bool {
        // The data of n bytes of chunks needs no more than n bytes when its framing is written
        // anew, but for the prefix of a chunk that goes on in the next lease, and the end.
        lease.len() <= COPY_MAX
            && head.capacity() - head.len() >= lease.len() + MAX_PREFIX + MAX_END
    }

    /// Copies the data of `lease` behind `head`, the end included if it has come. Returns what
    /// stands behind the body's end.
    pub(crate) fn copy(
        &mut self,
        head: &mut Vec<u8>,
        mut lease: Lease,
    ) -> Result<Option<Lease>, BadBody> {
        let mut at = 0;
        while at < lease.len() && !self.decoder.ended() {
            let input = lease.get(at..).unwrap_or_default();
            let step = self.decoder.step(input)?;
            self.keep(input, step);
            let data = input.get(step.skip..step.skip + step.data).unwrap_or_default();
            if !data.is_empty() {
                self.frame.begin(head, data.len());
                head.extend_from_slice(data);
                head.extend_from_slice(self.frame.close());
            }
            at += step.skip + step.data;
        }
        if self.decoder.ended() {
            head.extend_from_slice(self.frame.end());
        }
        lease.advance(at);
        Ok((!lease.is_empty()).then_some(lease))
    }

    /// Turns `lease` into a payload behind `head`.
    pub(crate) fn push(&mut self, head: Option<SendBuf>, lease: Lease) -> Result<Piece, BadBody> {
        let plain = self.frame == Frame::Plain && head.is_none();
        if !plain {
            let mut out = head.unwrap_or_default();
            if !Relay::fits(&out, &lease) {
                return self.push_lease(Some(out), lease);
            }
            let rest = self.copy(&mut out, lease)?;
            let payload = (!out.is_empty()).then_some(Payload::Buf(out));
            return Ok(Piece { payload, rest });
        }
        self.push_lease(None, lease)
    }

    /// The same without copying: the data is drawn together within the lease.
    fn push_lease(&mut self, head: Option<SendBuf>, mut lease: Lease) -> Result<Piece, BadBody> {
        let found = self.gather(&mut lease)?;
        let mut out = head;
        if found.len > 0 && self.frame != Frame::Plain {
            self.frame.begin(out.get_or_insert_default(), found.len);
        }
        self.end_owed = self.decoder.ended() && self.frame != Frame::Plain;
        if found.used < lease.len() {
            // Two owners for one lease: the next message keeps it, the data is copied.
            let mut out = out.unwrap_or_default();
            let data = lease.get(found.start..found.start + found.len).unwrap_or_default();
            out.extend_from_slice(data);
            out.extend_from_slice(self.take_end().unwrap_or_default());
            lease.advance(found.used);
            let payload = (!out.is_empty()).then_some(Payload::Buf(out));
            return Ok(Piece { payload, rest: Some(lease) });
        }
        let mut end = found.start + found.len;
        end += self.write_end(lease.get_mut(end..).unwrap_or_default());
        lease.truncate(end);
        lease.advance(found.start);
        let payload = match (out, lease.is_empty()) {
            (Some(out), true) => Some(Payload::Buf(out)),
            (Some(out), false) => Some(Payload::BufLease(out, lease)),
            (None, true) => None,
            (None, false) => Some(Payload::Lease(lease)),
        };
        Ok(Piece { payload, rest: None })
    }

    /// Writes what follows the data into the room that its old framing leaves, if that is enough;
    /// returns how much it wrote.
    fn write_end(&mut self, room: &mut [u8]) -> usize {
        let mut frame = self.frame;
        let end = if self.end_owed { frame.end() } else { frame.close() };
        let Some(room) = room.get_mut(..end.len()) else { return 0 };
        room.copy_from_slice(end);
        self.frame = frame;
        self.end_owed = false;
        end.len()
    }

    /// Decodes in place: moves all data of `lease` together, behind its first data byte.
    fn gather(&mut self, lease: &mut [u8]) -> Result<Found, BadBody> {
        let mut found = Found::default();
        while found.used < lease.len() && !self.decoder.ended() {
            let input = lease.get(found.used..).unwrap_or_default();
            let step = self.decoder.step(input)?;
            self.keep(input, step);
            let from = found.used + step.skip;
            found.used = from + step.data;
            if found.len == 0 {
                found.start = from;
            } else {
                lease.copy_within(from..found.used, found.start + found.len);
            }
            found.len += step.data;
        }
        Ok(found)
    }
}

#[derive(Default)]
struct Found {
    start: usize,
    len: usize,
    used: usize,
}
