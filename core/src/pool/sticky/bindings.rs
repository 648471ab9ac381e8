//! Which member a session is bound to, for all shards of a process: a table of fixed size, without
//! locks. A shard that writes is seen by the others at once, so that a client whose next connection
//! lands on another shard finds its member there.
//!
//! An entry is two words: the binding, and the session xor the binding. A reader that meets a write
//! half done, or two writes mixed, gets a session that isn't its own and takes the entry for
//! somebody else's (the trick of shared transposition tables in chess programs). What can be lost
//! in such a race is a binding, never its truth.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::limits::{STICKY_BINDINGS, STICKY_WAYS};

/// The sessions of one pool; at most [`STICKY_BINDINGS`]. When there are more, the one of the same
/// few places that would end first is forgotten.
pub struct Bindings {
    entries: Box<[Entry]>,
}

/// A table's entries as [`Bindings::news`] has found them last; takes as much memory as the table.
#[derive(Clone, Debug, Default)]
pub struct Seen(Vec<(u64, u64)>);

#[derive(Default)]
struct Entry {
    /// `session ^ binding`; both words 0 = free.
    check: AtomicU64,
    /// Member in the upper half, end in seconds in the lower.
    binding: AtomicU64,
}

impl Entry {
    /// Session and binding, as far as nobody is writing.
    fn read(&self) -> (u64, u64) {
        let binding = self.binding.load(Relaxed);
        (self.check.load(Relaxed) ^ binding, binding)
    }

    fn write(&self, session: u64, binding: u64) {
        self.binding.store(binding, Relaxed);
        self.check.store(session ^ binding, Relaxed);
    }
}

impl Bindings {
    /// An empty table; takes 2 MiB.
    #[must_use]
    pub fn new() -> Bindings {
        Bindings { entries: (0..STICKY_BINDINGS).map(|_| Entry::default()).collect() }
    }

    /// The member that `session` is bound to at `now` (seconds of any clock that only goes on).
    #[must_use]
    pub fn find(&self, session: u64, now: u32) -> Option<u32> {
        let (found, binding) =
            self.places(session).iter().map(Entry::read).find(|&(found, _)| found == session)?;
        let (member, end) = parts(binding);
        (found != 0 && end > now).then_some(member)
    }

    /// Binds `session` (not 0) to `member` until `end`, from `now` on.
    pub fn bind(&self, session: u64, member: u32, end: u32, now: u32) {
        let places = self.places(session);
        let own = places.iter().find(|entry| entry.read().0 == session);
        // Free entries end at 0, so they come first.
        let worth = |entry: &&Entry| parts(entry.read().1).1.saturating_sub(now);
        if let Some(entry) = own.or_else(|| places.iter().min_by_key(worth)) {
            entry.write(session, (u64::from(member) << 32) | u64::from(end));
        }
    }

    /// The bindings that were made or renewed since `seen` was here last, or all for a new one,
    /// and have not ended at `now`: session, member, end. What is written meanwhile may be missed,
    /// and is found by the next call.
    pub fn news(&self, seen: &mut Seen, now: u32) -> impl Iterator<Item = (u64, u32, u32)> {
        seen.0.resize(self.entries.len(), (0, 0));
        let entry = move |(entry, seen): (&Entry, &mut (u64, u64))| {
            let read = entry.read();
            let known = std::mem::replace(seen, read) == read;
            let (session, (member, end)) = (read.0, parts(read.1));
            (!known && session != 0 && end > now).then_some((session, member, end))
        };
        self.entries.iter().zip(&mut seen.0).filter_map(entry)
    }

    /// Where an entry for `session` may stand.
    fn places(&self, session: u64) -> &[Entry] {
        let sets = self.entries.len() / STICKY_WAYS;
        let set = session as usize % sets.max(1);
        self.entries.get(set * STICKY_WAYS..(set + 1) * STICKY_WAYS).unwrap_or_default()
    }
}

fn parts(binding: u64) -> (u32, u32) {
    ((binding >> 32) as u32, binding as u32)
}

impl Default for Bindings {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bindings")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// R2.2-6, R11.3-2: a binding lasts until its end, can be renewed and changed.
    #[test]
    fn bindings_come_and_go() {
        let table = Bindings::new();
        assert_eq!(table.find(7, 0), None);
        table.bind(7, 3, 100, 0);
        assert_eq!((table.find(7, 99), table.find(7, 100)), (Some(3), None));
        table.bind(7, 3, 200, 100);
        assert_eq!(table.find(7, 150), Some(3));
        table.bind(7, 4, 300, 150);
        assert_eq!((table.find(7, 150), table.find(8, 150)), (Some(4), None));
    }

    /// The table never grows: what would end first makes room.
    #[test]
    fn the_oldest_of_a_set_is_forgotten() {
        let table = Bindings::new();
        let sets = (STICKY_BINDINGS / STICKY_WAYS) as u64;
        let sessions: Vec<u64> = (0..=STICKY_WAYS as u64).map(|n| 5 + n * sets).collect();
        for (n, &session) in (0u32..).zip(&sessions) {
            table.bind(session, n, 1_000 + n, 0);
        }
        let kept: Vec<_> = sessions.iter().map(|&session| table.find(session, 0)).collect();
        assert_eq!(kept[0], None);
        assert!((1u32..).zip(&kept[1..]).all(|(n, &found)| found == Some(n)), "{kept:?}");
    }

    /// Who has seen all hears of what has changed, and of nothing else.
    #[test]
    fn news_are_told_once() {
        let (table, mut seen) = (Bindings::new(), Seen::default());
        let news = |seen: &mut Seen| {
            let mut news: Vec<_> = table.news(seen, 10).collect();
            news.sort_unstable();
            news
        };
        for (session, member, end) in [(7, 3, 100), (8, 3, 100), (9, 4, 10)] {
            table.bind(session, member, end, 0);
        }
        assert_eq!(news(&mut seen), [(7, 3, 100), (8, 3, 100)], "one has ended");
        assert_eq!(news(&mut seen), []);
        table.bind(7, 5, 100, 10);
        table.bind(8, 3, 200, 10);
        table.bind(10, 4, 50, 10);
        assert_eq!(news(&mut seen), [(7, 5, 100), (8, 3, 200), (10, 4, 50)]);
        assert_eq!(news(&mut Seen::default()).len(), 3);
    }

    /// Shards that write the same few entries at once: what is found is always the truth.
    #[test]
    fn a_torn_entry_is_nobodys() {
        let table = Arc::new(Bindings::new());
        let sets = (STICKY_BINDINGS / STICKY_WAYS) as u64;
        let threads: Vec<_> = (0..3u64)
            .map(|thread| {
                let table = Arc::clone(&table);
                std::thread::spawn(move || {
                    for n in 0..200_000u64 {
                        let session = 1 + (n * 7 + thread) % 20 * sets;
                        let member = (session / sets) as u32;
                        table.bind(session, member, 1_000, 0);
                        let other = 1 + (n * 3) % 20 * sets;
                        let found = table.find(other, 0);
                        assert!(found.is_none_or(|m| u64::from(m) == other / sets));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
