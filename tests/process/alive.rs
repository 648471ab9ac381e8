//! What a process holds that counts live things: the same before and after, or something is left
//! behind.

use std::time::Duration;

use super::{Server, pass_time, sum, until};

/// What must be the same before and after; the gauges that count live things.
#[derive(Debug, PartialEq, Eq)]
pub struct Alive {
    pub descriptors: usize,
    pub tasks: u64,
    pub streams: u64,
    pub operations: u64,
    pub leases: u64,
    pub clients: u64,
    pub members: u64,
}

impl Alive {
    fn of(server: &Server) -> Alive {
        // Before the metrics are asked for, which takes a descriptor for a while.
        let descriptors = server.descriptors();
        let metrics = server.metrics();
        let gauge = |family| sum(&metrics, family) as u64;
        Alive {
            descriptors,
            tasks: gauge("weir_ring_tasks"),
            streams: gauge("weir_ring_streams"),
            operations: gauge("weir_ring_operations"),
            leases: gauge("weir_ring_leases"),
            clients: gauge("weir_active_connections"),
            members: gauge("weir_member_active_connections"),
        }
    }

    /// The same, once it has stood still: a metrics connection that is about to close is no part.
    /// Nobody is connected then, not even to a member.
    pub fn at_rest(server: &Server) -> Alive {
        let mut last = Alive::of(server);
        let mut same = 0;
        until("a process at rest", || {
            pass_time(Duration::from_millis(20));
            let now = Alive::of(server);
            same = if now == last && now.is_quiet() { same + 1 } else { 0 };
            last = now;
            same == 10
        });
        last
    }

    fn is_quiet(&self) -> bool {
        self.leases == 0 && self.clients == 0 && self.members == 0
    }
}
