//! Wake-ups from other threads. Owns one inbox a shard: a queue of task names and an eventfd whose
//! read is an operation of the shard's ring, so that a sleeping shard needs no tick.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crossbeam::queue::SegQueue;

use super::task::TaskId;

/// One shard's inbox; any thread may put wake-ups in.
#[derive(Debug)]
pub(super) struct Inbox {
    woken: SegQueue<TaskId>,
    /// Set by the shard before it sleeps; whoever finds it set writes the eventfd.
    asleep: AtomicBool,
    event: File,
}

impl Inbox {
    fn new() -> io::Result<Inbox> {
        // SAFETY: eventfd takes no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and belongs to nobody else.
        let event = unsafe { File::from_raw_fd(fd) };
        Ok(Inbox { woken: SegQueue::new(), asleep: AtomicBool::new(false), event })
    }

    pub(super) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// The next task that another thread woke.
    pub(super) fn next(&self) -> Option<TaskId> {
        self.woken.pop()
    }

    /// Announces that the shard is about to sleep; false when it must not, since something is
    /// waiting.
    pub(super) fn may_sleep(&self) -> bool {
        // Sequentially consistent on both sides: either the waker sees `asleep` and writes the
        // eventfd, or we see its entry here.
        self.asleep.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        self.woken.is_empty()
    }

    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    fn put(&self, task: TaskId) {
        self.woken.push(task);
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // The counter cannot overflow: at most one write per sleep. A failed write would mean a
            // closed eventfd, which lives as long as the inbox.
            let _ = (&self.event).write(&1u64.to_ne_bytes());
        }
    }
}

/// All inboxes by shard number. Wake-ups from other threads are rare, so a lock is good enough
/// here; nothing on a request's path takes it.
static INBOXES: RwLock<Vec<Option<Arc<Inbox>>>> = RwLock::new(Vec::new());

/// Makes an inbox and the shard number that goes with it. Numbers of ended shards are not used
/// again until all 65,536 are, so that a stale waker finds nobody.
pub(super) fn register() -> io::Result<(u16, Arc<Inbox>)> {
    let inbox = Arc::new(Inbox::new()?);
    let mut inboxes = INBOXES.write().unwrap_or_else(PoisonError::into_inner);
    if let Ok(number) = u16::try_from(inboxes.len()) {
        inboxes.push(Some(Arc::clone(&inbox)));
        return Ok((number, inbox));
    }
    let Some(number) = inboxes.iter().position(Option::is_none) else {
        return Err(io::Error::other("65,536 shards are running already"));
    };
    inboxes[number] = Some(Arc::clone(&inbox));
    Ok((number as u16, inbox))
}

/// The shard has ended; wake-ups for its tasks are dropped from now on.
pub(super) fn unregister(number: u16) {
    let mut inboxes = INBOXES.write().unwrap_or_else(PoisonError::into_inner);
    inboxes[usize::from(number)] = None;
}

/// Wakes a task of another shard.
pub(super) fn wake_elsewhere(task: TaskId) {
    let inboxes = INBOXES.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(Some(inbox)) = inboxes.get(usize::from(task.shard())) {
        inbox.put(task);
    }
}
