//! Timers of a shard: the wheel for time limits (milliseconds, cheap to set anew) and exact points
//! for whoever needs them (nanoseconds, dearer). Owns both; the driver sleeps until `next`, then
//! calls
//! `advance`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::shard;
use super::task::WakerSlot;
use crate::time::clock::{self, Mono};
use crate::time::wheel::Wheel;

/// The time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// "Not set".
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Slot {
    /// When the timer really expires, in ms. The wheel may hold an earlier time: then the slot is
    /// put back when that one comes, which makes setting a later time a mere store.
    deadline: Cell<u64>,
    waiter: WakerSlot,
}

/// All timers of one shard.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: RefCell<Wheel>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    exact: RefCell<BTreeMap<(u64, u64), Waker>>,
    exact_serial: Cell<u64>,
    due: RefCell<Vec<u32>>,
    /// Set in this turn, counted from its start; a turn may have been long.
    fresh: RefCell<Vec<u32>>,
}

impl Timers {
    pub(super) fn new(now: Mono) -> Timers {
        Timers {
            wheel: RefCell::new(Wheel::new(now.millis())),
            slots: RefCell::default(),
            free: RefCell::default(),
            exact: RefCell::default(),
            exact_serial: Cell::new(0),
            due: RefCell::default(),
            fresh: RefCell::default(),
        }
    }

    /// The earliest point at which `advance` has work.
    pub(super) fn next(&self) -> Option<Mono> {
        let coarse = self.wheel.borrow().next_deadline();
        let coarse = coarse.map(|ms| Mono::from_nanos(ms.saturating_mul(1_000_000)));
        let exact = self.exact.borrow().keys().next().map(|(nanos, _)| Mono::from_nanos(*nanos));
        match (coarse, exact) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Wakes whatever is due at `now`.
    pub(super) fn advance(&self, now: Mono) {
        self.advance_exact(now);
        let mut due = self.due.take();
        self.wheel.borrow_mut().advance(now.millis(), &mut due);
        for key in due.drain(..) {
            // Wakers may be anybody's: none is called while something of ours is borrowed.
            if let Some(waker) = self.fire(key, now) {
                waker.wake();
            }
        }
        self.due.replace(due);
    }

    /// The wheel's time for `key` has come: whom to wake, if its real deadline has come too.
    fn fire(&self, key: u32, now: Mono) -> Option<Waker> {
        let slots = self.slots.borrow();
        let slot = slots.get(key as usize)?;
        let deadline = slot.deadline.get();
        if deadline <= now.millis() {
            return slot.waiter.take();
        }
        if deadline != NEVER {
            self.wheel.borrow_mut().set(key, deadline);
        }
        None
    }

    /// Timers that exist.
    pub(super) fn live(&self) -> usize {
        self.slots.borrow().len() - self.free.borrow().len() + self.exact.borrow().len()
    }

    fn advance_exact(&self, now: Mono) {
        while let Some(waker) = self.next_exact(now) {
            waker.wake();
        }
    }

    fn next_exact(&self, now: Mono) -> Option<Waker> {
        let mut exact = self.exact.borrow_mut();
        let first = exact.first_entry()?;
        (first.key().0 <= now.nanos()).then(|| first.remove())
    }

    fn take_slot(&self) -> u32 {
        if let Some(key) = self.free.borrow_mut().pop() {
            return key;
        }
        let mut slots = self.slots.borrow_mut();
        slots.push(Slot { deadline: Cell::new(NEVER), waiter: WakerSlot::default() });
        (slots.len() - 1) as u32
    }

    fn give_back(&self, key: u32) {
        self.wheel.borrow_mut().remove(key);
        let slots = self.slots.borrow();
        slots[key as usize].deadline.set(NEVER);
        slots[key as usize].waiter.clear();
        self.free.borrow_mut().push(key);
    }

    /// The tasks of the turn that began at `start` have run by `now`: what they have set counts
    /// from here. Reading the clock once a turn is enough for that.
    pub(super) fn start_fresh(&self, start: Mono, now: impl FnOnce() -> Mono) {
        let mut fresh = self.fresh.borrow_mut();
        if fresh.is_empty() {
            return;
        }
        let late = now().millis().saturating_sub(start.millis());
        if late > 0 {
            let slots = self.slots.borrow();
            for slot in fresh.iter().filter_map(|key| slots.get(*key as usize)) {
                // The wheel keeps the earlier time, and looks here then.
                let deadline = slot.deadline.get();
                if deadline != NEVER {
                    slot.deadline.set(deadline.saturating_add(late).min(NEVER - 1));
                }
            }
        }
        fresh.clear();
    }

    fn set(&self, key: u32, deadline: u64) {
        self.fresh.borrow_mut().push(key);
        self.slots.borrow()[key as usize].deadline.set(deadline);
        let mut wheel = self.wheel.borrow_mut();
        if wheel.deadline(key).is_none_or(|at| at > deadline) {
            wheel.set(key, deadline);
        }
    }

    fn clear(&self, key: u32) {
        self.slots.borrow()[key as usize].deadline.set(NEVER);
    }

    fn poll(&self, key: u32, now: Mono, waker: &Waker) -> Poll<()> {
        let slots = self.slots.borrow();
        let slot = &slots[key as usize];
        if slot.deadline.get() <= now.millis() {
            return Poll::Ready(());
        }
        slot.waiter.set(waker);
        Poll::Pending
    }
}

/// A reusable timer of this shard. Setting a later time than before, and clearing, cost a store; so
/// one timer can guard each step of a connection. Accuracy: never early, late by the turn in which
/// it falls due (R6.7-15).
#[derive(Debug)]
pub struct Timer {
    key: u32,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Panics
    /// Outside a shard, which is a programming error.
    pub fn new() -> Self {
        Timer { key: shard::with(|shard| shard.timers.take_slot()) }
    }

