//! What checks say of members behind a network that drops packets, rejects them, or delays them.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use socket2::SockRef;

use crate::namespaces::{self, Namespace, done, ip};
use crate::process::{Server, until};
use crate::{balancer, check, head, listener};

/// Ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_reaped = self.0.wait();
    }
}

/// Starts it and waits until it says "ready".
fn ready(command: &mut std::process::Command) -> Program {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Program(child)
}

fn serve(host: &Namespace, ip: &str, ports: RangeInclusive<u16>) -> Program {
    let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
    let mut arguments = vec!["serve", ip];
    arguments.extend(ports.iter().map(String::as_str));
    ready(&mut host.host(&arguments))
}

/// Has the member's host do this with what is sent to these ports.
fn filter(host: &Namespace, rules: &[(&str, u16, &str)]) {
    done(host.command("nft").args(["add", "table", "inet", "t"]));
    let chain = "{ type filter hook input priority 0 ; }";
    done(host.command("nft").args(["add", "chain", "inet", "t", "in", chain]));
    for (what, port, verdict) in rules {
        let rule = match *port {
            0 => format!("add rule inet t in {what} {verdict}"),
            port => format!("add rule inet t in {what} dport {port} {verdict}"),
        };
        done(host.command("nft").arg(rule));
    }
}

/// Waits for a line of the log with these words, also one that was read before.
fn said(server: &mut Server, words: &[&str]) {
    let has = |line: &String| words.iter().all(|word| line.contains(word));
    while !server.log.iter().any(has) {
        server.line_with(words[0]);
    }
}

fn up(server: &Server, pool: &str, member: SocketAddr) -> bool {
    server.metric(&format!("weir_member_up{{pool=\"{pool}\",member=\"{member}\"}}")) == 1.0
}

const SERVED: u16 = 9_000;

/// R7.6-1, R8.1-12: members on private addresses whose network drops what is sent to them, or
/// rejects it as refused or prohibited, are found down with the reason that belongs to it, and up
/// once it lets them through. Each kind of check needs its own protocols: TCP for those of streams,
/// UDP and ICMP for those of datagrams. A request that the member's host never acknowledges is told
/// from one that is not answered.
#[test]
fn packets_are_dropped_or_rejected() {
    if !namespaces::inside("reasons::packets_are_dropped_or_rejected") {
        return;
    }
    let addresses = [("10.2.1.1/24", "10.2.1.2/24"), ("fd02:1::1/64", "fd02:1::2/64")];
    let host = Namespace::join("member", &addresses);
    host.ip("address add 10.2.1.3/24 dev eth0");
    // Each refusal is to be told.
    for knob in ["net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"] {
        done(host.command("sysctl").args(["-w", knob]));
    }
    let _serving = ["10.2.1.2", "10.2.1.3", "fd02:1::2"].map(|ip| serve(&host, ip, SERVED..=9_006));
    filter(
        &host,
        &[
            ("tcp", 9_001, "drop"),
            ("tcp", 9_002, "reject with tcp reset"),
            ("tcp", 9_003, "reject with icmpx port-unreachable"),
            ("tcp", 9_004, "reject with icmpx admin-prohibited"),
            ("tcp", 9_005, "reject with icmpx host-unreachable"),
            ("tcp", 9_006, "tcp flags psh drop"),
            ("udp", 9_001, "drop"),
            ("udp", 9_003, "reject with icmpx port-unreachable"),
            ("udp", 9_004, "reject with icmpx admin-prohibited"),
            ("ip daddr 10.2.1.3 icmp type echo-request", 0, "drop"),
        ],
    );
    let at = |ip: &str, port: u16| SocketAddr::new(ip.parse().unwrap(), port);
    let both = |port| [at("10.2.1.2", port), at("fd02:1::2", port)];
    let compat = "[compat]\nl7_ipv6_members = true\n";
    let mut text = head("") + compat + &balancer("front", "");
    for Refused { protocol, name, port, .. } in REFUSED {
        text += &pool(protocol, name, &both(port));
    }
    let (silent, mute) = (both(9_001), [at("10.2.1.3", SERVED)]);
    text += &(pool("UDP", "silent", &silent) + &pool("UDP", "mute", &mute));
    text += &(pool("TCP", "good", &both(SERVED)) + &pool("UDP", "good-udp", &both(SERVED)));
    let mut server = Server::start(&text);
    for Refused { name, port, reasons, .. } in REFUSED {
        for (member, reason) in both(port).into_iter().zip(reasons) {
            let words = [&format!("pool {name}: member {member}"), &format!("failed: {reason}")];
            said(&mut server, &words.map(String::as_str));
            assert!(!up(&server, name, member), "{name} {member}");
        }
    }
    said(&mut server, &["pool mute: member 10.2.1.3", "failed: CONNECT_TIMEOUT (echo_timeout)"]);
    let well = [("good", both(SERVED)), ("good-udp", both(SERVED)), ("silent", silent)];
    let found_up = |name: &str, members: &[SocketAddr]| {
        for &member in members {
            until("members that are well to be found so", || up(&server, name, member));
        }
    };
    well.iter().for_each(|(name, members)| found_up(name, members));
    done(host.command("nft").args(["flush", "ruleset"]));
    found_up("mute", &mute);
    // What serves here speaks no HTTP.
    for Refused { name, port, .. } in REFUSED.iter().filter(|one| one.protocol != "HTTP") {
        found_up(name, &both(*port));
    }
    assert_eq!(server.metric("weir_health_probes_void_total"), 0.0, "{:?}", server.log);
}

