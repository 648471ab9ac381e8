//! What the runtime's tests share: a shard to run on, and plain std peers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_core::rt::{self, FaultPlan, ListenOptions, RingStats, ShardConfig, TcpListener};

/// How long anything may take before the test fails; far above what it takes.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `main` on a shard of its own and returns what it returns; checks that nothing is left
/// behind.
pub fn on_shard<F, Fut, T>(main: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    on_faulty_shard(FaultPlan::default(), main)
}

/// As `on_shard`, with a ring that misbehaves.
pub fn on_faulty_shard<F, Fut, T>(faults: FaultPlan, main: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    on_counting_shard(&Arc::default(), faults, main)
}

/// As `on_faulty_shard`, and tells what the ring counts.
pub fn on_counting_shard<F, Fut, T>(stats: &Arc<RingStats>, faults: FaultPlan, main: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let config = ShardConfig {
        name: "test".into(),
        stats: Arc::clone(stats),
        faults: Some(faults),
        ..Default::default()
    };
    let shard = rt::start_shard(config, move || async move {
        let output = rt::timeout(DEADLINE, main()).await.expect("the test's deadline is over");
        all_gone().await;
        output
    });
    shard.unwrap().join().unwrap()
}

/// Waits until nothing but the asking task is alive: no stream, operation, lease, pipe or timer.
pub async fn all_gone() {
    let clean = rt::timeout(DEADLINE, async {
        loop {
            let audit = rt::audit();
            // The deadline's own timer, and the test's around it.
            if audit.tasks == 1
                && (audit.operations, audit.streams, audit.leases, audit.pipes) == (0, 0, 0, 0)
                && audit.timers <= 2
            {
                return;
            }
            rt::yield_now().await;
        }
    });
    if clean.await.is_err() {
        panic!("left behind: {:?}", rt::audit());
    }
}

/// A listener on a free port of the loopback.
pub fn listener() -> (TcpListener, SocketAddr) {
    let options = ListenOptions { backlog: 1_024, reuse_port: false };
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}
