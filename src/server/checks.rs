//! The start-up checks: does this host give what Weir needs? Kernel and ring are judged by
//! `core::rt`; this file adds the descriptor limit and turns all findings into one answer.

use anyhow::{Result, anyhow, bail};
use weir_core::limits::PIPES;
use weir_core::model::{Config, Listener, PortRange};
use weir_core::net::sys::{self, Limit};
use weir_core::rt;
use weir_health::limits::MAX_PROBES;

/// Descriptors that a process holds before any shard: stdio, admin listener, its poller, control;
/// and while it is replaced, the other end of the new process.
const PROCESS_FDS: u64 = 24;
/// Descriptors of one shard beside its listeners: rings, eventfds, mailbox; and its pipes.
const SHARD_FDS: u64 = 16 + 2 * PIPES as u64;
/// A listening socket, the spare descriptor that it keeps for when there is none, and the copy
/// that is handed to a new process.
const LISTENER_FDS: u64 = 3;
/// A proxied connection: one descriptor towards the client, one towards the member.
const CONNECTION_FDS: u64 = 2;
/// Of all descriptors health checks get one in so many at most; a probe takes one.
const PROBES_SHARE: u64 = 4;
/// Fewer connections than this are no load balancer: starting fails.
const MIN_CONNECTIONS: u64 = 64;
/// How to raise the limit of descriptors.
const RAISE: &str = "LimitNOFILE=1048576 in the systemd unit, ulimit -n 1048576 in the shell that \
                     starts Weir (as root where ulimit -Hn says less), --ulimit nofile=1048576 for \
                     a container";
/// Fewer connections than this get a warning.
const FEW_CONNECTIONS: u64 = 4_096;

/// Checks the host before anything is bound; logs what was found and raises the soft
/// RLIMIT_NOFILE to the hard one.
///
/// # Errors
/// Everything that is missing, at once, each with what, why and the cure.
pub fn host() -> Result<()> {
    let report = rt::probe();
    for line in &report.found {
        tracing::info!("{line}");
    }
    for line in &report.warnings {
        tracing::warn!("{line}");
    }
    if !report.errors.is_empty() {
        bail!("this host cannot run Weir:\n  {}", report.errors.join("\n  "));
    }
    Ok(())
}

/// Raises the descriptor limit and checks it against what `shards` shards with `listeners`
/// listening sockets each need, and the checks of so many members.
///
/// # Errors
/// When fewer than 64 connections would fit; with the sum and the cure.
pub fn descriptors(shards: usize, listeners: usize, checked: usize) -> Result<()> {
    let limit = sys::raise_nofile()
        .or_else(|_| sys::nofile())
        .map_err(|e| anyhow!("cannot read RLIMIT_NOFILE: {e}"))?;
    let need = Need::of(shards, listeners, checked, limit);
    let room = need.connections_within(limit);
    if room < MIN_CONNECTIONS {
        bail!("{}", need.refusal(limit));
    }
    if room < FEW_CONNECTIONS {
        tracing::warn!("{}", need.warning(limit));
    } else {
        tracing::info!("{}; room for {room} connections", need.sum(limit));
    }
    Ok(())
}

