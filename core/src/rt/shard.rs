//! One shard: a pinned thread with its ring, tasks, buffers and timers. Owns their creation and
//! their orderly end; `driver` turns it. Everything else in `rt` reaches the shard of its thread
//! through
//! `with`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use io_uring::{opcode, squeue, types};

use super::buffers::{BufferGroup, DATAGRAMS, LARGE, RECORDS, SMALL};
use super::fault::{FaultPlan, Faults};
use super::features::Features;
use super::inbox::{self, Inbox};
use super::ops::{Op, OpId, OpTable, UNTRACKED};
use super::pipe::Pipes;
use super::ring::{Ring, RingSize};
use super::spin::Spin;
use super::stats::{Audit, RingStats};
use super::stream::{Message, StreamInner};
use super::task::Tasks;
use super::timer::Timers;
use super::udp::{Quiet, Sending, UdpInner};
use crate::limits;
use crate::time::clock::{self, Mono};

/// How to start a shard.
#[derive(Clone, Debug, Default)]
pub struct ShardConfig {
    /// Thread name; the kernel shows its first 15 bytes.
    pub name: String,
    /// The core to pin to; `None` = not pinned.
    pub core: Option<usize>,
    /// How long it polls without work before it sleeps; zero = not at all.
    pub spin: Duration,
    /// Stats block that the shard writes; share it with whoever reports.
    pub stats: Arc<RingStats>,
    /// Ring features to do without; `None` = as [`super::OFF_VARIABLE`] says.
    pub features: Option<Features>,
    /// Faults on demand, for tests.
    pub faults: Option<FaultPlan>,
}

/// Why a shard could not start, or how it ended badly. The text names cause and cure.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// It never ran.
    #[error("shard `{name}` cannot start: {why}")]
    Start {
        /// The shard's name.
        name: String,
        /// Cause and cure.
        why: String,
    },
    /// Its main future panicked.
    #[error("shard `{0}` ended by a panic in its main task")]
    Panicked(String),
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle<T: Send + 'static> {
    name: String,
    thread: ExecutorJoinHandle<Result<Option<T>, ShardError>>,
}

impl<T: Send + 'static> ShardHandle<T> {
    /// Waits until the shard's main future has ended and everything on it is torn down.
    ///
    /// # Errors
    /// [`ShardError`] when it could not start, or its main future panicked.
    pub fn join(self) -> Result<T, ShardError> {
        match self.thread.join() {
            Ok(Ok(Some(output))) => Ok(output),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => Err(ShardError::Panicked(self.name)),
        }
    }
}

/// Starts a shard, on which `main` runs. When `main` ends, the other tasks are dropped, all
/// operations cancelled, and the thread ends. Shards should live as long as the process: each one's
/// glommio executor leaves a descriptor behind.
///
/// # Errors
/// When the thread cannot be started. A ring that cannot be made shows in [`ShardHandle::join`].
pub fn start_shard<F, Fut, T>(config: ShardConfig, main: F) -> Result<ShardHandle<T>, ShardError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let name = config.name.clone();
    let placement = config.core.map_or(Placement::Unbound, Placement::Fixed);
    let thread = LocalExecutorBuilder::new(placement)
        .name(&name)
        .io_memory(limits::EXECUTOR_IO_MEMORY)
        .ring_depth(limits::EXECUTOR_RING_DEPTH)
        .spawn(move || async move { Shard::live(&config, main) });
    match thread {
        Ok(thread) => Ok(ShardHandle { name, thread }),
        Err(error) => Err(ShardError::Start { name, why: no_thread(&error) }),
    }
}

/// Why no thread could be had, and the cure.
fn no_thread(error: &GlommioError<()>) -> String {
    match error {
        GlommioError::IoError(e) if e.raw_os_error() == Some(libc::EAGAIN) => {
            "no thread is left: this user, or this service, has as many processes and threads as \
             it may. Raise the limit (LimitNPROC= and TasksMax= in the systemd unit, ulimit -u in \
             the shell that starts Weir, --pids-limit for a container), or end some"
                .to_owned()
        }
        error => error.to_string(),
    }
}

thread_local! {
    static CURRENT: Cell<*const Shard> = const { Cell::new(ptr::null()) };
}

/// As long as it lives, the shard is this thread's; however it ends.
struct Current;

