//! Tests of `metrics`: the text is read back by a strict parser of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_core::model::{self, Balancer, Config, Handles, Id, Member, Pool};

use super::*;

/// Two listeners of the same name, a pool with a nameless, a twice named and a well named member.
fn config() -> Config {
    let balancer = |name: &str| Balancer { name: name.into(), ..Balancer::default() };
    let listener = |name: &str, balancer| model::Listener {
        name: name.into(),
        balancer,
        default_pool: Some(0),
        ..model::Listener::default()
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
            assert!(typed == name && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
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
    let suffixes = ["_bucket", "_sum", "_count"];
    let rest = suffixes.iter().find_map(|suffix| rest.strip_prefix(suffix)).unwrap_or(rest);
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

/// A book of two shards, with the counters of all objects in file order.
struct Scene {
    book: Book,
    listeners: Vec<Vec<Arc<ListenerCounters>>>,
    members: Vec<Vec<Arc<MemberCounters>>>,
    state: Arc<State>,
}

fn two_shards() -> Scene {
    let state = State::default().next(&config(), &|_| vec![0, 1], &mut Handles::default());
    let state = Arc::new(state);
    let handles: Vec<Handle> = state.members().map(|(_, m)| m.handle).collect();
    let listeners = state.listeners().map(|(handle, _)| handle);
    let board = Board::default().next(2, listeners, handles.iter().copied());
    let spread = &board.house().spread;
    spread.prepare(2);
    for _ in 0..3 {
        spread.shares()[1].open.rise();
        spread.shares()[0].handed_over.add(1);
    }
    let book = Book::new(vec![Arc::default(), Arc::default()]);
    book.show(&state, &board);
    Scene {
        listeners: state.listeners().map(|(handle, _)| board.listener(handle).to_vec()).collect(),
        members: handles.into_iter().map(|handle| board.member(handle).to_vec()).collect(),
        book,
        state,
    }
}

#[test]
fn every_metric_is_rendered_and_the_text_is_well_formed() {
    let scene = two_shards();
    scene.listeners[0][0].statuses.count(200);
    scene.members[0][0].statuses.count(200);
    let text = scene.book.render();
    let series = parse(&text);
    for metric in names::ALL {
        assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
    }
    assert_eq!(series["weir_shards"], 2.0);
    assert_eq!(series["weir_draining"], 0.0);
    assert!(series["process_start_time_seconds"] > 1.6e9);
    assert_eq!(series["weir_config_version"], 1.0);
    assert_eq!(series["weir_config_effective_version"], 0.0);
    assert_eq!(series[r#"weir_shard_active_connections{shard="1"}"#], 3.0);
    assert_eq!(series[r#"weir_shard_handed_over_connections_total{shard="0"}"#], 3.0);
    assert_eq!(series["weir_shard_connection_skew"], 2.0);
    scene.book.set_draining();
    scene.book.effective(1);
    let series = parse(&scene.book.render());
    assert_eq!(series["weir_draining"], 1.0);
    assert_eq!(series["weir_config_effective_version"], 1.0);
}

#[test]
fn series_are_sums_over_the_shards() {
    let scene = two_shards();
    for (shard, n) in [3, 4].into_iter().enumerate() {
        scene.listeners[2][shard].requests.add(n);
        scene.listeners[2][shard].active_connections.set(n);
        scene.listeners[2][shard].statuses.count(200);
        scene.members[0][shard].bytes_sent.add(n * 10);
        scene.book.rings[shard].turns.add(n);
    }
    scene.listeners[2][1].statuses.count(502);
    scene.members[3][1].statuses.count(500);
    let series = parse(&scene.book.render());
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

/// R4.1-1, R4.1-2: times of Layer 7 listeners, their mean in milliseconds.
#[test]
fn times_of_listeners() {
    let scene = two_shards();
    for shard in 0..2 {
        scene.listeners[2][shard]
            .times
            .response
            .observe(Duration::from_millis(100 + 200 * shard as u64));
    }
    let series = parse(&scene.book.render());
    assert_eq!(series[r#"weir_upstream_rt_average_milliseconds{listener="api"}"#], 200.0);
    assert_eq!(series[r#"weir_upstream_response_seconds_count{listener="api"}"#], 2.0);
    assert_eq!(series[r#"weir_upstream_response_seconds_sum{listener="api"}"#], 0.4);
    assert_eq!(series[r#"weir_upstream_response_seconds_bucket{listener="api",le="0.1"}"#], 1.0);
    assert_eq!(series[r#"weir_upstream_response_seconds_bucket{listener="api",le="+Inf"}"#], 2.0);
    let mut config = config();
    config.listeners[2].protocol = model::Protocol::Tcp;
    let state = State::default().next(&config, &|_| vec![0, 1], &mut Handles::default());
    scene.book.show(&Arc::new(state), &Board::default());
    let text = scene.book.render();
    assert!(text.contains(r#"weir_connections_total{listener="api"}"#));
    assert!(!text.contains(r#"_seconds_count{listener="api"}"#), "{text}");
    assert!(!text.contains(r#"_milliseconds{listener="api"}"#), "{text}");
}

/// R4.2-1, R14.2-2: who answered, and by class.
#[test]
fn answers_by_side_and_class() {
    let scene = two_shards();
    for (code, local) in [(200, false), (404, true), (404, false), (499, true)] {
        let block = &scene.listeners[2][0];
        block.requests.add(1);
        block.statuses.count(code);
        if local { block.local.count(code) } else { block.forwarded.add(1) }
    }
    scene.members[0][0].statuses.count(503);
    let series = parse(&scene.book.render());
    assert_eq!(series[r#"weir_forwarded_requests_total{listener="api"}"#], 2.0);
    assert_eq!(series[r#"weir_local_responses_total{listener="api",code="404"}"#], 1.0);
    assert_eq!(series[r#"weir_response_classes_total{listener="api",class="4xx"}"#], 3.0);
    assert_eq!(series[r#"weir_response_classes_total{listener="api",class="5xx"}"#], 0.0);
    let classes =
        r#"weir_member_response_classes_total{pool="app",member="127.0.0.1:1",class="5xx"}"#;
    assert_eq!(series[classes], 1.0);
    assert_eq!(series[r#"weir_shard_requests_total{shard="0"}"#], 4.0);
    assert_eq!(series["weir_shard_skew"], 2.0);
    // A removed listener takes its series along, but the shard's count only grows.
    let state = State::default().next(&Config::default(), &|_| vec![], &mut Handles::default());
    scene.book.show(&Arc::new(state), &Board::default());
    let series = parse(&scene.book.render());
    assert!(!series.keys().any(|key| key.contains("listener=")));
    assert_eq!(series[r#"weir_shard_requests_total{shard="0"}"#], 4.0);
}

#[test]
fn labels_are_unique() {
    let page = get(&two_shards().book.page);
    let listeners: Vec<_> = page.listeners.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(listeners, ["north/web", "south/web", "api"]);
    let members: Vec<_> = page.members.iter().map(|m| m.labels[1].as_str()).collect();
    assert_eq!(members, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "a\"\\b"]);
}

/// R8.1-6: the state of each checked member can be seen.
#[test]
fn health_is_shown_where_checks_are() {
    let Scene { book, state, .. } = two_shards();
    assert!(!book.render().contains("weir_member_up{"), "no checks, no state");
    let mut config = config();
    let second = std::time::Duration::from_secs(1);
    let kind = model::MonitorKind::Tcp;
    let (rise, fall) = (1, 1);
    config.pools[0].monitor =
        Some(model::Monitor { kind, delay: second, timeout: second, rise, fall, port: None });
    let mut checked = state.next(&config, &|_| vec![0, 1], &mut Handles::default());
    let first = checked.members().next().unwrap().1.handle;
    checked.set_health([(first, false)]);
    book.show(&Arc::new(checked), &Board::default());
    let series = parse(&book.render());
    assert_eq!(series[r#"weir_member_up{pool="app",member="127.0.0.1:1"}"#], 0.0);
    assert_eq!(series[r#"weir_member_up{pool="app",member="127.0.0.1:2"}"#], 1.0);
    assert_eq!(series[r#"weir_abnormal_members{pool="app"}"#], 1.0);
    assert_eq!(series[r#"weir_normal_members{pool="app"}"#], 3.0);
}

/// R4.3-2: a member that flaps is counted; its first success is no change.
#[test]
fn changes_of_health_are_counted() {
    let book = Book::new(vec![Arc::default()]);
    let mut config = config();
    let second = Duration::from_secs(1);
    let kind = model::MonitorKind::Tcp;
    config.pools[0].monitor =
        Some(model::Monitor { kind, delay: second, timeout: second, rise: 1, fall: 1, port: None });
    let mut state = State::default().next(&config, &|_| vec![0, 1], &mut Handles::default());
    book.show(&Arc::new(state.clone()), &Board::default());
    let first = state.members().next().unwrap().1.handle;
    let changes = r#"weir_member_state_changes_total{pool="app",member="127.0.0.1:1"}"#;
    for (up, expected) in [(true, 0.0), (false, 1.0), (true, 2.0), (true, 2.0), (false, 3.0)] {
        state.set_health([(first, up)]);
        book.health(&Arc::new(state.clone()));
        assert_eq!(parse(&book.render())[changes], expected, "{up}");
    }
}
