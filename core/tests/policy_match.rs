#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! The compiled policies against a matcher that tries every policy in turn and sorts what it finds:
//! for any policies and any requests both must choose the same (R10.5-3).

use std::cmp::Reverse;
use std::net::IpAddr;

use proptest::prelude::*;
use weir_core::model::{self, Action, Compare, FixedResponse, Handle, Policy, Rule, RuleKind};
use weir_core::policy::{Fields, Pattern, RequestView, Resolve, Router, normal};

/// No pools; listeners have port 443.
struct Nothing;

impl Resolve for Nothing {
    fn pool(&self, _: usize) -> Option<Handle> {
        None
    }

    fn port(&self, _: usize) -> u16 {
        443
    }
}

/// A request.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    host: String,
    path: String,
    query: String,
    team: Option<String>,
    source: IpAddr,
}

impl Fields for Request {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        name == b"x-team" && self.team.as_ref().is_some_and(|team| test(team.as_bytes()))
    }

    fn any_cookie(&self, _: &[u8], _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

fn rule(kind: RuleKind, compare: Compare, values: Vec<String>, invert: bool) -> Rule {
    Rule { kind, compare, values, invert }
}

fn policies(rules: Vec<(Vec<Rule>, Option<u16>, bool)>) -> Vec<Policy> {
    let policy = |(at, (rules, priority, to_listener)): (usize, _)| Policy {
        id: model::Id::from_u128(at as u128 + 1),
        name: at.to_string(),
        listener: 0,
        priority,
        rules,
        action: match to_listener {
            true => Action::Listener(0),
            false => Action::Fixed(FixedResponse::default()),
        },
    };
    rules.into_iter().enumerate().map(policy).collect()
}

fn compiled(policies: &[Policy], request: &Request) -> Option<String> {
    let router = Router::new(policies, &Nothing);
    let (mut host, mut path) = (Vec::new(), Vec::new());
    let view = RequestView {
        method: request.method.as_bytes(),
        host: normal::host(request.host.as_bytes(), &mut host),
        path: normal::path(request.path.as_bytes(), &mut path),
        query: request.query.as_bytes(),
        source: request.source,
        fields: request,
    };
    router.find(&view, &mut Vec::new()).map(|policy| policy.name.to_string())
}

/// Does `value` match, as the words of the interface say it?
fn matches(kind: &RuleKind, compare: Compare, value: &str, request: &Request) -> bool {
    let text = |what: &str| match compare {
        Compare::EqualTo => what == value,
        Compare::StartsWith => what.starts_with(value),
        Compare::Regex => Pattern::new(value).unwrap().is_match(what.as_bytes()),
    };
    match kind {
        RuleKind::HostName => match value.strip_prefix("*.") {
            Some(rest) => request.host.strip_suffix(rest).is_some_and(|r| r.ends_with('.')),
            None => request.host == value,
        },
        RuleKind::Path => text(&request.path),
        RuleKind::Method => request.method == value,
        RuleKind::Header(_) => request.team.as_deref().is_some_and(text),
        RuleKind::QueryString(key) => request.query.split('&').any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            !pair.is_empty() && name == key && text(value)
        }),
        RuleKind::Cookie(_) => false,
        RuleKind::SourceIp => value.parse::<ipnet::IpNet>().unwrap().contains(&request.source),
    }
}

