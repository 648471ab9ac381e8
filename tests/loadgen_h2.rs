//! The load generator speaking HTTP/2: to Weir, nginx and HAProxy inside TLS and with prior
//! knowledge, and to targets that don't speak it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use process::certs::{Ca, replace};
use process::{Server, address_after, config, count, until};
use socket2::{Domain, Socket, Type};
use weir_loadgen::{
    Delay, ErrorClass, Length, Live, OriginSpec, OriginTls, Origins, Plan, Report, Reuse, RunError,
    Target, run as load, run_with,
};

/// A CA, and a certificate for 127.0.0.1 in files.
struct Place {
    folder: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("CA of HTTP/2");
        replace(&folder.path().join("ca.pem"), &ca.pem);
        let [certificate, key] = ca.leaf(&["127.0.0.1"], 7).write(folder.path(), "site");
        Place { folder, certificate, key }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// So many requests over two connections of so many streams.
    fn plan(&self, url: &str, streams: usize, requests: u64) -> Plan {
        let mut plan = Plan::new(Target::parse(url).unwrap());
        (plan.connections, plan.http2, plan.streams) = (2, true, streams);
        plan.length = Length::Requests(requests);
        plan.warmup = Duration::ZERO;
        plan.tls.ca = Some(self.path().join("ca.pem"));
        plan
    }
}

fn members(body: u64) -> Origins {
    let spec = OriginSpec { body_size: body, ..OriginSpec::new("a") };
    Origins::start(None, vec![spec]).unwrap()
}

fn good(report: &Report, requests: u64) {
    assert_eq!(report.errors.total, 0, "{:?}", report.error_causes);
    assert_eq!((report.requests, report.answers), (requests, requests));
    let all = report.latency;
    for phase in [all.sent, all.first_byte, all.body, all.total] {
        assert_eq!(phase.unwrap().count, requests);
    }
}

/// Weir with an HTTPS listener in front of `origins`.
fn weir(place: &Place, origins: &Origins, lines: &str) -> (Server, SocketAddr) {
    weir_of(place, origins, &format!("default_pool = \"app\"\n{lines}"), "")
}

/// The same with more lines of the listener, which name its pool, and more tables.
fn weir_of(place: &Place, origins: &Origins, lines: &str, tables: &str) -> (Server, SocketAddr) {
    let text = config("[0]", 5, 0, &[(origins.addrs()[0], 1)])
        + &format!(
            "[[listener]]\nname = \"secure\"\nloadbalancer = \"front\"\nprotocol = \"HTTPS\"\n\
             protocol_port = 0\ndefault_certificate = \"site\"\n{lines}\n{tables}\n\
             [[certificate]]\nname = \"site\"\ncertificate = {:?}\nprivate_key = {:?}\n",
            place.certificate, place.key
        );
    let server = Server::start(&text);
    let addr = address_after(&server.ready, "secure https://");
    (server, addr)
}

#[test]
fn through_weir() {
    let (place, origins) = (Place::new(), members(128));
    let (_server, addr) = weir(&place, &origins, "");
    let requests = count(2_000, 100_000);
    let mut plan = place.plan(&format!("https://{addr}/x?y"), 10, requests);
    plan.headers = vec![("X-Of-Ours".into(), "1".into()), ("Host".into(), "app.example".into())];
    let report = load(&plan).unwrap();
    good(&report, requests);
    assert_eq!((report.connections_opened, report.streams), (2, Some(10)));
    assert_eq!(report.latency.tls.unwrap().count, 2);
    assert_eq!(report.members[0].answers, requests);
    assert!(report.to_text().contains("HTTP/2 with 10 streams each"), "{}", report.to_text());
}

/// Bodies far beyond the windows, both ways, and a text that is looked for in each of them.
#[test]
fn large_bodies_both_ways() {
    let (place, origins) = (Place::new(), members(3 << 20));
    let (_server, addr) = weir(&place, &origins, "");
    let mut plan = place.plan(&format!("https://{addr}/"), 4, 24);
    plan.body = vec![b'x'; 500_000];
    plan.timeout = Duration::from_secs(30);
    let report = load(&plan).unwrap();
    good(&report, 24);
    assert!(report.bytes.received > 24 * (3 << 20), "{:?}", report.bytes);
    assert!(report.bytes.sent > 24 * 500_000, "{:?}", report.bytes);
    plan.expect.contains = Some(weir_loadgen::search::Needle::new(b"not in it"));
    plan.length = Length::Requests(4);
    assert_eq!(load(&plan).unwrap().errors.check, 4);
}

