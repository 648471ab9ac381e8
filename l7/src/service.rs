//! What one shard holds for HTTP: its listeners' settings (sites), pools, idle member connections,
//! and what is kept for reuse. The door of this crate: the server hands in accepted connections.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use weir_core::model::{Config, Listener};
use weir_core::obs::{ListenerCounters, ShardObs};
use weir_core::pool::Wrr;
use weir_core::rt::{self, Lease, TaskHandle, TcpStream};

use crate::connection;
use crate::exchange::Exchange;
use crate::limits::FREE_EXCHANGES;
use crate::message::Field;
use crate::route::Pool;
use crate::upstream::{Idle, Member};

/// HTTP forwarding on one shard. One per shard; it and its futures stay there.
#[derive(Debug)]
pub struct Service {
    pub(crate) sites: Vec<Site>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) idle: Rc<Idle>,
    /// Room for the fields of the head that is being parsed.
    pub(crate) fields: RefCell<Vec<Field>>,
    #[allow(clippy::vec_box, reason = "connections hold and hand back the very boxes")]
    free: RefCell<Vec<Box<Exchange>>>,
    draining: Cell<bool>,
    open: RefCell<Open>,
    janitor: TaskHandle,
}

/// A listener as the data path reads it. R6.7-4 to R6.7-7.
#[derive(Debug)]
pub(crate) struct Site {
    /// Index of the default pool.
    pub(crate) pool: Option<usize>,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) client_timeout: Duration,
    pub(crate) member_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) counters: Arc<ListenerCounters>,
}

/// The connections being served.
#[derive(Debug, Default)]
struct Open {
    /// Their tasks, so that a drain can wake them; `None` = free place.
    tasks: Vec<Option<TaskHandle>>,
    free: Vec<u32>,
    active: usize,
    /// Who waits for the last one to end.
    waiting: Vec<Waker>,
}

impl Service {
    /// A service for all listeners and pools of `config`, counting into `obs`, whose blocks stand
    /// in the same order. `seed` sets where each pool's round robin starts; give each shard its
    /// own. Must be called on the shard: it starts the task that looks after idle member
    /// connections.
    pub fn new(config: &Config, obs: &ShardObs, seed: u64) -> Rc<Service> {
        let idle = Idle::new();
        let janitor = rt::spawn(Rc::clone(&idle).janitor());
        let site = |(at, listener): (usize, &Listener)| Site {
            pool: listener.default_pool,
            keepalive_timeout: listener.keepalive_timeout,
            client_timeout: listener.client_timeout,
            member_timeout: listener.member_timeout,
            connect_timeout: listener.connect_timeout,
            counters: obs.listeners.get(at).cloned().unwrap_or_default(),
        };
        Rc::new(Service {
            sites: config.listeners.iter().enumerate().map(site).collect(),
            pools: (0..config.pools.len()).map(|at| make_pool(config, obs, seed, at)).collect(),
            idle,
            fields: RefCell::default(),
            free: RefCell::default(),
            draining: Cell::new(false),
            open: RefCell::default(),
            janitor,
        })
    }

    /// Serves one client connection until it ends, however it ends. `listener` is the index into
    /// the configuration's listeners; with an unknown one the connection is closed.
    pub async fn serve(self: Rc<Self>, listener: usize, stream: TcpStream, peer: SocketAddr) {
        if listener < self.sites.len() {
            connection::run(self, listener, stream, peer).await;
        }
    }

    /// From now on each answer carries `Connection: close`, and connections close once they have
    /// been idle for one second with nothing received.
    pub fn begin_drain(&self) {
        self.draining.set(true);
        for task in self.open.borrow().tasks.iter().flatten() {
            task.wake();
        }
    }

    /// Connections being served.
    pub fn active(&self) -> usize {
        self.open.borrow().active
    }

    /// Waits until no connection is being served.
    pub async fn idle(&self) {
        std::future::poll_fn(|cx| {
            let mut open = self.open.borrow_mut();
            if open.active == 0 {
                return Poll::Ready(());
            }
            if !open.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                open.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// An exchange for the request whose first bytes are `lease`.
    #[inline]
    pub(crate) fn take_exchange(&self, lease: Lease) -> Box<Exchange> {
        let mut exchange = self.free.borrow_mut().pop().unwrap_or_default();
        exchange.begin(lease);
        exchange
    }

    /// Keeps an exchange that has ended for the next request.
    #[inline]
    pub(crate) fn give_back(&self, mut exchange: Box<Exchange>) {
        exchange.clear();
        let mut free = self.free.borrow_mut();
        if free.len() < FREE_EXCHANGES {
            free.push(exchange);
        }
    }

    /// Enters the present task as one that serves a connection.
    pub(crate) fn enter(&self) -> u32 {
        let open = &mut *self.open.borrow_mut();
        open.active += 1;
        let task = rt::current_task();
        match open.free.pop() {
            Some(place) => {
                if let Some(entry) = open.tasks.get_mut(place as usize) {
                    *entry = task;
                }
                place
            }
            None => {
                open.tasks.push(task);
                open.tasks.len() as u32 - 1
            }
        }
    }

    /// Takes the task at `place` out again.
    pub(crate) fn leave(&self, place: u32) {
        let open = &mut *self.open.borrow_mut();
        open.active = open.active.saturating_sub(1);
        if let Some(entry) = open.tasks.get_mut(place as usize) {
            *entry = None;
        }
        open.free.push(place);
        if open.active == 0 {
            open.waiting.drain(..).for_each(Waker::wake);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.janitor.abort();
    }
}

fn make_pool(config: &Config, obs: &ShardObs, seed: u64, at: usize) -> Pool {
    let members = config.pools.get(at).map(|pool| pool.members.as_slice()).unwrap_or_default();
    let counters = |member| obs.pools.get(at).and_then(|pool| pool.get(member)).cloned();
    let weights: Vec<u8> = members.iter().map(|member| member.weight).collect();
    Pool {
        members: (members.iter().enumerate())
            .map(|(i, m)| Rc::new(Member::new(m.address, counters(i).unwrap_or_default())))
            .collect(),
        turns: RefCell::new(Wrr::new(&weights, seed.wrapping_add(at as u64))),
    }
}
