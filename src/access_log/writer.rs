//! The thread that writes one target. It comes by at least twice a second, and when a shard has
//! filled a block. While the target stalls it stalls, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Thread};
use std::time::Duration;

use anyhow::{Context, Result};
use weir_core::limits::LOG_DELAY_MS;
use weir_core::obs::{Block, Spool};
use weir_core::time::clock::{self, Mono};

use super::file::{File, Written, describe};

/// How often a writer that is to end is asked to look whether it can.
const NUDGE: Duration = Duration::from_millis(10);
/// It is to go on.
const RUNS: u8 = 0;
/// It is to end when nobody can have lines for it any more.
const RETIRED: u8 = 1;

/// A running writer, as control sees it.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
    /// Hangs up when the thread ends.
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    spool: Arc<Spool>,
    life: AtomicU8,
    reopen: AtomicBool,
}

/// What the thread has.
struct Work {
    shared: Arc<Shared>,
    file: File,
    /// The target takes nothing, and that was said.
    failing: bool,
    _ended: Sender<()>,
}

impl Writer {
    /// Starts a thread that writes what comes into `spool`.
    ///
    /// # Errors
    /// The thread could not be made.
    pub(super) fn start(file: File, spool: Spool) -> Result<Writer> {
        let shared = Arc::new(Shared {
            spool: Arc::new(spool),
            life: AtomicU8::new(RUNS),
            reopen: AtomicBool::new(false),
        });
        let (sender, ended) = channel();
        let work = Work { shared: Arc::clone(&shared), file, failing: false, _ended: sender };
        let handle = thread::Builder::new()
            .name("weir-access-log".into())
            .spawn(move || work.run())
            .context("the thread of an access log")?;
        shared.spool.wake_with(handle.thread());
        Ok(Writer { shared, thread: handle.thread().clone(), ended })
    }

    pub(super) fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.shared.spool)
    }

    /// Ends it when no shard can write any more, and all is written.
    pub(super) fn retire(&self) {
        self.shared.life.store(RETIRED, Ordering::Release);
        self.thread.unpark();
    }

    /// Has it open its file again.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
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

impl Work {
    fn run(mut self) {
        let mut blocks = Vec::new();
        loop {
            // Looked at before the lines, so that none is left behind.
            let last = self.is_over();
            self.sweep(&mut blocks);
            if last {
                return;
            }
            // Behind the old lines: they belong into the old file.
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            thread::park_timeout(Duration::from_millis(LOG_DELAY_MS));
        }
    }

    /// Retired, and all pipes are the spool's alone.
    fn is_over(&self) -> bool {
        self.shared.life.load(Ordering::Acquire) == RETIRED
            && self.shared.spool.pipes().iter().all(|pipe| Arc::strong_count(pipe) == 1)
    }

    /// Writes all lines that are here.
    fn sweep(&mut self, blocks: &mut Vec<Block>) {
        let spool = Arc::clone(&self.shared.spool);
        for pipe in spool.pipes() {
            pipe.take(blocks);
            for block in blocks.drain(..) {
                let written = self.file.write(&block.text);
                spool.written.add(written.lines);
                spool.lost.add(block.lines.saturating_sub(written.lines));
                self.tell(&written);
                pipe.give_back(block);
            }
        }
    }

    /// Says once that the target fails, and once that it does no more.
    fn tell(&mut self, written: &Written) {
        match &written.error {
            Some(e) if !self.failing => {
                self.failing = true;
                let what = describe(&self.file.target);
                tracing::error!("{what}: {e}; lines are dropped and counted until it takes some");
            }
            None if self.failing => {
                self.failing = false;
                let dropped = self.shared.spool.dropped();
                let what = describe(&self.file.target);
                tracing::warn!("{what}: takes lines again; {dropped} were dropped so far");
            }
            _ => {}
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
