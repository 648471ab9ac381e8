//! UDP listeners, end to end: real sockets, a real DNS server, reloads under way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use process::{LIMIT, RUN_DIR, Server, address_after, count, until};

/// A member that answers each datagram with its name, the datagram, and whom it came from.
struct Member {
    addr: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn start(name: &'static str) -> Member {
        Member::at("127.0.0.77:0".parse().unwrap(), name)
    }

    fn at(addr: SocketAddr, name: &'static str) -> Member {
        let socket = UdpSocket::bind(addr).unwrap();
        let addr = socket.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut buf = vec![0; 65_536];
            while let Ok((len, from)) = socket.recv_from(&mut buf) {
                if end.load(Relaxed) {
                    return;
                }
                let mut answer = format!("{name} {from} ").into_bytes();
                answer.extend_from_slice(&buf[..len.min(60_000)]);
                let _asker_is_gone = socket.send_to(&answer, from);
            }
        });
        Member { addr, over, thread: Some(thread) }
    }

    /// Nobody listens any more.
    fn kill(&mut self) {
        self.over.store(true, Relaxed);
        let waker = UdpSocket::bind((self.addr.ip(), 0)).unwrap();
        waker.send_to(b"end", self.addr).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn client(addr: SocketAddr) -> UdpSocket {
    let any: IpAddr = if addr.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
    client_from(any, addr)
}

fn client_from(ip: IpAddr, addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.connect(addr).unwrap();
    socket
}

/// The answer to `question`, asked again as long as there is none: who answered, and whom it saw.
fn ask(socket: &UdpSocket, question: &str) -> (String, SocketAddr) {
    let mut answer = None;
    until("an answer", || {
        // An ICMP error about an earlier datagram may come first.
        if socket.send(question.as_bytes()).is_err() {
            return false;
        }
        answer = receive(socket, question);
        answer.is_some()
    });
    answer.unwrap()
}

fn receive(socket: &UdpSocket, question: &str) -> Option<(String, SocketAddr)> {
    let mut buf = [0; 2_000];
    loop {
        let len = match socket.recv(&mut buf) {
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => continue,
            Err(_) => return None,
        };
        let text = std::str::from_utf8(&buf[..len]).unwrap();
        let mut words = text.splitn(3, ' ');
        let (name, from) = (words.next().unwrap(), words.next().unwrap());
        if words.next() == Some(question) {
            return Some((name.to_owned(), from.parse().unwrap()));
        }
    }
}

fn file(
    vip: &str,
    flavor: &str,
    listener: &str,
    pool: &str,
    members: &[(SocketAddr, u8)],
) -> String {
    let mut text = format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 10\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"{vip}\"\nflavor = \"{flavor}\"\n\
         [[listener]]\nname = \"dns\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
         protocol_port = 0\ndefault_pool = \"app\"\n{listener}\n\
         [[pool]]\nname = \"app\"\nprotocol = \"UDP\"\n{pool}\n"
    );
    for (addr, weight) in members {
        text += &format!(
            "[[pool.members]]\naddress = \"{}\"\nprotocol_port = {}\nweight = {weight}\n",
            addr.ip(),
            addr.port()
        );
    }
    text
}

fn plain(pool: &str, members: &[(SocketAddr, u8)]) -> String {
    file("127.0.0.1", "dedicated", "", pool, members)
}

fn start(text: &str) -> (Server, SocketAddr) {
    let server = Server::start(text);
    let addr = address_after(&server.ready, "dns udp://");
    (server, addr)
}

/// How often each member is asked by `clients` of their own port.
fn spread(addr: SocketAddr, clients: usize) -> (HashMap<String, usize>, Vec<UdpSocket>) {
    let mut counts = HashMap::new();
    let mut kept = Vec::new();
    for _ in 0..clients {
        let socket = client(addr);
        *counts.entry(ask(&socket, "who").0).or_default() += 1;
        kept.push(socket);
    }
    (counts, kept)
}

