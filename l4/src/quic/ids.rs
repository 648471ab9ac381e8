//! Pure but for the table that all shards share: the ids by which a flow's member is known.
//!
//! A member shows an id of its own in each packet with a long header; its slice is bound to the
//! member then, so that a client that comes from another address finds its member on any shard.
//! The binding lives as long as the flow.

use std::sync::Arc;
use std::time::Duration;

use weir_core::control::Connections;
use weir_core::model::Handle;
use weir_core::obs::Sticky;
use weir_core::table::{Held, Pool};
use weir_core::time::clock::Mono;

use super::packet::{Aim, parse};
use crate::choice::seconds;
use crate::limits::FLOW_IDS;

/// A binding is renewed when so much of a flow's idle time has passed, and lasts longer by that.
const RENEWALS: u32 = 4;

/// What a flow of a QUIC pool keeps.
#[derive(Debug)]
pub struct Ids {
    connections: Arc<Connections>,
    /// The latest ones, by what stands for them; 0 = none.
    sessions: [u64; FLOW_IDS],
    /// Where the next one goes.
    next: usize,
    /// What the client's latest datagram came with, and was nobody's.
    unknown: u64,
    /// When the bindings are to be renewed.
    renewal: Mono,
}

impl Ids {
    /// Of a flow that begins.
    #[must_use]
    pub fn new(connections: Arc<Connections>, now: Mono) -> Ids {
        Ids { connections, sessions: [0; FLOW_IDS], next: 0, unknown: 0, renewal: now }
    }

    /// For another process: the ones it keeps, and the one that was nobody's.
    #[must_use]
    pub fn pack(&self) -> Vec<u64> {
        self.sessions.iter().copied().chain([self.unknown]).collect()
    }

    /// Of a flow to `member` that another process has packed. What it knows is bound here at once,
    /// also what was bound there too late to come with the bindings. `idle` is how long the flow
    /// may be silent.
    #[must_use]
    pub fn unpack(
        connections: Arc<Connections>,
        packed: &[u64],
        member: Handle,
        idle: Duration,
        now: Mono,
    ) -> Ids {
        let mut ids = Ids::new(connections, now);
        let (sessions, unknown) = packed.split_at(packed.len().min(FLOW_IDS));
        ids.sessions.iter_mut().zip(sessions).for_each(|(place, session)| *place = *session);
        ids.unknown = unknown.first().copied().unwrap_or_default();
        // The free places first.
        ids.next = sessions.iter().position(|session| *session == 0).unwrap_or_default();
        ids.renew(member, idle, now);
        ids
    }

    /// What stands for the connection that a client's datagram is about; 0 = nothing does.
    #[must_use]
    pub fn session(&self, aim: Aim<'_>) -> u64 {
        match aim {
            Aim::Part(part) => self.connections.session(part),
            Aim::Source | Aim::Nowhere => 0,
        }
    }

    /// The mark of the other member that has the connection which a datagram of the flow's client
    /// is about: the client got an address and port that somebody else had before, as behind a NAT.
    #[must_use]
    pub fn other_member(&self, session: u64, member: Handle, now: Mono) -> Option<u32> {
        if self.knows(session) {
            return None;
        }
        let found = self.connections.find(session, seconds(now));
        found.filter(|&found| found != Connections::mark(member))
    }

    /// The flow's client has sent a datagram about this connection. `idle` is how long the flow
    /// may be silent.
    pub fn client_says(&mut self, session: u64, member: Handle, idle: Duration, now: Mono) {
        if !self.knows(session) {
            // What is bound already came from another flow, and lasts with this one from now on.
            // Only members bind anew.
            match self.connections.find(session, seconds(now)) {
                Some(found) if found == Connections::mark(member) => {
                    self.keep(session, member, idle, now);
                }
                Some(_) => {}
                None => self.unknown = session,
            }
        }
        self.renew(member, idle, now);
    }

    /// The flow's member has sent a datagram.
    pub fn member_says(&mut self, datagram: &[u8], member: Handle, idle: Duration, now: Mono) {
        // Most have a short header, which shows nothing.
        if datagram.first().is_some_and(|first| first & 0x80 != 0) {
            let slice = self.connections.slice;
            if let Some(part) = parse(datagram).and_then(|packet| packet.issued(slice)) {
                let session = self.connections.session(part);
                if !self.sessions.contains(&session) {
                    self.keep(session, member, idle, now);
                }
            }
        }
        self.renew(member, idle, now);
    }

