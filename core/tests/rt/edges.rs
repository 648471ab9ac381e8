//! Where the runtime's bookkeeping is easily wrong: sends that say nothing, buffers that are all
//! lent, long turns, a main task that panics early.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use weir_core::limits::{LARGE_BUFFERS, SMALL_BUFFERS};
use weir_core::rt::{self, Features, Lease, RingStats, ShardConfig, ShardError, TcpStream};
use weir_core::time::clock;

use crate::basics::pair;
use crate::support::{DEADLINE, listener, on_shard};

/// Begins to wait for bytes of `stream`, and goes on.
async fn begin_to_receive(stream: &TcpStream) {
    poll_fn(|cx| {
        assert!(stream.poll_recv(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

async fn some_turns() {
    for _ in 0..8 {
        rt::yield_now().await;
    }
}

/// Takes `count` leases of one byte, and keeps them.
async fn hold(near: &TcpStream, far: &TcpStream, count: u16, bulk: bool) -> Vec<Lease> {
    let mut held = Vec::new();
    for _ in 0..count {
        far.expect_bulk(bulk);
        near.send(&b"x"[..]).await.unwrap();
        held.push(far.recv().await.unwrap().unwrap());
    }
    held
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

/// R6.7-15: never early, also when the timer is set late in a long turn.
#[test]
fn a_timer_counts_from_when_it_was_set() {
    on_shard(|| async {
        let limit = Duration::from_millis(3);
        for _ in 0..3 {
            let busy_until = clock::mono().plus(limit * 4);
            while clock::mono() < busy_until {}
            let start = clock::mono();
            rt::sleep(limit).await;
            assert!(clock::mono().since(start) >= limit);
        }
    });
}

/// Whatever holds all small buffers, heads still come in, in large ones.
#[test]
fn small_arrivals_find_a_large_buffer_when_the_small_ones_are_lent() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let (near2, far2) = pair(&listener).await;
        let mut held = hold(&near, &far, SMALL_BUFFERS.total, false).await;
        near2.send(&b"head"[..]).await.unwrap();
        begin_to_receive(&far2).await;
        some_turns().await;
        if !Features::from_environment().unwrap().large_leases {
            held.pop();
        }
        assert_eq!(&*far2.recv().await.unwrap().unwrap(), b"head");
    });
}

/// A buffer that comes back goes to whoever still wants one, not to a stream that is gone. No timer
/// runs on this shard, which would only hide that nobody woke it.
#[test]
fn a_returned_buffer_is_not_kept_for_the_dead() {
    let (told, end) = std::sync::mpsc::channel();
    let main = || async move {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let (near2, far2) = pair(&listener).await;
        let (near3, far3) = pair(&listener).await;
        let mut held = hold(&near, &far, SMALL_BUFFERS.total, false).await;
        if Features::from_environment().unwrap().large_leases {
            held.extend(hold(&near, &far, LARGE_BUFFERS.total, true).await);
        }
        for (near, far) in [(&near2, &far2), (&near3, &far3)] {
            near.send(&b"late"[..]).await.unwrap();
            begin_to_receive(far).await;
            some_turns().await;
        }
        drop(far2);
        held.swap_remove(0);
        told.send(far3.recv().await.unwrap().unwrap().to_vec()).unwrap();
    };
    let shard = rt::start_shard(ShardConfig::default(), main).unwrap();
    assert_eq!(end.recv_timeout(DEADLINE).unwrap(), b"late");
    shard.join().unwrap();
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
