//! What a shard counts of one listener's TLS handshakes.

use super::Histogram;
use crate::counter::Counter;
use crate::tls::{Facts, Failure};

/// How a handshake that went well went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaken {
    /// An earlier session was resumed.
    pub resumed: bool,
    /// TLS 1.3; else TLS 1.2.
    pub tls13: bool,
}

impl Shaken {
    /// All kinds, in the order of the counters.
    pub const ALL: [Shaken; 4] = [
        Shaken { resumed: false, tls13: false },
        Shaken { resumed: false, tls13: true },
        Shaken { resumed: true, tls13: false },
        Shaken { resumed: true, tls13: true },
    ];

    /// The words in metrics: kind, version.
    #[must_use]
    pub const fn names(self) -> [&'static str; 2] {
        [
            if self.resumed { "resumed" } else { "full" },
            if self.tls13 { "TLSv1.3" } else { "TLSv1.2" },
        ]
    }

    const fn number(self) -> usize {
        2 * self.resumed as usize + self.tls13 as usize
    }
}

/// Handshakes of one listener on one shard. Owning shard only, but for reading.
#[derive(Debug, Default)]
pub struct HandshakeCounters {
    done: [Counter; Shaken::ALL.len()],
    failed: [Counter; Failure::ALL.len()],
    /// How long those took that went well.
    pub times: Histogram,
}

impl HandshakeCounters {
    /// Counts one that came to `facts`.
    pub fn count(&self, facts: &Facts) {
        let shaken = Shaken { resumed: facts.resumed, tls13: facts.is_tls13() };
        if let Some(counter) = self.done.get(shaken.number()) {
            counter.add(1);
        }
        self.times.observe(facts.took);
    }

    /// Counts one that failed.
    pub fn count_failure(&self, failure: Failure) {
        if let Some(counter) = self.failed.get(failure.number()) {
            counter.add(1);
        }
    }

    /// How many went so.
    #[must_use]
    pub fn done(&self, shaken: Shaken) -> u64 {
        self.done.get(shaken.number()).map_or(0, Counter::get)
    }

    /// How many failed so.
    #[must_use]
    pub fn failed(&self, failure: Failure) -> u64 {
        self.failed.get(failure.number()).map_or(0, Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_list() {
        assert!(Shaken::ALL.iter().enumerate().all(|(at, shaken)| shaken.number() == at));
    }
}
