//! Tasks: the futures of a shard, their run queue and their wakers. Owns every spawned future; the
//! driver calls `run`, nobody else polls.
//!
//! Why not glommio's own task queues: they hide whether anything is runnable, take a process-wide
//! lock and a reference count per spawn, and let a panic end the thread. Here a waker is a number
//! (shard, generation, slot), so that cloning and dropping one costs nothing and a stale one is
//! harmless, and the driver knows exactly when it may sleep.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::inbox;
use super::place::Place;
use super::shard;

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// A task's name: shard (16 bits), generation (16 bits), slot (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskId(u64);

impl TaskId {
    fn new(shard: u16, generation: u16, slot: u32) -> TaskId {
        TaskId(u64::from(shard) << 48 | u64::from(generation) << 32 | u64::from(slot))
    }

    pub(super) fn shard(self) -> u16 {
        (self.0 >> 48) as u16
    }

    fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }

    fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    /// Makes the task runnable; from any thread.
    fn wake(self) {
        let here = shard::try_with(|shard| {
            let ours = shard.id == self.shard();
            if ours {
                shard.tasks.make_runnable(self);
            }
            ours
        });
        if here != Some(true) {
            inbox::wake_elsewhere(self);
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u16,
    queued: bool,
    aborted: bool,
    /// Taken out while the future is being polled.
    future: Option<Boxed>,
    alive: bool,
}

/// The tasks of one shard.
#[derive(Default)]
pub(super) struct Tasks {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    runnable: RefCell<VecDeque<TaskId>>,
    current: Cell<Option<TaskId>>,
}

impl Tasks {
    pub(super) fn spawn(&self, shard: u16, future: Boxed) -> TaskId {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            (slots.len() - 1) as u32
        });
        let slot = &mut slots[index as usize];
        *slot = Slot {
            generation: slot.generation,
            queued: true,
            aborted: false,
            future: Some(future),
            alive: true,
        };
        let id = TaskId::new(shard, slot.generation, index);
        self.runnable.borrow_mut().push_back(id);
        id
    }

    pub(super) fn make_runnable(&self, id: TaskId) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(id.slot())
            && slot.alive
            && slot.generation == id.generation()
            && !slot.queued
        {
            slot.queued = true;
            self.runnable.borrow_mut().push_back(id);
        }
    }

    fn abort(&self, id: TaskId) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(id.slot())
            && slot.generation == id.generation()
        {
            slot.aborted = true;
        }
        self.make_runnable(id);
    }

    pub(super) fn current(&self) -> Option<TaskId> {
        self.current.get()
    }

    pub(super) fn has_runnable(&self) -> bool {
        !self.runnable.borrow().is_empty()
    }

    /// True until the task has ended.
    pub(super) fn is_alive(&self, handle: TaskHandle) -> bool {
        let slots = self.slots.borrow();
        slots.get(handle.0.slot()).is_some_and(|slot| slot.generation == handle.0.generation())
    }

    pub(super) fn live(&self) -> usize {
        self.slots.borrow().len() - self.free.borrow().len()
    }

    /// Polls what is runnable now, once each; what becomes runnable meanwhile waits for the next
    /// turn. Returns the number of tasks that panicked.
    pub(super) fn run(&self) -> u64 {
        let batch = self.runnable.borrow().len();
        let mut panics = 0;
        for _ in 0..batch {
            let Some(id) = self.runnable.borrow_mut().pop_front() else { break };
            panics += u64::from(self.poll(id).is_err());
        }
        panics
    }

    /// Drops every task; sockets and timers they own go with them.
    pub(super) fn clear(&self) -> u64 {
        let mut panics = 0;
        loop {
            let next = (self.slots.borrow_mut().iter_mut().enumerate())
                .find_map(|(index, slot)| slot.future.take().map(|future| (index, future)));
            let Some((index, future)) = next else { break };
            panics += u64::from(drop_caught(future).is_err());
            self.free(index);
        }
        self.runnable.borrow_mut().clear();
        panics
    }

    fn poll(&self, id: TaskId) -> Result<(), Box<dyn Any + Send>> {
        let (future, aborted) = {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[id.slot()];
            if slot.generation != id.generation() {
                return Ok(());
            }
            slot.queued = false;
            (slot.future.take(), slot.aborted)
        };
        let Some(mut future) = future else { return Ok(()) };
        if !aborted {
            self.current.set(Some(id));
            let waker = waker(id);
            let mut context = Context::from_waker(&waker);
            let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
            self.current.set(None);
            match polled {
                Ok(Poll::Pending) => {
                    self.slots.borrow_mut()[id.slot()].future = Some(future);
                    return Ok(());
                }
                Ok(Poll::Ready(())) => {}
                Err(panic) => {
                    let _ = drop_caught(future);
                    self.free(id.slot());
                    return Err(panic);
                }
            }
        }
        let dropped = drop_caught(future);
        self.free(id.slot());
        dropped
    }

    fn free(&self, index: usize) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.alive = false;
        shard::try_with(|shard| shard.stats.tasks.fall());
        self.free.borrow_mut().push(index as u32);
    }
}

fn drop_caught(future: Boxed) -> Result<(), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(move || drop(future)))
}

fn waker(id: TaskId) -> Waker {
    // SAFETY: the vtable's functions treat the data pointer as a number and never follow it, so the
    // waker may be cloned, sent and dropped anywhere, at any time.
    unsafe { Waker::from_raw(raw(id)) }
}

fn raw(id: TaskId) -> RawWaker {
    RawWaker::new(std::ptr::without_provenance(id.0 as usize), &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| raw(TaskId(data.addr() as u64)),
    |data| TaskId(data.addr() as u64).wake(),
    |data| TaskId(data.addr() as u64).wake(),
    |_| {},
);

// A waker's number needs the whole pointer.
const _: () = assert!(size_of::<usize>() == 8);

/// A place for the waker of whoever waits; at most one waits at a time.
#[derive(Debug, Default)]
pub(super) struct WakerSlot(Place<Waker>);

impl WakerSlot {
    pub(super) fn set(&self, waker: &Waker) {
        let kept = self.0.take().filter(|old| old.will_wake(waker));
        self.0.put(kept.unwrap_or_else(|| waker.clone()));
    }

    pub(super) fn clear(&self) {
        self.0.take();
    }

    pub(super) fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn take(&self) -> Option<Waker> {
        self.0.take()
    }

    /// Wakes whoever waits.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// A spawned task. Dropping the handle lets the task run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskHandle(TaskId);

impl TaskHandle {
    /// Drops the task's future at the next turn: its sockets close, its operations are cancelled.
    /// Nothing when the task has ended, or when called outside its shard.
    pub fn abort(self) {
        shard::try_with(|shard| {
            if shard.id == self.0.shard() {
                shard.tasks.abort(self.0);
            }
        });
    }

    /// Polls the task once more, as its own waker would. Nothing when it has ended.
    pub fn wake(self) {
        self.0.wake();
    }
}

/// Runs `future` on this shard, from the next turn on. A panic in it ends that task only, and is
/// counted.
///
/// # Panics
/// Outside a shard, which is a programming error.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> TaskHandle {
    let future: Boxed = Box::pin(future);
    shard::with(|shard| {
        shard.stats.tasks.rise();
        TaskHandle(shard.tasks.spawn(shard.id, future))
    })
}

/// The task that is being polled; `None` outside of one.
pub fn current_task() -> Option<TaskHandle> {
    shard::try_with(|shard| shard.tasks.current()).flatten().map(TaskHandle)
}

/// Lets the ring and the other runnable tasks have a turn.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