/// R6.8-2, R5.2-1, R9.1-1: datagrams of every size come back; the member sees an address of the
/// balancer, the client the one that it has asked. A flow keeps its member and its source port
/// there.
#[test]
fn a_flow_keeps_its_member() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let (server, addr) = start(&plain("", &[(a.addr, 1), (b.addr, 1)]));
    // A connected socket hears nobody but whom it has asked.
    let socket = client_from([127, 0, 0, 7].into(), addr);
    let first = ask(&socket, "first");
    assert_eq!(first.1.ip().to_string(), "127.0.0.1", "not the client's, not the member's");
    assert_ne!(first.1.port(), socket.local_addr().unwrap().port());
    for n in 0..20 {
        assert_eq!(ask(&socket, &format!("{n}")), first);
    }
    let long = "x".repeat(1_400);
    assert_eq!(ask(&socket, &long), first);
    // R7.12-2: an active flow is an active connection, on both sides.
    assert_eq!(server.sum("weir_active_connections"), 1.0);
    assert_eq!(server.sum("weir_member_active_connections"), 1.0);
}

/// Every shard serves UDP: flows of many clients are spread over all of them, and each of them
/// forwards to all members.
#[test]
fn every_shard_has_flows() {
    let members = [Member::start("a"), Member::start("b")];
    let all = [(members[0].addr, 1), (members[1].addr, 1)];
    let text = plain("", &all) + &format!("[connection_log]\npath = \"{RUN_DIR}.log\"\n");
    let (server, addr) = start(&text);
    let shards = server.shards();
    if shards == 1 {
        eprintln!("one core only: there is no other shard");
    }
    let (_, kept) = spread(addr, 64 * shards);
    let pair = |line: &serde_json::Value| {
        (line["shard"].as_u64().unwrap(), line["upstream_addr"].as_str().unwrap().to_owned())
    };
    let lines = server.connection_log();
    assert_eq!(lines.len(), kept.len(), "a line a flow");
    let seen: HashSet<(u64, String)> = lines.iter().map(pair).collect();
    let of = |shard| members.each_ref().map(|member| (shard, member.addr.to_string()));
    let expected: HashSet<(u64, String)> = (0..shards as u64).flat_map(of).collect();
    assert_eq!(seen, expected);
}

/// C18: what comes from a member and belongs to no flow, or comes for a pool without
/// members, goes nowhere and is counted.
#[test]
fn what_belongs_nowhere_is_dropped() {
    let (member, other) = (Member::start("a"), UdpSocket::bind("127.0.0.77:0").unwrap());
    let (server, addr) = start(&plain("", &[(member.addr, 1)]));
    let dropped = |server: &Server, why: &str| {
        let series = format!("weir_datagrams_dropped_total{{listener=\"dns\",why=\"{why}\"}}");
        server.counted(&series)
    };
    let socket = client(addr);
    let (_, own) = ask(&socket, "who");
    let sent = server.metric("weir_datagrams_sent_total{listener=\"dns\"}");
    // From the member's host, but another port.
    other.send_to(b"a forged who", own).unwrap();
    until("the stray datagram", || dropped(&server, "stray") == 1.0);
    assert_eq!(server.metric("weir_datagrams_sent_total{listener=\"dns\"}"), sent);
    assert_eq!(ask(&socket, "still").1, own, "the flow goes on");
    assert_eq!(dropped(&server, "no_member"), 0.0);
    let (code, _, err) = server.reload(&plain("", &[(member.addr, 0)]));
    assert_eq!(code, Some(0), "{err}");
    let late = client(addr);
    for n in 1..=3 {
        late.send(b"anybody").unwrap();
        until("what has no member", || dropped(&server, "no_member") == f64::from(n));
    }
    assert_eq!(late.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(ask(&socket, "still").1, own, "the flow of a member without weight goes on");
    assert_eq!(server.sum("weir_active_connections"), 1.0);
}

/// R6.1-3, R2.1-4: new flows go by weight.
#[test]
fn new_flows_follow_the_weights() {
    let members = [Member::start("a"), Member::start("b"), Member::start("c")];
    let weights = [(members[0].addr, 1), (members[1].addr, 3), (members[2].addr, 0)];
    let (_server, addr) = start(&plain("", &weights));
    let (counts, _) = spread(addr, 80);
    let share = counts["a"];
    assert!((10..=30).contains(&share), "{counts:?}");
    assert!(!counts.contains_key("c"));
}

/// Least connections counts the flows that there are.
#[test]
fn new_flows_go_where_there_are_fewest() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let least = "lb_algorithm = \"LEAST_CONNECTIONS\"";
    let (_server, addr) = start(&plain(least, &[(a.addr, 1), (b.addr, 1)]));
    let (counts, _kept) = spread(addr, 20);
    assert_eq!((counts["a"], counts["b"]), (10, 10));
}

