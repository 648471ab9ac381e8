//! Which members get traffic, seen from outside: the right pool's, without those that their checks
//! find down or that fail what clients ask (`outlier_detection`); all of them where too few are
//! well (`pool_health`). Rules are tested in `health`, `core::control` and `core::table`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use process::mortal::Mortal;
use process::{Client, LIMIT, RUN_DIR, Server, address_after, get, until};

/// Two shards at most, as many as the machine has.
fn head() -> String {
    format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 1\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n"
    )
}

/// A listener and its pool of the same name, with these lines and members.
fn site(name: &str, protocol: &str, lines: &str, members: &[(&str, SocketAddr)]) -> String {
    let mut text = format!(
        "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"{protocol}\"\n\
         protocol_port = 0\ndefault_pool = \"{name}\"\n\
         [[pool]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\n{lines}\n"
    );
    for (name, address) in members {
        let (ip, port) = (address.ip(), address.port());
        writeln!(text, "[[pool.members]]\nname = \"{name}\"\naddress = \"{ip}\"").unwrap();
        writeln!(text, "protocol_port = {port}").unwrap();
    }
    text
}

fn check(kind: &str, more: &str) -> String {
    format!(
        "healthmonitor = {{ type = \"{kind}\", delay = 1, timeout = 1, max_retries = 1 {more} }}\n"
    )
}

fn outliers(failures: u32, base: &str, percent: u8) -> String {
    format!(
        "outlier_detection = {{ enable = true, consecutive_failures = {failures}, base_ejection = \
         \"{base}\", max_ejected_percent = {percent} }}"
    )
}

/// A port on which nobody listens; not of 127.0.0.1, from where connections come.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.66:0").unwrap().local_addr().unwrap()
}

/// Stands for an answer that breaks off.
const CUT: u16 = 1;

/// A member that answers as it is told, with its name.
struct Fickle {
    addr: SocketAddr,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicU64>,
}

impl Fickle {
    fn start(name: &'static str) -> Fickle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (status, requests) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let (says, counts) = (Arc::clone(&status), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (says, counts) = (Arc::clone(&says), Arc::clone(&counts));
                std::thread::spawn(move || answer(&stream, name, &says, &counts));
            }
        });
        Fickle { addr, status, requests }
    }

    fn say(&self, status: u16) {
        self.status.store(status, Relaxed);
    }
}

fn answer(mut stream: &TcpStream, name: &str, status: &AtomicU16, requests: &AtomicU64) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while lines.by_ref().any(|line| line.is_empty()) {
        requests.fetch_add(1, Relaxed);
        let status = status.load(Relaxed);
        let (status, length) = match status {
            CUT => (200, name.len() + 1),
            _ => (status, name.len()),
        };
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{name}");
        if stream.write_all(text.as_bytes()).is_err() || length > name.len() {
            return;
        }
    }
}

/// Answers every connection with its name and closes.
fn greeter(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _client_may_be_gone = stream.write_all(name.as_bytes());
        }
    });
    addr
}

/// What a client of a TCP listener is told until the end; nothing when it is reset.
fn hear(door: SocketAddr) -> String {
    let mut text = String::new();
    // The reset may be faster than the connect's own answer.
    let Ok(mut stream) = TcpStream::connect_timeout(&door, LIMIT) else { return text };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let _reset = stream.read_to_string(&mut text);
    text
}

fn http(server: &Server, name: &str) -> SocketAddr {
    address_after(&server.ready, &format!("{name} http://"))
}

fn of(server: &Server, family: &str, pool: &str, member: &str) -> f64 {
    server.metric(&format!("{family}{{pool=\"{pool}\",member=\"{member}\"}}"))
}

/// R2.1-1: the listener's port decides on the pool, checks on who of it is left; R4.4-4: the number
/// of those that are down is shown.
#[test]
fn traffic_goes_to_the_listeners_pool_and_there_to_who_is_well() {
    let (a, mut b, c) = (Mortal::start("a"), Mortal::start("b"), Mortal::start("c"));
    let lines = check("HTTP", "");
    let text = head()
        + &site("one", "HTTP", &lines, &[("a", a.addr), ("b", b.addr)])
        + &site("two", "HTTP", &lines, &[("c", c.addr)]);
    let mut server = Server::start(&text);
    let (one, two) = (http(&server, "one"), http(&server, "two"));
    let ask = |door| -> Vec<String> { (0..10).map(|_| get(door, "/").body).collect() };
    let mut first = ask(one);
    first.sort();
    first.dedup();
    assert_eq!(first, ["a", "b"]);
    assert_eq!(ask(two), ["c"; 10]);
    assert_eq!(server.sum("weir_abnormal_members"), 0.0);
    b.kill();
    server.line_with("pool one: member b is down");
    let abnormal = "weir_abnormal_members{pool=\"one\"}";
    until("b to be shown", || server.metric(abnormal) == 1.0);
    assert_eq!(server.metric("weir_normal_members{pool=\"one\"}"), 1.0);
    assert_eq!(server.metric("weir_abnormal_members{pool=\"two\"}"), 0.0);
    assert_eq!(ask(one), ["a"; 10]);
    b.revive();
    until("b to be back", || server.metric(abnormal) == 0.0);
}

