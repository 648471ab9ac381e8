//! Tests of the table: what a shard's data path sees after each change of the desired state, on
//! virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::control::State;
use crate::model::{self, Algorithm, Config, Handle, Handles, Monitor, MonitorKind, SlowStart};
use crate::obs::Board;
use crate::pool::Ask;
use crate::time::clock::Mono;

/// A state, its board, and a view that follows it.
struct Scene {
    state: State,
    handles: Handles,
    board: Board,
    view: View,
    now: Mono,
    settled: bool,
}

impl Scene {
    fn new(config: &Config) -> Scene {
        let mut scene = Scene {
            state: State::default(),
            handles: Handles::default(),
            board: Board::default(),
            view: View::new(0, 5),
            now: Mono::from_nanos(1),
            settled: false,
        };
        scene.load(config);
        scene.settled = true;
        scene
    }

    fn load(&mut self, config: &Config) -> Vec<String> {
        let next = self.state.next(config, &|_| vec![0], &mut self.handles);
        self.go(next)
    }

    fn health(&mut self, verdicts: &[(Handle, bool)]) -> Vec<String> {
        let mut next = self.state.clone();
        next.set_health(verdicts.iter().copied());
        self.go(next)
    }

    fn eject(&mut self, changes: &[(Handle, bool)]) -> Vec<String> {
        let mut next = self.state.clone();
        next.set_ejected(changes);
        self.go(next)
    }

    /// Names of the members whose idle connections are to be closed.
    fn go(&mut self, next: State) -> Vec<String> {
        let listeners = next.listeners().map(|(handle, _)| handle);
        let members = next.members().map(|(_, member)| member.handle);
        self.board = self.board.next(1, listeners, members);
        let diff = self.state.diff(&next);
        let left = self.view.apply(&diff, &self.board, self.now, self.settled);
        self.state = next;
        left.iter().map(|member| member.name().to_string()).collect()
    }

    fn member(&self, name: &str) -> Handle {
        self.state.members().find(|(_, m)| m.name == name).map(|(_, m)| m.handle).unwrap()
    }

    fn site(&self) -> std::rc::Rc<Site> {
        self.view.site(self.state.listeners().next().unwrap().0).unwrap()
    }

    /// Who gets `n` requests that end at once.
    fn shares(&self, n: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..n {
            let held = self.site().pool().unwrap().pick(Ask::default()).unwrap();
            *shares.entry(held.member().name().to_string()).or_default() += 1;
        }
        shares
    }
}

fn config(pool: &str, members: &[(&str, u8)], algorithm: Algorithm) -> Config {
    let member = |&(name, weight): &(&str, u8)| model::Member {
        id: model::derive_id("member", "", &format!("{pool}\n{name}")),
        name: name.into(),
        address: ([127, 0, 0, 1], 1000 + name.as_bytes()[0] as u16).into(),
        weight,
    };
    Config {
        balancers: vec![model::Balancer::default()],
        listeners: vec![model::Listener {
            name: "web".into(),
            protocol_port: 80,
            default_pool: Some(0),
            ..model::Listener::default()
        }],
        pools: vec![model::Pool {
            id: model::derive_id("pool", "", pool),
            name: pool.into(),
            algorithm,
            members: members.iter().map(member).collect(),
            ..model::Pool::default()
        }],
        ..Config::default()
    }
}

fn checked(mut config: Config) -> Config {
    let second = Duration::from_secs(1);
    let kind = MonitorKind::Tcp;
    config.pools[0].monitor =
        Some(Monitor { kind, delay: second, timeout: second, rise: 3, fall: 3, port: None });
    config
}

const RR: Algorithm = Algorithm::RoundRobin;

/// R2.1-10: each member sees our addresses in turn, although the members have their turns as well.
#[test]
fn each_member_sees_all_source_addresses() {
    let ours = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    let mut config = config("app", &[("a", 1), ("b", 1)], RR);
    config.runtime.source_addresses = ours.to_vec();
    let scene = Scene::new(&config);
    let mut seen: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for _ in 0..4 {
        let held = scene.site().pool().unwrap().pick(Ask::default()).unwrap();
        let member = held.member();
        let source = member.sources().towards(member.address.ip()).next().flatten().unwrap();
        seen.entry(member.name().to_string()).or_default().push(source);
    }
    assert_eq!(seen, BTreeMap::from([("a".into(), ours.to_vec()), ("b".into(), ours.to_vec())]));
}

