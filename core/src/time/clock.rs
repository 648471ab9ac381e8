//! The only reader of the clock. Everything else is handed a [`Mono`].

use std::time::{Duration, SystemTime};

/// A point on the monotonic clock, in nanoseconds since an unspecified start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The point `nanos` nanoseconds after the clock's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the clock's start, rounded down.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `after` later; saturates at the clock's end (584 years).
    pub fn plus(self, after: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The monotonic clock (CLOCK_MONOTONIC) now.
#[allow(unsafe_code, reason = "the only reader of the clock")]
pub fn mono() -> Mono {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec; CLOCK_MONOTONIC always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut ts) };
    Mono(ts.tv_sec.cast_unsigned() * 1_000_000_000 + ts.tv_nsec.cast_unsigned())
}

/// The calendar clock now; for logs and for what has to mean the same to another process, never for
/// timers.
#[allow(clippy::disallowed_methods, reason = "this is the one reader of the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
