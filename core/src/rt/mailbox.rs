//! Bounded mailboxes into a shard from any thread: orders, diffs, hand-overs. Owns the queue; the
//! receiving task is woken through its shard's inbox. Not for a request's path.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam::queue::ArrayQueue;

#[derive(Debug)]
struct Shared<T> {
    queue: ArrayQueue<T>,
    senders: AtomicUsize,
    receiver_gone: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl<T> Shared<T> {
    fn wake(&self) {
        let waker = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The sending end; any number, on any thread.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end; one, on a shard.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

/// A mailbox for at most `capacity` undelivered values (at least 1). Make it anywhere, then move
/// the receiver into the shard's main closure.
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        senders: AtomicUsize::new(1),
        receiver_gone: AtomicBool::new(false),
        waiting: Mutex::new(None),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T: Send> Sender<T> {
    /// Puts `value` in and wakes the receiver.
    ///
    /// # Errors
    /// Gives `value` back when the mailbox is full or the receiver is gone.
    pub fn try_send(&self, value: T) -> Result<(), T> {
        if self.0.receiver_gone.load(Ordering::Acquire) {
            return Err(value);
        }
        self.0.queue.push(value)?;
        self.0.wake();
        Ok(())
    }

    /// Is the receiver gone? Then nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.0.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake();
        }
    }
}

impl<T: Send> Receiver<T> {
    /// The next value; `None` when it is empty and all senders are gone. A dropped future loses
    /// nothing.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.0.queue.pop() {
            return Poll::Ready(Some(value));
        }
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        // Whoever sent before the waker stood there woke nobody: look again.
        let ended = self.0.senders.load(Ordering::Acquire) == 0;
        match self.0.queue.pop() {
            Some(value) => Poll::Ready(Some(value)),
            None if ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.store(true, Ordering::Release);
        while self.0.queue.pop().is_some() {}
    }
}