/// A pool whose members' network refuses checks.
struct Refused {
    protocol: &'static str,
    name: &'static str,
    port: u16,
    /// What the log says of the member with an IPv4 address, and of the one with an IPv6 address.
    reasons: [&'static str; 2],
}

const fn refused(
    protocol: &'static str,
    name: &'static str,
    port: u16,
    reasons: [&'static str; 2],
) -> Refused {
    Refused { protocol, name, port, reasons }
}

const UNREACHABLE: &str = "CONNECT_FAILED (unreachable)";
const PROHIBITED: [&str; 2] = [UNREACHABLE, "CONNECT_FAILED (prohibited)"];

const REFUSED: [Refused; 8] = [
    refused("TCP", "dropped", 9_001, ["CONNECT_TIMEOUT (connect_timeout)"; 2]),
    refused("TCP", "reset", 9_002, ["CONNECT_REFUSED (connect_refused)"; 2]),
    refused("TCP", "refused", 9_003, ["CONNECT_REFUSED (connect_refused)"; 2]),
    refused("TCP", "prohibited", 9_004, PROHIBITED),
    refused("TCP", "unreachable", 9_005, [UNREACHABLE; 2]),
    refused("HTTP", "unheard", 9_006, ["SEND_REQUEST_TIMEOUT (send_timeout)"; 2]),
    refused("UDP", "port", 9_003, ["CONNECT_REFUSED (port_unreachable)"; 2]),
    refused("UDP", "forbidden", 9_004, PROHIBITED),
];

fn pool(protocol: &str, name: &str, members: &[SocketAddr]) -> String {
    let kind = if protocol == "UDP" { "UDP_CONNECT" } else { protocol };
    // Datagrams have time, as the format asks for.
    let timeout = if protocol == "UDP" { "timeout = 2" } else { "timeout = 1" };
    listener("front", name, protocol, members, &check(kind).replace("timeout = 1", timeout))
}

/// A way that takes longer than the timeout allows, to the connection or only to the
/// answer.
#[test]
fn packets_are_delayed() {
    if !namespaces::inside("reasons::packets_are_delayed") {
        return;
    }
    let host = Namespace::join("member", &[("10.2.1.1/24", "10.2.1.2/24")]);
    let _serving = serve(&host, "0.0.0.0", SERVED..=SERVED);
    let delay = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/resources/delay.py");
    // A round trip of 700 ms: time for a connection within a second, and not for the request to be
    // acknowledged.
    let mut cable = std::process::Command::new("python3");
    cable.arg(delay).args([host.id().to_string().as_str(), "350"]);
    let cable = ready(&mut cable);
    for (near, words) in [
        (true, "address add 10.3.0.1/24 dev slow"),
        (true, "link set slow up"),
        (false, "address add 10.3.0.2/24 dev slow"),
        (false, "link set slow up"),
    ] {
        if near { ip(words) } else { host.ip(words) }
    }
    let member = SocketAddr::from(([10, 3, 0, 2], SERVED));
    let quick = check("TCP").replace("timeout = 1", "timeout = 1, monitor_port = 9000");
    let text = head("")
        + &balancer("front", "")
        + &listener("front", "connects", "TCP", &[member], &quick)
        + &listener("front", "asks", "HTTP", &[member], &check("HTTP"));
    let mut server = Server::start(&text);
    said(&mut server, &["pool asks: member 10.3.0.2", "failed: SEND_REQUEST_TIMEOUT"]);
    until("the connection to be enough", || up(&server, "connects", member));
    assert!(!up(&server, "asks", member));
    drop(cable);
    said(&mut server, &["pool connects: member 10.3.0.2", "is down: "]);
}

/// R8.1-12: a member that resets its connections at once. Where the reset comes before the request
/// was taken, the reason says so; where it comes after that, it is an interrupt; it is never
/// anything else. Which comes first is a race of two processes that either wins now and then, so
/// many members are asked, every second.
#[test]
fn resets_before_and_after_the_request() {
    let door = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = door.local_addr().unwrap().port();
    // Its connections inherit it: they end with RST.
    SockRef::from(&door).set_linger(Some(Duration::ZERO)).unwrap();
    std::thread::spawn(move || door.incoming().for_each(drop));
    let members: Vec<_> = (1..=120).map(|n| SocketAddr::from(([127, 0, 7, n], port))).collect();
    let text = head("")
        + &balancer("front", "")
        + &listener("front", "app", "HTTP", &members, &check("HTTP"));
    let server = Server::start(&text);
    let [before, after] = ["SEND_REQUEST_FAILED", "CONNECT_INTERRUPT"]
        .map(|code| format!("weir_health_probe_failures_total{{reason=\"{code}\"}} "));
    let mut metrics = String::new();
    until("resets before the request, and after it", || {
        metrics = server.metrics();
        [&before, &after].iter().all(|series| metrics.contains(series.as_str()))
    });
    let all = metrics.lines().filter(|line| line.starts_with("weir_health_probe_failures_total{"));
    assert_eq!(all.count(), 2, "{metrics}");
}
