//! The sending half: at most one send in flight, so that bytes keep their order; short sends are
//! continued here. Owns the payload until the kernel is done with it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, squeue, types};

use super::StreamInner;
use crate::rt::ops::{Op, OpId};
use crate::rt::payload::{PIECES, Payload};
use crate::rt::place::Place;
use crate::rt::ring::Completion;
use crate::rt::shard::{self, Shard};
use crate::rt::task::WakerSlot;

/// The header of a vectored send; pooled by the shard. Boxed, so that the kernel's pointers hold.
pub(in crate::rt) struct Message {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES],
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("pieces", &self.header.msg_iovlen).finish_non_exhaustive()
    }
}

impl Message {
    fn new() -> Box<Message> {
        // SAFETY: all-zero bytes are valid for both C structs (null pointers, zero lengths).
        Box::new(unsafe { std::mem::zeroed() })
    }

    /// Points the header at the pieces.
    fn aim(&mut self, pieces: &[&[u8]]) -> *const libc::msghdr {
        for (place, piece) in self.pieces.iter_mut().zip(pieces) {
            place.iov_base = piece.as_ptr().cast_mut().cast();
            place.iov_len = piece.len();
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = pieces.len().min(PIECES);
        &raw const self.header
    }
}

/// Half of a stream.
#[derive(Debug, Default)]
pub(in crate::rt) struct SendHalf {
    op: Cell<Option<OpId>>,
    payload: RefCell<Option<Payload>>,
    /// Bytes of the payload that the kernel has taken.
    taken: Cell<usize>,
    /// FIN comes right behind the payload.
    last: Cell<bool>,
    /// The payload goes behind a connect, and whoever connects decides what becomes of a rest.
    linked: Cell<bool>,
    message: Place<Box<Message>>,
    /// The first error; final.
    error: Cell<Option<i32>>,
    waiter: WakerSlot,
    bytes: Cell<u64>,
}

impl SendHalf {
    pub(in crate::rt) fn in_flight(&self) -> bool {
        self.op.get().is_some()
    }

    pub(super) fn bytes(&self) -> u64 {
        let posted = self.payload.borrow().as_ref().map_or(0, Payload::len);
        self.bytes.get() + posted.saturating_sub(self.taken.get()) as u64
    }

