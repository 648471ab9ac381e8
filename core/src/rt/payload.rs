//! What is sent: pooled send buffers, and the payload forms that need no copy.

use std::ops::{Deref, DerefMut};

use super::buffers::Lease;
use super::shard;
use crate::limits;

/// An owned, growable send buffer from the shard's pool; it goes back there when dropped or sent.
///
/// Derefs to `Vec<u8>`; starts empty with at least [`limits::SEND_BUFFER`] bytes of room.
#[derive(Debug)]
pub struct SendBuf(Vec<u8>);

impl SendBuf {
    /// An empty buffer, a used one if the pool has one.
    pub fn new() -> Self {
        let pooled = shard::try_with(|shard| shard.send_buffers.borrow_mut().pop()).flatten();
        SendBuf(pooled.unwrap_or_else(|| Vec::with_capacity(limits::SEND_BUFFER)))
    }
}

impl Default for SendBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for SendBuf {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for SendBuf {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for SendBuf {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if bytes.capacity() == 0 || bytes.capacity() > limits::SEND_BUFFER_KEPT {
            return;
        }
        bytes.clear();
        shard::try_with(|shard| {
            let mut pool = shard.send_buffers.borrow_mut();
            if pool.len() < limits::SEND_BUFFERS_POOLED {
                pool.push(bytes);
            }
        });
    }
}

/// What a stream can send without a copy.
#[derive(Debug)]
pub enum Payload {
    /// Constant bytes.
    Static(&'static [u8]),
    /// An owned buffer.
    Buf(SendBuf),
    /// Received bytes, passed on from where they lie.
    Lease(Lease),
    /// A buffer and the received bytes behind it, in one vectored send.
    BufLease(SendBuf, Lease),
    /// Received bytes in slices, with other bytes around each.
    Framed(Framed),
}

/// Bytes that stay where they were received, cut into slices, with bytes of a buffer before,
/// between and behind the slices.
#[derive(Debug)]
pub struct Framed {
    /// What stands around the slices, in order.
    pub frames: SendBuf,
    /// What is cut; at most [`limits::LARGE_LEASE`] bytes.
    pub body: Lease,
    /// Bytes of `frames` before the first slice.
    pub first: usize,
    /// Bytes of `frames` between two slices; the rest goes behind the last.
    pub gap: usize,
}

/// Bytes of a slice.
const SLICE: usize = limits::TLS_TEXT;
/// Pieces of a payload at most.
pub(super) const PIECES: usize = 1 + 2 * limits::LARGE_LEASE.div_ceil(SLICE);

impl Framed {
    fn pieces(&self) -> [&[u8]; PIECES] {
        let mut pieces: [&[u8]; PIECES] = [&[]; PIECES];
        let (head, mut frames) = self.frames.split_at(self.first.min(self.frames.len()));
        pieces[0] = head;
        let slices = self.body.len().div_ceil(SLICE);
        let places = pieces[1..].chunks_exact_mut(2);
        for ((at, slice), place) in (1..).zip(self.body.chunks(SLICE)).zip(places) {
            let len = if at == slices { frames.len() } else { self.gap.min(frames.len()) };
            let (gap, rest) = frames.split_at(len);
            place.copy_from_slice(&[slice, gap]);
            frames = rest;
        }
        pieces
    }
}

impl Payload {
    /// The pieces that make up the payload; some may be empty.
    pub(super) fn pieces(&self) -> [&[u8]; PIECES] {
        let [first, second]: [&[u8]; 2] = match self {
            Payload::Static(bytes) => [bytes, &[]],
            Payload::Buf(buf) => [buf.as_slice(), &[]],
            Payload::Lease(lease) => [lease, &[]],
            Payload::BufLease(buf, lease) => [buf.as_slice(), lease],
            Payload::Framed(framed) => return framed.pieces(),
        };
        let mut pieces: [&[u8]; PIECES] = [&[]; PIECES];
        pieces[0] = first;
        pieces[1] = second;
        pieces
    }

    /// Appends a copy of its bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        match self {
            Payload::Static(bytes) => bytes.len(),
            Payload::Buf(buf) => buf.len(),
            Payload::Lease(lease) => lease.len(),
            Payload::BufLease(buf, lease) => buf.len() + lease.len(),
            Payload::Framed(framed) => framed.frames.len() + framed.body.len(),
        }
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<SendBuf> for Payload {
    fn from(buf: SendBuf) -> Self {
        Payload::Buf(buf)
    }
}

impl From<Lease> for Payload {
    fn from(lease: Lease) -> Self {
        Payload::Lease(lease)
    }
}

impl From<(SendBuf, Lease)> for Payload {
    fn from((buf, lease): (SendBuf, Lease)) -> Self {
        Payload::BufLease(buf, lease)
    }
}

impl From<Framed> for Payload {
    fn from(framed: Framed) -> Self {
        Payload::Framed(framed)
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Payload::Static(bytes)
    }
}