/// Client connections that the process may have: what `[runtime] max_connections` says, else what
/// RLIMIT_NOFILE leaves room for on `shards` shards, two descriptors each.
pub fn max_connections(config: &Config, shards: usize) -> u32 {
    let wanted = config.runtime.max_connections;
    let room = || {
        let limit = sys::nofile().ok()?;
        let need = Need::of(shards, addresses(config), checked_members(config), limit);
        Some(need.connections_within(limit).max(MIN_CONNECTIONS))
    };
    let limit = if wanted > 0 { wanted } else { room().unwrap_or_default() };
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// Listening sockets that one shard holds.
pub fn addresses(config: &Config) -> usize {
    let vips = |balancer: usize| config.balancers.get(balancer).map_or(0, |b| b.vip_address.len());
    let ports = |listener: &Listener| {
        let range = |range: &PortRange| usize::from(range.last - range.first) + 1;
        listener.port_ranges.iter().map(range).sum::<usize>().max(1)
    };
    config.listeners.iter().map(|listener| vips(listener.balancer) * ports(listener)).sum()
}

/// Members that have health checks.
pub fn checked_members(config: &Config) -> usize {
    let checked = config.pools.iter().filter(|pool| pool.monitor.is_some());
    checked.map(|pool| pool.members.len()).sum()
}

/// Health checks that may run at once, so that clients and checks leave each other descriptors.
pub fn probes_at_once() -> usize {
    let soft = sys::nofile().map_or(0, |limit| limit.soft);
    usize::try_from(soft / PROBES_SHARE).unwrap_or(usize::MAX)
}

/// The descriptors that are needed before the first connection.
#[derive(Clone, Copy, Debug)]
struct Need {
    shards: u64,
    listeners: u64,
    probes: u64,
}

impl Need {
    fn of(shards: usize, listeners: usize, checked: usize, limit: Limit) -> Need {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let probes = wide(checked.min(MAX_PROBES)).min(limit.soft / PROBES_SHARE);
        Need { shards: wide(shards), listeners: wide(listeners), probes }
    }

    fn fixed(self) -> u64 {
        let per_shard = SHARD_FDS.saturating_add(self.listeners.saturating_mul(LISTENER_FDS));
        let shards = self.shards.saturating_mul(per_shard);
        shards.saturating_add(PROCESS_FDS).saturating_add(self.probes)
    }

    fn connections_within(self, limit: Limit) -> u64 {
        limit.soft.saturating_sub(self.fixed()) / CONNECTION_FDS
    }

    fn sum(self, limit: Limit) -> String {
        format!(
            "descriptors: {} of {} are taken by {} with {} each, and {} at once",
            self.fixed(),
            limit.soft,
            count(self.shards, "shard"),
            count(self.listeners, "listening socket"),
            count(self.probes, "health check")
        )
    }

    /// So many descriptors leave room for that many connections.
    fn enough_for(self, connections: u64) -> u64 {
        self.fixed().saturating_add(connections * CONNECTION_FDS)
    }

    fn refusal(self, limit: Limit) -> String {
        format!(
            "{}, which leaves room for {} connections, two descriptors each; with fewer than \
             {MIN_CONNECTIONS} Weir does not start. Raise the limit to at least {} ({} is enough \
             for {FEW_CONNECTIONS}): {RAISE}",
            self.sum(limit),
            self.connections_within(limit),
            self.enough_for(MIN_CONNECTIONS),
            self.enough_for(FEW_CONNECTIONS),
        )
    }

    fn warning(self, limit: Limit) -> String {
        format!(
            "{}; that leaves room for {} connections, two descriptors each. Raise the limit to \
             at least {}: {RAISE}",
            self.sum(limit),
            self.connections_within(limit),
            self.enough_for(FEW_CONNECTIONS),
        )
    }
}

fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(soft: u64) -> Limit {
        Limit { soft, hard: soft }
    }

    #[test]
    fn the_sum_counts_shards_listeners_and_connections() {
        let need = Need::of(2, 3, 0, at(1_000));
        assert_eq!(need.fixed(), PROCESS_FDS + 2 * (SHARD_FDS + 9));
        assert_eq!(need.connections_within(at(need.fixed())), 0);
        assert_eq!(need.connections_within(at(need.fixed() + 201)), 100);
        assert_eq!(need.connections_within(at(0)), 0);
    }

    /// Clients may not take what health checks need: a check that can't be made is no verdict, so
    /// members that die would go on getting requests.
    #[test]
    fn checks_have_descriptors_of_their_own() {
        let fixed = |checked, soft| {
            let with = Need::of(2, 3, checked, at(soft)).fixed();
            with - Need::of(2, 3, 0, at(soft)).fixed()
        };
        assert_eq!(fixed(10, 20_000), 10);
        assert_eq!(fixed(10_000, 10_000), 2_500, "a quarter of all");
        assert_eq!(fixed(10_000, 1_048_576), MAX_PROBES as u64);
        let config = Config { pools: vec![weir_core::model::Pool::default()], ..Config::default() };
        assert_eq!(checked_members(&config), 0);
        assert!(probes_at_once() > 0);
    }

    #[test]
    fn the_complaint_names_sum_and_cure() {
        let refused = Need::of(2, 1, 0, at(256)).refusal(at(256));
        for words in ["fewer than 64 Weir does not start", "at least 318 (8382 is enough"] {
            assert!(refused.contains(words), "{refused}");
        }
        let text = Need::of(2, 1, 0, at(256)).warning(at(256));
        assert!(text.contains("190 of 256"), "{text}");
        assert!(text.contains("room for 33 connections"), "{text}");
        assert!(text.contains("at least 8382") && text.contains("LimitNOFILE"), "{text}");
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let need = Need::of(usize::MAX, usize::MAX, usize::MAX, at(u64::MAX));
        assert_eq!(need.connections_within(at(u64::MAX)), 0);
        assert!(descriptors(usize::MAX, usize::MAX, usize::MAX).is_err());
    }
}
