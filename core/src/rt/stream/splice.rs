//! Bytes that never come here: from this socket into a pipe, and from a pipe into this socket. The
//! calls are made at once (the ring would hand them to a thread of the kernel's), and what they
//! have to wait for is a poll in the ring, in place of the half's receive or send.
//!
//! A stream that is spliced is set apart first: no receive or send of the ring may be in flight,
//! since the socket is non-blocking then, which makes the ring fail where it would wait.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, types};

use super::{StreamInner, TcpStream};
use crate::rt::ops::{Op, OpId};
use crate::rt::pipe::Pipe;
use crate::rt::shard::{self, Shard};
use crate::rt::sys;

impl TcpStream {
    /// Ends the receive that is armed, if any. What it has brought is still to be had by
    /// `poll_recv`, which arms none until `end_splice`.
    pub fn pause(&self) {
        shard::with(|shard| self.0.recv.pause(shard));
    }

    /// True once a paused stream has no receive in flight and all that it has received was taken.
    pub fn is_paused(&self) -> bool {
        self.0.recv.is_paused()
    }

    /// Whether a receive is in flight.
    pub fn is_receiving(&self) -> bool {
        self.0.recv.in_flight()
    }

    /// Ready once no receive is in flight; what it has brought may wait. One task may wait at a
    /// time.
    pub fn poll_paused(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_receiving() {
            return Poll::Ready(());
        }
        self.0.recv.wait(cx.waker());
        Poll::Pending
    }

    /// Whether bytes stand in the socket that nobody has received. A system call.
    pub fn has_unread(&self) -> bool {
        sys::has_unread(self.0.fd)
    }

    /// Makes a paused stream without a send in flight ready for `poll_fill` and `poll_drain`.
    ///
    /// # Errors
    /// The kernel's; then it is as before.
    pub fn begin_splice(&self) -> io::Result<()> {
        sys::set_nonblocking(self.0.fd, true)
    }

    /// Receives and sends are the ring's again; also after a mere `pause`.
    pub fn end_splice(&self) {
        shard::with(|shard| self.0.recv.resume(shard));
        // Of an open socket the kernel refuses this no more than it did before.
        let _ = sys::set_nonblocking(self.0.fd, false);
    }

    /// Moves what has arrived into `pipe`, which must be empty, but at most `most` bytes (not 0);
    /// returns how many, and 0 once the peer has sent FIN. One task may wait at a time.
    ///
    /// # Errors
    /// The connection's; the same again on each further call.
    pub fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.0.poll_fill(cx, pipe, most)
    }

    /// Sends bytes of `pipe`, as many as the kernel takes; returns how many. One task may wait at a
    /// time.
    ///
    /// # Errors
    /// The connection's, for good.
    pub fn poll_drain(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        self.0.poll_drain(cx, pipe)
    }
}

impl StreamInner {
    fn poll_fill(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let half = &self.recv;
        if let Some(ended) = half.ended() {
            return Poll::Ready(ended.map(|()| 0));
        }
        if !half.in_flight() {
            match self.take_into(pipe, most) {
                Err(code) if is_not_yet(code) => self.await_bytes(),
                moved => {
                    half.spliced(moved);
                    let moved = moved.map_err(io::Error::from_raw_os_error)?;
                    pipe.held += moved;
                    return Poll::Ready(Ok(moved));
                }
            }
        }
        half.wait(cx.waker());
        Poll::Pending
    }

    fn poll_drain(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let half = &self.send;
        if !half.in_flight() {
            half.result()?;
            let wanted = shard::with(|shard| cut(shard, pipe.held));
            match sys::splice(pipe.read, self.fd, wanted) {
                Err(code) if is_not_yet(code) => self.await_room(),
                moved => {
                    half.spliced(moved);
                    let moved = moved.map_err(io::Error::from_raw_os_error)?;
                    pipe.held -= moved.min(pipe.held);
                    shard::with(|shard| shard.stats.spliced_bytes.add(moved as u64));
                    return Poll::Ready(Ok(moved));
                }
            }
        }
        half.wait(cx.waker());
        Poll::Pending
    }

    /// What has arrived goes into `pipe`, by a copy where the kernel splices nothing although there
    /// is something: urgent data is next, which ends each splice before it (and looks like the end
    /// once a FIN has come) until a receive has passed it over.
    fn take_into(&self, pipe: &Pipe, most: usize) -> Result<usize, i32> {
        match sys::splice(self.fd, pipe.write, most) {
            Err(code) if is_not_yet(code) && self.recv.is_nonempty() => (),
            Ok(0) => (),
            moved => return moved,
        }
        sys::copy_into_pipe(self.fd, pipe.write, most)
    }

    fn await_bytes(self: &Rc<Self>) {
        let id = self.watch_for(Op::Recv(Rc::clone(self)), libc::POLLIN | libc::POLLRDHUP);
        self.recv.polls(id);
    }

    fn await_room(self: &Rc<Self>) {
        let id = self.watch_for(Op::Send(Rc::clone(self)), libc::POLLOUT);
        self.send.polls(id);
    }

    fn watch_for(&self, op: Op, what: i16) -> OpId {
        let fd = types::Fd(self.fd);
        let what = u32::from(what.cast_unsigned());
        // SAFETY: the entry points at nothing.
        shard::with(|shard| unsafe { shard.submit(op, || opcode::PollAdd::new(fd, what).build()) })
    }
}

/// The kernel has nothing to give, or no room.
fn is_not_yet(code: i32) -> bool {
    matches!(code, libc::EAGAIN | libc::EINTR)
}

/// How much of so many bytes is sent at once: all, but for a fault.
fn cut(shard: &Shard, held: usize) -> usize {
    match &shard.faults {
        Some(faults) if faults.strikes(faults.plan().short_send) => {
            1 + faults.below(held as u64) as usize
        }
        _ => held,
    }
}
