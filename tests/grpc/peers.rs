//! Members and clients of the gRPC library, and a configuration that stands between them.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rcgen::PKCS_ECDSA_P256_SHA256;
use weir_core::time::clock;

use crate::process::certs::{Ca, replace};
use crate::process::{LIMIT, RUN_DIR, Server, address_after, python};

/// A child with its lines of output.
pub struct Peer {
    child: Child,
    lines: Receiver<String>,
}

impl Peer {
    pub fn start(mut command: Command) -> Peer {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _test_is_over = sender.send(line);
            }
        });
        Peer { child, lines }
    }

    /// The next line of its output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap()
    }

    /// All lines until it ends, which has to be well.
    pub fn rest(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(3 * LIMIT) {
            lines.push(line);
        }
        assert!(self.child.wait().unwrap().success(), "{lines:?}");
        lines
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        let _reaped = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _it_has_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A gRPC member, called like this.
pub struct Member {
    pub peer: Peer,
    pub address: SocketAddr,
}

impl Member {
    pub fn start(name: &str, more: &[&str]) -> Member {
        let mut command = python("tests/grpc/member.py");
        command.arg(name).args(more);
        let peer = Peer::start(command);
        let port = peer.line().parse().unwrap();
        Member { peer, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

/// A pool with a listener of its own.
pub struct Pool<'a> {
    pub name: &'a str,
    /// Lines of its table.
    pub lines: &'a str,
    pub members: &'a [SocketAddr],
}

impl<'a> Pool<'a> {
    pub fn of(members: &'a [SocketAddr]) -> Pool<'a> {
        Pool { name: "app", lines: "", members }
    }
}

/// Certificates for app.example, one of them expired, and the folder where clients find the CA's.
pub struct Site {
    folder: tempfile::TempDir,
    ca: String,
    certificate: String,
    key: String,
}

impl Site {
    pub fn new() -> Site {
        let ca = Ca::new("ca");
        let leaf = ca.leaf(&["app.example"], 1);
        let yesterday = clock::wall() - Duration::from_secs(86_400);
        let expired = ca.leaf_of(&["app.example"], 2, yesterday, &PKCS_ECDSA_P256_SHA256);
        let folder = tempfile::tempdir().unwrap();
        replace(&folder.path().join("ca.pem"), &ca.pem);
        leaf.write(folder.path(), "app");
        expired.write(folder.path(), "expired");
        Site { folder, ca: ca.pem, certificate: leaf.pem, key: leaf.key }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// HTTPS listeners, each in front of one of these pools.
    pub fn file(&self, pools: &[Pool<'_>]) -> String {
        let mut text = format!(
            "[runtime]\ncores = \"auto\"\nshutdown_timeout = 20\nrun_dir = \"{RUN_DIR}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [access_log]\npath = \"{RUN_DIR}.log\"\n\
             [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n\
             [[certificate]]\nname = \"site\"\ncertificate = '''\n{}'''\n\
             private_key = '''\n{}'''\n\
             [[certificate]]\nname = \"ca\"\ntype = \"client\"\ncertificate = '''\n{}'''\n",
            self.certificate, self.key, self.ca
        );
        for Pool { name, lines, members } in pools {
            write!(
                text,
                "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\n\
                 protocol = \"HTTPS\"\nprotocol_port = 0\ndefault_certificate = \"site\"\n\
                 default_pool = \"{name}\"\nconnect_timeout = 2\n\
                 [[pool]]\nname = \"{name}\"\nprotocol = \"GRPC\"\n{lines}\n"
            )
            .unwrap();
            for address in *members {
                let (ip, port) = (address.ip(), address.port());
                writeln!(text, "[[pool.members]]\naddress = \"{ip}\"\nprotocol_port = {port}")
                    .unwrap();
            }
        }
        text
    }

    /// A server with one pool, and where its listener is.
    pub fn serve(&self, pool: Pool<'_>) -> (Server, SocketAddr) {
        let server = Server::start(&self.file(&[pool]));
        let address = address_after(&server.ready, "app https://");
        (server, address)
    }
}
