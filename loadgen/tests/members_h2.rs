//! Members that speak HTTP/2, inside TLS and with prior knowledge, to loadgen's own client and to
//! curl; and idle connections of HTTP/2 and TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "common/certs.rs"]
mod certs;
#[path = "common/server.rs"]
mod server;

use std::process::Command;
use std::time::Duration;

use certs::Files;
use server::plan;
use weir_loadgen::{
    Control, Delay, OriginSpec, OriginTls, Origins, Plan, Report, RunError, Target, idle, run,
};

/// One member that speaks HTTP/2, too.
fn member(files: Option<&Files>, change: impl Fn(&mut OriginSpec)) -> Origins {
    let tls = files.map(|files| OriginTls {
        certificate: files.chain.clone(),
        private_key: files.key.clone(),
    });
    let mut spec = OriginSpec { tls, http2: true, ..OriginSpec::new("a") };
    change(&mut spec);
    Origins::start(None, vec![spec]).unwrap()
}

/// Of HTTP/2; what is shown by `files` is verified.
fn plan_of(origins: &Origins, files: Option<&Files>, requests: u64) -> Plan {
    let addr = origins.addrs()[0];
    let scheme = scheme(files);
    let target = Target::parse(&format!("{scheme}://{addr}/")).unwrap();
    let mut plan = Plan { target, http2: true, streams: 8, ..plan(addr, 3, requests) };
    plan.tls.ca = files.map(|files| files.ca.clone());
    plan
}

fn scheme(files: Option<&Files>) -> &'static str {
    if files.is_some() { "https" } else { "http" }
}

fn good(report: &Report, requests: u64) {
    assert_eq!(report.errors.total, 0, "{:?}", report.error_causes);
    assert_eq!((report.requests, report.answers), (requests, requests));
}

/// Small and large answers, bodies of requests, HEAD, and HTTP/1.1 at the same place.
#[test]
fn both_versions_inside_tls_and_not() {
    let files = Files::new(&["127.0.0.1"]);
    for files in [None, Some(&files)] {
        for size in [0, 128, 3 << 20] {
            let origins = member(files, |spec| spec.body_size = size);
            let mut plan = plan_of(&origins, files, 60);
            plan.body = vec![b'x'; 200_000];
            let report = run(&plan).unwrap();
            good(&report, 60);
            assert!(report.bytes.received >= 60 * size, "{:?}", report.bytes);
            assert_eq!((report.members[0].answers, origins.requests(0)), (60, 60));
            assert_eq!(origins.connections(0), 3);
            (plan.body, plan.method) = (Vec::new(), Some("HEAD".to_string()));
            good(&run(&plan).unwrap(), 60);
            let plan = Plan { http2: false, streams: 1, method: None, ..plan };
            good(&run(&plan).unwrap(), 60);
        }
    }
}

/// One that isn't to speak it agrees on HTTP/1.1, and takes the preface for what it is not.
#[test]
fn only_where_it_is_wanted() {
    let files = Files::new(&["127.0.0.1"]);
    for files in [None, Some(&files)] {
        let origins = member(files, |spec| spec.http2 = false);
        let plan = Plan { streams: 1, ..plan_of(&origins, files, 5) };
        let Err(RunError::NoAnswer { cause, .. }) = run(&plan) else { panic!("an answer") };
        assert!(cause.contains("HTTP/1"), "{cause}");
        good(&run(&Plan { http2: false, ..plan }).unwrap(), 5);
    }
}

#[test]
fn slow_and_failing_members() {
    let ms = Duration::from_millis;
    let slow = member(None, |spec| spec.delay = Delay::Fixed(ms(20)));
    let report = run(&plan_of(&slow, None, 48)).unwrap();
    good(&report, 48);
    assert!(report.latency.first_byte.unwrap().p50 >= 0.019, "{:?}", report.latency.first_byte);
    let trickling = member(None, |spec| (spec.bytes_per_second, spec.body_size) = (10_000, 3_000));
    let report = run(&plan_of(&trickling, None, 24)).unwrap();
    good(&report, 24);
    assert!(report.latency.total.unwrap().p50 >= 0.19, "{:?}", report.latency.total);
    let failing = member(None, |spec| spec.error_rate = 0.5);
    let report = run(&plan_of(&failing, None, 200)).unwrap();
    assert!((50..=150).contains(&report.errors.status), "{:?}", report.errors);
    assert_eq!(report.errors.total, report.errors.status);
    let cutting = member(None, |spec| spec.reset_rate = 0.1);
    let report = run(&plan_of(&cutting, None, 200)).unwrap();
    assert!(report.errors.reset > 0 && report.answers > 0, "{:?}", report.errors);
}

/// A client that nobody here wrote.
#[test]
fn curl_as_the_client() {
    let files = Files::new(&["127.0.0.1"]);
    for files in [None, Some(&files)] {
        let origins = member(files, |spec| spec.body_size = 1 << 20);
        let url = format!("{}://{}/", scheme(files), origins.addrs()[0]);
        for (version, told) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1")] {
            let out = Command::new("curl")
                .args(["-skf", version, "-d", "body", "-o", "/dev/null"])
                .args(["-w", "%{http_version} %{size_download}", &url])
                .output()
                .unwrap();
            let said = String::from_utf8(out.stdout).unwrap();
            assert!(out.status.success() && said.starts_with(&format!("{told} 1048576")), "{said}");
        }
        assert_eq!(origins.requests(0), 2);
    }
}

#[test]
fn idle_connections_of_http2_and_tls() {
    let files = Files::new(&["127.0.0.1"]);
    let hold = Duration::from_millis(200);
    for files in [None, Some(&files)] {
        for http2 in [false, true] {
            let origins = member(files, |_| {});
            let plan = Plan { http2, streams: 1, connections: 40, ..plan_of(&origins, files, 1) };
            let report =
                idle::run(&plan, hold, Some(std::process::id()), &Control::default()).unwrap();
            let counts = (report.held, report.open_after_hold, report.error.clone());
            assert_eq!(counts, (40, 40, None), "HTTP/2: {http2}");
            assert!(report.bytes_per_connection.is_some());
            assert_eq!(report.to_text().contains("40 connections of HTTP/2 held"), http2);
            assert_eq!((origins.connections(0), origins.requests(0)), (40, 40));
        }
    }
    let plain = member(None, |spec| spec.http2 = false);
    let error = idle::run(&plan_of(&plain, None, 1), hold, None, &Control::default()).unwrap_err();
    assert!(error.to_string().contains("speaks HTTP/1 here"), "{error}");
}
