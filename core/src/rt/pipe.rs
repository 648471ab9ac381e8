//! Pipes of a shard, through which bytes go from one socket to another without being copied. Owns
//! the descriptors: a pool of bounded size, from which they are taken in pairs, one a direction, so
//! that no direction of a session waits for a pipe that the other one holds. `stream::splice` fills
//! and drains them; `net::relay` decides who has them, and for how long.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;

use super::shard;
use super::sys;
use crate::limits;

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
}

impl Pipe {
    /// Two empty pipes; `None` when the shard's are in use, the kernel has none to give, or
    /// splicing is switched off.
    pub fn pair() -> Option<[Pipe; 2]> {
        shard::with(|shard| {
            if !shard.features.splice {
                return None;
            }
            Some([shard.pipes.take()?, shard.pipes.take()?])
        })
    }

    /// Whether `pair` would have two, unless the kernel refuses.
    pub fn spare() -> bool {
        shard::with(|shard| shard.features.splice && shard.pipes.spare() >= 2)
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
    fn take(&self) -> Option<Pipe> {
        let (read, write) = self.idle.borrow_mut().pop().or_else(|| self.open())?;
        Some(Pipe { read, write, held: 0 })
    }

    pub(super) fn in_use(&self) -> usize {
        self.open.get() - self.idle.borrow().len()
    }

    fn spare(&self) -> usize {
        limits::PIPES - self.in_use()
    }

    fn open(&self) -> Option<(RawFd, RawFd)> {
        if self.open.get() == limits::PIPES {
            return None;
        }
        let ends = sys::pipe(limits::PIPE_BYTES).ok()?;
        self.open.set(self.open.get() + 1);
        Some(ends)
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

fn close((read, write): (RawFd, RawFd)) {
    sys::close(read);
    sys::close(write);
}
