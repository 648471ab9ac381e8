//! Forwarding policies on the wire: which pool a request reaches, and the answers that Weir gives
//! itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use support::{Member, Shard, config, listener};
use weir_core::model::{
    self, Action, Compare, Config, FixedResponse, Policy, RedirectUrl, Rule, RuleKind,
};

fn rule(kind: RuleKind, compare: Compare, values: &[&str]) -> Rule {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    Rule { kind, compare, values, invert: false }
}

fn host(value: &str) -> Rule {
    rule(RuleKind::HostName, Compare::EqualTo, &[value])
}

fn prefix(value: &str) -> Rule {
    rule(RuleKind::Path, Compare::StartsWith, &[value])
}

fn policy(name: &str, rules: Vec<Rule>, action: Action) -> Policy {
    let id = model::derive_id("l7policy", "", name);
    Policy { id, name: name.into(), listener: 0, priority: None, rules, action }
}

fn fixed(status_code: u16, message_body: &str) -> Action {
    let message_body = message_body.into();
    Action::Fixed(FixedResponse { status_code, message_body, ..FixedResponse::default() })
}

/// A configuration whose default pool is `first`; pools 1, 2 … have one member each.
fn with(first: Option<SocketAddr>, others: &[SocketAddr], policies: Vec<Policy>) -> Config {
    let first: Vec<(SocketAddr, u8)> = first.into_iter().map(|address| (address, 1)).collect();
    let mut settings = listener();
    settings.default_pool = (!first.is_empty()).then_some(0);
    let mut config = config(settings, &first);
    for (at, &address) in (1u128..).zip(others) {
        let id = model::Id::from_u128(1_000 + at);
        let name = format!("p{at}");
        let members = vec![model::Member { id, name: format!("m-{name}"), address, weight: 1 }];
        config.pools.push(model::Pool { id, name, members, ..model::Pool::default() });
    }
    config.policies = policies;
    config
}

