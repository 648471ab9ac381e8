//! The text behind `/metrics`: sums the shards' counters, which they write without locks. Knows
//! the objects; [`super::text`] knows the format.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_core::model::{Config, Listener, Member};
use weir_core::net::sys;
use weir_core::obs::{ListenerCounters, MemberCounters, ShardObs, StatusCounters};
use weir_core::rt::RingStats;
use weir_core::time::clock;

use super::names::{self, Metric};
use super::process;
use super::text::Text;
use crate::build_info;

/// What the text is made from. One per process.
#[derive(Debug)]
pub struct Source {
    listeners: Vec<String>,
    members: Vec<MemberLabels>,
    shards: Vec<Arc<ShardObs>>,
    started: SystemTime,
}

/// A member's place in the configuration and its labels.
#[derive(Debug)]
struct MemberLabels {
    pool: usize,
    member: usize,
    labels: [String; 2],
}

impl Source {
    /// The counters of `shards` under the names of `config`.
    pub fn new(config: &Config, shards: Vec<Arc<ShardObs>>) -> Source {
        Source {
            listeners: listener_labels(config),
            members: member_labels(config),
            shards,
            started: clock::wall(),
        }
    }

    /// The whole text, as of now.
    pub fn render(&self, draining: bool) -> String {
        let mut text = Text::default();
        self.general(&mut text, draining);
        self.listeners(&mut text);
        self.members(&mut text);
        self.rings(&mut text);
        self.process(&mut text);
        text.into_string()
    }

    fn general(&self, text: &mut Text, draining: bool) {
        use build_info::{COMMIT, PROFILE, RUSTC, TARGET, VERSION};
        text.family(&names::BUILD_INFO).sample(&[VERSION, COMMIT, RUSTC, TARGET, PROFILE], 1);
        text.single(&names::SHARDS, self.shards.len());
        text.single(&names::DRAINING, u8::from(draining));
    }

