//! Pure: what the process does on signals, reports and as time passes. Running, then draining,
//! then the end. Told the time and the events; sends nothing itself.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_core::time::clock::Mono;

use crate::shard::{News, Report};

/// Signals that the process takes over before any thread starts.
///
/// SIGXFSZ among them, so that a log file at the process' size limit is an error of its writer and
/// not the end.
pub const SIGNALS: [i32; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGXFSZ];

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing; go on waiting.
    Wait,
    /// Tell systemd and all shards that the process drains.
    Drain,
    /// Read the file again.
    Reload,
    /// Replace the program.
    Upgrade,
    /// Open the log files again.
    Reopen,
    /// Tell the user why a signal did nothing.
    Say(&'static str),
    /// Stop everything.
    End(End),
}

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every connection ended by itself.
    Drained,
    /// The shutdown timeout is over.
    TimedOut,
    /// A second SIGTERM or SIGINT came.
    AtOnce,
    /// This shard died.
    Lost(usize),
}

/// The state of the process.
#[derive(Clone, Debug)]
pub struct Life {
    shards: usize,
    timeout: Duration,
    draining: Option<Draining>,
}

#[derive(Clone, Debug)]
struct Draining {
    /// `None`: another process serves; what lives on here has all the time that it needs.
    until: Option<Mono>,
    waiting: BTreeSet<usize>,
}

impl Life {
    /// A running process of `shards` shards, which waits `timeout` for a drain.
    pub fn new(shards: usize, timeout: Duration) -> Life {
        Life { shards, timeout, draining: None }
    }

    /// A signal came.
    pub fn signal(&mut self, number: i32, now: Mono) -> Step {
        match number {
            libc::SIGTERM | libc::SIGINT => match &mut self.draining {
                Some(Draining { until: Some(_), .. }) => Step::End(End::AtOnce),
                Some(draining) => {
                    draining.until = Some(now.plus(self.timeout));
                    Step::Say("what still runs here is cut after shutdown_timeout")
                }
                None => {
                    let waiting = (0..self.shards).collect();
                    let until = Some(now.plus(self.timeout));
                    self.draining = Some(Draining { until, waiting });
                    Step::Drain
                }
            },
            libc::SIGHUP if self.draining.is_some() => {
                Step::Say("SIGHUP: no reload while the process drains; nothing changed")
            }
            libc::SIGHUP => Step::Reload,
            libc::SIGUSR1 => Step::Reopen,
            libc::SIGUSR2 => Step::Upgrade,
            _ => Step::Wait,
        }
    }

    /// Another process serves from now on: this one drains, with no limit until a signal sets one.
    pub fn hand_over(&mut self) {
        let waiting = (0..self.shards).collect();
        self.draining = Some(Draining { until: None, waiting });
    }

    /// A shard reported.
    pub fn report(&mut self, report: &Report) -> Step {
        match (&report.news, &mut self.draining) {
            (News::Drained, Some(draining)) => {
                draining.waiting.remove(&report.shard);
                if draining.waiting.is_empty() { Step::End(End::Drained) } else { Step::Wait }
            }
            (News::Ended, _) => Step::End(End::Lost(report.shard)),
            (News::Ready | News::Applied(..) | News::Suspect(_) | News::Drained, _) => Step::Wait,
        }
    }

    /// Does a drain have an end that only the clock tells of?
    pub fn is_timed(&self) -> bool {
        matches!(self.draining, Some(Draining { until: Some(_), .. }))
    }

    /// Time passed.
    pub fn tick(&self, now: Mono) -> Step {
        match &self.draining {
            Some(Draining { until: Some(until), .. }) if now >= *until => Step::End(End::TimedOut),
            _ => Step::Wait,
        }
    }

    /// A drain that begins from now on waits so long.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// True from the first SIGTERM or SIGINT on, or from when another process serves.
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(0).plus(Duration::from_secs(seconds))
    }

    fn drained(shard: usize) -> Report {
        Report { shard, news: News::Drained }
    }

    #[test]
    fn sigterm_drains_and_ends_when_all_shards_are_empty() {
        let mut life = Life::new(2, TIMEOUT);
        assert_eq!(life.signal(libc::SIGTERM, at(1)), Step::Drain);
        assert_eq!(life.report(&drained(1)), Step::Wait);
        assert_eq!(life.report(&drained(1)), Step::Wait);
        assert_eq!(life.report(&drained(0)), Step::End(End::Drained));
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let mut life = Life::new(1, TIMEOUT);
        assert_eq!(life.signal(libc::SIGINT, at(1)), Step::Drain);
        assert_eq!(life.signal(libc::SIGTERM, at(1)), Step::End(End::AtOnce));
    }

    #[test]
    fn the_drain_has_a_limit() {
        let mut life = Life::new(1, TIMEOUT);
        assert_eq!(life.tick(at(1_000_000)), Step::Wait);
        life.signal(libc::SIGTERM, at(1));
        assert_eq!(life.tick(at(30)), Step::Wait);
        assert_eq!(life.tick(at(31)), Step::End(End::TimedOut));
    }

    #[test]
    fn other_signals_are_harmless() {
        let mut life = Life::new(1, TIMEOUT);
        assert_eq!(life.signal(libc::SIGHUP, at(1)), Step::Reload);
        assert_eq!(life.signal(libc::SIGUSR1, at(1)), Step::Reopen);
        assert!(!life.is_draining());
        life.signal(libc::SIGTERM, at(2));
        assert!(matches!(life.signal(libc::SIGHUP, at(3)), Step::Say(_)));
    }

    /// Long connections live on in a process that was replaced, until they end or it is asked to.
    #[test]
    fn who_was_replaced_has_time_until_it_is_told_to_end() {
        let mut life = Life::new(1, TIMEOUT);
        assert_eq!(life.signal(libc::SIGUSR2, at(1)), Step::Upgrade);
        life.hand_over();
        assert!(life.is_draining());
        assert_eq!(life.tick(at(1_000_000)), Step::Wait);
        assert!(matches!(life.signal(libc::SIGTERM, at(1_000_000)), Step::Say(_)));
        assert_eq!(life.tick(at(1_000_031)), Step::End(End::TimedOut));
        assert_eq!(life.signal(libc::SIGTERM, at(1_000_002)), Step::End(End::AtOnce));
        assert_eq!(life.report(&drained(0)), Step::End(End::Drained));
    }

    #[test]
    fn a_shard_that_dies_ends_the_process() {
        let mut life = Life::new(2, TIMEOUT);
        let dead = Report { shard: 1, news: News::Ended };
        assert_eq!(life.report(&dead), Step::End(End::Lost(1)));
    }

    #[test]
    fn a_drained_report_without_a_drain_is_ignored() {
        assert_eq!(Life::new(1, TIMEOUT).report(&drained(0)), Step::Wait);
    }
}
