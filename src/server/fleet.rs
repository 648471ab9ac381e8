//! All shards of this process, as control sees them: starts them together or not at all, keeps each
//! on its way to the desired state, knows which version is in effect everywhere.
//!
//! A shard has at most one update under way. What changes meanwhile is sent as one diff when the
//! shard has acknowledged: so a slow shard costs nobody memory, and a storm of changes comes to few
//! updates.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Result, bail};
use weir_core::control::{Diff, State};
use weir_core::net::Place;
use weir_core::obs::{Board, ListenerCounters};
use weir_core::pool::sticky::Secret;
use weir_core::rt::{RingStats, ShardError};

use crate::shard::{self, DoorChange, Neighbours, Order, Outlet, Plan, Reports, Shard, Update};
use crate::upgrade::giver::Lent;

/// Spreads the seeds of neighbouring shards over all bits (2^64 divided by the golden ratio).
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The running shards, in the order of their numbers.
#[derive(Debug)]
pub struct Fleet {
    links: Vec<Link>,
    rings: Vec<Arc<RingStats>>,
    state: Arc<State>,
    board: Arc<Board>,
    /// Counters of listeners that are gone while connections by them were open.
    leaving: Vec<Arc<ListenerCounters>>,
    /// The process serves: from now on members join a running pool.
    settled: bool,
}

/// A shard and how far it is.
#[derive(Debug)]
struct Link {
    shard: Shard,
    /// The state that it was last told of.
    told: Arc<State>,
    /// The one before, until it has acknowledged `told`: what only that one held (large tables
    /// above all) is then freed here, not by the shard.
    before: Option<Arc<State>>,
    /// The version that it has acknowledged.
    applied: u64,
    /// An update is under way.
    busy: bool,
    /// Changes of its doors that it has not been told of.
    doors: Vec<DoorChange>,
}