/// R5.9-1 and stickiness by the client's address (R6.1-M1): all ports of an address go to one
/// member, several addresses to several.
#[test]
fn one_address_goes_to_one_member() {
    let members = [Member::start("a"), Member::start("b"), Member::start("c")];
    let all: Vec<_> = members.iter().map(|member| (member.addr, 1)).collect();
    let source = "lb_algorithm = \"SOURCE_IP\"";
    let sticky = "session_persistence = { type = \"SOURCE_IP\", persistence_timeout = 1 }";
    for pool in [source, sticky] {
        let (_server, addr) = start(&plain(pool, &all));
        let mut seen = HashSet::new();
        for n in 1..12u8 {
            let ip: IpAddr = [127, 1, 1, n].into();
            let names: HashSet<String> =
                (0..4).map(|_| ask(&client_from(ip, addr), "who").0).collect();
            assert_eq!(names.len(), 1, "{ip} under {pool}");
            seen.extend(names);
        }
        assert!(seen.len() > 1, "{seen:?} under {pool}");
    }
}

/// R3.17-2, R3.17-3: IPv6 clients reach IPv6 members, IPv4 clients IPv4 ones, by one listener.
#[test]
fn each_family_keeps_to_itself() {
    let four = Member::start("four");
    let six = Member::at("[::1]:0".parse().unwrap(), "six");
    let text = plain("", &[(four.addr, 1), (six.addr, 1)])
        .replace("\"127.0.0.1\"\nflavor", "[\"127.0.0.1\", \"::1\"]\nflavor");
    let vips = text.replace("vip_address = \"[", "vip_address = [");
    let (_server, addr) = start(&vips);
    for (ip, name) in [("127.0.0.1", "four"), ("::1", "six")] {
        let at = SocketAddr::new(ip.parse().unwrap(), addr.port());
        for _ in 0..4 {
            assert_eq!(ask(&client(at), "who").0, name);
        }
    }
}

/// R2.2-1: the next datagram after a member refused goes to another one.
#[test]
fn a_member_that_refuses_loses_its_flows() {
    let (mut a, b) = (Member::start("a"), Member::start("b"));
    let (server, addr) = start(&plain("", &[(a.addr, 1), (b.addr, 1)]));
    let (_, sockets) = spread(addr, 6);
    a.kill();
    for socket in &sockets {
        assert_eq!(ask(socket, "again").0, "b");
    }
    assert!(server.sum("weir_member_connect_failures_total") >= 1.0);
}

/// R6.3-1: what came by a deleted listener ends at once, and its port is free.
#[test]
fn a_deleted_listener_stops_at_once() {
    let a = Member::start("a");
    let with = format!("{}[connection_log]\npath = \"{RUN_DIR}.log\"\n", plain("", &[(a.addr, 1)]));
    let (server, addr) = start(&with);
    let socket = client(addr);
    ask(&socket, "here");
    let start = with.find("[[listener]]").unwrap();
    let end = with.find("[[pool]]").unwrap();
    let without = format!("{}{}", &with[..start], &with[end..]);
    let (code, _, err) = server.reload(&without);
    assert_eq!(code, Some(0), "{err}");
    until("the port to be free", || UdpSocket::bind(addr).is_ok());
    assert_eq!(server.sum("weir_active_connections"), 0.0);
    // The flow's line in the connection log.
    let path = server.file.run_dir().with_file_name("run.log");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    until("the line of the connection log", || text().ends_with('\n'));
    let line: serde_json::Value = serde_json::from_str(text().trim_end()).unwrap();
    assert_eq!(line["remote_port"], socket.local_addr().unwrap().port());
    assert_eq!(line["upstream_addr"], a.addr.to_string());
    assert_eq!(line["ended"], "deleted");
    let packets = |name: &str| line[name].as_u64().unwrap();
    assert!(packets("packets_received") >= 1 && packets("packets_sent") >= 1, "{line}");
    assert_eq!(line["bytes_received"], 4 * packets("packets_received"));
    assert!(line["bytes_sent"].as_u64().unwrap() > 4, "{line}");
}

