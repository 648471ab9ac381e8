//! Tests of the desired state: identity over changes, and the way from any state to any other.

use proptest::prelude::*;

use super::*;
use crate::model::{self, Config, Handle, Handles, Monitor, MonitorKind};

fn member(port: u16, weight: u8) -> model::Member {
    let address = std::net::SocketAddr::from(([10, 0, 0, 1], port));
    let name = address.to_string();
    model::Member { id: model::derive_id("member", "", &name), name, address, weight }
}

fn pool(name: &str, members: Vec<model::Member>) -> model::Pool {
    let rename = |mut m: model::Member| {
        m.id = model::derive_id("member", "", &format!("{name}\n{}", m.name));
        m
    };
    model::Pool {
        id: model::derive_id("pool", "", name),
        name: name.into(),
        members: members.into_iter().map(rename).collect(),
        ..model::Pool::default()
    }
}

fn listener(name: &str, port: u16, default_pool: Option<usize>) -> model::Listener {
    model::Listener {
        id: model::derive_id("listener", "default", name),
        name: name.into(),
        protocol_port: port,
        default_pool,
        ..model::Listener::default()
    }
}

fn config(listeners: Vec<model::Listener>, pools: Vec<model::Pool>) -> Config {
    Config { balancers: vec![model::Balancer::default()], listeners, pools, ..Config::default() }
}

fn monitor() -> Monitor {
    let second = std::time::Duration::from_secs(1);
    let kind = MonitorKind::Tcp;
    Monitor { kind, delay: second, timeout: second, rise: 3, fall: 3, port: None }
}

fn next(state: &State, config: &Config, handles: &mut Handles) -> State {
    state.next(config, &|_| vec![0, 1], handles)
}

fn handle_of(state: &State, name: &str) -> Handle {
    let listeners = state.listeners().map(|(h, l)| (h, l.name.clone()));
    let pools = state.pools().map(|(h, p)| (h, p.name.clone()));
    let members = state.members().map(|(_, m)| (m.handle, m.name.clone()));
    listeners.chain(pools).chain(members).find(|(_, n)| n == name).map(|(h, _)| h).unwrap()
}

