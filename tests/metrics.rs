//! The metrics of a running `weir serve`, requirement by requirement: who answered, how long it
//! took, how many connections there are. `rows.toml` names these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use process::certs::Ca;
use process::{Client, Member, Server, address_after, config, get, pass_time, run, until};

/// A member that answers with the status that the path names, after `delay`; `/silent` gets none.
fn member(delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, delay));
        }
    });
    addr
}

fn answer(stream: TcpStream, delay: Duration) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let path = head.split(' ').nth(1)?;
        if path == "/silent" {
            continue;
        }
        pass_time(delay);
        let code = path.strip_prefix('/').filter(|code| code.len() == 3).unwrap_or("200");
        let text = format!("HTTP/1.1 {code} Said\r\nContent-Length: 0\r\n\r\n");
        reader.get_mut().write_all(text.as_bytes()).ok()?;
    }
}

/// A listener whose datagrams go nowhere.
const UDP: &str = "[[listener]]\nname = \"dns\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
                   protocol_port = 0\n";

fn server(members: &[(SocketAddr, u8)], more: &str) -> Server {
    let text = config("[0]", 5, 0, members);
    Server::start(&text.replace("default_pool", &format!("{more}default_pool")))
}

fn client_side(server: &Server, code: u16) -> f64 {
    server.counted(&format!("weir_responses_total{{listener=\"web\",code=\"{code}\"}}"))
}

fn member_side(server: &Server, code: u16) -> f64 {
    let series = format!("{{pool=\"app\",member=\"m0\",code=\"{code}\"}}");
    server.counted(&format!("weir_member_responses_total{series}"))
}

/// R14.2-2, R14.2-3, R14.2-4, R14.2-5: codes of both sides: passed on, filled in, and Weir's own.
#[test]
fn codes_of_both_sides() {
    let good = server(&[(member(Duration::ZERO), 1)], "member_timeout = 1\n");
    for code in [200, 404, 503] {
        assert_eq!(get(good.web, &format!("/{code}")).status, code);
        assert_eq!((client_side(&good, code), member_side(&good, code)), (1.0, 1.0));
    }
    // A silent member: both sides 504.
    assert_eq!(get(good.web, "/silent").status, 504);
    assert_eq!((client_side(&good, 504), member_side(&good, 504)), (1.0, 1.0));
    // Nobody there: both sides 502.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bad = server(&[(nobody, 1)], "");
    assert_eq!(get(bad.web, "/").status, 502);
    assert_eq!((client_side(&bad, 502), member_side(&bad, 502)), (1.0, 1.0));
    // No request: the client's side only.
    let mut stream = TcpStream::connect(good.web).unwrap();
    stream.write_all(b"garbage\r\n\r\n").unwrap();
    assert_eq!(Client::over(stream).answer().unwrap().status, 400);
    assert_eq!((client_side(&good, 400), member_side(&good, 400)), (1.0, 0.0));
    let class = r#"weir_response_classes_total{listener="web",class="5xx"}"#;
    assert_eq!(good.metric(class), 2.0);
}

