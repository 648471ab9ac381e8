//! Members inside TLS through the program: nginx behind, asked by health checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod nginx;
#[path = "../process/mod.rs"]
mod process;

use nginx::{Authority, Member, Nginx, Shown};
use process::{RUN_DIR, Server};
use std::net::SocketAddr;

/// An HTTPS listener in front of a pool of protocol `protocol`, whose `tls` and check say this.
fn file(
    protocol: &str,
    more: &str,
    members: &[SocketAddr],
    front: &Shown,
    ca: &Authority,
) -> String {
    let mut text = format!(
        "[runtime]\ncores = [0]\nshutdown_timeout = 5\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [access_log]\npath = \"{RUN_DIR}.log\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n\
         [[listener]]\nname = \"web\"\nloadbalancer = \"front\"\nprotocol = \"HTTPS\"\n\
         protocol_port = 0\ndefault_pool = \"app\"\ndefault_certificate = \"front\"\n\
         connect_timeout = 2\n\
         [[certificate]]\nname = \"front\"\ncertificate = '''\n{}'''\nprivate_key = '''\n{}'''\n\
         [[certificate]]\nname = \"ca\"\ntype = \"client\"\ncertificate = '''\n{}'''\n\
         [[pool]]\nname = \"app\"\nprotocol = \"{protocol}\"\n{more}\n",
        front.certificate, front.key, ca.pem
    );
    for address in members {
        text += &format!(
            "[[pool.members]]\naddress = \"{}\"\nprotocol_port = {}\n",
            address.ip(),
            address.port()
        );
    }
    text
}

fn secure<'a>(name: &'a str, shown: &'a Shown, more: &'a str) -> Member<'a> {
    Member { name, shown: Some(shown), more }
}

/// R8.9-1, R8.1-23, R8.9-4: HTTPS checks, of HTTP pools too: 200 is well, 202 is not, and neither
/// is a handshake that fails, which the log names.
#[test]
fn members_are_checked_inside_tls() {
    let ca = Authority::new("ca");
    let shown = ca.sign(&["app.example"], 2_100);
    let expired = ca.sign(&["app.example"], 2_020);
    let plain = Member { name: "plain", shown: None, more: "" };
    let nginx = Nginx::start(&[plain, secure("good", &shown, ""), secure("expired", &expired, "")]);
    let check = |path: &str, host: &str| {
        format!(
            "healthmonitor = {{ type = \"HTTPS\", delay = 1, timeout = 1, max_retries = 1, \
             max_retries_down = 1, url_path = \"{path}\", domain_name = \"{host}\" }}"
        )
    };
    let up = |server: &Server| server.sum("weir_member_up");
    let one = |at: usize, more: &str| file("HTTPS", more, &nginx.addrs[at..=at], &shown, &ca);
    let mut server = Server::start(&one(1, &check("/", "")));
    assert_eq!(up(&server), 1.0);
    assert_eq!(server.reload(&one(1, &check("/202", ""))).0, Some(0));
    let line = server.line_with("is down");
    assert!(line.contains("unexpected_status (expected 200, got 202)"), "{line}");
    let server = Server::start(&one(2, &check("/", "")));
    assert_eq!(up(&server), 1.0, "nobody verifies");
    let verify = "\ntls = { verify = true, ca = \"ca\" }";
    let mut server = Server::start(&one(2, &(check("/", "app.example") + verify)));
    let line = server.log.iter().find(|line| line.contains("its first check failed")).cloned();
    let line = line.unwrap_or_else(|| server.line_with("its first check failed"));
    assert!(line.contains("ssl_handshake_error (certificate_expired)"), "{line}");
    assert_eq!(up(&server), 0.0);
    let server = Server::start(&one(1, &(check("/", "app.example") + verify)));
    assert_eq!(up(&server), 1.0);
    let server = Server::start(&one(1, &(check("/", "other.example") + verify)));
    assert_eq!(up(&server), 0.0);
    let port = format!("monitor_port = {} }}", nginx.addrs[1].port());
    let other = check("/", "").replace(" }", &format!(", {port}"));
    let server = Server::start(&file("HTTP", &other, &nginx.addrs[..1], &shown, &ca));
    assert_eq!(up(&server), 1.0);
    let server = Server::start(&file("HTTP", &check("/", ""), &nginx.addrs[..1], &shown, &ca));
    assert_eq!(up(&server), 0.0);
}
