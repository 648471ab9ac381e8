//! `source_addresses`: what members see, traffic and checks alike; what happens when one has no
//! port left; reloads.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::namespaces;
use crate::process::{
    Client, File, LIMIT, Server, address_after, get, pass_time, run, sum, until, weir,
};
use crate::witness::{Asker, Held, Witness};
use crate::{balancer, check, head, listener};

const TWO: &str = "source_addresses = [\"127.0.1.1\", \"127.0.1.2\", \"::1\"]";
const VIP: &str = "vip_address = \"127.0.0.1\"";

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

/// Where a listener is served.
fn at(server: &Server, name: &str, scheme: &str) -> SocketAddr {
    address_after(&server.ready, &format!("{name} {scheme}://"))
}

/// What requests that each need a connection of their own see: they are open at the same time.
fn seen_by_requests(to: SocketAddr, n: usize) -> BTreeSet<String> {
    let mut clients: Vec<Client> = (0..n).map(|_| Client::connect(to)).collect();
    let ask = |client: &mut Client| {
        // With this the member's connection is not used again.
        client.send("/", "Connection: close\r\n");
        client.answer().unwrap().body
    };
    clients.iter_mut().map(ask).collect()
}

/// R2.1-10, R2.1-11, R7.4-1, R7.6-1: members see a balancer's source addresses and no others, by
/// HTTP, TCP and UDP, of both families, in turn; checks come from the same. A balancer without a
/// list has that of the process.
#[test]
fn members_see_the_source_addresses_only() {
    let [web, tcp, udp, own] = ["127.0.0.1"; 4].map(Witness::start);
    let six = Witness::start("::1");
    let both = "vip_address = [\"127.0.0.1\", \"::1\"]";
    let text = head(TWO)
        + &balancer("front", both)
        + &balancer("back", &format!("{VIP}\nsource_addresses = [\"127.0.2.1\"]"))
        + &listener("front", "web", "HTTP", &[web.addr], &check("HTTP"))
        + &listener("front", "tcp", "TCP", &[tcp.addr, six.addr], &check("TCP"))
        + &listener("front", "udp", "UDP", &[udp.addr, six.addr], &check("UDP_CONNECT"))
        + &listener("back", "own", "HTTP", &[own.addr], &check("HTTP"));
    let server = Server::start(&text);
    let mine = set(&["127.0.1.1", "127.0.1.2"]);
    let to = at(&server, "tcp", "tcp");
    let mut held: Vec<Held> = (0..8).map(|_| Held::open(to).unwrap()).collect();
    assert_eq!(held.iter_mut().map(|one| one.ask().unwrap()).collect::<BTreeSet<_>>(), mine);
    let to = at(&server, "udp", "udp");
    let askers: Vec<Asker> = (0..8).map(|_| Asker::new("127.0.0.1", to)).collect();
    assert_eq!(askers.iter().map(|one| one.ask(9).unwrap()).collect::<BTreeSet<_>>(), mine);
    let again: Vec<_> = askers.iter().map(|one| one.ask(9).unwrap()).collect();
    assert_eq!(again, askers.iter().map(|one| one.ask(9).unwrap()).collect::<Vec<_>>());
    let six_at = |scheme: &str| {
        SocketAddr::new("::1".parse().unwrap(), {
            let words = format!("{scheme} {scheme}://[::1]:");
            let rest = server.ready.split_once(&words).unwrap().1;
            rest[..rest.find([' ', ',', ';']).unwrap()].parse().unwrap()
        })
    };
    assert_eq!(Held::open(six_at("tcp")).unwrap().ask().unwrap(), "::1");
    assert_eq!(Asker::new("::1", six_at("udp")).ask(9).unwrap(), "::1");
    assert!(seen_by_requests(at(&server, "web", "http"), 8).is_subset(&mine));
    assert_eq!(seen_by_requests(at(&server, "own", "http"), 4), set(&["127.0.2.1"]));
    // The checks, each in its turn.
    let (mut checked, mut alone) = (BTreeSet::new(), BTreeSet::new());
    let all = [&web, &tcp, &udp];
    let mut each = [(); 3].map(|()| BTreeSet::new());
    let before = server.metric("weir_health_probes_total");
    until("checks from every address", || {
        for (witness, seen) in all.iter().zip(&mut each) {
            seen.extend(witness.take_peers());
        }
        alone.extend(own.take_peers());
        checked.extend(six.take_peers());
        each.iter().all(|seen| *seen == mine)
            && server.metric("weir_health_probes_total") > before + 10.0
    });
    assert_eq!((alone, checked), (set(&["127.0.2.1"]), set(&["::1"])));
    assert_eq!(server.metric("weir_health_probes_void_total"), 0.0);
}

