//! The state itself: a value with a version, how it follows from a configuration, and the
//! difference between two.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::access::Sets;
use super::trust::Trusts;
use super::{
    Access, Change, Connections, Diff, Headers, Limits, Listener, Log, Member, Passthrough, Pool,
    Retry, Routes, Stickiness, Timeouts, Tls, Tunnel, routes,
};
use crate::cert::Store;
use crate::model::{
    self, Algorithm, Balancer, Config, Flavor, Handle, Handles, Id, PoolProtocol, Protocol,
    TcpKeepalive,
};
use crate::pool::Ring;
use crate::pool::sticky::Secret;

/// What the balancer is to do. Cheap to clone: objects are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) version: u64,
    listeners: BTreeMap<Handle, Arc<Listener>>,
    pub(super) pools: BTreeMap<Handle, Arc<Pool>>,
    /// Members that checks have found down, or not yet up (C36).
    down: BTreeSet<Handle>,
    /// Members that are left out for a while, since they failed what clients asked.
    pub(super) ejected: BTreeSet<Handle>,
    /// What the keys of sticky pools follow from; the same in all states of a process.
    secret: Secret,
    keepalive: TcpKeepalive,
}

impl State {
    /// The empty state of a process with this secret.
    #[must_use]
    pub fn with_secret(secret: Secret) -> State {
        State { secret, ..State::default() }
    }

    /// Its version: 0 is the empty state, each change adds one.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// TCP keep-alive of both sides (R11.1-2).
    #[must_use]
    pub fn keepalive(&self) -> TcpKeepalive {
        self.keepalive
    }

    /// All listeners.
    pub fn listeners(&self) -> impl Iterator<Item = (Handle, &Arc<Listener>)> {
        self.listeners.iter().map(|(handle, listener)| (*handle, listener))
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = (Handle, &Arc<Pool>)> {
        self.pools.iter().map(|(handle, pool)| (*handle, pool))
    }

    /// A listener, if it is there.
    #[must_use]
    pub fn listener(&self, handle: Handle) -> Option<&Arc<Listener>> {
        self.listeners.get(&handle)
    }

    /// A pool, if it is there.
    #[must_use]
    pub fn pool(&self, handle: Handle) -> Option<&Arc<Pool>> {
        self.pools.get(&handle)
    }

    /// All members with their pools.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<Pool>, &Member)> {
        self.pools.values().flat_map(|pool| pool.members.iter().map(move |member| (pool, member)))
    }

    /// Do its checks find this member well, or has it none?
    #[must_use]
    pub fn is_up(&self, member: Handle) -> bool {
        !self.down.contains(&member)
    }

    /// Notes verdicts of the health checks; members that are gone meanwhile are passed over.
    /// `true` and the next version when that changed anything.
    pub fn set_health(&mut self, verdicts: impl IntoIterator<Item = (Handle, bool)>) -> bool {
        let checked = self.checked_members();
        let mut changed = false;
        for (member, up) in verdicts {
            if checked.contains(&member) {
                changed |= if up { self.down.remove(&member) } else { self.down.insert(member) };
            }
        }
        self.version += u64::from(changed);
        changed
    }

    /// Has a listener's session ticket key sealed for long enough at `now` (seconds since 1970)?
    #[must_use]
    pub fn tickets_are_due(&self, now: u64) -> bool {
        let tickets = self.listeners.values().filter_map(|listener| listener.tls.as_ref());
        tickets.into_iter().any(|tls| tls.tickets().are_due(now))
    }

    /// Gives listeners the next session ticket keys whose own have sealed for long enough at `now`
    /// (seconds since 1970). `true` and the next version when there were any.
    pub fn rotate_tickets(&mut self, now: u64) -> bool {
        let mut changed = false;
        for listener in self.listeners.values_mut() {
            if let Some(tls) = listener.tls.as_ref().and_then(|tls| tls.rotated(now)) {
                *listener = Arc::new(Listener { tls: Some(tls), ..(**listener).clone() });
                changed = true;
            }
        }
        self.version += u64::from(changed);
        changed
    }

