//! A queue of tokens for streams that nobody is receiving from (idle upstream connections): one
//! task watches many of them. Owns the tokens and the waiting task's waker.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::task::WakerSlot;

/// Tokens of watched streams that had an event. One consumer.
#[derive(Debug, Default)]
pub struct EventQueue {
    tokens: RefCell<VecDeque<u32>>,
    waiter: WakerSlot,
}

impl EventQueue {
    /// An empty queue.
    pub fn new() -> Rc<EventQueue> {
        Rc::default()
    }

    /// The next token, in the order of the events. A dropped future loses nothing.
    pub async fn next(&self) -> u32 {
        poll_fn(|cx| match self.tokens.borrow_mut().pop_front() {
            Some(token) => Poll::Ready(token),
            None => {
                self.waiter.set(cx.waker());
                Poll::Pending
            }
        })
        .await
    }

    pub(crate) fn push(&self, token: u32) {
        self.tokens.borrow_mut().push_back(token);
        self.waiter.wake();
    }
}
