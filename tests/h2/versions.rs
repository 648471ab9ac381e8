//! Which version a connection speaks.

use std::process::Command;

use crate::process::run;
use crate::serve::curl;
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

/// A listener that doesn't offer HTTP/2 speaks HTTP/1.1 with everybody; a reload changes that for
/// connections that begin from then on.
#[test]
fn offered_as_configured() {
    let member = Origin::start();
    let lines = |enabled: bool| format!("http2_enable = {enabled}");
    let front = Front::start(member.addr, &lines(true));
    let text = std::fs::read_to_string(&front.server.file.path).unwrap();
    let version = || curl(&front, "/", &[]);
    assert_eq!(version(), "member 2 200");
    for enabled in [false, true] {
        let (code, out, err) = front.server.reload(&text.replace(&lines(true), &lines(enabled)));
        assert_eq!(code, Some(0), "{out}{err}");
        assert_eq!(version(), if enabled { "member 2 200" } else { "member 1.1 200" });
    }
    // Without ALPN nobody has agreed on anything.
    assert_eq!(curl(&front, "/", &["--no-alpn"]), "member 1.1 200");
}
