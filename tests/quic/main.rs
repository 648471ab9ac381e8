//! QUIC pools end to end: the real program between clients and members of a QUIC library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../process/mod.rs"]
mod process;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use process::line::Line;
use process::{RUN_DIR, Server, address_after, python, run, until};

/// Members behind the balancer.
const MEMBERS: usize = 8;

/// Counts datagrams whose member was found by their connection id.
const FOUND: &str = "weir_sticky_requests_total{listener=\"quic\",result=\"hit\"}";

fn peers() -> Command {
    python("tests/quic/peers.py")
}

/// Members; they end when their input does.
struct Members {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Members {
    fn start(kind: &str) -> Members {
        let mut command = peers();
        command.args(["members", &MEMBERS.to_string(), kind]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = |port: &str| SocketAddr::from(([127, 0, 0, 77], port.parse().unwrap()));
        let addresses: Vec<_> = line.split_whitespace().map(address).collect();
        assert_eq!(addresses.len(), MEMBERS, "{line}");
        Members { child, addresses }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _already_reaped = self.child.wait();
    }
}

fn file(pool: &str, members: &[SocketAddr]) -> String {
    let mut text = format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 10\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n\
         [[listener]]\nname = \"quic\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
         protocol_port = 0\ndefault_pool = \"app\"\n\
         [connection_log]\npath = \"{RUN_DIR}.log\"\n\
         [[pool]]\nname = \"app\"\nprotocol = \"QUIC\"\n{pool}\n"
    );
    for addr in members {
        let (ip, port) = (addr.ip(), addr.port());
        writeln!(text, "[[pool.members]]\naddress = \"{ip}\"\nprotocol_port = {port}").unwrap();
    }
    text
}

/// What clients have said at their end: all of them have stayed, at more than half of the members.
fn have_stayed(words: &str, clients: usize) {
    let counts: Vec<usize> = words.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(counts[..2], [clients, 0], "stayed, moved");
    assert!(counts[2] > MEMBERS / 2, "all at {} members", counts[2]);
}

/// All clients move three times, from shard to shard; none may lose its member.
fn all_stay(pool: &str, kind: &str, how: &str) {
    let members = Members::start(kind);
    let server = Server::start(&file(pool, &members.addresses));
    let port = address_after(&server.ready, "quic udp://").port().to_string();
    let clients = 200;
    let (code, out, err) = run(peers().args(["clients", &port, &clients.to_string(), how]));
    assert_eq!(code, Some(0), "{out}{err}");
    have_stayed(&out, clients);
    let found = server.metric(FOUND);
    // Where the port that a client moves to was used before, its flow may still be there.
    assert!(found > 2.0 * clients as f64, "{found} moves\n{}", server.metrics());
    let shards = server.shards() as u64;
    if shards == 1 {
        eprintln!("one core only: there is no other shard");
    }
    let flows = server.connection_log();
    for shard in 0..shards {
        let own = flows.iter().filter(|flow| flow["shard"] == shard).count();
        // Each address falls to either.
        assert!(own > flows.len() / shards as usize / 2, "shard {shard}: {own}");
    }
}

/// R6.8-6: a client that comes from another port with the same connection id.
#[test]
fn who_keeps_its_id_keeps_its_member() {
    let pool = "lb_algorithm = \"QUIC_CID\"\nquic_cid_hash_strategy = { len = 8, offset = 1 }";
    all_stay(pool, "random", "same-id");
}

/// R6.8-6: a client that comes from another port with an id that nobody has seen, which says whose
/// it is.
#[test]
fn who_takes_an_id_of_its_member_keeps_it() {
    all_stay("lb_algorithm = \"QUIC_CID\"", "server-id", "new-id");
}

/// New connections may go by weight instead; those that there are stay where they are.
#[test]
fn round_robin_chooses_for_new_connections_only() {
    all_stay("", "server-id", "new-id");
}

/// The program is replaced before each move of all clients: the new one finds their members by what
/// the former one has learnt.
fn all_stay_over_upgrades(pool: &str, kind: &str, how: &str) {
    let members = Members::start(kind);
    let mut line = Line::start(&file(pool, &members.addresses));
    let port = address_after(&line.ready, "quic udp://").port().to_string();
    let clients = 40;
    let mut command = peers();
    command.args(["clients", &port, &clients.to_string(), how, "told"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut tell = child.stdin.take().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        assert_eq!(said.next().unwrap().unwrap(), "ready");
        line.upgrade(&[]);
        tell.write_all(b"\n").unwrap();
    }
    have_stayed(&said.next().unwrap().unwrap(), clients);
    assert!(child.wait().unwrap().success());
    let found = line.metric(FOUND);
    assert!(found > 0.6 * clients as f64, "{found} moves\n{}", line.metrics());
}

/// R6.8-6: a client that moves with its connection id keeps its member over `weir upgrade`.
#[test]
fn who_keeps_its_id_keeps_its_member_over_upgrades() {
    let pool = "lb_algorithm = \"QUIC_CID\"\nquic_cid_hash_strategy = { len = 8, offset = 1 }";
    all_stay_over_upgrades(pool, "random", "same-id");
}

/// R6.8-6: one that moves with an id of its member's that nobody has seen keeps it, too.
#[test]
fn who_takes_an_id_of_its_member_keeps_it_over_upgrades() {
    all_stay_over_upgrades("lb_algorithm = \"QUIC_CID\"", "server-id", "new-id");
}

/// R6.8-6: what is no QUIC, and what can be nobody's, is dropped and counted.
#[test]
fn what_is_no_quic_is_dropped() {
    let member = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Server::start(&file("", &[member.local_addr().unwrap()]));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(address_after(&server.ready, "quic udp://")).unwrap();
    let negotiation = b"\x80\0\0\0\0\x04abcd\x04efgh\0\0\0\x01";
    for junk in [&b""[..], b"\xc0\0\0\0", b"\xc0\0\0\0\x01\xffabc", b"\x40ab", negotiation] {
        client.send(junk).unwrap();
    }
    let dropped = "weir_datagrams_dropped_total{listener=\"quic\",why=\"not_quic\"}";
    until("all to be dropped", || server.counted(dropped) == 5.0);
    client.send(b"\xc0\xfa\xfa\xfa\xfa\x08clientid\0of a version to come").unwrap();
    let mut buf = [0; 100];
    let (len, from) = member.recv_from(&mut buf).unwrap();
    assert!(buf[..len].ends_with(b"to come"), "nothing before it");
    // What has a flow goes there, short as it may be.
    client.send(b"\x40ab").unwrap();
    assert_eq!(member.recv_from(&mut buf).unwrap(), (3, from));
}
