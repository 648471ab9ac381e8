//! The load generator in front of a running Weir: what both say of the same requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::time::Duration;

use process::{File, Server, config, count};
use weir_loadgen::drill::{self, Deed, Drill, Kind};
use weir_loadgen::knee::Search;
use weir_loadgen::sweep::{self, Setup};
use weir_loadgen::verdict::FailIf;
use weir_loadgen::{
    Control, Exchange, Length, OriginSpec, OriginTls, Origins, Plan, Report, Speaks, Target, run,
};

fn members(names: &[&str]) -> Origins {
    Origins::start(None, names.iter().map(|name| OriginSpec::new(name)).collect()).unwrap()
}

fn plan(server: &Server, requests: u64) -> Plan {
    let mut plan = Plan::new(Target::from(server.web));
    plan.connections = 4;
    plan.length = Length::Requests(requests);
    plan.warmup = Duration::ZERO;
    plan
}

fn clean(report: &Report) {
    assert_eq!(report.errors.total, 0, "{:?}", report.error_causes);
}

/// R4.1-9: what forwarding costs follows from the balancer's own times, by its metrics and by its
/// log; every request is found in both.
#[test]
fn the_balancers_own_view() {
    let origins = members(&["a"]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let text = config("[0]", 5, 0, &[(origins.addrs()[0], 1)]).replace(
        "default_pool = \"app\"\n",
        "default_pool = \"app\"\nserver_timing = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n",
    );
    let target = format!("[access_log]\npath = \"{}\"\nformat = \"json\"\n", log.display());
    let server = Server::start(&text.replace("[admin]", &format!("{target}[admin]")));
    let requests = count(500, 20_000);
    let mut plan = plan(&server, requests);
    plan.admin = Some(Target::from(server.admin));
    plan.access_log = Some(log);
    plan.ids = true;
    let report = run(&plan).unwrap();
    clean(&report);
    let view = report.balancer.as_ref().unwrap();
    let admin = view.admin.as_ref().unwrap();
    assert_eq!(admin.requests, requests);
    let (request, response) = (admin.request.unwrap(), admin.upstream_response.unwrap());
    assert_eq!((request.count, response.count), (requests, requests));
    assert!((admin.forwarding.unwrap() - (request.mean - response.mean)).abs() < 1e-9);
    assert!(request.mean <= report.latency.total.unwrap().mean);
    // One shard, which had work and slept between.
    let busy: Vec<f64> = admin.busy.values().copied().collect();
    assert!(matches!(busy[..], [share] if share > 0.0 && share <= 1.0), "{admin:?}");
    assert_eq!(admin.skew, Some(1.0));
    assert!(admin.sleeps_per_request.unwrap() > 0.0);
    let log = view.log.as_ref().unwrap();
    assert_eq!((log.asked, log.joined), (requests, requests));
    assert_eq!(log.network.unwrap().count, requests);
    assert!(log.request_time.unwrap().p50 <= report.latency.total.unwrap().max);
    assert_eq!(view.timing_header.unwrap().count, requests);
    let text = report.to_text();
    for part in
        ["forwarding alone", "found in its log", "network and queues", "busiest of its shards"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(report.to_html().contains("forwarding alone"));
}

/// R4.5-2: connections that a limit of the listener refused stand in the report, with the reason.
#[test]
fn what_limits_refuse_is_told() {
    let origins = members(&["a"]);
    let text = config("[0]", 5, 0, &[(origins.addrs()[0], 1)])
        .replace("default_pool = \"app\"\n", "default_pool = \"app\"\nconnection = 2\n");
    let server = Server::start(&text);
    let mut plan = plan(&server, 1);
    plan.length = Length::Duration(Duration::from_secs(1));
    plan.admin = Some(Target::from(server.admin));
    let report = run(&plan).unwrap();
    assert!(report.answers > 0 && report.errors.total > 0, "{:?}", report.errors);
    let admin = report.balancer.as_ref().unwrap().admin.as_ref().unwrap();
    assert!(admin.refused_by["connection_limit"] > 0, "{admin:?}");
    let text = report.to_text();
    assert!(text.contains("refused connections            connection_limit"), "{text}");
    assert!(report.notes.iter().any(|note| note.contains("connections_per_source")), "{text}");
}

/// A TCP listener passes TLS on to members that speak it: the handshake is theirs.
#[test]
fn bytes_inside_tls_through_a_tcp_listener() {
    let folder = tempfile::tempdir().unwrap();
    let ca = process::certs::Ca::new("CA of bytes");
    let [certificate, private_key] = ca.leaf(&["127.0.0.1"], 7).write(folder.path(), "member");
    process::certs::replace(&folder.path().join("ca.pem"), &ca.pem);
    let tls = Some(OriginTls { certificate, private_key });
    let spec = OriginSpec { tls, speaks: Speaks::Echo, ..OriginSpec::new("a") };
    let origins = Origins::start(None, vec![spec]).unwrap();
    let text = config("[0]", 5, 0, &[(origins.addrs()[0], 1)]);
    let server = Server::start(&text.replace("protocol = \"HTTP\"", "protocol = \"TCP\""));
    let addr = process::address_after(&server.ready, "web tcp://");
    let mut plan = plan(&server, 60);
    plan.target = Target::parse(&format!("tls://{addr}")).unwrap();
    plan.tls.ca = Some(folder.path().join("ca.pem"));
    let report = run(&plan).unwrap();
    clean(&report);
    assert_eq!((report.answers, report.latency.tls.unwrap().count), (60, 4));
    (plan.exchange, plan.tls.resume) = (Exchange::Connect, true);
    let report = run(&plan).unwrap();
    clean(&report);
    assert!(report.tls_resumed > 40, "{}", report.tls_resumed);
}

/// R4.3-5: 25 and 75 percent, by the load generator's own test of shares.
#[test]
fn shares_follow_the_weights() {
    let origins = members(&["a", "b"]);
    let addrs = origins.addrs();
    let server = Server::start(&config("[0]", 5, 0, &[(addrs[0], 1), (addrs[1], 3)]));
    let mut plan = plan(&server, 2000);
    let weights = |a, b| vec![("a".to_string(), a), ("b".to_string(), b)];
    plan.expect_weights = weights(1, 3);
    let report = run(&plan).unwrap();
    clean(&report);
    assert!(report.shares.as_ref().unwrap().agree, "{:?}", report.shares);
    plan.expect_weights = weights(1, 1);
    assert!(!run(&plan).unwrap().shares.unwrap().agree);
}

/// One client with its cookies: in turn it goes to another member each time, which counts; with
/// stickiness it stays.
#[test]
fn who_does_not_stay_is_counted() {
    let origins = members(&["a", "b"]);
    let addrs = origins.addrs();
    let text = config("[0]", 5, 0, &[(addrs[0], 1), (addrs[1], 1)]);
    let turns = "lb_algorithm = \"ROUND_ROBIN\"";
    let kept = format!("{turns}\nsession_persistence = {{ type = \"HTTP_COOKIE\" }}");
    for (text, violations) in [(text.replace(turns, &kept), 0), (text, 19)] {
        let server = Server::start(&text);
        let mut plan = plan(&server, 20);
        (plan.connections, plan.sticky) = (1, true);
        let report = run(&plan).unwrap();
        clean(&report);
        assert_eq!(report.stickiness_violations, violations, "{text}");
    }
}

/// A member dies under a constant rate: Weir asks the other one, and the drill says so.
#[test]
fn a_drill_through_weir() {
    let origins = members(&["a", "b"]);
    let addrs = origins.addrs();
    let server = Server::start(&config("[0]", 5, 0, &[(addrs[0], 1), (addrs[1], 1)]));
    let mut plan = plan(&server, 1);
    plan.length = Length::Duration(Duration::from_secs(count(3, 30)));
    plan.rate = Some(200);
    let (deed, undo) = (Deed::Kill, Some(Deed::Revive));
    let at = Duration::from_secs(1);
    let drill = Drill { kind: Kind::KillMember, deed, at, undo, after: at };
    let control = Control::default();
    let report = drill::run(&plan, &drill, Some(&origins), &control, &mut |_, _| {}).unwrap();
    let view = report.drill.unwrap();
    assert_eq!(view.failure, None);
    assert!(report.requests > 300 && view.lost * 20 < report.requests, "{view:?}");
    assert!(report.members.iter().all(|member| member.answers > 0), "{:?}", report.members);
}

/// Configurations are started one after another; one that can't be is told, the best one named.
#[test]
fn a_sweep_of_configurations() {
    let origins = members(&["a"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let good = File::new(&config("[0]", 5, addr.port(), &[(origins.addrs()[0], 1)]));
    let bad = File::new("version = 7\n");
    let mut plan = Plan::new(Target::from(addr));
    plan.length = Length::Duration(Duration::from_millis(300));
    plan.warmup = Duration::ZERO;
    let weir = process::weir().get_program().into();
    let setup = Setup {
        weir,
        configs: vec![bad.path.clone(), good.path.clone()],
        slo: vec![FailIf::parse("p99<2s").unwrap()],
        search: Search::new(50, 0.5, 100),
        direct: Some(origins.addrs()[0]),
    };
    let sweep = sweep::run(&plan, &setup, &Control::default(), &mut |_, _, _| {}).unwrap();
    assert_eq!(sweep.best, Some(good.path.clone()), "{sweep:?}");
    let failure = sweep.entries[0].failure.as_ref().unwrap();
    assert!(
        failure.contains("version: 7 is out of range") && failure.contains("weir check"),
        "{failure}"
    );
    let knee = sweep.entries[1].knee.as_ref().unwrap();
    assert_eq!(knee.rate, Some(100));
    let direct = sweep.direct.as_ref().unwrap();
    assert!(direct.met && direct.asked == 50, "{direct:?}");
    assert!(knee.tries[0].cpu_cores.is_some());
    assert!(std::net::TcpStream::connect(addr).is_err(), "it was stopped again");
    // Somebody else there would be measured in its place.
    let _other = std::net::TcpListener::bind(addr).unwrap();
    let sweep = sweep::run(&plan, &setup, &Control::default(), &mut |_, _, _| {}).unwrap();
    assert_eq!(sweep.best, None);
    let failure = sweep.entries[1].failure.as_ref().unwrap();
    assert!(failure.contains("listens on") && failure.contains("stop it"), "{failure}");
}
