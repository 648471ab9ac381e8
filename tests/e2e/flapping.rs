//! A member that dies and comes back, again and again, under load.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::alone;
use crate::process::mortal::Mortal;
use crate::process::{Client, LIMIT, Server, config, count, pass_time, until};

/// A member is killed and comes back every two seconds, under 64 connections: each of them loses at
/// most the request that was on its way to that member, and all members serve in the end.
#[test]
fn a_member_that_comes_and_goes_costs_what_is_in_flight() {
    let _turn = alone();
    let mut members = ["a", "b", "c"].map(Mortal::start);
    let check = "healthmonitor = { type = \"TCP\", delay = 1, timeout = 1, max_retries = 1, \
                 max_retries_down = 1 }\n";
    let all = members.each_ref().map(|member| (member.addr, 1));
    let server = Server::start(
        &config("\"auto\"", 5, 0, &all).replace("members =", &format!("{check}members =")),
    );
    let (over, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let (web, over, kills) = (server.web, Arc::clone(&over), Arc::clone(&kills));
            std::thread::spawn(move || ask_on(web, &over, &kills))
        })
        .collect();
    for _ in 0..count(4, 30) {
        kills.fetch_add(1, Relaxed);
        members[2].kill();
        pass_time(Duration::from_secs(1));
        members[2].revive();
        pass_time(Duration::from_secs(1));
    }
    let before = members[2].requests.load(Relaxed);
    until("the member to serve again", || members[2].requests.load(Relaxed) > before + 64);
    over.store(true, Relaxed);
    let results: Vec<Losses> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let asked: u64 = results.iter().map(|losses| losses.asked).sum();
    let lost: u64 = results.iter().flat_map(|losses| losses.by_kill.values()).sum();
    let kills = kills.load(Relaxed);
    println!("{kills} kills, 64 connections: {asked} requests, {lost} lost");
    for losses in results {
        assert!(losses.by_kill.values().all(|&lost| lost <= 1), "{:?}", losses.by_kill);
    }
}

/// What one client asked, and lost by kill.
#[derive(Default)]
struct Losses {
    asked: u64,
    by_kill: BTreeMap<u64, u64>,
}

fn ask_on(web: SocketAddr, over: &AtomicBool, kills: &AtomicU64) -> Losses {
    let mut losses = Losses::default();
    let connect = || Client::over(TcpStream::connect_timeout(&web, LIMIT).unwrap());
    let mut client = connect();
    while !over.load(Relaxed) {
        losses.asked += 1;
        match client.try_send("/").and_then(|()| client.answer()) {
            Ok(answer) if answer.status == 200 => {}
            other => {
                *losses.by_kill.entry(kills.load(Relaxed)).or_default() += 1;
                // An answer that was cut, or an error with `Connection: close`.
                if !other.is_ok_and(|answer| !answer.head.contains("Connection: close")) {
                    client = connect();
                }
            }
        }
    }
    losses
}