/// A reload changes them: connections and flows that there are go on, whatever is opened from then
/// on comes from the new ones, and no kept connection from the old ones is used.
#[test]
fn a_reload_changes_them() {
    let (web, tcp, udp) =
        (Witness::start("127.0.0.1"), Witness::start("127.0.0.1"), Witness::start("127.0.0.1"));
    let text = |runtime: &str| {
        head(runtime)
            + &balancer("front", VIP)
            + &listener("front", "web", "HTTP", &[web.addr], &check("HTTP"))
            + &listener("front", "tcp", "TCP", &[tcp.addr], "")
            + &listener("front", "udp", "UDP", &[udp.addr], "")
    };
    let server = Server::start(&text(""));
    let (by_tcp, by_udp) = (at(&server, "tcp", "tcp"), at(&server, "udp", "udp"));
    let mut client = Client::connect(server.web);
    let mut ask = || {
        client.send("/", "");
        client.answer().unwrap().body
    };
    assert_eq!(ask(), "127.0.0.1");
    let (mut held, flow) = (Held::open(by_tcp).unwrap(), Asker::new("127.0.0.1", by_udp));
    assert_eq!((held.ask(), flow.ask(9)), (Some("127.0.0.1".into()), Some("127.0.0.1".into())));
    for source in ["127.0.1.1", "127.0.1.2"] {
        let (code, out, err) = server.reload(&text(&format!("source_addresses = [\"{source}\"]")));
        assert_eq!(code, Some(0), "{out}{err}");
        assert_eq!(ask(), source, "a kept connection from another address was used");
        assert_eq!(Held::open(by_tcp).unwrap().ask().unwrap(), source);
        for _ in 0..4 {
            assert_eq!(Asker::new("127.0.0.1", by_udp).ask(9).unwrap(), source);
        }
        assert_eq!((held.ask(), flow.ask(9)), (Some("127.0.0.1".into()), Some("127.0.0.1".into())));
        let _before_the_reload = web.take_peers();
        until("a check from it", || web.take_peers() == set(&[source]));
    }
    // One that isn't this host's: nothing changes.
    let (code, out, err) = server.reload(&text("source_addresses = [\"192.0.2.1\"]"));
    let said = format!("{out}{err}");
    let words =
        ["weir.toml:", "runtime.source_addresses: connections", "from 192.0.2.1", "ip address add"];
    assert!(code == Some(1) && words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(ask(), "127.0.1.2");
    let file = File::new(&text("source_addresses = [\"192.0.2.1\"]"));
    for verb in ["serve", "check"] {
        let (code, _, err) = run(weir().args([verb, "--config"]).arg(&file.path));
        assert!(code == Some(1) && words.iter().all(|word| err.contains(word)), "{verb}: {err}");
    }
}

/// Ports of this namespace.
const PORTS: usize = 20;

fn few_ports() {
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    std::fs::write(range, format!("50000 {}", 50_000 + PORTS - 1)).unwrap();
}

/// R2.1-10: an address without a free port is passed over, and that is counted; when none is left
/// that is said, with the cure, and it is neither the member's failure nor its health's matter;
/// when there are ports again all is as before. By TCP, UDP, HTTP and for checks.
#[test]
fn ports_run_out() {
    if !namespaces::inside("sources::ports_run_out") {
        return;
    }
    let [member, udp] = ["127.0.0.1"; 2].map(Witness::start);
    let two = "source_addresses = [\"127.0.1.1\", \"127.0.1.2\"]";
    let text = head("")
        + &balancer("front", two)
        + &balancer("back", "source_addresses = [\"127.0.1.1\"]")
        + &listener("front", "tcp", "TCP", &[member.addr], &check("TCP"))
        + &listener("front", "web", "HTTP", &[member.addr], "")
        + &listener("back", "own", "TCP", &[member.addr], "")
        + &listener("front", "udp", "UDP", &[udp.addr], &check("UDP_CONNECT"));
    let mut server = Server::start(&text);
    let port = |server: &Server, name: &str, scheme: &str| at(server, name, scheme).port();
    let (tcp, own, web) =
        (port(&server, "tcp", "tcp"), port(&server, "own", "tcp"), port(&server, "web", "http"));
    let dns = port(&server, "udp", "udp");
    few_ports();
    // Each client address asked has ports of its own on the client's side.
    let to = |n: usize, port: u16| SocketAddr::from(([127, 0, 9, (n / 10) as u8 + 1], port));
    let mut back: Vec<Held> = (0..10).map(|n| Held::open(to(n, own)).unwrap()).collect();
    let mut front: Vec<Held> = (0..2 * PORTS).map_while(|n| Held::open(to(n, tcp))).collect();
    // A check may have had a port of each just then.
    assert!((2 * PORTS - 12..=2 * PORTS - 10).contains(&front.len()), "{}", front.len());
    let second = front.iter_mut().filter_map(Held::ask).filter(|own| own == "127.0.1.2").count();
    assert!(second >= PORTS - 1, "{second} fell to the second address");
    let said = server.line_with("no port of our own is left");
    assert!(said.contains("ip_local_port_range") && said.contains("source_addresses"), "{said}");
    let answer = get(to(0, web), "/");
    assert_eq!(answer.status, 502, "{}", answer.body);
    server.line_with("health checks can't be made");
    // Once: who asks needs a port, too.
    let metrics = server.metrics();
    assert!(sum(&metrics, "weir_ring_no_ports_total") > 0.0);
    assert!(sum(&metrics, "weir_health_probes_void_total") > 0.0);
    assert_eq!(sum(&metrics, "weir_member_connect_failures_total"), 0.0);
    let up = format!("weir_member_up{{pool=\"tcp\",member=\"{}\"}} 1\n", member.addr);
    assert!(metrics.contains(&up), "{metrics}");
    assert!(back.iter_mut().chain(&mut front).all(|held| held.ask().is_some()));
    drop((back, front));
    // They come back one by one, as sessions end.
    until("ports again", || get(to(1, web), "/").status == 200);
    // UDP: a flow of the same member needs a socket, and a socket a port.
    let flows: Vec<Asker> =
        (0..2 * PORTS + 5).map(|n| Asker::new(&format!("127.0.8.{}", n + 1), to(0, dns))).collect();
    let served: Vec<bool> = flows.iter().map(|flow| flow.ask(1).is_some()).collect();
    let count = served.iter().filter(|served| **served).count();
    assert!((2 * PORTS - 6..=2 * PORTS).contains(&count), "{count} flows");
    let dropped = "weir_datagrams_dropped_total{listener=\"udp\",why=\"no_socket\"}";
    assert!(server.metric(dropped) > 0.0);
    let (_, still) = served.iter().zip(&flows).find(|(served, _)| **served).unwrap();
    assert!(still.ask(9).is_some(), "a flow that there is goes on");
    let void = "weir_health_probes_void_total";
    let before = server.metric(void);
    // Seldom: who asks needs a port each time.
    let asked = (0..8).map(|_| {
        pass_time(Duration::from_secs(1));
        server.metrics()
    });
    let metrics = asked.into_iter().find(|metrics| sum(metrics, void) > before);
    let metrics = metrics.expect("checks without a port");
    assert_eq!(sum(&metrics, "weir_health_probe_failures_total"), 0.0);
    let up = format!("weir_member_up{{pool=\"udp\",member=\"{}\"}} 1\n", udp.addr);
    assert!(metrics.contains(&up), "{metrics}");
}

/// A member that hears two lines a connection, and says them and whom it sees.
fn hears_two_lines() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut said = stream.peer_addr().unwrap().ip().to_string() + " ";
                (0..2).for_each(|_| drop(reader.read_line(&mut said)));
                let _gone = stream.write_all(said.as_bytes());
                // Holds the port as long as the client is there; what comes twice is told, too.
                let _end = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    addr
}