impl Fleet {
    /// Starts a shard on each of `cores`, empty; each reports when it runs, and polls for `spin`
    /// before it sleeps.
    ///
    /// # Errors
    /// The first thread that could not be made; the others are stopped again.
    pub fn start(
        cores: &[usize],
        spin: Duration,
        seed: u64,
        secret: Secret,
        reports: &Reports,
    ) -> Result<Fleet> {
        let mut fleet = Fleet {
            links: Vec::new(),
            rings: cores.iter().map(|_| Arc::default()).collect(),
            state: Arc::new(State::with_secret(secret)),
            board: Arc::default(),
            leaving: Vec::new(),
            settled: false,
        };
        let neighbours = Neighbours::of(cores.len(), fleet.board.house());
        let each = cores.iter().enumerate().zip(fleet.rings.clone()).zip(neighbours);
        for (((index, &core), ring), neighbours) in each {
            let seed = seed.wrapping_add(SEED_STEP.wrapping_mul(index as u64));
            let plan = Plan { index, core, spin, seed };
            match shard::start(plan, neighbours, ring, Arc::clone(reports)) {
                Ok(shard) => fleet.links.push(Link {
                    shard,
                    told: Arc::default(),
                    before: None,
                    applied: 0,
                    busy: false,
                    doors: Vec::new(),
                }),
                Err(e) => {
                    fleet.stop();
                    bail!("core {core}: {e}");
                }
            }
        }
        Ok(fleet)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// The ring counters of all shards, for the metrics.
    pub fn rings(&self) -> Vec<Arc<RingStats>> {
        self.rings.clone()
    }

    /// The desired state.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Who counts what in it.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The version that is in effect on every shard.
    pub fn effective(&self) -> u64 {
        self.links.iter().map(|link| link.applied).min().unwrap_or_default()
    }

    /// The process serves from now on.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Does it?
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Nothing was ever published.
    pub fn is_new(&self) -> bool {
        self.state.version() == 0
    }

    /// Makes `state`, of a new version, the desired one, with the doors that each shard is to
    /// change (a list a shard, or none at all).
    pub fn publish(&mut self, state: State, board: Arc<Board>, doors: Vec<Vec<DoorChange>>) {
        self.leaving.retain(|counters| counters.active_connections.get() > 0);
        let gone = self.state.listeners().filter(|(handle, _)| state.listener(*handle).is_none());
        let counters = gone.flat_map(|(handle, _)| self.board.listener(handle));
        self.leaving.extend(counters.cloned());
        self.state = Arc::new(state);
        self.board = board;
        for (link, doors) in self.links.iter_mut().zip(doors) {
            link.doors.extend(doors);
        }
        self.send();
    }

    /// A shard has acknowledged a version.
    pub fn applied(&mut self, shard: usize, version: u64) {
        if let Some(link) = self.links.get_mut(shard) {
            link.applied = version;
            link.busy = false;
            link.before = None;
        }
        self.send();
    }

    /// Tells every shard that isn't busy what it doesn't know.
    fn send(&mut self) {
        // Shards that are equally far get the very same diff.
        let mut made: Option<Arc<Diff>> = None;
        for (index, link) in self.links.iter_mut().enumerate() {
            if link.busy || link.told.version() == self.state.version() {
                continue;
            }
            let diff = match &made {
                Some(diff) if diff.from == link.told.version() => Arc::clone(diff),
                _ => Arc::clone(made.insert(Arc::new(link.told.diff(&self.state)))),
            };
            let doors = std::mem::take(&mut link.doors);
            let (board, settled) = (Arc::clone(&self.board), self.settled);
            let update = Update { diff, board, doors, settled };
            link.before = Some(std::mem::replace(&mut link.told, Arc::clone(&self.state)));
            link.busy = true;
            if link.shard.order(Order::Update(update)).is_err() {
                tracing::warn!("shard {index} takes no orders any more");
            }
        }
    }

    /// Has every shard send what its table says.
    pub fn show(&self, reply: &mpsc::Sender<(usize, Vec<String>)>) {
        for link in &self.links {
            // A shard that is gone or busy sends nothing; who asked notices.
            let _busy = link.shard.ask(Order::Show(reply.clone()));
        }
    }

    /// Has every shard send its listening sockets.
    pub fn lend(&mut self, reply: &mpsc::Sender<Lent>) {
        self.order_all(|| Order::Lend(reply.clone()));
    }

    /// Has every shard hold the UDP listeners of these doors up, and send their flows.
    pub fn pass_flows(&mut self, places: BTreeSet<Place>, outlet: &Outlet) {
        let places = Arc::new(places);
        let order = || Order::PassFlows { places: Arc::clone(&places), outlet: outlet.clone() };
        self.order_all(order);
    }

    /// Has every shard go on with what it has held up.
    pub fn go_on(&mut self) {
        self.order_all(|| Order::GoOn);
    }

    /// Has every shard leave these doors to another process, and drain.
    pub fn hand_over(&mut self, taken: BTreeSet<Place>, quiet: std::time::Duration) {
        let taken = Arc::new(taken);
        self.order_all(|| Order::HandOver { taken: Arc::clone(&taken), quiet });
    }

    /// Has every shard leave all doors to the process that they came from, and drain.
    pub fn give_back(&mut self) {
        self.order_all(|| Order::GiveBack);
    }

    /// Has every shard drain.
    pub fn drain(&mut self, quiet: std::time::Duration) {
        self.order_all(|| Order::Drain { quiet });
    }

    fn order_all(&mut self, order: impl Fn() -> Order) {
        for (index, link) in self.links.iter_mut().enumerate() {
            if link.shard.order(order()).is_err() {
                tracing::warn!("shard {index} takes no orders any more");
            }
        }
    }

    /// Gives orders again that shards had no room for, which are then too busy to have heard the
    /// ones before. Returns whether some still wait.
    pub fn deliver(&mut self) -> bool {
        self.links.iter_mut().fold(false, |waits, link| link.shard.deliver() | waits)
    }

    /// Has every shard drop what is left and end.
    pub fn stop(&mut self) {
        for link in &mut self.links {
            // A shard that takes no order has ended already.
            let _gone = link.shard.order(Order::Stop);
        }
    }

    /// Waits for the ends of the shards, all of which have reported theirs; tells what went wrong
    /// with them.
    pub fn join(self) -> Vec<ShardError> {
        self.links.into_iter().filter_map(|link| link.shard.join().err()).collect()
    }

    /// Client connections that are open now on all shards, by removed listeners too.
    pub fn active_connections(&self) -> u64 {
        let blocks = self.state.listeners().flat_map(|(handle, _)| self.board.listener(handle));
        let all = blocks.chain(&self.leaving);
        all.map(|counters| counters.active_connections.get()).sum()
    }
}
