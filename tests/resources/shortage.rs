//! Descriptors, room for logs, and readers of logs run out: traffic goes on within what is left,
//! and a message names what is missing.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use weir_core::net::sys;

use crate::process::{Client, File, LIMIT, RUN_DIR, Server, address_after, get, run, until, weir};
use crate::witness::{Asker, Held, Witness};
use crate::{balancer, check, head, listener};

const VIP: &str = "vip_address = \"127.0.0.1\"";

/// Descriptors of the process: some more than it asks for at least, with one shard.
const DESCRIPTORS: usize = 300;

/// Counts datagrams that found no socket towards a member.
const NO_SOCKET: &str = "weir_datagrams_dropped_total{listener=\"udp\",why=\"no_socket\"}";

/// Has the program run with so few.
fn with_few_descriptors(command: &mut Command) {
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(program).args(args);
    shell.stdin(Stdio::null()).stderr(Stdio::piped()).env_remove("NOTIFY_SOCKET");
    *command = shell;
}

/// A line of the log with these words, also one that was read before.
fn heard(server: &mut Server, words: &str) -> String {
    let before = server.log.iter().find(|line| line.contains(words)).cloned();
    before.unwrap_or_else(|| server.line_with(words))
}

/// Sessions until there are descriptors for none.
fn fill(held: &mut Vec<Held>, to: SocketAddr) {
    let mut failed = 0;
    while failed < 3 {
        match Held::open(to) {
            Some(one) => held.push(one),
            None => failed += 1,
        }
        assert!(held.len() < DESCRIPTORS / 2, "more descriptors than there are");
    }
}

/// How a session ends that finds no descriptor: cut by RST, whatever the client does meanwhile;
/// false where it is served.
fn is_cut(to: SocketAddr) -> bool {
    let ended = TcpStream::connect_timeout(&to, LIMIT).and_then(|mut client| {
        client.set_read_timeout(Some(LIMIT))?;
        client.write_all(b"who\n")?;
        client.read(&mut [0; 64])
    });
    match ended {
        Ok(len) => {
            assert!(len > 0, "ended as if all were well");
            false
        }
        Err(error) => {
            let cut = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(cut.contains(&error.kind()), "{error}");
            true
        }
    }
}

/// All has been given back but two flows; each session or flow that found no descriptor for its
/// member has its line. The process had `own` descriptors before.
fn nothing_is_left(server: Server, own: usize, member: SocketAddr) {
    until("all to be given back", || {
        server.sum("weir_active_connections") == 2.0
            // The flows' sockets, a kept connection to the member of HTTP, and a check's.
            && server.descriptors() <= own + 4
    });
    assert_eq!(server.sum("weir_ring_leases"), 0.0);
    let failed = |protocol: &str| {
        let of = format!("{{listener=\"{protocol}\",how=\"connect_failed\"}}");
        server.metric(&format!("weir_ended_connections_total{of}"))
    };
    let failed = [failed("tcp"), failed("udp")];
    assert!(failed.iter().all(|count| *count >= 1.0), "{failed:?}");
    let lines = server.connection_log();
    for (name, failed) in ["tcp", "udp"].iter().zip(failed) {
        let of = |line: &&serde_json::Value| {
            line["listener_usr_name"] == *name && line["ended"] == "connect_failed"
        };
        let lines: Vec<_> = lines.iter().filter(of).collect();
        assert_eq!(lines.len() as f64, failed);
        assert!(lines.iter().all(|line| line["upstream_addr"] == member.to_string()));
    }
}

