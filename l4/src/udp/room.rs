//! One UDP listener on one shard: its flows, the upstream sockets that they share, its doors.
//! Owns the sockets' tasks; what a flow is, and which one a datagram belongs to, is the table's
//! business, which member it goes to `choice`'s.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use weir_core::model::ProxyHeader;
use weir_core::net::relay::Moved;
use weir_core::net::source;
use weir_core::obs::{DatagramDrop, Ending, Sticky};
use weir_core::proxy;
use weir_core::rt::{
    self, Arrival, Datagram, Payload, Refusal, SendBuf, Shortage, TaskHandle, UdpOptions, UdpSocket,
};
use weir_core::table::{Member, Pool, Site, Ticket};
use weir_core::time::clock::Mono;

use super::leaving::Leaving;
use super::table::{Begun, Client, Flow, FlowId, Table};
use super::{BySocket, SocketId};
use crate::choice::{Choice, choose_by_id, header_for, is_own_client};
use crate::limits::{DRAIN_IDLE, FLOW_SOCKETS, FLOWS, GIVES_WAY_AFTER, SOCKET_REST};
use crate::quic::{self, Aim, Ids};
use crate::record::{Packets, Record};

/// What is kept with a flow.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) choice: Choice,
    /// Of a QUIC pool's flow.
    pub(super) ids: Option<Box<Ids>>,
    pub(super) pool: Rc<Pool>,
    pub(super) _ticket: Ticket,
    pub(super) begun: Mono,
    pub(super) moved: Moved,
    pub(super) packets: Packets,
    /// A datagram has gone to the member, and with it what it is told of the client.
    pub(super) told: bool,
    /// The member has answered.
    pub(super) answered: bool,
    /// Another process goes on with it, once that serves.
    pub(super) passed: bool,
    /// Another process had it, and goes on with it should this one not serve.
    pub(super) adopted: bool,
}

/// What the connection log says of a flow.
pub(super) struct Ended<'a> {
    pub(super) source: SocketAddr,
    pub(super) member: Option<&'a Member>,
    pub(super) pool: Option<&'a Pool>,
    pub(super) begun: Mono,
    pub(super) moved: Moved,
    pub(super) packets: Packets,
    pub(super) sticky: Sticky,
}

/// A socket and the task that receives from it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) socket: Rc<UdpSocket>,
    task: TaskHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A listener's flows on this shard.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) site: Rc<Site>,
    pub(super) flows: RefCell<Table<Kept>>,
    pub(super) doors: RefCell<HashMap<u32, Open>>,
    pub(super) upstream: RefCell<BySocket<Option<Open>>>,
    leaving: RefCell<Leaving>,
    /// The task that ends flows when their time comes.
    pub(super) reaper: Cell<Option<TaskHandle>>,
    draining: Cell<bool>,
    /// Nothing is received, since another process is to go on with the flows.
    pub(super) held: Cell<bool>,
}

impl Room {
    pub(super) fn new(site: Rc<Site>) -> Rc<Room> {
        let flows = RefCell::new(Table::new(FLOWS, FLOW_SOCKETS, site.keepalive_timeout()));
        Rc::new(Room {
            site,
            flows,
            doors: RefCell::default(),
            upstream: RefCell::default(),
            leaving: RefCell::default(),
            reaper: Cell::new(None),
            draining: Cell::new(false),
            held: Cell::new(false),
        })
    }

    /// Serves clients that come by `socket`.
    pub(super) fn open(self: &Rc<Self>, door: u32, socket: Rc<UdpSocket>) {
        let (room, own) = (Rc::clone(self), Rc::clone(&socket));
        let task = rt::spawn(async move {
            loop {
                match own.recv().await {
                    Ok(Arrival::Datagram(got)) => room.client_says(door, got),
                    Ok(Arrival::Refused(_)) => {}
                    Err(error) => rest(&error).await,
                }
            }
        });
        self.doors.borrow_mut().insert(door, Open { socket, task });
    }

    /// Serves nobody by this door any more; the flows that came by it end.
    pub(super) fn close(&self, door: u32) {
        let open = self.doors.borrow_mut().remove(&door);
        drop(open);
        self.end_where(|flow| flow.client.door == door, Ending::Deleted);
    }

    /// Flows that there are.
    pub(super) fn flows(&self) -> usize {
        self.flows.borrow().len()
    }