impl Current {
    fn set(shard: &Shard) -> Current {
        CURRENT.set(ptr::from_ref(shard));
        Current
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

/// Calls `f` with this thread's shard; `None` when the thread has none.
pub(super) fn try_with<R>(f: impl FnOnce(&Shard) -> R) -> Option<R> {
    let shard = CURRENT.get();
    // SAFETY: the pointer is set only while `Shard::live` holds the shard alive and unmoved on this
    // thread (`Current`), and the reference cannot leave `f`.
    unsafe { shard.as_ref() }.map(f)
}

/// Calls `f` with this thread's shard.
#[allow(clippy::panic, reason = "using the runtime outside a shard is a programming error")]
pub(super) fn with<R>(f: impl FnOnce(&Shard) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!("this thread is no shard: start one with rt::start_shard"),
    }
}

/// The state of one shard. Lives on its thread's stack from start to end.
pub(super) struct Shard {
    pub(super) id: u16,
    pub(super) stats: Arc<RingStats>,
    pub(super) tasks: Tasks,
    pub(super) timers: Timers,
    pub(super) ops: RefCell<OpTable>,
    pub(super) ring: RefCell<Ring>,
    groups: [RefCell<BufferGroup>; 4],
    pub(super) send_buffers: RefCell<Vec<Vec<u8>>>,
    pub(super) pipes: Pipes,
    #[allow(clippy::vec_box, reason = "the kernel points into a message: it must not move")]
    pub(super) messages: RefCell<Vec<Box<Message>>>,
    /// Sends of this turn that say nothing when they succeed.
    pub(super) quiet_sends: RefCell<Vec<(OpId, Rc<StreamInner>)>>,
    /// The same of datagrams.
    pub(super) quiet_datagrams: RefCell<Vec<Quiet>>,
    #[allow(clippy::vec_box, reason = "the kernel points into a datagram: it must not move")]
    pub(super) sendings: RefCell<Vec<Box<Sending>>>,
    /// UDP sockets whose receive found no buffer.
    pub(super) starved_sockets: RefCell<Vec<Rc<UdpInner>>>,
    /// Streams whose receive found no buffer.
    pub(super) starved: RefCell<Vec<Rc<StreamInner>>>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) spin: Spin,
    /// Where the read of the inbox's eventfd puts its eight bytes.
    pub(super) wake_count: Box<Cell<u64>>,
    pub(super) faults: Option<Faults>,
    pub(super) features: Features,
    open: Cell<u64>,
    now: Cell<Mono>,
}

impl Shard {
    /// A shard's whole life, on its own thread.
    fn live<F, Fut, T>(config: &ShardConfig, main: F) -> Result<Option<T>, ShardError>
    where
        F: FnOnce() -> Fut + 'static,
        Fut: Future<Output = T> + 'static,
        T: 'static,
    {
        let shard = Shard::new(config)
            .map_err(|why| ShardError::Start { name: config.name.clone(), why })?;
        tighten_timers();
        // Should the driver itself panic, the shard is left alone for good: the kernel may still
        // write into what it owns.
        let shard = ManuallyDrop::new(shard);
        let current = Current::set(&shard);
        let output = Rc::new(Cell::new(None));
        let main_output = Rc::clone(&output);
        // Called within the task, so that a panic of it is a task's.
        let main = super::task::spawn(async move { main_output.set(Some(main().await)) });
        shard.drive(main);
        shard.end();
        drop(current);
        inbox::unregister(shard.id);
        ManuallyDrop::into_inner(shard).take_apart();
        Ok(output.take())
    }

    fn new(config: &ShardConfig) -> Result<Shard, String> {
        let features = config.features.map_or_else(Features::from_environment, Ok)?;
        let features = features.on_kernel(super::probe::kernel_version());
        let faults = config.faults.map(Faults::new);
        let tiny = faults.as_ref().is_some_and(|faults| faults.plan().tiny_queue);
        let size = if tiny {
            RingSize { submission: 4, completion: 4 }
        } else {
            RingSize {
                submission: limits::SUBMISSION_ENTRIES,
                completion: limits::COMPLETION_ENTRIES,
            }
        };
        let told =
            |what: &str, error: io::Error| format!("{what}: {}", super::probe::explain(&error));
        let ring = Ring::new(size, features, Arc::clone(&config.stats))
            .map_err(|error| told("its io_uring", error))?;
        let small = BufferGroup::new(&ring, SMALL, &limits::SMALL_BUFFERS)
            .map_err(|error| told("its small receive buffers", error))?;
        let large = BufferGroup::new(&ring, LARGE, &limits::LARGE_BUFFERS)
            .map_err(|error| told("its large receive buffers", error))?;
        let datagrams = BufferGroup::new(&ring, DATAGRAMS, &limits::DATAGRAM_BUFFERS)
            .map_err(|error| told("its buffers for datagrams", error))?;
        let records = BufferGroup::own(RECORDS, &limits::RECORD_BUFFERS)
            .map_err(|error| told("its buffers for records", error))?;
        let (id, inbox) = inbox::register().map_err(|error| told("its inbox", error))?;
        let now = clock::mono();
        Ok(Shard {
            id,
            stats: Arc::clone(&config.stats),
            tasks: Tasks::default(),
            timers: Timers::new(now),
            ops: RefCell::default(),
            ring: RefCell::new(ring),
            groups: [small, large, datagrams, records].map(RefCell::new),
            send_buffers: RefCell::default(),
            pipes: Pipes::default(),
            messages: RefCell::default(),
            quiet_sends: RefCell::default(),
            quiet_datagrams: RefCell::default(),
            sendings: RefCell::default(),
            starved_sockets: RefCell::default(),
            starved: RefCell::default(),
            inbox,
            spin: Spin::new(config.spin),
            wake_count: Box::new(Cell::new(0)),
            faults,
            features,
            open: Cell::new(0),
            now: Cell::new(now),
        })
    }

