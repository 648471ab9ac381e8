//! What all shards share to keep the limits of a listener and of the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{Bucket, Sources, Spread};
use crate::limits::SHORTAGE_LOG_MS;
use crate::time::clock::Mono;

/// The limits of a listener; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Open client connections, all shards together: 0–1,000,000.
    pub connections: u32,
    /// New client connections a second: 0–1,000,000.
    pub rate: u32,
    /// Open client connections of one address: 0–1,000,000.
    pub per_source: u32,
}

/// Connections that are open now. On cache lines of its own (two: processors fetch them in pairs),
/// since shards write it at once.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Open(AtomicU32);

impl Open {
    /// How many there are.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// One more, if that keeps within `limit` (0 = none).
    #[inline]
    #[must_use]
    pub fn rise(&self, limit: u32) -> bool {
        if limit == 0 {
            self.0.fetch_add(1, Relaxed);
            return true;
        }
        self.0.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
    }

    /// One less. For each successful `rise` once.
    #[inline]
    pub fn fall(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What the shards share of a listener. It outlives reloads, as the listener does; the limits
/// themselves come with each state.
#[derive(Debug, Default)]
pub struct Gate {
    /// Its open connections.
    pub open: Open,
    /// What new ones draw from.
    pub bucket: Bucket,
    sources: OnceLock<Sources>,
}

impl Gate {
    /// Makes room for counts of each address. Takes a while (2 MiB), so control calls it, before
    /// shards hear of the limit. Again: does nothing.
    pub fn prepare_sources(&self) {
        self.sources.get_or_init(Sources::default);
    }

    /// The counts of each address, once they are prepared.
    #[inline]
    #[must_use]
    pub fn sources(&self) -> Option<&Sources> {
        self.sources.get()
    }
}

/// The whole process: its open client connections, how many there may be, and where they are.
#[derive(Debug, Default)]
pub struct House {
    /// Open client connections of all listeners.
    pub open: Open,
    /// How the shards share them.
    pub spread: Spread,
    limit: AtomicU32,
    /// When refusals for this limit were told of last: a time of the clock in milliseconds, and
    /// one; 0 = never. And how many there were since.
    told: AtomicU64,
    untold: AtomicU64,
}

impl House {
    /// A connection was refused for this limit. Returns how many were since that was told last,
    /// where it is time to tell: over all shards once in [`SHORTAGE_LOG_MS`] at most.
    pub fn turned_away(&self, now: Mono) -> Option<u64> {
        self.untold.fetch_add(1, Relaxed);
        let now = now.nanos() / 1_000_000 + 1;
        let told = self.told.load(Relaxed);
        if told != 0 && now < told.saturating_add(SHORTAGE_LOG_MS) {
            return None;
        }
        // Of two shards at once one tells.
        self.told.compare_exchange(told, now, Relaxed, Relaxed).ok()?;
        Some(self.untold.swap(0, Relaxed))
    }

    /// From now on there may be `limit` client connections; 0 = any number. Those that are open
    /// stay.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Relaxed);
    }

    /// How many there may be; 0 = any number.
    #[inline]
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_now_and_then() {
        let house = House::default();
        let at = |millis: u64| Mono::from_nanos(millis * 1_000_000);
        let told: Vec<_> = [0, 1, SHORTAGE_LOG_MS - 1, SHORTAGE_LOG_MS, SHORTAGE_LOG_MS + 1]
            .map(|millis| house.turned_away(at(millis)))
            .into();
        assert_eq!(told, [Some(1), None, None, Some(3), None]);
    }

    #[test]
    fn the_limit_is_exact() {
        let open = Open::default();
        let rise = || (0..1_000).filter(|_| open.rise(700)).count();
        let risen: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(rise)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((risen, open.get()), (700, 700));
        open.fall();
        assert!(open.rise(700) && !open.rise(700) && open.rise(0));
        // A limit below what is open lets nobody in.
        assert!(!open.rise(5));
    }
}