    /// As [`next_with`](State::next_with), for a configuration without certificates.
    #[must_use]
    pub fn next(
        &self,
        config: &Config,
        shards_of: &dyn Fn(usize) -> Vec<usize>,
        handles: &mut Handles,
    ) -> State {
        self.next_with(config, &Store::default(), shards_of, handles)
    }

    /// The state that `config` asks for, with the next version. `certificates` are what its own
    /// hold. Objects that were there before keep
    /// their handles and, where nothing about them changed, are the very same. `shards_of` names
    /// the shards that serve a balancer (by its index), ascending.
    ///
    /// Identity: by id if given; else a listener by balancer, transport, addresses and port (with
    /// port 0: by name), a member by address and port, a pool by name. A change of what is fixed
    /// at creation (protocol, port, flavour) makes a new object.
    ///
    /// Health: a member that was checked before keeps its state. Under checks that begin, one that
    /// served before without them counts as up until they find otherwise, a new one as down until
    /// its first success (R7.10-1, C36).
    #[must_use]
    pub fn next_with(
        &self,
        config: &Config,
        certificates: &Store,
        shards_of: &dyn Fn(usize) -> Vec<usize>,
        handles: &mut Handles,
    ) -> State {
        let (version, keepalive) = (self.version + 1, config.runtime.tcp_keepalive);
        let mut next = State { version, keepalive, secret: self.secret, ..State::default() };
        let users = users_of_pools(config);
        let old: HashMap<PoolKey<'_>, Handle> =
            self.pools.iter().map(|(handle, pool)| (PoolKey::of(pool), *handle)).collect();
        let mut pools = Vec::with_capacity(config.pools.len());
        for (index, pool) in config.pools.iter().enumerate() {
            let found = old.get(&PoolKey::of_model(pool)).copied();
            let former = found.and_then(|handle| self.pools.get(&handle));
            let handle = found.unwrap_or_else(|| handles.fresh());
            let (attached, sources) = match users.get(&index) {
                Some(&balancer) => (true, sources_of(config, balancer)),
                None => (false, Arc::default()),
            };
            let resolved = {
                let resolved = resolve_pool(pool, certificates, former, handles, &self.secret);
                Pool { attached, sources, ..resolved }
            };
            self.carry_health(former, &resolved, &mut next.down);
            next.ejected.extend(self.ejected_of(&resolved));
            next.pools.insert(handle, unless_same(former, resolved));
            pools.push(handle);
        }
        let old: HashMap<ListenerKey, Handle> =
            self.listeners.iter().map(|(handle, l)| (ListenerKey::of(l), *handle)).collect();
        let mut sets = Sets::after(self.listeners.values());
        let mut policies = routes::by_listener(config);
        for (index, listener) in config.listeners.iter().enumerate() {
            let access = sets.access(listener, config);
            let headers = Headers::of(listener, config, &sets);
            let mut resolved = Listener {
                access,
                headers,
                ..resolve_listener(listener, config, &pools, shards_of)
            };
            let found = old.get(&ListenerKey::of(&resolved)).copied();
            let former = found.and_then(|handle| self.listeners.get(&handle));
            let mine = policies.remove(&index).unwrap_or_default();
            let before = former.map(|former| &former.routes);
            resolved.tls = Tls::of(listener, certificates, former);
            resolved.routes = Routes::next(before, &mine, config, &pools);
            let handle = found.unwrap_or_else(|| handles.fresh());
            next.listeners.insert(handle, unless_same(former, resolved));
        }
        next
    }

