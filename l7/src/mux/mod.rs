//! A client connection that has agreed on HTTP/2 (RFC 9113). One task owns it: reads frames, polls
//! the exchanges of those streams that something has happened to, and puts all that they have to
//! say into one send. A request is an `Exchange` as in HTTP/1, whose client is a `lane`; `ready`
//! says which ones have to be looked at. What frames mean is `h2`'s. Called by `connection`.

mod lane;
mod ready;
mod send;
mod slot;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_core::rt::{self, Lease, Timer};
use weir_core::time::clock::Mono;

pub(crate) use self::lane::Lane;
use self::lane::{Shared, Wire};
use self::ready::{Ready, each};
use self::send::Sending;
use self::slot::Slot;
use crate::client::{Client, Front};
use crate::connection::all_taken;
use crate::h2::connection::{Connection, Event, Fault, StreamRef};
use crate::h2::frame::Code;
use crate::h2::head::HeadLimits;
use crate::limits::{
    MUX_GRACE, MUX_KEPT_STREAMS, MUX_LEASES_PER_TURN, MUX_OWED_BYTES, MUX_ROUNDS_PER_TURN,
    MUX_WHOLE_LEASE,
};

/// What connections that end here have agreed on (RFC 7301).
pub(crate) const PROTOCOL: &[u8] = b"h2";

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// In order: nothing is under way.
    Ended,
    /// The client has ended its side, or the connection broke.
    Gone,
    /// The client broke the rules, and was told so.
    Fault,
    /// The client does not take what it is sent.
    Stalled,
}

/// What the connection's timer is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Nothing,
    /// Nobody asks; the memory of streams is still there.
    Quiet,
    /// Nobody asks.
    Idle,
    /// The client was told that no more streams are wanted.
    Leaving,
}

/// A connection of streams.
struct Mux {
    shared: Rc<Shared>,
    /// By the places of the streams.
    slots: Vec<Slot>,
    timer: Timer,
    waits: Waits,
    sending: Sending,
    /// Requests so far.
    requests: u32,
    /// The client has said that it goes away.
    left: bool,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(client: Client) {
    let Some(front) = client.into_front() else { return };
    let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut mux = Mux::new(front, task);
    let over = poll_fn(|cx| mux.poll(cx)).await;
    // The protocol's last words: what comes of giving the streams up isn't said any more.
    let rest = mux.shared.wire.borrow_mut().out.take();
    mux.abandon_all();
    let Mux { shared, slots, timer, .. } = mux;
    drop(slots);
    let Some(Shared { front, .. }) = Rc::into_inner(shared) else { return };
    let told = match over {
        Over::Gone | Over::Stalled => false,
        Over::Ended | Over::Fault => {
            all_taken(&front, &timer).await
                && rest.is_none_or(|out| front.stream.post(out).is_ok())
                && all_taken(&front, &timer).await
        }
    };
    if told { front.linger().await } else { front.reset() }
}

impl Mux {
    fn new(front: Front, task: Waker) -> Mux {
        let limits = front.site().limits();
        let limits = HeadLimits { bytes: limits.head, fields: limits.fields };
        let connection = Connection::server(limits, rt::now());
        let mut wire = Wire { connection, out: None, choked: Default::default() };
        wire.connection.start(wire.out.get_or_insert_default());
        let ready = Ready::new(task);
        Mux {
            shared: Rc::new(Shared { front, wire: RefCell::new(wire), ready, whole: Cell::new(0) }),
            slots: Vec::new(),
            timer: Timer::new(),
            waits: Waits::Nothing,
            sending: Sending::default(),
            requests: 0,
            left: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        match self.go_on(cx) {
            Ok(()) => Poll::Pending,
            Err(over) => Poll::Ready(over),
        }
    }

    /// Goes on until something has to be waited for.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        self.read(cx)?;
        for _ in 0..MUX_ROUNDS_PER_TURN {
            self.poll_ready();
            self.send(cx)?;
            if self.shared.ready.is_empty() {
                return self.tend(cx);
            }
        }
        self.shared.ready.wake();
        self.tend(cx)
    }

    /// Takes what has come, as long as the client takes what it is owed.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        let now = rt::now();
        for _ in 0..MUX_LEASES_PER_TURN {
            if self.shared.wire.borrow().owed() >= MUX_OWED_BYTES {
                // The send that makes room wakes this task.
                return Ok(());
            }
            match self.shared.front.stream.poll_recv(cx) {
                Poll::Ready(Ok(Some(lease))) => {
                    let bytes = lease.len() as u64;
                    self.shared.front.site().counters.bytes_received.add(bytes);
                    self.take(lease, now).map_err(|fault| self.refuse(fault))?;
                }
                Poll::Ready(Ok(None) | Err(_)) => return Err(Over::Gone),
                Poll::Pending => return Ok(()),
            }
        }
        self.shared.ready.wake();
        Ok(())
    }

    #[cold]
    fn refuse(&self, fault: Fault) -> Over {
        let Fault { code, reason } = fault;
        let counters = &self.shared.front.site().counters;
        let flood = code == Code::CALM;
        if flood { &counters.http2_floods } else { &counters.http2_faults }.add(1);
        let client = self.shared.front.peer;
        let client = String::from_utf8_lossy(client.as_bytes());
        tracing::debug!(%client, code = code.0, reason, "HTTP/2 connection ended");
        Over::Fault
    }

