//! The UDP flow table under a seeded simulator, with a simple model beside it: datagrams that are
//! lost, late or out of order, members that die and refuse, tables that change, clocks that jump,
//! doors that close, sockets that are too few, that carry one flow only, or are to get no new one.
//! R6.7-2, R6.7-3, R7.14-4.
//!
//! `WEIR_SEED=n` runs one seed again; `WEIR_COUNTS=full` runs many.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use weir_core::time::clock::Mono;
use weir_l4::limits::FLOW_SOCKETS;
use weir_l4::udp::{Begun, Client, Flow, SocketId, Table};

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn client(n: u64) -> Client {
    let peer = match n % 5 {
        0 => SocketAddr::from(([0xfd, 0, 0, 0, 0, 0, 0, 1], 1_000 + n as u16)),
        _ => SocketAddr::from(([10, 0, 0, (n % 7) as u8], 1_000 + (n / 7) as u16)),
    };
    Client { peer, local: [127, 0, 0, (n % 3) as u8].into(), door: (n % 2) as u32, branch: 0 }
}

fn member(n: u64) -> SocketAddr {
    match n % 4 {
        3 => SocketAddr::from(([0xfd, 0, 0, 0, 0, 0, 0, 2], 53 + n as u16)),
        _ => SocketAddr::from(([10, 9, 0, n as u8], 53)),
    }
}

/// What the table is to know of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    member: SocketAddr,
    socket: SocketId,
    used: Mono,
    number: u64,
}

/// An answer under way.
struct Answer {
    socket: SocketId,
    member: SocketAddr,
    /// The flow it belongs to, by number.
    number: u64,
}

struct World {
    dice: Dice,
    table: Table<u64>,
    model: HashMap<Client, Known>,
    under_way: Vec<Answer>,
    now: Mono,
    idle: Duration,
    most: usize,
    /// Sockets of each kind.
    sockets: u32,
    /// Sockets that carry something, and are to get nothing new.
    retired: HashSet<SocketId>,
    numbers: u64,
}

