//! Pure: what a peer may do that costs us work and brings nobody anything. Budgets are refilled by
//! time and by what is useful, so that a busy peer is never taken for a hostile one.

use weir_core::time::clock::Mono;

use crate::limits::{
    H2_FRAME_BUDGET, H2_FRAMES_A_SECOND, H2_RESET_BUDGET, H2_RESETS_A_SECOND, H2_SMALLEST_STEP,
};

/// The budgets of one connection.
#[derive(Debug)]
pub(super) struct Budget {
    /// Streams that may come to nothing: reset by the peer, or by us through its fault
    /// (CVE-2023-44487, CVE-2025-8671).
    resets: Bucket<H2_RESET_BUDGET, H2_RESETS_A_SECOND>,
    /// Frames that bring no request and no body.
    frames: Bucket<H2_FRAME_BUDGET, H2_FRAMES_A_SECOND>,
}

#[derive(Debug)]
struct Bucket<const MOST: u32, const A_SECOND: u64> {
    left: u32,
    filled: Mono,
}

impl<const MOST: u32, const A_SECOND: u64> Bucket<MOST, A_SECOND> {
    /// Takes `cost`; false when it isn't there.
    #[inline]
    fn spend(&mut self, cost: u32, now: Mono) -> bool {
        let taken = self.left.checked_sub(cost).or_else(|| self.refilled(now).checked_sub(cost));
        self.left = taken.unwrap_or_default();
        taken.is_some()
    }

    /// What is left with what time has added. Called when the bucket is empty: a quiet peer costs
    /// no reckoning.
    #[cold]
    fn refilled(&mut self, now: Mono) -> u32 {
        let millis = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let more = millis.saturating_mul(A_SECOND) / 1_000;
        if more > 0 {
            self.filled = now;
        }
        let left = u64::from(self.left).saturating_add(more).min(u64::from(MOST));
        self.left = left as u32;
        self.left
    }

    #[inline]
    fn gain(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(MOST);
    }
}

impl Budget {
    pub(super) fn new(now: Mono) -> Budget {
        Budget {
            resets: Bucket { left: H2_RESET_BUDGET, filled: now },
            frames: Bucket { left: H2_FRAME_BUDGET, filled: now },
        }
    }

    /// A stream came to nothing; false: one too many.
    pub(super) fn reset(&mut self, now: Mono) -> bool {
        self.resets.spend(1, now)
    }

    /// A frame that is of no use to anybody by itself; false: one too many.
    #[inline]
    pub(super) fn frame(&mut self, cost: u32, now: Mono) -> bool {
        self.frames.spend(cost, now)
    }

    /// A request was answered in full.
    pub(super) fn answered(&mut self) {
        self.resets.gain(1);
    }

    /// A stream was opened, or body was moved: some frames of control belong to it.
    #[inline]
    pub(super) fn moved(&mut self) {
        self.frames.gain(4);
    }

    /// So much body was sent: its windows, that of the stream and that of the connection, may be
    /// opened again by as small steps as clients take that read little at a time.
    #[inline]
    pub(super) fn sent(&mut self, bytes: usize) {
        let steps = u32::try_from(bytes).unwrap_or(u32::MAX).div_ceil(H2_SMALLEST_STEP);
        self.frames.gain(steps.saturating_mul(2));
        self.moved();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spent_refilled_and_bounded() {
        let start = Mono::from_nanos(1);
        let mut budget = Budget::new(start);
        assert!((0..H2_RESET_BUDGET).all(|_| budget.reset(start)));
        assert!(!budget.reset(start) && !budget.reset(start));
        budget.answered();
        assert!(budget.reset(start) && !budget.reset(start));
        let second = start.plus(Duration::from_secs(1));
        assert!((0..H2_RESETS_A_SECOND).all(|_| budget.reset(second)));
        assert!(!budget.reset(second));
        let year = start.plus(Duration::from_secs(365 * 86_400));
        assert!((0..H2_RESET_BUDGET).all(|_| budget.reset(year)));
        assert!(!budget.reset(year));
        assert!(budget.frame(H2_FRAME_BUDGET, start) && !budget.frame(1, start));
        budget.moved();
        assert!(budget.frame(4, start) && !budget.frame(1, start));
    }
}