/// A pool of protocol GRPC asks its members in HTTP/2 whatever the request is, and loadgen's own
/// can be among them, in clear text and inside TLS.
#[test]
fn through_weir_to_members_that_speak_it() {
    let place = Place::new();
    let (certificate, private_key) = (place.certificate.clone(), place.key.clone());
    let tls = OriginTls { certificate, private_key };
    for (tls, lines) in [(None, ""), (Some(tls), "tls = { verify = false }")] {
        let spec = OriginSpec { tls, http2: true, body_size: 100_000, ..OriginSpec::new("a") };
        let origins = Origins::start(None, vec![spec]).unwrap();
        let (ip, port) = (origins.addrs()[0].ip(), origins.addrs()[0].port());
        let pool = format!(
            "[[pool]]\nname = \"streams\"\nprotocol = \"GRPC\"\n{lines}\n\
             [[pool.members]]\naddress = \"{ip}\"\nprotocol_port = {port}"
        );
        let (_server, addr) = weir_of(&place, &origins, "default_pool = \"streams\"", &pool);
        let mut plan = place.plan(&format!("https://{addr}/"), 10, 200);
        plan.body = vec![b'x'; 50_000];
        good(&load(&plan).unwrap(), 200);
        assert_eq!(origins.requests(0), 200);
        assert!(origins.connections(0) <= 2, "few carry all: {}", origins.connections(0));
    }
}

/// A constant rate, warm-up, connections of so many requests, ids and cookies.
#[test]
fn the_ways_of_a_run() {
    let (place, origins) = (Place::new(), members(64));
    let (_server, addr) = weir(&place, &origins, "");
    let url = format!("https://{addr}/");
    let mut plan = place.plan(&url, 5, 1);
    plan.rate = Some(400);
    plan.length = Length::Duration(Duration::from_secs(2));
    plan.warmup = Duration::from_millis(200);
    let report = load(&plan).unwrap();
    assert_eq!((report.requests, report.errors.total), (800, 0), "{:?}", report.error_causes);
    assert!(report.latency.lateness.is_some() && report.latency.service.is_some());
    let mut plan = place.plan(&url, 3, 100);
    (plan.reuse, plan.ids) = (Reuse::Requests(10), true);
    let report = load(&plan).unwrap();
    good(&report, 100);
    assert!((10..=12).contains(&report.connections_opened), "{}", report.connections_opened);
    let mut plan = place.plan(&url, 1, 50);
    plan.sticky = true;
    let report = load(&plan).unwrap();
    good(&report, 50);
    assert_eq!(report.stickiness_violations, 0);
}

/// A target that is stopped while it works: what it has not looked at is not lost.
#[test]
fn a_drain_loses_nothing() {
    let spec = OriginSpec { delay: Delay::parse("5ms").unwrap(), ..OriginSpec::new("a") };
    let origins = Origins::start(None, vec![spec]).unwrap();
    let place = Place::new();
    let (server, addr) = weir(&place, &origins, "");
    let mut plan = place.plan(&format!("https://{addr}/"), 8, 1);
    plan.length = Length::Duration(Duration::from_secs(60));
    let live = Live::new(&plan);
    let watched = std::sync::Arc::clone(&live);
    let runner = std::thread::spawn(move || run_with(&plan, &watched, &mut |_| {}));
    until("answers", || live.snapshot().answers > 50);
    server.signal("TERM");
    until("the end of the target", || live.snapshot().errors_of(ErrorClass::Connect) > 0);
    live.stop();
    let report = runner.join().unwrap().unwrap();
    let lost = report.errors.total - report.errors.connect;
    assert_eq!(lost, 0, "{:?} {:?}", report.errors, report.error_causes);
    assert!(report.error_causes.contains_key("connect"), "{:?}", report.error_causes);
}

/// Another program with its configuration; ended when dropped.
struct Peer {
    child: Child,
    addr: SocketAddr,
    plain: SocketAddr,
    _held: [Socket; 2],
}

