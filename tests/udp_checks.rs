//! Health checks of UDP pools, seen from outside: services that stay silent, ports that are closed,
//! hosts that answer no echo (in a network namespace of the test), a process that may not ask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use process::space::Space;
use process::{LIMIT, RUN_DIR, Server, address_after, run, until, weir};
use weir_core::time::clock;

/// A UDP listener in front of these members; a probe takes at most `timeout` seconds.
fn file(vip: &str, timeout: u8, members: &[(&str, SocketAddr)]) -> String {
    let mut text = format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 1\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"{vip}\"\n\
         [[listener]]\nname = \"dns\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
         protocol_port = 0\ndefault_pool = \"app\"\n\
         [[pool]]\nname = \"app\"\nprotocol = \"UDP\"\nlb_algorithm = \"ROUND_ROBIN\"\n\
         healthmonitor = {{ type = \"UDP_CONNECT\", delay = 1, timeout = {timeout}, \
         max_retries = 1 }}\n"
    );
    for (name, address) in members {
        text += &format!(
            "[[pool.members]]\nname = \"{name}\"\naddress = \"{}\"\nprotocol_port = {}\n",
            address.ip(),
            address.port()
        );
    }
    text
}

/// 1, 0, or nothing where it isn't known.
fn up(metrics: &str, member: &str) -> Option<bool> {
    let series = format!("weir_member_up{{pool=\"app\",member=\"{member}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)).map(|value| value == "1")
}

/// A socket that nobody reads: a service that stays silent.
fn silent(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// R8.4-2, R8.4-3, R8.4-4: a silent service is up, a port that nobody listens on is down, with the
/// reason in the log; what changes is noticed, and new flows go where somebody listens.
#[test]
fn silence_is_well_and_a_closed_port_is_not() {
    for ip in ["127.0.0.1", "::1"] {
        let (kept, quiet) = silent(ip);
        let (other, leaves) = silent(ip);
        let mut server = Server::start(&file(ip, 2, &[("quiet", quiet), ("leaves", leaves)]));
        let metrics = server.metrics();
        assert_eq!((up(&metrics, "quiet"), up(&metrics, "leaves")), (Some(true), Some(true)));
        drop(other);
        let line = server.line_with("member leaves is down");
        assert!(line.contains("port_unreachable"), "{line}");
        until("the closed one is down", || up(&server.metrics(), "leaves") == Some(false));
        assert_eq!(up(&server.metrics(), "quiet"), Some(true));
        // R2.1-2: everybody new comes to the one that is left.
        kept.set_read_timeout(Some(LIMIT)).unwrap();
        let door = address_after(&server.ready, "dns udp://");
        for n in 0..20 {
            let client = UdpSocket::bind((ip, 0)).unwrap();
            let question = format!("question {n}");
            client.send_to(question.as_bytes(), door).unwrap();
            let mut buf = [0; 64];
            loop {
                let (len, _) = kept.recv_from(&mut buf).unwrap();
                if buf[..len] == *question.as_bytes() {
                    break;
                }
                assert_eq!(&buf[..len], b"weir check\n", "nothing comes but questions and probes");
            }
        }
        let back = UdpSocket::bind(leaves).unwrap();
        server.line_with("member leaves is up");
        drop(back);
    }
}

/// What the server said on stderr within the namespace until `words`, started with `prefix`.
fn said(space: &Space, prefix: &[&str], words: &str) -> String {
    let member = "127.0.0.1:9".parse().unwrap();
    let config = process::File::new(&file("127.0.0.1", 1, &[("m", member)]));
    let program = weir().get_program().to_owned();
    let log = config.path.with_file_name("log");
    let mut line: Vec<&str> = prefix.to_vec();
    line.extend([program.to_str().unwrap(), "serve", "--config", config.path.to_str().unwrap()]);
    let err = std::fs::File::create(&log).unwrap();
    let mut child = space.command(&line).stdin(Stdio::null()).stderr(err).spawn().unwrap();
    let begin = clock::mono();
    let text = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.contains(words) {
            break text;
        }
        assert_eq!(child.try_wait().unwrap(), None, "{text}");
        assert!(clock::mono().since(begin) < LIMIT, "no {words:?} in\n{text}");
        process::pass_time(Duration::from_millis(50));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    text
}

/// R8.4-1: who answers no echo is down, whatever its ports say. Without the right to ask the
/// message says what is missing, and the member is not called down for it.
#[test]
fn echoes_come_first() {
    let space = Space::new("echo");
    let off = "net.ipv4.icmp_echo_ignore_all=1";
    let set = run(&mut space.command(&["sysctl", "-qw", off]));
    assert_eq!(set.0, Some(0), "{}", set.2);
    let text = said(&space, &[], "its first check failed: CONNECT_TIMEOUT (echo_timeout)");
    assert!(!text.contains("port_unreachable"), "{text}");

    // Nobody is in the group that may ping, as is the kernel's default.
    let not_raw = ["setpriv", "--bounding-set", "-net_raw"];
    let text = said(&space, &not_raw, "health checks can't be made");
    assert!(text.contains("net.ipv4.ping_group_range") && text.contains("CAP_NET_RAW"), "{text}");
    assert!(!text.contains("first check failed"), "{text}");

    // With the group no privilege is needed.
    let on = ["sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0", "net.ipv4.ping_group_range=0 0"];
    let set = run(&mut space.command(&on));
    assert_eq!(set.0, Some(0), "{}", set.2);
    said(&space, &not_raw, "its first check failed: CONNECT_REFUSED (port_unreachable)");
}
