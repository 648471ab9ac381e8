//! Binary upgrades from outside: another process takes over the sockets, and what clients have
//! under way goes on. Issue 7 asks for 50 in a row, which `WEIR_COUNTS=full` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../flows/echo.rs"]
#[allow(dead_code, reason = "of these members and clients only UDP's are needed")]
mod echo;
#[path = "../process/mod.rs"]
mod process;

mod flows;
mod late;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use process::certs::Ca;
use process::line::{Line, is_alive, pid_in};
use process::moody::BlackHole;
use process::mortal::Mortal;
use process::{
    Client, LIMIT, Member, RUN_DIR, Server, address_after, config, count, get, pass_time, run,
    signal, until, weir,
};

/// Work of clients on a thread, again and again until it is told to stop.
struct Load {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Load {
    /// `work` says what went wrong.
    fn start(mut work: impl FnMut() -> Result<(), String> + Send + 'static) -> Load {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, counted) = (Arc::clone(&over), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut lost = Vec::new();
            while !ended.load(Relaxed) {
                lost.extend(work().err());
                counted.fetch_add(1, Relaxed);
                pass_time(Duration::from_millis(1));
            }
            lost
        });
        Load { over, done, thread: Some(thread) }
    }

    fn count(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Until it has done so much more.
    fn goes_on(&self, more: u64) {
        let aim = self.count() + more;
        until("work of clients", || self.count() >= aim);
    }

    /// All that went wrong.
    fn end(mut self) -> Vec<String> {
        self.over.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

/// Requests on a connection that is kept as long as the answers let it be.
fn kept_requests(web: SocketAddr) -> impl FnMut() -> Result<(), String> + Send {
    let mut kept: Option<Client> = None;
    move || {
        let mut client = kept.take().unwrap_or_else(|| Client::connect(web));
        client.try_send("/").map_err(|e| format!("kept: {e}"))?;
        let answer = client.answer().map_err(|e| format!("kept: {e}"))?;
        if answer.status != 200 {
            return Err(format!("kept: {}", answer.status));
        }
        if !answer.head.to_ascii_lowercase().contains("connection: close") {
            kept = Some(client);
        }
        Ok(())
    }
}

/// A connection a request.
fn new_requests(web: SocketAddr) -> impl FnMut() -> Result<(), String> + Send {
    move || {
        let failed = |e: std::io::Error| format!("new: {e}");
        let stream = TcpStream::connect_timeout(&web, LIMIT).map_err(failed)?;
        let mut client = Client::over(stream);
        client.try_send_with("/", "Connection: close\r\n").map_err(failed)?;
        match client.answer().map_err(failed)?.status {
            200 => Ok(()),
            status => Err(format!("new: {status}")),
        }
    }
}

/// Says back what it hears, after an upgrade to WebSocket if that is asked for.
fn echo_member() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
    addr
}

fn echo(mut stream: TcpStream) {
    let mut buf = [0; 4_096];
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        let said = &buf[..n];
        let answer = match said.starts_with(b"GET /") {
            true => {
                &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\n\r\n"[..]
            }
            false => said,
        };
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// A session that is to live as long as its client wants.
struct Session(BufReader<TcpStream>);

impl Session {
    fn open(addr: SocketAddr) -> Session {
        let stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Session(BufReader::new(stream))
    }

    fn websocket(addr: SocketAddr) -> Session {
        let mut session = Session::open(addr);
        let head = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        session.0.get_mut().write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            assert_ne!(session.0.read_line(&mut answer).unwrap(), 0, "{answer}");
        }
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        session
    }

    /// What is said comes back.
    fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        let mut heard = vec![0; text.len()];
        self.0.read_exact(&mut heard).unwrap();
        assert_eq!(heard, text.as_bytes());
    }
}

/// HTTP and HTTPS in front of a member, TCP and tunnels in front of another one.
fn mixed(folder: &Path, member: SocketAddr, echo: SocketAddr) -> String {
    let ca = Ca::new("ca");
    process::certs::replace(&folder.join("ca.pem"), &ca.pem);
    let [certificate, key] = ca.leaf(&["localhost"], 1).write(folder, "site");
    let echo_member =
        format!("[{{ address = \"{}\", protocol_port = {} }}]", echo.ip(), echo.port());
    config("\"auto\"", 5, 0, &[(member, 1)])
        + &format!(
            r#"
[[listener]]
name = "secure"
loadbalancer = "front"
protocol = "HTTPS"
protocol_port = 0
default_pool = "app"
default_certificate = "site"
[[certificate]]
name = "site"
certificate = {certificate:?}
private_key = {key:?}
[[listener]]
name = "tunnel"
loadbalancer = "front"
protocol = "HTTP"
protocol_port = 0
default_pool = "chat"
[[pool]]
name = "chat"
protocol = "HTTP"
members = {echo_member}
[[listener]]
name = "raw"
loadbalancer = "front"
protocol = "TCP"
protocol_port = 0
default_pool = "raw"
[[pool]]
name = "raw"
protocol = "TCP"
members = {echo_member}
"#
        )
}

