//! How much a member has to do at the moment, as all shards see it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Requests (or connections) that a member has now, all shards together. On cache lines of its own
/// (two: processors fetch them in pairs), since shards write it at once.
///
/// Maintained under every algorithm, so that a change to least connections starts with the truth.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load(AtomicU32);

impl Load {
    /// How many there are.
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// One more.
    #[inline]
    pub fn rise(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less. For each `rise` or successful `claim` once.
    #[inline]
    pub fn fall(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// One more, if there are still `seen`; `false` when another shard was faster.
    #[inline]
    pub(super) fn claim(&self, seen: u32) -> bool {
        self.0.compare_exchange(seen, seen.wrapping_add(1), Relaxed, Relaxed).is_ok()
    }
}
