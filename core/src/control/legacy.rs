//! Pure: what a process hands on to the one that takes its place (`weir upgrade`), and what that
//! one makes of it: health of members, session ticket keys, bindings of sticky sessions and of
//! connections of QUIC. Objects are named by their ids, since handles are a process' own. Owns no
//! sockets and no flows; the server calls it on both sides.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::stickiness::By;
use super::{Pool, State};
use crate::model::{Handle, Id};
use crate::pool::sticky::{Bindings, Seen};

/// Names a member where handles are others: in another process. At another address it is another
/// member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberName {
    /// Its pool.
    pub pool: Id,
    /// Its id.
    pub member: Id,
    /// Where it is.
    pub address: SocketAddr,
}

/// What one member's checks have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its pool.
    pub pool: Id,
    /// Its id.
    pub member: Id,
    /// Where it is: at another address it is another member.
    pub address: SocketAddr,
    /// It gets traffic.
    pub up: bool,
}

/// Which bindings were told already; takes as much memory as their tables.
#[derive(Debug, Default)]
pub struct Told(HashMap<(Id, bool), Seen>);

/// Bindings of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The pool.
    pub pool: Id,
    /// They are those of connections of QUIC, not of sticky sessions.
    pub quic: bool,
    /// Members, by id and address; bindings name them by their place here.
    pub members: Vec<(Id, SocketAddr)>,
    /// Session, place of its member, end in seconds of CLOCK_MONOTONIC.
    pub sessions: Vec<(u64, u32, u32)>,
}

impl State {
    /// The health of all members that are checked.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let checked = self.members().filter(|(pool, _)| pool.is_checked());
        let verdict = |(pool, member): (_, &super::Member)| {
            let pool: &std::sync::Arc<Pool> = pool;
            let (pool, up) = (pool.id, self.is_up(member.handle));
            Verdict { pool, member: member.id, address: member.address, up }
        };
        checked.map(verdict).collect()
    }

    /// What another process knows a member by.
    #[must_use]
    pub fn member_name(&self, member: Handle) -> Option<MemberName> {
        let (pool, member) = self.members().find(|(_, other)| other.handle == member)?;
        Some(MemberName { pool: pool.id, member: member.id, address: member.address })
    }

    /// All members by what another process knows them by.
    #[must_use]
    pub fn members_by_name(&self) -> HashMap<MemberName, Handle> {
        let name = |(pool, member): (&std::sync::Arc<Pool>, &super::Member)| {
            let (pool, address) = (pool.id, member.address);
            (MemberName { pool, member: member.id, address }, member.handle)
        };
        self.members().map(name).collect()
    }

    /// The members here that `verdicts` of another process are about.
    #[must_use]
    pub fn resolve(&self, verdicts: &[Verdict]) -> Vec<(Handle, bool)> {
        let key = |pool: Id, member: Id, address: SocketAddr| (pool, member, address);
        let known: HashMap<_, bool> =
            verdicts.iter().map(|v| (key(v.pool, v.member, v.address), v.up)).collect();
        let resolve = |(pool, member): (&std::sync::Arc<Pool>, &super::Member)| {
            let up = known.get(&key(pool.id, member.id, member.address))?;
            Some((member.handle, *up))
        };
        self.members().filter_map(resolve).collect()
    }

    /// The session ticket keys that are this process' own: what they are for, and the keys. To be
    /// handed on, never to be kept.
    #[must_use]
    pub fn ticket_keys(&self) -> Vec<([u8; 32], Vec<u8>)> {
        let tickets = self.listeners().filter_map(|(_, listener)| listener.tls.as_ref());
        let packed = tickets.map(|tls| (tls.tickets().context().bytes(), tls.tickets().pack()));
        packed.filter(|(_, keys)| !keys.is_empty()).collect()
    }

    /// Bindings that have not ended at `now`, in seconds of CLOCK_MONOTONIC: those that were made
    /// or renewed since this was called with the same `told`, all for a new one.
    #[must_use]
    pub fn bindings(&self, told: &mut Told, now: u32) -> Vec<Bound> {
        let mut all = Vec::new();
        for (_, pool) in self.pools() {
            let quic = pool.connections.as_ref().map(|connections| connections.bindings());
            for (quic, table) in [(false, table_of(pool)), (true, quic)] {
                let Some(table) = table else { continue };
                let bound =
                    bound(pool, quic, table, told.0.entry((pool.id, quic)).or_default(), now);
                all.extend(Some(bound).filter(|bound| !bound.sessions.is_empty()));
            }
        }
        all
    }

    /// Binds here what was bound in another process, as far as there are such members.
    pub fn adopt_bindings(&self, bound: &Bound, now: u32) {
        let Some((_, pool)) = self.pools().find(|(_, pool)| pool.id == bound.pool) else { return };
        let table = match bound.quic {
            true => pool.connections.as_ref().map(|connections| connections.bindings()),
            false => table_of(pool),
        };
        let Some(table) = table else { return };
        let here: HashMap<(Id, SocketAddr), Handle> =
            pool.members.iter().map(|m| ((m.id, m.address), m.handle)).collect();
        let marks: Vec<Option<u32>> = bound
            .members
            .iter()
            .map(|member| here.get(member).map(|handle| handle.number() as u32))
            .collect();
        for &(session, place, end) in &bound.sessions {
            if let Some(Some(mark)) = marks.get(place as usize) {
                table.bind(session, *mark, end, now);
            }
        }
    }
}

