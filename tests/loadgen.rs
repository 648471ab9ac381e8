//! The load generator in front of a running Weir: what both say of the same requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::time::Duration;

use process::{Server, config, count};
use weir_loadgen::{Length, OriginSpec, Origins, Plan, Report, Target, run};

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
    let log = view.log.as_ref().unwrap();
    assert_eq!((log.asked, log.joined), (requests, requests));
    assert_eq!(log.network.unwrap().count, requests);
    assert!(log.request_time.unwrap().p50 <= report.latency.total.unwrap().max);
    assert_eq!(view.timing_header.unwrap().count, requests);
    let text = report.to_text();
    for part in ["forwarding alone", "found in its log", "network and queues"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(report.to_html().contains("forwarding alone"));
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
