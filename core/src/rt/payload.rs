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
}

impl Payload {
    /// The two pieces that make up the payload; the second is empty but for `BufLease`.
    pub(super) fn pieces(&self) -> [&[u8]; 2] {
        match self {
            Payload::Static(bytes) => [bytes, &[]],
            Payload::Buf(buf) => [buf.as_slice(), &[]],
            Payload::Lease(lease) => [lease, &[]],
            Payload::BufLease(buf, lease) => [buf.as_slice(), lease],
        }
    }

    /// Appends a copy of its bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        let [first, second] = self.pieces();
        first.len() + second.len()
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

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Payload::Static(bytes)
    }
}
