//! Open connections of each client address, shared by all shards without a lock: a table of fixed
//! size whose lines are searched as a whole, so that nothing has to be moved when one is freed.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ahash::RandomState;

use crate::limits::{SOURCE_LINES, SOURCES_PER_LINE};

/// Bits of a slot that count; above them stands the tag of the address.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// One cache line: a slot an address. Zero = free.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; SOURCES_PER_LINE]);

/// The counts. An address is known by a keyed hash of 55 bits, so that clients can't choose whose
/// slot they share. Exact, but for two arrivals of the same new address on two shards in the same
/// instant, which may both be let in at the limit.
#[derive(Debug)]
pub struct Sources {
    lines: Box<[Line]>,
    keys: RandomState,
}

/// A connection's place in the table, to be given back. Small, since each connection has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim(
    /// The hash of its address; zero = not counted.
    u64,
);

impl Claim {
    /// Nothing to give back.
    pub const NONE: Claim = Claim(0);
}

impl Default for Sources {
    fn default() -> Sources {
        Sources::with_keys(RandomState::new())
    }
}

impl Sources {
    /// The most that is counted of one address.
    pub const MOST: u32 = COUNT_MASK as u32;

    fn with_keys(keys: RandomState) -> Sources {
        Sources { lines: (0..SOURCE_LINES).map(|_| Line::default()).collect(), keys }
    }

    /// Counts one more connection of `address`; `None` when it has `limit` (at most 2^24 - 1)
    /// already. When the line is full of other addresses it is let in and not counted.
    pub fn enter(&self, address: IpAddr, limit: u32) -> Option<Claim> {
        let hash = self.keys.hash_one(address.to_canonical()).max(1);
        let Some(line) = self.line(hash) else { return Some(Claim::NONE) };
        loop {
            let (mut sum, mut place) = (0, None);
            for slot in &line.0 {
                let word = slot.load(Relaxed);
                if is_of(word, hash) {
                    sum += word & COUNT_MASK;
                    place = Some((slot, word, word + 1));
                } else if word == 0 && place.is_none() {
                    place = Some((slot, 0, first(hash)));
                }
            }
            if sum >= u64::from(limit) {
                return None;
            }
            let Some((slot, was, now)) = place else { return Some(Claim::NONE) };
            if slot.compare_exchange(was, now, Relaxed, Relaxed).is_ok() {
                return Some(Claim(hash));
            }
        }
    }

    /// One connection less.
    pub fn leave(&self, claim: Claim) {
        let Claim(hash) = claim;
        let Some(line) = self.line(hash).filter(|_| claim != Claim::NONE) else { return };
        let less = |word: u64| {
            let last = word & COUNT_MASK == 1;
            is_of(word, hash).then(|| if last { 0 } else { word - 1 })
        };
        // Found in the first try, unless the address stands here twice and one was just freed.
        let _found = line.0.iter().any(|slot| slot.fetch_update(Relaxed, Relaxed, less).is_ok());
    }

    fn line(&self, hash: u64) -> Option<&Line> {
        self.lines.get(hash as usize % SOURCE_LINES)
    }
}

/// The word of an address that has its first connection.
fn first(hash: u64) -> u64 {
    (hash & !COUNT_MASK) | 1
}

fn is_of(word: u64, hash: u64) -> bool {
    word != 0 && (word ^ hash) & !COUNT_MASK == 0
}

const _: () = assert!(SOURCE_LINES.is_power_of_two() && SOURCE_LINES <= 1 << COUNT_BITS);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn sources() -> Sources {
        Sources::with_keys(RandomState::with_seeds(1, 2, 3, 4))
    }

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn each_address_has_its_own_count() {
        let sources = sources();
        let (a, b) = (address(1), IpAddr::V6(Ipv6Addr::LOCALHOST));
        let first = sources.enter(a, 2).unwrap();
        assert!(sources.enter(a, 2).is_some());
        assert_eq!(sources.enter(a, 2), None);
        assert!(sources.enter(b, 2).is_some());
        sources.leave(first);
        assert!(sources.enter(a, 2).is_some());
        assert_eq!(sources.enter(a, 2), None);
        // The mapped spelling is the same address.
        assert_eq!(sources.enter("::ffff:0.0.0.1".parse().unwrap(), 2), None);
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let sources = sources();
        let many = 2 * (SOURCE_LINES * SOURCES_PER_LINE) as u32;
        let claims: Vec<Claim> = (0..many).map(|n| sources.enter(address(n), 1).unwrap()).collect();
        let counted = claims.iter().filter(|claim| **claim != Claim::NONE).count();
        assert!(counted <= SOURCE_LINES * SOURCES_PER_LINE && counted > many as usize / 4);
        claims.into_iter().for_each(|claim| sources.leave(claim));
        let words = sources.lines.iter().flat_map(|line| &line.0);
        assert!(words.into_iter().all(|word| word.load(Relaxed) == 0));
    }

    #[test]
    fn shards_share_the_limit() {
        let sources = sources();
        // One is there before: arrivals of the very first instant may pass twice.
        let first = sources.enter(address(9), 100).unwrap();
        let enter = || (0..1_000).filter_map(|_| sources.enter(address(9), 100)).count();
        let entered: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(entered, 99);
        (0..100).for_each(|_| sources.leave(first));
        assert!(sources.enter(address(9), 1).is_some());
    }
}