/// R2.1-3: without checks a dead member gets its share, which shows in retries; R2.1-5: a member
/// whose port is not the service's is down by its checks, and without them means 502.
#[test]
fn without_checks_everybody_is_asked() {
    let a = Mortal::start("a");
    let (dead, live) = (closed(), greeter("b"));
    let text = head()
        + &site("half", "HTTP", "", &[("a", a.addr), ("dead", dead)])
        + &site("flow", "TCP", "", &[("b", live), ("dead", dead)])
        + &site("none", "HTTP", "", &[("dead", dead)])
        + &site("seen", "HTTP", &check("HTTP", ""), &[("dead", dead)]);
    let server = Server::start(&text);
    let half = http(&server, "half");
    assert!((0..40).all(|_| get(half, "/").status == 200), "the other one is asked then");
    let retries = of(&server, "weir_member_retries_total", "half", "dead");
    // A request that goes over takes the other one's turn, so that it may be more than half.
    assert!((15.0..=40.0).contains(&retries), "{retries} of 40");
    let flow = address_after(&server.ready, "flow tcp://");
    assert!((0..40).all(|_| hear(flow) == "b"));
    let failures = of(&server, "weir_member_connect_failures_total", "flow", "dead");
    assert!((15.0..=40.0).contains(&failures), "{failures} of 40");
    assert_eq!(get(http(&server, "none"), "/").status, 502);
    assert_eq!(get(http(&server, "seen"), "/").status, 503, "nobody is up");
    assert_eq!(of(&server, "weir_member_up", "seen", "dead"), 0.0);
    let why = "weir_member_check_failure{pool=\"seen\",member=\"dead\",reason=\"CONNECT_REFUSED\"";
    assert!(server.metrics().contains(why), "{}", server.metrics());
}

/// R4.4-3: how long each member takes.
#[test]
fn members_times_are_told_apart() {
    let (quick, slow) = (Fickle::start("quick"), process::Member::shut("slow"));
    let text = head() + &site("web", "HTTP", "", &[("quick", quick.addr), ("slow", slow.addr)]);
    let server = Server::start(&text);
    let door = http(&server, "web");
    let clients: Vec<_> =
        (0..4).map(|_| std::thread::spawn(move || get(door, "/").status)).collect();
    slow.wait_for(1);
    process::pass_time(Duration::from_millis(300));
    slow.open();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
    let mean = |member: &str| {
        let labels = format!("pool=\"web\",member=\"{member}\",code=\"200\"");
        let answers = server.metric(&format!("weir_member_responses_total{{{labels}}}"));
        of(&server, "weir_member_response_seconds_total", "web", member) / answers
    };
    let (quick, slow) = (mean("quick"), mean("slow"));
    assert!(slow >= 0.3 && quick < slow, "{quick} s, {slow} s");
}

/// A member that answers 503, or breaks off, is left out after so many times in a row, on all
/// shards, for a time that grows; it comes back, and a success ends the row. 500 is the
/// application's own matter.
#[test]
fn members_that_answer_gateway_errors_are_left_out() {
    let (good, bad) = (Fickle::start("good"), Fickle::start("bad"));
    let lines = outliers(3, "2s", 50);
    let text = head() + &site("web", "HTTP", &lines, &[("good", good.addr), ("bad", bad.addr)]);
    let mut server = Server::start(&text);
    let door = http(&server, "web");
    let ask = || -> String {
        let mut client = Client::connect(door);
        client.send("/", "Connection: close\r\n");
        client.answer().map(|answer| answer.body).unwrap_or_default()
    };
    bad.say(500);
    (0..40).for_each(|_| drop(ask()));
    assert_eq!(of(&server, "weir_member_ejected", "web", "bad"), 0.0);
    for (row, time, says) in [(1, 2, 503), (2, 4, CUT)] {
        bad.say(says);
        let ejected = || of(&server, "weir_member_ejected", "web", "bad") == 1.0;
        until("the bad one to be left out", || {
            ask();
            ejected()
        });
        let effective = server.metric("weir_config_version");
        until("all shards to know", || server.metric("weir_config_effective_version") >= effective);
        // For so long nobody comes to it, however many ask.
        let before = bad.requests.load(Relaxed);
        if row == 2 {
            assert!((0..40).all(|_| ask() == "good"));
            assert_eq!(bad.requests.load(Relaxed), before);
        }
        let line = server.line_with("pool web: member bad is left out");
        let words = [format!("for {time} s"), format!("(ejection {row} in a row)")];
        assert!(words.iter().all(|words| line.contains(words)), "{line}");
        server.line_with("pool web: member bad is back: its time is over");
    }
    assert_eq!(of(&server, "weir_member_ejections_total", "web", "bad"), 2.0);
    bad.say(200);
    until("it to serve again", || ask() == "bad");
    assert_eq!(of(&server, "weir_member_ejections_total", "web", "good"), 0.0);
}