/// Tries them all.
fn naive(policies: &[Policy], request: &Request) -> Option<String> {
    let named = |policy: &Policy, is: fn(&RuleKind) -> bool| -> Option<Rule> {
        policy.rules.iter().find(|rule| is(&rule.kind) && !rule.invert).cloned()
    };
    let rank = |(at, policy): (usize, &Policy)| {
        let holds = policy.rules.iter().all(|rule| {
            let any = |value: &String| matches(&rule.kind, rule.compare, value, request);
            rule.values.iter().any(any) != rule.invert
        });
        let best = |rule: Option<Rule>, class: fn(&Rule, &str) -> u8| match rule {
            None => Some((9, Reverse(0))),
            Some(rule) => (rule.values.iter())
                .filter(|value| matches(&rule.kind, rule.compare, value, request))
                .map(|value| (class(&rule, value), Reverse(value.len())))
                .min(),
        };
        let host = best(named(policy, |kind| *kind == RuleKind::HostName), |_, value| {
            u8::from(value.starts_with('*'))
        });
        let path =
            best(named(policy, |kind| *kind == RuleKind::Path), |rule, _| rule.compare as u8);
        let late = !matches!(policy.action, Action::Listener(_));
        let priority = policy.priority.unwrap_or(u16::MAX);
        holds.then_some((late, priority, host, path, at, policy.name.clone()))
    };
    policies.iter().enumerate().filter_map(rank).min().map(|(.., name)| name)
}

fn hosts() -> impl Strategy<Value = Rule> {
    let value = prop::sample::select(vec!["t", "a.t", "b.a.t", "*.t", "*.a.t", "*.b.a.t"]);
    (prop::collection::vec(value.prop_map(str::to_owned), 1..4), prop::bool::weighted(0.1))
        .prop_map(|(values, invert)| rule(RuleKind::HostName, Compare::EqualTo, values, invert))
}

fn paths() -> impl Strategy<Value = Rule> {
    let compare = prop::sample::select(vec![Compare::EqualTo, Compare::StartsWith]);
    let plain = (compare, prop::collection::vec("/(a|b|/){0,4}", 1..4));
    let pattern = prop::collection::vec("\\^?/?(a|b|\\.)[*+?]?b?\\$?", 1..3);
    let pattern = pattern.prop_map(|values| (Compare::Regex, values));
    (prop_oneof![3 => plain, 1 => pattern], prop::bool::weighted(0.1))
        .prop_map(|((compare, values), invert)| rule(RuleKind::Path, compare, values, invert))
}

fn others() -> impl Strategy<Value = Rule> {
    let compare = prop::sample::select(vec![Compare::EqualTo, Compare::StartsWith, Compare::Regex]);
    let kind = prop::sample::select(vec![
        RuleKind::Header("x-team".into()),
        RuleKind::QueryString("q".into()),
    ]);
    let text = (kind, compare, prop::collection::vec("(a|b){1,2}", 1..3));
    let method = Just((RuleKind::Method, Compare::EqualTo, vec!["GET".to_owned()]));
    let network = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0"]);
    let source = network.prop_map(|n| (RuleKind::SourceIp, Compare::EqualTo, vec![n.to_owned()]));
    (prop_oneof![text, method, source], any::<bool>())
        .prop_map(|((kind, compare, values), invert)| rule(kind, compare, values, invert))
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let maybe = |chance, rule: BoxedStrategy<Rule>| prop::option::weighted(chance, rule);
    (maybe(0.6, hosts().boxed()), maybe(0.8, paths().boxed()), maybe(0.2, others().boxed()))
        .prop_map(|(host, path, other)| host.into_iter().chain(path).chain(other).collect())
}