    fn carry_health(&self, former: Option<&Arc<Pool>>, pool: &Pool, down: &mut BTreeSet<Handle>) {
        if !pool.is_checked() {
            return;
        }
        let served: HashSet<Handle> = (former.filter(|former| former.attached))
            .map(|former| former.members.iter().map(|member| member.handle).collect())
            .unwrap_or_default();
        for member in &pool.members {
            if !served.contains(&member.handle) || self.down.contains(&member.handle) {
                down.insert(member.handle);
            }
        }
    }

    /// The same with the version after `former`'s, for one that was worked out a while ago.
    #[must_use]
    pub fn following(self, former: &State) -> State {
        State { version: former.version + 1, ..self }
    }

    /// Members that are to be probed.
    #[must_use]
    pub fn checked_members(&self) -> BTreeSet<Handle> {
        let pools = self.pools.values().filter(|pool| pool.is_checked());
        pools.flat_map(|pool| pool.members.iter().map(|member| member.handle)).collect()
    }

    /// Members of pools that would serve if only their members were up: a listener that turns to
    /// such a pool answers 503.
    #[must_use]
    pub fn members_of_dead_pools(&self) -> BTreeSet<Handle> {
        let dead = |pool: &&Arc<Pool>| {
            let mut weighed = pool.members.iter().filter(|member| member.weight > 0).peekable();
            pool.is_checked() && weighed.peek().is_some() && weighed.all(|m| !self.is_up(m.handle))
        };
        let pools = self.pools.values().filter(dead);
        pools.flat_map(|pool| pool.members.iter().map(|member| member.handle)).collect()
    }

    /// What leads from this state to `to`.
    #[must_use]
    pub fn diff(&self, to: &State) -> Diff {
        let mut changes = Vec::new();
        for (handle, pool) in &to.pools {
            if !same(self.pools.get(handle), pool) {
                changes.push(Change::Pool(*handle, Arc::clone(pool)));
            }
        }
        let gone = self.pools.keys().filter(|handle| !to.pools.contains_key(handle));
        changes.extend(gone.map(|&handle| Change::DropPool(handle)));
        let health = |up| move |&member: &Handle| Change::Health { member, up };
        changes.extend(self.down.difference(&to.down).map(health(true)));
        changes.extend(to.down.difference(&self.down).map(health(false)));
        changes.extend(self.ejections_to(to));
        for (handle, listener) in &to.listeners {
            if !same(self.listeners.get(handle), listener) {
                changes.push(Change::Listener(*handle, Arc::clone(listener)));
            }
        }
        if self.keepalive != to.keepalive {
            changes.push(Change::Keepalive(to.keepalive));
        }
        let gone = self.listeners.keys().filter(|handle| !to.listeners.contains_key(handle));
        changes.extend(gone.map(|&handle| Change::DropListener(handle)));
        Diff { from: self.version, to: to.version, changes }
    }

    /// Goes the way of `diff`.
    pub fn apply(&mut self, diff: &Diff) {
        for change in &diff.changes {
            match change {
                Change::Pool(handle, pool) => {
                    self.pools.insert(*handle, Arc::clone(pool));
                }
                Change::Listener(handle, listener) => {
                    self.listeners.insert(*handle, Arc::clone(listener));
                }
                Change::Health { member, up: true } => {
                    self.down.remove(member);
                }
                Change::Health { member, up: false } => {
                    self.down.insert(*member);
                }
                Change::Ejected { member, out: true } => {
                    self.ejected.insert(*member);
                }
                Change::Ejected { member, out: false } => {
                    self.ejected.remove(member);
                }
                Change::DropListener(handle) => {
                    self.listeners.remove(handle);
                }
                Change::DropPool(handle) => {
                    self.pools.remove(handle);
                }
                Change::Keepalive(times) => self.keepalive = *times,
            }
        }
        self.version = diff.to;
    }
}

