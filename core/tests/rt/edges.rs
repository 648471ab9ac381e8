//! Where the ring's bookkeeping is easily wrong: sends that say nothing, buffers that are all lent,
//! a main task that panics early.

use std::sync::Arc;

use weir_core::rt::{self, RingStats, ShardConfig, ShardError};

use crate::support::listener;

/// A panic of the main closure, before there is a future, is a task's panic like any other: the
/// shard ends in order.
#[test]
fn a_panic_before_the_first_wait_ends_the_shard_in_order() {
    let stats = Arc::new(RingStats::default());
    let config = ShardConfig { stats: Arc::clone(&stats), ..ShardConfig::default() };
    let main = || -> std::future::Ready<()> {
        let (listener, _) = listener();
        rt::spawn(async move { drop(listener.accept().await) });
        panic!("on purpose");
    };
    let end = rt::start_shard(config, main).unwrap().join();
    assert!(matches!(end, Err(ShardError::Panicked(_))));
    assert_eq!((stats.task_panics.get(), stats.tasks.get(), stats.streams.get()), (1, 0, 0));
}