/// C18: an empty pool and one without a usable member differ.
#[test]
fn reasons_not_to_pick() {
    let pick = |config: &Config| {
        let scene = Scene::new(config);
        scene.site().pool().unwrap().pick(Ask::default()).err()
    };
    assert_eq!(pick(&config("app", &[], RR)), Some(Nobody::NoMember));
    assert_eq!(pick(&config("app", &[("a", 0)], RR)), Some(Nobody::NoneUsable));
    assert_eq!(pick(&checked(config("app", &[("a", 1)], RR))), Some(Nobody::NoneUsable));
    assert_eq!(pick(&config("app", &[("a", 1)], RR)), None);
}

/// R7.14-3: the next request follows the new weight; R8.1-1: an abnormal member gets none until it
/// is found normal; C38: who may not be used loses its idle connections.
#[test]
fn weights_and_health_take_effect_at_once() {
    let mut scene = Scene::new(&checked(config("app", &[("a", 1), ("b", 1)], RR)));
    let (a, b) = (scene.member("a"), scene.member("b"));
    scene.health(&[(a, true), (b, true)]);
    assert_eq!(scene.shares(8), BTreeMap::from([("a".into(), 4), ("b".into(), 4)]));
    assert_eq!(scene.health(&[(b, false)]), ["b"]);
    assert_eq!(scene.shares(8), BTreeMap::from([("a".into(), 8)]));
    scene.health(&[(b, true)]);
    assert_eq!(scene.load(&checked(config("app", &[("a", 1), ("b", 3)], RR))), [""; 0]);
    assert_eq!(scene.shares(8), BTreeMap::from([("a".into(), 2), ("b".into(), 6)]));
    assert_eq!(scene.load(&checked(config("app", &[("a", 0), ("b", 3)], RR))), ["a"]);
    assert_eq!(scene.shares(4), BTreeMap::from([("b".into(), 4)]));
    let left = scene.load(&checked(config("app", &[("b", 3)], RR)));
    assert_eq!(left, ["a"]);
    assert_eq!(scene.view.version(), scene.state.version());
}

/// Who is left out gets nothing, whatever the checks say, and begins slowly when it is back; what
/// fails too often in a row is told. Without outlier_detection neither happens.
#[test]
fn who_fails_too_often_is_told_and_left_out() {
    let mut config = config("app", &[("a", 1), ("b", 1)], RR);
    let mut scene = Scene::new(&config);
    let (a, b) = (scene.member("a"), scene.member("b"));
    assert_eq!(scene.eject(&[(a, true)]), [""; 0]);
    let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let list = std::rc::Rc::clone(&told);
    scene.view.on_suspects(move |one| list.borrow_mut().push((one.member, one.failures)));
    let member = |scene: &Scene, at: usize| scene.site().pool().unwrap().members()[at].clone();
    (0..9).for_each(|_| member(&scene, 0).failed(scene.now));
    config.pools[0].outlier_detection.enable = true;
    config.pools[0].outlier_detection.consecutive_failures = 3;
    let thirty = Duration::from_secs(30);
    config.pools[0].slow_start = Some(SlowStart { duration: thirty });
    scene.load(&config);
    scene.now = scene.now.plus(thirty);
    scene.view.step(scene.now);
    (0..2).for_each(|_| member(&scene, 0).failed(scene.now));
    member(&scene, 0).succeeded();
    (0..2).for_each(|_| member(&scene, 0).failed(scene.now));
    (0..3).for_each(|_| member(&scene, 1).failed(scene.now));
    assert_eq!(*told.borrow(), [(b, 3)]);
    assert_eq!(scene.eject(&[(b, true)]), ["b"]);
    assert_eq!(scene.shares(4), BTreeMap::from([("a".into(), 4)]));
    scene.load(&config);
    assert_eq!(scene.shares(4), BTreeMap::from([("a".into(), 4)]), "also after a reload");
    scene.eject(&[(b, false)]);
    assert!(scene.shares(40).get("b").is_none_or(|n| *n < 10), "it begins slowly");
}

