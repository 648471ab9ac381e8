//! Waiting until any descriptor is readable: inotify, signalfd, pipes.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::Poll;

use io_uring::{opcode, types};

use super::ops::{Op, OpId};
use super::ring::Completion;
use super::shard;
use super::task::WakerSlot;

/// One poll in flight.
#[derive(Debug, Default)]
pub(super) struct Polling {
    op: Cell<Option<OpId>>,
    result: Cell<Option<i32>>,
    waiter: WakerSlot,
}

impl Polling {
    pub(super) fn completed(&self, done: &Completion) {
        self.op.set(None);
        self.result.set(Some(done.result));
        self.waiter.wake();
    }
}

/// Cancels the poll when its future is dropped.
struct Guard(Rc<Polling>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(id) = self.0.op.get() {
            shard::try_with(|shard| shard.cancel(id));
        }
    }
}

/// Waits until `fd` is readable, has an error, or its other end is gone.
///
/// # Errors
/// The kernel's, such as for a descriptor that cannot be polled.
pub async fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let guard = Guard(Rc::default());
    let polling = &guard.0;
    let fd = types::Fd(fd.as_raw_fd());
    shard::with(|shard| {
        let op = Op::Poll(Rc::clone(polling));
        // SAFETY: the entry points at nothing.
        let id =
            unsafe { shard.submit(op, || opcode::PollAdd::new(fd, libc::POLLIN as u32).build()) };
        polling.op.set(Some(id));
    });
    let result = poll_fn(|cx| match polling.result.get() {
        Some(result) => Poll::Ready(result),
        None => {
            polling.waiter.set(cx.waker());
            Poll::Pending
        }
    })
    .await;
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