/// The order of the file and new neighbours are no change of an object.
#[test]
fn what_did_not_change_is_the_very_same() {
    let mut handles = Handles::default();
    let a = config(
        vec![listener("web", 80, Some(0)), listener("api", 81, Some(1))],
        vec![pool("app", vec![member(1, 1), member(2, 1)]), pool("api", vec![member(3, 1)])],
    );
    let b = config(
        vec![listener("new", 82, None), listener("api", 81, Some(1)), listener("web", 80, Some(2))],
        vec![
            pool("other", vec![]),
            pool("api", vec![member(3, 1)]),
            pool("app", vec![member(1, 1), member(2, 1)]),
        ],
    );
    let old = next(&State::default(), &a, &mut handles);
    let new = next(&old, &b, &mut handles);
    let names: Vec<String> = (old.diff(&new).changes.iter())
        .map(|change| match change {
            Change::Pool(_, pool) => pool.name.clone(),
            Change::Listener(_, listener) => listener.name.clone(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["other", "new"]);
    assert_eq!(new.version(), 2);
}

#[test]
fn listeners_are_known_by_their_socket_and_names_are_free() {
    let mut handles = Handles::default();
    let old =
        next(&State::default(), &config(vec![listener("web", 80, None)], vec![]), &mut handles);
    let renamed = next(&old, &config(vec![listener("www", 80, None)], vec![]), &mut handles);
    assert_eq!(handle_of(&old, "web"), handle_of(&renamed, "www"));
    assert_eq!(
        old.describe(&renamed),
        ["listener web: name \"web\" → \"www\""]
            .map(|line| line.replace("listener web", "listener www"))
    );
    let moved = next(&old, &config(vec![listener("web", 81, None)], vec![]), &mut handles);
    assert_ne!(handle_of(&old, "web"), handle_of(&moved, "web"));
    let line = &old.describe(&moved)[0];
    assert!(
        line.contains(":80") && line.contains(":81") && line.contains("new listener"),
        "{line}"
    );
}

#[test]
fn listeners_on_free_ports_are_known_by_name() {
    let mut handles = Handles::default();
    let two = config(vec![listener("a", 0, None), listener("b", 0, None)], vec![]);
    let old = next(&State::default(), &two, &mut handles);
    let swapped = config(vec![listener("b", 0, None), listener("a", 0, None)], vec![]);
    let new = next(&old, &swapped, &mut handles);
    assert_eq!(old.diff(&new).changes, []);
}

#[test]
fn a_given_id_keeps_a_pool_over_a_new_name() {
    let mut handles = Handles::default();
    let id = model::Id::from_u128(7);
    let named = |name: &str| model::Pool { id, ..pool(name, vec![member(1, 1)]) };
    let old = next(&State::default(), &config(vec![], vec![named("app")]), &mut handles);
    let new = next(&old, &config(vec![], vec![named("shop")]), &mut handles);
    assert_eq!(handle_of(&old, "app"), handle_of(&new, "shop"));
    assert_eq!(handle_of(&old, "10.0.0.1:1"), handle_of(&new, "10.0.0.1:1"));
    assert_eq!(old.describe(&new), ["pool shop: name \"app\" → \"shop\""]);
}

#[test]
fn members_are_known_by_address_and_port() {
    let mut handles = Handles::default();
    let old = config(vec![], vec![pool("app", vec![member(1, 1), member(2, 1)])]);
    let old = next(&State::default(), &old, &mut handles);
    let new = config(vec![], vec![pool("app", vec![member(2, 5), member(3, 1)])]);
    let new = next(&old, &new, &mut handles);
    assert_eq!(handle_of(&old, "10.0.0.1:2"), handle_of(&new, "10.0.0.1:2"));
    assert_eq!(
        old.describe(&new),
        [
            "pool app: member 10.0.0.1:2: weight 1 → 5",
            "pool app: member 10.0.0.1:3 added, 10.0.0.1:3 weight 1",
            "pool app: member 10.0.0.1:1 removed",
        ]
    );
}

/// C36 and R7.10-1: under checks a new member is down until its first success; R8.1-3: without
/// checks all are up; R8.1-17: an unattached pool is not checked.
#[test]
fn new_members_start_down_where_checks_are() {
    let mut handles = Handles::default();
    let checked = |members| model::Pool { monitor: Some(monitor()), ..pool("app", members) };
    let with = |pool| config(vec![listener("web", 80, Some(0))], vec![pool]);
    let mut one = next(&State::default(), &with(checked(vec![member(1, 1)])), &mut handles);
    let first = handle_of(&one, "10.0.0.1:1");
    assert!(!one.is_up(first));
    assert!(one.set_health([(first, true)]));
    assert!(!one.set_health([(first, true)]), "no change, no version");
    assert_eq!(one.version(), 2);
    let two = next(&one, &with(checked(vec![member(1, 1), member(2, 1)])), &mut handles);
    assert!(two.is_up(first), "health survives a reload");
    assert!(!two.is_up(handle_of(&two, "10.0.0.1:2")));
    let off = next(&two, &with(pool("app", vec![member(1, 1), member(2, 1)])), &mut handles);
    assert!(off.members().all(|(_, member)| off.is_up(member.handle)));
    let on = checked(vec![member(1, 1), member(2, 1), member(3, 1)]);
    let on = next(&off, &with(on), &mut handles);
    assert!(on.is_up(first), "checks that begin cut nobody off");
    assert!(!on.is_up(handle_of(&on, "10.0.0.1:3")));
    let idle = next(&on, &config(vec![], vec![checked(vec![member(1, 1)])]), &mut handles);
    assert!(!idle.pools().any(|(_, pool)| pool.is_checked()));
}

#[test]
fn verdicts_on_members_that_are_gone_change_nothing() {
    let mut handles = Handles::default();
    let mut state = next(&State::default(), &config(vec![], vec![]), &mut handles);
    assert!(!state.set_health([(handles.fresh(), false)]));
    assert_eq!(state.version(), 1);
}

/// Members of which pools have to be asked before a file can go into effect: of those that nobody
/// has found up yet, whether the listener turns to another pool or the pool to other members.
#[test]
fn dead_pools_are_those_that_would_serve_if_they_were_up() {
    let mut handles = Handles::default();
    let checked =
        |name: &str, members| model::Pool { monitor: Some(monitor()), ..pool(name, members) };
    let state = |former: &State, handles: &mut Handles, at, members: Vec<model::Member>| {
        let pools = vec![checked("a", members), checked("b", vec![member(9, 1), member(8, 0)])];
        next(former, &config(vec![listener("web", 80, Some(at))], pools), handles)
    };
    let two = vec![member(1, 1), member(2, 1)];
    let mut one = state(&State::default(), &mut handles, 0, two);
    let names = |state: &State| -> Vec<String> {
        let dead = state.members_of_dead_pools();
        let dead = state.members().filter(|(_, member)| dead.contains(&member.handle));
        dead.map(|(_, member)| member.name.clone()).collect()
    };
    assert_eq!(names(&one), ["10.0.0.1:1", "10.0.0.1:2"]);
    one.set_health([(handle_of(&one, "10.0.0.1:1"), true)]);
    assert_eq!(names(&one), [""; 0]);
    let joined = state(&one, &mut handles, 0, vec![member(1, 1), member(3, 1)]);
    assert_eq!(names(&joined), [""; 0], "the others serve while a new one is asked (C36)");
    let other = state(&one, &mut handles, 0, vec![member(3, 1)]);
    assert_eq!(names(&other), ["10.0.0.1:3"]);
    let idle = state(&one, &mut handles, 0, vec![member(1, 0), member(3, 1)]);
    assert_eq!(names(&idle), ["10.0.0.1:1", "10.0.0.1:3"], "weight 0 serves nobody");
    let off = state(&one, &mut handles, 0, vec![member(1, 0)]);
    assert_eq!(names(&off), [""; 0], "nothing to wait for");
    let turned = state(&one, &mut handles, 1, vec![member(1, 1)]);
    assert_eq!(names(&turned), ["10.0.0.1:9", "10.0.0.1:8"]);
    assert_eq!(turned.following(&one).version(), one.version() + 1);
}

/// Shards forget the members of a pool that no listener uses, and who is out with them; so does the
/// state, or a listener that takes the pool again would have it out here and in there.
#[test]
fn a_pool_off_its_listeners_has_nobody_ejected() {
    let mut handles = Handles::default();
    let watched = model::OutlierDetection { enable: true, ..model::OutlierDetection::default() };
    let app = model::Pool { outlier_detection: watched, ..pool("app", vec![member(1, 1)]) };
    let on = config(vec![listener("web", 80, Some(0))], vec![app.clone()]);
    let mut one = next(&State::default(), &on, &mut handles);
    let out = handle_of(&one, "10.0.0.1:1");
    assert!(one.set_ejected(&[(out, true)]) && one.is_ejected(out));
    let same = next(&one, &on, &mut handles);
    assert!(same.is_ejected(out), "stays out while the pool is used");
    let mut off = next(&one, &config(vec![listener("web", 80, None)], vec![app]), &mut handles);
    assert!(!off.is_ejected(out) && off.watched_members().is_empty());
    assert!(!off.set_ejected(&[(out, true)]), "nobody is watched");
    assert!(!next(&off, &on, &mut handles).is_ejected(out));
}

/// Pools go before the health of their members: who still uses one keeps what was known (C37).
#[test]
fn a_diff_drops_pools_before_it_forgets_their_health() {
    let mut handles = Handles::default();
    let checked = model::Pool { monitor: Some(monitor()), ..pool("app", vec![member(1, 1)]) };
    let old = config(vec![listener("web", 80, Some(0))], vec![checked]);
    let old = next(&State::default(), &old, &mut handles);
    let new = next(&old, &config(vec![], vec![]), &mut handles);
    let pool = handle_of(&old, "app");
    let changes = old.diff(&new).changes;
    assert_eq!(changes[0], Change::DropPool(pool));
    assert!(matches!(changes[1], Change::Health { up: true, .. }));
    assert_eq!(changes.len(), 3);
}

/// Any small configuration: pools with or without checks, listeners that use them or not.
fn configs() -> impl Strategy<Value = Config> {
    let members = prop::collection::btree_map(1u16..6, 0u8..3, 0..5);
    let one_pool = (members, any::<bool>(), 0u8..3);
    let pools = prop::collection::btree_map(0u8..4, one_pool, 0..4);
    let listeners = prop::collection::btree_map(80u16..85, (0usize..5, 0u64..2), 0..4);
    let policies = prop::collection::btree_map(0u8..6, (0usize..4, 0usize..5, 0u8..3), 0..5);
    (pools, listeners, policies).prop_map(|(pools, listeners, policies)| {
        let pools: Vec<_> = pools
            .into_iter()
            .map(|(name, (members, checks, algorithm))| model::Pool {
                monitor: checks.then(monitor),
                algorithm: match algorithm {
                    0 => model::Algorithm::RoundRobin,
                    1 => model::Algorithm::LeastConnections,
                    _ => model::Algorithm::SourceIp,
                },
                ..pool(&format!("p{name}"), members.iter().map(|(&p, &w)| member(p, w)).collect())
            })
            .collect();
        let count = pools.len();
        let listener = |(port, (at, seconds)): (u16, (usize, u64))| model::Listener {
            keepalive_timeout: std::time::Duration::from_secs(seconds),
            ..listener(&format!("l{port}"), port, (at < count).then_some(at))
        };
        let listeners: Vec<_> = listeners.into_iter().map(listener).collect();
        let policies = policies.into_iter().filter(|(_, (at, ..))| *at < listeners.len());
        let policies =
            policies.map(|(name, (at, target, rule))| policy(name, at, target, rule, count));
        Config { policies: policies.collect(), ..config(listeners, pools) }
    })
}

/// To a pool if there is that one, else an answer; some have the same conditions.
fn policy(name: u8, listener: usize, target: usize, rule: u8, pools: usize) -> model::Policy {
    let rule = model::Rule {
        kind: model::RuleKind::Path,
        compare: model::Compare::StartsWith,
        values: vec![format!("/{rule}")],
        invert: false,
    };
    let action = match target < pools {
        true => model::Action::Pools(vec![(target, 1)]),
        false => model::Action::Fixed(model::FixedResponse::default()),
    };
    let (id, priority) = (model::derive_id("l7policy", "", &name.to_string()), None);
    model::Policy { id, name: name.to_string(), listener, priority, rules: vec![rule], action }
}

proptest! {
    /// The way from a to b leads to b, whatever a and b are.
    #[test]
    fn a_diff_leads_where_it_should(
        configs in prop::collection::vec((configs(), any::<[bool; 8]>()), 1..6),
    ) {
        let mut handles = Handles::default();
        let mut state = State::default();
        let mut states = vec![state.clone()];
        for (config, verdicts) in configs {
            let new = next(&state, &config, &mut handles);
            let mut replica = state.clone();
            replica.apply(&state.diff(&new));
            prop_assert_eq!(&replica, &new);
            state = new;
            let members: Vec<Handle> = state.members().map(|(_, m)| m.handle).collect();
            let mut checked = state.clone();
            let ejections: Vec<(Handle, bool)> =
                members.iter().rev().copied().zip(verdicts).collect();
            checked.set_health(members.into_iter().zip(verdicts));
            checked.set_ejected(&ejections);
            replica.apply(&state.diff(&checked));
            prop_assert_eq!(&replica, &checked);
            state = checked;
            states.push(state.clone());
        }
        // Also with versions skipped, and backwards.
        for a in &states {
            for b in &states {
                let mut replica = a.clone();
                replica.apply(&a.diff(b));
                prop_assert_eq!(&replica, b);
            }
        }
    }

    /// The same file again changes nothing, and a state is that of a fresh start but for handles
    /// and health.
    #[test]
    fn the_same_again_changes_nothing(first in configs(), second in configs()) {
        // Who is in conflict depends on what was before (R10.3-2); files have no conflicts.
        let (first, second) = (without_conflicts(first), without_conflicts(second));
        let mut handles = Handles::default();
        let state = next(&State::default(), &first, &mut handles);
        prop_assert_eq!(state.diff(&next(&state, &first, &mut handles)).changes, vec![]);
        prop_assert!(state.describe(&next(&state, &first, &mut handles)).is_empty());
        let reloaded = next(&state, &second, &mut handles);
        let fresh = next(&State::default(), &second, &mut handles);
        prop_assert_eq!(shape(&reloaded), shape(&fresh));
    }
}

fn without_conflicts(mut config: Config) -> Config {
    let mut seen = std::collections::HashSet::new();
    config.policies.retain(|policy| seen.insert((policy.listener, policy.rules.clone())));
    config
}

/// A state without handles and health.
fn shape(state: &State) -> Vec<String> {
    let pool = |handle: Option<Handle>| handle.and_then(|h| state.pool(h)).map(|p| p.name.clone());
    let mut lines: Vec<String> = (state.listeners())
        .map(|(_, l)| {
            let table = l.routes.table().map(|table| table.pools().iter());
            let pools: Vec<_> = table.into_iter().flatten().map(|&h| pool(Some(h))).collect();
            format!("{} {:?} {:?} {:?} {pools:?}", l.name, l.bind, pool(l.pool), l.timeouts)
        })
        .collect();
    lines.extend(state.pools().map(|(_, p)| {
        let members: Vec<_> = p.members.iter().map(|m| (m.address, m.weight)).collect();
        format!("{} {:?} {:?} {} {members:?}", p.name, p.algorithm, p.monitor, p.attached)
    }));
    lines.sort();
    lines
}
