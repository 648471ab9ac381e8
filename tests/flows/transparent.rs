//! Members that see the clients' own addresses, in network namespaces: a client and two members
//! around the balancer's host, whose routes `examples/transparent/setup.sh` makes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Read as _, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::namespaces::{self, Namespace, done};
use crate::process::line::Line;
use crate::process::{self, RUN_DIR, Server, address_after, run, until};

/// The balancer's addresses towards clients, and two addresses of a client.
const VIPS: [&str; 2] = ["10.1.0.1", "fd01::1"];
const CLIENTS: [&str; 3] = ["10.1.0.2", "10.1.0.3", "fd01::2"];
/// Where members serve.
const PORT: &str = "7000";

/// The hosts around the balancer, which is where the test itself runs.
struct Hosts {
    client: Namespace,
    members: [Namespace; 2],
    /// Of each member, by family.
    serving: Vec<Program>,
}

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_reaped = self.0.wait();
    }
}

/// Member `n` (1, 2) and its addresses.
fn member(n: u8, family: usize) -> String {
    [format!("10.2.{n}.2"), format!("fd02:{n}::2")][family].clone()
}

impl Hosts {
    /// Members answer by way of the balancer; both serve, by TCP and UDP, in both families.
    fn new() -> Hosts {
        let client = Namespace::join(
            "clients",
            &[("10.1.0.1/24", "10.1.0.2/24"), ("fd01::1/64", "fd01::2/64")],
        );
        client.ip("address add 10.1.0.3/24 dev eth0");
        for route in ["10.2.0.0/16 via 10.1.0.1", "fd02::/16 via fd01::1"] {
            client.ip(&format!("route add {route}"));
        }
        let members = [1, 2].map(|n| {
            let (four, six) = (format!("10.2.{n}."), format!("fd02:{n}::"));
            let addresses = [
                (format!("{four}1/24"), format!("{four}2/24")),
                (format!("{six}1/64"), format!("{six}2/64")),
            ];
            let pairs = addresses.each_ref().map(|(ours, its)| (ours.as_str(), its.as_str()));
            let host = Namespace::join(&format!("member{n}"), &pairs);
            host.ip(&format!("route add default via {four}1"));
            host.ip(&format!("-6 route add default via {six}1"));
            host
        });
        let mut serving = Vec::new();
        for (n, host) in (1..).zip(&members) {
            serving.extend([0, 1].map(|family| serve(host, &member(n, family))));
        }
        setup(&["up", "member1", "member2"]);
        Hosts { client, members, serving }
    }

    /// Who the member saw when somebody at `host` asked from this address of its own.
    fn ask(&self, host: &Namespace, protocol: &str, source: &str, to: SocketAddr) -> String {
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        let words = done(&mut host.host(&["ask", protocol, source, &ip, &port, "hello"]));
        words.split_once(' ').map_or(words.trim_end(), |(seen, _)| seen).to_owned()
    }
}