    /// Ends everything at once (R6.3-1).
    pub(super) fn stop(&self, ending: Ending) {
        self.doors.borrow_mut().clear();
        self.end_where(|_| true, ending);
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
    }

    /// No new flows; those that there are end when they have been silent for a moment.
    pub(super) fn begin_drain(self: &Rc<Self>) {
        self.draining.set(true);
        self.follow(rt::now());
    }

    /// The tables have changed: idle times, and members that leave.
    pub(super) fn follow(self: &Rc<Self>, now: Mono) {
        self.retire_sources();
        let idle = self.site.keepalive_timeout();
        let idle = if self.draining.get() { idle.min(DRAIN_IDLE) } else { idle };
        self.flows.borrow_mut().set_idle(idle);
        self.note_leaving(now);
        // The reaper may sleep for longer than it should now.
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
        self.reap();
    }

    /// Sockets with an address of ours that may not be used towards members any more get no new
    /// flow.
    fn retire_sources(&self) {
        let Some(pool) = self.site.pool() else { return };
        let mut flows = self.flows.borrow_mut();
        for (id, open) in self.upstream.borrow().iter() {
            let own = open.as_ref().and_then(|open| open.socket.local_addr().ok());
            if !id.is_alone() && own.is_some_and(|own| !pool.allows_source(own.ip())) {
                flows.retire(id);
            }
        }
    }

    /// Takes note of members that leave. What their flows go by is the pool that they were chosen
    /// from, whichever the listener has now.
    fn note_leaving(&self, now: Mono) {
        let flows = self.flows.borrow();
        let members = flows.iter().filter_map(|flow| {
            let member = flow.payload.choice.held.member();
            let drain = flow.payload.pool.drain();
            let drain = drain.enable.then_some(drain.timeout);
            member.is_leaving().then_some((member.handle, drain))
        });
        self.leaving.borrow_mut().note(now, members);
    }

    fn client_says(self: &Rc<Self>, door: u32, got: Datagram) {
        let counters = &self.site.counters;
        counters.datagrams.received.add(1);
        counters.bytes_received.add(got.data.len() as u64);
        if got.truncated {
            return counters.datagrams.drop(DatagramDrop::Truncated);
        }
        let client = Client { peer: got.peer, local: got.local, door, branch: 0 };
        let now = rt::now();
        let Some(aim) = self.aim(&got.data) else {
            return counters.datagrams.drop(DatagramDrop::NotQuic);
        };
        let Some(flow) = self.flow_of(client, aim, now) else { return };
        let mut flows = self.flows.borrow_mut();
        let Some(flow) = flows.get_mut(flow) else { return };
        let bytes = got.data.len() as u64;
        if let Some(ids) = &mut flow.payload.ids {
            let member = flow.payload.choice.held.member().handle;
            let session = ids.session(aim);
            ids.client_says(session, member, self.site.keepalive_timeout(), now);
        }
        flow.payload.moved.from_client += bytes;
        flow.payload.packets.received += 1;
        let header = match flow.payload.told {
            true => None,
            false => self.header(&flow.client, header_for(&self.site, &flow.payload.pool)),
        };
        let bytes = bytes + header.as_ref().map_or(0, |header| header.len() as u64);
        let payload = match header {
            Some(header) => Payload::BufLease(header, got.data),
            None => got.data.into(),
        };
        flow.payload.moved.to_member += bytes;
        flow.payload.choice.held.member().counters.bytes_sent.add(bytes);
        let upstream = self.upstream.borrow();
        if let Some(Some(open)) = upstream.get(flow.socket) {
            // What the socket cannot take is counted by the runtime; its member is told later.
            flow.payload.told |= open.socket.send(payload, flow.member, None);
        }
    }

    /// What the first datagram of a flow begins with (R9.1-16).
    fn header(&self, client: &Client, wanted: ProxyHeader) -> Option<SendBuf> {
        if wanted == ProxyHeader::None {
            return None;
        }
        let doors = self.doors.borrow();
        let port = doors.get(&client.door)?.socket.local_addr().ok()?.port();
        let target = SocketAddr::new(client.local, port);
        let mut header = SendBuf::new();
        proxy::write(proxy::Version::Datagram, client.peer, target, &[], &mut header);
        Some(header)
    }

