//! New connections and flows follow a weight that is changed, on every shard, under load.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use weir_core::net::sys::allowed_cores;

use crate::echo::{self, Client};
use crate::plan;
use crate::process::{RUN_DIR, Server, address_after, pass_time, until};

/// New clients of each protocol before the change, and as many behind it.
const MANY: usize = 200;

/// Before the change, while it is under way, and behind it; clients have an address for each.
const PHASES: [&str; 3] = ["127.0.4.1", "127.0.4.2", "127.0.4.3"];

/// Has the load end with the test, however that ends.
struct Ending<'a>(&'a AtomicUsize);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(2, Relaxed);
    }
}

/// New clients, one after the other, until there were enough in the last phase; how many those were
/// in all.
fn load(scheme: &str, to: SocketAddr, phase: &AtomicUsize, served: &AtomicUsize) -> usize {
    let (mut clients, mut all, mut last) = (HashSet::new(), 0, 0);
    while last < MANY {
        let now = phase.load(Relaxed);
        let mut client = Client::from(PHASES[now], scheme, to).unwrap();
        client.ask("hello").unwrap();
        served.fetch_add(1, Relaxed);
        // Over UDP one with a port that was used before has the same flow again.
        let is_new = clients.insert((PHASES[now], client.port())) || scheme == "tcp";
        (all, last) = (all + usize::from(is_new), last + usize::from(is_new && now == 2));
        pass_time(Duration::from_millis(1));
    }
    all
}

/// Of each shard and phase how many a listener had, and how many of them at this member.
type Shares = BTreeMap<(u64, &'static str), [usize; 2]>;

fn shares(lines: &str, listener: &str, member: SocketAddr) -> Shares {
    let mut shares = Shares::new();
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["listener_usr_name"] == listener {
            let phase = PHASES.into_iter().find(|phase| line["remote_addr"] == **phase).unwrap();
            let share = shares.entry((line["shard"].as_u64().unwrap(), phase)).or_default();
            let here = line["upstream_addr"] == member.to_string();
            *share = [share[0] + 1, share[1] + usize::from(here)];
        }
    }
    shares
}

/// R7.14-1: a changed weight holds for new connections and flows from then on, on every shard,
/// under load: with the acknowledgement of the reload, which is well within five seconds.
#[test]
fn a_changed_weight_changes_the_share() {
    let members = [echo::member(), echo::member()];
    let text = |weights: [u8; 2]| {
        let members: Vec<_> = members.into_iter().zip(weights).collect();
        plan("", "", &members, "") + &format!("[connection_log]\npath = \"{RUN_DIR}.log\"")
    };
    let server = Server::start(&text([1, 1]));
    let (phase, served) = (AtomicUsize::new(0), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let listeners = [("web", "tcp"), ("dns", "udp")];
    let clients = std::thread::scope(|scope| {
        let (phase, server) = (&phase, &server);
        let loads: Vec<_> = (listeners.into_iter().zip(&served))
            .map(|((name, scheme), served)| {
                let to = address_after(&server.ready, &format!("{name} {scheme}://"));
                scope.spawn(move || load(scheme, to, phase, served))
            })
            .collect();
        let ending = Ending(phase);
        until("load", || served.iter().all(|served| served.load(Relaxed) >= MANY));
        phase.store(1, Relaxed);
        let (code, out, err) = server.reload(&text([1, 3]));
        drop(ending);
        let clients: Vec<_> = loads.into_iter().map(|load| load.join().unwrap()).collect();
        assert_eq!(code, Some(0), "{out}{err}");
        clients
    });
    until("all connections to end", || {
        server.metric("weir_active_connections{listener=\"web\"}") == 0.0
    });
    let mut log = File::open(server.file.run_dir().with_file_name("run.log")).unwrap();
    server.signal("TERM");
    server.wait();
    let mut lines = String::new();
    log.read_to_string(&mut lines).unwrap();
    for ((name, _), clients) in listeners.into_iter().zip(clients) {
        let shares = shares(&lines, name, members[1]);
        assert_eq!(shares.values().map(|share| share[0]).sum::<usize>(), clients, "{name}");
        let shards: BTreeSet<u64> = shares.keys().map(|(shard, _)| *shard).collect();
        assert_eq!(shards.len(), allowed_cores().unwrap().len(), "{name}: {shares:?}");
        for shard in shards {
            for (phase, part) in [(PHASES[0], 0.5), (PHASES[2], 0.75)] {
                let [all, here] = shares[&(shard, phase)].map(|count| count as f64);
                // One begun before the change, and a row of turns that was cut.
                assert!((here - part * all).abs() <= 3.0, "{name}: {phase} {shares:?}");
            }
        }
    }
}
