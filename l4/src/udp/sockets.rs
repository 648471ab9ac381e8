//! Pure: which upstream socket a flow gets. A socket carries one flow to each member, since answers
//! are told apart by socket and member; so `n` sockets carry `n` times as many flows as there are
//! members. A flow that keeps its client's address has a socket for itself, which has that address.
//! Sockets are numbers here; the shell opens them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ahash::{HashMap, HashSet};

/// The number of an upstream socket; IPv4 and IPv6 ones have numbers of their own, and so have
/// those that carry one flow only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(u32);

/// Kinds of sockets that have numbers of their own.
const KINDS: usize = 4;

impl SocketId {
    pub(super) fn new(number: u32, alone: bool, v6: bool) -> SocketId {
        SocketId(number * KINDS as u32 + u32::from(alone) * 2 + u32::from(v6))
    }

    fn kind(self) -> usize {
        self.0 as usize % KINDS
    }

    /// Counts up from 0 among those of its kind.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0 / KINDS as u32
    }

    /// Does it carry one flow only, with its client's address?
    #[must_use]
    pub fn is_alone(self) -> bool {
        self.0 & 2 != 0
    }

    /// Is it an IPv6 socket?
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        self.0 % 2 == 1
    }
}

/// Something for each socket that is, by its number.
#[derive(Debug)]
pub(super) struct BySocket<T>([Vec<T>; KINDS]);

impl<T> Default for BySocket<T> {
    fn default() -> BySocket<T> {
        BySocket(std::array::from_fn(|_| Vec::new()))
    }
}

impl<T: Default> BySocket<T> {
    pub(super) fn get(&self, socket: SocketId) -> Option<&T> {
        self.0.get(socket.kind())?.get(socket.number() as usize)
    }

    /// All that have something, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &T)> {
        (0u32..).zip(&self.0).flat_map(|(kind, all)| {
            let id = move |at: u32| SocketId(at * KINDS as u32 + kind);
            (0u32..).zip(all).map(move |(at, one)| (id(at), one))
        })
    }

    pub(super) fn get_mut(&mut self, socket: SocketId) -> Option<&mut T> {
        self.0.get_mut(socket.kind())?.get_mut(socket.number() as usize)
    }

    /// As `get_mut`; what is not there yet becomes the default.
    pub(super) fn place(&mut self, socket: SocketId) -> Option<&mut T> {
        let (of_kind, at) = (self.0.get_mut(socket.kind())?, socket.number() as usize);
        if of_kind.len() <= at {
            of_kind.resize_with(at + 1, T::default);
        }
        of_kind.get_mut(at)
    }
}

/// Who uses which socket.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Of each kind there are at most so many.
    most: u32,
    /// Of each member; of nobody, a family each, for flows that have a socket for themselves.
    members: HashMap<SocketAddr, Places>,
    /// Flows of each socket.
    users: BySocket<u32>,
    /// Sockets that get no new flow until their last one has ended.
    retired: HashSet<SocketId>,
}

/// The sockets that one member's flows use.
#[derive(Debug, Default)]
struct Places {
    /// Numbers from here on were never used for it.
    next: u32,
    /// Used before and free again; the lowest is taken first, so that the highest fall empty.
    free: BinaryHeap<Reverse<u32>>,
    /// Numbers of retired sockets that would be free.
    aside: Vec<u32>,
    used: u32,
}

impl Places {
    /// A number that no flow of the member uses.
    fn free(&mut self, most: u32) -> Option<u32> {
        if let Some(Reverse(number)) = self.free.pop() {
            return Some(number);
        }
        let next = self.next;
        self.next += u32::from(next < most);
        (next < most).then_some(next)
    }

    fn bring_back(&mut self, number: u32) {
        let before = self.aside.len();
        self.aside.retain(|aside| *aside != number);
        if self.aside.len() < before {
            self.free.push(Reverse(number));
        }
    }
}

impl Sockets {
    /// None is used yet; of each kind there may be `most`.
    pub(super) fn new(most: u32) -> Sockets {
        Sockets {
            most,
            members: HashMap::default(),
            users: BySocket::default(),
            retired: HashSet::default(),
        }
    }

    /// No new flow over this socket, until it is opened anew: once its last flow has ended.
    pub(super) fn retire(&mut self, socket: SocketId) {
        if self.users(socket) > 0 {
            self.retired.insert(socket);
        }
    }

    /// A socket that has no flow to `member` yet, or `alone` none at all; `None` when the bound is
    /// reached.
    pub(super) fn take(&mut self, member: SocketAddr, alone: bool) -> Option<SocketId> {
        let places = self.members.entry(sharing(member, alone)).or_default();
        let socket = loop {
            let number = places.free(self.most)?;
            let socket = SocketId::new(number, alone, member.is_ipv6());
            if !self.retired.contains(&socket) {
                break socket;
            }
            places.aside.push(number);
        };
        places.used += 1;
        *self.users.place(socket)? += 1;
        Some(socket)
    }

    /// The lowest number of a kind from which on none has ever been used; `None` = there is none
    /// left.
    pub(super) fn unused(&self, alone: bool, v6: bool) -> Option<SocketId> {
        let first = SocketId::new(0, alone, v6);
        let number = u32::try_from(self.users.0.get(first.kind())?.len()).ok()?;
        (number < self.most).then(|| SocketId::new(number, alone, v6))
    }

    /// Gives a certain socket to a flow to `member`, which has none of this number or above yet.
    pub(super) fn assign(&mut self, socket: SocketId, member: SocketAddr) {
        let places = self.members.entry(sharing(member, socket.is_alone())).or_default();
        places.free.extend((places.next..socket.number()).map(Reverse));
        places.next = socket.number() + 1;
        places.used += 1;
        if let Some(users) = self.users.place(socket) {
            *users += 1;
        }
    }

