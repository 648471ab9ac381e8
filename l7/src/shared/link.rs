//! A connection to a member that many requests share. Its task opens it, reads what comes and hands
//! it to the streams, and puts together what they have to send, in turns, for one send after the
//! other. It takes no new requests once the member says that it goes away, and ends when the last
//! one is over or nobody has asked for a while.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use weir_core::rt::{SendBuf, TaskHandle, Timer};
use weir_core::table::Member;
use weir_core::tls::Stream;

use super::lane::{Inner, kind_of};
use super::wire::{Receiver, Wire};
use crate::error::Error;
use crate::h2::frame::Code;
use crate::limits::{LINK_LEASES_PER_TURN, LINK_SEND_BYTES};
use crate::upstream::Secured;

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    /// It takes no new requests.
    Leaving,
    Over(Error),
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) member: Rc<Member>,
    pub(super) secured: Option<Secured>,
    phase: Cell<Phase>,
    wire: RefCell<Wire>,
    streams: RefCell<Streams>,
    /// How long it is kept when nobody asks.
    pub(super) patience: Cell<Duration>,
    waker: RefCell<Option<Waker>>,
    /// Requests that wait for it to be open.
    waiting: RefCell<Vec<Waker>>,
    pub(super) task: Cell<Option<TaskHandle>>,
}

#[derive(Debug, Default)]
struct Streams {
    /// Not begun yet.
    fresh: VecDeque<Rc<Inner>>,
    /// By their numbers.
    open: HashMap<u32, Rc<Inner>>,
    /// Those that have something to send, in turns.
    ready: VecDeque<Rc<Inner>>,
    /// Given back, and not yet said so.
    credit: Vec<(u32, u32)>,
    /// To be reset.
    given_up: Vec<(u32, Code)>,
    /// The peer's last words: streams above this have not been looked at.
    last: Option<u32>,
}

impl Link {
    pub(super) fn new(member: Rc<Member>, secured: Option<Secured>) -> Rc<Link> {
        Rc::new(Link {
            member,
            secured,
            phase: Cell::new(Phase::Opening),
            wire: RefCell::new(Wire::new()),
            streams: RefCell::default(),
            patience: Cell::new(Duration::ZERO),
            waker: RefCell::new(None),
            waiting: RefCell::default(),
            task: Cell::new(None),
        })
    }

    /// Has it room for one more request?
    pub(super) fn has_room(&self) -> bool {
        let streams = self.streams.borrow();
        let taken = streams.open.len() + streams.fresh.len();
        matches!(self.phase.get(), Phase::Opening | Phase::Open)
            && taken < self.wire.borrow().most() as usize
    }

    /// Is it open: a request on it is not the first?
    pub(super) fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// It takes no more requests, and ends with the last one.
    pub(super) fn leave(&self) {
        if self.is_open() {
            self.phase.set(Phase::Leaving);
        }
        self.wake();
    }

