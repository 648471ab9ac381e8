//! Full-chain HTTPS through the program: curl in front, nginx inside TLS behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod nginx;
#[path = "../process/mod.rs"]
mod process;

use std::net::SocketAddr;
use std::process::Command;

use nginx::{Authority, Member, Nginx, Shown};
use process::{RUN_DIR, Server, address_after, until};

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

/// What curl gets for `https://app.example:PORT{path}`: the status and the body.
fn curl(address: SocketAddr, path: &str, more: &[&str]) -> (String, Vec<u8>) {
    let port = address.port();
    let out = Command::new("curl")
        .args(["-sk", "--noproxy", "*", "--max-time", "20", "-w", "\n%{http_code}"])
        .args(["--resolve", &format!("app.example:{port}:{}", address.ip())])
        .args(more)
        .arg(format!("https://app.example:{port}{path}"))
        .output()
        .unwrap();
    let at = out.stdout.iter().rposition(|&byte| byte == b'\n').unwrap();
    (String::from_utf8(out.stdout[at + 1..].to_vec()).unwrap(), out.stdout[..at].to_vec())
}

fn start(text: &str) -> (Server, SocketAddr) {
    let server = Server::start(text);
    let web = address_after(&server.ready, "web https://");
    (server, web)
}

fn log(server: &Server) -> String {
    let path = server.file.run_dir().with_extension("log");
    std::fs::read_to_string(path).unwrap_or_default()
}

fn secure<'a>(name: &'a str, shown: &'a Shown, more: &'a str) -> Member<'a> {
    Member { name, shown: Some(shown), more }
}

/// R3.14-1, R10.1-1, R12.3-7: HTTPS in front and behind, of members that show whatever they have,
/// by either version of TLS, with bodies of 1 MiB; sessions are kept.
#[test]
fn full_chain_https() {
    let ca = Authority::new("ca");
    let shown = ca.sign(&["app.example"], 2_100);
    let expired = ca.sign(&["old.example"], 2_020);
    let nginx =
        Nginx::start(&[secure("a", &shown, ""), secure("b", &expired, "ssl_protocols TLSv1.2;")]);
    let (server, web) = start(&file("HTTPS", "", &nginx.addrs, &shown, &ca));
    let mut names: Vec<_> = (0..4).map(|_| curl(web, "/", &[]).1).collect();
    names.sort();
    assert_eq!(names, [b"a", b"a", b"b", b"b"]);
    for _ in 0..2 {
        assert_eq!(curl(web, "/sni", &[]), ("200".into(), b"app.example".to_vec()));
        let (status, page) = curl(web, "/page", &[]);
        assert!(status == "200" && page == nginx.page(), "{status}, {} bytes", page.len());
    }
    assert!(server.sum("weir_member_tls_handshakes_total") >= 2.0);
    assert_eq!(server.sum("weir_member_tls_handshake_failures_total"), 0.0);
}

/// R10.1-4: with a CA, and a name of the pool's own, only what is right is spoken to; the log says
/// what was wrong. A reload that turns verification on holds for the next request.
#[test]
fn members_are_verified() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let front = ca.sign(&["app.example"], 2_100);
    let (good, expired) = (ca.sign(&["m.example"], 2_100), ca.sign(&["m.example"], 2_020));
    let (foreign, named) = (other.sign(&["m.example"], 2_100), ca.sign(&["n.example"], 2_100));
    let nginx = Nginx::start(&[
        secure("good", &good, ""),
        secure("expired", &expired, ""),
        secure("foreign", &foreign, ""),
        secure("named", &named, ""),
    ]);
    let tls = "tls = { verify = true, ca = \"ca\", server_name = \"m.example\" }";
    let one = |at: usize, tls: &str| file("HTTPS", tls, &nginx.addrs[at..=at], &front, &ca);
    let (server, web) = start(&one(0, tls));
    assert_eq!(curl(web, "/sni", &[]), ("200".into(), b"m.example".to_vec()));
    for (at, reason) in [
        (1, "member's_certificate_has_expired"),
        (2, "member's_certificate_is_of_an_unknown_issuer"),
        (3, "member's_certificate_is_for_another_name"),
    ] {
        let (code, _, err) = server.reload(&one(at, ""));
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(curl(web, "/", &[]).0, "200", "anybody will do");
        let (code, out, err) = server.reload(&one(at, tls));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("tls changed"), "{out}");
        assert_eq!(curl(web, "/", &[]).0, "502", "{reason}");
        until(reason, || log(&server).contains(reason));
    }
    let all = file("HTTPS", tls, &nginx.addrs, &front, &ca);
    assert_eq!(server.reload(&all).0, Some(0));
    // At most three members are asked.
    let good = (0..8).filter(|_| curl(web, "/", &[]).1 == b"good").count();
    assert!(good >= 4, "{good} of 8 found the one that is right");
}

