//! Debian's nginx as members: one process, one server block a name, on ports that are held from the
//! start by sockets that share them (SO_REUSEPORT) and never listen, so that no port is guessed.

use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use crate::process::until;

/// Bytes of what `/page` answers with.
pub const PAGE: usize = 64 << 10;

/// Running members; dropping them ends the process.
pub struct Nginx {
    child: Child,
    folder: tempfile::TempDir,
    pub addrs: Vec<SocketAddr>,
}

impl Nginx {
    /// One member a name. `/` answers the name, `/page` 64 KiB; each request is a line in the
    /// member's log.
    pub fn start(names: &[&str]) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("page"), vec![b'p'; PAGE]).unwrap();
        std::fs::create_dir(folder.path().join("files")).unwrap();
        let held: Vec<Socket> = names.iter().map(|_| hold_port()).collect();
        let address = |s: &Socket| s.local_addr().unwrap().as_socket().unwrap();
        let addrs: Vec<SocketAddr> = held.iter().map(address).collect();
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text(folder.path(), names, &addrs)).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new("nginx");
        command.env("PATH", path).stdin(Stdio::null());
        command.arg("-c").arg(&config).arg("-p").arg(folder.path());
        let child = command.spawn().expect("nginx (see tests/packages.sh)");
        let nginx = Nginx { child, folder, addrs };
        for addr in &nginx.addrs {
            until("nginx to listen", || TcpStream::connect(addr).is_ok());
        }
        nginx
    }

    /// The folder of what stands under `/files/`.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Requests that the member of this name has answered, by its log.
    pub fn requests(&self, name: &str) -> usize {
        let log = std::fs::read_to_string(log(self.folder.path(), name)).unwrap_or_default();
        log.lines().count()
    }

    /// What it complained about.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

/// A socket on a free port that others may share and nobody else can take.
pub fn hold_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

fn log(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

fn text(folder: &Path, names: &[&str], addrs: &[SocketAddr]) -> String {
    let at = folder.display();
    let mut text = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
         worker_rlimit_nofile 16384;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\nlog_format line '$status';\nclient_body_temp_path {at}/t1;\n\
         proxy_temp_path {at}/t2;\nfastcgi_temp_path {at}/t3;\nuwsgi_temp_path {at}/t4;\n\
         scgi_temp_path {at}/t5;\n"
    );
    for (name, addr) in names.iter().zip(addrs) {
        let log = log(folder, name);
        writeln!(
            text,
            "server {{ listen {addr} reuseport; access_log {} line;\n\
             location / {{ return 200 '{name}'; }}\nlocation = /page {{ root {at}; }}\n\
             location /files/ {{ root {at}; sendfile on; }} }}",
            log.display()
        )
        .unwrap();
    }
    text + "}\n"
}
