//! Balancing algorithms: all pure. A [`Picker`] (one a shard and pool) holds the one that a pool
//! asks for and keeps its place when members change; [`Load`] is what all shards share of a member,
//! [`Ring`] the table for hashing, [`ramp`] slow start, [`sticky`] sessions that keep their member.
//! Called by `table` for each request; knows nothing of addresses, health or connections.

mod least;
mod load;
mod picker;
pub mod ramp;
mod ring;
pub mod sticky;
mod wrr;

pub use load::Load;
pub use picker::{Ask, Candidate, Picker};
pub use ring::{Ring, hash_address, hash_bytes};
pub(crate) use wrr::Wrr;
