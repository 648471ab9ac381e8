//! `weir serve` end to end: a process, members and clients on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use process::{Client, File, LIMIT, Member, RUN_DIR, Server, config, get, until, weir};

/// "At once", on a machine that other tests keep busy.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn weights_hold_and_the_metrics_add_up() {
    let members = [Member::start("one"), Member::start("two"), Member::start("three")];
    let spec = [(members[0].addr, 1), (members[1].addr, 2), (members[2].addr, 3)];
    let server = Server::start(&config("[0]", 5, 0, &spec));
    let mut kept = Client::connect(server.web);
    for _ in 0..300 {
        kept.send("/", "");
        assert_eq!(kept.answer().unwrap().status, 200);
    }
    for _ in 0..300 {
        assert_eq!(get(server.web, "/").status, 200);
    }
    let counts: Vec<u64> = members.iter().map(|m| m.requests.load(Relaxed)).collect();
    assert_eq!(counts, [100, 200, 300]);
    assert_eq!(server.metric(r#"weir_requests_total{listener="web"}"#), 600.0);
    assert_eq!(server.metric(r#"weir_responses_total{listener="web",code="200"}"#), 600.0);
    assert_eq!(server.metric(r#"weir_connections_total{listener="web"}"#), 301.0);
    for (at, count) in counts.iter().enumerate() {
        let series = format!(r#"weir_member_requests_total{{pool="app",member="m{at}"}}"#);
        assert_eq!(server.metric(&series), *count as f64);
        let codes =
            format!(r#"weir_member_responses_total{{pool="app",member="m{at}",code="200"}}"#);
        assert_eq!(server.metric(&codes), *count as f64);
    }
    until("one active connection", || {
        server.metric(r#"weir_active_connections{listener="web"}"#) == 1.0
    });
    assert!(server.metric(r#"weir_ring_completions_total{shard="0"}"#) > 600.0);
    assert_eq!(server.metric("weir_shards"), 1.0);
}

#[test]
fn two_shards_share_a_free_port() {
    let member = Member::start("m");
    let server = Server::start(&config("\"auto\"", 5, 0, &[(member.addr, 1)]));
    let shards = server.metric("weir_shards");
    assert!(server.ready.contains(if shards > 1.0 { "shards: cores " } else { "shard: core " }));
    assert_ne!(server.web.port(), 0);
    let clients: Vec<Client> = (0..64).map(|_| Client::connect(server.web)).collect();
    for mut client in clients {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().body, "m");
    }
    assert_eq!(server.metric(r#"weir_requests_total{listener="web"}"#), 64.0);
}

/// The sum that the start-up check names must hold what the process really takes.
#[test]
fn the_named_descriptors_are_all_that_is_taken() {
    let text = config("\"auto\"", 5, 0, &[]);
    let listener = &text[text.find("[[listener]]").unwrap()..text.find("[[pool]]").unwrap()];
    let more: Vec<_> = (0..20)
        .map(|n| {
            let named = listener.replace("\"web\"", &format!("\"web{n}\""));
            named.replace("default_pool = \"app\"\n", "")
        })
        .collect();
    let server = Server::start(&(text.clone() + &more.concat()));
    let sum = server.log.iter().find_map(|line| line.split_once("descriptors: ")).unwrap().1;
    let sum: usize = sum.split_once(' ').unwrap().0.parse().unwrap();
    let taken = server.descriptors();
    assert!(taken <= sum, "{taken} descriptors are taken, the check named {sum}");
    assert!(taken > 20, "{taken}");
    server.signal("TERM");
}

/// Shards that poll before they sleep serve, reload and end as others do; what they poll is no
/// work of theirs.
#[test]
fn shards_that_poll_serve_reload_and_end() {
    let member = Member::start("m");
    let text = config("[0]", 5, 0, &[(member.addr, 1)]);
    let text = text.replace("cores = [0]", "cores = [0]\nspin = \"1s\"");
    assert!(text.contains("spin"));
    let server = Server::start(&text);
    for _ in 0..3 {
        assert_eq!(get(server.web, "/").body, "m");
    }
    until("time that was polled", || {
        get(server.web, "/");
        server.metric(r#"weir_shard_spin_seconds_total{shard="0"}"#) > 0.0
    });
    let effective = || server.metric("weir_config_effective_version");
    let before = effective();
    server.file.write(&text.replace("weight = 1", "weight = 2"));
    server.signal("HUP");
    until("the new file on every shard", || effective() > before);
    server.signal("TERM");
    let (status, log, _) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// The program in a mount namespace in which `/run/weir` is closed to it, and so is the secret in
/// `/run/mine`: as for a user whom they don't belong to.
fn as_a_stranger(weir: &Command) -> Command {
    let script = "mount -t tmpfs none /run && mkdir /run/weir /run/mine && \
                  touch /run/weir/sticky.key /run/mine/sticky.key && \
                  chmod 0 /run/mine/sticky.key /run/weir && \
                  exec setpriv --bounding-set -dac_override,-dac_read_search \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", script]).arg(weir.get_program()).args(weir.get_args());
    command
}

/// README's first configuration names no `run_dir`: whoever may not use the default one is served
/// without it. One that the file asks for has to do, and the message says how.
#[test]
fn a_run_dir_of_another_user() {
    let member = Member::start("m");
    let text = config("[0]", 5, 0, &[(member.addr, 1)]);
    let line = format!("run_dir = \"{RUN_DIR}\"\n");
    let server = Server::start_with(&text.replace(&line, ""), |command| {
        *command = as_a_stranger(command);
        command.stderr(Stdio::piped());
    });
    assert_eq!(get(server.web, "/").body, "m");
    server.signal("TERM");
    let (status, log, _) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    for words in ["will not find this process", "/run/weir/sticky.key: ", "set [runtime] run_dir"] {
        assert!(log.contains(words), "no `{words}` in: {log}");
    }
    let file = File::new(&text.replace(RUN_DIR, "/run/mine"));
    let mut command = weir();
    command.args(["serve", "--config"]).arg(&file.path);
    let mut command = assert_cmd::Command::from_std(as_a_stranger(&command));
    let assert = command.timeout(LIMIT).assert().code(1);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    let words = "cannot read /run/mine/sticky.key: Permission denied (os error 13); set [runtime]";
    assert!(stderr.contains(words), "{stderr}");
}

#[test]
fn health_is_answered_and_other_paths_are_not() {
    let server = Server::start(&config("[0]", 5, 0, &[]));
    let health = get(server.admin, "/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    assert_eq!(get(server.admin, "/").status, 404);
    assert!(get(server.admin, "/metrics").head.contains("text/plain; version=0.0.4"));
}

#[test]
fn sigterm_and_sigint_end_an_idle_server_with_0() {
    for signal in ["TERM", "INT"] {
        let server = Server::start(&config("[0]", 5, 0, &[]));
        let web = server.web;
        server.signal(signal);
        let (status, log, took) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(took < SOON, "{took:?}");
        assert!(TcpStream::connect(web).is_err());
    }
}

#[test]
fn idle_kept_connections_do_not_hold_the_end_up() {
    let member = Member::start("m");
    let server = Server::start(&config("[0]", 15, 0, &[(member.addr, 1)]));
    let mut kept = Client::connect(server.web);
    kept.send("/", "");
    kept.answer().unwrap();
    server.signal("TERM");
    let (status, log, took) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(took < SOON, "{took:?}");
}

#[test]
fn a_request_in_flight_gets_its_whole_answer() {
    let member = Member::shut("patience");
    let mut server = Server::start(&config("[0]", 15, 0, &[(member.addr, 1)]));
    let mut client = Client::connect(server.web);
    client.send("/", "");
    member.wait_for(1);
    server.signal("TERM");
    server.line_with("draining 1 client connection");
    until("503 from /healthz", || get(server.admin, "/healthz").status == 503);
    assert_eq!(server.metric("weir_draining"), 1.0);
    member.open();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "patience"));
    let (status, log, _) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_second_signal_stops_at_once_and_counts_the_cut() {
    let member = Member::shut("never");
    let mut server = Server::start(&config("[0]", 60, 0, &[(member.addr, 1)]));
    let mut client = Client::connect(server.web);
    client.send("/", "");
    member.wait_for(1);
    server.signal("TERM");
    server.line_with("draining 1 client connection");
    server.signal("TERM");
    let (status, log, took) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("second signal; 1 client connection was cut"), "{log}");
    assert!(took < SOON, "{took:?}");
    assert!(client.answer().is_err());
}

#[test]
fn the_shutdown_timeout_cuts_what_is_left() {
    let member = Member::shut("never");
    let server = Server::start(&config("[0]", 1, 0, &[(member.addr, 1)]));
    let mut client = Client::connect(server.web);
    client.send("/", "");
    member.wait_for(1);
    server.signal("TERM");
    let (status, log, took) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopped after 1 s; 1 client connection was cut"), "{log}");
    assert!(log.contains("shutdown_timeout"), "{log}");
    assert!(took < SOON, "{took:?}");
}

#[test]
fn a_second_weir_on_the_same_port_is_refused() {
    let first = Server::start(&config("\"auto\"", 5, 0, &[]));
    let file = File::new(&config("\"auto\"", 5, first.web.port(), &[]));
    let assert = assert_cmd::Command::from_std(weir())
        .args(["serve", "--config"])
        .arg(&file.path)
        .timeout(LIMIT)
        .assert()
        .code(1);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(stderr.contains(&format!("in use by weir (pid {})", first.pid())), "{stderr}");
}

/// Some kernels give socket filters to processes with CAP_NET_ADMIN only. Without it a drain says
/// so once, with cause and cure, however many sockets close; on other kernels there is nothing to
/// say.
#[test]
fn a_drain_without_socket_filters_is_told_once() {
    let vips = "vip_address = [\"127.0.0.1\", \"127.0.0.2\", \"127.0.0.3\"]";
    let text = config("\"auto\"", 5, 0, &[]).replace("vip_address = \"127.0.0.1\"", vips);
    let server = Server::start_with(&text, |command| {
        let mut weaker = Command::new("setpriv");
        let dropped = ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"];
        weaker.args(dropped).arg(command.get_program()).args(command.get_args());
        *command = weaker;
        command.stdin(Stdio::null()).stderr(Stdio::piped()).env_remove("NOTIFY_SOCKET");
    });
    server.signal("TERM");
    let (status, log, _) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let told: Vec<&str> = log.lines().filter(|line| line.contains("SO_ATTACH_FILTER")).collect();
    assert!(told.len() <= 1, "{log}");
    assert!(told.iter().all(|line| line.contains("CAP_NET_ADMIN")), "{log}");
    assert!(!log.contains("closes without a drain"), "{log}");
}

/// [log]: JSON lines to a file; SIGUSR1 opens it again after a rotation.
#[test]
fn the_log_goes_to_a_file_that_is_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("weir.log"), folder.path().join("weir.log.1"));
    let log = format!("[log]\npath = \"{}\"\nformat = \"json\"\n", path.display());
    let server = Server::start(&config("[0]", 5, 0, &[]).replace("[admin]", &(log + "[admin]")));
    let lines = |path: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert!(lines(&path).iter().any(|line| line["level"] == "INFO"));
    std::fs::rename(&path, &old).unwrap();
    server.signal("USR1");
    until("a new file", || path.exists());
    server.signal("TERM");
    let (status, stderr, _) = server.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let said = |path, words| lines(path).iter().any(|l| l["message"].as_str() == Some(words));
    assert!(said(&path, "drained; good bye") && !said(&old, "drained; good bye"));
}

/// [log] holds from the start: warnings and the ready line are in the file, as it says, and stderr
/// has only the line that somebody may wait for.
#[test]
fn the_log_is_in_force_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.log");
    let log = format!("[log]\npath = \"{}\"\nformat = \"json\"\n", path.display());
    // A pool without members is warned of.
    let server = Server::start(&config("[0]", 5, 0, &[]).replace("[admin]", &(log + "[admin]")));
    assert_eq!(server.log.len(), 1, "{:?}", server.log);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let message = |level: &str, words: &str| {
        let is_it = |line: &&serde_json::Value| {
            line["level"] == level && line["message"].as_str().unwrap().contains(words)
        };
        lines.iter().find(is_it).unwrap_or_else(|| panic!("no {level} {words} in: {text}"))
    };
    let warning = message("WARN", "[C18]")["message"].as_str().unwrap();
    assert!(warning.contains("weir.toml:") && !warning.contains("warning:"), "{warning}");
    message("INFO", "ready: web http://");
}

/// Why a start failed is on stderr and in the file, one line each; JSON on stderr stays JSON.
#[test]
fn a_failed_start_is_in_the_log() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.log");
    let with = |log: &str| {
        let text =
            config("[0]", 5, port, &[]).replace("[admin]", &format!("[log]\n{log}\n[admin]"));
        let file = File::new(&text);
        let mut command = assert_cmd::Command::from_std(weir());
        let assert = command.args(["serve", "--config"]).arg(&file.path).timeout(LIMIT).assert();
        String::from_utf8_lossy(&assert.code(1).get_output().stderr).into_owned()
    };
    let stderr = with(&format!("path = \"{}\"", path.display()));
    let words = format!("cannot listen on 127.0.0.1:{port}");
    assert!(stderr.lines().count() == 1 && stderr.contains(&words), "{stderr}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().any(|l| l.contains(" ERROR ") && l.contains(&words)), "{text}");
    for line in text.lines() {
        assert!(["ERROR", "WARN", "INFO"].iter().any(|level| line.contains(level)), "{line}");
    }
    let stderr = with("format = \"json\"");
    let lines: Vec<serde_json::Value> =
        stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |level: &str, words: &str| {
        lines.iter().any(|l| l["level"] == level && l["message"].as_str().unwrap().contains(words))
    };
    assert!(said("WARN", "[C18]") && said("ERROR", &words), "{stderr}");
}

#[test]
fn hup_and_usr1_are_harmless() {
    let mut server = Server::start(&config("[0]", 5, 0, &[]));
    server.signal("USR1");
    server.signal("HUP");
    server.line_with("version 1 is in effect on all shards");
    assert_eq!(get(server.admin, "/healthz").status, 200);
}

/// What systemd would hear, one message after the other.
struct Notified {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Notified {
    fn new() -> Notified {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Notified { socket, folder }
    }

    fn start(&self, text: &str) -> Server {
        let path = self.folder.path().join("notify");
        let server = Server::start_with(text, |command| {
            command.env("NOTIFY_SOCKET", &path);
        });
        assert!(self.next().contains("READY=1"));
        server
    }

    fn next(&self) -> String {
        let mut buffer = [0; 64];
        let n = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }
}

#[test]
fn systemd_is_told() {
    let notified = Notified::new();
    let server = notified.start(&config("[0]", 5, 0, &[]));
    server.signal("HUP");
    let reloading = notified.next();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="));
    assert!(notified.next().contains("READY=1"));
    server.signal("TERM");
    assert!(notified.next().contains("STOPPING=1"));
    assert_eq!(server.wait().0.code(), Some(0));
}

/// A reload that somebody asks for during another one comes after it: for systemd the whole ends
/// once, when the last one is in effect.
#[test]
fn systemd_hears_of_the_end_of_the_last_reload_only() {
    let notified = Notified::new();
    let server = notified.start(&config("[0]", 5, 0, &[]));
    // It takes connections and says nothing: the reload waits a second for its first verdict.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = "healthmonitor = { type = \"HTTP\", timeout = 1 }\nmembers";
    let text = config("[0]", 5, 0, &[(silent.local_addr().unwrap(), 1)]);
    server.file.write(&text.replace("members", check));
    for _ in 0..2 {
        server.signal("HUP");
        let reloading = notified.next();
        assert!(reloading.contains("RELOADING=1"), "{reloading}");
    }
    let ready = notified.next();
    assert!(ready.contains("READY=1"), "{ready}");
    server.signal("TERM");
    let stopping = notified.next();
    assert!(stopping.contains("STOPPING=1"), "{stopping}");
}

/// R5.11-2: each shard's thread may run on its core and no other, so that what it allocates lies on
/// that core's node.
#[test]
fn every_shard_is_pinned_to_its_core() {
    let server = Server::start(&config("\"auto\"", 5, 0, &[]));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let mut pinned = std::collections::BTreeMap::new();
    for task in tasks.flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap();
        let name = read("comm").trim().to_owned();
        // "weir-shard-0-1": the shard, then the executor.
        let shard = name.strip_prefix("weir-shard-").and_then(|rest| rest.split_once('-'));
        if let Some((shard, _)) = shard {
            let shard: usize = shard.parse().unwrap();
            let status = read("status");
            let cores = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
            pinned.insert(shard, cores.unwrap().trim().to_owned());
        }
    }
    let wanted = weir_core::net::sys::allowed_cores().unwrap();
    let wanted = wanted.iter().map(ToString::to_string).enumerate().collect();
    assert_eq!(pinned, wanted);
}
