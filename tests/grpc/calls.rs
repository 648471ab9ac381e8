//! Calls of gRPC clients: every kind, spread over members, cut, drained.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::peers::{Member, Peer, Pool, Site};
use crate::process::{address_after, count, python, until};

/// A client of the listener at `address`, told to do this.
fn client(address: SocketAddr, site: &Site, what: &[&str]) -> Peer {
    let mut command = python("tests/grpc/client.py");
    command.arg(address.to_string()).arg(site.path("ca.pem")).args(what);
    Peer::start(command)
}

/// R6.8-4, R6.8-5: every kind of call, large messages, trailers, statuses with their details;
/// deadlines and calls that are given up, of which the member is told. In clear text and inside
/// TLS.
#[test]
fn every_kind_of_call() {
    let site = Site::new();
    let (pem, key) = (site.path("app.pem"), site.path("app.key"));
    let secure = ["--tls", pem.to_str().unwrap(), key.to_str().unwrap()];
    for (more, lines) in [(&[][..], ""), (&secure[..], "tls = {}")] {
        let member = Member::start("a", more);
        let members = [member.address];
        let (server, address) = site.serve(Pool { name: "app", lines, members: &members });
        let wanted = [
            "unary",
            "server streaming",
            "client streaming",
            "both ways",
            "much both ways",
            "errors",
            "given up",
            "many at once",
        ];
        assert_eq!(client(address, &site, &["calls"]).rest(), wanted);
        assert_eq!(
            (member.peer.line(), member.peer.line()),
            ("given up".into(), "given up".into())
        );
        let shards = std::thread::available_parallelism().unwrap().get();
        assert!(server.sum("weir_member_connections_total") <= shards as f64);
    }
}

/// The calls of one client are spread over the members, one by one.
#[test]
fn calls_are_spread() {
    let site = Site::new();
    let members = ["a", "b", "c"].map(|name| Member::start(name, &[]));
    let addresses: Vec<SocketAddr> = members.iter().map(|member| member.address).collect();
    let (_server, address) = site.serve(Pool::of(&addresses));
    let calls = count(1_000, 20_000);
    let lines = client(address, &site, &["spread", &calls.to_string()]).rest();
    let answered: HashMap<String, usize> = lines
        .iter()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, calls)| (name.to_owned(), calls.parse().unwrap()))
        .collect();
    assert_eq!(answered.values().sum::<usize>(), calls);
    for name in ["a", "b", "c"] {
        let share = answered[name];
        assert!(share.abs_diff(calls / 3) <= 3, "{lines:?}");
    }
}

/// A client that does not read holds its member back: not much more than the windows is under way.
#[test]
fn who_does_not_read_gets_no_more() {
    let site = Site::new();
    let member = Member::start("a", &[]);
    let members = [member.address];
    let (_server, address) = site.serve(Pool::of(&members));
    let lines = client(address, &site, &["flood", "1000"]).rest();
    let sent: usize = lines[0].parse().unwrap();
    assert!(sent < 400, "{sent} of 1000 messages left before any was read");
    assert_eq!(lines[1], "whole");
}

/// A member that dies ends its calls with UNAVAILABLE, and with nothing that looks whole; the next
/// ones are answered by another.
#[test]
fn the_dead_are_unavailable() {
    let site = Site::new();
    let mut members = ["a", "b"].map(|name| Member::start(name, &[]));
    let addresses = [members[0].address];
    let (server, address) = site.serve(Pool::of(&addresses));
    let calls = client(address, &site, &["drip", "1000", "5"]);
    assert_eq!(calls.line(), "begun");
    members[0].peer.kill();
    for line in calls.rest() {
        assert!(line.starts_with("UNAVAILABLE "), "{line}");
    }
    let nobody = client(address, &site, &["ask"]).rest();
    assert!(nobody[0].starts_with("UNAVAILABLE 'cannot connect to the member"), "{nobody:?}");
    let both = [members[0].address, members[1].address];
    assert_eq!(server.reload(&site.file(&[Pool::of(&both)])).0, Some(0));
    let lines = client(address, &site, &["spread", "20"]).rest();
    assert_eq!(lines, ["b 20"]);
}

/// Nobody is up: UNAVAILABLE, with the reason.
#[test]
fn nobody_is_up() {
    let site = Site::new();
    let member = Member::start("a", &[]);
    let members = [member.address];
    let lines = "healthmonitor = { type = \"GRPC\", delay = 1, timeout = 2, max_retries = 1, \
                 url_path = \"/asleep\" }\n";
    let (server, address) = site.serve(Pool { name: "app", lines, members: &members });
    let lines = client(address, &site, &["ask"]).rest();
    assert!(lines[0].starts_with("UNAVAILABLE 'no member is usable"), "{lines:?}");
    let log = server.file.run_dir().with_extension("log");
    until("its line", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains(" 503 ")));
}

/// A drain lets calls that run come to their end.
#[test]
fn calls_outlive_a_drain() {
    let site = Site::new();
    let member = Member::start("a", &[]);
    let members = [member.address];
    let (server, address) = site.serve(Pool::of(&members));
    let calls = client(address, &site, &["drip", "100", "10"]);
    assert_eq!(calls.line(), "begun");
    server.signal("TERM");
    for line in calls.rest() {
        assert_eq!(line, "OK '' 100");
    }
    let (status, log, _) = server.wait();
    assert!(status.success(), "{log}");
}

/// A member that is taken out of the pool ends its calls first.
#[test]
fn calls_outlive_their_member() {
    let site = Site::new();
    let [a, b] = ["a", "b"].map(|name| Member::start(name, &[]));
    let (first, second) = ([a.address], [b.address]);
    let (server, address) = site.serve(Pool::of(&first));
    let calls = client(address, &site, &["drip", "100", "5"]);
    assert_eq!(calls.line(), "begun");
    assert_eq!(server.reload(&site.file(&[Pool::of(&second)])).0, Some(0));
    assert_eq!(client(address, &site, &["spread", "20"]).rest(), ["b 20"]);
    for line in calls.rest() {
        assert_eq!(line, "OK '' 100");
    }
    assert_eq!(address_after(&server.ready, "app https://"), address);
}
