//! Flows that another process goes on with (`weir upgrade`): the serving process holds its sockets
//! up and hands out its flows in batches, with the upstream sockets that carry them; the new one
//! takes them in before its doors receive (`adopting`). Until that one serves, the flows can go on
//! here as if nothing had happened. Owns no way from one process to the other.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use weir_core::model::Id;
use weir_core::net::relay::Moved;
use weir_core::obs::{Ending, Sticky};
use weir_core::rt::UdpSocket;
use weir_core::time::clock::Mono;

use super::room::{Kept, Room};
use super::service::Door;
use super::sockets::SocketId;
use super::table::{Flow, FlowId};
use crate::limits::PASSED_SOCKETS;
use crate::record::Packets;

/// A flow on its way to another process. Numbers are places in its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The client.
    pub client: SocketAddr,
    /// The address that it asked.
    pub local: IpAddr,
    /// The door that it came by.
    pub door: u32,
    /// Its member.
    pub member: u32,
    /// The socket that carries it.
    pub socket: u32,
    /// When its last datagram came.
    pub used: Mono,
    /// When it began.
    pub begun: Mono,
    /// What it has moved.
    pub moved: Moved,
    /// In so many datagrams.
    pub packets: Packets,
    /// What stickiness did for it.
    pub sticky: Sticky,
    /// What else is true of it.
    pub facts: Facts,
    /// What a flow of a QUIC pool knows of connection ids; empty for others.
    pub ids: Vec<u64>,
}

/// What is true of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It is not its client's first one (QUIC).
    pub branched: bool,
    /// Its member was told of the client.
    pub told: bool,
    /// Its member has answered.
    pub answered: bool,
    /// The source is to be bound to the member once that has answered.
    pub binds: bool,
}

/// Flows of one listener on one shard, with all flows of each socket that is among them. `D` names
/// doors.
#[derive(Debug)]
pub struct Batch<D> {
    /// The doors that they came by.
    pub doors: Vec<D>,
    /// Their members, by id and address.
    pub members: Vec<(Id, SocketAddr)>,
    /// The sockets that carry them; `true` = for one flow alone, with its client's address.
    pub sockets: Vec<(bool, OwnedFd)>,
    /// The flows.
    pub flows: Vec<Passed>,
}

impl<D> Batch<D> {
    /// The same with other names of the doors.
    pub fn map_doors<E>(self, name: impl FnMut(D) -> E) -> Batch<E> {
        let Batch { doors, members, sockets, flows } = self;
        Batch { doors: doors.into_iter().map(name).collect(), members, sockets, flows }
    }
}

/// A listener's flows on this shard that are being passed on.
#[derive(Debug)]
pub struct Passing {
    room: Rc<Room>,
    /// By the sockets that carry them; made when all is still.
    order: Option<Vec<(SocketId, FlowId)>>,
    /// How many of them are on their way.
    done: usize,
    /// How many more were handed out.
    offered: usize,
}

impl Passing {
    pub(super) fn of(room: Rc<Room>) -> Passing {
        Passing { room, order: None, done: 0, offered: 0 }
    }

    /// Has all that arrived here been forwarded, and can nothing come any more?
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.room.is_still()
    }

    /// False when they go on here after all.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.room.held.get()
    }

    /// The next flows, once all is still; `None` when there are no more.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn next_batch(&mut self) -> io::Result<Option<Batch<Door>>> {
        let room = &self.room;
        let order = self.order.get_or_insert_with(|| room.flows.borrow().by_socket());
        let rest = order.get(self.done..).unwrap_or_default();
        let sockets = rest.chunk_by(|(one, _), (next, _)| one == next);
        self.offered = sockets.take(PASSED_SOCKETS).map(<[_]>::len).sum();
        match rest.get(..self.offered) {
            Some(part @ [_, ..]) => room.batch(part).map(Some),
            _ => Ok(None),
        }
    }

    /// What was handed out last is on its way.
    pub fn confirm(&mut self) {
        let mut flows = self.room.flows.borrow_mut();
        let order = self.order.as_deref().unwrap_or_default();
        for (_, flow) in order.iter().skip(self.done).take(self.offered) {
            if let Some(flow) = flows.get_mut(*flow) {
                flow.payload.passed = true;
            }
        }
        self.done += std::mem::take(&mut self.offered);
    }
}

