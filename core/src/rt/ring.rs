//! One io_uring: set-up, submission, the single `enter` of a turn, and the reaping of completions.
//! Owns the kernel's queues; knows nothing of what the operations mean (`ops` does).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use super::features::Features;
use super::stats::RingStats;

/// A completion, copied out of the kernel's queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// The operation goes on and will complete again.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that holds the data.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The socket had more to read at that moment.
    pub(super) fn socket_nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }
}

/// Sizes of a ring's queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSize {
    pub(super) submission: u32,
    pub(super) completion: u32,
}

/// The ring. One per shard, used by its thread only.
pub(super) struct Ring {
    io: IoUring,
    stats: Arc<RingStats>,
    /// Completions taken early because the kernel refused submissions until they were.
    early: VecDeque<Completion>,
    overflows: u32,
    complained: bool,
}

impl Ring {
    /// Creates the ring; must run on the thread that will use it (SINGLE_ISSUER).
    pub(super) fn new(
        size: RingSize,
        features: Features,
        stats: Arc<RingStats>,
    ) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_clamp()
            .setup_submit_all()
            .setup_cqsize(size.completion)
            .setup_single_issuer()
            .setup_coop_taskrun();
        if features.defer_taskrun {
            builder.setup_defer_taskrun();
        }
        let io = builder.build(size.submission)?;
        Ok(Ring { io, stats, early: VecDeque::new(), overflows: 0, complained: false })
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.io.submitter()
    }

    /// Queues one operation for the next `enter`; makes room first when the queue is full.
    ///
    /// # Safety
    /// Everything that `entry` points at must stay valid and unmoved until its final completion.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        self.stats.submissions.add(1);
        // SAFETY: the caller vouches for what the entry points at.
        while unsafe { self.io.submission().push(entry) }.is_err() {
            self.make_room();
        }
    }

    /// Queues two operations of which the second begins when the first has gone well; both go to
    /// the kernel in one `enter`, since a chain ends with what is submitted.
    ///
    /// # Safety
    /// As in `push`, for both.
    pub(super) unsafe fn push_linked(&mut self, first: squeue::Entry, second: squeue::Entry) {
        self.stats.submissions.add(2);
        let pair = [first.flags(squeue::Flags::IO_LINK), second];
        // SAFETY: the caller vouches for what the entries point at.
        while unsafe { self.io.submission().push_multiple(&pair) }.is_err() {
            self.make_room();
        }
    }

    /// Hands the full submission queue over. A kernel that won't take more until its completions
    /// are taken (EBUSY) gets them taken.
    fn make_room(&mut self) {
        self.stats.enters.add(1);
        if self.io.submit().is_err() {
            let mut taken = Vec::new();
            self.drain_queue(&mut taken);
            self.early.extend(taken);
        }
    }

    /// Submits what is queued, runs the kernel's deferred work, and waits for a completion if
    /// `wait` is given: at most that long.
    pub(super) fn enter(&mut self, wait: Option<Wait>) {
        self.stats.enters.add(1);
        let pending = self.io.submission().len() as u32;
        let want = u32::from(wait.is_some() && self.early.is_empty());
        let limit = match wait {
            Some(Wait::AtMost(limit)) => Some(Timespec::from(limit)),
            _ => None,
        };
        let mut args = SubmitArgs::new();
        if let Some(limit) = &limit {
            args = args.timespec(limit);
        }
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        // SAFETY: `args` and the timespec live until the call returns; the submitted entries were
        // vouched for in `push`.
        let entered = unsafe { self.io.submitter().enter(pending, want, flags, Some(&args)) };
        if let Err(error) = entered {
            // ETIME: the wait is over. EINTR: a signal. EBUSY, EAGAIN: reap first, then again. All
            // are answered by going on; what was not submitted stays queued for the next turn.
            let expected = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
            if !error.raw_os_error().is_some_and(|code| expected.contains(&code)) {
                self.complain(&error);
            }
        }
    }

    /// An error that `enter` must not have: said once, since the shard can only go on.
    #[cold]
    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::error!(%error, "io_uring_enter fails; this shard may stand still");
        }
    }

    /// True when the kernel has taken everything queued, and has no completion left to tell.
    pub(super) fn is_settled(&mut self) -> bool {
        let queue = self.io.submission();
        queue.is_empty() && !queue.cq_overflow() && self.early.is_empty()
    }

    /// Moves all completions that are there into `out` (which the caller has emptied).
    pub(super) fn reap(&mut self, out: &mut Vec<Completion>) {
        out.extend(self.early.drain(..));
        self.drain_queue(out);
        self.stats.completions.add(out.len() as u64);
    }

    fn drain_queue(&mut self, out: &mut Vec<Completion>) {
        let overflow_now = self.io.submission().cq_overflow();
        let mut queue = self.io.completion();
        let overflows = queue.overflow();
        if overflows != self.overflows || overflow_now {
            self.stats.cq_overflows.add(1);
            self.overflows = overflows;
        }
        out.extend(queue.by_ref().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}

/// How long `enter` may wait for a completion.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// Until one comes.
    Forever,
    /// Until one comes or the time is over.
    AtMost(Duration),
}