    /// The last post was the last of all.
    pub(super) fn holds_back(&self) -> bool {
        self.last.get()
    }

    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.in_flight() {
            self.wait(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(self.result())
    }

    pub(in crate::rt) fn wait(&self, waker: &Waker) {
        self.waiter.set(waker);
    }

    /// A poll was handed to the ring: what is in flight without a payload.
    pub(super) fn polls(&self, id: OpId) {
        self.op.set(Some(id));
    }

    /// So many bytes were sent out of a pipe, or it failed.
    pub(super) fn spliced(&self, moved: Result<usize, i32>) {
        match moved {
            Ok(moved) => self.bytes.set(self.bytes.get() + moved as u64),
            Err(code) => self.error.set(Some(code)),
        }
    }

    /// Bytes of posts that are over, or of which a part is: those have gone out.
    pub(in crate::rt) fn has_sent(&self) -> bool {
        self.bytes.get() > 0
    }

    /// Asks the kernel to end the send in flight, if any.
    pub(in crate::rt) fn cancel(&self, shard: &Shard) {
        if let Some(id) = self.op.get() {
            shard.cancel(id);
        }
    }

    /// What was to go behind a connect that has failed. No send may be in flight.
    pub(in crate::rt) fn take_back(&self, shard: &Shard) -> Option<Payload> {
        let payload = self.payload.take();
        self.finish(shard);
        payload
    }

    /// The handle is gone: cancels what is in flight.
    pub(super) fn abandon(&self, shard: &Shard) {
        self.waiter.clear();
        self.cancel(shard);
    }

    pub(in crate::rt) fn result(&self) -> io::Result<()> {
        self.error.get().map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    fn finish(&self, shard: &Shard) {
        self.payload.take();
        if let Some(message) = self.message.take() {
            shard.messages.borrow_mut().push(message);
        }
        self.waiter.wake();
    }
}

impl StreamInner {
    pub(super) fn post(self: &Rc<Self>, payload: Payload, last: bool) -> io::Result<()> {
        let half = &self.send;
        if half.in_flight() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        half.result()?;
        if payload.is_empty() {
            return Ok(());
        }
        *half.payload.borrow_mut() = Some(payload);
        half.taken.set(0);
        half.last.set(last);
        shard::with(|shard| self.submit_send(shard, shard.features.quiet_sends));
        Ok(())
    }

    /// Prepares `payload` to go behind a connect, by the entry that is returned. Whatever becomes
    /// of it, nothing more is sent until `unlink`, and nothing is dropped until `take_back`.
    pub(in crate::rt) fn link(&self, shard: &Shard, payload: Payload) -> squeue::Entry {
        let half = &self.send;
        let (entry, _) = self.send_entry(shard, &payload, false);
        *half.payload.borrow_mut() = Some(payload);
        half.linked.set(true);
        entry
    }

    /// The send behind a connect was handed to the ring.
    pub(in crate::rt) fn linked_as(&self, id: OpId) {
        self.send.op.set(Some(id));
    }

    /// The connect has gone well: what was behind it is a post like any other, and goes on if the
    /// kernel has not taken all.
    pub(in crate::rt) fn unlink(self: &Rc<Self>, shard: &Shard) {
        let half = &self.send;
        half.linked.set(false);
        if half.in_flight() {
            return;
        }
        match half.result() {
            Ok(()) => self.submit_send(shard, false),
            Err(_) => half.finish(shard),
        }
    }

    /// Hands the rest of the payload to the ring. A `quiet` send is one that the kernel takes whole
    /// at once, without a word; it speaks up only when it cannot, and then the rest is sent aloud.
    fn submit_send(self: &Rc<Self>, shard: &Shard, quiet: bool) {
        let half = &self.send;
        let payload = half.payload.borrow();
        let Some(payload) = payload.as_ref() else { return };
        let (entry, quiet) = self.send_entry(shard, payload, quiet);
        // SAFETY: payload and message belong to this stream, which the operation keeps alive;
        // neither is touched before the completion. Their bytes are on the heap or in lent buffers
        // and do not move when the structs do.
        let id = unsafe { shard.submit(Op::Send(Rc::clone(self)), || entry) };
        half.op.set(Some(id));
        if quiet {
            shard.quiet_sends.borrow_mut().push((id, Rc::clone(self)));
        }
    }

    /// The entry that sends the rest of `payload`, and whether it is a quiet one.
    fn send_entry(&self, shard: &Shard, payload: &Payload, quiet: bool) -> (squeue::Entry, bool) {
        let half = &self.send;
        let (pieces, count, mut flags) = self.what_to_send(shard, payload);
        let quiet = quiet && flags & libc::MSG_WAITALL != 0;
        let mut how = squeue::Flags::empty();
        if quiet {
            flags |= libc::MSG_DONTWAIT;
            how = squeue::Flags::SKIP_SUCCESS;
        }
        let fd = types::Fd(self.fd);
        let entry: squeue::Entry = match &pieces[..count] {
            [only] => {
                let len = u32::try_from(only.len()).unwrap_or(u32::MAX);
                opcode::Send::new(fd, only.as_ptr(), len).flags(flags).build()
            }
            both => {
                let pooled = half.message.take().or_else(|| shard.messages.borrow_mut().pop());
                let mut message = pooled.unwrap_or_else(Message::new);
                let header = message.aim(both);
                half.message.put(message);
                opcode::SendMsg::new(fd, header).flags(flags.cast_unsigned()).build()
            }
        };
        (entry.flags(how), quiet)
    }

    /// What is left of the payload in so many pieces, and the send flags; a fault may cut it short.
    fn what_to_send<'p>(
        &self,
        shard: &Shard,
        payload: &'p Payload,
    ) -> ([&'p [u8]; PIECES], usize, i32) {
        let mut pieces = payload.pieces();
        let (mut taken, mut count) = (self.send.taken.get(), 0);
        for at in 0..PIECES {
            let piece = pieces[at];
            let gone = taken.min(piece.len());
            taken -= gone;
            if gone < piece.len() {
                pieces[count] = &piece[gone..];
                count += 1;
            }
        }
        let mut flags = libc::MSG_NOSIGNAL;
        if self.send.last.get() {
            flags |= libc::MSG_MORE;
        }
        if shard.features.send_waitall {
            flags |= libc::MSG_WAITALL;
        }
        if let Some(faults) = &shard.faults
            && faults.strikes(faults.plan().short_send)
        {
            let short = 1 + faults.below(pieces[0].len() as u64) as usize;
            pieces[0] = &pieces[0][..short];
            return (pieces, 1, libc::MSG_NOSIGNAL);
        }
        (pieces, count, flags)
    }

    pub(in crate::rt) fn send_completed(self: &Rc<Self>, shard: &Shard, done: &Completion) {
        let half = &self.send;
        half.op.set(None);
        let mut unfinished = false;
        match done.result {
            // A poll: whatever it found, the next call into the kernel will tell.
            _ if half.payload.borrow().is_none() => {}
            // Ended early by the kernel, with nothing sent: go on where we were.
            result if matches!(-result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                unfinished = true;
            }
            result @ ..0 => half.error.set(Some(-result)),
            result => {
                let taken = half.taken.get() + result.unsigned_abs() as usize;
                half.taken.set(taken);
                half.bytes.set(half.bytes.get() + u64::from(result.unsigned_abs()));
                unfinished = half.payload.borrow().as_ref().is_some_and(|p| taken < p.len());
            }
        }
        if half.linked.get() && !self.closing.get() && (unfinished || half.error.get().is_some()) {
            half.waiter.wake();
            return;
        }
        if unfinished && !self.closing.get() {
            self.submit_send(shard, false);
            return;
        }
        half.finish(shard);
        self.finish_close(shard);
    }

    /// A quiet send has been taken whole.
    pub(in crate::rt) fn send_settled(&self, shard: &Shard) {
        let half = &self.send;
        half.op.set(None);
        let len = half.payload.borrow().as_ref().map_or(0, Payload::len);
        half.bytes.set(half.bytes.get() + (len - half.taken.get()) as u64);
        half.finish(shard);
        self.finish_close(shard);
    }

    /// Somebody waits for the send in flight, be it to close.
    pub(in crate::rt) fn send_awaited(&self) -> bool {
        self.closing.get() || self.send.waiter.is_set()
    }
}
