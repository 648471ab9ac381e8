//! What goes wrong when the new process is about to serve, or has begun to: the serving one goes on
//! as if nothing had happened, and hears signals.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use weir_core::time::clock;

use crate::flows::text;
use crate::process::{LIMIT, Member, address_after, config, count, get, run, signal, until, weir};
use crate::{Line, Load, echo, is_alive, kept_requests, new_requests, script};

/// A program that is `heir.py` with these words.
pub fn heir(folder: &Path, words: &str) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/heir.py");
    let name = words.split(' ').next().unwrap();
    script(folder, name, &format!("exec python3 {} {words}", python.display()))
}

/// A program that is `heir.py`, with the program under test behind it.
pub fn heir_before_weir(folder: &Path, name: &str) -> String {
    let words = format!("{name} {} \"$@\"", Path::new(weir().get_program()).display());
    heir(folder, &words)
}

/// A listening socket that a shard of the new process can't use: that process ends, and the one
/// that serves goes on. Else the listener would be nobody's there.
#[test]
fn a_door_that_cannot_be_opened_is_no_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start("member");
    let mut line = Line::start(&config("[0, 1]", 5, 0, &[(member.addr, 1)]));
    let web = line.server.web;
    let program = heir_before_weir(folder.path(), "breaks");
    let loads = [Load::start(new_requests(web)), Load::start(kept_requests(web))];
    for _ in 0..count(3, 20) {
        loads.iter().for_each(|load| load.goes_on(5));
        let (code, out, err) = line.try_upgrade(&["--program", &program]);
        let words = ["the running process serves on", "can't serve: shard 1", &web.to_string()];
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(words.iter().all(|words| err.contains(words)), "{err}");
        loads.iter().for_each(|load| load.goes_on(20));
    }
    line.upgrade(&[]);
    loads.iter().for_each(|load| load.goes_on(20));
    assert_eq!(loads.into_iter().flat_map(Load::end).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(get(web, "/").body, "member");
}

/// A new process that drains before it is heard to serve has made the sockets drop what would begin
/// a connection: the one that serves on by them sees to it that they don't.
#[test]
fn doors_that_a_new_process_has_closed_open_again() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start("member");
    let line = Line::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let program = heir_before_weir(folder.path(), "leaves");
    let load = Load::start(new_requests(line.server.web));
    load.goes_on(5);
    let (code, out, err) = line.try_upgrade(&["--program", &program]);
    assert!(code == Some(1) && err.contains("the running process serves on"), "{out}{err}");
    assert!(err.contains("ended before it was serving"), "{err}");
    load.goes_on(20);
    assert_eq!(load.end(), Vec::<String>::new());
    assert!(is_alive(line.pids[0]));
}

/// One signal waits until it is clear who serves; with the second the process ends at once, as it
/// does at any other time. The new one sees that it is gone, instead of being ended by it later.
#[test]
fn who_is_told_twice_to_end_does_so_within_an_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start("member");
    let line = Line::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let program = heir(folder.path(), &format!("hangs {}", folder.path().display()));
    let path = line.server.file.path.clone();
    let upgrade = std::thread::spawn(move || {
        run(weir().args(["upgrade", "--program", &program, "--config"]).arg(path))
    });
    until("the new process is told to serve", || folder.path().join("told").exists());
    let start = clock::mono();
    signal(line.pids[0], "TERM");
    signal(line.pids[0], "INT");
    until("its end", || !is_alive(line.pids[0]));
    // And not when it has waited in vain for the new one, which it does for 15 s.
    let took = clock::mono().since(start);
    assert!(took < Duration::from_secs(8), "it ended after {took:?}");
    until("the new one sees that", || folder.path().join("left").exists());
    assert_eq!(upgrade.join().unwrap().0, Some(1));
}

/// Clients with an address each, which are bound to their members.
fn bind_sources(dns: SocketAddr, count: u32) {
    for number in 0..count {
        let source = SocketAddr::from(((0x7f01_0000 + number).to_be_bytes(), 0));
        let socket = UdpSocket::bind(source).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect(dns).unwrap();
        echo::ask(&socket, "bind").unwrap();
    }
}

/// Bindings are much, so they go over while clients are served: no datagram waits for them.
#[test]
fn nobody_waits_while_bindings_go_over() {
    let folder = tempfile::tempdir().unwrap();
    let sticky = "session_persistence = { type = \"SOURCE_IP\", persistence_timeout = 5 }";
    // So many that their flows share few sockets.
    let members: Vec<_> = (0..8).map(|_| echo::member()).collect();
    let text = text("[0]", &[("dns", sticky)], &members)
        .replace("[runtime]\n", "[runtime]\nmax_connections = 100000\n");
    let mut line = Line::start(&text);
    // More than the channel holds, whose other end takes none of them yet.
    bind_sources(address_after(&line.server.ready, "dns udp://"), 12_000);
    let program = heir(folder.path(), "asks");
    let (code, out, err) = line.try_upgrade(&["--program", &program]);
    assert!(code == Some(1) && err.contains("bytes of bindings came"), "{out}{err}");
    assert!(err.contains("anybody there was the answer"), "{err}");
    line.upgrade(&[]);
}
