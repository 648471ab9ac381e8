//! The text behind `/metrics`: sums the shards' counters, which they write without locks. Knows
//! the objects; [`super::text`] knows the format. Control writes new pages into the [`Book`], the
//! admin thread reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use weir_core::acl::{House, Refusal};
use weir_core::control::{Listener, State};
use weir_core::model::{Handle, Protocol};
use weir_core::net::sys;
use weir_core::obs::{
    Board, DatagramDrop, Ending, ListenerCounters, MemberCounters, StatusCounters, StickyCounters,
};
use weir_core::rt::RingStats;
use weir_core::time::clock;
use weir_health::ProberCounters;

use super::names::{self, Metric};
use super::process;
use super::text::Text;
use super::traffic::{self, LogRow, Memory};
use crate::build_info;

/// What the text is made from. One per process.
#[derive(Debug)]
pub struct Book {
    rings: Vec<Arc<RingStats>>,
    prober: Arc<ProberCounters>,
    page: RwLock<Arc<Page>>,
    state: RwLock<Arc<State>>,
    effective: AtomicU64,
    draining: AtomicBool,
    /// Name, end, staleness.
    certificates: RwLock<Arc<Vec<(String, i64, bool)>>>,
    memory: Memory,
    started: SystemTime,
}

/// The objects of one configuration with their labels and counters.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) listeners: Vec<ListenerRow>,
    pub(super) members: Vec<MemberRow>,
    pub(super) logs: Vec<LogRow>,
    /// The process' connections.
    pub(super) house: Arc<House>,
}

/// A listener.
#[derive(Debug)]
pub(super) struct ListenerRow {
    pub(super) handle: Handle,
    pub(super) label: String,
    /// HTTP or HTTPS.
    pub(super) layer7: bool,
    /// HTTPS.
    pub(super) tls: bool,
    udp: bool,
    pub(super) blocks: Vec<Arc<ListenerCounters>>,
}

/// A member.
#[derive(Debug)]
pub(super) struct MemberRow {
    handle: Handle,
    /// Pool, member.
    pub(super) labels: [String; 2],
    /// Its pool is checked.
    checked: bool,
    /// Its pool leaves out members that fail.
    watched: bool,
    /// It is spoken to inside TLS.
    secured: bool,
    pub(super) blocks: Vec<Arc<MemberCounters>>,
}

impl Book {
    /// An empty book on these shards.
    pub fn new(rings: Vec<Arc<RingStats>>) -> Book {
        Book {
            rings,
            prober: Arc::default(),
            page: RwLock::default(),
            state: RwLock::default(),
            effective: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            certificates: RwLock::default(),
            memory: Memory::new(clock::mono()),
            started: clock::wall(),
        }
    }

    /// Where the prober counts.
    pub fn prober(&self) -> Arc<ProberCounters> {
        Arc::clone(&self.prober)
    }

    /// From now on the metrics are those of this state's objects.
    pub fn show(&self, state: &Arc<State>, board: &Board) {
        let page = Page {
            listeners: listener_rows(state, board),
            members: member_rows(state, board),
            logs: traffic::log_rows(board),
            house: Arc::clone(board.house()),
        };
        self.memory.keep_gone(&get(&self.page), &page);
        set(&self.page, Arc::new(page));
        self.health(state);
    }

    /// The desired state that was shown last.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same objects, other health.
    pub fn health(&self, state: &Arc<State>) {
        self.memory.compare(&get(&self.state), state);
        set(&self.state, Arc::clone(state));
    }

    /// The certificates from now on: name, end in seconds since 1970, are its files unusable?
    pub fn certificates(&self, list: Vec<(String, i64, bool)>) {
        set(&self.certificates, Arc::new(list));
    }

    /// This version is in effect on every shard.
    pub fn effective(&self, version: u64) {
        self.effective.store(version, Relaxed);
    }

    /// The process drains from now on.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Does it?
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// The whole text, as of now.
    pub fn render(&self) -> String {
        let (page, state) = (get(&self.page), get(&self.state));
        let mut text = Text::default();
        self.general(&mut text, &state);
        page.listeners(&mut text);
        page.members(&mut text, &state, &self.memory);
        self.memory.render(&mut text, &page, &state, &self.rings);
        self.checks(&mut text, &page);
        self.rings(&mut text);
        self.process(&mut text);
        text.into_string()
    }

