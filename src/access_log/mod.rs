//! Writing access logs: one thread a target takes finished lines from the shards' pipes and writes
//! them, so that no shard ever waits for a disk, a pipe or a terminal. Control owns the
//! [`Writers`]: it opens what a new state asks for before anything changes, has files reopened, and
//! has all lines written at the end. What a line says is `weir-l7`'s business.

mod file;
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use weir_core::control::State;
use weir_core::limits::LOG_TARGETS;
use weir_core::model::LogTarget;
use weir_core::obs::Spool;

use file::File;
use writer::{Leaver, Writer};

/// How long targets that take nothing are waited for when nobody writes to them any more, and at
/// the process' end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The writers of the process, by target.
#[derive(Debug, Default)]
pub struct Writers {
    running: BTreeMap<LogTarget, Writer>,
    /// Those that nobody names any more, until they have ended.
    leaving: Vec<(LogTarget, Leaver)>,
    shards: usize,
}

/// Files of targets that are new in a state: opened, and nothing is written to them yet. Dropping
/// it closes them again.
#[derive(Debug)]
pub struct Opened {
    wanted: BTreeSet<LogTarget>,
    files: Vec<(LogTarget, File)>,
}

impl Writers {
    /// No writers yet, for `shards` shards.
    pub fn new(shards: usize) -> Writers {
        Writers { shards, ..Writers::default() }
    }

    /// Opens what `state` wants beyond what is open.
    ///
    /// # Errors
    /// A file that can't be opened (R13.1-1), or too many targets; nothing has changed then.
    pub fn open(&self, state: &State) -> Result<Opened> {
        let targets = state.listeners().filter_map(|(_, listener)| listener.log.access.as_ref());
        let wanted: BTreeSet<LogTarget> = targets.map(|access| access.target.clone()).collect();
        if wanted.len() > LOG_TARGETS {
            bail!(
                "the listeners name {} access logs, at most {LOG_TARGETS} can be written at once; \
                 give several listeners the same path",
                wanted.len()
            );
        }
        let new = wanted.iter().filter(|target| !self.running.contains_key(target));
        let files = new.map(|target| Ok((target.clone(), File::open(target)?)));
        Ok(Opened { files: files.collect::<Result<_>>()?, wanted })
    }

    /// [`Writers::start`] and [`Writers::keep`], where nothing that may fail comes between them.
    ///
    /// # Errors
    /// A thread that could not be made.
    pub fn follow(&mut self, opened: Opened) -> Result<()> {
        let wanted = self.start(opened)?;
        self.keep(&wanted);
        Ok(())
    }

    /// Starts the writers of the new targets. Returns all targets that are wanted from now on; if
    /// that comes to nothing, the next [`Writers::keep`] ends those that are not.
    ///
    /// # Errors
    /// A thread that could not be made.
    pub fn start(&mut self, opened: Opened) -> Result<BTreeSet<LogTarget>> {
        let Opened { wanted, files } = opened;
        for (target, file) in files {
            let writer = Writer::start(file, Spool::new(self.shards))?;
            self.running.insert(target, writer);
        }
        Ok(wanted)
    }

    /// Writers of targets that nobody wants any more end when the last line for them is written, or
    /// when their reader has stalled for [`LAST_LINES`].
    pub fn keep(&mut self, wanted: &BTreeSet<LogTarget>) {
        let gone = self.running.extract_if(.., |target, _| !wanted.contains(target));
        self.leaving.extend(gone.map(|(target, writer)| (target, writer.leave())));
        self.leaving.retain(|(_, writer)| {
            writer.retire();
            !writer.has_ended()
        });
    }

    /// What the shards write into.
    pub fn spools(&self) -> HashMap<LogTarget, Arc<Spool>> {
        let spool = |(target, writer): (&LogTarget, &Writer)| (target.clone(), writer.spool());
        self.running.iter().map(spool).collect()
    }

    /// Has all files opened again, as after a rotation.
    pub fn reopen(&self) {
        for writer in self.running.values() {
            writer.reopen();
        }
    }

    /// The shards have ended: waits until all lines are written, but not for ever.
    pub fn finish(&mut self) {
        let mut writers = std::mem::take(&mut self.leaving);
        let running = std::mem::take(&mut self.running).into_iter();
        writers.extend(running.map(|(target, writer)| (target, writer.leave())));
        for (_, writer) in &writers {
            writer.end();
        }
        let until = weir_core::time::clock::mono().plus(LAST_LINES);
        for (target, writer) in writers {
            if !writer.wait(until) {
                tracing::warn!(
                    "{}: takes no more lines; the last ones are lost",
                    file::describe(&target)
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