/// C18: with fewer members that are well than minimum_healthy_member_count all of them get traffic,
/// but for those of weight 0; as soon as one is well the others are left out again.
#[test]
fn all_serve_where_too_few_are_well() {
    let mut config = checked(config("app", &[("a", 1), ("b", 1), ("z", 0)], RR));
    config.pools[0].minimum_healthy_member_count = 1;
    config.pools[0].outlier_detection.enable = true;
    let mut scene = Scene::new(&config);
    let both = BTreeMap::from([("a".into(), 4), ("b".into(), 4)]);
    assert_eq!(scene.shares(8), both, "before the first verdict");
    let (a, b, z) = (scene.member("a"), scene.member("b"), scene.member("z"));
    assert_eq!(scene.health(&[(z, true)]), ["z"]);
    assert_eq!(scene.shares(8), both, "weight 0 serves nobody");
    let mut left = scene.health(&[(a, true)]);
    left.sort();
    assert_eq!(left, ["b", "z"], "idle connections to others are closed");
    assert_eq!(scene.shares(8), BTreeMap::from([("a".into(), 8)]));
    scene.eject(&[(a, true)]);
    assert_eq!(scene.shares(8), both);
    assert!(scene.state.serves_all(scene.state.pools().next().unwrap().1));
    scene.eject(&[(a, false)]);
    scene.health(&[(a, false), (b, true)]);
    assert_eq!(scene.shares(8), BTreeMap::from([("b".into(), 8)]));
    config.pools[0].minimum_healthy_member_count = 0;
    scene.load(&config);
    scene.health(&[(b, false)]);
    assert!(scene.site().pool().unwrap().pick(Ask::default()).is_err());
}

/// R6.3-2, C37: what a connection holds of a listener that is gone goes on working, with the pool
/// that it had.
#[test]
fn a_removed_listener_keeps_its_pool() {
    let mut scene = Scene::new(&config("app", &[("a", 1)], RR));
    let site = scene.site();
    let none = Config { balancers: vec![model::Balancer::default()], ..Config::default() };
    assert_eq!(scene.load(&none), ["a"], "idle connections go, the member stays usable");
    assert!(scene.view.site(site.handle()).is_none());
    let held = site.pool().unwrap().pick(Ask::default()).unwrap();
    assert_eq!(&*held.member().name(), "a");
}

/// R6.3-2, C37: the same, with the health last known, when the pool goes, when it stays and no
/// listener uses it any more, and when its members are others by now.
#[test]
fn a_removed_listener_keeps_the_health_of_its_pool() {
    let two = || checked(config("app", &[("a", 1), ("b", 1)], RR));
    let unused = |mut config: Config| {
        config.listeners.clear();
        config
    };
    let none = Config { balancers: vec![model::Balancer::default()], ..Config::default() };
    let other = unused(checked(config("app", &[("c", 1)], RR)));
    let unchecked = unused(config("app", &[("a", 1), ("b", 1)], RR));
    for after in [none, unused(two()), other, unchecked] {
        let mut scene = Scene::new(&two());
        let (site, b) = (scene.site(), scene.member("b"));
        scene.health(&[(b, true)]);
        assert_eq!(scene.load(&after).len(), 2, "idle connections to both go");
        for _ in 0..4 {
            let held = site.pool().unwrap().pick(Ask::default()).unwrap();
            assert_eq!(&*held.member().name(), "b", "a was never found up");
        }
        assert_eq!(scene.view.describe(), [""; 0], "nobody else sees it");
        // A listener that comes to use it again has one of its own.
        scene.load(&checked(config("app", &[("c", 1)], RR)));
        let again = scene.site().pool().unwrap();
        assert!(again.pick(Ask::default()).is_err());
        assert!(site.pool().unwrap().pick(Ask::default()).is_ok());
    }
}

/// A pool that another listener uses goes on changing, also for who came by a removed one.
#[test]
fn a_removed_listener_follows_a_pool_that_lives() {
    let with_two = |members| {
        let mut config = checked(config("app", members, RR));
        let second = model::Listener {
            name: "two".into(),
            protocol_port: 81,
            ..config.listeners[0].clone()
        };
        config.listeners.push(second);
        config
    };
    let mut scene = Scene::new(&with_two(&[("a", 1)]));
    let site = scene.site();
    let mut one = with_two(&[("b", 1)]);
    one.listeners.remove(0);
    scene.load(&one);
    let b = scene.member("b");
    scene.health(&[(b, true)]);
    let held = site.pool().unwrap().pick(Ask::default()).unwrap();
    assert_eq!(&*held.member().name(), "b");
}

