//! Descriptors, room for logs, and readers of logs run out: traffic goes on within what is left,
//! and a message names what is missing.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use weir_core::net::sys;

use crate::process::{Client, File, LIMIT, Server, address_after, get, run, until, weir};
use crate::witness::{Held, Witness};
use crate::{balancer, check, head, listener};

const VIP: &str = "vip_address = \"127.0.0.1\"";

/// Descriptors of the process: some more than it asks for at least, with one shard.
const DESCRIPTORS: usize = 300;

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

/// Descriptors run out, for clients, for connections to members, and for checks: what there is
/// goes on, the log names what is missing, no member is blamed, and once there are some again all
/// is as before.
#[test]
fn descriptors_run_out() {
    let member = Witness::start("127.0.0.1");
    let core = sys::allowed_cores().unwrap()[0];
    let text = head(&format!("cores = [{core}]\nmax_connections = 100000"))
        + &balancer("front", VIP)
        + &listener("front", "web", "HTTP", &[member.addr], "")
        + &listener("front", "tcp", "TCP", &[member.addr], &check("TCP"));
    let mut server = Server::start_with(&text, with_few_descriptors);
    let to = address_after(&server.ready, "tcp tcp://");
    let mut client = Client::connect(server.web);
    let mut is_served = || {
        client.send("/", "");
        client.answer().unwrap().status == 200
    };
    assert!(is_served());
    let (mut held, mut failed) = (Vec::new(), 0);
    while failed < 3 {
        match Held::open(to) {
            Some(one) => held.push(one),
            None => failed += 1,
        }
        assert!(held.len() < DESCRIPTORS / 2, "more descriptors than there are");
    }
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
        held.extend((0..3).filter_map(|_| Held::open(to)));
    }
    let said = heard(&mut server, "cannot connect to member");
    assert!(said.contains("no descriptor is left (EMFILE)") && said.contains("LimitNOFILE"));
    let said = heard(&mut server, "health checks can't be made");
    assert!(said.contains("no descriptor is left") && said.contains("Members keep"), "{said}");
    assert!(is_served() && held.iter_mut().all(|one| one.ask().is_some()));
    drop(kept);
    held.truncate(held.len() / 2);
    until("descriptors again", || Held::open(to).is_some());
    assert!(is_served() && held.iter_mut().all(|one| one.ask().is_some()));
    for family in ["weir_ring_no_descriptors_total", "weir_ring_accept_failures_total"] {
        assert!(server.sum(family) > 0.0, "{family}");
    }
    assert!(server.metric("weir_health_probes_void_total") > 0.0);
    assert_eq!(server.sum("weir_member_connect_failures_total"), 0.0);
    assert_eq!(server.sum("weir_health_probe_failures_total"), 0.0);
    let up = format!("weir_member_up{{pool=\"tcp\",member=\"{}\"}}", member.addr);
    assert_eq!(server.metric(&up), 1.0);
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
