//! Which version a connection speaks.

use std::process::Command;

use crate::process::run;
use crate::{Front, Origin};

/// A client that doesn't know HTTP/2 is served as before.
#[test]
fn http1_is_served_beside_it() {
    let member = Origin::start();
    let front = Front::start(member.addr, "");
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--noproxy", "*", "--max-time", "20", "--http1.1", "-w", " %{http_version}"]);
    let (_, out, err) = run(curl.arg(format!("https://{}/", front.addr)));
    assert_eq!(out, "member 1.1", "{err}");
}