/// R3.14-1, R10.1-2, R12.3-6: who speaks clear text where TLS is due fails, and so does TLS where
/// clear text is due.
#[test]
fn members_must_speak_what_the_pool_says() {
    let ca = Authority::new("ca");
    let shown = ca.sign(&["app.example"], 2_100);
    let plain = Member { name: "plain", shown: None, more: "" };
    let nginx = Nginx::start(&[plain, secure("tls", &shown, "")]);
    let one = |protocol, at: usize| file(protocol, "", &nginx.addrs[at..=at], &shown, &ca);
    let (server, web) = start(&one("HTTPS", 0));
    assert_eq!(curl(web, "/", &[]).0, "502");
    let reason = "member_speaks_clear_text_where_TLS_is_due";
    until(reason, || log(&server).contains(reason));
    let (_server, web) = start(&one("HTTP", 0));
    assert_eq!(curl(web, "/", &[]), ("200".into(), b"plain".to_vec()));
    let (_server, web) = start(&one("HTTP", 1));
    assert_eq!(curl(web, "/", &[]).0, "400", "nginx: plain HTTP was sent to an HTTPS port");
    let both = file("HTTPS", "", &nginx.addrs, &shown, &ca);
    let (server, web) = start(&both);
    for _ in 0..4 {
        // nginx answers without having read the body, which ends a stream of HTTP/2 by RST_STREAM
        // (NO_ERROR) where it is late; curl 7.88 takes that for a failure.
        let got = curl(web, "/", &["--http1.1", "-d", "x"]);
        assert_eq!(got, ("200".into(), b"tls".to_vec()));
    }
    assert!(server.sum("weir_member_retries_total") >= 1.0);
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
    let (mut server, _) = start(&one(1, &check("/", "")));
    assert_eq!(up(&server), 1.0);
    assert_eq!(server.reload(&one(1, &check("/202", ""))).0, Some(0));
    let line = server.line_with("is down");
    assert!(
        line.contains("RESPONSE_MISMATCH (unexpected_status: expected 200, got 202)"),
        "{line}"
    );
    let (server, _) = start(&one(2, &check("/", "")));
    assert_eq!(up(&server), 1.0, "nobody verifies");
    let verify = "\ntls = { verify = true, ca = \"ca\" }";
    let (mut server, _) = start(&one(2, &(check("/", "app.example") + verify)));
    let line = server.log.iter().find(|line| line.contains("its first check failed")).cloned();
    let line = line.unwrap_or_else(|| server.line_with("its first check failed"));
    assert!(line.contains("SSL_HANDSHAKE_ERROR (certificate_expired)"), "{line}");
    assert_eq!(up(&server), 0.0);
    let (server, _) = start(&one(1, &(check("/", "app.example") + verify)));
    assert_eq!(up(&server), 1.0);
    let (server, _) = start(&one(1, &(check("/", "other.example") + verify)));
    assert_eq!(up(&server), 0.0);
    let port = format!("monitor_port = {} }}", nginx.addrs[1].port());
    let other = check("/", "").replace(" }", &format!(", {port}"));
    let (server, _) = start(&file("HTTP", &other, &nginx.addrs[..1], &shown, &ca));
    assert_eq!(up(&server), 1.0);
    let (server, _) = start(&file("HTTP", &check("/", ""), &nginx.addrs[..1], &shown, &ca));
    assert_eq!(up(&server), 0.0);
    let reason = "reason=\"SSL_HANDSHAKE_ERROR\",cause=\"plain_http\"";
    assert!(server.metrics().contains(reason), "{}", server.metrics());
}
