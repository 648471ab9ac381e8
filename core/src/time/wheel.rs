//! Pure: a hierarchical timer wheel with millisecond slots. Owns which key is due when; it knows no
//! clock (time is an argument) and no waker. `rt::timer` drives one per shard.
//!
//! Eleven levels of 64 slots, which hold any 64-bit time: level 0 holds the next 64 ms one slot a
//! millisecond, each further level is 64 times coarser. An entry sits on the lowest level on which
//! its time differs from the wheel's own; when the wheel reaches a coarse slot, its entries move
//! down. Setting and removing are O(1).

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
const NONE: u32 = u32::MAX;

/// A key of the wheel, chosen by the caller; small numbers, since the wheel keeps a table by key.
pub type Key = u32;

#[derive(Clone, Copy, Debug)]
struct Node {
    at: u64,
    prev: u32,
    next: u32,
    /// `level * 64 + slot`, or `NONE` while the key is not in the wheel.
    list: u32,
}

/// The wheel. One per shard.
#[derive(Debug)]
pub struct Wheel {
    now: u64,
    heads: Box<[u32]>,
    occupied: [u64; LEVELS],
    nodes: Vec<Node>,
    len: usize,
}

impl Wheel {
    /// An empty wheel at `now` (milliseconds).
    pub fn new(now: u64) -> Self {
        let heads = vec![NONE; LEVELS * SLOTS].into_boxed_slice();
        Self { now, heads, occupied: [0; LEVELS], nodes: Vec::new(), len: 0 }
    }

    /// Number of keys in the wheel.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no key is in the wheel.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When `key` is due, if it is in the wheel (milliseconds).
    pub fn deadline(&self, key: Key) -> Option<u64> {
        self.nodes.get(key as usize).filter(|node| node.list != NONE).map(|node| node.at)
    }

    /// Makes `key` due at `at` (milliseconds), replacing what was set. A time that has passed is
    /// due at the next `advance`.
    pub fn set(&mut self, key: Key, at: u64) {
        self.remove(key);
        let index = key as usize;
        if index >= self.nodes.len() {
            let empty = Node { at: 0, prev: NONE, next: NONE, list: NONE };
            self.nodes.resize(index + 1, empty);
        }
        self.nodes[index].at = at;
        self.link(key);
        self.len += 1;
    }

    /// Takes `key` out; nothing when it is not in.
    pub fn remove(&mut self, key: Key) {
        if self.nodes.get(key as usize).is_none_or(|node| node.list == NONE) {
            return;
        }
        self.unlink(key);
        self.len -= 1;
    }

    /// Moves the wheel to `now` and appends the keys that are due to `due`, earliest slot first.
    pub fn advance(&mut self, now: u64, due: &mut Vec<Key>) {
        while let Some((level, slot, start)) = self.next_slot() {
            if start > now {
                break;
            }
            self.now = self.now.max(start);
            self.empty_slot(level, slot, now, due);
        }
        self.now = self.now.max(now);
    }

    /// The earliest time at which `advance` has something to do: exact for the next 64 ms, else a
    /// lower bound (entries have to move down then).
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, start)| start)
    }

    fn empty_slot(&mut self, level: usize, slot: usize, now: u64, due: &mut Vec<Key>) {
        let list = level * SLOTS + slot;
        while self.heads[list] != NONE {
            let key = self.heads[list];
            self.unlink(key);
            if self.nodes[key as usize].at <= now {
                self.len -= 1;
                due.push(key);
            } else {
                self.link(key);
            }
        }
    }

    /// The earliest occupied slot: on the lowest level that has one, since everything on a lower
    /// level is due before anything on a higher one.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let shift = BITS * level as u32;
            let here = (self.now >> shift) & (SLOTS as u64 - 1);
            let ahead = self.occupied[level] & (u64::MAX << here);
            if ahead == 0 {
                debug_assert_eq!(self.occupied[level], 0, "entries behind the wheel");
                return None;
            }
            let slot = u64::from(ahead.trailing_zeros());
            let base = (self.now >> shift) & !(SLOTS as u64 - 1);
            Some((level, slot as usize, (base | slot) << shift))
        })
    }

    fn link(&mut self, key: Key) {
        let at = self.nodes[key as usize].at.max(self.now);
        let differs = (at ^ self.now) | (SLOTS as u64 - 1);
        let level = differs.ilog2() / BITS;
        let slot = (at >> (BITS * level)) as usize & (SLOTS - 1);
        let list = level as usize * SLOTS + slot;
        let head = self.heads[list];
        if head != NONE {
            self.nodes[head as usize].prev = key;
        }
        let node = &mut self.nodes[key as usize];
        (node.prev, node.next, node.list) = (NONE, head, list as u32);
        self.heads[list] = key;
        self.occupied[level as usize] |= 1 << slot;
    }

    fn unlink(&mut self, key: Key) {
        let Node { prev, next, list, .. } = self.nodes[key as usize];
        if prev == NONE {
            self.heads[list as usize] = next;
            if next == NONE {
                self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
            }
        } else {
            self.nodes[prev as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        self.nodes[key as usize].list = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn due(wheel: &mut Wheel, now: u64) -> Vec<Key> {
        let mut out = Vec::new();
        wheel.advance(now, &mut out);
        out.sort_unstable();
        out
    }

    /// R6.7-15: never early; the wheel itself adds no lateness.
    #[test]
    fn fires_at_its_time_and_not_before() {
        let mut wheel = Wheel::new(1_000);
        wheel.set(0, 1_000 + 60_000);
        assert_eq!(due(&mut wheel, 60_999), []);
        assert_eq!(due(&mut wheel, 61_000), [0]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_passed_time_is_due_at_once() {
        let mut wheel = Wheel::new(500);
        wheel.set(3, 10);
        assert_eq!(wheel.next_deadline(), Some(500));
        assert_eq!(due(&mut wheel, 500), [3]);
    }

    #[test]
    fn the_far_end_of_time_can_be_set() {
        let mut wheel = Wheel::new(7);
        wheel.set(1, u64::MAX);
        wheel.set(2, 1 << 40);
        assert_eq!(due(&mut wheel, (1 << 40) - 1), []);
        assert_eq!(due(&mut wheel, u64::MAX - 1), [2]);
        assert_eq!(due(&mut wheel, u64::MAX), [1]);
        assert!(wheel.is_empty());
    }

    proptest! {
        /// Against the obvious model: a map from key to time.
        #[test]
        fn agrees_with_a_sorted_map(
            steps in prop::collection::vec((0u32..40, 0u64..300_000, 0u64..5_000, 0u8..8), 1..200),
            start in 0u64..10_000_000,
        ) {
            let (mut wheel, mut model) = (Wheel::new(start), BTreeMap::new());
            let mut now = start;
            for (key, after, pass, what) in steps {
                if what == 0 {
                    wheel.remove(key);
                    model.remove(&key);
                } else {
                    wheel.set(key, now + after);
                    model.insert(key, now + after);
                }
                now += pass;
                let expected: Vec<_> =
                    model.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                model.retain(|_, at| *at > now);
                prop_assert_eq!(due(&mut wheel, now), expected);
                prop_assert_eq!(wheel.len(), model.len());
                let next = model.values().min().copied();
                prop_assert_eq!(wheel.next_deadline().is_some(), next.is_some());
                prop_assert!(wheel.next_deadline() <= next || next.is_none());
                prop_assert!(wheel.next_deadline().is_none_or(|at| at > now));
            }
        }
    }
}
