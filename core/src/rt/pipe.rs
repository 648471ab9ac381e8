//! Pipes of a shard, through which bytes go from one socket to another without being copied. Owns
//! the descriptors: a pool of bounded size, from which sessions take them in pairs, one a
//! direction, so that no direction waits for a pipe that the other one holds, and bodies of HTTP
//! one by one. `stream::splice` fills and drains them; `net::relay` and `net::haul` decide who has
//! them, and for how long.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::time::Duration;

use super::fault::Faults;
use super::shard::{self, Shard};
use super::sys;
use crate::limits;
use crate::time::clock::Mono;

/// A pipe and the bytes in it. Dropped empty it goes back to the shard's pool; with bytes in it it
/// is closed, and they are lost.
#[derive(Debug)]
pub struct Pipe {
    pub(super) read: RawFd,
    pub(super) write: RawFd,
    pub(super) held: usize,
}

/// A shard's pool.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    idle: RefCell<Vec<(RawFd, RawFd)>>,
    /// All that exist, those in use included.
    open: Cell<usize>,
    /// When the kernel last had none to give, or only small ones: it is asked again after a while,
    /// since whoever prepares to splice, in vain, has stopped receiving for it.
    refused: Cell<Option<Mono>>,
}

/// For so long the kernel is not asked again.
const REFUSED_PAUSE: Duration = Duration::from_millis(limits::PIPE_REFUSED_MS);

impl Pipe {
    /// Two empty pipes; `None` when the shard's are in use, the kernel has none to give, or
    /// splicing is switched off.
    pub fn pair() -> Option<[Pipe; 2]> {
        shard::with(|shard| {
            if !shard.features.splice {
                return None;
            }
            Some([shard.pipes.take(shard)?, shard.pipes.take(shard)?])
        })
    }

    /// One empty pipe; `None` as with `pair`.
    pub fn one() -> Option<Pipe> {
        shard::with(|shard| shard.features.splice.then(|| shard.pipes.take(shard)).flatten())
    }

    /// Whether so many could be had, unless the kernel refuses.
    pub fn spare(pipes: usize) -> bool {
        shard::with(|shard| shard.features.splice && shard.pipes.spare(shard.now()) >= pipes)
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let ends = (self.read, self.write);
        let empty = self.held == 0;
        if shard::try_with(|shard| shard.pipes.give_back(ends, empty)).is_none() {
            close(ends);
        }
    }
}

impl Pipes {
    fn take(&self, shard: &Shard) -> Option<Pipe> {
        let idle = self.idle.borrow_mut().pop();
        let (read, write) = idle.or_else(|| self.open(shard))?;
        Some(Pipe { read, write, held: 0 })
    }

    pub(super) fn in_use(&self) -> usize {
        self.open.get() - self.idle.borrow().len()
    }

    fn spare(&self, now: Mono) -> usize {
        let refused = self.refused.get().is_some_and(|at| now.since(at) < REFUSED_PAUSE);
        match refused {
            true => self.idle.borrow().len(),
            false => limits::PIPES - self.in_use(),
        }
    }

    fn open(&self, shard: &Shard) -> Option<(RawFd, RawFd)> {
        if self.open.get() == limits::PIPES {
            return None;
        }
        let ends = large(shard.faults.as_ref());
        match ends {
            Some(_) => self.open.set(self.open.get() + 1),
            None => self.refused.set(Some(shard.now())),
        }
        ends
    }

    fn give_back(&self, ends: (RawFd, RawFd), empty: bool) {
        if empty {
            self.idle.borrow_mut().push(ends);
        } else {
            self.open.set(self.open.get() - 1);
            close(ends);
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.idle.take().into_iter().for_each(close);
    }
}

/// A pipe that holds as much as a large lease does, or none: through smaller ones bytes would move
/// slower than in leases.
fn large(faults: Option<&Faults>) -> Option<(RawFd, RawFd)> {
    let small = faults.is_some_and(|faults| faults.strikes(faults.plan().small_pipe));
    let wanted = if small { libc::PIPE_BUF } else { limits::PIPE_BYTES };
    let (ends, room) = sys::pipe(wanted).ok()?;
    if room < limits::LARGE_LEASE {
        close(ends);
        return None;
    }
    Some(ends)
}

fn close((read, write): (RawFd, RawFd)) {
    sys::close(read);
    sys::close(write);
}
