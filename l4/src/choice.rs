//! The choice of a member for a connection or flow of Layer 4: by stickiness, else by the pool's
//! algorithm, always of the address family
//! that the client came by (R3.17-3); and what follows from it for how the member is spoken to.
//! Pure but for the tables it reads.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::control::{By, Stickiness};
use weir_core::model::{Algorithm, Handle, ProxyHeader};
use weir_core::obs::Sticky;
use weir_core::pool::{hash_address, hash_bytes};
use weir_core::table::{Held, Member, Pool, Site};
use weir_core::time::clock::Mono;

use crate::quic::{self, Aim};

/// A member that was chosen.
#[derive(Debug)]
pub(crate) struct Choice {
    /// It counts as the member's load as long as this lives.
    pub(crate) held: Held,
    /// What stickiness did.
    pub(crate) sticky: Sticky,
    /// What binds the source to the member, once that has answered.
    bond: Option<(Arc<Stickiness>, u64)>,
}

/// The member for a client at `source` that came by IPv4 or IPv6, none of those `tried`; `None`
/// when nobody is left (C18).
///
/// A sticky source goes to the member that it is bound to (R6.1-3), if that may still get something
/// (C12); else to the one that weighted rendezvous hashing finds, the same on every shard.
pub(crate) fn choose(
    pool: &Pool,
    source: IpAddr,
    ipv6: bool,
    tried: impl Iterator<Item = Handle> + Clone,
    now: Mono,
) -> Option<Choice> {
    let Some((stickiness, bindings)) = table(pool) else {
        let held = pool.pick_family(hash_address(source), ipv6, tried).ok()?;
        return Some(Choice { held, sticky: Sticky::None, bond: None });
    };
    let session = session_of(&stickiness, source);
    let was_tried = |handle| tried.clone().any(|other| other == handle);
    let mark = bindings.find(session, seconds(now));
    let bound = mark.and_then(|mark| pool.bound(&stickiness, u64::from(mark)));
    let bound = bound.filter(|held| !was_tried(held.member().handle));
    let sticky = match (mark, &bound) {
        (_, Some(_)) => Sticky::Hit,
        (Some(_), None) => Sticky::Miss,
        (None, None) => Sticky::New,
    };
    let preferred = || {
        pool.prefer_among(&stickiness, session, |member| {
            member.address.is_ipv6() == ipv6 && !was_tried(member.handle)
        })
    };
    let held = bound.or_else(preferred)?;
    Some(Choice { held, sticky, bond: Some((stickiness, session)) })
}

impl Choice {
    /// One that was made in another process, for a client at `source`; `binds` as that one said.
    pub(crate) fn again(
        pool: &Pool,
        member: &Rc<Member>,
        source: IpAddr,
        sticky: Sticky,
        binds: bool,
    ) -> Choice {
        let known = table(pool).filter(|_| binds);
        let bond = known.map(|(stickiness, _)| {
            let session = session_of(&stickiness, source);
            (stickiness, session)
        });
        Choice { held: Held::again(member), sticky, bond }
    }

    /// Is the source to be bound to the member once that has answered?
    pub(crate) fn binds(&self) -> bool {
        self.bond.is_some()
    }

    /// The member has taken the connection: the source is bound to it from `now` on, for the pool's
    /// `persistence_timeout` (R2.2-6).
    pub(crate) fn bind(&self, now: Mono) {
        if let Some((stickiness, session)) = &self.bond
            && let By::Table(bindings) = &stickiness.by
        {
            let now = seconds(now);
            let lasts = u32::try_from(stickiness.timeout.as_secs()).unwrap_or(u32::MAX);
            // The low half tells members of a process apart: handles count up from 1.
            let mark = self.held.member().handle.number() as u32;
            bindings.bind(*session, mark, now.saturating_add(lasts), now);
        }
    }
}

