//! Pure: the UDP flow table of one listener on one shard. A flow is a client (its address, the
//! address it asked, and the door it came by) and a member, over one of the shared upstream
//! sockets. Datagrams of the client are found by the client, answers by socket and member. Knows no
//! socket and no clock; the shell calls it with both.
//!
//! Flows stand in one list in the order of their last use, so that the longest silent one is always
//! known: it expires first (R6.7-2, R6.7-3), and it makes room when the table is full. The two
//! indices hold places only, not what is looked for: that stands in the flows.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ahash::RandomState;
use hashbrown::HashTable;
use weir_core::time::clock::Mono;

use super::sockets::{SocketId, Sockets, sharing};
use crate::limits::EVICTION_REACH;

/// Whose flow it is, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The client's address and port.
    pub peer: SocketAddr,
    /// The address that it asked.
    pub local: IpAddr,
    /// The listening socket that it came by, for its port; numbers of the caller's.
    pub door: u32,
    /// Where the same client has connections at several members (QUIC), all but the first are
    /// flows of their own, each with what stands for its member; 0 = the first.
    pub branch: u32,
}

/// A flow's place, valid until the flow ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(u32);

/// A flow; `P` is what the caller keeps with it.
#[derive(Debug)]
pub struct Flow<P> {
    /// Whose it is.
    pub client: Client,
    /// Where its datagrams go.
    pub member: SocketAddr,
    /// Over which socket.
    pub socket: SocketId,
    /// When the last datagram came, from either side.
    pub used: Mono,
    /// The caller's.
    pub payload: P,
    newer: u32,
    older: u32,
}

impl<P> Flow<P> {
    /// A flow that stands in no table yet.
    #[must_use]
    pub fn new(
        client: Client,
        member: SocketAddr,
        socket: SocketId,
        used: Mono,
        payload: P,
    ) -> Flow<P> {
        Flow { client, member, socket, used, payload, newer: NONE, older: NONE }
    }
}

/// Places of flows by a key that the flows hold themselves.
#[derive(Debug, Default)]
struct Index {
    places: HashTable<u32>,
    hasher: RandomState,
}

impl Index {
    /// The place whose flow has this key, as `is_it` says.
    fn find<P>(
        &self,
        key: &impl Hash,
        flows: &[Option<Flow<P>>],
        is_it: impl Fn(&Flow<P>) -> bool,
    ) -> Option<u32> {
        let at = |&at: &u32| flows.get(at as usize)?.as_ref();
        let found =
            self.places.find(self.hasher.hash_one(key), |place| at(place).is_some_and(&is_it));
        found.copied()
    }

    /// Adds a place whose flow stands there already.
    fn insert<P, K: Hash>(
        &mut self,
        at: u32,
        flows: &[Option<Flow<P>>],
        key: impl Fn(&Flow<P>) -> K,
    ) {
        let hasher = &self.hasher;
        let hash = |&at: &u32| {
            let flow = flows.get(at as usize).and_then(Option::as_ref);
            flow.map(|flow| hasher.hash_one(key(flow))).unwrap_or_default()
        };
        self.places.insert_unique(hash(&at), at, hash);
    }

    /// Takes out the place of a flow that had this key.
    fn remove(&mut self, at: u32, key: &impl Hash) {
        let found = self.places.find_entry(self.hasher.hash_one(key), |&place| place == at);
        if let Ok(entry) = found {
            entry.remove();
        }
    }
}

/// What came of taking flows over.
#[derive(Debug)]
pub struct Adopted<P> {
    /// The sockets that carry some: the number that each had, and the one that it has here.
    pub sockets: Vec<(SocketId, SocketId)>,
    /// Flows for which there is no room, or whose client has one already.
    pub left: Vec<Flow<P>>,
}

/// What came of beginning a flow.
#[derive(Debug)]
pub enum Begun<P> {
    /// It is there; one that was silent longest may have made room for it.
    Flow(FlowId, Option<Flow<P>>),
    /// All sockets that it could have carry a flow already, and none of them has been silent for
    /// long. If the table was full, too, a flow has ended all the same.
    Full(P, Option<Flow<P>>),
}

/// No flow.
const NONE: u32 = u32::MAX;

/// The table.
#[derive(Debug)]
pub struct Table<P> {
    flows: Vec<Option<Flow<P>>>,
    free: Vec<u32>,
    by_client: Index,
    by_member: Index,
    sockets: Sockets,
    newest: u32,
    oldest: u32,
    most: usize,
    idle: Duration,
}

