//! Whose turn it is to do a handshake's expensive step: at most so many a turn of the shard, in the
//! order in which they asked, so that a storm of handshakes leaves room for those who have one
//! behind them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::limits::TLS_STEPS_PER_TURN;
use crate::rt;
use crate::time::clock::Mono;

#[derive(Debug, Default)]
struct Turns {
    /// The turn that steps were last taken in, and how many.
    turn: Cell<Mono>,
    taken: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Place>>>,
    /// A task calls those who wait.
    calling: Cell<bool>,
}

/// Somebody's place among those who wait.
#[derive(Debug, Default)]
struct Place {
    called: Cell<bool>,
    /// `None` until polled, and once it is not wanted any more.
    waker: RefCell<Option<Waker>>,
}

thread_local! {
    /// A shard is a thread.
    static TURNS: Turns = Turns::default();
}

/// Ready when the caller may take a step.
pub(super) async fn my_turn() {
    let Some(place) = TURNS.with(Turns::ask) else { return };
    let mut leaving = Leaving(place);
    let place = &mut leaving.0;
    poll_fn(|cx| {
        if place.called.get() {
            return Poll::Ready(());
        }
        place.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// Gives a place up when its owner goes.
struct Leaving(Rc<Place>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.waker.take();
    }
}

impl Turns {
    /// `None` when the step may be taken at once.
    fn ask(&self) -> Option<Rc<Place>> {
        let now = rt::now();
        if self.turn.replace(now) != now {
            self.taken.set(0);
        }
        if !self.calling.get() && self.taken.get() < TLS_STEPS_PER_TURN {
            self.taken.set(self.taken.get() + 1);
            return None;
        }
        let place = Rc::new(Place::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&place));
        if !self.calling.replace(true) {
            rt::spawn(call());
        }
        Some(place)
    }

    /// Calls the next few; false when nobody is left.
    fn call_some(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let mut called = 0;
        while called < TLS_STEPS_PER_TURN
            && let Some(place) = waiting.pop_front()
        {
            if let Some(waker) = place.waker.take() {
                place.called.set(true);
                waker.wake();
                called += 1;
            }
        }
        called > 0
    }
}

async fn call() {
    loop {
        rt::yield_now().await;
        if !TURNS.with(Turns::call_some) {
            TURNS.with(|turns| turns.calling.set(false));
            return;
        }
    }
}