/// As [`choose`], for a datagram with such an aim: in a QUIC pool the member that has issued its
/// id, else the one that the id hashes to, or that another algorithm of the pool's finds (R6.8-6).
/// `None` also for what leads nowhere.
pub(crate) fn choose_by_id(
    pool: &Pool,
    aim: Aim<'_>,
    source: IpAddr,
    ipv6: bool,
    now: Mono,
) -> Option<Choice> {
    let part = match aim {
        Aim::Nowhere => return None,
        Aim::Source => return choose(pool, source, ipv6, std::iter::empty(), now),
        Aim::Part(part) => part,
    };
    let found = pool.connections().map(|known| quic::bound(pool, &known, part, ipv6, now));
    let (bound, sticky) = found.unwrap_or((None, Sticky::None));
    if let Some(held) = bound {
        return Some(Choice { held, sticky, bond: None });
    }
    if pool.algorithm() != Algorithm::QuicCid {
        return choose(pool, source, ipv6, std::iter::empty(), now);
    }
    let held = pool.pick_family(hash_bytes(part), ipv6, std::iter::empty()).ok()?;
    Some(Choice { held, sticky, bond: None })
}

/// Is the member the client itself, where it would see its own address? Its answers would never
/// leave its host (R2.1-13).
pub(crate) fn is_own_client(site: &Site, choice: &Choice, source: IpAddr) -> bool {
    let member = choice.held.member();
    let is_own = member.address.ip() == source && site.keeps_client(source);
    if is_own && site.first_warning() {
        tracing::warn!(
            "listener {}: member {} of it is its client, too, which cannot be where members see \
             the client's address; such connections are refused and counted",
            site.name(),
            member.address
        );
    }
    is_own
}

/// The PROXY header that members of `pool` get; also where the pool asks for none, when that stands
/// in for the client's address.
pub(crate) fn header_for(site: &Site, pool: &Pool) -> ProxyHeader {
    match pool.proxy_header() {
        ProxyHeader::None if site.tells_client() => ProxyHeader::V2,
        header => header,
    }
}

/// What stands for a source in bindings.
fn session_of(stickiness: &Stickiness, source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(ip) => stickiness.key.session(&ip.octets()),
        IpAddr::V6(ip) => stickiness.key.session(&ip.octets()),
    }
}

fn table(pool: &Pool) -> Option<(Arc<Stickiness>, Arc<weir_core::pool::sticky::Bindings>)> {
    let stickiness = pool.stickiness()?;
    match &stickiness.by {
        By::Table(bindings) => {
            let bindings = Arc::clone(bindings);
            Some((stickiness, bindings))
        }
        By::Balancer => None,
    }
}