fn requests() -> impl Strategy<Value = Request> {
    let host = prop::sample::select(vec!["", "t", "a.t", "b.a.t", "c.b.a.t", "x.t", "u"]);
    let source = prop::sample::select(vec!["10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::1"]);
    let method = prop::sample::select(vec!["GET", "POST"]);
    let team = prop::option::of("(a|b){0,3}");
    (method, host, "/(a|b|/){0,6}", "(q=a|q=b|q|r=a)?(&q=ab)?", team, source).prop_map(
        |(method, host, path, query, team, source)| Request {
            method,
            host: host.to_owned(),
            path,
            query,
            team,
            source: source.parse().unwrap(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("WEIR_COUNTS").is_some() { 10_000 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Many policies, few hosts and paths: they overlap in every way.
    #[test]
    fn the_index_chooses_like_the_list(
        rules in prop::collection::vec(
            (rules(), prop::option::weighted(0.3, 1u16..4), prop::bool::weighted(0.1)),
            0..24,
        ),
        requests in prop::collection::vec(requests(), 1..12),
    ) {
        let policies = policies(rules);
        for request in &requests {
            let (chosen, wanted) = (compiled(&policies, request), naive(&policies, request));
            prop_assert_eq!(chosen, wanted, "{:?}", request);
        }
    }
}

/// The order, written out: each line's policy goes before all below it.
#[test]
fn the_order_of_policies() {
    let host = |value: &str| rule(RuleKind::HostName, Compare::EqualTo, vec![value.into()], false);
    let path = |compare, value: &str| rule(RuleKind::Path, compare, vec![value.into()], false);
    let equal = |value| path(Compare::EqualTo, value);
    let starts = |value| path(Compare::StartsWith, value);
    let regex = |value| path(Compare::Regex, value);
    let in_order = [
        (vec![], None, true),
        (vec![], Some(1), false),
        (vec![host("*.t")], Some(2), false),
        (vec![host("b.a.t"), equal("/a/b")], None, false),
        (vec![host("b.a.t"), starts("/a/")], None, false),
        (vec![host("b.a.t"), starts("/a")], None, false),
        (vec![host("b.a.t"), regex("^/a/b$")], None, false),
        (vec![host("b.a.t"), regex("b$")], None, false),
        (vec![host("b.a.t")], None, false),
        (vec![host("*.a.t"), equal("/a/b")], None, false),
        (vec![host("*.t"), equal("/a/b")], None, false),
        (vec![equal("/a/b")], None, false),
        (vec![starts("/")], None, false),
        (vec![regex(".")], None, false),
        (vec![], None, false),
        (vec![], None, false),
    ];
    let request = Request {
        method: "GET",
        host: "b.a.t".into(),
        path: "/a/b".into(),
        query: String::new(),
        team: None,
        source: "10.0.0.1".parse().unwrap(),
    };
    for from in 0..in_order.len() {
        // In the file they stand the other way round, but for those that nothing else orders.
        let mut rest: Vec<_> = in_order.iter().skip(from).cloned().enumerate().collect();
        if rest.len() > 2 {
            rest.reverse();
        }
        let names: Vec<usize> = rest.iter().map(|(at, _)| *at).collect();
        let policies = policies(rest.into_iter().map(|(_, policy)| policy).collect());
        let chosen: usize = compiled(&policies, &request).unwrap().parse().unwrap();
        assert_eq!(names[chosen], 0, "from line {from}");
    }
}

/// R10.5-3: however a client writes host and path, it meets the same policy.
#[test]
fn disguises() {
    let rules = vec![
        rule(RuleKind::HostName, Compare::EqualTo, vec!["shop.example".into()], false),
        rule(RuleKind::Path, Compare::StartsWith, vec!["/admin/".into()], false),
    ];
    let policies = policies(vec![(rules, None, false)]);
    let met = |host: &str, path: &str| {
        let (host, path) = (host.into(), path.into());
        let source = "10.0.0.1".parse().unwrap();
        let (query, team) = (String::new(), None);
        compiled(&policies, &Request { method: "GET", host, path, query, team, source }).is_some()
    };
    for host in ["shop.example", "SHOP.example:8080", "shop.example.", "Shop.Example.:1"] {
        for path in ["/admin/", "/%61dmin/x", "/x/../admin/", "/./admin/x", "/x/%2e%2E/admin/"] {
            assert!(met(host, path), "{host} {path}");
        }
        for path in ["/admin", "/Admin/", "/admin%2Fx", "/x/admin/", "/admin/../x"] {
            assert!(!met(host, path), "{host} {path}");
        }
    }
    assert!(!met("shop.example.org", "/admin/") && !met("", "/admin/"));
}
