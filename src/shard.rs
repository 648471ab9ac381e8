//! One shard's life: takes over its listening sockets, runs an accept task for each, hands every
//! connection to the HTTP service, and obeys orders from the main thread. Owns no protocol and no
//! decision about the process; [`crate::server`] starts it and reads its reports.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::model::Config;
use weir_core::obs::ShardObs;
use weir_core::rt::{self, Receiver, Sender, ShardConfig, ShardError, ShardHandle, TcpListener};
use weir_l7::Service;

/// What the names of all shards' threads begin with.
pub const THREAD_PREFIX: &str = "weir-shard-";
/// Orders that may wait in a shard's mailbox.
const ORDERS: usize = 8;
/// How long an accept task rests after an error that the runtime did not handle itself.
const ACCEPT_REST: Duration = Duration::from_millis(10);
/// How often a draining shard looks whether its accept queues are empty.
const DRAIN_TICK: Duration = Duration::from_millis(5);

/// What a shard is started with.
#[derive(Debug)]
pub struct Plan {
    /// Number of the shard, from 0.
    pub index: usize,
    /// The core that it is pinned to.
    pub core: usize,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Its counters.
    pub obs: Arc<ShardObs>,
    /// Seed of its random choices.
    pub seed: u64,
    /// Index into [`Config::listeners`] and a socket of its own that listens.
    pub sockets: Vec<(usize, OwnedFd)>,
}

/// What the main thread asks of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take no new handshakes, serve the accept queue until it stayed empty for `quiet`, let
    /// every connection end, then report [`News::Drained`].
    Drain {
        /// How long the accept queue has to stay empty.
        quiet: Duration,
    },
    /// Drop what is left and end.
    Stop,
}

/// What a shard tells the main thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of the shard.
    pub shard: usize,
    /// What happened.
    pub news: News,
}

/// What happened on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All its listeners accept.
    Ready,
    /// It could not start; the reason.
    Failed(String),
    /// After [`Order::Drain`]: no connection is left.
    Drained,
    /// Its main task is over, also after a panic.
    Ended,
}

/// Where reports go: a bounded channel with room for every report that a shard can send.
#[derive(Clone, Debug)]
pub struct Reports(crossbeam::channel::Sender<Report>);

/// Reports that one shard sends in its life: ready or failed, drained, ended.
const REPORTS_PER_SHARD: usize = 3;

/// A channel for the reports of `shards` shards.
pub fn reports(shards: usize) -> (Reports, crossbeam::channel::Receiver<Report>) {
    let (sender, receiver) = crossbeam::channel::bounded(shards * REPORTS_PER_SHARD);
    (Reports(sender), receiver)
}

impl Reports {
    fn send(&self, shard: usize, news: News) {
        // The main thread is gone only when the process ends; then nobody needs the news.
        let _unheard = self.0.try_send(Report { shard, news });
    }
}

/// A running shard, as the main thread holds it.
#[derive(Debug)]
pub struct Shard {
    /// Its counters.
    pub obs: Arc<ShardObs>,
    orders: Sender<Order>,
    handle: ShardHandle<()>,
}

/// Starts the thread; a first report says how that went.
///
/// # Errors
/// The thread or its ring could not be made.
pub fn start(plan: Plan, reports: Reports) -> Result<Shard, ShardError> {
    let (orders, mailbox) = rt::mailbox(ORDERS);
    let obs = Arc::clone(&plan.obs);
    let config = ShardConfig {
        name: format!("{THREAD_PREFIX}{}", plan.index),
        core: Some(plan.core),
        stats: Arc::clone(&obs.ring),
        ..ShardConfig::default()
    };
    // Made here, so that a shard whose ring could not be made reports its end too.
    let ended = EndedOnDrop { shard: plan.index, reports };
    let handle = rt::start_shard(config, move || life(plan, mailbox, ended))?;
    Ok(Shard { obs, orders, handle })
}

impl Shard {
    /// Gives an order; `false` when the shard is gone.
    pub fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Client connections that are open now.
    pub fn active_connections(&self) -> u64 {
        self.obs.listeners.iter().map(|l| l.active_connections.get()).sum()
    }

    /// Waits for the thread's end; after [`News::Ended`] that is soon.
    ///
    /// # Errors
    /// The shard could not start, or panicked.
    pub fn join(self) -> Result<(), ShardError> {
        self.handle.join()
    }
}

/// The shard's main task. When it ends the runtime drops all other tasks and closes their sockets.
async fn life(plan: Plan, mut orders: Receiver<Order>, ended: EndedOnDrop) {
    let reports = &ended.reports;
    let service = Service::new(&plan.config, &plan.obs, plan.seed);
    let mut listeners = match open(plan.sockets) {
        Ok(listeners) => listeners,
        Err(e) => return reports.send(plan.index, News::Failed(e.to_string())),
    };
    let accepting = Rc::new(Cell::new(listeners.len()));
    for (index, listener) in &listeners {
        rt::spawn(accept(*index, listener.clone(), service.clone(), accepting.clone()));
    }
    reports.send(plan.index, News::Ready);
    while let Some(Order::Drain { quiet }) = orders.recv().await {
        for (_, listener) in listeners.drain(..) {
            if let Err(e) = listener.stop_accepting(quiet) {
                tracing::warn!("shard {}: a listener closes without a drain: {e}", plan.index);
            }
        }
        service.begin_drain();
        let reports = reports.clone();
        rt::spawn(drained(plan.index, service.clone(), accepting.clone(), reports));
    }
}

fn open(sockets: Vec<(usize, OwnedFd)>) -> io::Result<Vec<(usize, Rc<TcpListener>)>> {
    let open = |(index, fd)| Ok((index, Rc::new(TcpListener::from_fd(fd)?)));
    sockets.into_iter().map(open).collect()
}

/// Accepts until the listener is drained. Each connection is a task of its own.
async fn accept(
    index: usize,
    listener: Rc<TcpListener>,
    service: Rc<Service>,
    accepting: Rc<Cell<usize>>,
) {
    let _done = FallOnDrop(accepting);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                rt::spawn(service.clone().serve(index, stream, peer));
            }
            Err(e) if e.kind() == io::ErrorKind::NotConnected => return,
            Err(e) => {
                tracing::warn!("accept: {e}");
                rt::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Waits until no accept task and no connection is left.
async fn drained(shard: usize, service: Rc<Service>, accepting: Rc<Cell<usize>>, reports: Reports) {
    while accepting.get() > 0 {
        rt::sleep(DRAIN_TICK).await;
    }
    service.idle().await;
    reports.send(shard, News::Drained);
}

/// Reports the end of the main task, also when a panic unwinds it.
struct EndedOnDrop {
    shard: usize,
    reports: Reports,
}

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.reports.send(self.shard, News::Ended);
    }
}

/// Counts an accept task out, also when it is dropped half-way.
struct FallOnDrop(Rc<Cell<usize>>);

impl Drop for FallOnDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