/// Flows with the same answer need a socket each.
fn sharing(member: SocketAddr, alone: bool) -> SocketAddr {
    match (alone, member) {
        (false, _) => member,
        (true, SocketAddr::V4(_)) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        (true, SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed);
        let most = 1 + dice.below(60) as usize;
        let idle = Duration::from_secs(10 + dice.below(300));
        let sockets = [FLOW_SOCKETS, 1 + dice.below(8) as u32][dice.below(2) as usize];
        World {
            dice,
            table: Table::new(most, sockets, idle),
            model: HashMap::new(),
            under_way: Vec::new(),
            now: Mono::from_nanos(1 << 40),
            idle,
            most,
            sockets,
            retired: HashSet::new(),
            numbers: 0,
        }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..45 => self.client_sends(),
            45..70 => self.member_answers(),
            70..75 => self.stray_answer(),
            75..80 => self.member_refuses(),
            80 => self.member_goes(),
            81 => self.door_closes(),
            82 => self.another_process(),
            83 => self.socket_is_retired(),
            84 => {
                self.idle = Duration::from_secs(10 + self.dice.below(300));
                self.table.set_idle(self.idle);
            }
            85..97 => {
                let time = Duration::from_millis(self.dice.below(5_000));
                self.pass(time);
            }
            // The clock jumps.
            _ => {
                let time = Duration::from_secs(self.dice.below(1_000));
                self.pass(time);
            }
        }
        self.check();
    }

    fn client_sends(&mut self) {
        let client = client(self.dice.below(90));
        let found = self.table.of_client(&client, self.now);
        assert_eq!(found.is_some(), self.model.contains_key(&client));
        match found {
            Some(flow) => {
                let known = self.model.get_mut(&client).unwrap();
                known.used = self.now;
                let flow = self.table.get(flow).unwrap();
                assert_eq!((flow.payload, flow.member), (known.number, known.member));
            }
            None => self.begin(client),
        }
        let Some(&known) = self.model.get(&client) else { return };
        // Some are lost, some are answered twice.
        for _ in 0..self.dice.below(3) {
            let Known { member, socket, number, .. } = known;
            self.under_way.push(Answer { socket, member, number });
        }
    }

    fn begin(&mut self, client: Client) {
        self.numbers += 1;
        let (member, number) = (member(self.dice.below(8)), self.numbers);
        let alone = self.dice.below(4) == 0;
        let (full, free) = (self.model.len() >= self.most, self.free(member, alone));
        let oldest = match full {
            true => self.model.values().map(|known| known.used).min(),
            false if free == 0 => self.oldest_rival(member, alone),
            false => None,
        };
        match self.table.begin(client, member, alone, number, self.now) {
            Begun::Flow(flow, evicted) => {
                assert_eq!(evicted.as_ref().map(|flow| flow.used), oldest, "not the right one");
                assert!(full || free > 0 || evicted.is_some());
                evicted.iter().for_each(|flow| self.forget(flow));
                let flow = self.table.get(flow).unwrap();
                let socket = flow.socket;
                assert_eq!((socket.is_ipv6(), socket.is_alone()), (member.is_ipv6(), alone));
                assert!(!self.retired.contains(&socket) && socket.number() < self.sockets);
                self.model.insert(client, Known { member, socket, used: self.now, number });
            }
            Begun::Full(given_back, evicted) => {
                assert_eq!(given_back, number);
                assert_eq!(evicted.as_ref().map(|flow| flow.used), oldest, "not the right one");
                assert!(full || evicted.is_none(), "it has ended for nothing");
                evicted.iter().for_each(|flow| self.forget(flow));
                assert_eq!(self.free(member, alone), 0, "there was a socket");
            }
        }
    }

    /// Sockets that a new flow could have.
    fn free(&self, member: SocketAddr, alone: bool) -> u32 {
        let rivals: HashSet<SocketId> =
            self.rivals(member, alone).map(|known| known.socket).collect();
        let kind = |socket: &SocketId| (socket.is_alone(), socket.is_ipv6());
        let retired = self.retired.iter().filter(|it| kind(it) == (alone, member.is_ipv6()));
        let taken = rivals.len() + retired.filter(|it| !rivals.contains(it)).count();
        self.sockets - taken as u32
    }

    /// Flows that can't be on one socket with a new one.
    fn rivals(&self, member: SocketAddr, alone: bool) -> impl Iterator<Item = &Known> {
        let wanted = sharing(member, alone);
        self.model.values().filter(move |it| sharing(it.member, it.socket.is_alone()) == wanted)
    }

    /// The last use of the longest silent of those whose end gives a new flow its socket.
    fn oldest_rival(&self, member: SocketAddr, alone: bool) -> Option<Mono> {
        let users = |socket| self.model.values().filter(|it| it.socket == socket).count();
        let gives = |it: &&Known| !self.retired.contains(&it.socket) || users(it.socket) == 1;
        self.rivals(member, alone).filter(gives).map(|known| known.used).min()
    }

    /// A listening socket closes, and the flows that came by it end.
    fn door_closes(&mut self) {
        let door = self.dice.below(2) as u32;
        let ended = self.table.end_where(|flow| flow.client.door == door);
        ended.iter().for_each(|flow| self.forget(flow));
        assert!(self.model.keys().all(|client| client.door != door));
    }

    /// Its address may be used no more.
    fn socket_is_retired(&mut self) {
        let Some(known) = self.any().filter(|known| !known.socket.is_alone()) else { return };
        self.table.retire(known.socket);
        self.retired.insert(known.socket);
    }

    /// The answer that comes next is any of those under way.
    fn member_answers(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let at = self.dice.below(self.under_way.len() as u64) as usize;
        let Answer { socket, member, number } = self.under_way.swap_remove(at);
        let owner =
            |(_, known): &(&Client, &mut Known)| (known.socket, known.member) == (socket, member);
        let expected = self.model.iter_mut().find(owner);
        let found = self.table.of_member(socket, member, self.now);
        assert_eq!(found.is_some(), expected.is_some());
        let (Some(flow), Some((client, known))) = (found, expected) else { return };
        known.used = self.now;
        let flow = self.table.get(flow).unwrap();
        assert_eq!((&flow.client, flow.payload), (client, known.number));
        // While the flow lives its answers are its own.
        assert!(number <= flow.payload, "an answer to what was not asked yet");
    }

    /// From somebody who is no member, or over another socket.
    fn stray_answer(&mut self) {
        let stranger = SocketAddr::from(([192, 0, 2, 1], 53));
        let sockets: Vec<SocketId> = self.model.values().map(|known| known.socket).collect();
        for socket in sockets {
            assert!(self.table.of_member(socket, stranger, self.now).is_none());
        }
    }

    fn member_refuses(&mut self) {
        let Some(known) = self.any() else { return };
        let flow = self.table.refused(known.socket, known.member).unwrap();
        let ended = self.table.end(flow).unwrap();
        assert_eq!(ended.payload, known.number);
        self.forget(&ended);
        assert!(self.table.refused(known.socket, known.member).is_none());
    }

    fn member_goes(&mut self) {
        let gone = member(self.dice.below(8));
        let ended = self.table.end_where(|flow| flow.member == gone);
        ended.iter().for_each(|flow| self.forget(flow));
        assert!(self.model.values().all(|known| known.member != gone));
    }

    /// Another process takes the flows over, from one shard or from two: all stays as it was, but
    /// for the numbers of the sockets.
    fn another_process(&mut self) {
        let mut next = Table::new(self.most, self.sockets, self.idle);
        let parts = 1 + self.dice.below(2) as u32;
        let mut numbers: HashMap<SocketId, SocketId> = HashMap::new();
        for part in 0..parts {
            let flows = self.table.end_where(|flow| flow.socket.number() % parts == part);
            let count = flows.len();
            let adopted = next.adopt(flows);
            assert!(adopted.left.is_empty() && adopted.sockets.len() <= count);
            numbers.extend(adopted.sockets);
        }
        assert!(self.table.is_empty());
        self.table = next;
        self.retired.clear();
        for known in self.model.values_mut() {
            known.socket = numbers[&known.socket];
        }
        // What comes by sockets that carry nothing finds nobody.
        self.under_way.retain(|answer| numbers.contains_key(&answer.socket));
        self.under_way.iter_mut().for_each(|answer| answer.socket = numbers[&answer.socket]);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        while let Some(ended) = self.table.expire(self.now) {
            assert!(self.now.since(ended.used) >= self.idle, "too early");
            self.forget(&ended);
        }
        let late = self.model.values().find(|known| self.now.since(known.used) >= self.idle);
        assert_eq!(late, None, "it should have expired");
    }

    fn any(&mut self) -> Option<Known> {
        let mut all: Vec<Known> = self.model.values().copied().collect();
        all.sort_by_key(|known| known.number);
        let at = self.dice.below(all.len().max(1) as u64) as usize;
        all.get(at).copied()
    }

    fn forget(&mut self, ended: &Flow<u64>) {
        let known = self.model.remove(&ended.client).unwrap();
        assert_eq!((known.number, known.used), (ended.payload, ended.used));
        if self.model.values().all(|it| it.socket != known.socket) {
            self.retired.remove(&known.socket);
        }
    }

    fn check(&self) {
        assert_eq!(self.table.len(), self.model.len());
        assert!(self.table.len() <= self.most);
        let mut users: HashMap<SocketId, u32> = HashMap::new();
        let mut pairs = HashSet::new();
        for known in self.model.values() {
            *users.entry(known.socket).or_default() += 1;
            let rivals = (known.socket, sharing(known.member, known.socket.is_alone()));
            assert!(pairs.insert(rivals), "two flows share what they can't");
        }
        for (socket, count) in users {
            assert_eq!(self.table.users(socket), count);
        }
        let next = self.model.values().map(|known| known.used.plus(self.idle)).min();
        assert_eq!(self.table.next_expiry(), next);
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..300 {
        world.step();
    }
    let ended = world.table.end_where(|_| true);
    ended.iter().for_each(|flow| world.forget(flow));
    assert!(world.table.is_empty() && world.table.next_expiry().is_none());
}

