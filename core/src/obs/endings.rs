//! How connections and flows of Layer 4 end, and how often.

use crate::counter::Counter;

/// How a TCP session or a UDP flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides sent FIN, the client first.
    ClientFin,
    /// Both sides sent FIN, the member first.
    MemberFin,
    /// The client's connection was reset, or broke.
    ClientRst,
    /// The member's connection was reset, or broke.
    MemberRst,
    /// Nothing moved for `keepalive_timeout` (R2.2-3).
    Idle,
    /// No member could be connected to, or there was none (C18).
    ConnectFailed,
    /// The member that was chosen is the client itself, which can't be where members see the
    /// client's address (R2.1-13).
    MemberIsClient,
    /// Its member left the pool or got weight 0, and `connection_drain` was over (R7.14-4).
    Drained,
    /// Its listener was deleted (R6.3-1).
    Deleted,
    /// It made room for another one.
    Evicted,
    /// The process ended.
    Shutdown,
}

impl Ending {
    /// All of them, in the order of the counters.
    pub const ALL: [Ending; 11] = [
        Ending::ClientFin,
        Ending::MemberFin,
        Ending::ClientRst,
        Ending::MemberRst,
        Ending::Idle,
        Ending::ConnectFailed,
        Ending::MemberIsClient,
        Ending::Drained,
        Ending::Deleted,
        Ending::Evicted,
        Ending::Shutdown,
    ];

    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Ending::ClientFin => "client_fin",
            Ending::MemberFin => "member_fin",
            Ending::ClientRst => "client_rst",
            Ending::MemberRst => "member_rst",
            Ending::Idle => "idle",
            Ending::ConnectFailed => "connect_failed",
            Ending::MemberIsClient => "member_is_client",
            Ending::Drained => "drained",
            Ending::Deleted => "deleted",
            Ending::Evicted => "evicted",
            Ending::Shutdown => "shutdown",
        }
    }
}

/// How often what ended how.
#[derive(Debug, Default)]
pub struct EndingCounters([Counter; Ending::ALL.len()]);

impl EndingCounters {
    /// Counts one end.
    pub fn count(&self, ending: Ending) {
        if let Some(counter) = self.0.get(ending as usize) {
            counter.add(1);
        }
    }

    /// How often that happened.
    #[must_use]
    pub fn get(&self, ending: Ending) -> u64 {
        self.0.get(ending as usize).map_or(0, Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_has_a_counter_of_its_own() {
        let counters = EndingCounters::default();
        for (n, ending) in (1..).zip(Ending::ALL) {
            (0..n).for_each(|_| counters.count(ending));
        }
        for (n, ending) in (1..).zip(Ending::ALL) {
            assert_eq!(counters.get(ending), n, "{}", ending.name());
        }
    }
}
