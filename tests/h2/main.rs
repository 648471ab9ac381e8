//! HTTP/2 on HTTPS listeners, through the program: what clients of others see, those that
//! behave and those that don't. `cases_*.py` hold the cases that the protocol's documents demand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod backlog;
mod conformance;
mod drain;
mod floods;
mod pressure;
#[path = "../process/mod.rs"]
mod process;
mod serve;
mod streams;
mod tunnels;
mod versions;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use process::certs::Ca;
use process::{Server, address_after, config, python};

/// The member that `member.py` is; it ends with this.
pub struct Origin {
    child: Child,
    pub addr: SocketAddr,
}

impl Origin {
    pub fn start() -> Origin {
        let mut command = python("tests/h2/member.py");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let addr = ([127, 0, 0, 1], port.trim().parse().unwrap()).into();
        Origin { child, addr }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _already_reaped = self.child.wait();
    }
}

/// A server with the HTTPS listener `secure` beside the plain one of `config`.
pub struct Front {
    pub server: Server,
    pub addr: SocketAddr,
}

impl Front {
    /// In front of this member; `lines` are the listener's.
    pub fn start(member: SocketAddr, lines: &str) -> Front {
        let server = Server::start(&Front::text(member, lines));
        let addr = address_after(&server.ready, "secure https://");
        Front { server, addr }
    }

    /// Its configuration.
    pub fn text(member: SocketAddr, lines: &str) -> String {
        let leaf = Ca::new("Test CA").leaf(&["site.example"], 1);
        config("[0, 1]", 5, 0, &[(member, 1)])
            + &format!(
                "[[listener]]\nname = \"secure\"\nloadbalancer = \"front\"\nprotocol = \"HTTPS\"\n\
                 protocol_port = 0\ndefault_pool = \"app\"\n\
                 default_certificate = \"site\"\n{lines}\n\
                 [[certificate]]\nname = \"site\"\ncertificate = '''\n{}'''\n\
                 private_key = '''\n{}'''\n",
                leaf.pem, leaf.key
            )
    }
}