    /// The flow over `socket` to `member` has ended.
    pub(super) fn give_back(&mut self, socket: SocketId, member: SocketAddr) {
        if let Some(users) = self.users.get_mut(socket) {
            *users = users.saturating_sub(1);
        }
        if self.users(socket) == 0 && self.retired.remove(&socket) {
            let same_family =
                self.members.iter_mut().filter(|(at, _)| at.is_ipv6() == socket.is_ipv6());
            same_family.for_each(|(_, places)| places.bring_back(socket.number()));
        }
        let key = sharing(member, socket.is_alone());
        let Some(places) = self.members.get_mut(&key) else { return };
        places.used = places.used.saturating_sub(1);
        if places.used == 0 {
            self.members.remove(&key);
        } else {
            places.free.push(Reverse(socket.number()));
        }
    }

    /// Could another flow have it, once one of those that it carries has ended?
    pub(super) fn would_be_free(&self, socket: SocketId) -> bool {
        !self.retired.contains(&socket) || self.users(socket) == 1
    }

    /// Flows over this socket.
    pub(super) fn users(&self, socket: SocketId) -> u32 {
        self.users.get(socket).copied().unwrap_or_default()
    }
}

/// Flows with the same answer are on sockets of their own each.
pub(super) fn sharing(member: SocketAddr, alone: bool) -> SocketAddr {
    match (alone, member.is_ipv6()) {
        (false, _) => member,
        (true, false) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        (true, true) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FLOW_SOCKETS;

    #[test]
    fn sockets_are_shared_by_members_and_never_by_flows_of_one() {
        let mut sockets = Sockets::new(FLOW_SOCKETS);
        let member = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        let first: Vec<_> = (0..3).map(|_| sockets.take(member(1), false).unwrap()).collect();
        let second: Vec<_> = (0..3).map(|_| sockets.take(member(2), false).unwrap()).collect();
        assert_eq!(first, second, "the same three sockets");
        assert_eq!(sockets.users(first[0]), 2);
        sockets.give_back(first[1], member(1));
        assert_eq!(sockets.take(member(1), false), Some(first[1]));
        assert!(!first[0].is_ipv6());
        assert!(sockets.take("[::1]:1".parse().unwrap(), false).unwrap().is_ipv6());
    }

    #[test]
    fn a_member_has_no_more_flows_than_there_are_sockets() {
        let mut sockets = Sockets::new(FLOW_SOCKETS);
        let member = SocketAddr::from(([10, 0, 0, 1], 1));
        let taken = (0..FLOW_SOCKETS + 5).filter_map(|_| sockets.take(member, false)).count();
        assert_eq!(taken, FLOW_SOCKETS as usize);
    }

    /// Sockets of another process keep who uses them; what they leave free is taken first.
    #[test]
    fn assigned_sockets_leave_the_others_free() {
        let mut sockets = Sockets::new(FLOW_SOCKETS);
        let member = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        sockets.take(member(1), false).unwrap();
        let next = sockets.unused(false, false).unwrap();
        assert_eq!(next.number(), 1);
        sockets.assign(next, member(2));
        let third = sockets.unused(false, false).unwrap();
        sockets.assign(third, member(2));
        assert_eq!((third.number(), sockets.users(next), sockets.users(third)), (2, 1, 1));
        let taken: Vec<u32> =
            (0..3).map(|_| sockets.take(member(2), false).unwrap().number()).collect();
        assert_eq!(taken, [0, 3, 4]);
        assert_eq!(sockets.take(member(1), false), Some(next));
        assert_eq!(sockets.unused(true, true).map(SocketId::number), Some(0));
        sockets.assign(SocketId::new(FLOW_SOCKETS - 1, false, false), member(3));
        assert_eq!(sockets.unused(false, false), None);
    }

    /// A socket with an address that may be used no more carries on what it has, and gets nothing
    /// new; then it is as any other.
    #[test]
    fn retired_sockets_get_nothing_new() {
        let mut sockets = Sockets::new(FLOW_SOCKETS);
        let member = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        let old = sockets.take(member(1), false).unwrap();
        assert_eq!(sockets.take(member(2), false), Some(old));
        sockets.retire(old);
        sockets.give_back(old, member(2));
        let fresh = sockets.take(member(2), false).unwrap();
        assert_ne!(fresh, old);
        assert_ne!(sockets.take(member(3), false), Some(old));
        sockets.give_back(old, member(1));
        assert_eq!(sockets.take(member(3), false), Some(old), "its last flow has ended");
        assert_eq!(sockets.take(member(1), false), Some(old));
        // Nobody uses it: it is opened anew anyhow.
        sockets.retire(SocketId::new(99, false, false));
        assert!(sockets.retired.is_empty());
    }

    /// R9.1-5: flows with a socket for themselves share none, with nobody.
    #[test]
    fn lonely_flows_share_no_socket() {
        let mut sockets = Sockets::new(FLOW_SOCKETS);
        let member = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        let shared = sockets.take(member(1), false).unwrap();
        let alone: Vec<_> = (1..4).map(|n| sockets.take(member(n), true).unwrap()).collect();
        assert!(alone.iter().all(|socket| socket.is_alone() && sockets.users(*socket) == 1));
        assert!(!shared.is_alone() && alone[0] != alone[1] && alone[1] != alone[2]);
        sockets.give_back(alone[1], member(2));
        assert_eq!(sockets.users(alone[1]), 0);
        assert_eq!(sockets.take(member(9), true), Some(alone[1]));
        let more = (0..FLOW_SOCKETS).filter_map(|_| sockets.take(member(1), true)).count();
        assert_eq!(more, FLOW_SOCKETS as usize - 3);
    }
}