/// Says these two lines; what the member heard of them, behind whom it saw.
fn say(to: SocketAddr, lines: &str) -> (BufReader<TcpStream>, String) {
    let mut client = TcpStream::connect_timeout(&to, LIMIT).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(lines.as_bytes()).unwrap();
    let (mut reader, mut heard) = (BufReader::new(client), String::new());
    for _ in 0..2 {
        reader.read_line(&mut heard).unwrap();
    }
    (reader, heard)
}

/// R2.1-10: what a connection from an address without a free port was to take along, the header of
/// the PROXY protocol and what the client has said, goes along from the next one, once and whole.
#[test]
fn the_next_address_takes_all_along() {
    if !namespaces::inside("sources::the_next_address_takes_all_along") {
        return;
    }
    let member = hears_two_lines();
    let text = head("")
        + &balancer("front", "source_addresses = [\"127.0.1.1\", \"127.0.1.2\"]")
        + &balancer("back", "source_addresses = [\"127.0.1.1\"]")
        + &listener("front", "tcp", "TCP", &[member], "proxy_protocol = \"v1\"")
        + &listener("back", "own", "TCP", &[member], "");
    let server = Server::start(&text);
    few_ports();
    let [tcp, own] = ["tcp", "own"].map(|name| at(&server, name, "tcp").port());
    let to = |n: usize, port: u16| SocketAddr::from(([127, 0, 9, (n / 10) as u8 + 1], port));
    // Of the first address one port is left.
    let mut held: Vec<_> = (1..PORTS).map(|n| say(to(n, own), "hello\nagain\n").0).collect();
    let mut seen = HashMap::<String, usize>::new();
    for n in 0..PORTS {
        let said = format!("I am number {n}\n");
        let (mut reader, heard) = say(to(n, tcp), &said);
        let (source, target) = (reader.get_ref().local_addr().unwrap(), to(n, tcp));
        let (from, by) = (source.port(), target.port());
        let header = format!("PROXY TCP4 {} {} {from} {by}\r\n", source.ip(), target.ip());
        let (us, heard) = heard.split_once(' ').unwrap();
        assert_eq!(heard, header + &said);
        *seen.entry(us.to_owned()).or_default() += 1;
        reader.get_ref().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let more = reader.read(&mut [0; 9]).unwrap_err();
        assert_eq!(more.kind(), ErrorKind::WouldBlock, "nothing comes twice");
        held.push(reader);
    }
    let expected = [("127.0.1.1", 1), ("127.0.1.2", PORTS - 1)];
    assert_eq!(seen, expected.map(|(own, count)| (own.to_owned(), count)).into());
    assert!(server.sum("weir_ring_no_ports_total") > 0.0);
    assert_eq!(server.sum("weir_member_connect_failures_total"), 0.0);
}
