//! Members that behave badly, one habit each: what clients see of it, what the log says, and that
//! nothing piles up, neither descriptors nor buffers, tasks or connections. docs/reliability.md has
//! the same as a table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod http;
mod layer4;
#[path = "../process/mod.rs"]
mod process;
mod secured;

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use process::{RUN_DIR, Server, address_after, until};

/// A file of listeners, each in front of a pool of its own name.
struct Plan(String);

impl Plan {
    /// All of them log, and wait for members as long as `wait` says.
    fn new() -> Plan {
        Plan(format!(
            "[runtime]\ncores = [0]\nshutdown_timeout = 5\nrun_dir = \"{RUN_DIR}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [access_log]\npath = \"{RUN_DIR}.log\"\nformat = \"json\"\n\
             [connection_log]\npath = \"{RUN_DIR}.log\"\n\
             [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n"
        ))
    }

    /// A listener with a pool of these protocols, whose first member is tried first.
    fn pair(
        &mut self,
        name: &str,
        [listener, pool]: [&str; 2],
        [lines, pool_lines]: [&str; 2],
        members: &[SocketAddr],
    ) {
        write!(
            self.0,
            "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"{listener}\"\n\
             protocol_port = 0\ndefault_pool = \"{name}\"\n{lines}\n\
             [[pool]]\nname = \"{name}\"\nprotocol = \"{pool}\"\n{pool_lines}\n"
        )
        .unwrap();
        for address in members {
            let (ip, port) = (address.ip(), address.port());
            writeln!(self.0, "[[pool.members]]\naddress = \"{ip}\"\nprotocol_port = {port}")
                .unwrap();
        }
    }

    fn start(&self) -> Server {
        Server::start(&self.0)
    }
}

/// Where a listener is.
fn address(server: &Server, name: &str, scheme: &str) -> SocketAddr {
    address_after(&server.ready, &format!("{name} {scheme}://"))
}

/// What the log says of this listener, once it has `n` lines, and no more than those.
fn lines(server: &Server, listener: &str, n: usize) -> Vec<Value> {
    let path = server.file.run_dir().with_extension("log");
    let read = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole).to_owned();
        let lines = whole.lines().map(|line| serde_json::from_str(line).expect(line));
        lines.filter(|line: &Value| line["listener_usr_name"] == listener).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    until(&format!("{n} lines of {listener}"), || {
        found = read();
        found.len() >= n
    });
    assert_eq!(found.len(), n, "{found:?}");
    found
}