    fn general(&self, text: &mut Text, state: &State) {
        use build_info::{COMMIT, PROFILE, RUSTC, TARGET, VERSION};
        text.family(&names::BUILD_INFO).sample(&[VERSION, COMMIT, RUSTC, TARGET, PROFILE], 1);
        text.single(&names::SHARDS, self.rings.len());
        text.single(&names::DRAINING, u8::from(self.is_draining()));
        text.single(&names::CONFIG_VERSION, state.version());
        text.single(&names::CONFIG_EFFECTIVE, self.effective.load(Relaxed));
        let certificates = get(&self.certificates);
        let mut family = text.family(&names::CERTIFICATE_NOT_AFTER);
        for (name, not_after, _) in certificates.iter() {
            family.sample(&[name], not_after);
        }
        let mut family = text.family(&names::CERTIFICATE_STALE);
        for (name, _, stale) in certificates.iter() {
            family.sample(&[name], u8::from(*stale));
        }
    }

    fn checks(&self, text: &mut Text, page: &Page) {
        let failing = self.prober.failing();
        let mut family = text.family(&names::CHECK_FAILURE);
        for MemberRow { handle, labels: [pool, name], .. } in &page.members {
            if let Some(reason) = failing.get(handle) {
                let (expected, actual) = reason.compared().unwrap_or_default();
                let (code, cause) = (reason.code().name(), reason.cause());
                family.sample(&[pool, name, code, cause, &expected, &actual], 1);
            }
        }
        text.single(&names::HEALTH_PROBES, self.prober.probes.get());
        let mut family = text.family(&names::HEALTH_FAILURES);
        for (code, n) in self.prober.failures() {
            family.sample(&[code.name()], n);
        }
        text.single(&names::HEALTH_VOID, self.prober.void.get());
    }