/// A handshake with openssl and a request; the session goes to `out` or comes from `from`.
fn https(addr: SocketAddr, ca: &Path, session: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string(), "-servername", "localhost"]);
    command.arg("-CAfile").arg(ca).args(["-ign_eof", "-tls1_2"]).args(session);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    child.stdin.take().unwrap().write_all(request).unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Nothing of what clients have under way is lost, however often the program is replaced: requests
/// on kept and on new connections, TLS sessions, tunnels and TCP sessions, which live on in the
/// process that has them.
#[test]
fn nothing_is_lost_when_the_program_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (member, echo) = (Member::start("member"), echo_member());
    let mut line = Line::start(&mixed(folder.path(), member.addr, echo));
    let ready = line.server.ready.clone();
    let [secure, tunnel, raw] = ["secure https://", "tunnel http://", "raw tcp://"]
        .map(|words| address_after(&ready, words));
    let (ca, kept) = (folder.path().join("ca.pem"), folder.path().join("session"));
    let kept = kept.to_str().unwrap();
    assert!(https(secure, &ca, &["-sess_out", kept]).contains("200 OK"));
    let mut sessions = vec![(Session::websocket(tunnel), Session::open(raw))];
    let web = line.server.web;
    let loads = [
        Load::start(kept_requests(web)),
        Load::start(kept_requests(web)),
        Load::start(new_requests(web)),
        Load::start(new_requests(web)),
    ];
    // The first program and a copy of it in turn: each new version comes from another file.
    let copy = folder.path().join("weir.new");
    std::fs::copy(weir().get_program(), &copy).unwrap();
    for round in 0..count(3, 50) {
        loads.iter().for_each(|load| load.goes_on(5));
        let copied = ["--program", copy.to_str().unwrap()];
        line.upgrade(if round % 2 == 0 { &copied } else { &[] });
        for (tunnel, raw) in &mut sessions {
            tunnel.says("over the tunnel");
            raw.says("over TCP");
        }
        if round < 3 {
            sessions.push((Session::websocket(tunnel), Session::open(raw)));
        }
        let resumed = https(secure, &ca, &["-sess_in", kept]);
        assert!(resumed.contains("Reused, ") && resumed.contains("200 OK"), "{resumed}");
    }
    loads.iter().for_each(|load| load.goes_on(20));
    let lost: Vec<String> = loads.into_iter().flat_map(Load::end).collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    // Who has a tunnel lives on, the others end by themselves; the last one serves.
    assert!(is_alive(line.pids[0]), "tunnels and sessions live in the first one");
    drop(sessions);
    let (last, former) = line.pids.split_last().unwrap();
    until("the former ones' ends", || !former.iter().any(|pid| is_alive(*pid)));
    assert!(is_alive(*last));
    assert_eq!(get(web, "/").status, 200);
    assert_eq!(line.server.metrics().matches("weir_build_info{").count(), 1, "by the last one");
    // The very same sockets, and no others beside them.
    let sockets = run(Command::new("ss").args(["-Hltn", &format!("sport = :{}", web.port())]));
    let shards = line.server.metric("weir_shards") as usize;
    assert_eq!(sockets.1.lines().count(), shards, "{}", sockets.1);
    signal(*last, "TERM");
    until("its end", || !is_alive(*last));
}

fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whatever is wrong with the new program, the running one serves on, and says what it was.
#[test]
fn a_program_that_fails_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start("member");
    let mut line = Line::start(&config("\"auto\"", 5, 0, &[(member.addr, 1)]));
    let web = line.server.web;
    let load = Load::start(new_requests(web));
    let at = |name, text| script(folder.path(), name, text);
    let programs = [
        (at("ends", "exit 7"), "exit status: 7"),
        (at("says", "echo cannot do that >&2; exit 1"), "its last words:\ncannot do that"),
        (at("hangs", "exec sleep 1000"), "not ready within 1 s"),
        (at("babbles", "echo HTTP/1.0 400 Bad >&0; exec sleep 1000"), "ended before it was ready"),
        (at("goes", "exec <&- sleep 1000"), "ended before it was ready"),
        ("/bin/false".to_owned(), "exit status: 1"),
        (folder.path().to_str().unwrap().to_owned(), "cannot start"),
    ];
    for (program, words) in &programs {
        let (code, out, err) = line.try_upgrade(&["--program", program, "--timeout", "1"]);
        assert!(code == Some(1) && err.contains(words), "{program}: {out}{err}");
        assert!(err.contains("the running process serves on"), "{err}");
    }
    // A file with mistakes is refused by the command; one that turns bad after that by the new
    // process, with the mistakes.
    let text = std::fs::read_to_string(&line.server.file.path).unwrap();
    line.server.file.write("version = 1\n[runtime]\ncores = 3\n");
    assert_eq!(line.try_upgrade(&[]).0, Some(1));
    let by_pid = ["upgrade", "--pid", &line.server.pid().to_string()];
    let (code, _, err) = run(weir().args(by_pid));
    assert!(code == Some(1) && err.contains("weir.toml:3"), "{err}");
    // An address that somebody else has.
    let busy = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(busy).unwrap();
    let other = text.replacen("protocol_port = 0", &format!("protocol_port = {}", busy.port()), 1);
    line.server.file.write(&other);
    let (code, _, err) = line.try_upgrade(&[]);
    assert!(code == Some(1) && err.contains(&busy.to_string()), "{err}");
    drop(holder);
    assert_eq!(load.end(), Vec::<String>::new());
    line.server.file.write(&text);
    assert_eq!(get(web, "/").body, "member");
    assert!(is_alive(line.pids[0]));
    // It can still be replaced.
    line.upgrade(&[]);
    assert_eq!(get(web, "/").body, "member");
}

/// Health is handed over: who was down gets nothing, and nobody waits for checks to find out.
#[test]
fn the_new_process_knows_who_is_down() {
    let (well, mut ill) = (Mortal::start("well"), Mortal::start("ill"));
    let checked = "healthmonitor = { type = \"HTTP\", delay = 50, timeout = 50 }\n";
    let text = config("\"auto\"", 5, 0, &[(well.addr, 1), (ill.addr, 1)]) + checked;
    ill.kill();
    let mut line = Line::start(&text.replace("delay = 50", "delay = 1"));
    until("the ill member is known", || {
        line.server.metric(r#"weir_member_up{pool="app",member="m1"}"#) == 0.0
    });
    line.server.file.write(&text);
    let (probes, start) = (well.probes.load(Relaxed), weir_core::time::clock::mono());
    line.upgrade(&[]);
    let took = weir_core::time::clock::mono().since(start);
    for _ in 0..10 {
        assert_eq!(get(line.server.web, "/").body, "well");
    }
    let up = r#"weir_member_up{pool="app",member="#;
    until("the health of both", || {
        let metrics = line.server.metrics();
        metrics.contains(&format!("{up}\"m0\"}} 1")) && metrics.contains(&format!("{up}\"m1\"}} 0"))
    });
    let asked = well.probes.load(Relaxed) - probes;
    assert!(asked <= 3 && took < LIMIT, "{asked} probes, {took:?}");
}

/// Who was left out by `outlier_detection` is left out in the new process, too, and nobody has to
/// find out again.
#[test]
fn members_that_were_left_out_stay_out() {
    let (well, ill) = (Member::start("well"), TcpListener::bind("127.0.0.1:0").unwrap());
    let refusing = ill.local_addr().unwrap();
    drop(ill);
    let text = config("[0]", 5, 0, &[(well.addr, 1), (refusing, 1)])
        + "outlier_detection = { enable = true, consecutive_failures = 1, \
           base_ejection = \"300s\" }\n";
    let mut line = Line::start(&text);
    let ejected = r#"weir_member_ejected{pool="app",member="m1"}"#;
    until("the other one is left out", || {
        assert_eq!(get(line.server.web, "/").status, 200);
        line.server.metric(ejected) == 1.0
    });
    line.upgrade(&[]);
    for _ in 0..10 {
        assert_eq!(get(line.server.web, "/").body, "well");
    }
    assert_eq!(line.server.metric(ejected), 1.0);
    let failures = r#"weir_member_connect_failures_total{pool="app",member="m1"}"#;
    assert_eq!(line.server.metric(failures), 0.0, "it was asked again");
}

/// Bindings of an application's cookies are handed over, and so is the secret behind Weir's own.
#[test]
fn sticky_sessions_go_on() {
    let members = ["one", "two", "three"].map(cookie_member);
    let spec = members.map(|addr| (addr, 1));
    let sticky = "lb_algorithm = \"ROUND_ROBIN\"\nsession_persistence = ";
    for (flavor, persistence) in [
        ("shared", "{ type = \"APP_COOKIE\", cookie_name = \"sid\" }"),
        ("dedicated", "{ type = \"HTTP_COOKIE\", persistence_timeout = 5 }"),
    ] {
        let text = config("\"auto\"", 5, 0, &spec)
            .replace("vip_address", &format!("flavor = \"{flavor}\"\nvip_address"))
            .replace("lb_algorithm = \"ROUND_ROBIN\"", &format!("{sticky}{persistence}"));
        let mut line = Line::start(&text);
        let mut clients: Vec<(String, String)> = Vec::new();
        for _ in 0..12 {
            let answer = get(line.server.web, "/");
            clients.push((cookies_of(&answer.head), answer.body));
        }
        for _ in 0..2 {
            line.upgrade(&[]);
            for (cookies, member) in &clients {
                let mut client = Client::connect(line.server.web);
                client.send("/", &format!("Cookie: {cookies}\r\nConnection: close\r\n"));
                assert_eq!(&client.answer().unwrap().body, member, "{persistence}");
            }
        }
    }
}

/// A member that gives each client without a session one of its own.
fn cookie_member(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if !reader.read_line(&mut head).is_ok_and(|n| n > 0) {
                    break;
                }
            }
            let cookie = match head.contains("sid=") {
                true => String::new(),
                false => format!("Set-Cookie: sid={name}-{number}\r\n"),
            };
            let length = name.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\n{cookie}Connection: close\r\nContent-Length: {length}\r\n\r\n\
                 {name}"
            );
            let _asker_is_gone = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    addr
}

