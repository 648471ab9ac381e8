//! The bounds of Layer 4 that nobody else needs.

use std::time::Duration;

/// Members that one TCP connection tries at most, one after the other.
pub const TCP_ATTEMPTS: usize = 3;

/// A session's connection to its member gets TCP keep-alive when the session is so old: most are
/// over by then, and four system calls cheaper.
pub const PROBES_AFTER: Duration = Duration::from_secs(1);

/// A client that has said something is watched for its connection's break when the connect to its
/// member lasts so long: most are over by then, and an operation cheaper.
pub const CLIENT_WATCHED_AFTER: Duration = Duration::from_millis(200);

/// UDP flows of one listener on one shard; with more the one that was silent longest is forgotten.
pub const FLOWS: usize = 131_072;
/// Sockets of one family that the flows of one listener share on one shard. A member has at most so
/// many flows.
pub const FLOW_SOCKETS: u32 = 16_384;
/// A flow that has been silent for so long makes room for a new one when process or listener have
/// as many connections as they may.
pub const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);
/// Flows that are looked at, the longest silent first, for one to take the place of.
pub const EVICTION_REACH: usize = 64;
/// Connection ids of its member that a flow to a QUIC pool keeps bound.
pub const FLOW_IDS: usize = 4;
/// Upstream sockets of the flows that are handed to another process at once: as many as one message
/// takes.
pub const PASSED_SOCKETS: usize = 250;
/// After so much silence a flow ends while the process drains.
pub const DRAIN_IDLE: Duration = Duration::from_secs(1);
/// How long a socket rests after an error that the runtime did not handle itself.
pub const SOCKET_REST: Duration = Duration::from_millis(10);

const _: () = assert!(FLOWS < u32::MAX as usize);