    fn listeners(&self, text: &mut Text) {
        type Read = fn(&ListenerCounters) -> u64;
        let plain: [(&'static Metric, Read); 6] = [
            (&names::CONNECTIONS, |c| c.connections.get()),
            (&names::ACTIVE_CONNECTIONS, |c| c.active_connections.get()),
            (&names::REQUESTS, |c| c.requests.get()),
            (&names::RECEIVED_BYTES, |c| c.bytes_received.get()),
            (&names::SENT_BYTES, |c| c.bytes_sent.get()),
            (&names::SILENT_CLOSES, |c| c.silent_closes.get()),
        ];
        for (metric, read) in plain {
            let mut family = text.family(metric);
            for (index, label) in self.listeners.iter().enumerate() {
                family.sample(&[label], self.listener(index).map(read).sum::<u64>());
            }
        }
        let mut family = text.family(&names::RESPONSES);
        for (index, label) in self.listeners.iter().enumerate() {
            for (code, n) in sum_codes(self.listener(index).map(|c| &c.statuses)) {
                family.sample(&[label, &code.to_string()], n);
            }
        }
    }

    fn members(&self, text: &mut Text) {
        type Read = fn(&MemberCounters) -> u64;
        let plain: [(&'static Metric, Read); 8] = [
            (&names::MEMBER_CONNECTIONS, |c| c.connections.get()),
            (&names::MEMBER_ACTIVE_CONNECTIONS, |c| c.active_connections.get()),
            (&names::MEMBER_IDLE_CONNECTIONS, |c| c.idle_connections.get()),
            (&names::MEMBER_CONNECT_FAILURES, |c| c.connect_failures.get()),
            (&names::MEMBER_REQUESTS, |c| c.requests.get()),
            (&names::MEMBER_RECEIVED_BYTES, |c| c.bytes_received.get()),
            (&names::MEMBER_SENT_BYTES, |c| c.bytes_sent.get()),
            (&names::MEMBER_REUSE_RETRIES, |c| c.reuse_retries.get()),
        ];
        for (metric, read) in plain {
            let mut family = text.family(metric);
            for member in &self.members {
                let [pool, name] = &member.labels;
                family.sample(&[pool, name], self.member(member).map(read).sum::<u64>());
            }
        }
        let mut family = text.family(&names::MEMBER_RESPONSES);
        for member in &self.members {
            let [pool, name] = &member.labels;
            for (code, n) in sum_codes(self.member(member).map(|c| &c.statuses)) {
                family.sample(&[pool, name, &code.to_string()], n);
            }
        }
    }

    fn rings(&self, text: &mut Text) {
        type Read = fn(&RingStats) -> u64;
        let all: [(&'static Metric, Read); 13] = [
            (&names::RING_TURNS, |r| r.turns.get()),
            (&names::RING_ENTERS, |r| r.enters.get()),
            (&names::RING_SLEEPS, |r| r.sleeps.get()),
            (&names::RING_SUBMISSIONS, |r| r.submissions.get()),
            (&names::RING_COMPLETIONS, |r| r.completions.get()),
            (&names::RING_NO_BUFFERS, |r| r.no_buffers.get()),
            (&names::RING_CQ_OVERFLOWS, |r| r.cq_overflows.get()),
            (&names::RING_ACCEPT_FAILURES, |r| r.accept_failures.get()),
            (&names::RING_TASK_PANICS, |r| r.task_panics.get()),
            (&names::RING_TASKS, |r| r.tasks.get()),
            (&names::RING_STREAMS, |r| r.streams.get()),
            (&names::RING_OPERATIONS, |r| r.operations.get()),
            (&names::RING_LEASES, |r| r.leases.get()),
        ];
        for (metric, read) in all {
            let mut family = text.family(metric);
            for (index, shard) in self.shards.iter().enumerate() {
                family.sample(&[&index.to_string()], read(&shard.ring));
            }
        }
    }

    fn process(&self, text: &mut Text) {
        if let Some(bytes) = process::resident_bytes() {
            text.single(&names::RESIDENT_MEMORY, bytes);
        }
        if let Some(n) = process::open_fds() {
            text.single(&names::OPEN_FDS, n);
        }
        if let Ok(limit) = sys::nofile() {
            text.single(&names::MAX_FDS, limit.soft);
        }
        if let Some(seconds) = process::cpu_seconds() {
            text.single(&names::CPU_SECONDS, seconds);
        }
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        text.single(&names::START_TIME, format_args!("{:.3}", started.as_secs_f64()));
    }

    /// This listener's block on each shard.
    fn listener(&self, index: usize) -> impl Iterator<Item = &ListenerCounters> {
        self.shards.iter().filter_map(move |s| s.listeners.get(index)).map(AsRef::as_ref)
    }

    /// This member's block on each shard.
    fn member(&self, at: &MemberLabels) -> impl Iterator<Item = &MemberCounters> {
        let (pool, member) = (at.pool, at.member);
        self.shards.iter().filter_map(move |s| s.pools.get(pool)?.get(member)).map(AsRef::as_ref)
    }
}

fn sum_codes<'a>(blocks: impl Iterator<Item = &'a StatusCounters>) -> BTreeMap<u16, u64> {
    let mut sums = BTreeMap::new();
    for (code, n) in blocks.flat_map(StatusCounters::seen) {
        *sums.entry(code).or_default() += n;
    }
    sums
}

/// A listener's name; `balancer/name` where the name stands more than once.
fn listener_labels(config: &Config) -> Vec<String> {
    let once = unique(config.listeners.iter().map(|l| l.name.as_str()));
    let balancer = |l: &Listener| config.balancers.get(l.balancer).map_or("", |b| &b.name);
    let label = |l: &Listener| match once.contains(l.name.as_str()) {
        true => l.name.clone(),
        false => format!("{}/{}", balancer(l), l.name),
    };
    config.listeners.iter().map(label).collect()
}

/// A member's name; its address where it has none or the pool has it more than once.
fn member_labels(config: &Config) -> Vec<MemberLabels> {
    let mut all = Vec::new();
    for (pool, p) in config.pools.iter().enumerate() {
        let once = unique(p.members.iter().map(|m| m.name.as_str()));
        let label = |m: &Member| match once.contains(m.name.as_str()) && !m.name.is_empty() {
            true => m.name.clone(),
            false => m.address.to_string(),
        };
        all.extend(p.members.iter().enumerate().map(|(member, m)| MemberLabels {
            pool,
            member,
            labels: [p.name.clone(), label(m)],
        }));
    }
    all
}

/// The names that stand exactly once.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().filter(|&(_, n)| n == 1).map(|(name, _)| name).collect()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
