//! Shares of the traffic: what members get, by their own logs and by Weir's metrics.

use crate::nginx::Nginx;
use crate::process::{Server, config, until};
use crate::{alone, core_choices, curl, run};

/// Names and weights.
const MEMBERS: [(&str, u8); 3] = [("one", 1), ("two", 2), ("three", 3)];
const TOTAL_WEIGHT: f64 = 6.0;
const REQUESTS: usize = 6_000;

fn start(cores: &str, weights: [u8; 3]) -> (Nginx, Server) {
    let nginx = Nginx::start(&MEMBERS.map(|(name, _)| name));
    let members = [0, 1, 2].map(|i| (nginx.addrs[i], weights[i]));
    let server = Server::start(&config(cores, 5, 0, &members));
    (nginx, server)
}

fn by_metrics(server: &Server) -> [f64; 3] {
    let series = |at| format!(r#"weir_member_requests_total{{pool="app",member="m{at}"}}"#);
    [0, 1, 2].map(|at| server.metric(&series(at)))
}

/// R2.1-4: 6,000 requests over weights 1, 2, 3 land 1,000/2,000/3,000 ± 1 %.
#[test]
fn six_thousand_requests_land_as_the_weights_say() {
    let _turn = alone();
    for cores in core_choices() {
        let (nginx, server) = start(cores, MEMBERS.map(|(_, weight)| weight));
        let url = format!("http://{}/[1-{REQUESTS}]", server.web);
        let form = "%{http_code}\n";
        let args = ["-sS", "--parallel", "--parallel-max", "32", "-o", "/dev/null", "-w", form];
        let (code, codes, err) = run("curl", &[&args[..], &["--max-time", "120", &url]].concat());
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(codes.lines().filter(|l| *l == "200").count(), REQUESTS, "cores {cores}");
        let counted = || MEMBERS.map(|(name, _)| nginx.requests(name));
        until("all requests in the logs", || counted().iter().sum::<usize>() == REQUESTS);
        println!("cores {cores}: logs {:?}, metrics {:?}", counted(), by_metrics(&server));
        for (at, (name, weight)) in MEMBERS.into_iter().enumerate() {
            let expected = REQUESTS as f64 * f64::from(weight) / TOTAL_WEIGHT;
            let (log, metric) = (counted()[at] as f64, by_metrics(&server)[at]);
            assert!((log - expected).abs() <= expected * 0.01, "cores {cores}, {name}: {log}");
            assert_eq!(log, metric, "cores {cores}, {name}: the log and the metric");
        }
    }
}

/// The same shares at full speed, by wrk.
#[test]
fn shares_hold_under_wrk() {
    let _turn = alone();
    for cores in core_choices() {
        let (_nginx, server) = start(cores, MEMBERS.map(|(_, weight)| weight));
        let url = format!("http://{}/", server.web);
        let (code, report, _) = run("wrk", &["-t", "1", "-c", "32", "-d", "2s", &url]);
        assert_eq!(code, Some(0), "{report}");
        assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
        let shares = by_metrics(&server);
        let all: f64 = shares.iter().sum();
        assert!(all > 1_000.0, "{report}");
        println!("cores {cores}: wrk {shares:?}");
        for ((name, weight), share) in MEMBERS.into_iter().zip(shares) {
            let expected = all * f64::from(weight) / TOTAL_WEIGHT;
            assert!((share - expected).abs() <= expected * 0.01, "{name}: {share} of {all}");
        }
    }
}

/// R2.1-4: a member of weight 0 gets nothing.
#[test]
fn weight_zero_gets_nothing() {
    let _turn = alone();
    let (nginx, server) = start("\"auto\"", [1, 0, 1]);
    curl(&["-o", "/dev/null", &format!("http://{}/[1-300]", server.web)]);
    until("all requests in the logs", || nginx.requests("one") + nginx.requests("three") == 300);
    assert_eq!(nginx.requests("two"), 0);
    assert_eq!(by_metrics(&server)[1], 0.0);
}
