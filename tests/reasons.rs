//! Why checks fail, where packet filters are the reason: everything runs in a network namespace of
//! the test's own, whose filter changes while `weir serve` runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use process::space::Space;
use process::{LIMIT, RUN_DIR, run, weir};
use weir_core::time::clock;

/// An HTTP server on port 8000 of both families, and a UDP service that says nothing.
const MEMBER: &str = "
import http.server, socket, sys, threading
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def handle_error(self, *_):
        pass
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
kept.bind(('127.0.0.1', 8000))
server = Server(('::', 8000), Ok)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
";

/// Three pools with one member each, `m`, at the service on port 8000.
fn file() -> String {
    let mut text =
        format!("[runtime]\ncores = \"auto\"\nshutdown_timeout = 1\nrun_dir = \"{RUN_DIR}\"\n");
    let pools = [
        ("web", "HTTP", "HTTP", "127.0.0.1"),
        ("dns", "UDP", "UDP_CONNECT", "127.0.0.1"),
        ("six", "TCP", "TCP", "::1"),
    ];
    for (name, protocol, kind, address) in pools {
        text += &format!(
            "[[loadbalancer]]\nname = \"{name}\"\nvip_address = \"{address}\"\n\
             [[listener]]\nname = \"{name}\"\nloadbalancer = \"{name}\"\n\
             protocol = \"{protocol}\"\nprotocol_port = 0\ndefault_pool = \"{name}\"\n\
             [[pool]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\n\
             healthmonitor = {{ type = \"{kind}\", delay = 1, timeout = 2, max_retries = 1 }}\n\
             members = [{{ name = \"m\", address = \"{address}\", protocol_port = 8000 }}]\n"
        );
    }
    text
}

/// A server in the namespace, with its log as far as it was read.
struct Inside {
    space: Space,
    children: Vec<Child>,
    log: PathBuf,
    read: usize,
    _file: process::File,
}

impl Inside {
    fn start() -> Inside {
        let space = Space::new("reasons");
        let mut command = space.command(&["python3", "-c", MEMBER]);
        let member = command.stdin(Stdio::piped()).spawn().unwrap();
        let file = process::File::new(&file());
        let log = file.path.with_file_name("log");
        let (program, path) = (weir().get_program().to_owned(), file.path.to_str().unwrap());
        let mut command = space.command(&[program.to_str().unwrap(), "serve", "--config", path]);
        let err = std::fs::File::create(&log).unwrap();
        let server = command.stdin(Stdio::null()).stderr(err).spawn().unwrap();
        let children = vec![server, member];
        Inside { space, children, log, read: 0, _file: file }
    }

    /// Waits for a line with `words`; the lines before it.
    fn line(&mut self, words: &str) -> String {
        let until = clock::mono().plus(LIMIT);
        loop {
            let text = std::fs::read_to_string(&self.log).unwrap();
            let fresh = &text[self.read..];
            if let Some(at) = fresh.find(words) {
                self.read += at + words.len();
                return fresh[..at].to_owned();
            }
            assert_eq!(self.children[0].try_wait().unwrap(), None, "{text}");
            assert!(clock::mono() < until, "no {words:?} in\n{fresh}");
            process::pass_time(Duration::from_millis(20));
        }
    }

    /// What comes in is filtered by this rule, and by no other.
    fn filter(&self, rule: &str) {
        let rules = format!(
            "flush ruleset\ntable inet t {{\nchain in {{\ntype filter hook input priority 0\n\
             {rule}\n}}\n}}\n"
        );
        let path = self.log.with_file_name("rules");
        std::fs::write(&path, &rules).unwrap();
        let done = run(&mut self.space.command(&["nft", "-f", path.to_str().unwrap()]));
        assert_eq!(done.0, Some(0), "{rules}{}", done.2);
    }

    /// Filters, waits until `pool` is down for that reason, and up again without the filter.
    /// Meanwhile no other pool is down.
    fn expect(&mut self, rule: &str, pool: &str, reason: &str) {
        self.filter(rule);
        let before = self.line(&format!("pool {pool}: member m is down: {reason};"));
        assert!(!before.contains("is down"), "{rule}: {before}");
        self.filter("");
        let before = self.line(&format!("pool {pool}: member m is up"));
        assert!(!before.contains("is down"), "{rule}: {before}");
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _already_gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// R8.1-12: each kind of check needs its own protocols let through: TCP for those of streams, UDP
/// and ICMP for those of datagrams. The log says how a filter was felt: silence, a refusal, or word
/// that it is prohibited; a request that the member's host never acknowledges is told from one that
/// is not answered.
#[test]
fn filters_show_as_what_they_do() {
    let mut inside = Inside::start();
    // Who comes up before the server asks, and who after, is up in the end.
    for pool in ["web", "dns", "six"] {
        inside.read = 0;
        inside.line(&format!("pool {pool}: member m is up"));
    }
    inside.read = std::fs::read_to_string(&inside.log).unwrap().len();
    let of_http = "ip daddr 127.0.0.1 tcp dport 8000";
    let of_tcp = "ip6 daddr ::1 tcp dport 8000";
    for (rule, pool, reason) in [
        (format!("{of_http} drop"), "web", "CONNECT_TIMEOUT (connect_timeout)"),
        (format!("{of_http} reject with tcp reset"), "web", "CONNECT_REFUSED (connect_refused)"),
        (
            format!("{of_http} reject with icmp admin-prohibited"),
            "web",
            "CONNECT_FAILED (unreachable)",
        ),
        (format!("{of_http} tcp flags psh drop"), "web", "SEND_REQUEST_TIMEOUT (send_timeout)"),
        (
            format!("{of_tcp} reject with icmpv6 admin-prohibited"),
            "six",
            "CONNECT_FAILED (prohibited)",
        ),
        ("icmp type echo-request drop".to_owned(), "dns", "CONNECT_TIMEOUT (echo_timeout)"),
        (
            "udp dport 8000 reject with icmp port-unreachable".to_owned(),
            "dns",
            "CONNECT_REFUSED (port_unreachable)",
        ),
        (
            "udp dport 8000 reject with icmp admin-prohibited".to_owned(),
            "dns",
            "CONNECT_FAILED (unreachable)",
        ),
    ] {
        inside.expect(&rule, pool, reason);
    }
}