/// R6.7-14: a site that stays shows the new timeouts to those who hold it.
#[test]
fn settings_change_in_place() {
    let mut scene = Scene::new(&config("app", &[("a", 1)], RR));
    let site = scene.site();
    let mut other = config("app", &[("a", 1)], RR);
    other.listeners[0].keepalive_timeout = Duration::from_secs(7);
    scene.load(&other);
    assert_eq!(site.keepalive_timeout(), Duration::from_secs(7));
    assert_eq!(scene.view.describe().len(), 2);
    assert!(scene.view.describe()[0].contains("7s"));
}

/// R5.12-1: another algorithm decides from the next request on; requests under way count for it.
#[test]
fn the_algorithm_changes_under_load() {
    let mut scene = Scene::new(&config("app", &[("a", 1), ("b", 1)], RR));
    let pool = scene.site().pool().unwrap();
    let held: Vec<Held> = (0..6)
        .map(|_| pool.pick(Ask::default()).unwrap())
        .filter(|held| &*held.member().name() == "a")
        .collect();
    assert_eq!(held.len(), 3);
    scene.load(&config("app", &[("a", 1), ("b", 1)], Algorithm::LeastConnections));
    let three: Vec<Held> = (0..3).map(|_| pool.pick(Ask::default()).unwrap()).collect();
    assert!(three.iter().all(|held| &*held.member().name() == "b"));
    drop(held);
    assert_eq!(&*pool.pick(Ask::default()).unwrap().member().name(), "a");
    scene.load(&config("app", &[("a", 1), ("b", 1)], Algorithm::SourceIp));
    let picks = |hash| pool.pick(Ask { hash, tried: &[] }).unwrap().member().handle;
    assert!((0..100).all(|n| picks(n << 57) == picks(n << 57)));
}

/// Slow start: a member that joins grows to its weight, one that was there from the start has it.
#[test]
fn members_that_join_or_return_begin_slowly() {
    let minute = Some(SlowStart { duration: Duration::from_secs(60) });
    let slow = |members: &[(&str, u8)]| {
        let mut config = checked(config("app", members, RR));
        config.pools[0].slow_start = minute;
        config
    };
    let mut scene = Scene::new(&slow(&[("a", 1), ("b", 1)]));
    scene.settled = false;
    let (a, b) = (scene.member("a"), scene.member("b"));
    scene.health(&[(a, true), (b, true)]);
    scene.settled = true;
    assert!(!scene.view.step(scene.now), "nobody grows at the start");
    assert_eq!(scene.shares(200)["b"], 100);
    scene.health(&[(b, false)]);
    scene.now = scene.now.plus(Duration::from_secs(5));
    scene.health(&[(b, true)]);
    let early = scene.shares(1010)["b"];
    assert!((9..=11).contains(&early), "a hundredth of the weight: {early}");
    scene.now = scene.now.plus(Duration::from_secs(30));
    assert!(scene.view.step(scene.now));
    let half = scene.shares(1500)["b"];
    assert!((498..=502).contains(&half), "{half}");
    scene.now = scene.now.plus(Duration::from_secs(30));
    assert!(!scene.view.step(scene.now), "it has grown");
    assert_eq!(scene.shares(200)["b"], 100);
    // Joining by a reload is the same; without slow start it is all there at once.
    scene.load(&slow(&[("a", 1), ("b", 1), ("c", 1)]));
    let c = scene.member("c");
    scene.health(&[(c, true)]);
    assert!(scene.shares(201).get("c").copied().unwrap_or(0) <= 2);
    scene.load(&checked(config("app", &[("a", 1), ("b", 1), ("c", 1)], RR)));
    assert_eq!(scene.shares(300)["c"], 100);
}