    /// Expires `after` from now; replaces what was set.
    pub fn set(&self, after: Duration) {
        shard::with(|shard| {
            // One more millisecond than asked, since the clock's own is cut off: never early.
            let part = u64::from(after.subsec_nanos().div_ceil(1_000_000));
            let after = after.as_secs().saturating_mul(1_000).saturating_add(part);
            let deadline = shard.now().millis().saturating_add(after).saturating_add(1);
            shard.timers.set(self.key, deadline.min(NEVER - 1));
        });
    }

    /// Expires no more.
    pub fn clear(&self) {
        shard::with(|shard| shard.timers.clear(self.key));
    }

    /// Ready once the set time is over; pending while nothing is set.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        shard::with(|shard| shard.timers.poll(self.key, shard.now(), cx.waker()))
    }

    /// Runs `future` under this timer, set to `limit`; afterwards the timer is cleared. Allocates
    /// nothing.
    ///
    /// # Errors
    /// [`Elapsed`] when the time was over first; `future` is dropped then.
    pub async fn limit<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        self.set(limit);
        let mut future = pin!(future);
        let result = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_expired(cx).map(|()| Err(Elapsed)),
        })
        .await;
        self.clear();
        result
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        shard::try_with(|shard| shard.timers.give_back(self.key));
    }
}

/// Sleeps on the wheel: never early, a millisecond or two late.
pub async fn sleep(duration: Duration) {
    let timer = Timer::new();
    timer.set(duration);
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// Runs `future` for at most `limit` (wheel accuracy).
///
/// # Errors
/// [`Elapsed`] when the time was over first; `future` is dropped then.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    Timer::new().limit(limit, future).await
}

/// Sleeps to an exact point: the ring's own wait ends then, at most about 50 µs late on an idle
/// core.
pub async fn sleep_exact(until: Mono) {
    let mut entry = ExactEntry(None);
    poll_fn(|cx| {
        shard::with(|shard| {
            entry.remove(shard);
            if clock::mono() >= until {
                return Poll::Ready(());
            }
            let serial = shard.timers.exact_serial.replace(shard.timers.exact_serial.get() + 1);
            let key = (until.nanos(), serial);
            shard.timers.exact.borrow_mut().insert(key, cx.waker().clone());
            entry.0 = Some(key);
            Poll::Pending
        })
    })
    .await;
}

/// Takes its entry out of the map when the sleep is dropped.
struct ExactEntry(Option<(u64, u64)>);

impl ExactEntry {
    fn remove(&mut self, shard: &shard::Shard) {
        if let Some(key) = self.0.take() {
            shard.timers.exact.borrow_mut().remove(&key);
        }
    }
}

impl Drop for ExactEntry {
    fn drop(&mut self) {
        shard::try_with(|shard| self.remove(shard));
    }
}
