//! The drill in which the program is replaced, again and again. It has a site of its own: what is
//! told of the other one's size is told of one process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use weir_core::time::clock;

use crate::process::line::is_alive;
use crate::process::{Client, LIMIT, count, pass_time, until};
use crate::site::Site;
use crate::table::{Cost, Table};

const DRILL: &str = "binary upgrade";
/// Clients that connect at once, again and again, so that some are always in the listeners' queues.
const CROWD: usize = 30;

/// Nobody loses anything by it: requests on kept and on new connections, streams, frames and
/// sessions, which live on in the process that has them, those who wait to be accepted, and UDP
/// flows, whose datagrams wait in the sockets' buffers until the new process receives.
pub fn upgrades(seed: u64, table: &mut Table) {
    let mut site = Site::start(seed);
    let times = count(2, 50);
    let mut lost = Vec::new();
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            let (web, over) = (site.web, AtomicBool::new(false));
            let turned_away = std::thread::scope(|scope| {
                let crowds = scope.spawn(|| crowds(web, &over));
                deeds.push(clock::mono());
                site.server.upgrade(&[]);
                // Nobody received datagrams for so long at most.
                let serves = site.server.server.line_with("after it was told to");
                println!("  {}", &serves[serves.find("process ").unwrap_or(0)..]);
                let answers = "weir_responses_total";
                until("answers of the new process", || site.server.sum(answers) > CROWD as f64);
                over.store(true, Relaxed);
                crowds.join().unwrap()
            });
            lost.extend(turned_away);
            pass_time(Duration::from_millis(500));
        }
        if !is_alive(site.server.pids[0]) {
            lost.push("the first process ended before its sessions did".to_owned());
        }
    });
    lost.iter().for_each(|what| table.fault(DRILL, what));
    table.add(DRILL, times, Cost::NOTHING, &seen);
    let (last, former) = site.server.pids.split_last().unwrap();
    until("the former ones' ends", || !former.iter().any(|pid| is_alive(*pid)));
    assert!(is_alive(*last), "the last one serves");
}

/// Many connect, each asks, and all are answered, until it is over, which it is sooner or later
/// even when the upgrade fails; what went wrong.
fn crowds(web: SocketAddr, over: &AtomicBool) -> Vec<String> {
    let (mut lost, start) = (Vec::new(), clock::mono());
    while !over.load(Relaxed) && clock::mono().since(start) < LIMIT {
        let mut crowd: Vec<Client> = (0..CROWD).map(|_| Client::connect(web)).collect();
        for client in &mut crowd {
            let sent = client.try_send_with("/", "Connection: close\r\n");
            lost.extend(sent.err().map(|error| format!("sending: {error}")));
        }
        for mut client in crowd {
            match client.answer() {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => lost.push(format!("status {}", answer.status)),
                Err(error) => lost.push(format!("answer: {error}")),
            }
        }
    }
    lost
}