/// Descriptors run out, for clients, for connections and flows to members, and for checks: what
/// there is goes on, what is turned away has a clean end and its word in the log, which names what
/// is missing, too; no member is blamed, and once there are some again all is as before, and
/// nothing is left behind.
#[test]
fn descriptors_run_out() {
    let member = Witness::start("127.0.0.1");
    let core = sys::allowed_cores().unwrap()[0];
    let text = head(&format!("cores = [{core}]\nmax_connections = 100000"))
        + &balancer("front", VIP)
        + &listener("front", "web", "HTTP", &[member.addr], "")
        + &listener("front", "tcp", "TCP", &[member.addr], &check("TCP"))
        + &listener("front", "udp", "UDP", &[member.addr], "")
        + &format!("[connection_log]\npath = \"{RUN_DIR}.log\"\n");
    let mut server = Server::start_with(&text, with_few_descriptors);
    let to = address_after(&server.ready, "tcp tcp://");
    let udp = address_after(&server.ready, "udp udp://");
    let own = server.descriptors();
    let mut client = Client::connect(server.web);
    let mut is_served = || {
        client.send("/", "");
        client.answer().unwrap().status == 200
    };
    assert!(is_served());
    let mut held = Vec::new();
    fill(&mut held, to);
    assert!(held.len() > DESCRIPTORS / 4);
    // Several at once: the first may find the last one.
    let crowd: Vec<TcpStream> = (0..6).map(|_| TcpStream::connect(to).unwrap()).collect();
    let said = heard(&mut server, "a client is turned away");
    assert!(said.contains("(EMFILE)") && said.contains("max_connections"), "{said}");
    drop(crowd);
    // A connection takes two, one of the admin listener one: so that there is one for a client and
    // none for its member.
    drop(held.pop());
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(TcpStream::connect(server.admin).unwrap());
        // A check may have had one meanwhile.
        until("a session that is cut", || {
            fill(&mut held, to);
            is_cut(to)
        });
    }
    let said = heard(&mut server, "cannot connect to member");
    assert!(said.contains("no descriptor is left (EMFILE)") && said.contains("LimitNOFILE"));
    // One of them may have the last one.
    let flows = [(); 2].map(|()| Asker::new("127.0.0.1", udp));
    let asked = flows.each_ref().map(|flow| flow.ask(1));
    assert!(asked.iter().any(Option::is_none), "{asked:?}");
    let said = heard(&mut server, "health checks can't be made");
    assert!(said.contains("no descriptor is left") && said.contains("Members keep"), "{said}");
    assert!(is_served() && held.iter_mut().all(|one| one.ask().is_some()));
    drop(kept);
    held.truncate(held.len() / 2);
    until("descriptors again", || Held::open(to).is_some());
    assert!(is_served() && held.iter_mut().all(|one| one.ask().is_some()));
    assert!(flows.iter().all(|flow| flow.ask(9).is_some()));
    for family in ["weir_ring_no_descriptors_total", "weir_ring_accept_failures_total"] {
        assert!(server.sum(family) > 0.0, "{family}");
    }
    assert!(server.metric("weir_health_probes_void_total") > 0.0);
    assert_eq!(server.sum("weir_member_connect_failures_total"), 0.0);
    assert_eq!(server.sum("weir_health_probe_failures_total"), 0.0);
    let up = format!("weir_member_up{{pool=\"tcp\",member=\"{}\"}}", member.addr);
    assert_eq!(server.metric(&up), 1.0);
    assert!(server.metric(NO_SOCKET) >= 1.0);
    drop((held, client));
    nothing_is_left(server, own, member.addr);
}

/// Has the program run with a disk of 64 KiB mounted on this folder, which only it sees.
fn on_a_small_disk(command: &mut Command, folder: &Path) {
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let script =
        format!("mount -t tmpfs -o size=64k none {} && exec \"$0\" \"$@\"", folder.display());
    let mut other = Command::new("unshare");
    other.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c", &script]);
    other.arg(program).args(args);
    other.stdin(Stdio::null()).stderr(Stdio::piped()).env_remove("NOTIFY_SOCKET");
    *command = other;
}

