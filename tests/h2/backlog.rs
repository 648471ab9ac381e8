//! Body that a member does not take: what the client's window lets in is held in few buffers.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use crate::Front;
use crate::process::python;

/// Receive buffers are the whole shard's: body in arrivals of 1 KiB that waits is drawn together
/// from 32 on. It would hold a hundred here, and few connections could hold all there are.
#[test]
fn a_backlog_holds_few_buffers() {
    let member = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = Front::start(member.local_addr().unwrap(), "");
    let leases = || front.server.sum("weir_ring_leases");
    let before = leases();
    let mut client = python("tests/h2/backlog.py");
    client.arg(front.addr.port().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    let held = leases() - before;
    drop(client.stdin.take());
    assert!(client.wait().unwrap().success());
    assert!((7.0..=72.0).contains(&held), "{held} buffers");
}
