//! TCP and UDP side by side, end to end: reloads under the load of both, floods that leave nothing
//! behind, members that see the clients' own addresses; in network namespaces where needed. What is
//! of one of them alone is in `tests/tcp` and `tests/udp.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../process/mod.rs"]
mod process;

mod asked;
mod deleted;
mod echo;
mod floods;
mod gauges;
mod idle;
mod limits;
mod namespaces;
mod reloads;
mod transparent;
mod weights;

use std::net::SocketAddr;

use process::RUN_DIR;

/// A listener each for TCP (`web`) and UDP (`dns`) on ports of the kernel's choice, with pools of
/// their own over these members.
pub fn plan(listener: &str, pool: &str, members: &[(SocketAddr, u8)], more: &str) -> String {
    let mut text = format!(
        "[runtime]\nshutdown_timeout = 1\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n{more}\n"
    );
    for (name, protocol) in [("web", "TCP"), ("dns", "UDP")] {
        text += &format!(
            "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"{protocol}\"\n\
             protocol_port = 0\ndefault_pool = \"{name}\"\n{listener}\n\
             [[pool]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\n{pool}\n"
        );
        for (addr, weight) in members {
            text += &format!(
                "[[pool.members]]\naddress = \"{}\"\nprotocol_port = {}\nweight = {weight}\n",
                addr.ip(),
                addr.port()
            );
        }
    }
    text
}