/// The connection log has the word of each end that a flow has; of what never became one, for want
/// of a member or since that is its client, there is none.
#[test]
fn each_end_has_its_word_in_the_log() {
    let (a, mut dies) = (Member::start("a"), Member::start("d"));
    let listener = |name: &str, pool: &str, lines: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
             protocol_port = 0\ndefault_pool = \"{pool}\"\n{lines}\n"
        )
    };
    let pool = |name: &str, lines: &str, (addr, weight): (SocketAddr, u8)| {
        format!(
            "[[pool]]\nname = \"{name}\"\nprotocol = \"UDP\"\n{lines}\n[[pool.members]]\n\
             address = \"{}\"\nprotocol_port = {}\nweight = {weight}\n",
            addr.ip(),
            addr.port()
        )
    };
    let text = |weight| {
        plain("", &[(a.addr, 1)]).replace("cores = \"auto\"", "cores = [0]")
            + &listener("quick", "app", "keepalive_timeout = 10")
            + &listener("full", "app", "connection = 1")
            + &listener("leaves", "leaves", "")
            + &listener("dies", "dies", "")
            + &listener("lost", "lost", "")
            + &pool(
                "leaves",
                "connection_drain = { enable = true, timeout = 10 }",
                (a.addr, weight),
            )
            + &pool("dies", "", (dies.addr, 1))
            + &pool("lost", "", (a.addr, 0))
            + &format!("[connection_log]\npath = \"{RUN_DIR}.log\"\n")
    };
    let (first, next) = (text(1) + &listener("gone", "app", ""), text(0));
    let server = Server::start(&first);
    let mut expected = HashMap::new();
    let mut begin = |name: &str, word: &'static str| {
        let socket = client(address_after(&server.ready, &format!("{name} udp://")));
        expected.insert(socket.local_addr().unwrap().port(), word);
        socket
    };
    let words = ["idle", "drained", "deleted", "shutdown", "evicted", "member_rst"];
    let flows = ["quick", "leaves", "gone", "dns", "full", "dies"].iter().zip(words);
    let flows: Vec<UdpSocket> = flows.map(|(name, word)| begin(name, word)).collect();
    flows.iter().for_each(|socket| drop(ask(socket, "here")));
    ask(&begin("full", "shutdown"), "a place");
    let ended = |name: &str, word: &str| {
        let series = format!("weir_ended_connections_total{{listener=\"{name}\",how=\"{word}\"}}");
        server.counted(&series) == 1.0
    };
    dies.kill();
    flows[5].send(b"is anybody there").unwrap();
    until("the refusal", || ended("dies", "member_rst"));
    client(address_after(&server.ready, "lost udp://")).send(b"in vain").unwrap();
    until("what has no member", || ended("lost", "connect_failed"));
    let (code, _, err) = server.reload(&next);
    assert_eq!(code, Some(0), "{err}");
    until("the late ends", || ended("quick", "idle") && ended("leaves", "drained"));
    let mut log = std::fs::File::open(server.file.run_dir().with_file_name("run.log")).unwrap();
    server.signal("TERM");
    server.wait();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let lines: Vec<_> = text.lines().map(line).collect();
    assert_eq!(lines.len(), expected.len(), "{text}");
    for line in &lines {
        let port = line["remote_port"].as_u64().unwrap() as u16;
        assert_eq!(line["ended"], expected[&port], "{line}");
    }
}

/// R7.14-2, R7.14-4, C12: established flows stay with their member through weights, weight 0 and
/// its removal; new ones go by what is new. No reload drops or moves a flow.
#[test]
fn reloads_move_no_flow() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let (server, addr) = start(&plain("", &[(a.addr, 1), (b.addr, 1)]));
    let (_, sockets) = spread(addr, 16);
    let homes: Vec<_> = sockets.iter().map(|socket| ask(socket, "home")).collect();
    let other = "[[listener]]\nname = \"more\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
                 protocol_port = 0\ndefault_pool = \"app\"\n";
    let plans = [
        plain("", &[(a.addr, 5), (b.addr, 1)]),
        plain("", &[(a.addr, 0), (b.addr, 1)]),
        plain("", &[(b.addr, 1)]),
        plain("", &[(b.addr, 1)]).replace("[[pool]]", &format!("{other}[[pool]]")),
        plain("lb_algorithm = \"SOURCE_IP\"", &[(a.addr, 1), (b.addr, 1)]),
    ];
    for (n, text) in plans.iter().cycle().take(count(10, 200)).enumerate() {
        let (code, _, err) = server.reload(text);
        assert_eq!(code, Some(0), "{err}");
        for (socket, home) in sockets.iter().zip(&homes) {
            assert_eq!(&ask(socket, &format!("after {n}")), home, "moved by\n{text}");
        }
    }
    let (code, _, err) = server.reload(&plain("", &[(a.addr, 0), (b.addr, 1)]));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(spread(addr, 8).0["b"], 8);
}

