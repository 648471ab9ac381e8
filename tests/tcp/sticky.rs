//! Stickiness by source address.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;

use weir_core::net::sys::allowed_cores;

use crate::{Plan, address, connect_from, echo, log, read};

/// R6.1-1, R6.1-3, R6.1-M1: each source stays at one member over all shards, sources are
/// spread by weight; a member that gets weight 0 loses its sources, and the others keep theirs
/// (C12); who comes back finds no trace of the old binding.
#[test]
fn sources_stay_at_their_members() {
    let members: Vec<_> = ["a", "b", "c"].map(|name| echo(name, "127.0.0.1:0")).into();
    let plan = |weights: [u8; 3]| {
        let members: Vec<_> = members.iter().copied().zip(weights).collect();
        let lines = "session_persistence = { type = \"SOURCE_IP\", persistence_timeout = 1 }";
        Plan::new(1).listener("web", 0, "app", "").pool("app", lines, &members).logged()
    };
    let server = plan([1, 1, 4]).start();
    let web = address(&server, "web");
    let ask = |source: u8| read::<1>(&mut connect_from(&format!("127.0.1.{source}:0"), web));
    let sources = 1..=60;
    let first: HashMap<u8, String> = sources.clone().map(|n| (n, ask(n))).collect();
    let share = |name: &str| first.values().filter(|member| *member == name).count();
    assert!(share("c") > share("a") && share("c") > share("b"), "{first:?}");
    assert!(share("a") > 0 && share("b") > 0, "{first:?}");
    for _ in 0..2 {
        sources.clone().for_each(|n| assert_eq!(ask(n), first[&n]));
    }
    let (code, ..) = server.reload(plan([1, 1, 0]).text());
    assert_eq!(code, Some(0));
    let second: HashMap<u8, String> = sources.clone().map(|n| (n, ask(n))).collect();
    assert!(second.values().all(|member| member != "c"));
    let stayed = |n: &u8| first[n] != "c";
    assert!(sources.clone().filter(stayed).all(|n| second[&n] == first[&n]));
    server.reload(plan([1, 1, 4]).text());
    sources.clone().for_each(|n| assert_eq!(ask(n), second[&n], "the new binding holds"));
    let hits = server.metric("weir_sticky_requests_total{listener=\"web\",result=\"hit\"}");
    assert!(hits >= 3.0 * 60.0, "{hits}");
    // The kernel has given every shard connections, and of most sources, too.
    let shards = allowed_cores().unwrap().len();
    let mut served_by: HashMap<String, BTreeSet<u64>> = HashMap::new();
    for line in log(&server, 5 * 60) {
        let source = line["remote_addr"].as_str().unwrap().to_owned();
        served_by.entry(source).or_default().insert(line["shard"].as_u64().unwrap());
    }
    let all: BTreeSet<u64> = served_by.values().flatten().copied().collect();
    assert_eq!(all.len(), shards);
    assert!(shards == 1 || served_by.values().filter(|some| some.len() > 1).count() > 30);
}

/// R2.2-4: what counts is the address that the balancer sees. Of one client that comes through
/// several proxies it is theirs, each with a member of its own; where they name the client by the
/// PROXY protocol it is the client's, whoever brings it, and where they name others, the others'.
/// The twin with a cookie, which needs none of this, is in `tests/sticky.rs`.
#[test]
fn a_proxy_hides_the_client_unless_it_names_it() {
    let members = ["a", "b", "c"].map(|name| (echo(name, "127.0.0.1:0"), 1));
    let lines = "session_persistence = { type = \"SOURCE_IP\", persistence_timeout = 60 }";
    let accept = "proxy_protocol = { accept = true, from = [\"127.0.3.0/24\"] }";
    let server = Plan::new(1)
        .listener("web", 0, "app", "")
        .listener("told", 0, "named", accept)
        .pool("app", lines, &members)
        .pool("named", lines, &members)
        .start();
    let through = |proxy: u8, listener: &str, header: &str| {
        let mut stream = connect_from(&format!("127.0.3.{proxy}:0"), address(&server, listener));
        stream.write_all(header.as_bytes()).unwrap();
        read::<1>(&mut stream)
    };
    let naming = |proxy: u8, source: u8| {
        let header = format!("PROXY TCP4 192.0.2.{source} 192.0.2.254 4711 80\r\n");
        through(proxy, "told", &header)
    };
    let some = 1..=16u8;
    let by_proxy: Vec<String> = some.clone().map(|proxy| through(proxy, "web", "")).collect();
    let of_one_client: BTreeSet<&String> = by_proxy.iter().collect();
    assert!(of_one_client.len() > 1, "{by_proxy:?}");
    assert!(some.clone().zip(&by_proxy).all(|(proxy, at)| through(proxy, "web", "") == *at));
    let by_client: Vec<String> = some.clone().map(|client| naming(1, client)).collect();
    for proxy in some.clone() {
        assert!(some.clone().zip(&by_client).all(|(client, at)| naming(proxy, client) == *at));
    }
    let of_one_proxy: BTreeSet<&String> = by_client.iter().collect();
    assert!(of_one_proxy.len() > 1, "{by_client:?}");
}
