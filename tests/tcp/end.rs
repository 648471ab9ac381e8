//! How sessions end that neither side has ended: idle, a deleted listener, the process' end.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weir_core::obs::Ending;
use weir_core::time::clock;

use crate::process::{LIMIT, until};
use crate::{Member, Plan, address, assert_reset, connect, ended, nobody, reset, talk};

/// R2.2-3, R6.7-1, C3: idle for `keepalive_timeout`, not before; then RST to both sides. What moves
/// on either side keeps a session alive.
#[test]
fn idle_sessions_are_reset_on_both_sides() {
    let member = Member::start();
    let lines = "keepalive_timeout = 10";
    let plan = Plan::new(1).listener("web", 0, "app", lines).pool("app", "", &[(member.addr, 1)]);
    let server = plan.start();
    let mut client = connect(address(&server, "web"));
    let mut upstream = member.accept();
    talk(&mut client, &mut upstream);
    let start = clock::mono();
    let mut busy = connect(address(&server, "web"));
    let mut busy_upstream = member.accept();
    // Rows of pings until the idle one is gone.
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let error = loop {
        talk(&mut busy, &mut busy_upstream);
        let error = client.read(&mut [0; 1]).unwrap_err();
        if error.kind() != std::io::ErrorKind::WouldBlock {
            break error;
        }
        assert!(clock::mono().since(start) < LIMIT * 3, "it stays");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(clock::mono().since(start) >= Duration::from_millis(9_900), "too early");
    assert_reset(&mut upstream);
    talk(&mut busy, &mut busy_upstream);
    until("the end is counted", || ended(&server, "idle") == 1.0);
}

/// R6.3-1, C4: deleting the listener ends its sessions at once and closes the port, also for who is
/// in the middle of something; others go on.
#[test]
fn a_deleted_listener_cuts_its_sessions() {
    let member = Member::start();
    let members = [(member.addr, 1)];
    let both = Plan::new(1)
        .listener("web", 0, "app", "")
        .listener("other", 0, "app", "")
        .pool("app", "", &members);
    let server = both.start();
    let web = address(&server, "web");
    let mut sessions: Vec<_> = (0..20).map(|_| (connect(web), member.accept())).collect();
    for (client, upstream) in &mut sessions {
        talk(client, upstream);
    }
    let mut kept = connect(address(&server, "other"));
    let mut kept_upstream = member.accept();
    let one = Plan::new(1).listener("other", 0, "app", "").pool("app", "", &members);
    let (code, out, err) = server.reload(one.text());
    assert_eq!(code, Some(0), "{out}{err}");
    for (client, upstream) in &mut sessions {
        assert_reset(client);
        assert_reset(upstream);
    }
    talk(&mut kept, &mut kept_upstream);
    until("the port is closed", || TcpStream::connect_timeout(&web, LIMIT).is_err());
    assert_eq!(server.sum("weir_member_active_connections"), 1.0);
}

/// SIGTERM: established sessions live for `shutdown_timeout`, then they are reset.
#[test]
fn the_process_gives_sessions_their_time() {
    let member = Member::start();
    let plan = Plan::new(2).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    let mut server = plan.start();
    let web = address(&server, "web");
    let mut client = connect(web);
    let mut upstream = member.accept();
    let start = clock::mono();
    server.signal("TERM");
    server.line_with("drain");
    talk(&mut client, &mut upstream);
    assert_reset(&mut client);
    assert!(clock::mono().since(start) >= Duration::from_secs(2));
    assert_reset(&mut upstream);
    server.wait();
}

/// SIGTERM: when the last session has ended the process ends, with success.
#[test]
fn the_process_ends_with_its_last_session() {
    let member = Member::start();
    let plan = Plan::new(600).listener("web", 0, "app", "").pool("app", "", &[(member.addr, 1)]);
    let mut server = plan.start();
    let client = connect(address(&server, "web"));
    let upstream = member.accept();
    server.signal("TERM");
    server.line_with("drain");
    drop((client, upstream));
    let (status, log, _) = server.wait();
    assert!(status.success(), "{log}");
}

/// The connection log has the word of each end: all that TCP sessions have but `member_is_client`,
/// which needs members that see the client's address (`flows`); flows alone are `evicted`.
#[test]
fn each_end_has_its_word_in_the_log() {
    let member = Member::start();
    let drain = "connection_drain = { enable = true, timeout = 10 }";
    let plan = |weight: u8| {
        Plan::new(1)
            .listener("web", 0, "app", "")
            .listener("quick", 0, "app", "keepalive_timeout = 10")
            .listener("lost", 0, "nobody", "")
            .listener("leaves", 0, "leaves", "")
            .pool("app", "", &[(member.addr, 1)])
            .pool("nobody", "", &[(nobody(), 1)])
            .pool("leaves", drain, &[(member.addr, weight)])
            .logged()
    };
    let server = plan(1).listener("gone", 0, "app", "").start();
    let mut expected = HashMap::new();
    // Its reset may come before the client sees that it was connected.
    let lost = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    lost.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = lost.local_addr().unwrap().as_socket().unwrap().port();
    expected.insert(port, "connect_failed");
    let _perhaps_reset = lost.connect(&address(&server, "lost").into());
    let mut pair = |listener: &str, word: &'static str| {
        let (mut client, mut upstream) = (connect(address(&server, listener)), member.accept());
        expected.insert(client.local_addr().unwrap().port(), word);
        talk(&mut client, &mut upstream);
        (client, upstream)
    };
    let mut slow = [pair("quick", "idle"), pair("leaves", "drained")];
    let (client, mut upstream) = pair("web", "client_fin");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(upstream.read(&mut [0; 1]).unwrap(), 0);
    drop(upstream);
    let (mut client, upstream) = pair("web", "member_fin");
    upstream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    let (client, mut upstream) = pair("web", "client_rst");
    reset(client);
    assert_reset(&mut upstream);
    let (mut client, upstream) = pair("web", "member_rst");
    reset(upstream);
    assert_reset(&mut client);
    let mut gone = pair("gone", "deleted");
    let _cut = pair("web", "shutdown");
    let (code, out, err) = server.reload(plan(0).text());
    assert_eq!(code, Some(0), "{out}{err}");
    assert_reset(&mut gone.0);
    slow.iter_mut().for_each(|(client, _)| assert_reset(client));
    until("the ends of the quiet ones", || ended(&server, "member_fin") == 1.0);
    let path = server.file.run_dir().with_file_name("run.log");
    let mut log = File::open(path).unwrap();
    server.signal("TERM");
    server.wait();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    let words: HashMap<u16, String> = text.lines().map(port_and_word).collect();
    assert_eq!(words.len(), expected.len(), "{text}");
    for (port, word) in &expected {
        assert_eq!(words[port], *word, "{text}");
    }
    let all: HashSet<&str> =
        expected.into_values().chain(["member_is_client", "evicted"]).collect();
    assert_eq!(all, Ending::ALL.map(Ending::name).into());
}

fn port_and_word(line: &str) -> (u16, String) {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let word = line["ended"].as_str().unwrap().to_owned();
    (line["remote_port"].as_u64().unwrap().try_into().unwrap(), word)
}