fn table_of(pool: &Pool) -> Option<&Bindings> {
    match &pool.stickiness.as_ref()?.by {
        By::Table(table) => Some(table),
        By::Balancer => None,
    }
}

fn bound(pool: &Pool, quic: bool, table: &Bindings, seen: &mut Seen, now: u32) -> Bound {
    let place = |(at, member): (u32, &super::Member)| (member.handle.number() as u32, at);
    let places: HashMap<u32, u32> = (0u32..).zip(&pool.members).map(place).collect();
    let session = |(session, mark, end): (u64, u32, u32)| Some((session, *places.get(&mark)?, end));
    Bound {
        pool: pool.id,
        quic,
        members: pool.members.iter().map(|member| (member.id, member.address)).collect(),
        sessions: table.news(seen, now).filter_map(session).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{self, Config, Handles, Monitor, MonitorKind, Persistence, PersistenceKind};

    /// Members at these ports, in this order.
    fn state(ports: &[u16], handles: &mut Handles) -> State {
        let member = |port: &u16| model::Member {
            name: format!("m{port}"),
            id: model::derive_id("member", "", &format!("app\nm{port}")),
            address: SocketAddr::from(([127, 0, 0, 1], *port)),
            weight: 1,
        };
        let second = Duration::from_secs(1);
        let monitor = Monitor {
            kind: MonitorKind::Tcp,
            delay: second,
            timeout: second,
            rise: 3,
            fall: 3,
            port: None,
        };
        let pool = model::Pool {
            name: "app".into(),
            id: model::derive_id("pool", "", "app"),
            members: ports.iter().map(member).collect(),
            monitor: Some(monitor),
            persistence: Some(Persistence {
                kind: PersistenceKind::AppCookie("sid".into()),
                cookie_name: String::new(),
                timeout: Duration::from_secs(60),
            }),
            ..model::Pool::default()
        };
        let listener = model::Listener { default_pool: Some(0), ..model::Listener::default() };
        let config = Config { pools: vec![pool], listeners: vec![listener], ..Config::default() };
        State::default().next(&config, &|_| vec![0], handles)
    }

    fn handle(state: &State, port: u16) -> Handle {
        state.members().find(|(_, member)| member.address.port() == port).unwrap().1.handle
    }

    /// Handles differ between the two, members may have gone and come.
    #[test]
    fn health_is_known_by_id_and_address() {
        let mut old = state(&[1, 2, 3], &mut Handles::default());
        old.set_health([(handle(&old, 1), true), (handle(&old, 3), true)]);
        let mut handles = Handles::default();
        handles.fresh();
        let mut new = state(&[4, 3, 2], &mut handles);
        let known = new.resolve(&old.verdicts());
        assert_eq!(known.len(), 2, "who is new is not known");
        new.set_health(known);
        let up = [4, 3, 2].map(|port| new.is_up(handle(&new, port)));
        assert_eq!(up, [false, true, false]);
    }

    #[test]
    fn bindings_lead_to_the_same_members() {
        let old = state(&[1, 2, 3], &mut Handles::default());
        let table = |state: &State| {
            let pool = state.pools().next().unwrap().1.clone();
            move |session: u64| {
                let mark = table_of(&pool).unwrap().find(session, 10)?;
                let place = pool.stickiness.as_ref().unwrap().place(u64::from(mark))?;
                Some(pool.members.get(place)?.address.port())
            }
        };
        let pool = old.pools().next().unwrap().1;
        for (session, port, end) in [(7, 1, 100), (8, 2, 100), (9, 3, 100), (10, 3, 5)] {
            let mark = handle(&old, port).number() as u32;
            table_of(pool).unwrap().bind(session, mark, end, 0);
        }
        let mut told = Told::default();
        let mut bound = old.bindings(&mut told, 10);
        assert_eq!(bound.first().map(|bound| bound.sessions.len()), Some(3), "one has ended");
        table_of(pool).unwrap().bind(7, handle(&old, 3).number() as u32, 100, 10);
        let since = old.bindings(&mut told, 10);
        assert_eq!(since.first().map(|bound| bound.sessions.len()), Some(1), "what is new");
        assert_eq!(old.bindings(&mut told, 10), []);
        bound.extend(since);
        let mut handles = Handles::default();
        handles.fresh();
        let new = state(&[3, 4, 1], &mut handles);
        bound.iter().for_each(|bound| new.adopt_bindings(bound, 10));
        let found = [7, 8, 9, 10].map(table(&new));
        assert_eq!(found, [Some(3), None, Some(3), None], "a member is gone");
    }
}
