//! Polls before sleep (`[runtime] spin`): shown by what the ring counts, not by how long it took.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use weir_core::rt::{self, RingStats, ShardConfig, ShardHandle};
use weir_core::time::clock::mono;

use crate::support::{DEADLINE, listener};

/// Far beyond what a test takes: a shard that polls for so long never sleeps.
const EVER: Duration = Duration::from_secs(3_600);
const MOMENT: Duration = Duration::from_millis(20);

fn shard<F, Fut, T>(spin: Duration, stats: &Arc<RingStats>, main: F) -> ShardHandle<T>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let config = ShardConfig { spin, stats: Arc::clone(stats), ..ShardConfig::default() };
    rt::start_shard(config, main).unwrap()
}

/// Waits until `what` holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let limit = mono().plus(DEADLINE);
    while !holds() {
        assert!(mono() < limit, "still waiting for: {what}");
        std::thread::yield_now();
    }
}

/// Waits until the shard has turned a hundred times more, which it does only while it polls.
fn turns_on(stats: &RingStats) {
    let before = stats.turns.get();
    until("turns without work", || stats.turns.get() > before + 100);
}

#[test]
fn a_shard_that_polls_serves_timers_without_sleeping() {
    let stats = Arc::new(RingStats::default());
    let seen = Arc::clone(&stats);
    let shard = shard(EVER, &stats, move || async move {
        rt::sleep(MOMENT).await;
        rt::sleep_exact(rt::now().plus(MOMENT)).await;
        (seen.sleeps.get(), seen.slept_us.get())
    });
    assert_eq!(shard.join().unwrap(), (0, 0));
    assert!(stats.turns.get() > 10, "{} turns", stats.turns.get());
    // Both waits but for the last turn of each are time without work.
    let spun = stats.spun_us.get();
    assert!(spun >= 30_000, "{spun} µs");
}

#[test]
fn a_shard_that_polls_serves_sockets_and_other_threads_without_sleeping() {
    let (sender, mut mailbox) = rt::mailbox::<&str>(4);
    let (told, heard) = channel();
    let stats = Arc::new(RingStats::default());
    let seen = Arc::clone(&stats);
    let shard = shard(EVER, &stats, move || async move {
        let (listener, addr) = listener();
        told.send(addr.to_string()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        told.send(String::from_utf8(stream.recv().await.unwrap().unwrap().to_vec()).unwrap())
            .unwrap();
        told.send(mailbox.recv().await.unwrap().to_owned()).unwrap();
        seen.sleeps.get()
    });
    let addr = heard.recv_timeout(DEADLINE).unwrap();
    turns_on(&stats);
    let mut client = std::net::TcpStream::connect(addr).unwrap();
    turns_on(&stats);
    client.write_all(b"bytes").unwrap();
    assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), "bytes");
    turns_on(&stats);
    sender.try_send("mail").unwrap();
    assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), "mail");
    assert_eq!(shard.join().unwrap(), 0, "it slept");
    assert!(stats.spun_us.get() > 0);
}

#[test]
fn when_the_time_is_over_it_sleeps_until_there_is_work() {
    let (sender, mut mailbox) = rt::mailbox::<()>(1);
    let stats = Arc::new(RingStats::default());
    let shard = shard(Duration::from_millis(1), &stats, move || async move {
        mailbox.recv().await;
    });
    until("its sleep after polls", || stats.sleeps.get() > 0 && stats.spun_us.get() >= 1_000);
    let turns = stats.turns.get();
    let passed = mono().plus(MOMENT);
    until("some time", || mono() >= passed);
    assert_eq!(stats.turns.get(), turns, "it turned in its sleep");
    sender.try_send(()).unwrap();
    shard.join().unwrap();
    assert!(stats.slept_us.get() >= 20_000, "{} µs", stats.slept_us.get());
}

#[test]
fn without_a_time_it_sleeps_at_once() {
    let stats = Arc::new(RingStats::default());
    let shard = shard(Duration::ZERO, &stats, || async { rt::sleep(MOMENT).await });
    shard.join().unwrap();
    assert!(stats.sleeps.get() > 0);
    assert_eq!(stats.spun_us.get(), 0);
    assert!(stats.turns.get() < 100, "{} turns in one wait", stats.turns.get());
}
