//! What a shard counts. Owns the counter blocks; the shard that holds a block is its only writer,
//! the admin thread reads it at any time. Rendering lives in the server.

mod counters;

use std::sync::Arc;

pub use counters::{ListenerCounters, MemberCounters, StatusCounters};

use crate::model::Config;
use crate::rt::RingStats;

/// All counters of one shard. One per shard, made by the server, written by the shard only.
#[derive(Debug)]
pub struct ShardObs {
    /// The ring's own counters.
    pub ring: Arc<RingStats>,
    /// One block a listener, in the order of [`Config::listeners`].
    pub listeners: Vec<Arc<ListenerCounters>>,
    /// One block a member, in the order of [`Config::pools`] and of each pool's members.
    pub pools: Vec<Vec<Arc<MemberCounters>>>,
}

impl ShardObs {
    /// Blocks for every listener and member of `config`, all zero.
    pub fn new(config: &Config) -> ShardObs {
        ShardObs {
            ring: Arc::default(),
            listeners: config.listeners.iter().map(|_| Arc::default()).collect(),
            pools: (config.pools.iter())
                .map(|pool| pool.members.iter().map(|_| Arc::default()).collect())
                .collect(),
        }
    }
}
