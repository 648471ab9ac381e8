//! Tests of `metrics`: the text is read back by a strict parser of its own.

use std::collections::{BTreeMap, BTreeSet};

use weir_core::model::{Balancer, Id, Pool};

use super::*;

/// Two listeners of the same name, a pool with a nameless, a twice named and a well named member.
fn config() -> Config {
    let balancer = |name: &str| Balancer { name: name.into(), ..Balancer::default() };
    let listener = |name: &str, balancer| Listener {
        name: name.into(),
        balancer,
        default_pool: Some(0),
        ..Listener::default()
    };
    let member = |name: &str, port: u16| Member {
        id: Id::nil(),
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        weight: 1,
    };
    let members = vec![member("", 1), member("x", 2), member("x", 3), member("a\"\\b", 4)];
    Config {
        balancers: vec![balancer("north"), balancer("south")],
        listeners: vec![listener("web", 0), listener("web", 1), listener("api", 0)],
        pools: vec![Pool { name: "app".into(), members, ..Pool::default() }],
        ..Config::default()
    }
}

/// Every series with its value; panics on anything that the format does not allow.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = "";
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(families.insert(name) && !help.is_empty(), "HELP twice or empty: {line}");
            let (typed, kind) =
                lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
            assert!(typed == name && ["counter", "gauge"].contains(&kind), "{line}");
            family = name;
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            check_key(key, family);
            assert!(series.insert(key.to_owned(), value.parse().unwrap()).is_none(), "{key} twice");
        }
    }
    assert!(text.ends_with('\n'));
    series
}

/// `name` or `name{label="value",…}` with every quote and backslash of a value escaped.
fn check_key(key: &str, family: &str) {
    let rest = key.strip_prefix(family).unwrap_or_else(|| panic!("{key} not in {family}"));
    if rest.is_empty() {
        return;
    }
    let mut rest = rest.strip_prefix('{').and_then(|r| r.strip_suffix('}')).unwrap();
    loop {
        let (label, after) = rest.split_once("=\"").unwrap();
        assert!(!label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase()), "{key}");
        let mut escaped = false;
        let end = after.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            assert!(!escaped || b"\\\"n".contains(&b), "{key}");
            escaped = b == b'\\' && !escaped;
            ends
        });
        match after[end.unwrap() + 1..].strip_prefix(',') {
            Some(next) => rest = next,
            None => return assert!(after[end.unwrap() + 1..].is_empty(), "{key}"),
        }
    }
}

fn two_shards() -> (Source, Vec<Arc<ShardObs>>) {
    let config = config();
    let shards: Vec<_> = (0..2).map(|_| Arc::new(ShardObs::new(&config))).collect();
    (Source::new(&config, shards.clone()), shards)
}

#[test]
fn every_metric_is_rendered_and_the_text_is_well_formed() {
    let (source, shards) = two_shards();
    shards[0].listeners[0].statuses.count(200);
    shards[0].pools[0][0].statuses.count(200);
    let text = source.render(false);
    let series = parse(&text);
    for metric in names::ALL {
        assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
    }
    assert_eq!(series["weir_shards"], 2.0);
    assert_eq!(series["weir_draining"], 0.0);
    assert!(series["process_start_time_seconds"] > 1.6e9);
    assert_eq!(parse(&source.render(true))["weir_draining"], 1.0);
}

#[test]
fn series_are_sums_over_the_shards() {
    let (source, shards) = two_shards();
    for (shard, n) in shards.iter().zip([3, 4]) {
        shard.listeners[2].requests.add(n);
        shard.listeners[2].active_connections.set(n);
        shard.listeners[2].statuses.count(200);
        shard.pools[0][0].bytes_sent.add(n * 10);
        shard.ring.turns.add(n);
    }
    shards[1].listeners[2].statuses.count(502);
    shards[1].pools[0][3].statuses.count(500);
    let series = parse(&source.render(false));
    assert_eq!(series[r#"weir_requests_total{listener="api"}"#], 7.0);
    assert_eq!(series[r#"weir_active_connections{listener="api"}"#], 7.0);
    assert_eq!(series[r#"weir_responses_total{listener="api",code="200"}"#], 2.0);
    assert_eq!(series[r#"weir_responses_total{listener="api",code="502"}"#], 1.0);
    assert_eq!(series[r#"weir_member_sent_bytes_total{pool="app",member="127.0.0.1:1"}"#], 70.0);
    assert_eq!(series[r#"weir_ring_turns_total{shard="0"}"#], 3.0);
    assert_eq!(series[r#"weir_ring_turns_total{shard="1"}"#], 4.0);
    let escaped = r#"weir_member_responses_total{pool="app",member="a\"\\b",code="500"}"#;
    assert_eq!(series[escaped], 1.0);
}

#[test]
fn labels_are_unique() {
    let (source, _) = two_shards();
    assert_eq!(source.listeners, ["north/web", "south/web", "api"]);
    let members: Vec<_> = source.members.iter().map(|m| m.labels[1].as_str()).collect();
    assert_eq!(members, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "a\"\\b"]);
}
