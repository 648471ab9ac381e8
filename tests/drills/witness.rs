//! What the machine did while a drill ran: how long the threads of `weir serve`, and those of the
//! loads, computed and waited for a core. So a gap that clients saw can be told from one that the
//! machine made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use weir_core::time::clock::{self, Mono};

use crate::load::PATIENCE;
use crate::process::pass_time;

/// Between two looks.
const STEP: Duration = Duration::from_millis(20);
/// Who could not look for so long stood still, and so did the loads and members of its process.
const STILL: Duration = Duration::from_secs(1);

/// Time of all threads of a process together.
#[derive(Clone, Copy, Debug, Default)]
struct Threads {
    ran: Duration,
    /// Ready to run, without a core.
    waited: Duration,
}

impl Threads {
    fn of(pid: u32) -> Threads {
        let mut sum = Threads::default();
        // The process may end meanwhile, and threads do.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let mut times = text.split_whitespace().map_while(|word| word.parse().ok());
            sum.ran += times.next().map(Duration::from_nanos).unwrap_or_default();
            sum.waited += times.next().map(Duration::from_nanos).unwrap_or_default();
        }
        sum
    }

    fn since(self, before: Threads) -> Threads {
        Threads {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Mono,
    server: Threads,
    loads: Threads,
}

/// Looks all the time until it is asked.
pub struct Witness {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

impl Witness {
    /// Of this process as the server.
    pub fn start(server: u32) -> Witness {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut looks = Vec::new();
            while !ended.load(Relaxed) {
                let (server, loads) = (Threads::of(server), Threads::of(std::process::id()));
                looks.push(Look { at: clock::mono(), server, loads });
                pass_time(STEP);
            }
            looks
        });
        Witness { over, thread }
    }

    /// All that it has seen.
    pub fn end(self) -> Testimony {
        self.over.store(true, Relaxed);
        Testimony(self.thread.join().unwrap())
    }
}

/// What a witness has seen.
pub struct Testimony(Vec<Look>);

impl Testimony {
    /// The times in which the machine stood still.
    pub fn stills(&self) -> Vec<Still> {
        let between = self.0.windows(2).map(|pair| Still { start: pair[0].at, end: pair[1].at });
        between.filter(|still| still.lasts() >= STILL).collect()
    }

    /// Of so long from `start` on; `None` when the witness saw nothing of it.
    pub fn of(&self, start: Mono, lasts: Duration) -> Option<Account> {
        let end = start.plus(lasts);
        let first = self.0.iter().rfind(|look| look.at <= start)?;
        let last = self.0.iter().find(|look| look.at >= end).or(self.0.last())?;
        let within = self.0.windows(2).filter(|pair| pair[1].at > start && pair[0].at < end);
        Some(Account {
            lasts: last.at.since(first.at),
            server: last.server.since(first.server),
            loads: last.loads.since(first.loads),
            blind: within.map(|pair| pair[1].at.since(pair[0].at)).max().unwrap_or_default(),
        })
    }
}

/// A time in which this process, with all loads and members, had no core.
#[derive(Clone, Copy, Debug)]
pub struct Still {
    pub start: Mono,
    pub end: Mono,
}

impl Still {
    pub fn lasts(&self) -> Duration {
        self.end.since(self.start)
    }

    /// Does a loss at this time say nothing of Weir? Clients gave up what they had asked before,
    /// and members were silent, since they did not run.
    pub fn excuses(&self, at: Mono) -> bool {
        (self.start..=self.end.plus(PATIENCE)).contains(&at)
    }
}

/// What happened within a time.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    lasts: Duration,
    server: Threads,
    loads: Threads,
    /// The longest time between two looks, which are to come every [`STEP`].
    blind: Duration,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { lasts, server, loads, blind } = self;
        write!(
            f,
            "within {lasts:.1?} weir ran for {:.1?} and waited for a core for {:.1?}, the loads \
             for {:.1?} and {:.1?}; this witness looked at least every {blind:.1?}",
            server.ran, server.waited, loads.ran, loads.waited
        )
    }
}
