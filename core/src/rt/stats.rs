//! What one shard's ring counts, and the audit of live objects. The shard is the only writer.

use crate::counter::{Counter, Gauge};

/// Counters of one shard's ring.
#[derive(Debug, Default)]
pub struct RingStats {
    /// Turns of the driver: each runs the runnable tasks, then enters the kernel once.
    pub turns: Counter,
    /// Operations handed to the kernel.
    pub submissions: Counter,
    /// Completions taken from the kernel.
    pub completions: Counter,
    /// `io_uring_enter` system calls.
    pub enters: Counter,
    /// Turns in which the shard had nothing to do and slept in the kernel.
    pub sleeps: Counter,
    /// How long they lasted together, in microseconds.
    pub slept_us: Counter,
    /// How long the shard had nothing to do and polled, in microseconds.
    pub spun_us: Counter,
    /// Receives that found no free buffer (ENOBUFS) and waited for one.
    pub no_buffers: Counter,
    /// Times the completion queue was full and the kernel kept completions aside.
    pub cq_overflows: Counter,
    /// Accepts that failed for want of descriptors or memory.
    pub accept_failures: Counter,
    /// Connects and UDP sockets that found no port of ours free, or not the address.
    pub no_ports: Counter,
    /// Sockets towards others that could not be opened for want of descriptors.
    pub no_descriptors: Counter,
    /// Datagrams that were dropped instead of sent: the socket was full, or the kernel refused.
    pub datagrams_dropped: Counter,
    /// Bytes that went from socket to socket through pipes, uncopied.
    pub spliced_bytes: Counter,
    /// Tasks that panicked; each ended alone.
    pub task_panics: Counter,
    /// Tasks alive.
    pub tasks: Gauge,
    /// Connections and UDP sockets open, those on their way out included.
    pub streams: Gauge,
    /// Operations that the kernel holds.
    pub operations: Gauge,
    /// Receive buffers lent out.
    pub leases: Gauge,
}

/// Live objects of a shard. With nothing running but the asking task: one task, the ring's own
/// wake-up operation, and zero of all else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Tasks, the asking one included.
    pub tasks: u64,
    /// Operations that the kernel holds, the shard's own wake-up left out.
    pub operations: u64,
    /// Connections, listeners and UDP sockets whose descriptor is still open.
    pub streams: u64,
    /// Receive buffers lent out.
    pub leases: u64,
    /// Pipes in use.
    pub pipes: u64,
    /// Timers that exist.
    pub timers: u64,
}
