//! Health checks, seen from outside: real members that die and come back, `weir serve`, its metrics
//! and its log. The rules themselves are tested in `health` and `core::control`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use process::mortal::Mortal;
use process::{LIMIT, RUN_DIR, Server, get, pass_time, run, until, weir};
use weir_core::time::clock;

/// A pool: its name, its check (or nothing), and its members with their weights.
type Pool<'a> = (&'a str, &'a str, &'a [(&'a Mortal, u8)]);

/// A listener on a free port in front of `pools[0]`.
fn file(pools: &[Pool<'_>]) -> String {
    let mut text = format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 5\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n\
         [[listener]]\nname = \"web\"\nloadbalancer = \"front\"\nprotocol = \"HTTP\"\n\
         protocol_port = 0\ndefault_pool = \"{}\"\n",
        pools[0].0
    );
    for (name, check, members) in pools {
        text += &pool(name, check, "");
        for (member, weight) in *members {
            text += &entry(member.name, member.addr, *weight);
        }
    }
    text
}

fn pool(name: &str, check: &str, more: &str) -> String {
    let check = if check.is_empty() { String::new() } else { format!("healthmonitor = {check}\n") };
    format!("[[pool]]\nname = \"{name}\"\nprotocol = \"HTTP\"\n{check}{more}")
}

fn entry(name: &str, addr: SocketAddr, weight: u8) -> String {
    format!(
        "[[pool.members]]\nname = \"{name}\"\naddress = \"{}\"\nprotocol_port = {}\nweight = \
         {weight}\n",
        addr.ip(),
        addr.port()
    )
}

fn http(path: &str, retries: u8) -> String {
    format!(
        "{{ type = \"HTTP\", delay = 1, timeout = 1, max_retries = {retries}, max_retries_down = \
         {retries}, url_path = \"{path}\" }}"
    )
}

/// 1, 0, or nothing where the member isn't checked.
fn up(server: &Server, member: &str) -> Option<bool> {
    let text = server.metrics();
    let series = format!("weir_member_up{{pool=\"app\",member=\"{member}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series))?;
    Some(value == "1")
}

fn answers(server: &Server, n: usize) -> Vec<String> {
    (0..n).map(|_| get(server.web, "/").body).collect()
}

/// R2.1-2, R8.1-1, R8.1-2, R8.1-6: a member that dies gets nothing until it is found well again;
/// R8.1-4: one of weight 0 is probed and gets nothing; C18: nobody is left, so 503. The ready line
/// waits for the first verdicts: the first client is answered.
#[test]
fn members_follow_their_checks() {
    let (mut a, mut b, zero) = (Mortal::start("a"), Mortal::start("b"), Mortal::start("zero"));
    let mut server =
        Server::start(&file(&[("app", &http("/", 1), &[(&a, 1), (&b, 1), (&zero, 0)])]));
    assert_eq!(get(server.web, "/").status, 200);
    for member in ["a", "b", "zero"] {
        assert_eq!(up(&server, member), Some(true), "{member}");
    }
    b.kill();
    let line = server.line_with("member b is down");
    assert!(line.contains("CONNECT_REFUSED (connect_refused)"), "{line}");
    until("b to be shown as down", || up(&server, "b") == Some(false));
    assert_eq!(answers(&server, 10), ["a"; 10]);
    a.kill();
    until("a to be shown as down", || up(&server, "a") == Some(false));
    assert_eq!(get(server.web, "/").status, 503);
    b.revive();
    until("b to be shown as up", || up(&server, "b") == Some(true));
    assert_eq!(answers(&server, 10), ["b"; 10]);
    a.revive();
    until("both to serve", || answers(&server, 2).contains(&"a".to_owned()));
    assert!(zero.probes.load(Relaxed) > 0 && zero.requests.load(Relaxed) == 0);
    assert!(
        server.metric("weir_health_probes_total") > server.sum("weir_health_probe_failures_total")
    );
}

/// The start waits for the first verdicts, also for those of members who say nothing, but not
/// longer than their timeout and a second.
#[test]
fn the_start_waits_for_members_who_say_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = "{ type = \"HTTP\", delay = 5, timeout = 2 }";
    let text = file(&[("app", check, &[])]) + &entry("s", silent.local_addr().unwrap(), 1);
    let begin = clock::mono();
    let server = Server::start(&text);
    assert!(clock::mono().since(begin) >= Duration::from_secs(2), "no verdict comes before");
    assert_eq!(get(server.web, "/").status, 503);
    assert_eq!(up(&server, "s"), Some(false));
}

/// R8.1-5: another path shows its effect within interval × retries and a timeout; R8.8-1: with a
/// longer interval members are asked less; R8.1-3, R8.8-2: without checks a dead member gets
/// traffic.
#[test]
fn checks_change_while_they_run() {
    let mut a = Mortal::start("a");
    let server = Server::start(&file(&[("app", &http("/missing", 2), &[(&a, 1)])]));
    assert_eq!(get(server.web, "/").status, 503);
    let (code, out, err) = server.reload(&file(&[("app", &http("/", 2), &[(&a, 1)])]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("healthmonitor.type"), "{out}");
    until("the good path to be asked", || get(server.web, "/").status == 200);
    let slow = http("/", 2).replace("delay = 1", "delay = 50");
    let (code, out, err) = server.reload(&file(&[("app", &slow, &[(&a, 1)])]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("healthmonitor.delay 1s → 50s"), "{out}");
    let before = a.probes.load(Relaxed);
    pass_time(Duration::from_secs(3));
    assert!(a.probes.load(Relaxed) <= before + 1, "the next was due, the others are not");
    a.kill();
    let (code, out, err) = server.reload(&file(&[("app", "", &[(&a, 1)])]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("healthmonitor removed"), "{out}");
    assert_eq!(get(server.web, "/").status, 502, "it is tried");
    assert_eq!(up(&server, "a"), None);
    a.revive();
    assert_eq!(get(server.web, "/").body, "a");
}

/// R8.1-17: who belongs to no listener isn't asked. When a listener turns to such a pool its
/// members are asked first, and everybody is served meanwhile.
#[test]
fn an_unused_pool_is_not_probed_until_it_is_wanted() {
    let (a, b) = (Mortal::start("a"), Mortal::start("b"));
    let two = |first: &str, second: &str| {
        let of = |name: &str| if name == "app" { &a } else { &b };
        let check = http("/", 1);
        let (one, other) = ([(of(first), 1)], [(of(second), 1)]);
        file(&[(first, &check, &one), (second, &check, &other)])
    };
    let server = Server::start(&two("app", "spare"));
    until("a to be asked again", || a.probes.load(Relaxed) >= 3);
    assert_eq!(b.probes.load(Relaxed), 0);
    assert!(!server.metrics().contains("weir_member_up{pool=\"spare\""));
    let (code, out, err) = server.reload(&two("spare", "app"));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("default_pool \"app\" → \"spare\""), "{out}");
    assert_eq!(answers(&server, 5), ["b"; 5]);
    assert_eq!(up(&server, "a"), None);
}

/// A reload that waits for members who say nothing disturbs nobody, and ends with the process: it
/// is refused, and the drain is a clean one.
#[test]
fn a_drain_gives_up_a_reload_that_waits() {
    let a = Mortal::start("a");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(&file(&[("app", &http("/", 1), &[(&a, 1)])]));
    let check = "{ type = \"HTTP\", delay = 5, timeout = 50 }";
    let text = file(&[("app", &http("/", 1), &[(&a, 1)])])
        .replace("default_pool = \"app\"", "default_pool = \"mute\"");
    server
        .file
        .write(&(text + &pool("mute", check, "") + &entry("s", silent.local_addr().unwrap(), 1)));
    let path = server.file.path.clone();
    let asked = std::thread::spawn(move || run(weir().args(["reload", "--config"]).arg(path)));
    let (probe, _) = silent.accept().unwrap();
    probe.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(answers(&server, 5), ["a"; 5]);
    assert_eq!(server.metric("weir_config_version"), 1.0);
    server.signal("TERM");
    let (code, out, err) = asked.join().unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("the process drains"), "{err}");
    let (status, log, _) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
