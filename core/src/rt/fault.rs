//! Faults on demand, for tests: makes the ring misbehave in ways that the kernel may at any time.
//! Owns the dice; they are thrown in `driver`, `stream`, `listener`, `pipe` and `udp`.
//!
//! All faults are real ones (the kernel itself then reports ENOBUFS, ECANCELED, a short send, an
//! ended multishot), except for a refused accept, whose completion is rewritten.

use std::cell::Cell;

/// How often the ring misbehaves, each in thousandths, from a seed. All zero = never.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultPlan {
    /// Seed of the dice.
    pub seed: u64,
    /// Turns in which no receive buffer is published (ENOBUFS).
    pub starve: u16,
    /// Turns in which a random operation is cancelled (ECANCELED out of the blue).
    pub cancel: u16,
    /// Sends that are cut short.
    pub short_send: u16,
    /// Multishot operations that end after one completion.
    pub end_multishot: u16,
    /// Accepts that fail with EMFILE; the connection is lost.
    pub refuse_accept: u16,
    /// Receives of datagrams with room for a few bytes only, so that they are truncated.
    pub short_buffer: u16,
    /// Pipes that have room for a page only, as those of a user with many.
    pub small_pipe: u16,
    /// Completion queue of the smallest size, so that it overflows.
    pub tiny_queue: bool,
}

/// The dice of one shard.
#[derive(Debug)]
pub(super) struct Faults {
    plan: FaultPlan,
    state: Cell<u64>,
}

impl Faults {
    pub(super) fn new(plan: FaultPlan) -> Faults {
        Faults { plan, state: Cell::new(plan.seed) }
    }

    pub(super) fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// True in `per_mille` of 1,000 throws.
    pub(super) fn strikes(&self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1_000) < u64::from(per_mille)
    }

    /// A number below `bound` (SplitMix64; good enough for dice).
    pub(super) fn below(&self, bound: u64) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
