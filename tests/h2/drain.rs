//! SIGTERM while requests are under way: each that was taken gets its answer.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::process::{count, python};
use crate::{Front, Origin};

/// The client is told twice that it should begin nothing more, and has a moment for learning it:
/// whatever was taken is answered, then the connection ends.
#[test]
fn drain_under_load() {
    let member = Origin::start();
    for _ in 0..count(2, 20) {
        let front = Front::start(member.addr, "");
        let mut load = python("tests/h2/drain.py");
        load.args([&front.addr.port().to_string(), "4"]).stdout(Stdio::piped());
        let mut load = load.spawn().unwrap();
        let mut out = BufReader::new(load.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "begun\n");
        front.server.signal("TERM");
        let (status, log, _) = front.server.wait();
        assert!(status.success() && log.contains("drained"), "{log}");
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(load.wait().unwrap().success(), "{rest}");
    }
}
