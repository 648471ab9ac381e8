//! Counters with one writer and many readers. A bump is a plain load, add and store (no locked
//! instruction), since only the owning shard writes. Used by `rt` and `obs`; owns no names.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows. One per shard; one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Must be called by the owning shard only, or additions may be lost.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now; any thread may ask.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls. One per shard; one writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one. Owning shard only.
    pub fn rise(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Takes one away; stays at zero. Owning shard only.
    pub fn fall(&self) {
        self.0.store(self.0.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// Sets the value. Owning shard only.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now; any thread may ask.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
