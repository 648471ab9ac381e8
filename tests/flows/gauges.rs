//! The gauges of active connections, on both sides.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::process::{Gate, Server, address_after, until};
use crate::{echo, plan};

/// A member that lets checks wait: of TCP all but the first one, until the gate opens, of UDP all,
/// whom it says nothing. What begins with "flow" is sent back by either.
struct Member {
    addr: SocketAddr,
    /// Checks of TCP that were answered or wait.
    checks: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

impl Member {
    fn start() -> Member {
        let (listener, socket) = (0..20)
            .find_map(|_| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let socket = UdpSocket::bind(listener.local_addr().unwrap()).ok()?;
                Some((listener, socket))
            })
            .expect("a port that is free for both");
        let addr = listener.local_addr().unwrap();
        let (checks, gate) = (Arc::<AtomicUsize>::default(), Arc::new(Gate::new(false)));
        let shared = (Arc::clone(&checks), Arc::clone(&gate));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (checks, gate) = shared.clone();
                std::thread::spawn(move || {
                    let mut buf = [0; 2_048];
                    while let Ok(len @ 1..) = stream.read(&mut buf) {
                        let mut answer = &buf[..len];
                        if !answer.starts_with(b"flow") {
                            if checks.fetch_add(1, Relaxed) > 0 {
                                gate.pass();
                            }
                            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        }
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        std::thread::spawn(move || {
            let mut buf = [0; 2_048];
            while let Ok((len, from)) = socket.recv_from(&mut buf) {
                if buf[..len].starts_with(b"flow") {
                    let mut answer = format!("{} {from} ", addr.port()).into_bytes();
                    answer.extend_from_slice(&buf[..len]);
                    let _asker_is_gone = socket.send_to(&answer, from);
                }
            }
        });
        Member { addr, checks, gate }
    }
}

/// Active connections of a listener, and of the members of its pool of the same name.
fn active(server: &Server, name: &str) -> (f64, Vec<f64>) {
    let metrics = server.metrics();
    let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    let member = format!("weir_member_active_connections{{pool=\"{name}\"");
    let members = metrics.lines().filter(|line| line.starts_with(&member)).map(value).collect();
    let listener = format!("weir_active_connections{{listener=\"{name}\"}}");
    (server.metric(&listener), members)
}

/// R7.12-2: of TCP and UDP as many connections are active at the listener as at all members of its
/// pool together, while checks are under way, which count for nothing.
#[test]
fn both_sides_have_as_many_connections() {
    let members = [Member::start(), Member::start(), Member::start()];
    let all = members.each_ref().map(|member| (member.addr, 1));
    let check = |kind: &str, timeout: u8| {
        format!("healthmonitor = {{ type = \"{kind}\", delay = 1, timeout = {timeout} }}")
    };
    // Of UDP the first verdicts need that time: silence means that a member is well.
    let text = plan("", "@CHECK@", &all, "").replacen("@CHECK@", &check("HTTP", 20), 1).replacen(
        "@CHECK@",
        &check("UDP_CONNECT", 2),
        1,
    );
    let server = Server::start(&text);
    let (web, dns) =
        (address_after(&server.ready, "web tcp://"), address_after(&server.ready, "dns udp://"));
    let mut streams: Vec<_> = (0..12).map(|_| echo::connect(web)).collect();
    streams.iter_mut().for_each(|stream| echo::talk(stream, b"flow").unwrap());
    let sockets: Vec<_> = (0..15).map(|_| echo::socket(dns)).collect();
    sockets.iter().for_each(|socket| drop(echo::ask(socket, "flow").unwrap()));
    until("a check of each member waits", || {
        members.iter().all(|member| member.checks.load(Relaxed) > 1)
    });
    for (name, open) in [("web", 12.0), ("dns", 15.0)] {
        let (listener, members) = active(&server, name);
        assert_eq!((listener, members.iter().sum()), (open, open), "{name}: {members:?}");
        assert!(members.len() == 3 && members.iter().all(|open| *open > 0.0), "{members:?}");
    }
    assert!(server.sum("weir_health_probes_total") >= 3.0);
    members.iter().for_each(|member| member.gate.open());
    streams.truncate(5);
    until("seven to have ended on both sides", || {
        let (listener, members) = active(&server, "web");
        (listener, members.iter().sum()) == (5.0, 5.0)
    });
    assert_eq!(server.sum("weir_health_probe_failures_total"), 0.0);
}
