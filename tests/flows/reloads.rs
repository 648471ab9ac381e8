//! Reloads while TCP and UDP flows are busy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use crate::process::{Server, address_after, count, until};
use crate::{echo, plan};

/// Clients that talk all the time, each over flows of its own.
struct Load {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// Flows that a thread of a load has.
const EACH: usize = 12;

impl Load {
    fn start(web: SocketAddr, dns: SocketAddr) -> Load {
        let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4)
            .map(|n| {
                let (over, rounds) = (Arc::clone(&over), Arc::clone(&rounds));
                std::thread::spawn(move || match n % 2 {
                    0 => tcp(web, &over, &rounds),
                    _ => udp(dns, &over, &rounds),
                })
            })
            .collect();
        Load { over, rounds, threads }
    }

    /// A failure of any client is the test's.
    fn end(self) {
        self.over.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn tcp(web: SocketAddr, over: &AtomicBool, rounds: &AtomicU64) {
    let mut streams: Vec<_> = (0..EACH).map(|_| echo::connect(web)).collect();
    for n in 0u64.. {
        if over.load(Relaxed) {
            return;
        }
        for stream in &mut streams {
            echo::talk(stream, &n.to_be_bytes()).expect("an established connection was cut");
        }
        rounds.fetch_add(1, Relaxed);
    }
}

fn udp(dns: SocketAddr, over: &AtomicBool, rounds: &AtomicU64) {
    let sockets: Vec<_> = (0..EACH).map(|_| echo::socket(dns)).collect();
    let homes: Vec<_> = sockets.iter().map(|socket| echo::ask(socket, "home").unwrap()).collect();
    for n in 0u64.. {
        if over.load(Relaxed) {
            return;
        }
        for (socket, home) in sockets.iter().zip(&homes) {
            // One datagram is under way a flow: nothing may lose it.
            let now = echo::ask(socket, &n.to_string()).expect("a datagram was lost");
            assert_eq!(&now, home, "an established flow was moved");
        }
        rounds.fetch_add(1, Relaxed);
    }
}

/// R7.14-2, R5.12-1, C12: reloads of all kinds, one after the other, under the load of TCP and UDP
/// flows at once cut no connection, move no flow and lose no datagram.
#[test]
fn reloads_under_load_drop_no_flow() {
    let (a, b) = (echo::member(), echo::member());
    let text = |n: usize| {
        let weights = [(a, (n % 3) as u8), (b, 1 + (n % 5) as u8)];
        let algorithm = ["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"][n % 3];
        let other = "[[listener]]\nname = \"more\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
                     protocol_port = 0\ndefault_pool = \"dns\"";
        plan(
            &format!("keepalive_timeout = {}", 300 + n % 7),
            &format!("lb_algorithm = \"{algorithm}\""),
            &weights[n % 2..],
            if n.is_multiple_of(4) { other } else { "" },
        )
    };
    let server = Server::start(&text(1));
    let (web, dns) =
        (address_after(&server.ready, "web tcp://"), address_after(&server.ready, "dns udp://"));
    let load = Load::start(web, dns);
    for n in 0..count(20, 1_000) {
        let before = load.rounds.load(Relaxed);
        let (code, out, err) = server.reload(&text(n));
        assert_eq!(code, Some(0), "{out}{err}");
        until("the load to go on", || load.rounds.load(Relaxed) > before);
    }
    load.end();
    for how in ["idle", "drained", "deleted", "evicted", "member_rst", "connect_failed"] {
        for name in ["web", "dns"] {
            let series =
                format!("weir_ended_connections_total{{listener=\"{name}\",how=\"{how}\"}}");
            assert_eq!(server.counted(&series), 0.0, "{series}");
        }
    }
}