    /// Waits until it is open; the error that kept it from that.
    pub(super) fn poll_open(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.phase.get() {
            Phase::Opening => {
                self.waiting.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
            Phase::Open | Phase::Leaving => Poll::Ready(Ok(())),
            Phase::Over(error) => Poll::Ready(Err(error)),
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A stream of its own for one request.
    pub(super) fn enter(&self, inner: Rc<Inner>) {
        self.streams.borrow_mut().fresh.push_back(inner);
    }

    /// The exchange has posted something.
    pub(super) fn has_more(&self, inner: &Rc<Inner>) {
        if inner.stream.get() != 0 {
            self.streams.borrow_mut().enqueue(inner);
        }
        self.wake();
    }

    /// The exchange has taken so much of an answer.
    pub(super) fn give_back(&self, stream: u32, bytes: u32) {
        self.streams.borrow_mut().credit.push((stream, bytes));
        self.wake();
    }

    /// The exchange is done with a stream, or wants no more of it.
    pub(super) fn give_up(&self, inner: &Rc<Inner>) {
        let streams = &mut *self.streams.borrow_mut();
        let stream = inner.stream.get();
        streams.fresh.retain(|other| !Rc::ptr_eq(other, inner));
        if streams.open.remove(&stream).is_some() && !inner.is_over() {
            streams.given_up.push((stream, Code::CANCEL));
        }
        self.wake();
    }

    /// Carries requests over `stream` until it ends; why it did.
    pub(super) async fn run(&self, stream: &Stream) -> Error {
        self.phase.set(Phase::Open);
        self.tell_waiting();
        let (timer, mut idle) = (Timer::new(), false);
        let end = poll_fn(|cx| {
            self.waker.replace(Some(cx.waker().clone()));
            if let Err(end) = self.read(cx, stream).and_then(|()| self.write(cx, stream)) {
                return Poll::Ready(end);
            }
            let nobody = self.streams.borrow().is_empty();
            if nobody && self.phase.get() == Phase::Leaving {
                return Poll::Ready(Error::MemberClosed);
            }
            if nobody && !std::mem::replace(&mut idle, nobody) {
                timer.set(self.patience.get());
            }
            idle = nobody;
            match nobody {
                true => timer.poll_expired(cx).map(|()| Error::MemberClosed),
                false => Poll::Pending,
            }
        });
        end.await
    }

    /// It is over, if it ever began.
    pub(super) fn end(&self, error: Error) {
        self.phase.set(Phase::Over(error));
        self.tell_waiting();
        let streams = self.streams.take();
        for inner in streams.open.values() {
            inner.fail(match error {
                Error::BadAnswer => io::ErrorKind::InvalidData,
                _ => io::ErrorKind::ConnectionReset,
            });
        }
        // Not a byte of these has left.
        streams.fresh.iter().for_each(|inner| inner.fail(io::ErrorKind::ConnectionRefused));
    }

    fn tell_waiting(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn read(&self, cx: &mut Context<'_>, stream: &Stream) -> Result<(), Error> {
        for _ in 0..LINK_LEASES_PER_TURN {
            let lease = match stream.poll_recv(cx) {
                Poll::Ready(Ok(Some(lease))) => lease,
                Poll::Ready(Ok(None)) => return Err(Error::MemberClosed),
                Poll::Ready(Err(error)) => return Err(Error::MemberReset(error.kind())),
                Poll::Pending => return Ok(()),
            };
            let streams = &mut *self.streams.borrow_mut();
            let taken = self.wire.borrow_mut().take(&lease, streams);
            if streams.last.is_some() {
                self.phase.set(Phase::Leaving);
                streams.refuse_unseen();
            }
            if let Err(code) = taken {
                tracing::debug!(member = %self.member.address, ?code, "HTTP/2 to the member fails");
                let mut out = SendBuf::new();
                self.wire.borrow_mut().goodbye(code, &mut out);
                // It is over all the same.
                let _ = stream.post(out);
                return Err(Error::BadAnswer);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn write(&self, cx: &mut Context<'_>, stream: &Stream) -> Result<(), Error> {
        loop {
            match stream.poll_send_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(Error::MemberReset(error.kind())),
                Poll::Ready(Ok(())) => {}
            }
            let mut out = SendBuf::new();
            self.fill(&mut out);
            if out.is_empty() {
                return Ok(());
            }
            stream.post(out).map_err(|error| Error::MemberReset(error.kind()))?;
        }
    }

    /// Puts together what is to be sent next.
    fn fill(&self, out: &mut Vec<u8>) {
        let streams = &mut *self.streams.borrow_mut();
        let wire = &mut *self.wire.borrow_mut();
        for (stream, bytes) in streams.credit.drain(..) {
            if streams.open.contains_key(&stream) {
                wire.give_back(stream, bytes);
            }
        }
        streams.given_up.drain(..).for_each(|(stream, code)| wire.reset(stream, code));
        wire.pay(out);
        let scheme: &[u8] = if self.secured.is_some() { b"https" } else { b"http" };
        while out.len() < LINK_SEND_BYTES
            && !wire.is_used_up()
            && streams.open.len() < wire.allowed()
            && let Some(inner) = streams.next_fresh()
        {
            inner.open(wire, scheme, out);
            streams.open.insert(inner.stream.get(), Rc::clone(&inner));
            streams.enqueue(&inner);
        }
        if wire.is_used_up() {
            self.phase.set(Phase::Leaving);
            streams.refuse_fresh();
        }
        while out.len() < LINK_SEND_BYTES
            && let Some(inner) = streams.ready.pop_front()
        {
            inner.queued.set(false);
            if !streams.open.contains_key(&inner.stream.get()) || !inner.can_send() {
                continue;
            }
            let before = out.len();
            inner.send(wire, out);
            let stuck = out.len() == before;
            if stuck {
                // The connection's window is used up.
                inner.queued.set(true);
                streams.ready.push_front(inner);
                break;
            }
            streams.enqueue(&inner);
            streams.close_if_over(&inner);
        }
    }
}

impl Streams {
    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.fresh.is_empty() && self.given_up.is_empty()
    }

    /// The next one that has a head to send.
    fn next_fresh(&mut self) -> Option<Rc<Inner>> {
        let at = self.fresh.iter().position(|inner| inner.has_head())?;
        self.fresh.remove(at)
    }

    fn enqueue(&mut self, inner: &Rc<Inner>) {
        if inner.can_send() && !inner.queued.replace(true) {
            self.ready.push_back(Rc::clone(inner));
        }
    }

    fn close_if_over(&mut self, inner: &Rc<Inner>) {
        if inner.is_over() {
            self.open.remove(&inner.stream.get());
        }
    }

    /// What the stream made of something; it is reset when that was nothing good.
    fn tell(&mut self, stream: u32, tell: impl FnOnce(&Inner) -> bool) {
        let Some(inner) = self.open.get(&stream).cloned() else { return };
        if !tell(&inner) {
            inner.fail(io::ErrorKind::InvalidData);
            self.given_up.push((stream, Code::PROTOCOL));
        }
        self.close_if_over(&inner);
    }

    /// The peer goes away: what it has not looked at goes elsewhere.
    fn refuse_unseen(&mut self) {
        let last = self.last.unwrap_or(u32::MAX);
        let unseen: Vec<u32> = self.open.keys().copied().filter(|&stream| stream > last).collect();
        let unseen = unseen.into_iter().filter_map(|stream| self.open.remove(&stream));
        unseen.for_each(|inner| inner.fail(io::ErrorKind::ConnectionRefused));
        self.refuse_fresh();
    }

    /// No more streams can begin here.
    fn refuse_fresh(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        fresh.iter().for_each(|inner| inner.fail(io::ErrorKind::ConnectionRefused));
    }
}

impl Receiver for Streams {
    fn head(&mut self, stream: u32, status: u16, lines: &[u8], end: bool) {
        self.tell(stream, |inner| inner.head(status, lines, end));
    }

    fn trailers(&mut self, stream: u32, lines: &[u8]) {
        self.tell(stream, |inner| inner.trailers(lines));
    }

    fn data(&mut self, stream: u32, bytes: &[u8], flow: u32, end: bool) {
        self.tell(stream, |inner| inner.data(bytes, flow, end));
    }

    fn reset(&mut self, stream: u32, code: Code) {
        if let Some(inner) = self.open.remove(&stream) {
            inner.fail(kind_of(code));
        }
    }

    fn window(&mut self, stream: u32, more: i64) -> bool {
        let Some(inner) = self.open.get(&stream).cloned() else { return true };
        let good = inner.widen(more);
        self.enqueue(&inner);
        good
    }

    fn all_windows(&mut self, more: i64) -> bool {
        let all: Vec<Rc<Inner>> = self.open.values().cloned().collect();
        all.iter().all(|inner| {
            let good = inner.widen(more);
            self.enqueue(inner);
            good
        })
    }

    fn going_away(&mut self, last: u32) {
        self.last = Some(self.last.map_or(last, |before| before.min(last)));
    }
}
