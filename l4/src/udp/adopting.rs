//! Flows that another process had, whose place this one takes (`weir upgrade`): each goes on with
//! its member and over its very socket, or ends with a reason. Called before the doors that they
//! came by receive anything; `passing` is the other process' side.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use weir_core::control::Connections;
use weir_core::model::Id;
use weir_core::obs::Ending;
use weir_core::rt::{self, UdpSocket};
use weir_core::table::{Member, Pool};
use weir_core::time::clock::Mono;

use super::passing::{Batch, Passed};
use super::room::{Ended, Kept, Room};
use super::sockets::SocketId;
use super::table::{Client, Flow};
use crate::choice::Choice;
use crate::quic::Ids;

/// Sockets of the other process, by the numbers that they have until they get some of the table's.
#[derive(Default)]
struct Sockets {
    handed: HashMap<SocketId, OwnedFd>,
    count: u32,
}

impl Sockets {
    /// Numbers those of a batch; each carries flows to members of one family.
    fn number(&mut self, sockets: Vec<(bool, OwnedFd)>) -> Vec<Numbered> {
        let number = |(alone, socket)| {
            self.count += 1;
            Numbered { number: self.count - 1, alone, socket: Some(socket) }
        };
        sockets.into_iter().map(number).collect()
    }

    /// The number that a socket has towards this member.
    fn towards(&mut self, numbered: &mut Numbered, member: SocketAddr) -> SocketId {
        let id = SocketId::new(numbered.number, numbered.alone, member.is_ipv6());
        if let Some(socket) = numbered.socket.take() {
            self.handed.insert(id, socket);
        }
        id
    }
}

struct Numbered {
    number: u32,
    alone: bool,
    /// Until its first flow is known, and with that its family.
    socket: Option<OwnedFd>,
}

impl Room {
    /// Goes on with these flows; `None` is a door that is not this room's. Returns how many go on.
    pub(super) fn adopt(self: &Rc<Self>, batches: Vec<Batch<Option<u32>>>) -> usize {
        let now = rt::now();
        let pool = self.site.pool();
        let members = pool.as_ref().map(|pool| pool.members()).unwrap_or_default();
        let members: HashMap<(Id, SocketAddr), Rc<Member>> =
            members.into_iter().map(|member| ((member.id(), member.address), member)).collect();
        let mut sockets = Sockets::default();
        let mut flows = Vec::new();
        for batch in batches {
            let mut numbered = sockets.number(batch.sockets);
            for passed in &batch.flows {
                let door = batch.doors.get(passed.door as usize).copied().flatten();
                let member = batch.members.get(passed.member as usize);
                let member = member.and_then(|key| members.get(key));
                let (Some(pool), Some(member)) = (&pool, member) else {
                    self.not_adopted(passed, pool.as_deref(), Ending::Drained);
                    continue;
                };
                let socket = numbered.get_mut(passed.socket as usize);
                let (Some(door), Some(socket)) = (door, socket) else {
                    self.not_adopted(passed, Some(pool), Ending::Deleted);
                    continue;
                };
                let socket = sockets.towards(socket, member.address);
                let client = client_of(passed, door, member);
                let kept = self.unpack(passed, pool, member, now);
                member.counters.active_connections.rise();
                flows.push(Flow::new(client, member.address, socket, passed.used, kept));
            }
        }
        let adopted = self.flows.borrow_mut().adopt(flows);
        for flow in adopted.left {
            self.note_end(&flow, Ending::Evicted);
            flow.payload.choice.held.member().counters.active_connections.fall();
        }
        self.carry_on(adopted.sockets, sockets);
        self.follow(now);
        self.flows()
    }

    /// Receives by the sockets that were handed over; flows without theirs end.
    fn carry_on(self: &Rc<Self>, numbers: Vec<(SocketId, SocketId)>, mut sockets: Sockets) {
        let mut missing = HashSet::new();
        for (theirs, ours) in numbers {
            let socket = sockets.handed.remove(&theirs);
            let socket = socket.and_then(|socket| match UdpSocket::from_fd(socket, true) {
                Ok(socket) => Some(Rc::new(socket)),
                Err(error) => {
                    tracing::warn!("a socket that was handed over is of no use: {error}");
                    None
                }
            });
            match (socket, self.upstream.borrow_mut().place(ours)) {
                (Some(socket), Some(place)) => *place = Some(self.receive_from(ours, socket)),
                _ => drop(missing.insert(ours)),
            }
        }
        if !missing.is_empty() {
            self.end_where(|flow| missing.contains(&flow.socket), Ending::ConnectFailed);
        }
    }

    fn unpack(
        self: &Rc<Self>,
        passed: &Passed,
        pool: &Rc<Pool>,
        member: &Rc<Member>,
        now: Mono,
    ) -> Kept {
        let (source, facts) = (passed.client.ip(), passed.facts);
        let idle = self.site.keepalive_timeout();
        let ids = pool
            .connections()
            .map(|known| Box::new(Ids::unpack(known, &passed.ids, member.handle, idle, now)));
        Kept {
            choice: Choice::again(pool, member, source, passed.sticky, facts.binds),
            ids,
            pool: Rc::clone(pool),
            _ticket: self.site.readmit(source),
            begun: passed.begun,
            moved: passed.moved,
            packets: passed.packets,
            told: facts.told,
            answered: facts.answered,
            passed: false,
            adopted: true,
        }
    }

    /// Counts and logs the end of a flow that can't go on here.
    fn not_adopted(&self, passed: &Passed, pool: Option<&Pool>, ending: Ending) {
        let &Passed { client: source, begun, moved, packets, sticky, .. } = passed;
        self.site.counters.endings.count(ending);
        let member = None;
        self.log_end(&Ended { source, member, pool, begun, moved, packets, sticky }, ending);
    }
}

fn client_of(passed: &Passed, door: u32, member: &Member) -> Client {
    // What stands for a member in another process means nothing here.
    let branch = if passed.facts.branched { Connections::mark(member.handle) } else { 0 };
    Client { peer: passed.client, local: passed.local, door, branch }
}