/// Things that flows share, by the places that they have in a batch.
struct Shared<K, T> {
    places: HashMap<K, u32>,
    all: Vec<T>,
}

impl<K: Hash + Eq, T> Shared<K, T> {
    fn new() -> Shared<K, T> {
        Shared { places: HashMap::new(), all: Vec::new() }
    }

    /// The place of what `key` stands for; the first time it is made.
    fn place(&mut self, key: K, make: impl FnOnce() -> io::Result<T>) -> io::Result<u32> {
        if let Some(place) = self.places.get(&key) {
            return Ok(*place);
        }
        let place = self.all.len() as u32;
        self.all.push(make()?);
        self.places.insert(key, place);
        Ok(place)
    }
}

impl Room {
    /// Receives nothing any more, so that its flows can be passed on.
    pub(super) fn hold(&self) {
        self.held.set(true);
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
        self.sockets().iter().for_each(|socket| socket.hold());
    }

    /// Its flows go on here after all.
    pub(super) fn go_on(self: &Rc<Self>) {
        if self.held.replace(false) {
            self.flows.borrow_mut().iter_mut().for_each(|flow| flow.payload.passed = false);
            self.sockets().iter().for_each(|socket| socket.go_on());
            self.reap();
        }
    }

    /// Another process goes on with its flows: they leave without an end, but for those that were
    /// not passed on.
    pub(super) fn release(self: &Rc<Self>) {
        let passed = self.flows.borrow_mut().end_where(|flow| flow.payload.passed);
        passed.into_iter().for_each(|flow| self.let_go(flow));
        let left = self.flows();
        if left > 0 {
            tracing::warn!(
                "listener {}: {left} UDP flows could not be handed over, and end",
                self.site.name()
            );
        }
        self.end_where(|_| true, Ending::Shutdown);
        self.go_on();
    }

    /// The process that had the flows which were adopted goes on with them: they leave without an
    /// end. Those that have begun here end.
    pub(super) fn give_back(&self) {
        let adopted = self.flows.borrow_mut().end_where(|flow| flow.payload.adopted);
        adopted.into_iter().for_each(|flow| self.let_go(flow));
        self.end_where(|_| true, Ending::Shutdown);
    }

    fn is_still(&self) -> bool {
        self.sockets().iter().all(|socket| socket.is_still())
    }

    fn sockets(&self) -> Vec<Rc<UdpSocket>> {
        let (doors, upstream) = (self.doors.borrow(), self.upstream.borrow());
        let upstream = upstream.iter().filter_map(|(_, open)| open.as_ref());
        doors.values().chain(upstream).map(|open| Rc::clone(&open.socket)).collect()
    }

    /// These flows, which are all of the sockets that they name.
    fn batch(&self, part: &[(SocketId, FlowId)]) -> io::Result<Batch<Door>> {
        let (flows, upstream) = (self.flows.borrow(), self.upstream.borrow());
        let listener = self.site.handle();
        let (mut doors, mut members, mut sockets) = (Shared::new(), Shared::new(), Shared::new());
        let mut packed = Vec::with_capacity(part.len());
        for &(id, flow) in part {
            let (Some(flow), Some(Some(open))) = (flows.get(flow), upstream.get(id)) else {
                continue;
            };
            let number = flow.client.door;
            let member = flow.payload.choice.held.member();
            let member = (member.id(), member.address);
            let again = || Ok((id.is_alone(), open.socket.as_fd().try_clone_to_owned()?));
            let door = doors.place(number, || Ok(Door { listener, number }))?;
            let places = [door, members.place(member, || Ok(member))?, sockets.place(id, again)?];
            packed.push(pack(flow, places));
        }
        Ok(Batch { doors: doors.all, members: members.all, sockets: sockets.all, flows: packed })
    }
}

fn pack(flow: &Flow<Kept>, [door, member, socket]: [u32; 3]) -> Passed {
    let (client, kept) = (flow.client, &flow.payload);
    Passed {
        client: client.peer,
        local: client.local,
        door,
        member,
        socket,
        used: flow.used,
        begun: kept.begun,
        moved: kept.moved,
        packets: kept.packets,
        sticky: kept.choice.sticky,
        facts: Facts {
            branched: client.branch != 0,
            told: kept.told,
            answered: kept.answered,
            binds: !kept.answered && kept.choice.binds(),
        },
        ids: kept.ids.as_ref().map(|ids| ids.pack()).unwrap_or_default(),
    }
}
