//! How sessions end that neither side has ended: idle, a deleted listener, the process' end.

use std::net::TcpStream;
use std::time::Duration;

use weir_core::time::clock;

use crate::process::{LIMIT, until};
use crate::{Member, Plan, address, assert_reset, connect, ended, talk};

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
        let error = std::io::Read::read(&mut client, &mut [0; 1]).unwrap_err();
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