/// A member that says who it is and what it was asked for.
fn named(name: &'static str) -> Member {
    Member::start(move |mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(support::ok(&format!("{name} {}", request.line())));
        }
    })
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// R10.5-3: by host and path, most specific first; the member gets the bytes as sent; what meets no
/// policy goes to the default pool. All on one connection.
#[test]
fn routing_by_host_and_path() {
    let (first, shop, api) = (named("default"), named("shop"), named("api"));
    let shard = Shard::start(with(
        Some(first.address),
        &[shop.address, api.address],
        vec![
            policy("shop", vec![host("*.shop.t")], Action::Pools(vec![(1, 1)])),
            policy("api", vec![host("eu.shop.t"), prefix("/api/")], Action::Pools(vec![(2, 1)])),
        ],
    ));
    let mut client = shard.client();
    for (host, path, answer) in [
        ("eu.shop.t", "/api/1", "api GET /api/1"),
        ("EU.Shop.T.:80", "/x/../%61pi/1?q=%41", "api GET /x/../%61pi/1?q=%41"),
        ("eu.shop.t", "/apis", "shop GET /apis"),
        ("us.shop.t", "/api/1", "shop GET /api/1"),
        ("shop.t", "/api/1", "default GET /api/1"),
        ("other", "/", "default GET /"),
    ] {
        client.send(get(host, path));
        assert_eq!(client.answer().text(), answer, "{host} {path}");
    }
    // An absolute form names the host that counts, whatever Host says.
    client.send("GET http://eu.shop.t/api/2 HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(client.answer().text(), "api GET /api/2");
}

/// R10.5-3: every other rule type.
#[test]
fn routing_by_everything_else() {
    use RuleKind::{Cookie, Header, Method, QueryString, SourceIp};
    let first = named("default");
    let by = |at: u16, rule: Rule| policy(&at.to_string(), vec![rule], fixed(200 + at, ""));
    let equal = |kind, value| rule(kind, Compare::EqualTo, &[value]);
    let mut elsewhere = equal(SourceIp, "127.0.0.0/8");
    elsewhere.invert = true;
    let policies = vec![
        by(21, equal(Method, "PATCH")),
        by(22, equal(Header("x-team".into()), "red")),
        by(23, equal(QueryString("beta".into()), "1")),
        by(24, equal(Cookie("lane".into()), "fast")),
        by(25, rule(RuleKind::Path, Compare::Regex, &[r"\.(png|jpg)$"])),
        by(26, elsewhere),
        policy("source", vec![equal(SourceIp, "127.0.0.1/32"), prefix("/local")], fixed(227, "")),
    ];
    let shard = Shard::start(with(Some(first.address), &[], policies));
    let mut client = shard.client();
    for (request, status) in [
        ("PATCH / HTTP/1.1\r\n", 221),
        ("GET / HTTP/1.1\r\nx-TEAM: blue\r\nX-Team:  red \r\n", 222),
        ("GET /?a=2&b%65ta=%31 HTTP/1.1\r\n", 223),
        ("GET / HTTP/1.1\r\nCookie: a=1; lane=fast\r\n", 224),
        ("GET /a/b.png?x=y HTTP/1.1\r\n", 225),
        ("GET /local HTTP/1.1\r\n", 227),
        ("GET /b.png/ HTTP/1.1\r\nX-Team: redder\r\nCookie: lane=faster\r\n", 200),
    ] {
        client.send(format!("{request}Host: w\r\n\r\n"));
        assert_eq!(client.answer().status, status, "{request}");
    }
}

/// R2.3-404: nothing matches and there is no default pool; no member hears of it.
#[test]
fn nothing_matches() {
    let shop = named("shop");
    let policies = vec![policy("shop", vec![host("shop.t")], Action::Pools(vec![(1, 1)]))];
    let shard = Shard::start(with(None, &[shop.address], policies));
    let mut client = shard.client();
    client.send(get("else.t", "/"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (404, false));
    assert_eq!((shop.accepted(), shard.status(404)), (0, 1));
    client.send(get("shop.t", "/"));
    assert_eq!(client.answer().status, 200);
}

/// A fixed answer is Weir's: no member is asked, the connection goes on when the request was whole.
#[test]
fn fixed_responses() {
    let first = named("default");
    let policies = vec![
        policy("closed", vec![prefix("/closed")], fixed(503, "closed")),
        policy("empty", vec![prefix("/empty")], fixed(204, "")),
        policy("odd", vec![prefix("/odd")], fixed(599, "\u{fc}")),
    ];
    let shard = Shard::start(with(Some(first.address), &[], policies));
    let mut client = shard.client();
    client.send(get("w", "/closed/x"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.closes()), (503, "closed", false));
    assert_eq!(answer.field("Content-Type"), Some("text/plain"));
    assert!(answer.head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{}", answer.head);
    // HEAD: the same head, no body; the next request is read where it begins.
    client.send("HEAD /closed HTTP/1.1\r\nHost: w\r\n\r\n".to_owned() + &get("w", "/odd"));
    let head = client.answer_head();
    assert_eq!((head.status, head.field("Content-Length")), (503, Some("6")));
    let odd = client.answer();
    assert_eq!((odd.status, odd.text()), (599, "\u{fc}"));
    assert_eq!(odd.field("Content-Type"), Some("text/plain; charset=utf-8"));
    // A body that came with the head is stepped over, also a chunked one …
    for body in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"]
    {
        client.send(format!("POST /closed HTTP/1.1\r\nHost: w\r\n{body}") + &get("w", "/"));
        assert!(!client.answer().closes(), "{body}");
        assert_eq!(client.answer().text(), "default GET /");
    }
    client.send(get("w", "/empty"));
    let empty = client.answer();
    assert_eq!((empty.status, empty.field("Content-Length")), (204, None));
    assert_eq!((first.accepted(), shard.member(0).requests.get()), (1, 2));
    assert_eq!((shard.status(503), shard.status(204), shard.status(200)), (4, 1, 2));
    // … and one that is still to come costs the connection, as does HTTP/1.0.
    client.send("POST /closed HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\nhel");
    assert!(client.answer().closes());
    let answer = shard.once("GET /closed HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((answer.status, answer.closes()), (503, true));
    let answer =
        shard.once("POST /closed HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n");
    assert_eq!(answer.status, 400, "a malformed body stays one");
}

/// A client that reads only when it has written all of a large body still gets the answer.
#[test]
fn an_early_answer_survives_the_body() {
    let shard = Shard::start(with(None, &[], vec![policy("no", vec![], fixed(403, "no"))]));
    let mut client = shard.client();
    let body = vec![b'x'; 1 << 20];
    client.send(format!("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.closes()), (403, "no", true));
    client.expect_end();
}

/// Redirects carry the URL as sent, made safe, and are answers of Weir's own.
#[test]
fn redirects() {
    let url = |change: &dyn Fn(&mut RedirectUrl)| {
        let mut url = RedirectUrl { status_code: 308, ..RedirectUrl::default() };
        change(&mut url);
        Action::Url(url)
    };
    let tls = url(&|url| url.protocol = "https".into());
    let moved = url(&|url| {
        (url.host, url.path, url.query) = ("www.${host}".into(), "/new${path}".into(), "".into());
    });
    let policies = vec![
        policy("tls", vec![prefix("/tls")], tls),
        policy("moved", vec![prefix("/moved")], moved),
        policy("loud", vec![prefix("/loud")], url(&|url| url.path = "${path}".repeat(100))),
    ];
    let shard = Shard::start(with(None, &[], policies));
    let mut client = shard.client();
    for (host, target, location) in [
        ("a.t", "/tls?x=1", "https://a.t/tls?x=1"),
        ("a.t:8080", "/tls/%2e%2f", "https://a.t:8080/tls/%2e%2f"),
        ("A.t:8080", "/moved/a?b", "http://www.A.t:8080/new/moved/a"),
        ("[::1]:80", "/tls//evil.t/", "https://[::1]:80/tls//evil.t/"),
        ("a.t", "/tls/\"<>\\^`{|}", "https://a.t/tls/%22%3C%3E%5C%5E%60%7B%7C%7D"),
    ] {
        client.send(get(host, target));
        let answer = client.answer();
        assert_eq!(answer.field("Location"), Some(location), "{target}");
        assert_eq!((answer.status, answer.field("Content-Length")), (308, Some("0")));
        assert!(!answer.closes());
    }
    // A URL that names no host, and one that no template may make that long.
    let answer = shard.once("GET /tls HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.field("Location")), (400, None));
    client.send(get("a.t", &format!("/loud/{}", "x".repeat(8_000))));
    assert_eq!(client.answer().status, 414);
    assert_eq!(shard.status(308), 5);
}

/// Pools that share the requests of a policy get exactly their weights, spread evenly.
#[test]
fn weighted_pools() {
    let (a, b) = (named("a"), named("b"));
    let policies = vec![policy("canary", vec![], Action::Pools(vec![(1, 3), (2, 1)]))];
    let shard = Shard::start(with(None, &[a.address, b.address], policies));
    let mut client = shard.client();
    let mut order = String::new();
    for _ in 0..16 {
        client.send(get("w", "/"));
        order.push_str(&client.answer().text()[..1]);
    }
    let mut shares = BTreeMap::new();
    order.chars().for_each(|who| *shares.entry(who).or_insert(0) += 1);
    assert_eq!(shares, BTreeMap::from([('a', 12), ('b', 4)]), "{order}");
    assert!(!order.contains("bb") && !order.contains("aaaa"), "{order}");
}

/// R5.5-2: an HTTP listener sends clients to an HTTPS listener: 301, its port, the rest as it was;
/// before all other policies, whatever their priority.
#[test]
fn redirect_to_a_listener() {
    let mut first = policy("first", vec![prefix("/")], fixed(200, ""));
    first.priority = Some(1);
    let rules = vec![host("a.t")];
    let mut config = with(None, &[], vec![first, policy("tls", rules, Action::Listener(1))]);
    config.listeners.push(model::Listener {
        id: model::Id::from_u128(77),
        name: "secure".into(),
        protocol: model::Protocol::Https,
        protocol_port: 8443,
        ..model::Listener::default()
    });
    let shard = Shard::start(config);
    let mut client = shard.client();
    client.send(get("A.t:8080", "/x%2fy?q=1"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (301, false));
    assert_eq!(answer.field("Location"), Some("https://A.t:8443/x%2fy?q=1"));
    client.send(get("b.t", "/"));
    assert_eq!(client.answer().status, 200);
}

/// A request that fails goes to another member of the pool that its policy named, not elsewhere.
#[test]
fn retries_stay_in_the_pool() {
    let (first, good) = (named("default"), named("good"));
    // Bound, so that nobody else gets the port, and not listening.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let refusing = held.local_addr().unwrap().as_socket().unwrap();
    let policies = vec![policy("p", vec![prefix("/p")], Action::Pools(vec![(1, 1)]))];
    let mut config = with(Some(first.address), &[refusing], policies);
    let id = model::Id::from_u128(5_000);
    let other = model::Member { id, name: "other".into(), address: good.address, weight: 1 };
    config.pools[1].members.push(other);
    let shard = Shard::start(config);
    let mut client = shard.client();
    for _ in 0..4 {
        client.send(get("w", "/p"));
        assert_eq!(client.answer().text(), "good GET /p");
    }
    assert_eq!(first.accepted(), 0);
}
