//! WebSocket on streams of HTTP/2 (RFC 8441): for members it is an Upgrade of HTTP/1.1.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use crate::Front;
use crate::process::{python, run, until};

/// The echo server of `tests/e2e`; it ends when its input does.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start() -> Echo {
        let mut command = python("tests/e2e/websocket.py");
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        // It minds connections that are broken off.
        command.stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Echo { child, address: ([127, 0, 0, 1], line.trim().parse().unwrap()).into() }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _already_reaped = self.child.wait();
    }
}

/// R6.6-1: three tunnels on one connection, frames of up to 1 MiB both ways, one broken off, one
/// closed in order; a protocol that isn't listed is refused.
#[test]
fn websocket_on_streams() {
    let echo = Echo::start();
    let front = Front::start(echo.address, "");
    let port = front.addr.port().to_string();
    let (code, out, err) = run(python("tests/h2/websocket.py").arg(port));
    assert_eq!((code, out.trim()), (Some(0), "all well"), "{err}");
    until("the end of all tunnels", || front.server.sum("weir_active_tunnels") == 0.0);
}