/// R4.2-1: requests are the forwarded ones and those that Weir answered, by status.
#[test]
fn requests_reconcile() {
    let server = server(&[(member(Duration::ZERO), 1)], "");
    let mut client = Client::connect(server.web);
    for _ in 0..100 {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.web).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(Client::over(stream).answer().unwrap().status, 400);
    }
    // A request's times are counted when its answer is out, which the client may see before.
    until("all have ended", || server.sum("weir_request_seconds_count") == 110.0);
    let metrics = server.metrics();
    let sum = |family: &str| process::sum(&metrics, family);
    assert_eq!(sum("weir_requests_total"), 110.0);
    assert_eq!(sum("weir_responses_total"), 110.0);
    assert_eq!(sum("weir_response_classes_total"), 110.0);
    assert_eq!(sum("weir_forwarded_requests_total"), 100.0);
    assert_eq!(sum("weir_member_requests_total"), 100.0);
    assert_eq!(server.metric(r#"weir_local_responses_total{listener="web",code="400"}"#), 10.0);
    assert_eq!(sum("weir_upstream_response_seconds_count"), 100.0);
    assert_eq!(sum("weir_shard_requests_total"), 110.0);
}

/// R4.1-2: the mean backend time in milliseconds; the histogram has the same.
#[test]
fn the_mean_backend_time() {
    let server = server(&[(member(Duration::from_millis(200)), 1)], "");
    (0..3).for_each(|_| assert_eq!(get(server.web, "/").status, 200));
    until("all have ended", || server.sum("weir_request_seconds_count") == 3.0);
    let mean = server.metric(r#"weir_upstream_rt_average_milliseconds{listener="web"}"#);
    assert!((200.0..2_000.0).contains(&mean), "{mean}");
    let bucket = |le: &str| {
        server
            .metric(&format!("weir_upstream_header_seconds_bucket{{listener=\"web\",le=\"{le}\"}}"))
    };
    assert_eq!((bucket("0.1"), bucket("+Inf")), (0.0, 3.0));
}

/// R7.12-1, R7.12-3, R14.2-1, C33: open connections of both sides, which have nothing to do with
/// each other.
#[test]
fn open_connections_of_both_sides() {
    let server = server(&[(Member::start("m").addr, 1)], "");
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.web)).collect();
    // One after the other, so that one connection to the member does for all.
    for client in &mut clients {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    let both = || {
        [
            server.metric(r#"weir_active_connections{listener="web"}"#),
            server.metric(r#"weir_member_active_connections{pool="app",member="m0"}"#),
        ]
    };
    assert_eq!(both(), [20.0, 1.0]);
    clients.truncate(5);
    until("fifteen are gone", || both() == [5.0, 1.0]);
}

/// A TCP listener without members.
const RAW: &str = r#"
[[listener]]
name = "raw"
loadbalancer = "front"
protocol = "TCP"
protocol_port = 0
default_pool = "raw"
[[pool]]
name = "raw"
protocol = "TCP"
members = []
[[pool]]
name = "tls"
protocol = "HTTPS"
members = [{ address = "127.0.0.1", protocol_port = 1 }]
"#;

/// An HTTPS listener and its certificate, whose files are written to `folder`.
fn secure(folder: &Path) -> String {
    let [certificate, key] = Ca::new("ca").leaf(&["localhost"], 1).write(folder, "site");
    format!(
        "[[certificate]]\nname = \"site\"\ncertificate = {certificate:?}\n\
         private_key = {key:?}\n[[listener]]\nname = \"secure\"\nloadbalancer = \"front\"\n\
         protocol = \"HTTPS\"\nprotocol_port = 0\ndefault_pool = \"app\"\n\
         default_certificate = \"site\"\n"
    )
}

/// A handshake that goes well and one that doesn't; and one behind which no HTTP/2 comes.
fn shake_hands(server: &Server) {
    let secure = address_after(&server.ready, "secure https://");
    let mut client = Command::new("openssl");
    let (code, _, err) = run(client.args(["s_client", "-connect", &secure.to_string()]));
    assert_eq!(code, Some(0), "{err}");
    get(secure, "/");
    let mut client = Command::new("openssl");
    client.args(["s_client", "-alpn", "h2", "-connect", &secure.to_string()]);
    let mut client =
        client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(b"this is no HTTP/2\n").unwrap();
    client.wait().unwrap();
    for count in [
        "weir_tls_handshakes_total",
        "weir_tls_handshake_failures_total",
        "weir_http2_faults_total",
    ] {
        until(count, || server.sum(count) > 0.0);
    }
}

/// R14.3-7: every metric that the page lists is there, with a series once there is something to
/// tell.
#[test]
fn a_scrape_lists_every_series() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let members = [(member(Duration::ZERO), 1), (refusing, 1)];
    let text = config("[0]", 5, 0, &members).replace("default_pool", "cps = 20\ndefault_pool");
    let server = Server::start(&format!(
        "{text}healthmonitor = {{ type = \"TCP\" }}\noutlier_detection = {{ enable = true }}\n\
         pool_health = {{ minimum_healthy_member_count = 1 }}\n{RAW}{UDP}{}[[certificate]]\n\
         name = \"ca\"\ntype = \"client\"\ncertificate = \"\"\"\n{}\"\"\"\n\
         [access_log]\npath = \"{}\"\n",
        secure(folder.path()),
        include_str!("../examples/certs/ca.pem"),
        path.display()
    ));
    let nobody = process::address_after(&server.ready, "dns udp://");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"is anybody there", nobody).unwrap();
    assert_eq!(get(server.web, "/").status, 200);
    let mut stream = TcpStream::connect(server.web).unwrap();
    stream.write_all(b"garbage\r\n\r\n").unwrap();
    assert_eq!(Client::over(stream).answer().unwrap().status, 400);
    shake_hands(&server);
    drop(TcpStream::connect(address_after(&server.ready, "raw tcp://")).unwrap());
    until("an ended connection", || server.sum("weir_ended_connections_total") > 0.0);
    // Until one is refused for coming too fast.
    until("a refused connection", || {
        drop(TcpStream::connect(server.web));
        server.sum("weir_refused_connections_total") > 0.0
    });
    until("a dropped datagram", || server.sum("weir_datagrams_dropped_total") > 0.0);
    let metrics = server.metrics();
    let page = include_str!("../docs/metrics.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut listed = 0;
    for name in names {
        listed += 1;
        let starts = [format!("{name}{{"), format!("{name} "), format!("{name}_bucket{{")];
        let is_there = |line: &str| starts.iter().any(|start| line.starts_with(start));
        assert!(metrics.lines().any(is_there), "{name} has no series:\n{metrics}");
    }
    assert!(listed > 50, "{listed}");
}

/// What other tests ask for has to be there: a name that nobody gives a series is no zero.
#[test]
fn a_series_that_is_missing_is_no_zero() {
    let server = server(&[(member(Duration::ZERO), 1)], "");
    let panics = |ask: &dyn Fn() -> f64| {
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask));
        asked.err().map(|why| *why.downcast::<String>().unwrap())
    };
    let why = panics(&|| server.metric("weir_requests_total{listener=\"wep\"}")).unwrap();
    assert!(why.contains("no series") && why.contains("listener=\"web\"} 0"), "{why}");
    assert!(panics(&|| server.counted("weir_response_total{code=\"408\"}")).is_some());
    assert!(panics(&|| server.sum("weir_request_total")).is_some());
    assert_eq!(server.counted("weir_responses_total{listener=\"web\",code=\"408\"}"), 0.0);
    assert_eq!(server.sum("weir_request_seconds_count"), 0.0);
    assert_eq!(server.metric("weir_requests_total{listener=\"web\"}"), 0.0);
}