impl Peer {
    /// `text` makes a configuration of two addresses: inside TLS, and not.
    fn start(
        place: &Place,
        program: &str,
        args: &[&str],
        text: impl Fn(SocketAddr, SocketAddr) -> String,
    ) -> Peer {
        let held = [hold_port(), hold_port()];
        let [addr, plain] =
            [&held[0], &held[1]].map(|socket| socket.local_addr().unwrap().as_socket().unwrap());
        let file = place.path().join(program);
        std::fs::write(&file, text(addr, plain)).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new(program);
        command.env("PATH", path).args(args).arg(&file).stdin(Stdio::null());
        let log = std::fs::File::create(place.path().join("messages")).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let peer = Peer { child, addr, plain, _held: held };
        until(program, || [addr, plain].iter().all(|addr| TcpStream::connect(addr).is_ok()));
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

/// A socket on a free port that others may share and nobody else can take.
fn hold_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

/// Runs both ways against `peer`, with and without a body.
fn both_ways(place: &Place, peer: &Peer, requests: u64) {
    for url in [format!("https://{}/", peer.addr), format!("http://{}/", peer.plain)] {
        let mut plan = place.plan(&url, 8, requests);
        good(&load(&plan).unwrap(), requests);
        plan.body = vec![b'b'; 200_000];
        plan.length = Length::Requests(20);
        good(&load(&plan).unwrap(), 20);
    }
}

#[test]
fn nginx_as_the_target() {
    let (place, origins) = (Place::new(), members(20_000));
    let at = place.path().display();
    let (certificate, key) = (place.certificate.display(), place.key.display());
    let member = origins.addrs()[0];
    // A connection carries few requests, so that it leaves again and again while others wait.
    let peer = Peer::start(&place, "nginx", &["-p", &at.to_string(), "-c"], |addr, plain| {
        format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n\
             client_body_temp_path {at}/b;\nproxy_temp_path {at}/p;\nfastcgi_temp_path {at}/f;\n\
             uwsgi_temp_path {at}/u;\nscgi_temp_path {at}/s;\n\
             keepalive_requests 50;\nserver {{\nlisten {addr} ssl http2 reuseport;\n\
             listen {plain} http2 reuseport;\n\
             ssl_certificate {certificate};\nssl_certificate_key {key};\n\
             location / {{ proxy_pass http://{member}; }}\n}}\n}}\n"
        )
    });
    both_ways(&place, &peer, count(1_000, 20_000));
}

#[test]
fn haproxy_as_the_target() {
    let (place, origins) = (Place::new(), members(20_000));
    let both = place.path().join("both.pem");
    let text = [&place.certificate, &place.key].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&both, text.concat()).unwrap();
    let member = origins.addrs()[0];
    let peer = Peer::start(&place, "haproxy", &["-db", "-f"], |addr, plain| {
        format!(
            "defaults\nmode http\ntimeout client 30s\ntimeout server 30s\ntimeout connect 5s\n\
             frontend f\nbind {addr} ssl crt {} alpn h2,http/1.1\nbind {plain} proto h2\n\
             default_backend b\nbackend b\nserver s {member}\n",
            both.display()
        )
    });
    both_ways(&place, &peer, count(1_000, 20_000));
}

/// Whoever doesn't speak HTTP/2 is told from one that is broken.
#[test]
fn targets_that_do_not_speak_it() {
    let (place, origins) = (Place::new(), members(64));
    let (server, addr) = weir(&place, &origins, "http2_enable = false");
    let cause = |url: String| match load(&place.plan(&url, 1, 10)) {
        Err(RunError::NoAnswer { cause, .. }) => cause,
        other => panic!("{other:?}"),
    };
    let agreed = cause(format!("https://{addr}/"));
    assert!(agreed.contains("agreed on HTTP/1") && agreed.contains("--http2"), "{agreed}");
    let plain = cause(format!("http://{}/", server.web));
    assert!(plain.contains("speaks HTTP/1 here"), "{plain}");
    let origin = cause(format!("http://{}/", origins.addrs()[0]));
    assert!(origin.contains("speaks HTTP/1 here"), "{origin}");
}