/// The disk under all logs is full: requests are answered, lost lines are counted, it is said on
/// standard error; when there is room again lines come again, and the log says what it lost.
#[test]
fn the_disk_under_the_logs_is_full() {
    let member = Witness::start("127.0.0.1");
    let disk = tempfile::tempdir().unwrap();
    let (access, own) = (disk.path().join("access.log"), disk.path().join("weir.log"));
    let text = |timeout: u8| {
        let text = head("")
            + &format!(
                "[log]\npath = \"{}\"\n[access_log]\npath = \"{}\"\nformat = \"json\"\n",
                own.display(),
                access.display()
            )
            + &balancer("front", VIP)
            + &listener("front", "web", "HTTP", &[member.addr], "");
        text.replace("shutdown_timeout = 1", &format!("shutdown_timeout = {timeout}"))
    };
    let mut server = Server::start_with(&text(1), |command| on_a_small_disk(command, disk.path()));
    let inside = |program: &str, args: &[&str]| {
        let pid = server.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--user", "--mount", "--", program]).args(args);
        run(&mut command)
    };
    let series = |name: &str| format!("weir_access_log_{name}{{log=\"{}\"}}", access.display());
    let (lines, dropped) = (series("lines_total"), series("dropped_lines_total"));
    let mut client = Client::connect(server.web);
    let long = format!("/{}", "y".repeat(4_000));
    let mut ask = || {
        client.send(&long, "");
        assert_eq!(client.answer().unwrap().status, 200);
    };
    until("the disk to be full", || {
        (0..20).for_each(|_| ask());
        server.metric(&dropped) > 0.0
    });
    // The last free bytes; once the log's own page is full its messages find none either.
    let (_, _, _full) = inside("sh", &["-c", &format!("yes >> {}/rest", disk.path().display())]);
    for n in 0..30 {
        let (code, out, err) = server.reload(&text(2 + n % 2));
        assert_eq!(code, Some(0), "{out}{err}");
        ask();
    }
    let script = format!("rm {0}/rest && : > {0}/access.log", disk.path().display());
    let (code, out, err) = inside("sh", &["-c", &script]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = server.reload(&text(4));
    assert_eq!(code, Some(0), "{out}{err}");
    let (_, log, err) = inside("cat", &[&own.display().to_string()]);
    assert!(log.contains("messages before this one were lost"), "{log}{err}");
    server.line_with("cannot write the log");
    // One line: many would fill the disk again.
    let before = server.metric(&lines);
    ask();
    until("lines again", || server.metric(&lines) > before);
}

/// Nobody reads standard error any more, and its pipe is full: requests, reloads and checks go on,
/// and when somebody reads again it says how many messages were lost.
#[test]
fn nobody_reads_standard_error() {
    let member = Witness::start("127.0.0.1");
    let text = |timeout: u8| {
        let text = head("")
            + &balancer("front", VIP)
            + &listener("front", "web", "HTTP", &[member.addr], &check("TCP"));
        text.replace("shutdown_timeout = 1", &format!("shutdown_timeout = {timeout}"))
    };
    let file = File::new(&text(1));
    let (reader, mut filler) = std::io::pipe().unwrap();
    let stderr = filler.try_clone().unwrap();
    let mut child =
        weir().args(["serve", "--config"]).arg(&file.path).stderr(stderr).spawn().unwrap();
    let mut reader = BufReader::new(reader);
    let mut ready = String::new();
    while !ready.contains("weir: ready: ") {
        ready.clear();
        assert!(reader.read_line(&mut ready).unwrap() > 0);
    }
    let web: SocketAddr = address_after(&ready, "web http://");
    while sys::takes_bytes(filler.as_fd()) {
        filler.write_all(&[b'.'; sys::PIPE_BYTES - 1]).unwrap();
        filler.write_all(b"\n").unwrap();
    }
    for timeout in [2, 3, 4] {
        file.write(&text(timeout));
        let (code, out, err) = run(weir().args(["reload", "--config"]).arg(&file.path));
        assert_eq!(code, Some(0), "{out}{err}");
        let mut client = Client::connect(web);
        for _ in 0..20 {
            client.send("/", "");
            assert_eq!(client.answer().unwrap().status, 200);
        }
    }
    drop(filler);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            let _test_is_over = tell.send(line);
        }
    });
    // The next message finds room.
    until("the log to say what it lost", || {
        file.write(&text(5));
        let (code, out, err) = run(weir().args(["reload", "--config"]).arg(&file.path));
        assert_eq!(code, Some(0), "{out}{err}");
        std::iter::from_fn(|| told.recv_timeout(LIMIT / 20).ok())
            .any(|line| line.contains("messages before this one were lost"))
    });
    assert_eq!(get(web, "/").status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}