/// Seconds of the turn's clock.
pub(crate) fn seconds(now: Mono) -> u32 {
    u32::try_from(Duration::from_nanos(now.nanos()).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use weir_core::control::State;
    use weir_core::model::{
        self, Balancer, Config, Handles, Id, Listener, Persistence, PersistenceKind, PoolProtocol,
        Protocol,
    };
    use weir_core::obs::Board;
    use weir_core::table::View;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A sticky pool of members with these weights, on two shards.
    struct Scene {
        state: State,
        board: Board,
        handles: Handles,
        views: [View; 2],
    }

    impl Scene {
        fn new(weights: &[u8]) -> Scene {
            let mut scene = Scene {
                state: State::default(),
                board: Board::default(),
                handles: Handles::default(),
                views: [View::new(0, 1), View::new(1, 2)],
            };
            scene.load(weights);
            scene
        }

        fn load(&mut self, weights: &[u8]) {
            let member = |(n, &weight): (u16, &u8)| model::Member {
                id: Id::from_u128(u128::from(n)),
                name: n.to_string(),
                address: SocketAddr::from(([127, 0, 0, 1], n)),
                weight,
            };
            let pool = model::Pool {
                name: "app".into(),
                protocol: PoolProtocol::Tcp,
                persistence: Some(Persistence {
                    kind: PersistenceKind::SourceIp,
                    timeout: 20 * MINUTE,
                    cookie_name: String::new(),
                }),
                members: (1..).zip(weights).map(member).collect(),
                ..model::Pool::default()
            };
            let listener = Listener {
                name: "web".into(),
                protocol: Protocol::Tcp,
                default_pool: Some(0),
                ..Listener::default()
            };
            let config = Config {
                balancers: vec![Balancer::default()],
                listeners: vec![listener],
                pools: vec![pool],
                ..Config::default()
            };
            let next = self.state.next(&config, &|_| vec![0, 1], &mut self.handles);
            let listeners: Vec<_> = next.listeners().map(|(handle, _)| handle).collect();
            let members: Vec<_> = next.members().map(|(_, member)| member.handle).collect();
            self.board = self.board.next(2, listeners.into_iter(), members.into_iter());
            let diff = self.state.diff(&next);
            for view in &self.views {
                view.apply(&diff, &self.board, at(0), true);
            }
            self.state = next;
        }

        fn pool(&self, shard: usize) -> Rc<Pool> {
            let handle = self.state.listeners().next().unwrap().0;
            self.views[shard].site(handle).unwrap().pool().unwrap()
        }

        /// The member of a source, bound to it, and how it was found.
        fn ask(&self, shard: usize, source: u8, minutes: u32) -> (u16, Sticky) {
            let source = IpAddr::from([10, 0, 0, source]);
            let choice = choose(&self.pool(shard), source, false, std::iter::empty(), at(minutes));
            let choice = choice.unwrap();
            choice.bind(at(minutes));
            (choice.held.member().address.port(), choice.sticky)
        }
    }

    fn at(minutes: u32) -> Mono {
        Mono::from_nanos(1 << 40).plus(minutes * MINUTE)
    }

    /// R2.2-6, C5: 20 minutes from the last connection; the next choice is a new one.
    #[test]
    fn bindings_last_for_their_time() {
        let mut scene = Scene::new(&[1, 1, 1]);
        let first: Vec<_> = (0..50).map(|n| scene.ask(0, n, 0)).collect();
        assert!(first.iter().all(|(_, sticky)| *sticky == Sticky::New));
        // A fourth member would be preferred by some; who is bound stays, on either shard.
        scene.load(&[1, 1, 1, 100]);
        for (n, (member, _)) in (0..).zip(&first) {
            assert_eq!(scene.ask(1, n, 19), (*member, Sticky::Hit), "renewed");
            assert_eq!(scene.ask(0, n, 38), (*member, Sticky::Hit));
        }
        let later: Vec<_> = (0..50).map(|n| scene.ask(0, n, 58)).collect();
        assert!(later.iter().all(|(_, sticky)| *sticky == Sticky::New), "{later:?}");
        assert!(later.iter().filter(|(member, _)| *member == 4).count() > 25, "{later:?}");
    }

    /// C12: a binding to a member that may get nothing is not followed, and forgotten.
    #[test]
    fn a_member_that_leaves_is_chosen_no_more() {
        let mut scene = Scene::new(&[1, 1]);
        let bound: Vec<u8> = (0..50).filter(|&n| scene.ask(0, n, 0).0 == 2).collect();
        scene.load(&[1, 0]);
        for &n in &bound {
            assert_eq!(scene.ask(1, n, 1), (1, Sticky::Miss));
        }
        scene.load(&[1, 1]);
        for &n in &bound {
            assert_eq!(scene.ask(0, n, 2), (1, Sticky::Hit));
        }
    }

    /// Who was tried is not chosen again; without anybody left there is no choice.
    #[test]
    fn the_next_choice_is_another_one() {
        let scene = Scene::new(&[1, 1]);
        let pool = scene.pool(0);
        let source = IpAddr::from([10, 0, 0, 1]);
        let mut tried = Vec::new();
        for _ in 0..2 {
            let choice = choose(&pool, source, false, tried.iter().copied(), at(0)).unwrap();
            assert!(!tried.contains(&choice.held.member().handle));
            tried.push(choice.held.member().handle);
        }
        assert!(choose(&pool, source, false, tried.iter().copied(), at(0)).is_none());
        assert!(choose(&pool, source, true, std::iter::empty(), at(0)).is_none(), "R3.17-3");
    }
}
