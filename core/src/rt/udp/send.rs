//! Sending datagrams. A send never waits: the kernel takes the datagram at once or it is dropped
//! and counted, so that one full socket holds nobody up. Owns the payload until the kernel is done.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::UdpInner;
use super::recv::is_of_a_peer;
use super::wire::{self, CONTROL_ROOM, NAME_ROOM};
use crate::limits;
use crate::rt::ops::{Op, OpId};
use crate::rt::payload::{PIECES, Payload};
use crate::rt::ring::Completion;
use crate::rt::shard::{self, Shard};

/// How often a datagram is tried again when the kernel reports an error that may be about another.
const TRIES: u8 = 8;

/// One datagram on its way to the kernel; pooled by the shard. Boxed, so that pointers hold.
pub(in crate::rt) struct Sending {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES],
    name: Aligned<NAME_ROOM>,
    control: Aligned<CONTROL_ROOM>,
    payload: Payload,
}

/// Bytes at an address that suits control messages.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

impl Sending {
    fn new() -> Box<Sending> {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Box::new(Sending {
            // SAFETY: all-zero bytes are a valid msghdr: null pointers, zero lengths.
            header: unsafe { std::mem::zeroed() },
            pieces: [nothing; PIECES],
            name: Aligned([0; NAME_ROOM]),
            control: Aligned([0; CONTROL_ROOM]),
            payload: Payload::Static(&[]),
        })
    }

    fn fill(&mut self, payload: Payload, to: SocketAddr, from: Option<IpAddr>) {
        self.payload = payload;
        self.header.msg_namelen = wire::write_name(to, &mut self.name.0) as libc::socklen_t;
        self.header.msg_controllen =
            from.map_or(0, |from| wire::write_source(from, &mut self.control.0));
    }

    /// The operation that sends it. Without a source, and in one piece, the datagram needs no
    /// header, which the kernel would have to copy and check. What the entry points at lies in this
    /// box or is owned by its payload.
    fn entry(&mut self, fd: types::Fd, flags: i32) -> squeue::Entry {
        let one = match &self.payload {
            Payload::Static(bytes) => *bytes,
            Payload::Buf(buf) => buf.as_slice(),
            Payload::Lease(lease) => lease,
            Payload::BufLease(..) | Payload::Framed(_) => &[],
        };
        if self.header.msg_controllen > 0 || one.is_empty() {
            return opcode::SendMsg::new(fd, self.aim()).flags(flags.cast_unsigned()).build();
        }
        // A datagram is far shorter than 4 GiB.
        opcode::Send::new(fd, one.as_ptr(), one.len() as u32)
            .flags(flags)
            .dest_addr(self.name.0.as_ptr().cast())
            .dest_addr_len(self.header.msg_namelen)
            .build()
    }

    /// Points the header at what is to be sent.
    fn aim(&mut self) -> *const libc::msghdr {
        let mut count = 0;
        let pieces = self.payload.pieces().into_iter().filter(|piece| !piece.is_empty());
        for (place, piece) in self.pieces.iter_mut().zip(pieces) {
            place.iov_base = piece.as_ptr().cast_mut().cast();
            place.iov_len = piece.len();
            count += 1;
        }
        self.header.msg_name = self.name.0.as_mut_ptr().cast();
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = count;
        self.header.msg_control = match self.header.msg_controllen {
            0 => std::ptr::null_mut(),
            _ => self.control.0.as_mut_ptr().cast(),
        };
        &raw const self.header
    }
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("bytes", &self.payload.len()).finish_non_exhaustive()
    }
}

/// An operation's hold on socket and datagram. Dropping it gives back what can be used again.
#[derive(Debug)]
pub(in crate::rt) struct Posted {
    socket: Rc<UdpInner>,
    sending: Option<Box<Sending>>,
    /// How often it was tried again.
    again: u8,
}

impl Drop for Posted {
    fn drop(&mut self) {
        let Some(mut sending) = self.sending.take() else { return };
        sending.payload = Payload::Static(&[]);
        shard::try_with(|shard| {
            let mut pool = shard.sendings.borrow_mut();
            if pool.len() < limits::DATAGRAM_SENDS {
                pool.push(sending);
            }
        });
    }
}

impl UdpInner {
    pub(super) fn post(
        self: &Rc<Self>,
        payload: Payload,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> bool {
        shard::with(|shard| {
            if self.sends.get() >= limits::DATAGRAM_SENDS {
                self.dropped(shard);
                return false;
            }
            // From the one address that the socket has it goes anyhow.
            let from = from.filter(|_| self.local.is_none());
            let pooled = shard.sendings.borrow_mut().pop();
            let mut sending = pooled.unwrap_or_else(Sending::new);
            sending.fill(payload, to, from);
            self.submit(shard, sending, 0);
            true
        })
    }

    /// Hands a datagram to the ring; when it is tried again aloud, since completions are being
    /// handled.
    fn submit(self: &Rc<Self>, shard: &Shard, mut sending: Box<Sending>, again: u8) {
        let quiet = shard.features.quiet_sends && again == 0;
        let how = if quiet { squeue::Flags::SKIP_SUCCESS } else { squeue::Flags::empty() };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let entry = sending.entry(types::Fd(self.fd), flags).flags(how);
        let posted = Posted { socket: Rc::clone(self), sending: Some(sending), again };
        // SAFETY: what the entry points at is boxed in `posted`, which the operation owns; the
        // payload's bytes are on the heap or in lent buffers.
        let id = unsafe { shard.submit(Op::SendTo(posted), || entry) };
        self.sends.set(self.sends.get() + 1);
        if quiet {
            shard.quiet_datagrams.borrow_mut().push((id, Rc::clone(self)));
        }
    }

    fn dropped(&self, shard: &Shard) {
        self.drops.set(self.drops.get() + 1);
        shard.stats.datagrams_dropped.add(1);
    }

    fn send_ended(&self, shard: &Shard) {
        self.sends.set(self.sends.get().saturating_sub(1));
        self.finish_close(shard);
    }
}

impl Posted {
    pub(in crate::rt) fn completed(&mut self, shard: &Shard, done: &Completion) {
        let socket = Rc::clone(&self.socket);
        if done.result < 0 && !socket.closing.get() {
            // The kernel may report an error about an earlier datagram in place of sending this
            // one, and when many peers are gone that may happen to it several times.
            let of_another = socket.take_refusals() || is_of_a_peer(-done.result);
            match self.sending.take() {
                Some(sending) if of_another && self.again < TRIES => {
                    socket.submit(shard, sending, self.again + 1);
                }
                sending => {
                    self.sending = sending;
                    socket.dropped(shard);
                }
            }
        }
        socket.send_ended(shard);
    }

    /// A quiet send has been taken.
    pub(in crate::rt) fn settled(&self, shard: &Shard) {
        self.socket.send_ended(shard);
    }
}

/// A send that will not speak up when it succeeds, and its socket.
pub(in crate::rt) type Quiet = (OpId, Rc<UdpInner>);
