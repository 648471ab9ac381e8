//! Drills in which something of this host runs out.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use weir_core::time::clock;

use crate::process::{Client, LIMIT, pass_time, until};
use crate::site::Site;
use crate::table::{Cost, Table};

/// A disk without room costs lines of the log, which are counted, and nothing else.
pub fn full_disk(site: &mut Site, table: &mut Table) {
    let seen = site.under_load(|site, deeds| {
        site.wish.log = Some(PathBuf::from("/dev/full"));
        deeds.push(clock::mono());
        site.reload();
        let dropped = "weir_access_log_dropped_lines_total{log=\"/dev/full\"}";
        until("lines to be dropped", || site.server.metric(dropped) > 20.0);
        site.wish.log = None;
        site.reload();
    });
    table.add("full disk under the log", 1, Cost::NOTHING, &seen);
}

/// The same for a pipe that nobody reads.
pub fn stalled_log(site: &mut Site, table: &mut Table) {
    let path = site.folder.path().join("pipe");
    if !path.exists() {
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    }
    let seen = site.under_load(|site, deeds| {
        site.wish.log = Some(path.clone());
        deeds.push(clock::mono());
        site.reload();
        // Long lines, so that the pipe and all blocks of a shard are soon full.
        let long = format!("/{}", "y".repeat(15_000));
        let dropped = format!("weir_access_log_dropped_lines_total{{log=\"{}\"}}", path.display());
        let mut client = Client::connect(site.web);
        until("lines to be dropped", || {
            for _ in 0..10 {
                client.send(&long, "");
                assert_eq!(client.answer().unwrap().status, 200);
            }
            site.server.metric(&dropped) > 0.0
        });
        pass_time(Duration::from_secs(1));
        site.wish.log = None;
        site.reload();
    });
    table.add("log into a pipe that nobody reads", 1, Cost::NOTHING, &seen);
}

/// Descriptors run out: who is connected goes on, new ones may be turned away, and all is as before
/// once there are descriptors again.
pub fn descriptors(site: &mut Site, table: &mut Table) {
    let before = shortages(site);
    let seen = site.under_load(|site, deeds| {
        let usual = soft_limit(site);
        deeds.push(clock::mono());
        limit(site, site.server.descriptors() + MORE);
        // The kernel notes the limit when a listener begins to accept: this one does so now.
        site.wish.side = true;
        site.reload();
        // Some are reset before they know that they are connected.
        let connect = |_| TcpStream::connect_timeout(&site.side, LIMIT).ok();
        let idle: Vec<TcpStream> = (0..CROWD).filter_map(connect).collect();
        pass_time(SQUEEZE);
        limit(site, usual);
        drop(idle);
        until("the listener to serve again", || {
            let stream = TcpStream::connect_timeout(&site.side, LIMIT);
            let answer = stream.and_then(|stream| {
                let mut client = Client::over(stream);
                client.try_send("/")?;
                client.answer()
            });
            answer.is_ok_and(|answer| answer.status == 200)
        });
        site.wish.side = false;
        site.reload();
    });
    if shortages(site) == before {
        table.fault("descriptors run out", "they did not");
    }
    let cost = Cost::of(&["keep-alive", "new", "HTTPS", "HTTP/2", "WebSocket", "TCP"], 80, 10.0);
    table.add("descriptors run out for 3 s", 1, cost, &seen);
}

/// What has failed for want of descriptors: accepts, connects to members, and clients turned away
/// since the reload has found that the process may have fewer.
fn shortages(site: &Site) -> f64 {
    let families = ["ring_accept_failures", "ring_no_descriptors", "refused_connections"];
    families.iter().map(|family| site.server.sum(&format!("weir_{family}_total"))).sum()
}

const SQUEEZE: Duration = Duration::from_secs(3);
/// So many descriptors more than are open there may be …
const MORE: usize = 20;
/// … and so many clients come who say nothing, and hold them all.
const CROWD: usize = 60;

/// The process' soft limit of descriptors.
fn soft_limit(site: &Site) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", site.server.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn limit(site: &Site, soft: usize) {
    let pid = site.server.pid().to_string();
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid, &format!("--nofile={soft}:")]);
    assert!(command.status().unwrap().success());
}
