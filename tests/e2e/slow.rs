//! slowhttptest in its four modes beside good traffic: the good requests all succeed, and the
//! attack leaves nothing behind.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir_core::time::clock;

use crate::alone;
use crate::nginx::{Nginx, PAGE};
use crate::process::{Client, Server, config, count, until};

/// Its modes, with what each sends at a time and how often.
const MODES: [(&str, &[&str]); 4] = [
    ("slow headers", &["-H", "-x", "24"]),
    ("slow body", &["-B", "-s", "8192", "-x", "10"]),
    ("range", &["-R", "-a", "5", "-b", "3000"]),
    ("slow read", &["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"]),
];

/// Starts an attack that ends by itself.
fn attack(web: SocketAddr, mode: &[&str]) -> Child {
    let connections = count("300", "2000");
    let seconds = count("4", "30");
    let url = format!("http://{web}/page");
    let mut command = Command::new("slowhttptest");
    command.args(mode).args(["-c", connections, "-r", "300", "-i", "1", "-l", seconds]);
    command.args(["-p", "5", "-u", &url]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|e| panic!("slowhttptest (see tests/packages.sh): {e}"))
}

/// Good requests, now on a kept connection and now on a new one, until told to stop; how long each
/// took. Every one has to succeed.
fn good_traffic(web: SocketAddr, mut goes_on: impl FnMut() -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    while goes_on() {
        let mut client = Client::connect(web);
        for _ in 0..10 {
            for path in ["/", "/page"] {
                let start = clock::mono();
                client.send(path, "");
                let answer = client.answer().unwrap_or_else(|e| panic!("no answer: {e}"));
                times.push(clock::mono().since(start));
                assert_eq!(answer.status, 200);
                assert_eq!(answer.body.len(), if path == "/" { 1 } else { PAGE });
            }
        }
    }
    times.sort();
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[(times.len() - 1) * 99 / 100]
}

#[test]
fn slow_clients_do_not_harm_the_others() {
    let _turn = alone();
    let nginx = Nginx::start(&["a"]);
    let text = config("\"auto\"", 5, 0, &[(nginx.addrs[0], 1)]);
    // So short that the attacked limits are met within the attack.
    let limits = "default_pool = \"app\"\nclient_timeout = 2\n";
    let server = Server::start(&text.replacen("default_pool = \"app\"\n", limits, 1));
    let start = clock::mono();
    let alone = Duration::from_secs(count(1, 10));
    let before = good_traffic(server.web, || clock::mono().since(start) < alone);
    println!("good traffic alone: {} requests, p99 {:?}", before.len(), p99(&before));
    for (name, mode) in MODES {
        let opened = server.sum("weir_connections_total");
        let mut child = attack(server.web, mode);
        let beside = good_traffic(server.web, || child.try_wait().expect("its state").is_none());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        let attacked = server.sum("weir_connections_total") - opened - beside.len() as f64 / 20.0;
        println!(
            "{name}: {attacked} connections; beside it {} good requests, p99 {:?}; 408: {}",
            beside.len(),
            p99(&beside),
            server.counted("weir_responses_total{listener=\"web\",code=\"408\"}"),
        );
        assert!(attacked >= 200.0, "{name}: {attacked} connections: {said}");
        assert!(!beside.is_empty(), "{name} ended at once: {said}");
        let available: Vec<&str> =
            said.lines().filter(|line| line.contains("service available")).collect();
        assert!(!available.is_empty(), "{name}: {said}");
        assert!(available.iter().all(|line| line.contains("YES")), "{name}: {said}");
        until("its connections are gone", || server.sum("weir_active_connections") == 0.0);
        until("all leases are back", || server.sum("weir_ring_leases") == 0.0);
    }
    assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
}