/// Connect failures count at both layers; nobody but members is told of them while retries help.
/// Where only one may be out the other one stays. Without outlier_detection nothing of it happens,
/// and switching it off takes back who was out.
#[test]
fn members_that_cannot_be_reached_are_left_out() {
    let (live, good) = (greeter("b"), Fickle::start("good"));
    let (one, two) = (closed(), closed());
    let file = |lines: &str| {
        head()
            + &site("web", "HTTP", lines, &[("good", good.addr), ("dead", one)])
            + &site("flow", "TCP", lines, &[("live", live), ("dead", one)])
            + &site("dark", "TCP", lines, &[("one", one), ("two", two)])
    };
    let lines = outliers(2, "1m", 50);
    let mut server = Server::start(&file(&lines));
    let web = http(&server, "web");
    let door = |name: &str| address_after(&server.ready, &format!("{name} tcp://"));
    let (flow, dark) = (door("flow"), door("dark"));
    for pool in ["web", "flow"] {
        until(pool, || {
            assert_eq!((get(web, "/").status, hear(flow).as_str()), (200, "b"));
            of(&server, "weir_member_ejected", pool, "dead") == 1.0
        });
    }
    until("one of the two", || {
        assert_eq!(hear(dark), "");
        server.sum("weir_member_ejected") == 3.0
    });
    (0..10).for_each(|_| drop(hear(dark)));
    assert_eq!(server.sum("weir_member_ejected"), 3.0, "the other one stays");
    server.line_with("max_ejected_percent of pool dark are out already");
    let (code, out, err) = server.reload(&file(""));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("outlier_detection changed"), "{out}");
    assert_eq!(server.sum("weir_member_ejected"), 0.0);
    let failures = || of(&server, "weir_member_connect_failures_total", "web", "dead");
    let before = failures();
    until("the dead one to be asked again", || {
        get(web, "/");
        failures() > before
    });
}

/// A UDP member whose port is closed says so by ICMP, and is left out: all new flows come to the
/// other one.
#[test]
fn closed_ports_are_left_out() {
    let live = UdpSocket::bind("127.0.0.1:0").unwrap();
    live.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let members = [("live", live.local_addr().unwrap()), ("dead", closed())];
    let text = head() + &site("dns", "UDP", &outliers(2, "1m", 50), &members);
    let server = Server::start(&text);
    let door = address_after(&server.ready, "dns udp://");
    let client = || {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"question", door).unwrap();
        client
    };
    until("the dead one to be left out", || {
        client();
        of(&server, "weir_member_ejected", "dns", "dead") == 1.0
    });
    while live.recv(&mut [0; 16]).is_ok() {}
    let clients: Vec<UdpSocket> = (0..10).map(|_| client()).collect();
    live.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(clients.iter().all(|_| live.recv(&mut [0; 16]).is_ok_and(|len| len == 8)));
}

/// C18: with minimum_healthy_member_count = 1 all members get traffic when none is well, at both
/// layers; with 0 nobody does. As soon as one is well it is alone.
#[test]
fn a_pool_without_anybody_well_serves_all_where_it_is_told_so() {
    let (a, b) = (Mortal::start("a"), Mortal::start("b"));
    let (live, dead) = (greeter("c"), closed());
    let file = |least: u8, path: &str| {
        let health = format!("pool_health = {{ minimum_healthy_member_count = {least} }}\n");
        let web = check("HTTP", &format!(", url_path = \"{path}\"")) + &health;
        let flow = check("TCP", &format!(", monitor_port = {}", dead.port())) + &health;
        head()
            + &site("web", "HTTP", &web, &[("a", a.addr), ("b", b.addr)])
            + &site("flow", "TCP", &flow, &[("c", live)])
    };
    let mut server = Server::start(&file(0, "/missing"));
    let web = http(&server, "web");
    let flow = address_after(&server.ready, "flow tcp://");
    assert_eq!((get(web, "/").status, hear(flow).as_str()), (503, ""));
    let (code, out, err) = server.reload(&file(1, "/missing"));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("pool_health.minimum_healthy_member_count 0 → 1"), "{out}");
    let bodies = |n: usize| -> Vec<String> { (0..n).map(|_| get(web, "/").body).collect() };
    let mut all = bodies(10);
    all.sort();
    all.dedup();
    assert_eq!((all, hear(flow).as_str()), (vec!["a".into(), "b".into()], "c"));
    assert_eq!(server.sum("weir_pool_serves_all"), 2.0);
    assert_eq!(server.sum("weir_member_up"), 0.0);
    // Now both pass, one after the other; then one dies.
    let (code, _, err) = server.reload(&file(1, "/"));
    assert_eq!(code, Some(0), "{err}");
    server.line_with("pool web: only members that are well get traffic");
    until("both to be up", || server.sum("weir_member_up") == 2.0);
    let mut b = b;
    b.kill();
    server.line_with("pool web: member b is down");
    assert_eq!(bodies(10), ["a"; 10]);
    let mut a = a;
    a.kill();
    server.line_with("pool web: no member is well, so all of them get traffic");
    b.revive();
    until("b to serve", || get(web, "/").body == "b");
}
