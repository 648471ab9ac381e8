//! The receiving half of a UDP socket: keeps a receive armed while somebody waits, queues what
//! arrives, and stops receiving when too much waits, so that the kernel's socket buffer, not ours,
//! overflows under a flood. It may be held up altogether: another process is to receive from the
//! very same socket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, squeue, types};

use super::wire::{self, CONTROL_ROOM, DATA_AT, NAME_ROOM};
use super::{Arrival, Datagram, UdpInner, errors};
use crate::limits;
use crate::rt::buffers::{DATAGRAMS, Lease};
use crate::rt::flight::Flight;
use crate::rt::ops::Op;
use crate::rt::place::Place;
use crate::rt::ring::Completion;
use crate::rt::shard::{self, Shard};
use crate::rt::task::WakerSlot;

/// Where a receive puts name and control messages, and what it is told about sizes. Boxed, so that
/// the kernel's pointers hold.
struct Message {
    header: libc::msghdr,
    piece: libc::iovec,
    name: [u64; NAME_ROOM / 8],
    control: [u64; CONTROL_ROOM / 8],
}

impl Message {
    fn new() -> Box<Message> {
        // SAFETY: all-zero bytes are valid for all fields (null pointers, zero lengths, numbers).
        Box::new(unsafe { std::mem::zeroed() })
    }

    /// For a multishot receive, which puts everything into the provided buffer: sizes alone.
    fn sizes(&mut self) -> *const libc::msghdr {
        // SAFETY: as in `new`.
        self.header = unsafe { std::mem::zeroed() };
        self.header.msg_namelen = NAME_ROOM as libc::socklen_t;
        self.header.msg_controllen = CONTROL_ROOM;
        &raw const self.header
    }

    /// For a single receive: the datagram, at most `room` bytes, goes to a provided buffer, the
    /// rest comes here.
    fn aim(&mut self, room: usize) -> *mut libc::msghdr {
        self.sizes();
        self.piece = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: room };
        self.header.msg_name = self.name.as_mut_ptr().cast();
        self.header.msg_control = self.control.as_mut_ptr().cast();
        self.header.msg_iov = &raw mut self.piece;
        self.header.msg_iovlen = 1;
        &raw mut self.header
    }

    /// Name, control messages and flags that a single receive left here.
    fn parts(&self) -> wire::Parts<'_> {
        let name_len = (self.header.msg_namelen as usize).min(NAME_ROOM);
        let control_len = self.header.msg_controllen.min(CONTROL_ROOM);
        // SAFETY: both arrays are initialised, at least that long, and bytes need no alignment.
        unsafe {
            wire::Parts {
                name: std::slice::from_raw_parts(self.name.as_ptr().cast(), name_len),
                control: std::slice::from_raw_parts(self.control.as_ptr().cast(), control_len),
                flags: self.header.msg_flags,
            }
        }
    }
}

/// Half of a socket. Fields are cells, since completions arrive while handles exist.
#[derive(Debug, Default)]
pub(super) struct RecvHalf {
    op: Flight,
    multishot: Cell<bool>,
    starved: Cell<bool>,
    /// Nothing is to be received until it may go on.
    held: Cell<bool>,
    message: Place<Box<Message>>,
    queue: RefCell<VecDeque<Arrival>>,
    /// What makes the socket unusable, until somebody has seen it.
    error: Cell<Option<i32>>,
    waiter: WakerSlot,
}

impl RecvHalf {
    pub(super) fn in_flight(&self) -> bool {
        self.op.is_on()
    }

    /// The handle is gone: drops what waits, cancels what is armed.
    pub(super) fn abandon(&self, shard: &Shard) {
        self.waiter.clear();
        self.queue.take();
        self.op.cancel(shard);
    }

    /// Keeps an arrival for whoever asks next.
    pub(super) fn push(&self, arrival: Arrival) {
        self.queue.borrow_mut().push_back(arrival);
        self.waiter.wake();
    }

    /// Receives nothing any more.
    pub(super) fn hold(&self, shard: &Shard) {
        self.held.set(true);
        self.op.cancel(shard);
    }

    /// Receives again, as soon as somebody asks.
    pub(super) fn go_on(&self) {
        self.held.set(false);
        self.waiter.wake();
    }

    /// It is held up, the ring has let go, and all that had arrived is handed out.
    pub(super) fn is_still(&self) -> bool {
        self.held.get() && !self.in_flight() && !self.has_event()
    }

    fn may_receive(&self) -> bool {
        !self.starved.get() && !self.held.get()
    }

    fn has_event(&self) -> bool {
        self.error.get().is_some() || !self.queue.borrow().is_empty()
    }
}

