//! The tasks of one service that serve connections: how many there are, how to wake them all when
//! something changes for each of them, and how to wait until the last one has ended. Owns no
//! connection. Used by `l7` and `l4`.

use std::cell::RefCell;
use std::task::{Poll, Waker};

use crate::rt::{self, TaskHandle};

/// The connections being served.
#[derive(Debug, Default)]
pub struct Crowd(RefCell<Open>);

#[derive(Debug, Default)]
struct Open {
    /// `None` = free place.
    tasks: Vec<Option<TaskHandle>>,
    free: Vec<u32>,
    active: usize,
    /// Who waits for the last one to end.
    waiting: Vec<Waker>,
}

impl Crowd {
    /// Enters the present task as one that serves a connection; returns its place.
    pub fn enter(&self) -> u32 {
        let open = &mut *self.0.borrow_mut();
        open.active += 1;
        let task = rt::current_task();
        match open.free.pop() {
            Some(place) => {
                if let Some(entry) = open.tasks.get_mut(place as usize) {
                    *entry = task;
                }
                place
            }
            None => {
                open.tasks.push(task);
                open.tasks.len() as u32 - 1
            }
        }
    }

    /// Takes the task at `place` out again.
    pub fn leave(&self, place: u32) {
        let open = &mut *self.0.borrow_mut();
        open.active = open.active.saturating_sub(1);
        if let Some(entry) = open.tasks.get_mut(place as usize) {
            *entry = None;
        }
        open.free.push(place);
        if open.active == 0 {
            open.waiting.drain(..).for_each(Waker::wake);
        }
    }

    /// Has every task polled once more.
    pub fn wake_all(&self) {
        for task in self.0.borrow().tasks.iter().flatten() {
            task.wake();
        }
    }

    /// Connections being served.
    pub fn active(&self) -> usize {
        self.0.borrow().active
    }

    /// Waits until no connection is being served.
    pub async fn idle(&self) {
        std::future::poll_fn(|cx| {
            let mut open = self.0.borrow_mut();
            if open.active == 0 {
                return Poll::Ready(());
            }
            if !open.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                open.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