/// What a browser would send back.
fn cookies_of(head: &str) -> String {
    let set = head.lines().filter_map(|line| line.split_once(": "));
    let set = set.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    let cookies: Vec<&str> = set.map(|(_, value)| value.split(';').next().unwrap()).collect();
    cookies.join("; ")
}

/// Other cores are a matter of an upgrade: sockets of shards that are gone are served by those that
/// there are, new shards get their own.
#[test]
fn the_number_of_shards_may_change() {
    let member = Member::start("member");
    let text = |cores: &str| config(cores, 5, 0, &[(member.addr, 1)]);
    let mut line = Line::start(&text("[0, 1]"));
    let web = line.server.web;
    let loads = [Load::start(new_requests(web)), Load::start(kept_requests(web))];
    for (cores, shards) in [("[1]", 1.0), ("[0, 1]", 2.0), ("[0]", 1.0)] {
        line.server.file.write(&text(cores));
        line.upgrade(&[]);
        until("all shards", || line.server.metric("weir_shards") == shards);
        loads.iter().for_each(|load| load.goes_on(50));
        // A reload keeps the sockets as they are.
        assert_eq!(line.server.reload(&text(cores)).0, Some(0));
        loads.iter().for_each(|load| load.goes_on(20));
    }
    let lost: Vec<String> = loads.into_iter().flat_map(Load::end).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// While the new process waits for the first answers of members, clients are the old one's: the
/// sockets that it adds take nobody before it serves, and an upgrade that is given up cuts nobody.
#[test]
fn a_new_process_that_waits_takes_no_client() {
    let (member, hole) = (Member::start("member"), BlackHole::new());
    let text = |cores: &str| config(cores, 5, 0, &[(member.addr, 1)]);
    let mut line = Line::start(&text("[0]"));
    let load = Load::start(new_requests(line.server.web));
    load.goes_on(20);
    let silent = format!(
        r#"
[[listener]]
name = "silent"
loadbalancer = "front"
protocol = "TCP"
protocol_port = 0
default_pool = "silent"
[[pool]]
name = "silent"
protocol = "TCP"
lb_algorithm = "ROUND_ROBIN"
members = [ {{ name = "s", address = "127.0.0.1", protocol_port = {} }} ]
healthmonitor = {{ type = "TCP", delay = 50, timeout = 3 }}
"#,
        hole.addr.port()
    );
    line.server.file.write(&(text("[0, 1]") + &silent));
    let (code, out, err) = line.try_upgrade(&["--timeout", "1"]);
    let late = "the new process was not ready within 1 s (`--timeout` gives it longer)";
    assert!(code == Some(1) && err.contains(late), "{out}{err}");
    load.goes_on(20);
    let start = weir_core::time::clock::mono();
    line.upgrade(&[]);
    let took = weir_core::time::clock::mono().since(start);
    assert!(took >= Duration::from_secs(2), "it has not waited: {took:?}");
    until("both shards", || line.server.metric("weir_shards") == 2.0);
    load.goes_on(50);
    assert_eq!(load.end(), Vec::<String>::new());
}

/// The file may be another one by then: what it names no more closes, what is new opens.
#[test]
fn listeners_come_and_go_with_an_upgrade() {
    let member = Member::start("member");
    // Not where other tests take free ports.
    let free = TcpListener::bind("127.0.0.79:0").unwrap().local_addr().unwrap();
    let text = config("\"auto\"", 5, 0, &[(member.addr, 1)]);
    let other = text.replace("vip_address = \"127.0.0.1\"", "vip_address = \"127.0.0.79\"");
    let other = other.replace("name = \"web\"", "name = \"other\"");
    let other = other.replace("protocol_port = 0", &format!("protocol_port = {}", free.port()));
    let mut line = Line::start(&text);
    line.server.file.write(&other);
    line.upgrade(&[]);
    assert_eq!(get(free, "/").body, "member");
    let web = line.server.web;
    until("the former address is closed", || TcpStream::connect(web).is_err());
}

/// systemd hears that the process is replaced, and by whom; SIGUSR2 asks for it as the command
/// does. During a drain there is none.
#[test]
fn the_service_manager_is_told_and_a_drain_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let next = || {
        let mut buffer = [0; 128];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let member = Member::shut("member");
    let server = Server::start_with(&config("[0]", 20, 0, &[(member.addr, 1)]), |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let mut line = Line::of(server);
    assert!(next().contains("READY=1"));
    let first = line.pids[0];
    signal(first, "USR2");
    let told = next();
    assert!(told.contains("RELOADING=1") && told.contains("MONOTONIC_USEC="), "{told}");
    let told = next();
    assert!(told.contains("READY=1") && told.contains("MAINPID="), "{told}");
    let pid = told.lines().find_map(|line| line.strip_prefix("MAINPID=")).unwrap().parse().unwrap();
    line.pids.push(pid);
    until("the first one's end", || !is_alive(first));
    // The new one tells for itself.
    let failing = line.try_upgrade(&["--program", "/bin/false"]);
    assert_eq!(failing.0, Some(1));
    assert!(next().contains("RELOADING=1") && next().contains("READY=1"));
    let mut held = Client::connect(line.server.web);
    held.send("/", "");
    member.wait_for(1);
    signal(pid, "TERM");
    assert!(next().contains("STOPPING=1"));
    let (code, _, err) = line.try_upgrade(&[]);
    assert!(code == Some(1) && err.contains("the process drains"), "{err}");
    member.open();
    assert_eq!(held.answer().unwrap().status, 200);
    until("its end", || !is_alive(pid));
    let (code, _, err) = line.try_upgrade(&[]);
    assert!(code == Some(1) && err.contains("no running process"), "{err}");
}

/// With another `run_dir` in the file the process is found by its id, which is said, and the new
/// folder gets the secret that cookies are made with.
#[test]
fn an_upgrade_moves_to_another_run_dir() {
    let text = config("[0]", 5, 0, &[]);
    let mut line = Line::start(&text);
    let old = line.server.file.run_dir();
    let new = old.with_file_name("other");
    line.server.file.write(&text.replace(RUN_DIR, new.to_str().unwrap()));
    let (code, _, err) = line.try_upgrade(&[]);
    assert!(code == Some(1) && err.contains("--pid PID"), "{err}");
    let (code, out, err) = run(weir().args(["upgrade", "--pid", &line.last().to_string()]));
    assert_eq!(code, Some(0), "{out}{err}");
    line.pids.push(pid_in(&out));
    let key = |folder: &Path| std::fs::read(folder.join("sticky.key")).unwrap();
    assert_eq!(key(&new), key(&old));
}

/// After an upgrade the former process takes all the time that its connections need; told to end,
/// it waits for `shutdown_timeout` as ever.
#[test]
fn what_lives_on_is_cut_when_the_former_process_is_told_to_end() {
    let echo = echo_member();
    let mut line = Line::start(&config("[0]", 1, 0, &[(echo, 1)]));
    let mut tunnel = Session::websocket(line.server.web);
    line.upgrade(&[]);
    pass_time(Duration::from_secs(2));
    tunnel.says("still here");
    let first = line.pids[0];
    signal(first, "TERM");
    until("its end", || !is_alive(first));
    assert!(!matches!(tunnel.0.get_mut().read(&mut [0; 1]), Ok(1..)));
    assert_eq!(line.server.metric("weir_shards"), 1.0, "the other one serves");
}
