//! What a shard counts and logs. Owns the counter blocks, and the way of log lines off the shards.
//! The shard that holds a block is its only writer, the admin thread reads it at any time.
//! Rendering and files live in the server.

mod board;
mod counters;
mod datagrams;
mod endings;
mod handshakes;
mod histogram;
mod spool;

pub use board::Board;
pub use counters::{
    ListenerCounters, MemberCounters, RefusalCounters, StatusCounters, Sticky, StickyCounters,
    Times,
};
pub use datagrams::{DatagramCounters, DatagramDrop};
pub use endings::{Ending, EndingCounters};
pub use handshakes::{HandshakeCounters, Shaken};
pub use histogram::{BOUNDS_US, Distribution, Histogram};
pub use spool::{Block, Pipe, Spool};
