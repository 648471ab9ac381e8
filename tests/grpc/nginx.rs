//! nginx as a member that speaks HTTP/2 in clear text, with prior knowledge, and goes away again
//! and again.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use crate::peers::{Pool, Site};
use crate::process::{count, run, until};

/// A running nginx; dropping it ends it.
struct Nginx {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
    _port: Socket,
}

impl Nginx {
    /// `/` answers "small", `/page` 1 MiB; a connection carries so many requests.
    fn start(requests: usize) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let page: Vec<u8> = (0..1u32 << 20).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect();
        std::fs::write(folder.path().join("page"), page).unwrap();
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        port.set_reuse_port(true).unwrap();
        port.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let at = folder.path().display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\naccess_log off;\nclient_body_temp_path {at}/t1;\nproxy_temp_path {at}/t2;\n\
             fastcgi_temp_path {at}/t3;\nuwsgi_temp_path {at}/t4;\nscgi_temp_path {at}/t5;\n\
             server {{\nlisten {address} http2 reuseport;\nkeepalive_requests {requests};\n\
             root {at};\nlocation = / {{ return 200 small; }}\n\
             location = /host {{ return 200 $http_x_one,$host,$server_protocol; }}\n}}\n}}\n"
        );
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new("nginx");
        command.env("PATH", path).stdin(Stdio::null()).stderr(Stdio::null());
        command.arg("-c").arg(&config).arg("-p").arg(folder.path());
        let child = command.spawn().expect("nginx (see tests/packages.sh)");
        let nginx = Nginx { child, address, folder, _port: port };
        until("nginx to listen", || TcpStream::connect(nginx.address).is_ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

/// Answers of every shape come through, and not a request is lost when the member goes away every
/// few requests (GOAWAY).
#[test]
fn nginx_goes_away_and_comes_back() {
    let nginx = Nginx::start(20);
    let site = Site::new();
    let members = [nginx.address];
    let (server, address) = site.serve(Pool::of(&members));
    let curl = |path: &str, more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sk", "--noproxy", "*", "--max-time", "30", "-w", " %{http_code}"]);
        command.args(more).arg(format!("https://{address}{path}"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(curl("/", &[]), "small 200");
    let host = format!("1,{},HTTP/2.0 200", address.ip());
    assert_eq!(curl("/host", &["-H", "X-One: 1"]), host);
    assert!(curl("/missing", &[]).ends_with(" 404"));
    let head = curl("/page", &["-I"]);
    assert!(head.contains("content-length: 1048576\r\n") && head.ends_with(" 200"), "{head}");
    let to = site.path("page");
    assert_eq!(curl("/page", &["-o", to.to_str().unwrap()]), " 200");
    let page = std::fs::read(nginx.folder.path().join("page")).unwrap();
    assert!(std::fs::read(&to).unwrap() == page, "another page");
    let range = curl("/page", &["-r", "0-99", "-o", to.to_str().unwrap()]);
    assert_eq!((range.as_str(), std::fs::read(&to).unwrap().len()), (" 206", 100));

    let requests = count(2_000, 50_000);
    let mut load = Command::new("h2load");
    load.args(["-n", &requests.to_string(), "-c", "10", "-m", "10"]);
    let (_, out, err) = run(load.arg(format!("https://{address}/")));
    let wanted = format!("{requests} succeeded, 0 failed, 0 errored");
    assert!(out.contains(&wanted) && out.contains(&format!("{requests} 2xx")), "{out}{err}");
    assert!(server.sum("weir_member_connections_total") > requests as f64 / 30.0);
}