    fn knows(&self, session: u64) -> bool {
        session == self.unknown || self.sessions.contains(&session)
    }

    fn keep(&mut self, session: u64, member: Handle, idle: Duration, now: Mono) {
        if let Some(place) = self.sessions.get_mut(self.next) {
            *place = session;
        }
        self.next = (self.next + 1) % FLOW_IDS;
        self.bind(session, member, idle, now);
    }

    /// The flow is in use: its bindings last on.
    fn renew(&mut self, member: Handle, idle: Duration, now: Mono) {
        if now >= self.renewal {
            self.renewal = now.plus(idle / RENEWALS);
            let known = self.sessions.iter().filter(|session| **session != 0);
            known.for_each(|&session| self.bind(session, member, idle, now));
        }
    }

    /// For as long as the flow lives when it falls silent before the next renewal.
    fn bind(&self, session: u64, member: Handle, idle: Duration, now: Mono) {
        let end = seconds(now.plus(idle + idle / RENEWALS)).saturating_add(1);
        self.connections.bind(session, member, end, seconds(now));
    }
}

/// May new flows follow a binding to the member with this mark?
pub fn may_follow(pool: &Pool, mark: u32) -> bool {
    let place = pool.connections().and_then(|known| known.place(mark));
    place.and_then(|place| pool.hold(place)).is_some()
}

/// The member that has issued an id with this part, if that is known and it may get something
/// (C12), for clients by IPv4 or IPv6; and what came of asking.
pub fn bound(
    pool: &Pool,
    connections: &Connections,
    part: &[u8],
    ipv6: bool,
    now: Mono,
) -> (Option<Held>, Sticky) {
    let Some(mark) = connections.find(connections.session(part), seconds(now)) else {
        return (None, Sticky::New);
    };
    let held = connections.place(mark).and_then(|place| pool.hold(place));
    let held = held.filter(|held| held.member().address.is_ipv6() == ipv6);
    let sticky = if held.is_some() { Sticky::Hit } else { Sticky::Miss };
    (held, sticky)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::SocketAddr;

    use weir_core::control::State;
    use weir_core::model::{self, Config, Handles, PoolProtocol};

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    /// What a process knows of the connections of a QUIC pool with one member, and that member.
    fn process() -> (Arc<Connections>, Handle) {
        let member = model::Member {
            name: "one".into(),
            id: model::derive_id("member", "", "app\none"),
            address: SocketAddr::from(([127, 0, 0, 1], 443)),
            weight: 1,
        };
        let pool = model::Pool {
            name: "app".into(),
            id: model::derive_id("pool", "", "app"),
            protocol: PoolProtocol::Quic,
            members: vec![member],
            ..model::Pool::default()
        };
        let listener = model::Listener {
            protocol: model::Protocol::Udp,
            default_pool: Some(0),
            ..model::Listener::default()
        };
        let config = Config { pools: vec![pool], listeners: vec![listener], ..Config::default() };
        let state = State::default().next(&config, &|_| vec![0], &mut Handles::default());
        let (pool, member) = state.members().next().unwrap();
        (Arc::clone(pool.connections.as_ref().unwrap()), member.handle)
    }

    /// R6.8-6: an id that was bound so late that no binding of it went over is known in the new
    /// process before the flow has moved anything there: its client may come from elsewhere.
    #[test]
    fn what_a_flow_knows_is_bound_as_soon_as_it_is_there() {
        let now = Mono::from_nanos(0).plus(Duration::from_secs(1_000));
        let (former, member) = process();
        let mut ids = Ids::new(former, now);
        ids.keep(7, member, IDLE, now);
        ids.keep(8, member, IDLE, now);
        ids.unknown = 9;
        let (here, member) = process();
        let again = Ids::unpack(Arc::clone(&here), &ids.pack(), member, IDLE, now);
        let bound = [7, 8, 9].map(|session| here.find(session, seconds(now)));
        let mark = Some(Connections::mark(member));
        assert_eq!(bound, [mark, mark, None], "what is nobody's is bound to nobody");
        assert!(again.sessions == ids.sessions && again.unknown == 9 && again.next == 2);
        // As long as a flow that falls silent now.
        let last = seconds(now.plus(IDLE));
        assert_eq!(here.find(7, last), mark);
        assert_eq!(here.find(7, last * 2), None);
    }
}
