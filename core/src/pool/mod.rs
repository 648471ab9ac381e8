//! Balancing algorithms: pure, one instance a shard and pool. Called by the data path for each
//! request; health, stickiness and retries join with the issues that need them.

mod wrr;

pub use wrr::Wrr;