/// The pools that a listener uses, by default or by policy, each with a balancer that it is used
/// on.
fn users_of_pools(config: &Config) -> HashMap<usize, usize> {
    let default = |listener: &model::Listener| Some((listener.default_pool?, listener.balancer));
    let mut users: HashMap<usize, usize> = config.listeners.iter().filter_map(default).collect();
    for policy in &config.policies {
        if let model::Action::Pools(pools) = &policy.action {
            let balancer = config.listeners.get(policy.listener).map_or(0, |l| l.balancer);
            users.extend(pools.iter().map(|(pool, _)| (*pool, balancer)));
        }
    }
    users
}

/// A balancer's own addresses towards members, or those of the process (R2.1-10, R2.1-11).
fn sources_of(config: &Config, balancer: usize) -> Arc<[IpAddr]> {
    let own = config.balancers.get(balancer).map(|balancer| &balancer.source_addresses);
    let own = own.filter(|list| !list.is_empty());
    own.unwrap_or(&config.runtime.source_addresses).as_slice().into()
}

fn same<T: PartialEq>(former: Option<&Arc<T>>, now: &Arc<T>) -> bool {
    former.is_some_and(|former| Arc::ptr_eq(former, now) || former == now)
}

fn unless_same<T: PartialEq>(former: Option<&Arc<T>>, now: T) -> Arc<T> {
    match former {
        Some(former) if **former == now => Arc::clone(former),
        _ => Arc::new(now),
    }
}

fn resolve_pool(
    pool: &model::Pool,
    certificates: &Store,
    former: Option<&Arc<Pool>>,
    handles: &mut Handles,
    secret: &Secret,
) -> Pool {
    let former_members = former.map(|former| former.members.as_slice()).unwrap_or_default();
    let former_name = former.map_or("", |former| &former.name);
    let old: HashMap<MemberKey, Handle> = former_members
        .iter()
        .map(|m| (MemberKey::of(m.id, former_name, &m.name, m.address), m.handle))
        .collect();
    let member = |m: &model::Member| Member {
        handle: old
            .get(&MemberKey::of(m.id, &pool.name, &m.name, m.address))
            .copied()
            .unwrap_or_else(|| handles.fresh()),
        id: m.id,
        name: m.name.clone(),
        address: m.address,
        weight: m.weight,
    };
    let mut members: Vec<Member> = pool.members.iter().map(member).collect();
    let trusts = Trusts::of(pool, certificates, former).unwrap_or_else(|error| {
        // Nothing may go to them in clear text that is to be inside TLS.
        tracing::error!("pool {}: no TLS, so no member gets anything: {error}", pool.name);
        members.clear();
        Trusts::default()
    });
    Pool {
        ring: ring(pool, former),
        stickiness: Stickiness::of(pool, &members, former, secret),
        connections: Connections::of(pool, &members, former, secret),
        members,
        id: pool.id,
        name: pool.name.clone(),
        protocol: pool.protocol,
        algorithm: pool.algorithm,
        slow_start: pool.slow_start,
        persistence: pool.persistence.clone(),
        drain: pool.drain,
        proxy_header: pool.proxy_protocol,
        trust: trusts.requests,
        check_trust: trusts.checks,
        monitor: pool.monitor.clone().map(Arc::new),
        minimum_healthy: pool.minimum_healthy_member_count,
        outliers: Some(pool.outlier_detection).filter(|rules| rules.enable),
        attached: false,
        sources: Arc::default(),
    }
}

/// The ring that the algorithm asks for; the former one where its members are the same.
fn ring(pool: &model::Pool, former: Option<&Arc<Pool>>) -> Option<Arc<Ring>> {
    if !matches!(pool.algorithm, Algorithm::SourceIp | Algorithm::QuicCid) {
        return None;
    }
    let keys = || pool.members.iter().map(|member| member.id.as_u128());
    match former.and_then(|former| former.ring.as_ref()) {
        Some(ring) if ring.is_over(keys()) => Some(Arc::clone(ring)),
        _ => Some(Arc::new(Ring::new(keys()))),
    }
}

