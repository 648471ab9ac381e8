//! The receiving half: keeps a receive armed while somebody wants bytes, queues what arrives, stops
//! when too much waits, and chooses between small leases (multishot; heads, idle connections) and
//! large ones (one at a time; bodies).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, squeue, types};

use super::StreamInner;
use crate::limits;
use crate::rt::buffers::{LARGE, Lease, Left, SMALL};
use crate::rt::events::EventQueue;
use crate::rt::flight::Flight;
use crate::rt::ops::{Op, OpId};
use crate::rt::place::Place;
use crate::rt::ring::Completion;
use crate::rt::shard::{self, Shard};
use crate::rt::sys;

/// How the stream of bytes ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Fin,
    Error(i32),
}

/// What is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// A receive that ends by itself with its first bytes.
    #[default]
    Once,
    /// A receive that goes on.
    Multishot,
    /// A poll, for splicing.
    Poll,
    /// A poll for nothing but the connection's break.
    Watch,
}

/// What is to be received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Taking {
    /// What comes, as far as it is taken.
    #[default]
    All,
    /// One lease: nobody takes it yet.
    First,
    /// No receive is to be armed: the stream is spliced, or about to be.
    Nothing,
}

/// Whom to tell about an event.
enum Notify {
    Task(Waker),
    Queue(Rc<EventQueue>, u32),
}

/// Half of a stream. Fields are cells, since completions arrive while handles exist.
#[derive(Debug, Default)]
pub(super) struct RecvHalf {
    op: Flight,
    /// The group that the armed receive takes its buffers from.
    group: Cell<u16>,
    kind: Cell<Kind>,
    starved: Cell<bool>,
    /// Large leases are wanted.
    bulk: Cell<bool>,
    taking: Cell<Taking>,
    /// Leases in a row that speak for a change of size.
    streak: Cell<u8>,
    /// The kernel said that the socket held something, and nothing was taken since.
    nonempty: Cell<bool>,
    end: Cell<End>,
    notify: Place<Notify>,
    queue: RefCell<VecDeque<Lease>>,
    bytes: Cell<u64>,
}

