//! What a host has a limited number of: its own addresses towards members, ports, descriptors, room
//! for logs; and what health checks say of members behind a network that drops, refuses or delays.
//! In network namespaces where needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[allow(dead_code, reason = "made for tests/flows, of which these need a part")]
#[path = "../flows/namespaces.rs"]
mod namespaces;
#[path = "../process/mod.rs"]
mod process;

mod reasons;
mod shortage;
mod sources;
mod witness;

use std::net::SocketAddr;

use process::RUN_DIR;

/// Before the balancers.
pub fn head(runtime: &str) -> String {
    format!(
        "[runtime]\nshutdown_timeout = 1\nrun_dir = \"{RUN_DIR}\"\n{runtime}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n"
    )
}

pub fn balancer(name: &str, lines: &str) -> String {
    format!("[[loadbalancer]]\nname = \"{name}\"\n{lines}\n")
}

/// A listener on a free port, with a pool of its own over these members; `lines` are the pool's.
pub fn listener(
    balancer: &str,
    name: &str,
    protocol: &str,
    members: &[SocketAddr],
    lines: &str,
) -> String {
    let mut text = format!(
        "[[listener]]\nname = \"{name}\"\nloadbalancer = \"{balancer}\"\nprotocol = \
         \"{protocol}\"\nprotocol_port = 0\ndefault_pool = \"{name}\"\n\
         [[pool]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\n{lines}\n"
    );
    for member in members {
        let (ip, port) = (member.ip(), member.port());
        text += &format!("[[pool.members]]\naddress = \"{ip}\"\nprotocol_port = {port}\n");
    }
    text
}

/// A check every second.
pub fn check(kind: &str) -> String {
    format!(
        "healthmonitor = {{ type = \"{kind}\", delay = 1, timeout = 1, max_retries = 1, \
         max_retries_down = 1 }}"
    )
}
