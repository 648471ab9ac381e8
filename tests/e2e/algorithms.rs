//! Algorithms over real connections: what several shards do together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use crate::process::{Client, Member, Server, config, count, get, until};
use crate::{alone, curl};

/// The configuration with another algorithm, and more about the pool.
fn file(algorithm: &str, more: &str, members: &[SocketAddr]) -> String {
    let members: Vec<(SocketAddr, u8)> = members.iter().map(|addr| (*addr, 1)).collect();
    config("\"auto\"", 5, 0, &members).replace(
        "lb_algorithm = \"ROUND_ROBIN\"",
        &format!("lb_algorithm = \"{algorithm}\"\n{more}"),
    )
}

/// R4.3-3, R5.9-1: all connections of an address come to one member, on whichever shard they
/// arrive, and addresses spread over the members.
#[test]
fn source_ip_keeps_an_address_on_one_member() {
    let _turn = alone();
    let members = ["a", "b", "c", "d", "e"].map(Member::start);
    let server = Server::start(&file("SOURCE_IP", "", &members.each_ref().map(|m| m.addr)));
    let first = get(server.web, "/").body;
    for _ in 0..count(200, 1_000) {
        assert_eq!(get(server.web, "/").body, first);
    }
    let url = format!("http://{}/", server.web);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for n in 1..=20 {
        let ask = || curl(&["--interface", &format!("127.0.1.{n}"), &url]);
        let member = ask();
        for _ in 0..3 {
            assert_eq!(ask(), member, "127.0.1.{n}");
        }
        *shares.entry(member).or_default() += 1;
    }
    assert!(shares.len() >= 3, "{shares:?}");
}

/// Least connections on all shards together: eight clients that wait at once are spread over the
/// members with a difference of at most one.
#[test]
fn least_connections_spread_over_shards() {
    let _turn = alone();
    for _ in 0..count(3, 50) {
        let members = ["a", "b", "c"].map(Member::shut);
        let server =
            Server::start(&file("LEAST_CONNECTIONS", "", &members.each_ref().map(|m| m.addr)));
        let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.web)).collect();
        clients.iter_mut().for_each(|client| client.send("/", ""));
        let seen = || members.each_ref().map(|member| member.requests.load(Relaxed));
        until("all requests at members", || seen().iter().sum::<u64>() == 8);
        let spread = seen().iter().max().unwrap() - seen().iter().min().unwrap();
        assert!(spread <= 1, "{:?}", seen());
        members.iter().for_each(Member::open);
        for client in &mut clients {
            assert_eq!(client.answer().unwrap().status, 200);
        }
    }
}