fn serve(host: &Namespace, address: &str) -> Program {
    let mut child = host.host(&["serve", address, PORT]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    Program(child)
}

/// A connection or a flow that lives on.
struct Held {
    _asker: Program,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Held {
    /// From this address of the host's.
    fn open(host: &Namespace, protocol: &str, source: &str, to: SocketAddr) -> Held {
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        let mut command = host.host(&["hold", protocol, source, &ip, &port]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let asks = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Held { _asker: Program(child), asks, answers }
    }

    /// Whom the member sees: address and port.
    fn seen(&mut self) -> String {
        self.asks.write_all(b"hello\n").unwrap();
        let answer = self.answers.next().unwrap().unwrap();
        answer.strip_suffix(" hello").unwrap().to_owned()
    }
}

/// New connections or flows, one after the other, as long as it lives.
struct Load {
    child: Program,
    listener: String,
}

impl Load {
    /// From this address of the host's.
    fn start(host: &Namespace, protocol: &str, source: &str, to: SocketAddr) -> Load {
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        let mut command = host.host(&["load", protocol, source, &ip, &port]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Load { child: Program(child), listener: protocol.to_uppercase() }
    }

    /// Waits for some more.
    fn goes_on(&self, server: &Server) {
        let series = format!("weir_connections_total{{listener=\"{}\"}}", self.listener);
        let before = server.metric(&series);
        until("new ones", || server.metric(&series) >= before + 20.0);
    }

    /// The failures, and whom members saw.
    fn end(mut self) -> String {
        drop(self.child.0.stdin.take());
        let mut words = String::new();
        self.child.0.stdout.take().unwrap().read_to_string(&mut words).unwrap();
        words.split_once(' ').unwrap().1.trim_end().to_owned()
    }
}

fn setup(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/transparent/setup.sh");
    done(Command::new("sh").arg(script).args(arguments));
}

/// A listener for TCP and one for UDP, `listener` in both, on a balancer with these `lines`; with
/// the members of these numbers.
fn text(lines: &str, listener: &str, members: &[u8]) -> String {
    let mut text = format!(
        "[runtime]\nshutdown_timeout = 1\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = [\"{}\", \"{}\"]\n{lines}\n",
        VIPS[0], VIPS[1]
    );
    for protocol in ["TCP", "UDP"] {
        text += &format!(
            "[[listener]]\nname = \"{protocol}\"\nloadbalancer = \"front\"\n\
             protocol = \"{protocol}\"\nprotocol_port = 0\ndefault_pool = \"{protocol}\"\n\
             {listener}\n[[pool]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\n"
        );
        for (n, family) in members.iter().flat_map(|n| [(*n, 0), (*n, 1)]) {
            let address = member(n, family);
            text += &format!("[[pool.members]]\naddress = \"{address}\"\nprotocol_port = {PORT}\n");
        }
    }
    text
}

const INSIDE: &str = "ip_target_enable = false";

/// Where a protocol is served, of this family.
fn served(server: &Server, protocol: &str, family: usize) -> SocketAddr {
    let words = format!("{} {protocol}://", protocol.to_uppercase());
    let port = address_after(&server.ready, &words).port();
    SocketAddr::new(VIPS[family].parse().unwrap(), port)
}

fn reload(server: &Server, text: &str) {
    let (code, out, err) = server.reload(text);
    assert_eq!(code, Some(0), "{out}{err}");
}

/// R9.1-5, R9.1-10, R9.1-15, R2.1-12, R2.1-15, C7: without `ip_target_enable` members see the
/// client's own address, by TCP and UDP, in both families, whoever asks; what they answer reaches
/// it. It can't be turned off there. With `ip_target_enable` they see the balancer's.
#[test]
fn members_see_the_client() {
    if !namespaces::inside("transparent::members_see_the_client") {
        return;
    }
    let hosts = Hosts::new();
    let server = Server::start(&text(INSIDE, "", &[1, 2]));
    let before = server.descriptors();
    for protocol in ["tcp", "udp"] {
        for (family, source) in [(0, CLIENTS[0]), (0, CLIENTS[1]), (1, CLIENTS[2])] {
            for _ in 0..4 {
                let to = served(&server, protocol, family);
                assert_eq!(hosts.ask(&hosts.client, protocol, source, to), source, "{protocol}");
            }
        }
    }
    let spread = |n: u8| {
        let family = "weir_member_connections_total";
        let labels = |protocol| {
            format!("{family}{{pool=\"{protocol}\",member=\"{}:{PORT}\"}}", member(n, 0))
        };
        server.metric(&labels("TCP")) + server.metric(&labels("UDP"))
    };
    // Each shard has turns of its own.
    assert_eq!(spread(1) + spread(2), 16.0);
    assert!(spread(1) >= 2.0 && spread(2) >= 2.0, "both members have served");
    // A flow has a socket for itself, which goes with it.
    assert!(server.descriptors() > before);
    let (code, out, err) =
        server.reload(&text(INSIDE, "transparent_client_ip_enable = false", &[1, 2]));
    assert!(code == Some(1) && (out + &err).contains("R9.1-10"), "{err}");
    reload(&server, &text("ip_target_enable = true", "", &[1, 2]));
    for (protocol, family) in [("tcp", 0), ("udp", 0), ("tcp", 1), ("udp", 1)] {
        let source = [CLIENTS[0], CLIENTS[2]][family];
        let seen = hosts.ask(&hosts.client, protocol, source, served(&server, protocol, family));
        assert!(seen.starts_with(["10.2.", "fd02:"][family]) && seen.ends_with('1'), "{seen}");
    }
    // Deleted listeners, no flows, no sockets.
    let nobody = text(INSIDE, "", &[]);
    let none = &nobody[..nobody.find("[[listener]]").unwrap()];
    // Without any pool it would be taken for a file that was emptied by mistake.
    reload(&server, &format!("{none}[[pool]]\nname = \"kept\"\nprotocol = \"TCP\"\n"));
    until("the sockets to be closed", || server.descriptors() < before);
}

/// R2.1-15, C7: of the same listener, a member of the balancer's network sees the client and one
/// elsewhere sees the balancer.
#[test]
fn members_elsewhere_see_the_balancer() {
    if !namespaces::inside("transparent::members_elsewhere_see_the_balancer") {
        return;
    }
    let hosts = Hosts::new();
    let on = "transparent_client_ip_enable = true";
    let server = Server::start(&text("network = [\"10.2.1.0/24\"]", on, &[1, 2]));
    for protocol in ["tcp", "udp"] {
        let to = served(&server, protocol, 0);
        let mut seen = BTreeSet::new();
        until("both members to be asked", || {
            seen.insert(hosts.ask(&hosts.client, protocol, CLIENTS[0], to));
            seen.len() > 1
        });
        let expected = [CLIENTS[0], "10.2.2.1"].map(str::to_owned);
        assert_eq!(seen, BTreeSet::from(expected), "{protocol}");
    }
}

/// R2.2-1: what a member's host says of a datagram or a connection reaches the balancer, though it
/// is addressed to the client.
#[test]
fn a_member_that_refuses_is_left() {
    if !namespaces::inside("transparent::a_member_that_refuses_is_left") {
        return;
    }
    let mut hosts = Hosts::new();
    let server = Server::start(&text(INSIDE, "", &[1, 2]));
    hosts.serving.truncate(2);
    for (protocol, family) in [("tcp", 0), ("udp", 0), ("tcp", 1), ("udp", 1)] {
        let (source, to) = ([CLIENTS[0], CLIENTS[2]][family], served(&server, protocol, family));
        for _ in 0..4 {
            assert_eq!(hosts.ask(&hosts.client, protocol, source, to), source, "{protocol}");
        }
    }
    assert!(server.sum("weir_member_connect_failures_total") >= 4.0);
}

/// R2.1-13, R2.2-7, R3.12-1, R9.1-9: a member that is its own client is not served, and that is
/// counted and said; by the balancer's own address it is served (C11).
#[test]
fn a_member_is_not_its_own_client() {
    if !namespaces::inside("transparent::a_member_is_not_its_own_client") {
        return;
    }
    let hosts = Hosts::new();
    let log = format!("[connection_log]\npath = \"{RUN_DIR}.log\"\n");
    let mut server = Server::start(&(text(INSIDE, "", &[1]) + &log));
    let own = member(1, 0);
    for (protocol, answer) in [("tcp", "failed: ConnectionResetError"), ("udp", "failed: silence")]
    {
        let to = served(&server, protocol, 0);
        // How the asker hears of a reset depends on when it comes.
        let seen = hosts.ask(&hosts.members[0], protocol, &own, to);
        assert!(answer.starts_with(seen.as_str()), "{seen}");
        let name = protocol.to_uppercase();
        let series =
            format!("weir_ended_connections_total{{listener=\"{name}\",how=\"member_is_client\"}}");
        assert!(server.metric(&series) >= 1.0);
    }
    let dropped = "weir_datagrams_dropped_total{listener=\"UDP\",why=\"member_is_client\"}";
    assert!(server.metrics().contains(dropped), "{}", server.metrics());
    server.line_with("is its client, too");
    reload(&server, &(text("", "", &[1]) + &log));
    for protocol in ["tcp", "udp"] {
        let to = served(&server, protocol, 0);
        assert_eq!(hosts.ask(&hosts.members[0], protocol, &own, to), "10.2.1.1");
    }
    // A line of the session that was refused, with the member that it was for; none of a datagram.
    let lines = server.connection_log();
    let refused = |line: &&serde_json::Value| line["ended"] == "member_is_client";
    let refused: Vec<_> = lines.iter().filter(refused).collect();
    assert_eq!((refused.len(), lines.len()), (1, 3), "{lines:?}");
    let line = refused[0];
    assert_eq!(line["listener_usr_name"], "TCP");
    assert_eq!(line["remote_addr"], own);
    assert_eq!(line["upstream_addr"], format!("{own}:{PORT}"));
    assert_eq!((&line["attempts"], &line["upstream_bytes_sent"]), (&1.into(), &0.into()));
    assert!(line["upstream_connect_time"].is_null(), "{line}");
}

/// R9.1-11, R9.1-13: on a shared balancer it is a switch, off unless turned on, that a reload turns
/// either way under load; connections and flows that there are go on as they are, and no new one
/// fails, also with health checks.
#[test]
fn a_reload_switches_it() {
    if !namespaces::inside("transparent::a_reload_switches_it") {
        return;
    }
    let hosts = Hosts::new();
    let shared = |listener: &str| {
        let check = "healthmonitor = { type = \"TCP\", delay = 1, timeout = 1, max_retries = 1 }";
        text("flavor = \"shared\"", listener, &[1])
            .replace(&format!(", \"{}\"", VIPS[1]), "")
            .replace(
                &format!(
                    "[[pool.members]]\naddress = \"{}\"\nprotocol_port = {PORT}\n",
                    member(1, 1)
                ),
                "",
            )
            .replace(
                "protocol = \"TCP\"\n[[pool.members]]",
                &format!("protocol = \"TCP\"\n{check}\n[[pool.members]]"),
            )
    };
    let server = Server::start(&shared(""));
    let (tcp, udp) = (served(&server, "tcp", 0), served(&server, "udp", 0));
    let both = [("tcp", tcp), ("udp", udp)];
    let open = |(protocol, to)| {
        let mut held = Held::open(&hosts.client, protocol, CLIENTS[0], to);
        let seen = held.seen();
        (held, seen)
    };
    let mut held = Vec::from(both.map(open));
    assert!(held.iter().all(|(_, seen)| seen.starts_with("10.2.1.1 ")));
    let loads = both.map(|(protocol, to)| Load::start(&hosts.client, protocol, CLIENTS[1], to));
    for n in 0..4 {
        loads.iter().for_each(|load| load.goes_on(&server));
        let (on, seen) = [(true, CLIENTS[0]), (false, "10.2.1.1")][n % 2];
        reload(&server, &shared(&format!("transparent_client_ip_enable = {on}")));
        for _ in 0..5 {
            assert_eq!(hosts.ask(&hosts.client, "tcp", CLIENTS[0], tcp), seen);
            assert_eq!(hosts.ask(&hosts.client, "udp", CLIENTS[0], udp), seen);
        }
        if n == 0 {
            held.extend(both.map(open));
            assert!(
                held[2..].iter().all(|(_, seen)| seen.starts_with(&format!("{} ", CLIENTS[0])))
            );
        }
        for (held, seen) in &mut held {
            assert_eq!(held.seen(), *seen, "what is established stays as it is");
        }
    }
    for load in loads {
        load.goes_on(&server);
        assert_eq!(load.end(), format!("failures: peers: {} 10.2.1.1", CLIENTS[1]));
    }
    assert_eq!(server.sum("weir_member_connect_failures_total"), 0.0);
}

/// R9.1-5, R9.1-15: over `weir upgrade` members go on seeing the client, of flows and of sessions
/// that there are at the very port that they saw, and of new ones; by every family.
#[test]
fn an_upgrade_keeps_the_clients_addresses() {
    if !namespaces::inside("transparent::an_upgrade_keeps_the_clients_addresses") {
        return;
    }
    let hosts = Hosts::new();
    let mut line = Line::start(&text(INSIDE, "", &[1, 2]));
    let kinds = [("udp", 0), ("udp", 1), ("tcp", 0), ("tcp", 1)].map(|(protocol, family)| {
        let source = [CLIENTS[0], CLIENTS[2]][family];
        (protocol, source, served(&line, protocol, family))
    });
    let mut held = Vec::new();
    // Of each kind as many as members, so that both have some.
    for (protocol, source, to) in kinds.into_iter().chain(kinds) {
        let mut one = Held::open(&hosts.client, protocol, source, to);
        let seen = one.seen();
        assert!(seen.starts_with(&format!("{source} ")), "{protocol} from {source}: {seen}");
        held.push((one, seen));
    }
    let begun = line.metric("weir_active_connections{listener=\"UDP\"}");
    assert_eq!(begun, 4.0);
    for round in 0..3 {
        line.upgrade(&[]);
        for (one, seen) in &mut held {
            assert_eq!(one.seen(), *seen, "round {round}");
        }
        let open = line.metric("weir_active_connections{listener=\"UDP\"}");
        assert_eq!(open as usize, 4 + 2 * round, "flows, and those that asked once");
        for (protocol, source, to) in kinds {
            assert_eq!(hosts.ask(&hosts.client, protocol, source, to), source, "{protocol}");
        }
    }
}

/// C7, R9.1-15: without the capability the start, a check and a reload fail and name it, unless the
/// balancer says what stands in.
#[test]
fn a_missing_capability_is_named() {
    if !namespaces::inside("transparent::a_missing_capability_is_named") {
        return;
    }
    let hosts = Hosts::new();
    let bare = |command: &mut Command| {
        let mut other = Command::new("setpriv");
        let dropped = "-net_admin,-net_raw";
        other.args(["--bounding-set", dropped, "--inh-caps", dropped, "--"]);
        other.arg(command.get_program()).args(command.get_args());
        *command = other;
        command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    };
    let file = process::File::new(&text(INSIDE, "", &[1]));
    for verb in ["serve", "check"] {
        let mut command = process::weir();
        command.args([verb, "--config"]).arg(&file.path);
        bare(&mut command);
        let (code, _, err) = run(&mut command);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("CAP_NET_ADMIN") && err.contains("TCP, UDP"), "{err}");
    }
    let told = |words: &str| format!("{INSIDE}\npassthrough_fallback = \"{words}\"");
    let server = Server::start_with(&text(&told("none"), "", &[1]), bare);
    for protocol in ["tcp", "udp"] {
        let to = served(&server, protocol, 0);
        assert_eq!(hosts.ask(&hosts.client, protocol, CLIENTS[0], to), "10.2.1.1");
    }
    let (code, out, err) = server.reload(&text(INSIDE, "", &[1]));
    assert!(code == Some(1) && format!("{out}{err}").contains("CAP_NET_ADMIN"), "{out}{err}");
    // The member sends back what came: the header of the PROXY protocol.
    reload(&server, &text(&told("proxy_protocol"), "", &[1]));
    for protocol in ["tcp", "udp"] {
        let to = served(&server, protocol, 0);
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        let words =
            done(&mut hosts.client.host(&["ask", protocol, CLIENTS[0], &ip, &port, "hello"]));
        assert!(words.starts_with("10.2.1.1 ") && words.contains("QUIT"), "{words:?}");
    }
}

/// R9.1-5, R3.1-1: what the client says first goes with the connect from its own address, also to
/// the member after one that does not answer in time; the header of the PROXY protocol before it.
#[test]
fn first_bytes_come_from_the_client() {
    if !namespaces::inside("transparent::first_bytes_come_from_the_client") {
        return;
    }
    let hosts = Hosts::new();
    // SYNs arrive at the first member, and its answers go nowhere.
    for family in ["-4", "-6"] {
        hosts.members[0].ip(&format!("{family} route replace blackhole default"));
    }
    let told = |header: &str| {
        let pool = "protocol = \"TCP\"\n[[pool.members]]";
        text(INSIDE, "connect_timeout = 1", &[1, 2])
            .replace(pool, &format!("protocol = \"TCP\"\n{header}\n[[pool.members]]"))
    };
    let server = Server::start(&told(""));
    let failures = |family: usize| {
        let at = SocketAddr::new(member(1, family).parse().unwrap(), PORT.parse().unwrap());
        let family = "weir_member_connect_failures_total";
        server.metric(&format!("{family}{{pool=\"TCP\",member=\"{at}\"}}"))
    };
    let words = "w".repeat(1_000);
    let ask = |source: &str, to: SocketAddr| {
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        done(&mut hosts.client.host(&["ask", "tcp", source, &ip, &port, &words]))
    };
    for (family, source) in [(0, CLIENTS[0]), (1, CLIENTS[2])] {
        let to = served(&server, "tcp", family);
        until("the first member to be tried twice", || {
            let answer = ask(source, to);
            assert!(answer.starts_with(&format!("{source} ")), "{answer}");
            assert!(answer.trim_end().ends_with(&format!(" {words}")), "{answer}");
            failures(family) >= 2.0
        });
    }
    reload(&server, &told("proxy_protocol = \"v1\""));
    let to = served(&server, "tcp", 0);
    let before = failures(0);
    until("the first member to be tried again", || {
        let answer = ask(CLIENTS[0], to);
        let header = format!("PROXY TCP4 {} {} ", CLIENTS[0], to.ip());
        assert!(answer.starts_with(&format!("{} ", CLIENTS[0])), "{answer}");
        // Where the client was late, its bytes have a segment of their own, which is not read.
        assert_eq!(answer.matches(&header).count(), 1, "{answer}");
        failures(0) > before
    });
}
