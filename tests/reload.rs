//! `weir reload` and SIGHUP: what changes, what must not, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use process::{Client, LIMIT, Member, RUN_DIR, Server, get, run, until, weir};

/// A pool's name, further keys, and members with their weights.
type Pool<'a> = (&'a str, &'a str, &'a [(SocketAddr, u8)]);

/// A file of listeners (name, port, pool, further keys) and pools (name, further keys, members).
struct Plan<'a> {
    listeners: &'a [(&'a str, u16, &'a str, &'a str)],
    pools: &'a [Pool<'a>],
}

impl Plan<'_> {
    fn text(&self) -> String {
        let mut text = format!(
            "[runtime]\ncores = \"auto\"\nshutdown_timeout = 5\nrun_dir = \"{RUN_DIR}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n"
        );
        for (name, port, pool, more) in self.listeners {
            write!(
                text,
                "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"HTTP\"\n\
                 protocol_port = {port}\ndefault_pool = \"{pool}\"\n{more}\n"
            )
            .unwrap();
        }
        for (name, more, members) in self.pools {
            write!(text, "[[pool]]\nname = \"{name}\"\nprotocol = \"HTTP\"\n{more}\n").unwrap();
            for (addr, weight) in *members {
                write!(
                    text,
                    "[[pool.members]]\naddress = \"{}\"\nprotocol_port = {}\nweight = {weight}\n",
                    addr.ip(),
                    addr.port()
                )
                .unwrap();
            }
        }
        text
    }
}

/// A port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// R3.8-1, R7.14-1 and R7.14-3: members and weights change while a client keeps its connection, and
/// the answer of the reload says what changed and that it is in effect.
#[test]
fn members_and_weights_change_under_a_kept_connection() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let plan = |members: &[(SocketAddr, u8)]| {
        Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", members)] }.text()
    };
    let server = Server::start(&plan(&[(a.addr, 1)]));
    let mut client = Client::connect(server.web);
    let mut ask = |n: usize| -> Vec<String> {
        (0..n)
            .map(|_| {
                client.send("/", "");
                client.answer().unwrap().body
            })
            .collect()
    };
    assert_eq!(ask(4), ["a"; 4]);
    let (code, out, err) = server.reload(&plan(&[(a.addr, 1), (b.addr, 3)]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&format!("pool app: member {} added", b.addr)), "{out}");
    assert!(out.contains("version 2 is effective on all shards after"), "{out}");
    let answers = ask(40);
    assert_eq!(answers.iter().filter(|body| *body == "b").count(), 30);
    // Weight 0 takes effect with the next request (C12), and leaves no idle connection (C38).
    let (_, out, _) = server.reload(&plan(&[(a.addr, 0), (b.addr, 3)]));
    assert!(out.contains("weight 1 → 0"), "{out}");
    assert_eq!(ask(20), ["b"; 20]);
    let idle = format!("weir_member_idle_connections{{pool=\"app\",member=\"{}\"}}", a.addr);
    assert_eq!(server.metric(&idle), 0.0);
    let (_, out, _) = server.reload(&plan(&[(b.addr, 3)]));
    assert!(out.contains(&format!("member {} removed", a.addr)), "{out}");
    assert_eq!(ask(4), ["b"; 4]);
    assert_eq!(server.metric("weir_config_effective_version"), 4.0);
    assert_eq!(server.sum("weir_connections_total"), 1.0, "the client kept its connection");
}

/// All or nothing: whatever is wrong with the file, the running state stays, and the places of the
/// mistakes come back.
#[test]
fn a_bad_file_changes_nothing() {
    let a = Member::start("a");
    let members = [(a.addr, 1)];
    let good = Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", &members)] };
    let mut server = Server::start(&good.text());
    let bad = good.text().replace("default_pool = \"app\"", "default_pool = \"ap\"\nnonsense = 1");
    let (code, out, err) = server.reload(&bad);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("nonsense") && err.contains("did you mean"), "{err}");
    server.signal("HUP");
    let line = server.line_with("reload refused, nothing changed");
    assert!(line.contains("weir.toml:"), "{line}");
    server.file.write("[[listener");
    server.signal("HUP");
    server.line_with("reload refused, nothing changed");
    std::fs::remove_file(&server.file.path).unwrap();
    server.signal("HUP");
    server.line_with("can't be read");
    assert_eq!(get(server.web, "/").body, "a");
    assert_eq!(server.metric("weir_config_version"), 1.0);
    let (code, out, _) = server.reload(&good.text());
    assert_eq!(code, Some(0));
    assert!(out.starts_with("no change in what is served\nversion 1 is effective"), "{out}");
}