/// R6.7-2, R6.7-3, R6.7-15, C22: a flow ends when it was silent for so long, 10 s on a shared
/// balancer; R7.14-4: with `connection_drain` one of a member that left after its time, though it
/// is not silent, also where the listener has another pool by then, that limits nothing.
#[test]
fn silent_flows_end() {
    let a = Member::start("a");
    let members = [(a.addr, 1)];
    let dedicated = file("127.0.0.1", "dedicated", "keepalive_timeout = 10", "", &members);
    let shared = file("127.0.0.1", "shared", "", "", &members);
    let drain = "connection_drain = { enable = true, timeout = 10 }";
    let drained = plain(drain, &members);
    let servers = [start(&dedicated), start(&shared), start(&drained), start(&drained)];
    let sockets: Vec<_> = servers.iter().map(|(_, addr)| client(*addr)).collect();
    let begun = weir_core::time::clock::mono();
    sockets.iter().for_each(|socket| drop(ask(socket, "here")));
    let b = Member::start("b");
    let next = plain(drain, &[(b.addr, 1)]);
    // The pool that limits them is another listener's now.
    let more = "[[listener]]\nname = \"more\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
                protocol_port = 0\ndefault_pool = \"app\"\n";
    let app = &next[next.find("[[pool]]").unwrap()..];
    let other = plain("", &[(b.addr, 1)]).replace("\"app\"", "\"other\"") + more + app;
    for ((server, _), text) in servers[2..].iter().zip([next, other]) {
        let (code, _, err) = server.reload(&text);
        assert_eq!(code, Some(0), "{err}");
    }
    for (server, _) in &servers {
        assert_eq!(server.sum("weir_active_connections"), 1.0);
    }
    for (server, _) in &servers[..2] {
        until("the flow's end", || server.sum("weir_active_connections") == 0.0);
        let lived = weir_core::time::clock::mono().since(begun);
        assert!(lived >= Duration::from_secs(10), "{lived:?}");
        assert_eq!(
            server.metric("weir_ended_connections_total{listener=\"dns\",how=\"idle\"}"),
            1.0
        );
    }
    for ((server, _), socket) in servers.iter().zip(&sockets).skip(2) {
        until("the member's flow to end", || ask(socket, "busy").0 == "b");
        let lived = weir_core::time::clock::mono().since(begun);
        assert!(lived >= Duration::from_secs(10), "{lived:?}");
        let drained = "weir_ended_connections_total{listener=\"dns\",how=\"drained\"}";
        assert_eq!(server.metric(drained), 1.0);
    }
}

/// R9.1-16: the first datagram of a flow, and only that, tells the member the client.
#[test]
fn members_are_told_the_client_once() {
    let member = UdpSocket::bind("127.0.0.77:0").unwrap();
    member.set_read_timeout(Some(LIMIT)).unwrap();
    let to = [(member.local_addr().unwrap(), 1)];
    let (server, addr) = start(&plain("proxy_protocol = \"v2\"", &to));
    let client = client_from([127, 0, 0, 7].into(), addr);
    let port = client.local_addr().unwrap().port();
    let header = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x7f\0\0\x07\x7f\0\0\x01"[..],
        &port.to_be_bytes(),
        &addr.port().to_be_bytes(),
    ];
    let mut buf = [0; 100];
    client.send(b"one").unwrap();
    let len = member.recv(&mut buf).unwrap();
    assert_eq!(buf[..len], [&header.concat()[..], b"one"].concat());
    client.send(b"two").unwrap();
    let len = member.recv(&mut buf).unwrap();
    assert_eq!(buf[..len], *b"two");
    // A new flow, a new header.
    client_from([127, 0, 0, 8].into(), addr).send(b"one").unwrap();
    assert_eq!(member.recv(&mut buf).unwrap(), 28 + 3);
    drop(server);
}