    /// The time at the start of this turn.
    pub(super) fn now(&self) -> Mono {
        self.now.get()
    }

    /// The time now, by the clock.
    pub(super) fn clock(&self) -> Mono {
        let now = clock::mono();
        self.now.set(now);
        now
    }

    pub(super) fn group(&self, group: u16) -> &RefCell<BufferGroup> {
        &self.groups[usize::from(group)]
    }

    pub(super) fn groups(&self) -> &[RefCell<BufferGroup>; 4] {
        &self.groups
    }

    /// Hands an operation of `op` to the ring; `build` makes the entry.
    ///
    /// # Safety
    /// Everything that the entry points at must be owned by `op`, or otherwise stay valid and
    /// unmoved until the operation's final completion.
    pub(super) unsafe fn submit(&self, op: Op, build: impl FnOnce() -> squeue::Entry) -> OpId {
        let id = self.ops.borrow_mut().insert(op);
        let entry = build().user_data(id.user_data());
        // SAFETY: as the caller vouches.
        unsafe { self.ring.borrow_mut().push(&entry) };
        id
    }

    /// Hands two operations to the ring, the second to begin when the first has gone well. When the
    /// first fails the second completes with ECANCELED.
    ///
    /// # Safety
    /// As in `submit`, for both.
    pub(super) unsafe fn submit_linked(
        &self,
        (first, entry): (Op, squeue::Entry),
        (second, behind): (Op, squeue::Entry),
    ) -> [OpId; 2] {
        let ids = [first, second].map(|op| self.ops.borrow_mut().insert(op));
        let [entry, behind] =
            [(entry, ids[0]), (behind, ids[1])].map(|(entry, id)| entry.user_data(id.user_data()));
        // SAFETY: as the caller vouches.
        unsafe { self.ring.borrow_mut().push_linked(entry, behind) };
        ids
    }

    /// Asks the kernel to end an operation early; its final completion still comes.
    pub(super) fn cancel(&self, id: OpId) {
        let entry = opcode::AsyncCancel::new(id.user_data()).build();
        self.push_untracked(entry);
    }

    /// Closes a descriptor on which no operation is in flight.
    pub(super) fn close(&self, fd: i32) {
        self.push_untracked(opcode::Close::new(types::Fd(fd)).build());
    }

    fn push_untracked(&self, entry: squeue::Entry) {
        let quiet = if self.features.cqe_skip {
            squeue::Flags::SKIP_SUCCESS
        } else {
            squeue::Flags::empty()
        };
        let entry = entry.flags(quiet).user_data(UNTRACKED);
        // SAFETY: cancels and closes point at nothing.
        unsafe { self.ring.borrow_mut().push(&entry) };
    }

    /// A descriptor was opened for a stream, listener or UDP socket.
    pub(super) fn opened(&self) {
        self.open.set(self.open.get() + 1);
        self.stats.streams.set(self.open.get());
    }

    /// … and its close is under way.
    pub(super) fn closed(&self) {
        debug_assert!(self.open.get() > 0);
        self.open.set(self.open.get().saturating_sub(1));
        self.stats.streams.set(self.open.get());
    }

    pub(super) fn audit(&self) -> Audit {
        Audit {
            tasks: self.tasks.live() as u64,
            operations: (self.ops.borrow().live() as u64).saturating_sub(1),
            streams: self.open.get(),
            leases: self.groups.iter().map(|group| group.borrow().lent() as u64).sum(),
            pipes: self.pipes.in_use() as u64,
            timers: self.timers.live() as u64,
        }
    }

    /// After the last turn: the ring goes first, so that the kernel lets go of all buffers. Memory
    /// that a lease still points into is left alone for good.
    fn take_apart(self) {
        let Shard { ring, groups, ops, wake_count, .. } = self;
        let clean = ops.borrow().live() == 0;
        drop(ring);
        for group in groups {
            let group = group.into_inner();
            if !clean || group.lent() > 0 {
                group.leak();
            }
        }
        if !clean {
            // The kernel may still hold operations (their files' release lags behind the ring's):
            // what they point at must outlive them.
            std::mem::forget((ops, wake_count));
        }
    }
}

/// Lets timed waits of this thread end when they should instead of up to 50 µs later.
fn tighten_timers() {
    // SAFETY: this option takes a number, no pointer. A kernel that refuses leaves the default.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000) };
}

/// The time at the start of this turn; costs no system call.
///
/// # Panics
/// Outside a shard, which is a programming error.
pub fn now() -> Mono {
    with(Shard::now)
}

/// Counts what is alive on this shard, the asking task included.
///
/// # Panics
/// Outside a shard, which is a programming error.
pub fn audit() -> Audit {
    with(Shard::audit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_cannot_be_had_is_explained() {
        let of = |number| no_thread(&GlommioError::IoError(io::Error::from_raw_os_error(number)));
        for words in ["no thread is left", "TasksMax=", "ulimit -u"] {
            assert!(of(libc::EAGAIN).contains(words), "{}", of(libc::EAGAIN));
        }
        assert!(!of(libc::ENOMEM).contains("TasksMax"));
    }
}
