//! Where the ring's bookkeeping is easily wrong: sends that say nothing, buffers that are all lent,
//! a main task that panics early.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use weir_core::rt::{self, RingStats, ShardConfig, ShardError, TcpStream};

use crate::basics::pair;
use crate::support::{listener, on_shard};

/// Begins to wait for bytes of `stream`, and goes on.
async fn begin_to_receive(stream: &TcpStream) {
    poll_fn(|cx| {
        assert!(stream.poll_recv(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// What the kernel has taken must count as sent in the very next turn, also when that turn queues
/// new operations. (A request that went out must never look as if it had not.)
#[test]
fn a_post_counts_at_once_and_is_over_in_the_next_turn() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let (_open, watched) = pair(&listener).await;
        begin_to_receive(&watched).await;
        rt::yield_now().await;
        // Armed for small leases, wanted for large ones: its end, in the next turn, arms it anew.
        watched.expect_bulk(true);
        begin_to_receive(&watched).await;
        near.post(&b"x"[..]).unwrap();
        assert_eq!(near.bytes_sent(), 1);
        rt::yield_now().await;
        assert!(poll_fn(|cx| Poll::Ready(near.poll_send_ready(cx))).await.is_ready());
        assert_eq!(near.bytes_sent(), 1);
        far.reset();
        assert!(near.recv().await.is_err());
        near.post(&b"for nobody"[..]).unwrap();
        assert!(near.flush().await.is_err());
        assert_eq!(near.bytes_sent(), 1);
    });
}

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
