//! Tests of policies in the desired state: conflicts, what a reload changes, what stays the same.

use crate::control::State;
use crate::model::{self, Action, Compare, Config, FixedResponse, Handles, Policy, Rule, RuleKind};

fn policy(name: &str, path: &str, action: Action) -> Policy {
    Policy {
        id: model::derive_id("l7policy", "", name),
        name: name.into(),
        listener: 0,
        priority: None,
        rules: vec![
            Rule {
                kind: RuleKind::Path,
                compare: Compare::EqualTo,
                values: vec![path.into()],
                invert: false,
            },
            Rule {
                kind: RuleKind::Method,
                compare: Compare::EqualTo,
                values: vec!["GET".into()],
                invert: false,
            },
        ],
        action,
    }
}

fn fixed(status_code: u16) -> Action {
    Action::Fixed(FixedResponse { status_code, ..FixedResponse::default() })
}

fn config(policies: Vec<Policy>) -> Config {
    let pool = |name: &str| model::Pool {
        id: model::derive_id("pool", "", name),
        name: name.into(),
        monitor: Some(model::Monitor {
            kind: model::MonitorKind::Tcp,
            delay: std::time::Duration::from_secs(1),
            timeout: std::time::Duration::from_secs(1),
            rise: 1,
            fall: 1,
            port: None,
        }),
        ..model::Pool::default()
    };
    Config {
        balancers: vec![model::Balancer::default()],
        listeners: vec![model::Listener {
            id: model::derive_id("listener", "default", "web"),
            name: "web".into(),
            protocol_port: 80,
            ..model::Listener::default()
        }],
        pools: vec![pool("a"), pool("b")],
        policies,
        ..Config::default()
    }
}

/// A state that goes from configuration to configuration.
#[derive(Default)]
struct Scene {
    state: State,
    handles: Handles,
    recover: bool,
}

impl Scene {
    /// Names of the active policies, then of those in fault.
    fn load(&mut self, policies: Vec<Policy>) -> (Vec<String>, Vec<String>) {
        let mut config = config(policies);
        config.compat.policies_recover = self.recover;
        let next = self.state.next(&config, &|_| vec![0], &mut self.handles);
        let mut replica = self.state.clone();
        replica.apply(&self.state.diff(&next));
        assert_eq!(replica, next);
        self.state = next;
        let (_, listener) = self.state.listeners().next().unwrap();
        let active = listener.routes.table().map(|table| table.policies()).unwrap_or_default();
        (
            active.iter().map(|policy| policy.name.to_string()).collect(),
            listener.routes.faults().iter().map(|fault| fault.name.clone()).collect(),
        )
    }
}

fn names(active: &[&str], faults: &[&str]) -> (Vec<String>, Vec<String>) {
    let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    (list(active), list(faults))
}

/// R10.3-1 to R10.3-3 (C30): the later of two alike is in fault, stays so when the earlier goes,
/// and is cured by being deleted and added again. The order of conditions doesn't matter.
#[test]
fn conflicts_stick() {
    let a = policy("a", "/x", fixed(200));
    let mut b = policy("b", "/x", fixed(201));
    b.rules.reverse();
    let mut scene = Scene::default();
    assert_eq!(scene.load(vec![a.clone()]), names(&["a"], &[]));
    assert_eq!(scene.load(vec![b.clone(), a.clone()]), names(&["a"], &["b"]));
    assert_eq!(scene.load(vec![b.clone()]), names(&[], &["b"]));
    assert_eq!(scene.load(vec![b.clone(), a.clone()]), names(&["a"], &["b"]));
    assert_eq!(scene.load(vec![]), names(&[], &[]));
    assert_eq!(scene.load(vec![b.clone(), a.clone()]), names(&["b"], &["a"]), "the first of two");
    assert_eq!(scene.load(vec![b.clone()]), names(&["b"], &[]));
    // Other conditions are another policy in all but name.
    assert_eq!(scene.load(vec![b, a]), names(&["b"], &["a"]));
    let other = policy("a", "/y", fixed(200));
    assert_eq!(scene.load(vec![other]), names(&["a"], &[]));
}

/// C30, `policy_conflict = "recover"`.
#[test]
fn conflicts_recover_if_asked_to() {
    let (a, b) = (policy("a", "/x", fixed(200)), policy("b", "/x", fixed(201)));
    let mut scene = Scene { recover: true, ..Scene::default() };
    assert_eq!(scene.load(vec![a.clone(), b.clone()]), names(&["a"], &["b"]));
    assert_eq!(scene.load(vec![b.clone(), a.clone()]), names(&["a"], &["b"]));
    assert_eq!(scene.load(vec![b]), names(&["b"], &[]));
}

/// The same policies are the very same table; what changes is said, and is one change of the
/// listener.
#[test]
fn reloads() {
    let to = |pool| Action::Pools(vec![(pool, 1)]);
    let mut scene = Scene::default();
    scene.load(vec![policy("p", "/p", to(0)), policy("q", "/q", fixed(200))]);
    let before = scene.state.clone();
    let table = |state: &State| {
        let (_, listener) = state.listeners().next().unwrap();
        std::sync::Arc::clone(listener.routes.table().unwrap())
    };
    scene.load(vec![policy("p", "/p", to(0)), policy("q", "/q", fixed(200))]);
    assert_eq!(before.diff(&scene.state).changes, []);
    assert!(std::sync::Arc::ptr_eq(&table(&before), &table(&scene.state)));
    assert!(scene.state.pools().any(|(_, pool)| pool.name == "a" && pool.is_checked()));
    assert!(scene.state.pools().any(|(_, pool)| pool.name == "b" && !pool.is_checked()));
    scene.load(vec![policy("q", "/q", fixed(201)), policy("r", "/r", to(1))]);
    let changes = before.diff(&scene.state).changes;
    let listeners = changes.iter().filter(|c| matches!(c, crate::control::Change::Listener(..)));
    assert_eq!(listeners.count(), 1);
    assert_eq!(
        before.describe(&scene.state),
        ["listener web: policy r added, policy q changed, policy p removed"]
    );
    let before = scene.state.clone();
    scene.load(vec![policy("r", "/r", to(1)), policy("q", "/q", fixed(201))]);
    let line = &before.describe(&scene.state)[0];
    assert_eq!(line, "listener web: names or order of policies changed");
    let many = (0..9).map(|n| policy(&format!("n{n}"), &format!("/{n}"), fixed(200))).collect();
    let before = scene.state.clone();
    scene.load(many);
    let line = &before.describe(&scene.state)[0];
    assert!(line.contains("policies n0 and n1 and n2 and n3 and n4 and 4 more added"), "{line}");
}
