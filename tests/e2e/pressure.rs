//! Peers that stop reading: memory stays bounded, the other side is held back, everybody else is
//! served, and nothing is lost once they go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use weir_core::time::clock;

use crate::alone;
use crate::bodies::MEMORY_KIB;
use crate::process::{LIMIT, Server, config, count, get, pass_time};
use crate::wire::{Framing, Pattern, PatternMember, SEED, Wire, connect_narrow, write_body};

/// Receive buffers of the side that does not read.
const NARROW: usize = 64 << 10;
/// What one stuck connection may hold in the kernel and in Weir: the balancer's send buffer (the
/// kernel lets it grow to 4 MiB) and a few leases.
const HELD: f64 = (6 << 20) as f64;
/// No byte moved for so long: the sender is held back.
const STILL: Duration = Duration::from_millis(750);
/// Requests of others meanwhile …
const OTHERS: usize = 100;
/// … and how long all of them may take, on a machine that is busy with other things too. Who is
/// starved waits for as long as the stuck ones are stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// So much of each stuck body has been taken at least before a crowd can stand still: its first
/// leases, and what the kernel buffers.
const TAKEN_EACH: usize = 8 << 10;

fn clients() -> usize {
    count(16, 50)
}

fn length() -> u64 {
    count(16 << 20, 200_000_000)
}

/// Waits until `counter` stands still at `least` or more; its value.
fn until_still(least: usize, counter: impl Fn() -> f64) -> f64 {
    let end = clock::mono().plus(LIMIT * 3);
    let mut value = counter();
    let mut since = clock::mono();
    while value < least as f64 || clock::mono().since(since) < STILL {
        assert!(clock::mono() < end, "it never stopped: {value}");
        pass_time(Duration::from_millis(50));
        let now = counter();
        if now != value {
            (value, since) = (now, clock::mono());
        }
    }
    value
}

/// The others get their answers, and soon; also bodies that need several leases.
fn others_are_served(web: SocketAddr) {
    let start = clock::mono();
    for _ in 0..OTHERS {
        assert_eq!(get(web, "/").body, "hello");
    }
    let mut wire = Wire::connect(web);
    wire.send("GET /length/3000000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let head = wire.head().unwrap().unwrap();
    let mut pattern = Pattern::new(SEED);
    assert_eq!(wire.body(&head, |data| pattern.check(data)).unwrap(), 3_000_000);
    let took = clock::mono().since(start);
    assert!(took < PATIENCE, "{took:?}");
}

fn bounded(server: &Server, what: &str) {
    let (now, most) = (server.memory("VmRSS"), server.memory("VmHWM"));
    println!("{what}: {now} KiB resident, at most {most} KiB");
    assert!(most < MEMORY_KIB, "{what}: {most} KiB");
}

#[test]
fn clients_that_stop_reading_hold_little_and_lose_nothing() {
    let _turn = alone();
    let member = PatternMember::start();
    let server = Server::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let all = clients() as f64 * length() as f64;
    let stuck: Vec<Wire> = (0..clients())
        .map(|_| {
            let wire = Wire::over(connect_narrow(server.web, NARROW));
            let path = format!("/length/{}", length());
            wire.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
            wire
        })
        .collect();
    let least = clients() * TAKEN_EACH;
    let taken = until_still(least, || server.sum("weir_member_received_bytes_total"));
    println!("{} stuck clients: {taken} bytes of {all} taken from the member", clients());
    assert!(taken < clients() as f64 * HELD && taken < all / 2.0, "{taken} of {all}");
    assert!((member.written.load(Relaxed) as f64) < all, "the member was not held back");
    println!("leases on loan: {}", server.sum("weir_ring_leases"));
    bounded(&server, "stuck downloads");
    others_are_served(server.web);
    read_on(stuck);
    bounded(&server, "downloads that went on");
    crate::process::until("all leases back", || server.sum("weir_ring_leases") == 0.0);
}

fn read_on(stuck: Vec<Wire>) {
    std::thread::scope(|scope| {
        for mut wire in stuck {
            scope.spawn(move || {
                let head = wire.head().unwrap().unwrap();
                let mut pattern = Pattern::new(SEED);
                assert_eq!(wire.body(&head, |data| pattern.check(data)).unwrap(), length());
            });
        }
    });
}

#[test]
fn a_member_that_stops_reading_holds_its_clients_back() {
    let _turn = alone();
    let member = PatternMember::new(false, Some(NARROW));
    let server = Server::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let written: Arc<AtomicU64> = Arc::default();
    let uploads: Vec<_> = (0..clients())
        .map(|n| {
            let (web, written) = (server.web, written.clone());
            std::thread::spawn(move || {
                let framing = if n % 2 == 0 { Framing::Length } else { Framing::Chunked };
                let mut wire = Wire::connect(web);
                let announced = framing.header(length());
                wire.send(&format!("POST / HTTP/1.1\r\nHost: test\r\n{announced}\r\n")).unwrap();
                let mut pattern = Pattern::new(SEED);
                write_body(wire.stream(), framing, length(), &mut pattern, &written).unwrap();
                let head = wire.head().unwrap().unwrap();
                assert_eq!(wire.text(&head).unwrap(), format!("{} bytes", length()));
            })
        })
        .collect();
    let all = clients() as f64 * length() as f64;
    let taken = until_still(clients() * TAKEN_EACH, || server.sum("weir_received_bytes_total"));
    println!("{} stuck uploads: {taken} bytes of {all} taken from the clients", clients());
    assert!(taken > 0.0 && taken < clients() as f64 * HELD && taken < all / 2.0, "{taken}");
    assert!((written.load(Relaxed) as f64) < all, "the clients were not held back");
    bounded(&server, "stuck uploads");
    others_are_served(server.web);
    member.reads.open();
    for upload in uploads {
        upload.join().unwrap();
    }
    bounded(&server, "uploads that went on");
    crate::process::until("all leases back", || server.sum("weir_ring_leases") == 0.0);
}

/// More stuck clients than there are large buffers for (two each): the others are served all the
/// same. (Twice as many again run into the kernel's own limit, tcp_mem, before any of Weir's.)
#[test]
fn crowds_that_stop_reading_starve_nobody() {
    let _turn = alone();
    let member = PatternMember::start();
    let server = Server::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let stuck: Vec<Wire> = (0..count(400, 600))
        .map(|_| {
            let wire = Wire::over(connect_narrow(server.web, 4 << 10));
            wire.send("GET /length/8000000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            wire
        })
        .collect();
    let least = stuck.len() * TAKEN_EACH;
    let taken = until_still(least, || server.sum("weir_member_received_bytes_total"));
    println!(
        "a crowd of {}: {taken} bytes taken, {} leases on loan, {} KiB resident",
        stuck.len(),
        server.sum("weir_ring_leases"),
        server.memory("VmRSS")
    );
    others_are_served(server.web);
    drop(stuck);
    crate::process::until("all leases back", || server.sum("weir_ring_leases") == 0.0);
    assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
}