#[test]
fn the_table_does_what_its_model_does() {
    if let Ok(seed) = std::env::var("WEIR_SEED") {
        return run(seed.parse().unwrap());
    }
    let full = std::env::var_os("WEIR_COUNTS").is_some_and(|v| v == "full");
    for seed in 0..if full { 100_000 } else { 2_000 } {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("seed {seed} fails; WEIR_SEED={seed} runs it again");
        }
    }
}

/// 100,000 flows to 8 members need 12,500 sockets, in numbers without holes.
#[test]
fn many_flows_share_few_sockets() {
    let mut table = Table::new(usize::MAX, FLOW_SOCKETS, Duration::from_secs(300));
    let mut highest = 0;
    for n in 0..100_000u32 {
        let peer = SocketAddr::from(((10u32 << 24 | n).to_be_bytes(), 5_000));
        let client = Client { peer, local: [127, 0, 0, 1].into(), door: 0, branch: 0 };
        let member = SocketAddr::from(([10, 9, 0, (n % 8) as u8], 53));
        match table.begin(client, member, false, (), Mono::from_nanos(1)) {
            Begun::Flow(flow, None) => {
                highest = highest.max(table.get(flow).unwrap().socket.number());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(highest + 1, 12_500);
    let flow = size_of::<Flow<[u64; 16]>>();
    // Two indices at their emptiest, with a byte a place, and the list of free places.
    let rest = 2 * (size_of::<u32>() + 1) * 16 / 7 + size_of::<u32>();
    assert!(flow + rest <= 320, "{flow} + {rest}");
}

/// A client that has a flow already keeps it, and a table takes no more than it may.
#[test]
fn flows_for_which_there_is_no_room_are_given_back() {
    let begin = |clients: std::ops::Range<u64>, most| {
        let mut table = Table::new(most, FLOW_SOCKETS, Duration::from_secs(300));
        for n in clients {
            let begun = table.begin(client(n), member(n), false, n, Mono::from_nanos(n));
            assert!(matches!(begun, Begun::Flow(_, None)));
        }
        table
    };
    let mut former = begin(0..8, 10);
    let mut table = begin(6..12, 10);
    let adopted = table.adopt(former.end_where(|_| true));
    assert_eq!((table.len(), adopted.left.len()), (10, 4));
    let twice = adopted.left.iter().filter(|flow| flow.payload >= 6).count();
    assert_eq!(twice, 2, "clients 6 and 7");
    let ended = |table: &mut Table<u64>| {
        let flow = table.expire(Mono::from_nanos(1 << 60));
        flow.map(|flow| flow.payload)
    };
    let order: Vec<u64> = std::iter::from_fn(|| ended(&mut table)).collect();
    assert!(order.is_sorted() && order.len() == 10, "the longest silent first: {order:?}");
}