    fn take(&mut self, mut lease: Lease, now: Mono) -> Result<(), Fault> {
        let shared = Rc::clone(&self.shared);
        let heads = &shared.front.entry.service.head;
        let mut at = 0;
        loop {
            let input = lease.get(at..).unwrap_or_default();
            let step = {
                let Wire { connection, out, .. } = &mut *shared.wire.borrow_mut();
                let out = out.get_or_insert_default();
                connection.step(input, &mut heads.borrow_mut(), out, now)?
            };
            at += step.used;
            match step.event {
                None => return Ok(()),
                Some(Event::Head { stream, end }) => self.begin(stream, end),
                Some(Event::Data { stream, len, end }) => {
                    let to = (at + len).min(lease.len());
                    if to == lease.len() && len >= MUX_WHOLE_LEASE.max(at) {
                        lease.advance(at);
                        self.data(stream, |lane| lane.take_lease(lease, end));
                        return Ok(());
                    }
                    let bytes = lease.get(at..to).unwrap_or_default();
                    self.data(stream, |lane| lane.take(bytes, end));
                    at = to;
                }
                Some(Event::Trailers { stream }) => {
                    if let Some(slot) = self.slot(stream) {
                        let lane = slot.lane();
                        lane.into_iter().for_each(|lane| lane.take_end(&heads.borrow()));
                        shared.ready.mark(stream.place());
                    }
                }
                Some(Event::Reset { stream, .. }) => {
                    if let Some(slot) = self.slot(stream) {
                        slot.abandon(&shared);
                    }
                }
                Some(Event::GoAway { .. }) => self.left = true,
            }
        }
    }

    /// Where a stream is served.
    fn slot(&mut self, stream: StreamRef) -> Option<&mut Slot> {
        self.slots.get_mut(stream.place()).filter(|slot| slot.lane().is_some_and(|l| l.is(stream)))
    }

    /// A request has come; its head is the service's.
    fn begin(&mut self, stream: StreamRef, end: bool) {
        while self.slots.len() <= stream.place() {
            let slot = Slot::new(&self.shared, self.slots.len());
            self.slots.push(slot);
        }
        let Some(slot) = self.slots.get_mut(stream.place()) else { return };
        slot.begin(&self.shared, stream, end, self.requests);
        self.requests = self.requests.saturating_add(1);
        self.shared.ready.mark(stream.place());
    }

    /// Body has come, which `take` is for.
    fn data(&mut self, stream: StreamRef, take: impl FnOnce(&Lane) -> bool) {
        let shared = Rc::clone(&self.shared);
        let Some(slot) = self.slot(stream) else { return };
        if !slot.lane().is_some_and(take) {
            slot.give_up(&shared, Code::INTERNAL);
        }
        shared.ready.mark(stream.place());
    }

    /// Lets those streams go on that something has happened to.
    fn poll_ready(&mut self) {
        for place in each(self.shared.ready.take()) {
            if let Some(slot) = self.slots.get_mut(place) {
                slot.poll(&self.shared);
            }
        }
    }

    /// The connection as a whole: whether it is idle, and whether it goes on.
    fn tend(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        loop {
            let shared = Rc::clone(&self.shared);
            let site = shared.front.site();
            let alive = self.is_alive();
            if shared.wire.borrow().connection.drained() && !alive {
                return if self.sending.is_done(&shared) { Err(Over::Ended) } else { Ok(()) };
            }
            let unwanted = shared.front.entry.service.is_draining()
                || self.left
                || self.requests > 0 && site.keepalive_timeout().is_zero();
            if unwanted && self.waits != Waits::Leaving {
                self.leave(cx)?;
                continue;
            }
            if self.waits != Waits::Leaving {
                let idle = matches!(self.waits, Waits::Quiet | Waits::Idle);
                if alive {
                    self.waits = Waits::Nothing;
                } else if !idle {
                    self.waits = Waits::Quiet;
                    self.timer.set(MUX_GRACE.min(self.idle_limit()));
                }
            }
            if self.waits == Waits::Nothing || self.timer.poll_expired(cx).is_pending() {
                return Ok(());
            }
            self.time_is_over(cx)?;
        }
    }

    fn time_is_over(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        match self.waits {
            Waits::Nothing => Ok(()),
            Waits::Quiet => {
                self.waits = Waits::Idle;
                self.slots.truncate(MUX_KEPT_STREAMS);
                self.slots.shrink_to_fit();
                self.timer.set(self.idle_limit().saturating_sub(MUX_GRACE));
                Ok(())
            }
            Waits::Idle => {
                let silent = u64::from(self.requests == 0);
                self.shared.front.site().counters.silent_closes.add(silent);
                self.leave(cx)
            }
            Waits::Leaving => {
                self.timer.clear();
                let Wire { connection, out, .. } = &mut *self.shared.wire.borrow_mut();
                connection.finish_drain(out.get_or_insert_default());
                Ok(())
            }
        }
        .and_then(|()| self.send(cx))
    }

    /// Tells the client to open no more streams.
    fn leave(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        self.waits = Waits::Leaving;
        self.timer.set(MUX_GRACE);
        {
            let Wire { connection, out, .. } = &mut *self.shared.wire.borrow_mut();
            connection.go_away(out.get_or_insert_default());
        }
        self.send(cx)
    }

    fn idle_limit(&self) -> std::time::Duration {
        let site = self.shared.front.site();
        if self.requests == 0 { site.client_timeout() } else { site.keepalive_timeout() }
    }

    /// A stream is being served, or something is still to be sent on one.
    fn is_alive(&self) -> bool {
        self.shared.wire.borrow().connection.streams() > 0 || self.slots.iter().any(Slot::is_in_use)
    }

    fn abandon_all(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.abandon(&self.shared));
    }
}
