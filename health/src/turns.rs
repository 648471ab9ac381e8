//! Whose turn it is: at most so many probes run at once, and who waits is served in order. Knows
//! nothing of probes; the prober takes a turn for each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Places, and who waits for one.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Ticket>>>,
}

/// One that waits.
#[derive(Debug, Default)]
struct Ticket {
    called: Cell<bool>,
    /// It was given up.
    void: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A taken place; dropping it calls the next.
#[derive(Debug)]
pub(crate) struct Turn(Rc<Turns>);

/// Waits for a place. Dropping it gives the turn to the next.
#[derive(Debug)]
pub(crate) struct Wait {
    turns: Rc<Turns>,
    ticket: Option<Rc<Ticket>>,
}

impl Turns {
    /// `most` places, at least one.
    pub(crate) fn new(most: usize) -> Rc<Turns> {
        Rc::new(Turns { free: Cell::new(most.max(1)), waiting: RefCell::default() })
    }

    /// A place, once there is one.
    pub(crate) fn take(self: &Rc<Turns>) -> Wait {
        let ticket = Rc::new(Ticket::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&ticket));
        self.call();
        Wait { turns: Rc::clone(self), ticket: Some(ticket) }
    }

    /// Calls as many as there are free places for.
    fn call(&self) {
        while self.free.get() > 0 {
            let Some(next) = self.waiting.borrow_mut().pop_front() else { return };
            if next.void.get() {
                continue;
            }
            self.free.set(self.free.get() - 1);
            next.called.set(true);
            if let Some(waker) = next.waker.take() {
                waker.wake();
            }
        }
    }

    fn give_back(&self) {
        self.free.set(self.free.get() + 1);
        self.call();
    }
}

impl Future for Wait {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        match &self.ticket {
            Some(ticket) if !ticket.called.get() => {
                ticket.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
            _ => {
                self.ticket = None;
                Poll::Ready(Turn(Rc::clone(&self.turns)))
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        match self.ticket.take() {
            Some(ticket) if ticket.called.get() => self.turns.give_back(),
            Some(ticket) => ticket.void.set(true),
            None => {}
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(wait: &mut Wait) -> Option<Turn> {
        match Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_came_first_is_served_first() {
        let turns = Turns::new(2);
        let mut waits: Vec<Wait> = (0..5).map(|_| turns.take()).collect();
        let mut running: Vec<Turn> = waits.iter_mut().filter_map(poll).collect();
        assert_eq!(running.len(), 2);
        running.pop();
        let mut late = turns.take();
        assert!(poll(&mut late).is_none(), "others came before");
        let next: Vec<Option<Turn>> = waits[2..].iter_mut().map(poll).collect();
        let order: Vec<bool> = next.iter().map(Option::is_some).collect();
        assert_eq!(order, [true, false, false]);
    }

    /// Aborted checks take no place with them, whether they wait, are called, or run.
    #[test]
    fn places_come_back_from_who_goes() {
        let turns = Turns::new(1);
        let (mut one, two, mut three) = (turns.take(), turns.take(), turns.take());
        drop(two);
        let turn = poll(&mut one).unwrap();
        drop(turn);
        assert!(turns.free.get() == 0, "it is three's");
        let mut four = turns.take();
        assert!(poll(&mut four).is_none());
        let turn = poll(&mut three).unwrap();
        drop(turn);
        drop(four);
        assert_eq!((turns.free.get(), turns.waiting.borrow().len()), (1, 0));
    }
}