/// Pools that share requests: exact by weight, each shard from a place of its own, and a reload
/// that keeps the policy keeps its place.
#[test]
fn shares_of_pools_keep_their_place() {
    use crate::policy::{Fields, RequestView};
    struct None;
    impl Fields for None {
        fn any(&self, _: &[u8], _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
        fn any_cookie(&self, _: &[u8], _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
    }
    let with = |weights: &[(usize, u8)], other: &str| {
        let mut all = config("a", &[("x", 1)], RR);
        all.pools.push(config("b", &[("y", 1)], RR).pools.remove(0));
        let policy = |name: &str, rules, action| model::Policy {
            id: model::derive_id("l7policy", "", name),
            name: name.into(),
            listener: 0,
            priority: Option::None,
            rules,
            action,
        };
        let never = model::Rule {
            kind: model::RuleKind::Method,
            compare: model::Compare::EqualTo,
            values: vec![other.into()],
            invert: false,
        };
        all.policies = vec![
            policy("share", vec![], model::Action::Pools(weights.to_vec())),
            policy("other", vec![never], model::Action::Pools(vec![(0, 1)])),
        ];
        all
    };
    let mut scene = Scene::new(&with(&[(0, 3), (1, 1)], "PUT"));
    let take = |scene: &Scene, n: usize| -> String {
        let view = RequestView {
            method: b"GET",
            host: b"",
            path: b"/",
            query: b"",
            source: std::net::Ipv4Addr::LOCALHOST.into(),
            fields: &None,
        };
        let routes = scene.site().routes().unwrap();
        let way = |_| match routes.find(&view, &mut Vec::new()) {
            Some((_, Way::Pool(Some(pool)))) => pool.name().to_string(),
            other => panic!("{other:?}"),
        };
        (0..n).map(way).collect()
    };
    let cycle = take(&scene, 4);
    assert_eq!((cycle.matches('a').count(), cycle.matches('b').count()), (3, 1), "{cycle}");
    let first = take(&scene, 2);
    scene.load(&with(&[(0, 3), (1, 1)], "PATCH"));
    let rest = take(&scene, 2);
    assert_eq!(first + &rest, cycle, "the reload changed another policy");
    scene.load(&with(&[(0, 0), (1, 1)], "PATCH"));
    assert_eq!(take(&scene, 3), "bbb");
    assert!(scene.view.describe()[0].ends_with("policies share to several pools and other to a"));
}

/// C12, R11.2-2: a binding is dropped when its member has weight 0, is down or gone, and holds
/// while members come and go beside it; the first choice for a session is the same on every shard.
#[test]
fn sessions_keep_their_member_while_it_is_usable() {
    let sticky = |members: &[(&str, u8)]| {
        let mut config = checked(config("app", members, RR));
        config.pools[0].persistence = Some(model::Persistence {
            kind: model::PersistenceKind::AppCookie("sid".into()),
            timeout: Duration::from_secs(60),
            cookie_name: String::new(),
        });
        config
    };
    let mut scene = Scene::new(&sticky(&[("a", 1), ("b", 1)]));
    let (a, b) = (scene.member("a"), scene.member("b"));
    scene.health(&[(a, true), (b, true)]);
    let pool = scene.site().pool().unwrap();
    let bound = || {
        let held = pool.bound(&pool.stickiness().unwrap(), b.number());
        held.map(|held| held.member().name().to_string())
    };
    assert_eq!(bound().as_deref(), Some("b"));
    scene.health(&[(b, false)]);
    assert_eq!(bound(), None);
    scene.health(&[(b, true)]);
    scene.load(&sticky(&[("c", 1), ("a", 1), ("b", 1)]));
    assert_eq!(bound().as_deref(), Some("b"), "the same bindings, another place in the list");
    scene.load(&sticky(&[("c", 1), ("a", 1), ("b", 0)]));
    assert_eq!(bound(), None);
    let other = View::new(1, 99);
    let diff = State::default().diff(&scene.state);
    other.apply(&diff, &scene.board, scene.now, false);
    let there = other.site(scene.site().handle()).unwrap().pool().unwrap();
    for session in 1..100 {
        let first = |pool: &Pool| {
            let held = pool.prefer(&pool.stickiness().unwrap(), session).unwrap();
            held.member().handle
        };
        assert_eq!(first(&pool), first(&there));
    }
    scene.load(&sticky(&[("a", 1)]));
    assert_eq!(bound(), None);
    scene.load(&checked(config("app", &[("a", 1)], RR)));
    assert!(!pool.is_sticky());
}