impl UdpInner {
    pub(super) fn poll_recv(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        let half = &self.recv;
        if let Some(arrival) = half.queue.borrow_mut().pop_front() {
            return Poll::Ready(Ok(arrival));
        }
        if let Some(code) = half.error.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
        }
        half.waiter.set(cx.waker());
        if !half.in_flight() && half.may_receive() {
            shard::with(|shard| self.arm(shard));
        }
        Poll::Pending
    }

    fn arm(self: &Rc<Self>, shard: &Shard) {
        let half = &self.recv;
        let fd = types::Fd(self.fd);
        let strikes = |per_mille: fn(&crate::rt::FaultPlan) -> u16| {
            shard.faults.as_ref().is_some_and(|f| f.strikes(per_mille(f.plan())))
        };
        let short = strikes(|plan| plan.short_buffer);
        let cut = short || strikes(|plan| plan.end_multishot);
        let multishot = shard.features.multishot_recv && !cut;
        let mut message = half.message.take().unwrap_or_else(Message::new);
        let entry: squeue::Entry = if multishot {
            opcode::RecvMsgMulti::new(fd, message.sizes(), DATAGRAMS).build()
        } else {
            let room = if short { FAULTY_ROOM } else { limits::DATAGRAM_BUFFERS.size };
            opcode::RecvMsg::new(fd, message.aim(room))
                .buf_group(DATAGRAMS)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        half.message.put(message);
        half.multishot.set(multishot);
        // SAFETY: the message is boxed in this socket, which the operation keeps alive, and is not
        // touched before the completion; datagrams go to buffers of the registered group only,
        // which outlive the ring.
        let id = unsafe { shard.submit(Op::RecvFrom(Rc::clone(self)), || entry) };
        half.op.begin(id);
    }

    /// Another try for a socket that found no buffer.
    pub(in crate::rt) fn feed(self: &Rc<Self>, shard: &Shard) {
        let half = &self.recv;
        half.starved.set(false);
        let wanted = half.waiter.is_set() && !half.has_event() && half.may_receive();
        if !self.closing.get() && !half.in_flight() && wanted {
            self.arm(shard);
        }
    }

    pub(in crate::rt) fn recv_completed(
        self: &Rc<Self>,
        shard: &Shard,
        done: &Completion,
        last: bool,
    ) {
        let half = &self.recv;
        if last {
            half.op.end();
        }
        match -done.result {
            ..=0 => self.take_datagram(shard, done),
            libc::ENOBUFS => {
                shard.stats.no_buffers.add(1);
                shard.group(DATAGRAMS).borrow_mut().ran_out();
                if !self.closing.get() && !half.starved.replace(true) {
                    shard.starved_sockets.borrow_mut().push(Rc::clone(self));
                }
            }
            // Ended early, by us or by the kernel: armed again when somebody wants datagrams.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            code => self.failed(code),
        }
        self.after_completion(shard, last);
    }

    fn after_completion(self: &Rc<Self>, shard: &Shard, last: bool) {
        let half = &self.recv;
        if self.closing.get() {
            self.finish_close(shard);
        } else if half.has_event() {
            half.waiter.wake();
            if !last && half.queue.borrow().len() >= limits::DATAGRAM_QUEUE {
                half.op.cancel(shard);
            }
        } else if last && half.waiter.is_set() && half.may_receive() {
            self.arm(shard);
        }
    }

    /// A receive that reports an error: mostly one about a peer, which waits in the error queue.
    fn failed(&self, code: i32) {
        if !self.take_refusals() && !is_of_a_peer(code) {
            self.recv.error.set(Some(code));
        }
    }

    /// Fetches what the error queue holds; true when there was something.
    pub(super) fn take_refusals(&self) -> bool {
        let mut some = false;
        if self.reports_errors {
            while let Some(refusal) = errors::next(self.fd) {
                some = true;
                if !self.closing.get() {
                    self.recv.push(Arrival::Refused(refusal));
                }
            }
        }
        some
    }

    fn take_datagram(&self, shard: &Shard, done: &Completion) {
        let multishot = self.recv.multishot.get();
        let len = done.result.unsigned_abs() as usize;
        let lease = match done.buffer() {
            Some(buffer) => {
                shard.stats.leases.rise();
                shard.group(DATAGRAMS).borrow_mut().lend(buffer, len)
            }
            // The kernel gives an empty datagram no buffer.
            None => Lease::empty(),
        };
        if self.closing.get() {
            return;
        }
        let facts = if multishot { unpack(&lease) } else { self.told() };
        match facts.and_then(|facts| self.assemble(facts, lease)) {
            Some(datagram) => self.recv.push(Arrival::Datagram(datagram)),
            None => shard.stats.datagrams_dropped.add(1),
        }
    }

    /// What a single receive said about its datagram.
    fn told(&self) -> Option<Facts> {
        let message = self.recv.message.take()?;
        let facts = Facts::of(&message.parts(), 0);
        self.recv.message.put(message);
        Some(facts)
    }

    fn assemble(&self, facts: Facts, mut data: Lease) -> Option<Datagram> {
        data.advance(facts.data_at);
        Some(Datagram {
            data,
            peer: facts.peer?,
            local: facts.control.local.or(self.local)?,
            truncated: facts.flags & libc::MSG_TRUNC != 0,
        })
    }
}

/// What the kernel says beside a datagram's bytes.
struct Facts {
    peer: Option<SocketAddr>,
    control: wire::Control,
    flags: i32,
    /// Where the datagram begins in its buffer.
    data_at: usize,
}

impl Facts {
    fn of(parts: &wire::Parts<'_>, data_at: usize) -> Facts {
        Facts {
            peer: wire::read_name(parts.name),
            control: wire::read_control(parts.control),
            flags: parts.flags,
            data_at,
        }
    }
}

/// What a multishot receive wrote before the datagram.
fn unpack(lease: &Lease) -> Option<Facts> {
    wire::parts(lease).map(|parts| Facts::of(&parts, DATA_AT))
}

/// Errors that one peer of many causes, by what the network says of it.
pub(super) fn is_of_a_peer(code: i32) -> bool {
    let network = [
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EMSGSIZE,
        libc::EPROTO,
        libc::EACCES,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
    ];
    network.contains(&code)
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}

/// Bytes that a receive with the fault `short_buffer` has room for.
const FAULTY_ROOM: usize = 8;