    /// What a datagram that begins a flow goes by: its source, or with a QUIC pool its id. `None`:
    /// it is no QUIC.
    fn aim<'a>(&self, datagram: &'a [u8]) -> Option<Aim<'a>> {
        match self.site.pool().and_then(|pool| pool.cid_slice()) {
            None => Some(Aim::Source),
            Some(slice) => quic::parse(datagram).map(|packet| quic::aim(&packet, slice)),
        }
    }

    /// The client's flow; a new one when it has none, or its member was found down.
    fn flow_of(self: &Rc<Self>, client: Client, aim: Aim<'_>, now: Mono) -> Option<FlowId> {
        let client = Client { branch: self.branch(&client, aim, now), ..client };
        let known = self.flows.borrow_mut().of_client(&client, now);
        let Some(flow) = known else { return self.begin(client, aim, now) };
        let goes_on = (self.flows.borrow().get(flow))
            .is_some_and(|flow| flow.payload.choice.held.member().may_go_on());
        if goes_on {
            return Some(flow);
        }
        // R2.2-1.
        self.end(flow, Ending::MemberRst);
        self.begin(client, aim, now)
    }

    /// Which of a client's flows a datagram belongs to.
    fn branch(&self, client: &Client, aim: Aim<'_>, now: Mono) -> u32 {
        let Aim::Part(_) = aim else { return 0 };
        let mut flows = self.flows.borrow_mut();
        let first = flows.of_client(client, now).and_then(|flow| flows.get(flow));
        let other = first.and_then(|flow| {
            let (ids, member) = (flow.payload.ids.as_ref()?, flow.payload.choice.held.member());
            ids.other_member(ids.session(aim), member.handle, now)
        });
        let Some(branch) = other else { return 0 };
        let is_there = flows.of_client(&Client { branch, ..*client }, now).is_some();
        let follow = || self.site.pool().is_some_and(|pool| quic::may_follow(&pool, branch));
        if is_there || follow() { branch } else { 0 }
    }

    fn begin(self: &Rc<Self>, client: Client, aim: Aim<'_>, now: Mono) -> Option<FlowId> {
        let counters = &self.site.counters;
        if aim == Aim::Nowhere {
            counters.datagrams.drop(DatagramDrop::NotQuic);
            return None;
        }
        if self.draining.get() {
            counters.datagrams.drop(DatagramDrop::Draining);
            return None;
        }
        // Refusals are counted where they are found.
        let end_one = || self.make_room(now);
        let ticket = self.site.admit_in_turn(client.peer.ip(), now, &end_one).ok()?;
        let (source, ipv6) = (client.peer.ip(), client.peer.is_ipv6());
        let choice = self
            .site
            .pool()
            .and_then(|pool| Some((choose_by_id(&pool, aim, source, ipv6, now)?, pool)));
        let Some((choice, pool)) = choice else {
            counters.endings.count(Ending::ConnectFailed);
            counters.datagrams.drop(DatagramDrop::NoMember);
            return None;
        };
        if is_own_client(&self.site, &choice, source) {
            counters.endings.count(Ending::MemberIsClient);
            counters.datagrams.drop(DatagramDrop::MemberIsClient);
            return None;
        }
        counters.sticky.count(choice.sticky);
        let member = choice.held.member();
        let (address, blocks) = (member.address, std::sync::Arc::clone(&member.counters));
        let ids = pool.connections().map(|known| Box::new(Ids::new(known, now)));
        let (moved, packets) = (Moved::default(), Packets::default());
        let kept = Kept {
            choice,
            ids,
            pool,
            _ticket: ticket,
            begun: now,
            moved,
            packets,
            told: false,
            answered: false,
            passed: false,
            adopted: false,
        };
        let alone = self.site.keeps_client(address.ip());
        let begun = self.flows.borrow_mut().begin(client, address, alone, kept, now);
        let (flow, evicted) = match begun {
            Begun::Flow(flow, evicted) => (Some(flow), evicted),
            Begun::Full(_, evicted) => (None, evicted),
        };
        if let Some(evicted) = evicted {
            self.ended(evicted, Ending::Evicted);
        }
        let Some(flow) = flow else {
            counters.datagrams.drop(DatagramDrop::NoSocket);
            return None;
        };
        blocks.connections.add(1);
        blocks.active_connections.rise();
        self.reap();
        self.provide_socket(flow).then_some(flow)
    }

    /// Where there may be no more flows, one that has been silent for a moment gives way: datagrams
    /// with forged sources would else keep everybody out until their flows are idle. Those in use
    /// stay.
    fn make_room(&self, now: Mono) -> bool {
        let silent = self.flows.borrow_mut().end_silent(now, GIVES_WAY_AFTER);
        let Some(flow) = silent else { return false };
        self.ended(flow, Ending::Evicted);
        true
    }

    /// Opens the flow's socket if it is not open yet. If that fails the flow ends.
    fn provide_socket(self: &Rc<Self>, flow: FlowId) -> bool {
        let known = (self.flows.borrow().get(flow)).map(|flow| {
            (flow.socket, flow.client.peer, Rc::clone(flow.payload.choice.held.member()))
        });
        let Some((id, client, member)) = known else { return false };
        let mut upstream = self.upstream.borrow_mut();
        let Some(place) = upstream.place(id) else { return false };
        if place.is_some() {
            return true;
        }
        match self.open_upstream(id, client, &member) {
            Ok(open) => *place = Some(open),
            Err(error) => {
                drop(upstream);
                source::note(member.address, Some(&error));
                tracing::debug!("no socket towards members: {error}");
                self.site.counters.datagrams.drop(DatagramDrop::NoSocket);
                self.end(flow, Ending::ConnectFailed);
                return false;
            }
        }
        true
    }

    fn open_upstream(
        self: &Rc<Self>,
        id: SocketId,
        client: SocketAddr,
        member: &Member,
    ) -> std::io::Result<Open> {
        let socket = Rc::new(match id.is_alone() {
            true => bind(SocketAddr::new(client.ip(), 0), true)?,
            false => bind_towards(member)?,
        });
        if self.held.get() {
            socket.hold();
        }
        Ok(self.receive_from(id, socket))
    }

    /// Receives the answers that come by this socket.
    pub(super) fn receive_from(self: &Rc<Self>, id: SocketId, socket: Rc<UdpSocket>) -> Open {
        let (room, own) = (Rc::clone(self), Rc::clone(&socket));
        let task = rt::spawn(async move {
            loop {
                match own.recv().await {
                    Ok(Arrival::Datagram(got)) => room.member_says(id, got),
                    Ok(Arrival::Refused(refusal)) => room.refused(id, refusal),
                    Err(error) => rest(&error).await,
                }
            }
        });
        Open { socket, task }
    }

    fn member_says(&self, socket: SocketId, got: Datagram) {
        let counters = &self.site.counters;
        let now = rt::now();
        let mut flows = self.flows.borrow_mut();
        let flow = flows.of_member(socket, got.peer, now);
        let Some(flow) = flow.and_then(|flow| flows.get_mut(flow)) else {
            return counters.datagrams.drop(DatagramDrop::Stray);
        };
        let kept = &mut flow.payload;
        let bytes = got.data.len() as u64;
        kept.choice.held.member().counters.bytes_received.add(bytes);
        kept.choice.held.member().succeeded();
        kept.moved.from_member += bytes;
        if got.truncated {
            return counters.datagrams.drop(DatagramDrop::Truncated);
        }
        if !std::mem::replace(&mut kept.answered, true) {
            kept.choice.bind(now);
        }
        if let Some(ids) = &mut kept.ids {
            let member = kept.choice.held.member().handle;
            ids.member_says(&got.data, member, self.site.keepalive_timeout(), now);
        }
        let doors = self.doors.borrow();
        if let Some(door) = doors.get(&flow.client.door)
            && door.socket.send(got.data, flow.client.peer, Some(flow.client.local))
        {
            flow.payload.moved.to_client += bytes;
            flow.payload.packets.sent += 1;
            counters.datagrams.sent.add(1);
            counters.bytes_sent.add(bytes);
        }
    }

    /// A member, or somebody on the way to it, says that nobody listens there: the client's next
    /// datagram begins a new flow.
    fn refused(&self, socket: SocketId, refusal: Refusal) {
        if refusal.error != std::io::ErrorKind::ConnectionRefused {
            return;
        }
        let Some(flow) = self.flows.borrow().refused(socket, refusal.peer) else { return };
        if let Some(flow) = self.flows.borrow().get(flow) {
            let member = flow.payload.choice.held.member();
            member.counters.connect_failures.add(1);
            member.failed(rt::now());
        }
        self.end(flow, Ending::MemberRst);
    }

    fn end(&self, flow: FlowId, ending: Ending) {
        let ended = self.flows.borrow_mut().end(flow);
        if let Some(ended) = ended {
            self.ended(ended, ending);
        }
    }

    pub(super) fn end_where(&self, which: impl Fn(&Flow<Kept>) -> bool, ending: Ending) {
        let ended = self.flows.borrow_mut().end_where(which);
        ended.into_iter().for_each(|flow| self.ended(flow, ending));
    }

    /// The end of a flow that was in the table until now.
    fn ended(&self, flow: Flow<Kept>, ending: Ending) {
        self.note_end(&flow, ending);
        self.let_go(flow);
    }

    /// Counts and logs the end of a flow.
    pub(super) fn note_end(&self, flow: &Flow<Kept>, ending: Ending) {
        self.site.counters.endings.count(ending);
        self.log(flow, ending);
    }

    /// A flow that is in the table no more; its socket closes when that carries no other.
    pub(super) fn let_go(&self, flow: Flow<Kept>) {
        flow.payload.choice.held.member().counters.active_connections.fall();
        // A socket with a client's address carries no flow of another one.
        if (flow.socket.is_alone() || self.flows.borrow().users(flow.socket) == 0)
            && let Some(place) = self.upstream.borrow_mut().get_mut(flow.socket)
        {
            *place = None;
        }
    }

    /// Writes the line of the connection log, if there is one.
    fn log(&self, flow: &Flow<Kept>, ending: Ending) {
        let kept = &flow.payload;
        let (member, pool) = (Some(&**kept.choice.held.member()), Some(&*kept.pool));
        let Kept { begun, moved, packets, .. } = *kept;
        let (source, sticky) = (flow.client.peer, kept.choice.sticky);
        self.log_end(&Ended { source, member, pool, begun, moved, packets, sticky }, ending);
    }

    /// The same for one that need not have a member here.
    pub(super) fn log_end(&self, ended: &Ended<'_>, ending: Ending) {
        let Some(log) = self.site.log() else { return };
        let record = Record {
            log: &log,
            source: ended.source,
            member: ended.member,
            pool: ended.pool,
            moved: ended.moved,
            packets: Some(ended.packets),
            duration: rt::now().since(ended.begun),
            connect_time: None,
            rtt_us: None,
            attempts: 1,
            sticky: ended.sticky,
            ending,
        };
        log.pipe.line(|out| record.write(out));
    }

    /// Sees to it that flows end when their time comes, as long as there are some.
    pub(super) fn reap(self: &Rc<Self>) {
        let needless = self.held.get() || self.flows.borrow().is_empty();
        if self.reaper.get().is_some() || needless {
            return;
        }
        let room = Rc::clone(self);
        self.reaper.set(Some(rt::spawn(async move {
            while let Some(wait) = room.end_what_is_due(rt::now()) {
                rt::sleep(wait).await;
            }
            room.reaper.set(None);
        })));
    }

    /// Ends what is due; how long until the next is, `None` when there is no flow any more.
    fn end_what_is_due(&self, now: Mono) -> Option<Duration> {
        let ending = if self.draining.get() { Ending::Shutdown } else { Ending::Idle };
        loop {
            let expired = self.flows.borrow_mut().expire(now);
            let Some(expired) = expired else { break };
            self.ended(expired, ending);
        }
        loop {
            let due = self.leaving.borrow_mut().due(now);
            let Some(member) = due else { break };
            let of_it = |flow: &Flow<Kept>| flow.payload.choice.held.member().handle == member;
            self.end_where(of_it, Ending::Drained);
        }
        let next = self.flows.borrow().next_expiry()?;
        let next = self.leaving.borrow().next().map_or(next, |end| end.min(next));
        Some(next.since(now).max(Duration::from_millis(1)))
    }
}

/// A socket with one of our addresses towards this member, with another one if that has no port
/// left.
fn bind_towards(member: &Member) -> std::io::Result<UdpSocket> {
    let mut last = None;
    for source in member.sources().towards(member.address.ip()) {
        match bind(source::own(source, member.address.ip()), false) {
            Err(error) if Shortage::of(&error) == Some(Shortage::Ports) => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
}

fn bind(source: SocketAddr, transparent: bool) -> std::io::Result<UdpSocket> {
    let options = UdpOptions { errors: true, transparent, ..UdpOptions::default() };
    UdpSocket::bind(source, options)
}

/// After an error of a whole socket, which the runtime could not handle itself.
async fn rest(error: &std::io::Error) {
    tracing::warn!("UDP: {error}");
    rt::sleep(SOCKET_REST).await;
}
