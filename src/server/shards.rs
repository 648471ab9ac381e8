//! All shards of this process: starts them together or not at all, passes orders, collects
//! reports. `serve` and `demo` run their balancers through this type.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use crossbeam::channel::Receiver;
use weir_core::model::Config;
use weir_core::net::Group;
use weir_core::obs::ShardObs;
use weir_core::rt::ShardError;

use crate::shard::{self, News, Order, Plan, Report, Shard};

/// A shard that has not reported after this long will not.
const START_LIMIT: Duration = Duration::from_secs(10);
/// A shard that was told to stop and has not ended after this long is left to the process's end.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Spreads the seeds of neighbouring shards over all bits (2^64 divided by the golden ratio).
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The running shards, in the order of their numbers.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    reports: Receiver<Report>,
    /// How many have reported their end.
    ended: Cell<usize>,
}

impl Shards {
    /// Starts a shard on each of `cores` with its share of `groups`, and waits until all accept.
    ///
    /// # Errors
    /// The first shard that failed; the others are stopped again and all sockets closed.
    pub fn start(
        config: &Arc<Config>,
        cores: &[usize],
        groups: Vec<Group>,
        seed: u64,
    ) -> Result<Shards> {
        let (sender, reports) = shard::reports(cores.len());
        let mut all = Shards { shards: Vec::new(), reports, ended: Cell::new(0) };
        let shares = deal(groups, cores.len());
        for ((index, &core), sockets) in cores.iter().enumerate().zip(shares) {
            let plan = Plan {
                index,
                core,
                config: Arc::clone(config),
                obs: Arc::new(ShardObs::new(config)),
                seed: seed.wrapping_add(SEED_STEP.wrapping_mul(index as u64)),
                sockets,
            };
            match shard::start(plan, sender.clone()) {
                Ok(shard) => all.shards.push(shard),
                Err(e) => {
                    all.stop();
                    bail!("core {core}: {e}");
                }
            }
        }
        drop(sender);
        match all.wait_ready() {
            Ok(()) => Ok(all),
            // Why a shard ended is known when it has been joined.
            Err(e) => match all.stop().into_iter().next() {
                Some(cause) => Err(cause.into()),
                None => Err(e),
            },
        }
    }

    /// One report of each shard, in any order.
    fn wait_ready(&self) -> Result<()> {
        for _ in &self.shards {
            match self.report_within(START_LIMIT) {
                Some(Report { news: News::Ready, .. }) => {}
                Some(Report { shard, news: News::Failed(reason) }) => {
                    bail!("shard {shard} cannot take over its listening sockets: {reason}")
                }
                Some(Report { shard, .. }) => bail!("shard {shard} ended while it started"),
                None => bail!("a shard was not ready after {} s", START_LIMIT.as_secs()),
            }
        }
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shards.len()
    }

    /// Counters of all shards, for the metrics.
    pub fn obs(&self) -> Vec<Arc<ShardObs>> {
        self.shards.iter().map(|s| Arc::clone(&s.obs)).collect()
    }

    /// Client connections that are open now on all shards.
    pub fn active_connections(&self) -> u64 {
        self.shards.iter().map(Shard::active_connections).sum()
    }

    /// Gives an order to every shard.
    pub fn order(&self, order: Order) {
        for (index, shard) in self.shards.iter().enumerate() {
            if !shard.order(order) {
                tracing::warn!("shard {index} takes no orders any more");
            }
        }
    }

    /// The next report, if one has come.
    pub fn report(&self) -> Option<Report> {
        self.report_within(Duration::ZERO)
    }

    fn report_within(&self, limit: Duration) -> Option<Report> {
        let report = self.reports.recv_timeout(limit).ok()?;
        if report.news == News::Ended {
            self.ended.set(self.ended.get() + 1);
        }
        Some(report)
    }

    /// Stops all shards; what is still open is cut. Shards that end in time are waited for; tells
    /// what went wrong with them.
    pub fn stop(self) -> Vec<ShardError> {
        for shard in &self.shards {
            // A shard that takes no order has ended already.
            let _ = shard.order(Order::Stop);
        }
        while self.ended.get() < self.shards.len() {
            if self.report_within(STOP_LIMIT).is_none() {
                return Vec::new();
            }
        }
        self.shards.into_iter().filter_map(|shard| shard.join().err()).collect()
    }
}

/// Gives every shard its socket of every group, with the index of its listener.
fn deal(groups: Vec<Group>, shards: usize) -> Vec<Vec<(usize, OwnedFd)>> {
    let mut shares: Vec<_> = (0..shards).map(|_| Vec::new()).collect();
    for group in groups {
        for (share, socket) in shares.iter_mut().zip(group.sockets) {
            share.push((group.wanted, socket));
        }
    }
    shares
}
