//! What `/metrics` says about requests beyond plain counts: who answered them, times as histograms,
//! how evenly the shards share them, what became of the lines of the access logs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_core::acl::Spread;
use weir_core::control::State;
use weir_core::model::{Handle, LogTarget};
use weir_core::obs::{
    BOUNDS_US, Board, Distribution, Histogram, ListenerCounters, Spool, StatusCounters,
};
use weir_core::rt::RingStats;
use weir_core::time::clock::{self, Mono};

use super::flaps::Flaps;
use super::metrics::{Page, sum, sum_codes};
use super::names::{self, Metric};
use super::text::Text;
use super::window::{Sample, Window};

/// Classes of status codes.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What has to be remembered from one scrape, or one configuration, to the next.
#[derive(Debug)]
pub(super) struct Memory {
    window: Mutex<Window>,
    flaps: Mutex<Flaps>,
    /// Requests of listeners that were removed, by shard.
    gone: Mutex<Vec<u64>>,
}

/// A log with its label.
pub(super) type LogRow = (String, Arc<Spool>);

impl Memory {
    pub(super) fn new(start: Mono) -> Memory {
        Memory {
            window: Mutex::new(Window::new(start)),
            flaps: Mutex::default(),
            gone: Mutex::default(),
        }
    }

    /// Other health, or other members.
    pub(super) fn compare(&self, before: &State, now: &State) {
        lock(&self.flaps).compare(before, now);
    }

    /// How often the checks changed their mind about a member.
    pub(super) fn flaps(&self, member: Handle) -> u64 {
        lock(&self.flaps).of(member)
    }

    /// How often a member was left out.
    pub(super) fn ejections(&self, member: Handle) -> u64 {
        lock(&self.flaps).ejections_of(member)
    }

    /// Keeps the counts of listeners that `next` has no more.
    pub(super) fn keep_gone(&self, page: &Page, next: &Page) {
        let mut gone = lock(&self.gone);
        for row in page.listeners.iter().filter(|row| !next.has_listener(row.handle)) {
            add_shards(&mut gone, &row.blocks);
        }
    }

    /// Requests of each shard since the start.
    fn shard_requests(&self, page: &Page, shards: usize) -> Vec<u64> {
        let mut requests = lock(&self.gone).clone();
        requests.resize(shards, 0);
        for row in &page.listeners {
            add_shards(&mut requests, &row.blocks);
        }
        requests
    }

    /// All that stands in this file.
    pub(super) fn render(&self, text: &mut Text, page: &Page, state: &State, rings: &Rings) {
        answers(text, page);
        histograms(text, page);
        abnormal(text, state);
        logs(text, &page.logs);
        let requests = self.shard_requests(page, rings.len());
        let idle = rings.iter().map(|ring| ring.slept_us.get() + ring.spun_us.get());
        let now = Sample {
            at: clock::mono(),
            upstream: page
                .listeners
                .iter()
                .map(|row| (row.handle, upstream(&row.blocks)))
                .collect(),
            shards: requests.iter().copied().zip(idle).collect(),
        };
        let before = lock(&self.window).step(&now);
        let mut family = text.family(&names::UPSTREAM_RT);
        for row in page.listeners.iter().filter(|row| row.layer7) {
            let ms = now.rt_ms(&before, row.handle);
            family.sample(&[&row.label], format_args!("{ms:.3}"));
        }
        shards(text, &now, &before, rings);
        connections(text, &page.house.spread);
    }
}

/// The rings of all shards.
type Rings = [Arc<RingStats>];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_shards(sums: &mut Vec<u64>, blocks: &[Arc<ListenerCounters>]) {
    sums.resize(sums.len().max(blocks.len()), 0);
    for (sum, block) in sums.iter_mut().zip(blocks) {
        *sum += block.requests.get();
    }
}

fn upstream(blocks: &[Arc<ListenerCounters>]) -> (u64, u64) {
    let all = Distribution::of(blocks.iter().map(|block| &block.times.response));
    (all.sum_us, all.count)
}

/// R4.2-1: requests are those that were forwarded and those that Weir answered itself.
fn answers(text: &mut Text, page: &Page) {
    let mut family = text.family(&names::FORWARDED);
    for row in &page.listeners {
        family.sample(&[&row.label], sum(&row.blocks, |block| block.forwarded.get()));
    }
    let mut family = text.family(&names::LOCAL_RESPONSES);
    for row in &page.listeners {
        for (code, n) in sum_codes(row.blocks.iter().map(|block| &block.local)) {
            family.sample(&[&row.label, &code.to_string()], n);
        }
    }
    let mut family = text.family(&names::RESPONSE_CLASSES);
    for row in &page.listeners {
        for (class, n) in classes(row.blocks.iter().map(|block| &block.statuses)) {
            family.sample(&[&row.label, class], n);
        }
    }
    let mut family = text.family(&names::MEMBER_RESPONSE_CLASSES);
    for row in &page.members {
        let [pool, name] = &row.labels;
        for (class, n) in classes(row.blocks.iter().map(|block| &block.statuses)) {
            family.sample(&[pool, name, class], n);
        }
    }
}