impl RecvHalf {
    pub(super) fn in_flight(&self) -> bool {
        self.op.is_on()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn has_event(&self) -> bool {
        self.end.get() != End::Open || !self.queue.borrow().is_empty()
    }

    /// The peer has sent FIN, and all before it was handed out.
    pub(super) fn is_through(&self) -> bool {
        self.end.get() == End::Fin && self.queue.borrow().is_empty()
    }

    /// Takes what waits in front.
    pub(super) fn take(&self) -> Option<Lease> {
        self.queue.borrow_mut().pop_front()
    }

    pub(super) fn unread(&self, lease: Lease) {
        if !lease.is_empty() {
            self.queue.borrow_mut().push_front(lease);
        }
    }

    pub(super) fn expect_bulk(&self, bulk: bool) {
        // Going back is left to what arrives: the next response is likely to be like this one.
        if bulk {
            self.bulk.set(true);
            self.streak.set(0);
        }
    }

    pub(super) fn pause(&self, shard: &Shard) {
        self.taking.set(Taking::Nothing);
        self.op.cancel(shard);
    }

    /// Nothing is in flight, nothing waits.
    pub(super) fn is_paused(&self) -> bool {
        self.taking.get() == Taking::Nothing && !self.in_flight() && self.queue.borrow().is_empty()
    }

    pub(super) fn resume(&self, shard: &Shard) {
        self.taking.set(Taking::All);
        if self.kind.get() == Kind::Poll {
            self.op.cancel(shard);
        }
    }

    /// How the stream ended, if it has.
    pub(super) fn ended(&self) -> Option<io::Result<()>> {
        match self.end.get() {
            End::Open => None,
            End::Fin => Some(Ok(())),
            End::Error(code) => Some(Err(io::Error::from_raw_os_error(code))),
        }
    }

    /// Bytes or an end are here, as far as the kernel has told.
    pub(super) fn is_nonempty(&self) -> bool {
        self.nonempty.get()
    }

    /// A poll was handed to the ring.
    pub(super) fn polls(&self, id: OpId) {
        self.kind.set(Kind::Poll);
        self.nonempty.set(false);
        self.op.begin(id);
    }

    /// So many bytes went into a pipe, or it came to an end.
    pub(super) fn spliced(&self, moved: Result<usize, i32>) {
        self.nonempty.set(false);
        match moved {
            Ok(0) => self.end.set(End::Fin),
            Ok(moved) => self.bytes.set(self.bytes.get() + moved as u64),
            Err(code) => self.end.set(End::Error(code)),
        }
    }

    /// The handle is gone: drops what waits, cancels what is armed.
    pub(super) fn abandon(&self, shard: &Shard) {
        self.notify.take();
        self.queue.take();
        self.op.cancel(shard);
    }

    fn wanted_group(&self, shard: &Shard) -> u16 {
        if self.bulk.get() && shard.features.large_leases { LARGE } else { SMALL }
    }

    /// Learns from the size of what arrived whether leases should be large.
    fn adapt(&self, group: u16, len: usize) {
        let (speaks, needed) = if group == SMALL {
            (len == limits::SMALL_LEASE, limits::FULL_BEFORE_LARGE)
        } else {
            (len < limits::SMALL_LEASE, limits::SPARSE_BEFORE_SMALL)
        };
        let streak = if speaks { self.streak.get() + 1 } else { 0 };
        if streak >= needed {
            self.bulk.set(group == SMALL);
            self.streak.set(0);
        } else {
            self.streak.set(streak);
        }
    }

    fn tell(&self) {
        match self.notify.take() {
            None => {}
            Some(Notify::Task(waker)) => waker.wake(),
            Some(Notify::Queue(queue, token)) => queue.push(token),
        }
    }

    fn is_awaited(&self) -> bool {
        !self.notify.is_empty()
    }

    pub(super) fn wait(&self, waker: &Waker) {
        let kept = match self.notify.take() {
            Some(Notify::Task(old)) if old.will_wake(waker) => old,
            _ => waker.clone(),
        };
        self.notify.put(Notify::Task(kept));
    }
}

impl StreamInner {
    pub(super) fn poll_recv(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Lease>>> {
        let half = &self.recv;
        if half.taking.get() == Taking::First {
            half.taking.set(Taking::All);
        }
        if let Some(lease) = half.take() {
            return Poll::Ready(Ok(Some(lease)));
        }
        if let Some(ended) = half.ended() {
            return Poll::Ready(ended.map(|()| None));
        }
        half.wait(cx.waker());
        shard::with(|shard| self.want(shard));
        Poll::Pending
    }

    pub(super) fn poll_first(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let half = &self.recv;
        if let Some(lease) = half.queue.borrow().front() {
            return Poll::Ready(Ok(lease.len()));
        }
        if let Some(ended) = half.ended() {
            return Poll::Ready(ended.map(|()| 0));
        }
        half.wait(cx.waker());
        self.begin_first();
        Poll::Pending
    }

    pub(super) fn begin_first(self: &Rc<Self>) -> bool {
        shard::with(|shard| {
            let lent = shard.group(SMALL).borrow().lent();
            if lent >= limits::FIRST_LEASES {
                return false;
            }
            self.recv.taking.set(Taking::First);
            self.want(shard);
            true
        })
    }

    pub(super) fn poll_broken(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        let half = &self.recv;
        if matches!(half.end.get(), End::Error(_)) {
            return Poll::Ready(());
        }
        half.wait(cx.waker());
        if !half.in_flight() {
            // One that goes on, since the kernel tells of a FIN whether that is asked for or not.
            let entry = opcode::PollAdd::new(types::Fd(self.fd), 0).multi(true).build();
            let op = Op::Recv(Rc::clone(self));
            // SAFETY: the entry points at nothing.
            half.op.begin(shard::with(|shard| unsafe { shard.submit(op, || entry) }));
            half.kind.set(Kind::Watch);
        }
        Poll::Pending
    }

    pub(super) fn watch(self: &Rc<Self>, queue: &Rc<EventQueue>, token: u32) {
        if self.recv.has_event() {
            queue.push(token);
            return;
        }
        self.recv.notify.put(Notify::Queue(Rc::clone(queue), token));
        shard::with(|shard| self.want(shard));
    }

    /// Sees to it that a receive with the right kind of buffer is armed.
    fn want(self: &Rc<Self>, shard: &Shard) {
        let half = &self.recv;
        let wanted = half.wanted_group(shard);
        if half.in_flight() {
            // A receive for one lease ends by itself.
            match half.kind.get() {
                Kind::Multishot if wanted != SMALL => half.op.cancel(shard),
                Kind::Watch => half.op.cancel(shard),
                _ => {}
            }
        } else if !half.starved.get() && half.taking.get() != Taking::Nothing {
            self.arm(shard, wanted);
        }
    }

    fn arm(self: &Rc<Self>, shard: &Shard, mut group: u16) {
        let half = &self.recv;
        let fd = types::Fd(self.fd);
        if group == LARGE && !shard.group(LARGE).borrow().has_any() {
            group = SMALL;
        }
        // Whoever wants large leases gets small ones one by one: a body would fill many at once,
        // and peers that don't take it would leave none for the others.
        let many = group == SMALL && !half.bulk.get() && half.taking.get() == Taking::All;
        let multishot = many && shard.features.multishot_recv;
        let cut = shard.faults.as_ref().is_some_and(|f| f.strikes(f.plan().end_multishot));
        let multishot = multishot && !cut;
        half.kind.set(if multishot { Kind::Multishot } else { Kind::Once });
        let entry: squeue::Entry = if multishot {
            opcode::RecvMulti::new(fd, group).build()
        } else {
            let size = if group == SMALL { limits::SMALL_LEASE } else { limits::LARGE_LEASE };
            // A socket known to be empty need not be tried before waiting for it.
            let poll_first = shard.features.poll_first && half.bytes() > 0 && !half.nonempty.get();
            let how = if poll_first { POLL_FIRST } else { 0 };
            opcode::Recv::new(fd, std::ptr::null_mut(), size as u32)
                .buf_group(group)
                .ioprio(how)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        half.group.set(group);
        // SAFETY: the kernel writes into buffers of the registered group only, which outlive the
        // ring.
        let id = unsafe { shard.submit(Op::Recv(Rc::clone(self)), || entry) };
        half.op.begin(id);
    }

    /// Another try for a stream that found no buffer, with one of those `left`; any kind will do.
    pub(in crate::rt) fn feed(self: &Rc<Self>, shard: &Shard, left: &mut Left) {
        let half = &self.recv;
        half.starved.set(false);
        let paused = half.taking.get() == Taking::Nothing;
        let unwanted = paused || half.has_event() || !half.is_awaited();
        if self.closing.get() || half.in_flight() || unwanted {
            return;
        }
        let group = left.take(half.wanted_group(shard));
        self.arm(shard, group);
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
        match half.kind.get() {
            Kind::Poll => return self.poll_completed(shard),
            Kind::Watch => return self.watch_completed(shard, done.result, last),
            Kind::Once | Kind::Multishot => {}
        }
        if let Some(buffer) = done.buffer() {
            self.take_buffer(shard, buffer, done.result);
        }
        half.nonempty.set(done.socket_nonempty());
        match -done.result {
            ..0 => {}
            0 => half.end.set(End::Fin),
            libc::ENOBUFS => {
                shard.stats.no_buffers.add(1);
                shard.group(half.group.get()).borrow_mut().ran_out();
                self.starve(shard);
            }
            // Ended early, by us or by the kernel: armed again when somebody wants bytes.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            code => half.end.set(End::Error(code)),
        }
        self.after_completion(shard, last);
    }

    /// Whatever the poll found, the next call into the kernel will tell.
    fn poll_completed(self: &Rc<Self>, shard: &Shard) {
        if self.closing.get() {
            self.finish_close(shard);
        } else {
            self.recv.nonempty.set(true);
            self.recv.tell();
        }
    }

    /// The connection has broken, or the watch was given up; or the peer has sent FIN.
    fn watch_completed(self: &Rc<Self>, shard: &Shard, result: i32, last: bool) {
        let broken = i32::from(libc::POLLERR | libc::POLLHUP);
        if result > 0 && result & broken != 0 {
            let error = sys::take_error(self.fd).err();
            let code = error.and_then(|error| error.raw_os_error());
            self.recv.end.set(End::Error(code.unwrap_or(libc::ECONNRESET)));
        }
        if !self.closing.get() {
            self.recv.tell();
        } else if last {
            self.finish_close(shard);
        }
    }

    fn after_completion(self: &Rc<Self>, shard: &Shard, last: bool) {
        let half = &self.recv;
        if self.closing.get() {
            if last {
                self.finish_close(shard);
            }
        } else if half.has_event() {
            half.tell();
            if !last && half.queue.borrow().len() >= limits::RECEIVE_QUEUE {
                half.op.cancel(shard);
            }
        } else if half.taking.get() == Taking::Nothing {
            half.tell();
        } else if last && half.is_awaited() && !half.starved.get() {
            self.arm(shard, half.wanted_group(shard));
        }
    }

    fn take_buffer(&self, shard: &Shard, buffer: u16, result: i32) {
        let half = &self.recv;
        let group = half.group.get();
        let Ok(len @ 1..) = usize::try_from(result) else {
            shard.group(group).borrow_mut().unused(buffer);
            return;
        };
        let lease = shard.group(group).borrow_mut().lend(buffer, len);
        shard.stats.leases.rise();
        half.bytes.set(half.bytes.get() + len as u64);
        half.adapt(group, len);
        if !self.closing.get() {
            half.queue.borrow_mut().push_back(lease);
        }
    }

    fn starve(self: &Rc<Self>, shard: &Shard) {
        if !self.closing.get() && !self.recv.starved.replace(true) {
            shard.starved.borrow_mut().push(Rc::clone(self));
        }
    }
}

/// IORING_RECVSEND_POLL_FIRST.
const POLL_FIRST: u16 = 1;
