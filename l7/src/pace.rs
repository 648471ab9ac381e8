//! Pure: how much a client has to send, or take, to be worth waiting for. A gap ends by the timer
//! alone; what is here ends those who send or take a byte now and then (slow body, slow read).
//! Called by `exchange::wait` and `connection`, which know the sockets.

use std::time::Duration;

use weir_core::time::clock::Mono;

use crate::limits::MIN_CLIENT_RATE;

/// Bytes that `time` has to bring.
fn least(time: Duration) -> u64 {
    let bytes = time.as_millis().saturating_mul(u128::from(MIN_CLIENT_RATE)) / 1_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What came from a client while it was waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrivals {
    waited: Duration,
    came: u64,
}

impl Arrivals {
    /// Takes note of `came` bytes after a wait of `waited`. True when the waits of a whole `window`
    /// brought too little. Time in which nobody waited for the client doesn't count.
    pub(crate) fn are_too_slow(&mut self, waited: Duration, came: u64, window: Duration) -> bool {
        self.waited += waited;
        self.came += came;
        if self.waited < window {
            return false;
        }
        let slow = self.came < least(self.waited);
        *self = Arrivals::default();
        slow
    }
}

/// What a peer takes while nothing more can be sent to it. Measured by what it has acknowledged,
/// since the kernel takes large pieces only when a good part of its buffer is free; that is asked
/// for only at half and at the end of a window, so that waits that end soon cost nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Departures {
    since: Mono,
    sent: u64,
    acknowledged: Option<u64>,
}

impl Departures {
    /// A wait that begins, when the kernel has taken `sent` bytes so far.
    pub(crate) fn begin(since: Mono, sent: u64) -> Departures {
        Departures { since, sent, acknowledged: None }
    }

    /// What the kernel has taken since is enough for the time: the wait may begin anew.
    pub(crate) fn are_brisk(&self, now: Mono, sent: u64) -> bool {
        sent.saturating_sub(self.sent) >= least(now.since(self.since)).max(1)
    }

    /// Half a window is over, and the peer has acknowledged so much of all that was ever sent. The
    /// first half only takes the measure; false when a later one brought too little.
    pub(crate) fn go_on(&mut self, acknowledged: u64, half: Duration, strict: bool) -> bool {
        let wanted = if strict { least(half).max(1) } else { 1 };
        let before = self.acknowledged.replace(acknowledged);
        before.is_none_or(|before| acknowledged.saturating_sub(before) >= wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A byte a second is caught after one window; the least rate passes for ever.
    #[test]
    fn slow_bodies() {
        let mut drip = Arrivals::default();
        let caught = (1..).find(|_| drip.are_too_slow(SECOND, 1, 60 * SECOND));
        assert_eq!(caught, Some(60));
        let mut steady = Arrivals::default();
        for _ in 0..1_000 {
            assert!(!steady.are_too_slow(SECOND, MIN_CLIENT_RATE, 60 * SECOND));
        }
        // Bursts count for their window.
        let mut bursts = Arrivals::default();
        for at in 0..1_000 {
            let came = if at % 30 == 0 { 30 * MIN_CLIENT_RATE } else { 0 };
            assert!(!bursts.are_too_slow(SECOND, came, 60 * SECOND));
        }
    }

    #[test]
    fn slow_readers() {
        let start = Mono::default();
        let mut reader = Departures::begin(start, 1_000);
        assert!(!reader.are_brisk(start.plus(SECOND), 1_000 + MIN_CLIENT_RATE - 1));
        assert!(reader.are_brisk(start.plus(SECOND), 1_000 + MIN_CLIENT_RATE));
        assert!(!reader.are_brisk(start, 1_000));
        let half = 30 * SECOND;
        assert!(reader.go_on(500, half, true), "the first half takes the measure");
        assert!(reader.go_on(500 + least(half), half, true));
        assert!(!reader.go_on(500 + 2 * least(half) - 1, half, true));
        let mut member = Departures::begin(start, 0);
        assert!(member.go_on(0, half, false) && member.go_on(1, half, false));
        assert!(!member.go_on(1, half, false));
    }
}