fn resolve_listener(
    listener: &model::Listener,
    config: &Config,
    pools: &[Handle],
    shards_of: &dyn Fn(usize) -> Vec<usize>,
) -> Listener {
    let balancer = config.balancers.get(listener.balancer);
    let addresses = balancer.map(|b| b.vip_address.as_slice()).unwrap_or_default();
    Listener {
        id: listener.id,
        name: listener.name.clone(),
        balancer: balancer.map(|b: &Balancer| b.name.clone()).unwrap_or_default(),
        flavor: balancer.map(|b| b.flavor).unwrap_or_default(),
        protocol: listener.protocol,
        bind: addresses
            .iter()
            .flat_map(|&ip| ports(listener).map(move |p| (ip, p).into()))
            .collect(),
        shards: shards_of(listener.balancer),
        pool: listener.default_pool.and_then(|index| pools.get(index)).copied(),
        timeouts: Timeouts::of(listener),
        limits: Limits::of(listener),
        retry: Retry::of(listener),
        tunnel: Tunnel::of(listener),
        log: Log::of(listener, config),
        routes: Routes::default(),
        tls: None,
        access: Access::default(),
        headers: Headers::default(),
        passthrough: Passthrough::of(listener, balancer),
    }
}

/// The ports of a listener, ascending within each range.
fn ports(listener: &model::Listener) -> impl Iterator<Item = u16> {
    let one = listener.port_ranges.is_empty().then_some(listener.protocol_port);
    one.into_iter().chain(listener.port_ranges.iter().flat_map(|range| range.first..=range.last))
}

/// An id that the file gives, as against one that follows from the name.
fn given(id: Id, kind: &str, balancer: &str, name: &str) -> Option<Id> {
    (id != model::derive_id(kind, balancer, name)).then_some(id)
}

/// What makes a pool the same over a reload.
#[derive(PartialEq, Eq, Hash)]
struct PoolKey<'a> {
    id: Option<Id>,
    /// Empty when there is an id.
    name: &'a str,
    protocol: PoolProtocol,
}

impl<'a> PoolKey<'a> {
    fn of(pool: &'a Pool) -> PoolKey<'a> {
        PoolKey::new(pool.id, &pool.name, pool.protocol)
    }

    fn of_model(pool: &'a model::Pool) -> PoolKey<'a> {
        PoolKey::new(pool.id, &pool.name, pool.protocol)
    }

    fn new(id: Id, name: &'a str, protocol: PoolProtocol) -> PoolKey<'a> {
        let id = given(id, "pool", "", name);
        PoolKey { id, name: if id.is_some() { "" } else { name }, protocol }
    }
}

/// What makes a member the same over a reload of its pool. Its address is always part of it: an id
/// at a new address is a new member, since connections lead to the old one.
#[derive(PartialEq, Eq, Hash)]
struct MemberKey {
    id: Option<Id>,
    address: SocketAddr,
}

impl MemberKey {
    fn of(id: Id, pool: &str, name: &str, address: SocketAddr) -> MemberKey {
        MemberKey { id: given(id, "member", "", &format!("{pool}\n{name}")), address }
    }
}

/// What makes a listener the same over a reload.
#[derive(PartialEq, Eq, Hash)]
struct ListenerKey {
    id: Option<Id>,
    balancer: String,
    flavor: Flavor,
    protocol: Protocol,
    bind: Vec<SocketAddr>,
    /// Tells listeners on free ports apart; else empty.
    name: String,
}

impl ListenerKey {
    fn of(listener: &Listener) -> ListenerKey {
        let id = given(listener.id, "listener", &listener.balancer, &listener.name);
        let any_port = listener.bind.iter().all(|address| address.port() == 0);
        let name = if any_port && id.is_none() { listener.name.clone() } else { String::new() };
        ListenerKey {
            id,
            balancer: listener.balancer.clone(),
            flavor: listener.flavor,
            protocol: listener.protocol,
            bind: listener.bind.clone(),
            name,
        }
    }
}