/// Every port of a range is served, and answers leave from the one that was asked.
#[test]
fn port_ranges() {
    let a = Member::start("a");
    // Ports that were free a moment ago; somebody else may have taken one meanwhile.
    let (_server, first) = (0..20)
        .find_map(|_| {
            let first = UdpSocket::bind("127.0.0.76:0").unwrap().local_addr().unwrap().port();
            let last = first.checked_add(4)?;
            let free = |port| UdpSocket::bind(("127.0.0.76", port)).is_ok();
            if !(first..=last).all(free) {
                return None;
            }
            let ranges = format!("port_ranges = [\"{first}-{last}\"]");
            let text = file("127.0.0.76", "dedicated", "", "", &[(a.addr, 1)]);
            Some((
                Server::start(&text.replace("protocol_port = 0\ndef", &format!("{ranges}\ndef"))),
                first,
            ))
        })
        .expect("five free ports in a row");
    let mut upstream = HashSet::new();
    for port in first..first + 5 {
        let socket = client(SocketAddr::from(([127, 0, 0, 76], port)));
        upstream.insert(ask(&socket, "who").1);
    }
    assert_eq!(upstream.len(), 5, "a flow each");
}

/// R7.13-1: who is not on the list gets nothing, and no member hears of it.
#[test]
fn access_lists_hold() {
    let a = Member::start("a");
    let listener = "ipgroup = { name = [\"office\"], type = \"white\" }";
    let group = "[[ipgroup]]\nname = \"office\"\nip_list = [\"127.1.1.1\"]\n";
    let text = file("127.0.0.1", "dedicated", listener, "", &[(a.addr, 1)]) + group;
    let (server, addr) = start(&text);
    client_from([127, 2, 2, 2].into(), addr).send(b"let me in").unwrap();
    assert_eq!(ask(&client_from([127, 1, 1, 1].into(), addr), "hello").0, "a");
    until("the refusal", || server.sum("weir_refused_connections_total") == 1.0);
    assert_eq!(server.sum("weir_active_connections"), 1.0);
}

/// Where listener or process have as many flows as they may, a new client takes the place of the
/// one that has been silent longest, but of none that is in use; until then it is refused.
#[test]
fn silent_flows_give_way_at_a_limit() {
    for (place, reason) in
        [("connection", "connection_limit"), ("max_connections", "process_limit")]
    {
        let a = Member::start("a");
        let listener = if place == "connection" { "connection = 2" } else { "" };
        let process = if place == "connection" { "" } else { "max_connections = 2\n" };
        let text = file("127.0.0.1", "dedicated", listener, "", &[(a.addr, 1)])
            .replace("cores = \"auto\"\n", &format!("cores = [0]\n{process}"));
        let (server, addr) = start(&text);
        let [silent, busy, late] = [0; 3].map(|_| client(addr));
        ask(&silent, "here");
        let (_, seen_from) = ask(&busy, "here");
        // Only a flow that was silent for a second gives way, so the first tries are refused.
        until("a place", || {
            assert_eq!(ask(&busy, "still here").1, seen_from);
            late.send(b"let me in").unwrap();
            receive(&late, "let me in").is_some()
        });
        assert_eq!(ask(&busy, "still here").1, seen_from, "{place}: its flow goes on");
        let ended = server.metric("weir_ended_connections_total{listener=\"dns\",how=\"evicted\"}");
        assert_eq!(ended, 1.0, "{place}");
        assert_eq!(server.sum("weir_active_connections"), 2.0, "{place}");
        let refused =
            format!("weir_refused_connections_total{{listener=\"dns\",reason=\"{reason}\"}}");
        assert!(server.metric(&refused) >= 1.0, "{place}");
        // The one that gave way comes back in the place of the next.
        ask(&silent, "again");
    }
}

