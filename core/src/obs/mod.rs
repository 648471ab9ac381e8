//! What a shard counts. Owns the counter blocks; the shard that holds a block is its only writer,
//! the admin thread reads it at any time. Rendering lives in the server.

mod board;
mod counters;

pub use board::Board;
pub use counters::{ListenerCounters, MemberCounters, RefusalCounters, StatusCounters};