/// An address that can't be had refuses the whole file: the other new listener is not opened.
#[test]
fn a_busy_port_changes_nothing() {
    let a = Member::start("a");
    let members = [(a.addr, 1)];
    let pools: &[Pool<'_>] = &[("app", "", &members)];
    let server = Server::start(&Plan { listeners: &[("web", 0, "app", "")], pools }.text());
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (busy.local_addr().unwrap().port(), free_port());
    let listeners = [("web", 0, "app", ""), ("x", free, "app", ""), ("y", taken, "app", "")];
    let (code, _, err) = server.reload(&Plan { listeners: &listeners, pools }.text());
    assert_eq!(code, Some(1));
    assert!(err.contains("listener `y`") && err.contains(&taken.to_string()), "{err}");
    assert!(err.contains("weir.toml:") && err.contains(": listener[2].protocol_port: "), "{err}");
    assert!(TcpStream::connect(at(free)).is_err(), "x must not be open");
    assert_eq!(get(server.web, "/").body, "a");
}

/// A refused reload cuts nobody, not even where it would have put a listener on more cores: no
/// socket joins those that serve as long as something may fail.
#[test]
fn a_refused_reload_cuts_nobody() {
    let cores = weir_core::net::sys::allowed_cores().unwrap();
    let Some(other) = cores.get(1) else {
        return eprintln!("one core only: no shard could join");
    };
    let a = Member::start("a");
    let members = [(a.addr, 1)];
    let pools: &[Pool<'_>] = &[("app", "", &members)];
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap().port();
    let own = format!("vip_address = \"127.0.0.1\"\ncores = [{other}]");
    let plan = |listeners| Plan { listeners, pools }.text();
    let narrow = plan(&[("web", 0, "app", "")]).replace("vip_address = \"127.0.0.1\"", &own);
    let server = Server::start(&narrow);
    let wide = plan(&[("web", 0, "app", ""), ("y", taken, "app", "")]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask = || {
            let mut lost = Vec::new();
            while !over.load(Relaxed) {
                let Ok(stream) = TcpStream::connect(server.web) else { continue };
                let mut client = Client::over(stream);
                let asked = client.try_send_with("/", "Connection: close\r\n");
                lost.extend(asked.and_then(|()| client.answer()).err());
            }
            lost
        };
        let clients = [scope.spawn(ask), scope.spawn(ask)];
        let answers: Vec<_> = (0..20).map(|_| server.reload(&wide)).collect();
        over.store(true, Relaxed);
        for (code, _, err) in answers {
            assert!(code == Some(1) && err.contains("listener `y`"), "{code:?} {err}");
        }
        for client in clients {
            let lost = client.join().unwrap();
            assert!(lost.is_empty(), "{} requests are lost: {:?}", lost.len(), lost.first());
        }
    });
}

/// R6.3-2: a removed listener takes no new connections, and its old ones work until they are idle.
/// A new listener is there as soon as the reload has answered.
#[test]
fn listeners_come_and_go_and_connections_live_on() {
    let a = Member::start("a");
    let members = [(a.addr, 1)];
    let pools: &[Pool<'_>] = &[("app", "", &members)];
    let (one, two) = (free_port(), free_port());
    let short = "keepalive_timeout = 6";
    let listeners = [("web", one, "app", short)];
    let server = Server::start(&Plan { listeners: &listeners, pools }.text());
    let mut kept = Client::connect(at(one));
    kept.send("/", "");
    assert_eq!(kept.answer().unwrap().body, "a");
    let listeners = [("web", two, "app", "")];
    let (code, out, err) = server.reload(&Plan { listeners: &listeners, pools }.text());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("makes a new listener"), "{out}");
    assert_eq!(get(at(two), "/").body, "a");
    until("the old port is closed", || {
        TcpStream::connect_timeout(&at(one), LIMIT)
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    for _ in 0..3 {
        kept.send("/", "");
        assert_eq!(kept.answer().unwrap().body, "a");
    }
    let idle = weir_core::time::clock::mono();
    assert_eq!(kept.end().unwrap(), 0, "an orderly end");
    let waited = weir_core::time::clock::mono().since(idle);
    assert!(waited.as_millis() >= 6_000, "{waited:?}");
}

/// The same address under another name of balancer is another listener on the same socket: nobody
/// is refused in between.
#[test]
fn a_listener_that_takes_over_an_address_keeps_its_socket() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let (to_a, to_b) = ([(a.addr, 1)], [(b.addr, 1)]);
    let port = free_port();
    let pools: &[Pool<'_>] = &[("a", "", &to_a), ("b", "", &to_b)];
    let text = Plan { listeners: &[("web", port, "a", "")], pools }.text();
    let server = Server::start(&text);
    let mut waiting = Client::connect(at(port));
    assert_eq!(get(at(port), "/").body, "a");
    let other =
        text.replace("front", "back").replace("default_pool = \"a\"", "default_pool = \"b\"");
    let (code, out, err) = server.reload(&other);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("listener web"), "{out}");
    for _ in 0..20 {
        assert_eq!(get(at(port), "/").body, "b");
    }
    waiting.send("/", "");
    assert_eq!(waiting.answer().unwrap().body, "a", "a connection keeps the listener it came by");
}

/// A listener on a free port keeps the port that it was given, and what did not change keeps its
/// counters.
#[test]
fn what_did_not_change_is_not_touched() {
    let a = Member::start("a");
    let members = [(a.addr, 1)];
    let pools: &[Pool<'_>] = &[("app", "", &members)];
    let server = Server::start(&Plan { listeners: &[("web", 0, "app", "")], pools }.text());
    let mut kept = Client::connect(server.web);
    kept.send("/", "");
    kept.answer().unwrap();
    let opened = server.sum("weir_member_connections_total");
    let more = [("web", 0, "app", ""), ("more", 0, "app", "client_timeout = 7")];
    let (code, out, err) = server.reload(&Plan { listeners: &more, pools }.text());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("listener more: added") && !out.contains("listener web"), "{out}");
    kept.send("/", "");
    assert_eq!(kept.answer().unwrap().body, "a");
    assert_eq!(get(server.web, "/").body, "a");
    assert_eq!(server.metric("weir_requests_total{listener=\"web\"}"), 3.0);
    assert_eq!(a.requests.load(Relaxed), 3);
    let now = server.sum("weir_member_connections_total");
    assert!(now <= opened + 1.0, "the kept connection to the member was used again: {now}");
}

/// A file that was emptied, by an editor or a full disk, cuts nobody off.
#[test]
fn an_emptied_file_is_refused() {
    let plan = Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", &[])] };
    let server = Server::start(&plan.text());
    let runtime = plan.text().find("[[").unwrap();
    let (code, _, err) = server.reload(&plan.text()[..runtime]);
    assert_eq!(code, Some(1));
    assert!(err.contains("nothing changed: the file has neither a [[listener]]"), "{err}");
    assert_eq!(get(server.web, "/").status, 502, "it is served, by no member");
}

/// Who asks for a reload is told what the file's warnings are.
#[test]
fn warnings_are_told_who_asks() {
    let a = Member::start("a");
    let members = &[(a.addr, 1)][..];
    let plan = Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", members)] };
    let server = Server::start(&plan.text());
    let members = &[(a.addr, 0)][..];
    let plan = Plan { pools: &[("app", "", members)], ..plan };
    let (code, out, err) = server.reload(&plan.text());
    assert_eq!(code, Some(0), "{err}");
    let note = out.lines().find(|line| line.starts_with("note: ")).unwrap_or_default();
    assert!(note.contains("weight is 0"), "{out}");
}

/// What needs a new process is said, and the rest is done.
#[test]
fn what_a_reload_cannot_do_is_said() {
    let plan = Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", &[])] };
    let server = Server::start(&plan.text());
    let other = plan.text().replace("cores = \"auto\"", "cores = [0]").replace("= 5", "= 6");
    let (code, out, err) = server.reload(&other);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("note: [runtime] cores: changed"), "{out}");
    assert!(out.contains("shutdown_timeout 5s → 6s"), "{out}");
    let (_, out, _) = server.reload(&other);
    assert!(out.contains("note: [runtime] cores: changed"), "it still runs as it began: {out}");
    let (_, out, _) = server.reload(&plan.text());
    assert!(!out.contains("note: [runtime]"), "{out}");
    // What `weir check` refuses would keep the next start from coming about.
    let absent = plan.text().replace("cores = \"auto\"", "cores = [1023]");
    let (code, _, err) = server.reload(&absent);
    assert_eq!(code, Some(1));
    assert!(err.contains("weir.toml:2:9: runtime.cores: core 1023"), "{err}");
    let own = "vip_address = \"127.0.0.1\"\ncores = [1023]";
    let (_, _, err) = server.reload(&plan.text().replace("vip_address = \"127.0.0.1\"", own));
    assert!(err.contains("core 1023 carries no shard"), "{err}");
    assert!(err.contains("help: this process runs on"), "{err}");
}

/// A missing file has no mistakes; a mistake is one line of the log, with article and plural.
#[test]
fn answers_and_log_lines_say_what_is_so() {
    let plan = Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", &[])] };
    let mut server = Server::start(&plan.text());
    let (_, out, _) = server.reload(&plan.text().replace("= 5", "= 6"));
    assert!(out.contains("shutdown_timeout 5s → 6s"), "{out}");
    let line = server.line_with("reload: version");
    assert!(line.ends_with(", 1 change"), "{line}");
    let tcp = plan.text().replacen("protocol = \"HTTP\"", "protocol = \"TCP\"", 1);
    server.file.write(&tcp);
    server.signal("HUP");
    let line = server.line_with("reload refused");
    assert!(line.contains("an HTTP pool can't serve TCP listeners"), "{line}");
    assert!(line.contains("weir.toml:") && line.contains("; help: "), "{line}");
    let mut missing = weir();
    missing.args(["reload", "--config", "/nonexistent/weir.toml"]);
    let (code, _, err) = run(&mut missing);
    assert!(code == Some(1) && err.contains("the file can't be read"), "{err}");
    assert!(!err.contains("has mistakes"), "{err}");
}

/// A process that is stopped can't answer: that is said, with the way, instead of waiting for ever;
/// when it goes on it does what it was asked.
#[test]
fn a_stopped_process_is_named() {
    let plan = Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", &[])] };
    let mut server = Server::start(&plan.text());
    let pid = server.pid();
    server.signal("STOP");
    for verb in ["reload", "upgrade"] {
        let mut command = weir();
        command.args([verb, "--config"]).arg(&server.file.path);
        let mut command = assert_cmd::Command::from_std(command);
        let assert = command.timeout(LIMIT).assert().failure().code(1);
        let err = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(err.contains(&format!("process {pid} does not answer: it is stopped")), "{err}");
        assert!(err.contains(&format!("kill -CONT {pid}")), "{err}");
        if verb == "reload" {
            server.signal("CONT");
            server.line_with("reload: version");
            server.signal("STOP");
        }
    }
    // It is killed as it is: an upgrade would outlive this test.
}

/// A connection that came by a removed listener is waited for, and counted when it is cut.
#[test]
fn the_end_knows_connections_of_removed_listeners() {
    let slow = Member::shut("slow");
    let members = [(slow.addr, 1)];
    let pools: &[Pool<'_>] = &[("app", "", &members)];
    let port = free_port();
    let both = [("web", 0, "app", ""), ("old", port, "app", "")];
    let text = |listeners| {
        Plan { listeners, pools }.text().replace("shutdown_timeout = 5", "shutdown_timeout = 1")
    };
    let server = Server::start(&text(&both));
    let mut client = Client::connect(at(port));
    client.send("/", "");
    slow.wait_for(1);
    let (code, out, err) = server.reload(&text(&both[..1]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("listener old: removed"), "{out}");
    server.signal("TERM");
    let (status, log, _) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("1 client connection was cut"), "{log}");
}

#[test]
fn the_process_is_found_by_its_id_and_only_one_that_runs() {
    let plan = Plan { listeners: &[("web", 0, "app", "")], pools: &[("app", "", &[])] };
    let server = Server::start(&plan.text());
    let by_pid = |pid: u32| run(weir().args(["reload", "--pid", &pid.to_string()]));
    let (code, out, err) = by_pid(server.pid());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("version 1 is effective"), "{out}");
    let (code, _, err) = by_pid(std::process::id());
    assert_eq!(code, Some(1));
    assert!(err.contains("no control socket"), "{err}");
    let file = process::File::new(&plan.text());
    let (code, _, err) = run(weir().args(["reload", "--config"]).arg(&file.path));
    assert_eq!(code, Some(1));
    assert!(err.contains("no running process") && err.contains("run_dir"), "{err}");
}