/// An idle flow costs at most 512 bytes, its part of a socket towards its member included; 100,000
/// of one shard over eight members do with 16,000 descriptors.
#[test]
fn idle_flows_are_small() {
    let members: Vec<_> = (0..8).map(|_| Member::start("m")).collect();
    let all: Vec<_> = members.iter().map(|member| (member.addr, 1)).collect();
    let text =
        plain("", &all).replace("cores = \"auto\"\n", "cores = [0]\nmax_connections = 1000000\n");
    let (server, addr) = start(&text);
    let own = server.descriptors();
    let mut opened = 0u32;
    let mut open = |count: u32| {
        for _ in 0..count {
            // Each from an address and a port of its own; nobody hears of its socket's end.
            let ip = IpAddr::from((0x7f08_0000 + opened / 1_000).to_be_bytes());
            let from = (ip, 20_000 + (opened % 1_000) as u16);
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.connect(addr).unwrap();
            ask(&socket, "who");
            opened += 1;
        }
        assert_eq!(server.sum("weir_active_connections"), f64::from(opened));
        server.memory("VmRSS")
    };
    let (warm, more) = (1_000, count(6_000, 99_000));
    let before = open(warm);
    let grown = open(more).saturating_sub(before) << 10;
    let each = grown / u64::from(more);
    println!("{each} bytes a flow");
    assert!(each <= 512, "{each} bytes a flow");
    let sockets = (warm + more).div_ceil(8) as usize;
    // The last scrape's connection may still be closing.
    until("a socket for one flow to each member", || server.descriptors() == own + sockets);
    assert!(server.descriptors() <= 16_000, "{own} and {sockets} descriptors");
}

/// A process that is told to stop waits for no silent flow.
#[test]
fn a_drain_waits_for_no_silent_flow() {
    let a = Member::start("a");
    let (server, addr) = start(&plain("", &[(a.addr, 1)]));
    ask(&client(addr), "here");
    server.signal("TERM");
    let (status, log, _) = server.wait();
    assert!(status.success(), "{log}");
}

/// A DNS server of Debian's.
struct Dns(Child, SocketAddr);

impl Dns {
    /// On a port that is free; somebody else may take it before the server does.
    fn start() -> Dns {
        (0..20).find_map(|_| Dns::try_start()).expect("dnsmasq does not start")
    }

    fn try_start() -> Option<Dns> {
        let addr = UdpSocket::bind("127.0.0.78:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--pid-file", "--bind-interfaces", "--listen-address=127.0.0.78"]);
        command.args(["--user=root", "--group=root", "--address=/weir.test/192.0.2.7"]);
        command.arg(format!("--port={}", addr.port()));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut dns = Dns(child, addr);
        let socket = client(addr);
        let mut answers = false;
        until("dnsmasq", || {
            let _not_there_yet = socket.send(&query(1));
            answers = socket.recv(&mut [0; 512]).is_ok();
            answers || dns.0.try_wait().unwrap().is_some()
        });
        answers.then_some(dns)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A question for the address of `weir.test` (RFC 1035, section 4).
fn query(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"\x04weir\x04test\0\0\x01\0\x01");
    bytes
}

/// Thousands of queries to a real DNS server, by an address that is one of many: none is lost, and
/// each answer comes from the address that was asked (connected sockets see no other).
#[test]
fn a_dns_server_answers_every_query_from_the_address_that_was_asked() {
    let servers = [Dns::start(), Dns::start()];
    let members: Vec<_> = servers.iter().map(|dns| (dns.1, 1)).collect();
    let (server, addr) = start(&file("0.0.0.0", "dedicated", "", "", &members));
    let asked = SocketAddr::from(([127, 9, 9, 9], addr.port()));
    let (clients, each) = (8, 1_250);
    let threads: Vec<_> = (0..clients)
        .map(|_| std::thread::spawn(move || (0..each).map(|n| resolve(asked, n)).sum::<u32>()))
        .collect();
    let lost: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(lost, 0);
    let total = f64::from(clients * u32::from(each));
    assert_eq!(server.sum("weir_datagrams_received_total"), total);
    assert_eq!(server.sum("weir_datagrams_sent_total"), total);
}

/// One query from a port of its own, every fourth time from the last one; 1 if it was lost.
fn resolve(asked: SocketAddr, n: u16) -> u32 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.connect(asked).unwrap();
    socket.send(&query(n)).unwrap();
    let mut buf = [0; 512];
    let Ok(len) = socket.recv(&mut buf) else { return 1 };
    assert_eq!(buf[..2], n.to_be_bytes());
    assert!(buf[..len].ends_with(&[192, 0, 2, 7]), "{:?}", &buf[..len]);
    0
}
