//! Waiting inside one shard: a flag that opens once, and a bounded number of permits. No threads,
//! no sockets. Used by `shard`, `idle` and their tasks.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Opens once and stays open; many tasks may wait. One shard only.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    open: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Flag {
    /// Opens it and wakes all who wait.
    pub(crate) fn open(&self) {
        self.open.set(true);
        // Woken outside of the borrow: a waker may poll at once.
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready once it is open.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.get() {
            return Poll::Ready(());
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until it is open.
    pub(crate) async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// At most so many at once; the others wait in line. One shard only.
#[derive(Debug)]
pub(crate) struct Permits {
    left: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Permits {
    pub(crate) fn new(count: usize) -> Permits {
        Permits { left: Cell::new(count), waiting: RefCell::default() }
    }

    /// Waits for a permit; it goes back when dropped.
    pub(crate) async fn acquire(&self) -> Permit<'_> {
        poll_fn(|cx| match self.left.get() {
            0 => {
                self.waiting.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
            left => {
                self.left.set(left - 1);
                Poll::Ready(Permit(self))
            }
        })
        .await
    }
}

/// The right to go on.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.left.set(self.0.left.get() + 1);
        let next = self.0.waiting.borrow_mut().pop();
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_flag_stays_open() {
        let flag = Flag::default();
        let mut early = pin!(flag.wait());
        assert!(poll(early.as_mut()).is_pending());
        flag.open();
        assert!(poll(early).is_ready());
        assert!(poll(pin!(flag.wait())).is_ready());
    }

    #[test]
    fn permits_come_back() {
        let permits = Permits::new(1);
        let mut first = pin!(permits.acquire());
        let Poll::Ready(held) = poll(first.as_mut()) else { panic!("the first permit is free") };
        let mut second = pin!(permits.acquire());
        assert!(poll(second.as_mut()).is_pending());
        drop(held);
        assert!(poll(second).is_ready());
    }
}
