//! A connection to a member that many requests share. Its task opens it, reads what comes and hands
//! it to the streams, and sends what they have put together, one send after the other. It takes no
//! new requests once the member says that it goes away, and ends when the last one is over or
//! nobody has asked for a while.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use weir_core::rt::{self, Payload, TaskHandle, Timer};
use weir_core::table::Member;
use weir_core::tls::Stream;

use super::lane::Inner;
use super::streams::Streams;
use crate::error::Error;
use crate::limits::LINK_LEASES_PER_TURN;
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
    streams: RefCell<Streams>,
    /// How long it is kept when nobody asks.
    pub(super) patience: Cell<Duration>,
    waker: RefCell<Option<Waker>>,
    /// Requests that wait for it to be open.
    waiting: RefCell<Vec<Waker>>,
    pub(super) task: Cell<Option<TaskHandle>>,
}

impl Link {
    pub(super) fn new(member: Rc<Member>, secured: Option<Secured>) -> Rc<Link> {
        Rc::new(Link {
            streams: RefCell::new(Streams::new(secured.is_some(), rt::now())),
            member,
            secured,
            phase: Cell::new(Phase::Opening),
            patience: Cell::new(Duration::ZERO),
            waker: RefCell::new(None),
            waiting: RefCell::default(),
            task: Cell::new(None),
        })
    }

    /// Has it room for one more request?
    pub(super) fn has_room(&self) -> bool {
        matches!(self.phase.get(), Phase::Opening | Phase::Open) && self.streams.borrow().has_room()
    }

    /// Is it open: a request on it is not the first?
    pub(super) fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// Is it open, and nobody asks?
    pub(super) fn is_idle(&self) -> bool {
        self.is_open() && self.streams.borrow().is_empty()
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
                let mut waiting = self.waiting.borrow_mut();
                // Who waits is polled again by whatever else happens, as often as its client likes.
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
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
        self.streams.borrow_mut().enter(inner);
    }

    /// The exchange has something for the member.
    pub(super) fn post(&self, inner: &Rc<Inner>, payload: &Payload) -> io::Result<()> {
        let posted = self.streams.borrow_mut().post(inner, payload);
        self.wake();
        posted
    }

    /// The exchange has taken so much of an answer.
    pub(super) fn consumed(&self, inner: &Inner, bytes: u32) {
        if self.streams.borrow_mut().consumed(inner, bytes) {
            self.wake();
        }
    }

    /// The exchange is done with a stream, or wants no more of it.
    pub(super) fn give_up(&self, inner: &Rc<Inner>) {
        self.streams.borrow_mut().give_up(inner);
        self.wake();
    }

    /// Carries requests over `stream` until it ends; why it did.
    pub(super) async fn run(&self, stream: &Stream) -> Error {
        self.phase.set(Phase::Open);
        self.streams.borrow_mut().start();
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
        self.streams.borrow_mut().end(match error {
            Error::BadAnswer => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::ConnectionReset,
        });
    }

    fn tell_waiting(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn read(&self, cx: &mut Context<'_>, stream: &Stream) -> Result<(), Error> {
        let streams = &mut *self.streams.borrow_mut();
        for _ in 0..LINK_LEASES_PER_TURN {
            if streams.is_full() {
                return Ok(());
            }
            let lease = match stream.poll_recv(cx) {
                Poll::Ready(Ok(Some(lease))) => lease,
                Poll::Ready(Ok(None)) => return Err(Error::MemberClosed),
                Poll::Ready(Err(error)) => return Err(Error::MemberReset(error.kind())),
                Poll::Pending => return Ok(()),
            };
            if let Err(fault) = streams.take(&lease, rt::now()) {
                let (member, reason) = (self.member.address, fault.reason);
                tracing::debug!(%member, reason, "HTTP/2 to the member fails");
                if let Some(out) = streams.take_out() {
                    // It is over all the same.
                    let _ = stream.post(out);
                }
                return Err(Error::BadAnswer);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn write(&self, cx: &mut Context<'_>, stream: &Stream) -> Result<(), Error> {
        let streams = &mut *self.streams.borrow_mut();
        loop {
            streams.fill();
            if streams.is_spent() {
                self.phase.set(Phase::Leaving);
            }
            match stream.poll_send_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(Error::MemberReset(error.kind())),
                Poll::Ready(Ok(())) => {}
            }
            let Some(out) = streams.take_out() else { return Ok(()) };
            stream.post(out).map_err(|error| Error::MemberReset(error.kind()))?;
        }
    }
}
