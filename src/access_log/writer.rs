//! The thread that writes one target. It comes by at least twice a second, and when a shard has
//! filled a block. While the target stalls it stalls, and nobody else; once nobody can have lines
//! for it any more it ends all the same.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Thread};
use std::time::Duration;

use anyhow::{Context, Result};
use weir_core::limits::LOG_DELAY_MS;
use weir_core::model::LogTarget;
use weir_core::obs::{Block, Spool};
use weir_core::time::clock::{self, Mono};

use super::LAST_LINES;
use super::file::{File, Trouble, Written, describe};

/// How often a writer that is to end is asked to look whether it can.
const NUDGE: Duration = Duration::from_millis(10);
/// It is to go on.
const RUNS: u8 = 0;
/// It is to end when nobody can have lines for it any more.
const RETIRED: u8 = 1;
/// The same, and there are no shards any more that could come by lines.
const LAST: u8 = 2;

/// A running writer, as control sees it.
#[derive(Debug)]
pub(super) struct Writer {
    spool: Arc<Spool>,
    rest: Leaver,
}

/// One that is to end, or may be told to. It holds no lines.
#[derive(Debug)]
pub(super) struct Leaver {
    shared: Arc<Shared>,
    thread: Thread,
    /// Hangs up when the thread ends.
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    life: AtomicU8,
    reopen: AtomicBool,
}

/// What the thread has.
struct Work {
    source: Source,
    file: File,
    /// The target takes nothing, and that was said.
    failing: bool,
    _ended: Sender<()>,
}

/// Where lines come from, and whether any can come.
struct Source {
    spool: Arc<Spool>,
    shared: Arc<Shared>,
    /// Since when none can.
    over: Cell<Option<Mono>>,
}

impl Writer {
    /// Starts a thread that writes what comes into `spool`.
    ///
    /// # Errors
    /// The thread could not be made.
    pub(super) fn start(file: File, spool: Spool) -> Result<Writer> {
        let spool = Arc::new(spool);
        let life = AtomicU8::new(RUNS);
        let shared = Arc::new(Shared { life, reopen: AtomicBool::new(false) });
        let (sender, ended) = channel();
        let source = Source {
            spool: Arc::clone(&spool),
            shared: Arc::clone(&shared),
            over: Cell::default(),
        };
        let work = Work { source, file, failing: false, _ended: sender };
        let handle = thread::Builder::new()
            .name("weir-access-log".into())
            .spawn(move || work.run())
            .context("the thread of an access log")?;
        spool.wake_with(handle.thread());
        Ok(Writer { spool, rest: Leaver { shared, thread: handle.thread().clone(), ended } })
    }

    pub(super) fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.spool)
    }

    /// Has it open its file again.
    pub(super) fn reopen(&self) {
        self.rest.shared.reopen.store(true, Ordering::Release);
        self.rest.thread.unpark();
    }

    /// Nobody is to write to it any more.
    pub(super) fn leave(self) -> Leaver {
        self.rest
    }
}

impl Leaver {
    /// Ends it when no shard can write any more, and all is written, or the target has taken
    /// nothing for [`LAST_LINES`] since then.
    pub(super) fn retire(&self) {
        self.shared.life.store(RETIRED, Ordering::Release);
        self.thread.unpark();
    }

    /// The same when the shards have ended: who has the spool still writes nothing into it.
    pub(super) fn end(&self) {
        self.shared.life.store(LAST, Ordering::Release);
        self.thread.unpark();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.wait(Mono::default())
    }

    /// Waits for its end until `until`; `false` when it goes on.
    pub(super) fn wait(&self, until: Mono) -> bool {
        loop {
            let left = until.since(clock::mono());
            if self.ended.recv_timeout(left.min(NUDGE)) == Err(RecvTimeoutError::Disconnected) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            self.thread.unpark();
        }
    }
}

impl Source {
    /// Since when it is retired, and nobody can have lines for it any more.
    fn over_since(&self) -> Option<Mono> {
        if self.over.get().is_none() && self.is_over() {
            self.over.set(Some(clock::mono()));
        }
        self.over.get()
    }

    fn is_over(&self) -> bool {
        // Updates that no shard has looked at have the spool, from which it would take its pipe.
        let unknown = match self.shared.life.load(Ordering::Acquire) {
            RUNS => return false,
            RETIRED => Arc::strong_count(&self.spool) == 1,
            _ => true,
        };
        // A pipe that was taken from it is seen as taken once the spool is seen as left.
        fence(Ordering::Acquire);
        unknown && self.spool.pipes().iter().all(|pipe| Arc::strong_count(pipe) == 1)
    }

    /// Is a target that has stalled since `stalled` to be given up? A reader that stalls is waited
    /// for, but not for ever when there is nothing else to wait for: thread, file and lines would
    /// stay for as long as the process runs.
    fn gives_up(&self, stalled: Mono) -> bool {
        let over = self.over_since();
        over.is_some_and(|over| clock::mono().since(over.max(stalled)) >= LAST_LINES)
    }
}

impl Work {
    fn run(mut self) {
        let mut blocks = Vec::new();
        loop {
            // Looked at before the lines, so that none is left behind.
            let last = self.source.over_since().is_some();
            self.sweep(&mut blocks);
            if last {
                return;
            }
            // Behind the old lines: they belong into the old file.
            if self.source.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            thread::park_timeout(Duration::from_millis(LOG_DELAY_MS));
        }
    }

    /// Writes all lines that are here.
    fn sweep(&mut self, blocks: &mut Vec<Block>) {
        // Whoever has the spool is counted, so this thread has it once.
        let Work { source, file, failing, .. } = self;
        for pipe in source.spool.pipes() {
            pipe.take(blocks);
            for block in blocks.drain(..) {
                let written = file.write(&block.text, |stalled| source.gives_up(stalled));
                source.spool.written.add(written.lines);
                source.spool.lost.add(block.lines.saturating_sub(written.lines));
                tell(&written, failing, &file.target, &source.spool);
                pipe.give_back(block);
            }
        }
    }

    /// The old file goes on taking lines when the new one can't be had.
    fn reopen(&mut self) {
        match File::open(&self.file.target) {
            Ok(file) => self.file = file,
            Err(e) => tracing::error!("SIGUSR1: {e:#}; the old file stays in use"),
        }
    }
}

/// Says once that the target fails, and once that it does no more.
fn tell(written: &Written, failing: &mut bool, target: &LogTarget, spool: &Spool) {
    match &written.trouble {
        Some(trouble) if !*failing => {
            *failing = true;
            let what = describe(target);
            match trouble {
                Trouble::Failed(e) => {
                    tracing::error!(
                        "{what}: {e}; lines are dropped and counted until it takes some"
                    );
                }
                Trouble::Stalled => {
                    tracing::warn!("{what}: takes no more lines; the last ones are lost");
                }
            }
        }
        None if *failing => {
            *failing = false;
            let (what, dropped) = (describe(target), spool.dropped());
            tracing::warn!("{what}: takes lines again; {dropped} were dropped so far");
        }
        _ => {}
    }
}