fn classes<'a>(
    counters: impl Iterator<Item = &'a StatusCounters>,
) -> impl Iterator<Item = (&'static str, u64)> {
    let mut sums = [0; CLASSES.len()];
    for (code, n) in sum_codes(counters) {
        if let Some(sum) = sums.get_mut(usize::from(code / 100).wrapping_sub(1)) {
            *sum += n;
        }
    }
    CLASSES.into_iter().zip(sums)
}

/// R4.1-1: Layer 7 only.
fn histograms(text: &mut Text, page: &Page) {
    type Read = fn(&ListenerCounters) -> &Histogram;
    let all: [(&'static Metric, Read); 4] = [
        (&names::REQUEST_SECONDS, |block| &block.times.request),
        (&names::UPSTREAM_CONNECT_SECONDS, |block| &block.times.connect),
        (&names::UPSTREAM_HEADER_SECONDS, |block| &block.times.header),
        (&names::UPSTREAM_RESPONSE_SECONDS, |block| &block.times.response),
    ];
    for (metric, read) in all {
        let mut family = text.family(metric);
        for row in page.listeners.iter().filter(|row| row.layer7) {
            let all = Distribution::of(row.blocks.iter().map(|block| read(block)));
            family.histogram(&[&row.label], &all, &BOUNDS_US);
        }
    }
}

/// R4.4-4: how many members of each checked pool the checks find down, and up.
fn abnormal(text: &mut Text, state: &State) {
    let mut sums: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (pool, member) in state.members().filter(|(pool, _)| pool.is_checked()) {
        let [down, up] = sums.entry(&pool.name).or_default();
        *(if state.is_up(member.handle) { up } else { down }) += 1;
    }
    for (metric, at) in [(&names::ABNORMAL_MEMBERS, 0), (&names::NORMAL_MEMBERS, 1)] {
        let mut family = text.family(metric);
        for (pool, both) in &sums {
            family.sample(&[pool], both.get(at).copied().unwrap_or_default());
        }
    }
}

fn logs(text: &mut Text, logs: &[LogRow]) {
    let mut family = text.family(&names::LOG_LINES);
    for (label, spool) in logs {
        family.sample(&[label], spool.written.get());
    }
    let mut family = text.family(&names::LOG_DROPPED);
    for (label, spool) in logs {
        family.sample(&[label], spool.dropped());
    }
}

fn shards(text: &mut Text, now: &Sample, before: &Sample, rings: &Rings) {
    type Read = fn(&RingStats) -> u64;
    let mut family = text.family(&names::SHARD_REQUESTS);
    for (shard, (requests, _)) in now.shards.iter().enumerate() {
        family.sample(&[&shard.to_string()], requests);
    }
    let seconds: [(&'static Metric, Read); 2] = [
        (&names::SHARD_SLEEP, |ring| ring.slept_us.get()),
        (&names::SHARD_SPIN, |ring| ring.spun_us.get()),
    ];
    for (metric, us) in seconds {
        let mut family = text.family(metric);
        for (shard, ring) in rings.iter().enumerate() {
            let seconds = us(ring) as f64 / 1e6;
            family.sample(&[&shard.to_string()], format_args!("{seconds:.6}"));
        }
    }
    let mut family = text.family(&names::SHARD_BUSY);
    for shard in 0..now.shards.len() {
        let busy = now.busy(before, shard);
        family.sample(&[&shard.to_string()], format_args!("{busy:.4}"));
    }
    let skew = now.skew(before);
    text.single(&names::SHARD_SKEW, format_args!("{skew:.4}"));
}

/// Where the open connections are.
fn connections(text: &mut Text, spread: &Spread) {
    let mut family = text.family(&names::SHARD_CONNECTIONS);
    for (shard, share) in spread.shares().iter().enumerate() {
        family.sample(&[&shard.to_string()], share.open.get());
    }
    let skew = spread.skew();
    text.single(&names::SHARD_CONNECTION_SKEW, format_args!("{skew:.4}"));
    let mut family = text.family(&names::SHARD_HANDED_OVER);
    for (shard, share) in spread.shares().iter().enumerate() {
        family.sample(&[&shard.to_string()], share.handed_over.get());
    }
}

/// The logs of a board, by label.
pub(super) fn log_rows(board: &Board) -> Vec<LogRow> {
    let label = |target: &LogTarget| match target {
        LogTarget::Standard => "-".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    };
    let row = |(target, spool): (&LogTarget, &Arc<Spool>)| (label(target), Arc::clone(spool));
    let rows: BTreeMap<String, Arc<Spool>> = board.spools().map(row).collect();
    rows.into_iter().collect()
}
