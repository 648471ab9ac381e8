//! The counter blocks of listeners and members. One block a shard and object.

use crate::counter::{Counter, Gauge};

/// One counter for each status code from 100 to 599.
#[derive(Debug)]
pub struct StatusCounters(Box<[Counter]>);

impl Default for StatusCounters {
    fn default() -> Self {
        Self((0..500).map(|_| Counter::default()).collect())
    }
}

impl StatusCounters {
    /// Counts one answer with `status`; a code outside 100 to 599 is not counted.
    pub fn count(&self, status: u16) {
        if let Some(counter) = self.0.get(usize::from(status).wrapping_sub(100)) {
            counter.add(1);
        }
    }

    /// The codes seen so far with their counts, ascending.
    pub fn seen(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (100u16..).zip(self.0.iter()).map(|(code, c)| (code, c.get())).filter(|&(_, n)| n > 0)
    }
}

/// What one shard counts for one listener.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Client connections accepted.
    pub connections: Counter,
    /// Client connections open now.
    pub active_connections: Gauge,
    /// Requests answered, with whatever status.
    pub requests: Counter,
    /// Bytes received from clients.
    pub bytes_received: Counter,
    /// Bytes sent to clients.
    pub bytes_sent: Counter,
    /// Client-facing status codes.
    pub statuses: StatusCounters,
    /// Client connections closed without a complete request (silent, or cut off).
    pub silent_closes: Counter,
}

/// What one shard counts for one member of a pool.
#[derive(Debug, Default)]
pub struct MemberCounters {
    /// Connections opened to the member.
    pub connections: Counter,
    /// Connections to the member that exist now, idle ones included.
    pub active_connections: Gauge,
    /// Idle connections in the keep-alive pool.
    pub idle_connections: Gauge,
    /// Connections that could not be opened: refused, reset, unreachable, timed out.
    pub connect_failures: Counter,
    /// Requests given to the member.
    pub requests: Counter,
    /// Bytes received from the member.
    pub bytes_received: Counter,
    /// Bytes sent to the member.
    pub bytes_sent: Counter,
    /// Status codes the member answered with.
    pub statuses: StatusCounters,
    /// Requests sent once more, since a reused connection failed before any response byte.
    pub reuse_retries: Counter,
}