impl<P> Table<P> {
    /// A table without flows, for at most `most` of them, which end after `idle` of silence. They
    /// share at most `sockets` of each family, and so many more that carry one flow each.
    #[must_use]
    pub fn new(most: usize, sockets: u32, idle: Duration) -> Table<P> {
        Table {
            flows: Vec::new(),
            free: Vec::new(),
            by_client: Index::default(),
            by_member: Index::default(),
            sockets: Sockets::new(sockets),
            newest: NONE,
            oldest: NONE,
            most,
            idle,
        }
    }

    /// Flows that there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_client.places.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_client.places.is_empty()
    }

    /// From now on flows end after so long; also those that there are (R6.7-14).
    pub fn set_idle(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// The flow that a client's datagram belongs to; it counts as used.
    pub fn of_client(&mut self, client: &Client, now: Mono) -> Option<FlowId> {
        let at = self.by_client.find(client, &self.flows, |flow| flow.client == *client)?;
        self.touch(at, now);
        Some(FlowId(at))
    }

    /// The flow that a member's datagram belongs to; it counts as used. `None` for what nobody
    /// asked for.
    pub fn of_member(&mut self, socket: SocketId, from: SocketAddr, now: Mono) -> Option<FlowId> {
        let FlowId(at) = self.refused(socket, from)?;
        self.touch(at, now);
        Some(FlowId(at))
    }

    /// The flow that an error about a datagram to `member` is about.
    #[must_use]
    pub fn refused(&self, socket: SocketId, member: SocketAddr) -> Option<FlowId> {
        let is_it = |flow: &Flow<P>| (flow.socket, flow.member) == (socket, member);
        self.by_member.find(&(socket, member), &self.flows, is_it).map(FlowId)
    }

    /// A flow.
    #[must_use]
    pub fn get(&self, flow: FlowId) -> Option<&Flow<P>> {
        self.flows.get(flow.0 as usize)?.as_ref()
    }

    /// A flow, to change what the caller keeps with it.
    pub fn get_mut(&mut self, flow: FlowId) -> Option<&mut Flow<P>> {
        self.flows.get_mut(flow.0 as usize)?.as_mut()
    }

    /// The places of all flows by the sockets that carry them.
    #[must_use]
    pub fn by_socket(&self) -> Vec<(SocketId, FlowId)> {
        let entry = |(at, flow): (u32, &Option<Flow<P>>)| Some((flow.as_ref()?.socket, FlowId(at)));
        let mut all: Vec<_> = (0..).zip(&self.flows).filter_map(entry).collect();
        all.sort_unstable_by_key(|(socket, _)| *socket);
        all
    }

    /// All flows, to change what the caller keeps with them, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flow<P>> {
        self.flows.iter_mut().flatten()
    }

    /// All flows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Flow<P>> {
        self.flows.iter().flatten()
    }

    /// Flows over this socket; at 0 it can be closed.
    #[must_use]
    pub fn users(&self, socket: SocketId) -> u32 {
        self.sockets.users(socket)
    }

    /// Begins the flow of a client that has none, `alone` with a socket for itself.
    pub fn begin(
        &mut self,
        client: Client,
        member: SocketAddr,
        alone: bool,
        payload: P,
        now: Mono,
    ) -> Begun<P> {
        let mut evicted = None;
        if self.len() >= self.most {
            evicted = self.end(FlowId(self.oldest));
        }
        let mut socket = self.sockets.take(member, alone);
        if socket.is_none() && evicted.is_none() {
            evicted = self.oldest_like(sharing(member, alone)).and_then(|flow| self.end(flow));
            socket = self.sockets.take(member, alone);
        }
        let Some(socket) = socket else { return Begun::Full(payload, evicted) };
        let at = self.insert(Flow::new(client, member, socket, now, payload));
        self.link(at);
        Begun::Flow(FlowId(at), evicted)
    }

    /// Takes over flows of one other table, with the sockets that carry them, each of which gets a
    /// number that none has had here. Costs O(flows × log(flows)), with those that are there.
    pub fn adopt(&mut self, mut flows: Vec<Flow<P>>) -> Adopted<P> {
        let mut adopted = Adopted { sockets: Vec::new(), left: Vec::new() };
        flows.sort_by_key(|flow| flow.socket);
        for flow in flows {
            let known =
                self.by_client.find(&flow.client, &self.flows, |it| it.client == flow.client);
            let latest = adopted.sockets.last().filter(|(theirs, _)| *theirs == flow.socket);
            let socket = match latest {
                Some((_, ours)) => Some(*ours),
                None => self.sockets.unused(flow.socket.is_alone(), flow.socket.is_ipv6()),
            };
            let is_taken = |socket| self.refused(socket, flow.member).is_some();
            let socket = socket.filter(|&socket| !is_taken(socket));
            let Some(socket) = socket.filter(|_| known.is_none() && self.len() < self.most) else {
                adopted.left.push(flow);
                continue;
            };
            if latest.is_none() {
                adopted.sockets.push((flow.socket, socket));
            }
            self.sockets.assign(socket, flow.member);
            self.insert(Flow { socket, ..flow });
        }
        self.link_by_age();
        adopted
    }

    /// A flow that is in no list yet.
    fn insert(&mut self, flow: Flow<P>) -> u32 {
        let at = self.place(flow);
        self.by_client.insert(at, &self.flows, |flow| flow.client);
        self.by_member.insert(at, &self.flows, |flow| (flow.socket, flow.member));
        at
    }

    /// Makes the list anew.
    fn link_by_age(&mut self) {
        let age = |(at, flow): (u32, &Option<Flow<P>>)| Some((flow.as_ref()?.used, at));
        let mut places: Vec<(Mono, u32)> = (0..).zip(&self.flows).filter_map(age).collect();
        places.sort_unstable();
        (self.newest, self.oldest) = (NONE, NONE);
        places.into_iter().for_each(|(_, at)| self.link(at));
    }

    /// Ends a flow.
    pub fn end(&mut self, flow: FlowId) -> Option<Flow<P>> {
        if self.get(flow).is_some() {
            self.unlink(flow.0);
        }
        let ended = self.flows.get_mut(flow.0 as usize)?.take()?;
        self.free.push(flow.0);
        self.by_client.remove(flow.0, &ended.client);
        self.by_member.remove(flow.0, &(ended.socket, ended.member));
        self.sockets.give_back(ended.socket, ended.member);
        Some(ended)
    }

    /// Ends the longest silent flow, if it has been silent for too long.
    pub fn expire(&mut self, now: Mono) -> Option<Flow<P>> {
        self.end_silent(now, self.idle)
    }

    /// Ends the longest silent flow, if nothing has come for `least`.
    pub fn end_silent(&mut self, now: Mono, least: Duration) -> Option<Flow<P>> {
        let used = self.at(self.oldest)?.used;
        if now.since(used) < least {
            return None;
        }
        self.end(FlowId(self.oldest))
    }

    /// When the next flow expires if nothing comes until then.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Mono> {
        self.at(self.oldest).map(|flow| flow.used.plus(self.idle))
    }

    /// Ends the flows that `which` names. Costs O(flows).
    pub fn end_where(&mut self, which: impl Fn(&Flow<P>) -> bool) -> Vec<Flow<P>> {
        let named = |(at, flow): (u32, &Option<Flow<P>>)| {
            flow.as_ref().is_some_and(&which).then_some(FlowId(at))
        };
        let ids: Vec<FlowId> = (0..).zip(&self.flows).filter_map(named).collect();
        ids.into_iter().filter_map(|id| self.end(id)).collect()
    }

    fn at(&self, at: u32) -> Option<&Flow<P>> {
        self.flows.get(at as usize)?.as_ref()
    }

    fn at_mut(&mut self, at: u32) -> Option<&mut Flow<P>> {
        self.flows.get_mut(at as usize)?.as_mut()
    }

    /// No new flow over this socket; those that it carries go on.
    pub fn retire(&mut self, socket: SocketId) {
        self.sockets.retire(socket);
    }

    /// The longest silent flow that competes for the same sockets, and leaves one of use, if it is
    /// among the first few.
    fn oldest_like(&self, wanted: SocketAddr) -> Option<FlowId> {
        let mut at = self.oldest;
        for _ in 0..EVICTION_REACH {
            let flow = self.at(at)?;
            let competes = sharing(flow.member, flow.socket.is_alone()) == wanted;
            if competes && self.sockets.would_be_free(flow.socket) {
                return Some(FlowId(at));
            }
            at = flow.newer;
        }
        None
    }

    fn place(&mut self, flow: Flow<P>) -> u32 {
        match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.flows.get_mut(at as usize) {
                    *place = Some(flow);
                }
                at
            }
            None => {
                self.flows.push(Some(flow));
                self.flows.len() as u32 - 1
            }
        }
    }

    fn touch(&mut self, at: u32, now: Mono) {
        if at != self.newest {
            self.unlink(at);
            self.link(at);
        }
        if let Some(flow) = self.at_mut(at) {
            flow.used = now;
        }
    }

    /// Makes it the newest.
    fn link(&mut self, at: u32) {
        let former = std::mem::replace(&mut self.newest, at);
        if let Some(flow) = self.at_mut(at) {
            (flow.newer, flow.older) = (NONE, former);
        }
        match self.at_mut(former) {
            Some(flow) => flow.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(&Flow { newer, older, .. }) = self.at(at) else { return };
        match self.at_mut(newer) {
            Some(flow) => flow.older = older,
            None => self.newest = older,
        }
        match self.at_mut(older) {
            Some(flow) => flow.newer = newer,
            None => self.oldest = newer,
        }
    }
}
