//! nginx as members inside TLS, each with what it shows, on ports that nobody else can take.

use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use socket2::{Domain, Socket, Type};

use crate::process::until;

/// Bytes of `/page`.
pub const PAGE: usize = 1 << 20;

/// Who signs the certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own, as PEM.
    pub pem: String,
}

/// A certificate and its key, as PEM.
pub struct Shown {
    pub certificate: String,
    pub key: String,
}

fn params(name: &str, names: &[&str], until: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(name, &[], 2_100);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Valid until the end of the year before `until`.
    pub fn sign(&self, names: &[&str], until: i32) -> Shown {
        let key = KeyPair::generate().unwrap();
        let certificate = params("shown", names, until).signed_by(&key, &self.issuer).unwrap();
        Shown { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A member to be.
pub struct Member<'a> {
    pub name: &'a str,
    /// `None` = clear text.
    pub shown: Option<&'a Shown>,
    /// More lines for its server block.
    pub more: &'a str,
}

/// Running members; dropping them ends the process.
pub struct Nginx {
    child: Child,
    pub addrs: Vec<SocketAddr>,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// `/` answers the member's name, `/page` 1 MiB, `/sni` the name that it was asked for, and
    /// `/202` with that status.
    pub fn start(members: &[Member<'_>]) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let page: Vec<u8> = (0..PAGE).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect();
        std::fs::write(folder.path().join("page"), page).unwrap();
        let held: Vec<Socket> = members.iter().map(|_| hold_port()).collect();
        let address = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap();
        let addrs: Vec<SocketAddr> = held.iter().map(address).collect();
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text(folder.path(), members, &addrs)).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new("nginx");
        command.env("PATH", path).stdin(Stdio::null());
        command.arg("-c").arg(&config).arg("-p").arg(folder.path());
        let child = command.spawn().expect("nginx (see tests/packages.sh)");
        let nginx = Nginx { child, addrs, folder };
        for addr in &nginx.addrs {
            until("nginx to listen", || TcpStream::connect(addr).is_ok());
        }
        nginx
    }

    /// What `/page` answers with.
    pub fn page(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("page")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

fn hold_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

fn text(folder: &Path, members: &[Member<'_>], addrs: &[SocketAddr]) -> String {
    let at = folder.display();
    let mut text = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nclient_max_body_size 0;\nclient_body_temp_path {at}/t1;\n\
         proxy_temp_path {at}/t2;\nfastcgi_temp_path {at}/t3;\nuwsgi_temp_path {at}/t4;\n\
         scgi_temp_path {at}/t5;\n"
    );
    for (Member { name, shown, more }, addr) in members.iter().zip(addrs) {
        let mut secure = String::new();
        if let Some(shown) = shown {
            let (certificate, key) =
                (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
            std::fs::write(&certificate, &shown.certificate).unwrap();
            std::fs::write(&key, &shown.key).unwrap();
            secure = format!(
                "ssl_certificate {};\nssl_certificate_key {};\n",
                certificate.display(),
                key.display()
            );
        }
        let ssl = if shown.is_some() { "ssl " } else { "" };
        writeln!(
            text,
            "server {{\nlisten {addr} {ssl}reuseport;\n{secure}{more}\nroot {at};\n\
             location = / {{ return 200 {name}; }}\n\
             location = /sni {{ return 200 \"$ssl_server_name\"; }}\n\
             location = /202 {{ return 202 accepted; }}\n}}"
        )
        .unwrap();
    }
    text + "}\n"
}