    fn rings(&self, text: &mut Text) {
        type Read = fn(&RingStats) -> u64;
        let all: [(&'static Metric, Read); 17] = [
            (&names::RING_TURNS, |r| r.turns.get()),
            (&names::RING_ENTERS, |r| r.enters.get()),
            (&names::RING_SLEEPS, |r| r.sleeps.get()),
            (&names::RING_SUBMISSIONS, |r| r.submissions.get()),
            (&names::RING_COMPLETIONS, |r| r.completions.get()),
            (&names::RING_NO_BUFFERS, |r| r.no_buffers.get()),
            (&names::RING_CQ_OVERFLOWS, |r| r.cq_overflows.get()),
            (&names::RING_ACCEPT_FAILURES, |r| r.accept_failures.get()),
            (&names::RING_NO_PORTS, |r| r.no_ports.get()),
            (&names::RING_NO_DESCRIPTORS, |r| r.no_descriptors.get()),
            (&names::RING_DATAGRAMS_DROPPED, |r| r.datagrams_dropped.get()),
            (&names::RING_SPLICED_BYTES, |r| r.spliced_bytes.get()),
            (&names::RING_TASK_PANICS, |r| r.task_panics.get()),
            (&names::RING_TASKS, |r| r.tasks.get()),
            (&names::RING_STREAMS, |r| r.streams.get()),
            (&names::RING_OPERATIONS, |r| r.operations.get()),
            (&names::RING_LEASES, |r| r.leases.get()),
        ];
        for (metric, read) in all {
            let mut family = text.family(metric);
            for (index, ring) in self.rings.iter().enumerate() {
                family.sample(&[&index.to_string()], read(ring));
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
}

impl Page {
    /// Is this listener still there?
    pub(super) fn has_listener(&self, handle: Handle) -> bool {
        self.listeners.iter().any(|row| row.handle == handle)
    }

    fn datagrams(&self, text: &mut Text) {
        type Read = fn(&ListenerCounters) -> u64;
        let both: [(&'static Metric, Read); 2] = [
            (&names::DATAGRAMS_RECEIVED, |c| c.datagrams.received.get()),
            (&names::DATAGRAMS_SENT, |c| c.datagrams.sent.get()),
        ];
        for (metric, read) in both {
            let mut family = text.family(metric);
            for ListenerRow { label, blocks, .. } in self.listeners.iter().filter(|row| row.udp) {
                family.sample(&[label], blocks.iter().map(|block| read(block)).sum::<u64>());
            }
        }
        let mut family = text.family(&names::DATAGRAMS_DROPPED);
        for ListenerRow { label, blocks, .. } in self.listeners.iter().filter(|row| row.udp) {
            for why in DatagramDrop::ALL {
                let n: u64 = blocks.iter().map(|c| c.datagrams.dropped(why)).sum();
                if n > 0 {
                    family.sample(&[label, why.name()], n);
                }
            }
        }
    }

    fn listeners(&self, text: &mut Text) {
        type Read = fn(&ListenerCounters) -> u64;
        let plain: [(&'static Metric, Read); 7] = [
            (&names::CONNECTIONS, |c| c.connections.get()),
            (&names::ACTIVE_CONNECTIONS, |c| c.active_connections.get()),
            (&names::REQUESTS, |c| c.requests.get()),
            (&names::RECEIVED_BYTES, |c| c.bytes_received.get()),
            (&names::SENT_BYTES, |c| c.bytes_sent.get()),
            (&names::SILENT_CLOSES, |c| c.silent_closes.get()),
            (&names::ACTIVE_TUNNELS, |c| c.active_tunnels.get()),
        ];
        for (metric, read) in plain {
            let mut family = text.family(metric);
            for ListenerRow { label, blocks, .. } in &self.listeners {
                family.sample(&[label], sum(blocks, read));
            }
        }
        let mut family = text.family(&names::HTTP2_FAULTS);
        let kinds: [(&str, Read); 2] =
            [("flood", |c| c.http2_floods.get()), ("protocol", |c| c.http2_faults.get())];
        for ListenerRow { label, blocks, .. } in &self.listeners {
            for (kind, read) in kinds {
                let n = sum(blocks, read);
                if n > 0 {
                    family.sample(&[label, kind], n);
                }
            }
        }
        let mut family = text.family(&names::STICKY_REQUESTS);
        for ListenerRow { label, blocks, .. } in &self.listeners {
            for what in StickyCounters::ALL {
                let n: u64 = blocks.iter().map(|c| c.sticky.get(what)).sum();
                if n > 0 {
                    family.sample(&[label, what.name()], n);
                }
            }
        }
        let mut family = text.family(&names::REFUSED);
        for ListenerRow { label, blocks, .. } in &self.listeners {
            for refusal in Refusal::ALL {
                let n: u64 = blocks.iter().map(|c| c.refused.get(refusal)).sum();
                if n > 0 {
                    family.sample(&[label, refusal.name()], n);
                }
            }
        }
        super::handshakes::render(text, self);
        let mut family = text.family(&names::ENDED);
        for ListenerRow { label, blocks, .. } in self.listeners.iter().filter(|row| !row.layer7) {
            for ending in Ending::ALL {
                let n: u64 = blocks.iter().map(|c| c.endings.get(ending)).sum();
                if n > 0 {
                    family.sample(&[label, ending.name()], n);
                }
            }
        }
        self.datagrams(text);
        let mut family = text.family(&names::RESPONSES);
        for ListenerRow { label, blocks, .. } in &self.listeners {
            for (code, n) in sum_codes(blocks.iter().map(|c| &c.statuses)) {
                family.sample(&[label, &code.to_string()], n);
            }
        }
    }

    /// Of members inside TLS only.
    fn member_handshakes(&self, text: &mut Text) {
        let secured = || self.members.iter().filter(|row| row.secured);
        let mut family = text.family(&names::MEMBER_TLS_HANDSHAKES);
        for MemberRow { labels: [pool, name], blocks, .. } in secured() {
            let resumed = sum(blocks, |c| c.tls_resumed.get());
            let full = sum(blocks, |c| c.tls_handshakes.get()).saturating_sub(resumed);
            family.sample(&[pool, name, "full"], full);
            family.sample(&[pool, name, "resumed"], resumed);
        }
        let mut family = text.family(&names::MEMBER_TLS_FAILURES);
        for MemberRow { labels: [pool, name], blocks, .. } in secured() {
            family.sample(&[pool, name], sum(blocks, |c| c.tls_failures.get()));
        }
    }

    fn members(&self, text: &mut Text, state: &State, memory: &Memory) {
        type Read = fn(&MemberCounters) -> u64;
        let plain: [(&'static Metric, Read); 9] = [
            (&names::MEMBER_CONNECTIONS, |c| c.connections.get()),
            (&names::MEMBER_ACTIVE_CONNECTIONS, |c| c.active_connections.get()),
            (&names::MEMBER_IDLE_CONNECTIONS, |c| c.idle_connections.get()),
            (&names::MEMBER_CONNECT_FAILURES, |c| c.connect_failures.get()),
            (&names::MEMBER_REQUESTS, |c| c.requests.get()),
            (&names::MEMBER_RECEIVED_BYTES, |c| c.bytes_received.get()),
            (&names::MEMBER_SENT_BYTES, |c| c.bytes_sent.get()),
            (&names::MEMBER_REUSE_RETRIES, |c| c.reuse_retries.get()),
            (&names::MEMBER_RETRIES, |c| c.retries.get()),
        ];
        for (metric, read) in plain {
            let mut family = text.family(metric);
            for MemberRow { labels: [pool, name], blocks, .. } in &self.members {
                family.sample(&[pool, name], sum(blocks, read));
            }
        }
        let mut family = text.family(&names::MEMBER_RESPONSE_SECONDS);
        for MemberRow { labels: [pool, name], blocks, .. } in &self.members {
            let seconds = sum(blocks, |c| c.response_us.get()) as f64 / 1e6;
            family.sample(&[pool, name], format_args!("{seconds:.6}"));
        }
        self.member_handshakes(text);
        let mut family = text.family(&names::MEMBER_RESPONSES);
        for MemberRow { labels: [pool, name], blocks, .. } in &self.members {
            for (code, n) in sum_codes(blocks.iter().map(|c| &c.statuses)) {
                family.sample(&[pool, name, &code.to_string()], n);
            }
        }
        let checked = || self.members.iter().filter(|row| row.checked);
        let mut family = text.family(&names::MEMBER_CHANGES);
        for row in checked() {
            let [pool, name] = &row.labels;
            family.sample(&[pool, name], memory.flaps(row.handle));
        }
        let mut family = text.family(&names::MEMBER_UP);
        for row in checked() {
            let [pool, name] = &row.labels;
            family.sample(&[pool, name], u8::from(state.is_up(row.handle)));
        }
        self.ejections(text, state, memory);
    }

    fn ejections(&self, text: &mut Text, state: &State, memory: &Memory) {
        let mut family = text.family(&names::SERVES_ALL);
        for (_, pool) in state.pools().filter(|(_, pool)| pool.minimum_healthy > 0) {
            family.sample(&[&pool.name], u8::from(state.serves_all(pool)));
        }
        let watched = || self.members.iter().filter(|row| row.watched);
        let mut family = text.family(&names::EJECTED);
        for MemberRow { handle, labels: [pool, name], .. } in watched() {
            family.sample(&[pool, name], u8::from(state.is_ejected(*handle)));
        }
        let mut family = text.family(&names::EJECTIONS);
        for MemberRow { handle, labels: [pool, name], .. } in watched() {
            family.sample(&[pool, name], memory.ejections(*handle));
        }
    }
}

pub(super) fn sum<T>(blocks: &[Arc<T>], read: fn(&T) -> u64) -> u64 {
    blocks.iter().map(|block| read(block)).sum()
}

fn set<T>(place: &RwLock<Arc<T>>, value: Arc<T>) {
    *place.write().unwrap_or_else(PoisonError::into_inner) = value;
}

fn get<T>(place: &RwLock<Arc<T>>) -> Arc<T> {
    Arc::clone(&place.read().unwrap_or_else(PoisonError::into_inner))
}

pub(super) fn sum_codes<'a>(
    blocks: impl Iterator<Item = &'a StatusCounters>,
) -> BTreeMap<u16, u64> {
    let mut sums = BTreeMap::new();
    for (code, n) in blocks.flat_map(StatusCounters::seen) {
        *sums.entry(code).or_default() += n;
    }
    sums
}

/// A listener's label is its name; `balancer/name` where the name stands more than once.
fn listener_rows(state: &State, board: &Board) -> Vec<ListenerRow> {
    let once = unique(state.listeners().map(|(_, l)| l.name.as_str()));
    let label = |l: &Listener| match once.contains(l.name.as_str()) {
        true => l.name.clone(),
        false => format!("{}/{}", l.balancer, l.name),
    };
    let row = |(handle, listener): (Handle, &Arc<Listener>)| ListenerRow {
        handle,
        label: label(listener),
        layer7: listener.protocol.is_l7(),
        tls: listener.protocol == Protocol::Https,
        udp: listener.protocol.is_udp(),
        blocks: board.listener(handle).to_vec(),
    };
    state.listeners().map(row).collect()
}

/// A member's label is its name; its address where it has none or the pool has it more than once.
fn member_rows(state: &State, board: &Board) -> Vec<MemberRow> {
    let mut all = Vec::new();
    for (_, pool) in state.pools() {
        let once = unique(pool.members.iter().map(|m| m.name.as_str()));
        all.extend(pool.members.iter().map(|member| {
            let named = once.contains(member.name.as_str()) && !member.name.is_empty();
            let label = if named { member.name.clone() } else { member.address.to_string() };
            MemberRow {
                handle: member.handle,
                labels: [pool.name.clone(), label],
                checked: pool.is_checked(),
                watched: pool.outliers.is_some(),
                secured: pool.trust.is_some(),
                blocks: board.member(member.handle).to_vec(),
            }
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
