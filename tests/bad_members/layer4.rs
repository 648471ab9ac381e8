//! Members of TCP and UDP pools. Weir knows no answers there, so that silence is no fault: it lasts
//! until `keepalive_timeout`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use weir_core::time::clock;

use crate::process::alive::Alive;
use crate::process::moody::{BlackHole, Mood, Moody};
use crate::process::{LIMIT, count};
use crate::{Plan, address, lines};

/// The shortest `keepalive_timeout` of Layer 4.
const IDLE: Duration = Duration::from_secs(10);

/// Sends a request of HTTP, of which Weir knows nothing here; what came back, how it ended, and
/// after how long.
fn ask(at: SocketAddr) -> (Vec<u8>, std::io::Result<()>, Duration) {
    let start = clock::mono();
    let mut stream = TcpStream::connect_timeout(&at, LIMIT).unwrap();
    stream.set_read_timeout(Some(2 * LIMIT)).unwrap();
    let mut came = Vec::new();
    let sent = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
    let mut piece = [0; 1024];
    let end = loop {
        match sent.as_ref().map_err(std::io::Error::kind).map(|()| stream.read(&mut piece)) {
            Ok(Ok(0)) => break Ok(()),
            Ok(Ok(n)) => came.extend_from_slice(&piece[..n]),
            Ok(Err(error)) => break Err(error),
            Err(kind) => break Err(kind.into()),
        }
    };
    (came, end, clock::mono().since(start))
}

/// A bad member of a TCP pool: what comes of it, whether it ends by RST, and what the log calls it.
struct Case {
    name: &'static str,
    at: SocketAddr,
    bytes: &'static str,
    reset: bool,
    ended: &'static str,
    least: Duration,
}

/// R2.2-3, R6.7-1: silence ends by `keepalive_timeout`, resets pass on as resets with all bytes
/// before them, a black hole costs `connect_timeout`; nothing is left behind.
#[test]
fn tcp_members() {
    let start = |mood| Moody::start(mood).addr;
    let hole = BlackHole::new();
    let byte = count(Duration::from_millis(100), Duration::from_secs(1));
    let case = |name, at, bytes, reset, ended, least| Case { name, at, bytes, reset, ended, least };
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.";
    let drip = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    let cases = [
        case("mute", start(Mood::Mute), "", true, "idle", IDLE),
        case("mute-body", start(Mood::MuteInBody), half, true, "idle", IDLE),
        case("drip", start(Mood::Drip(byte)), drip, true, "idle", IDLE),
        case("reset", start(Mood::ResetInBody), half, true, "member_rst", Duration::ZERO),
        case("close", start(Mood::CloseInBody), half, false, "member_fin", Duration::ZERO),
        case("black-hole", hole.addr, "", true, "connect_failed", Duration::from_secs(1)),
    ];
    let mut plan = Plan::new();
    let limits = "keepalive_timeout = 10\nconnect_timeout = 1";
    for case in &cases {
        plan.pair(case.name, ["TCP", "TCP"], [limits, ""], &[case.at]);
    }
    let server = plan.start();
    let before = Alive::at_rest(&server);
    let n = count(3, 50);
    std::thread::scope(|scope| {
        for case in &cases {
            let at = address(&server, case.name, "tcp");
            for _ in 0..n {
                scope.spawn(move || {
                    let (came, end, took) = ask(at);
                    assert_eq!(String::from_utf8(came).unwrap(), case.bytes, "{}", case.name);
                    assert_eq!(end.is_err(), case.reset, "{}: {end:?}", case.name);
                    assert!(took >= case.least, "{}: {took:?}", case.name);
                });
            }
        }
    });
    for case in &cases {
        for line in lines(&server, case.name, n) {
            assert_eq!(line["ended"], case.ended, "{line}");
            assert_eq!(line["bytes_sent"], case.bytes.len(), "{line}");
        }
        let series = format!(
            "weir_ended_connections_total{{listener=\"{}\",how=\"{}\"}}",
            case.name, case.ended
        );
        assert_eq!(server.metric(&series), n as f64, "{series}");
    }
    assert_eq!(Alive::at_rest(&server), before);
}

/// R2.2-1, R8.4-2: a member that says nothing holds a flow until `keepalive_timeout`; one without a
/// socket is told by ICMP, counted, and its flow ends; nothing is left behind.
#[test]
fn udp_members() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = held.local_addr().unwrap();
    drop(held);
    let mut plan = Plan::new();
    let limits = "keepalive_timeout = 10";
    for (name, member) in [("silent", silent.local_addr().unwrap()), ("closed", closed)] {
        plan.pair(name, ["UDP", "UDP"], [limits, ""], &[member]);
    }
    let server = plan.start();
    let before = Alive::at_rest(&server);
    let n = count(3, 50);
    let start = clock::mono();
    let sockets: Vec<UdpSocket> = (0..2 * n)
        .map(|at| {
            let name = if at < n { "silent" } else { "closed" };
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(address(&server, name, "udp")).unwrap();
            socket.send(b"anybody there?").unwrap();
            socket
        })
        .collect();
    for line in lines(&server, "silent", n) {
        assert_eq!(line["ended"], "idle", "{line}");
        assert_eq!(line["bytes_sent"], 0, "{line}");
    }
    assert!(clock::mono().since(start) >= IDLE, "too early");
    for line in lines(&server, "closed", n) {
        assert_ne!(line["ended"], "idle", "{line}");
    }
    let failures = "weir_member_connect_failures_total";
    assert!(server.sum(failures) >= n as f64, "{}", server.sum(failures));
    assert_eq!(Alive::at_rest(&server), before);
    drop(sockets);
}
