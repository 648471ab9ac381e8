//! Large bodies, both ways, in both framings: byte for byte, in bounded memory.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

use weir_core::time::clock;

use crate::process::{Server, config, count};
use crate::wire::{Framing, Pattern, PatternMember, SEED, Wire, write_body};
use crate::{alone, core_choices};

/// Resident memory that the process may have had at any time.
pub const MEMORY_KIB: u64 = 64 << 10;

fn length() -> u64 {
    count(64 << 20, 2 << 30)
}

fn download(web: SocketAddr, framing: Framing, len: u64) {
    let mut wire = Wire::connect(web);
    let path = if framing == Framing::Length { "length" } else { "chunked" };
    wire.send(&format!("GET /{path}/{len} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
    let head = wire.head().unwrap().unwrap();
    assert_eq!(head.first, "HTTP/1.1 200 OK");
    let mut pattern = Pattern::new(SEED);
    assert_eq!(wire.body(&head, |data| pattern.check(data)).unwrap(), len);
    // The connection is fit for the next request: nothing was left over.
    wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let head = wire.head().unwrap().unwrap();
    assert_eq!(wire.text(&head).unwrap(), "hello");
}

fn upload(web: SocketAddr, framing: Framing, len: u64) {
    let mut wire = Wire::connect(web);
    let announced = framing.header(len);
    wire.send(&format!("POST /up HTTP/1.1\r\nHost: test\r\n{announced}\r\n")).unwrap();
    let written = AtomicU64::new(0);
    write_body(wire.stream(), framing, len, &mut Pattern::new(SEED), &written).unwrap();
    let head = wire.head().unwrap().unwrap();
    assert_eq!(head.first, "HTTP/1.1 200 OK");
    assert_eq!(wire.text(&head).unwrap(), format!("{len} bytes"));
}

/// R6.4-2 (streamed, never held whole) and R6.4-1 (nothing slows an upload): 2 GiB each way.
#[test]
fn large_bodies_pass_byte_for_byte_in_little_memory() {
    let _turn = alone();
    for cores in core_choices() {
        let member = PatternMember::start();
        let server = Server::start(&config(cores, 5, 0, &[(member.addr, 1)]));
        for framing in [Framing::Length, Framing::Chunked] {
            for (name, pass) in
                [("download", download as fn(SocketAddr, Framing, u64)), ("upload", upload)]
            {
                let start = clock::mono();
                pass(server.web, framing, length());
                let seconds = clock::mono().since(start).as_secs_f64();
                let rate = length() as f64 / (1 << 20) as f64 / seconds;
                println!(
                    "cores {cores}: {name}, {framing:?}: {} MiB, {rate:.0} MiB/s",
                    length() >> 20
                );
            }
        }
        let (most, now) = (server.memory("VmHWM"), server.memory("VmRSS"));
        println!("cores {cores}: resident at most {most} KiB, at the end {now} KiB");
        assert!(most < MEMORY_KIB, "cores {cores}: {most} KiB resident at the highest");
        assert_eq!(server.sum("weir_ring_leases"), 0.0);
    }
}

/// Many at once, each in small and odd pieces: what one shard interleaves stays apart.
#[test]
fn bodies_of_many_clients_stay_apart() {
    let _turn = alone();
    let member = PatternMember::start();
    let server = Server::start(&config("\"auto\"", 5, 0, &[(member.addr, 1)]));
    let web = server.web;
    let one = move |n: u64| {
        let framing = if n.is_multiple_of(2) { Framing::Length } else { Framing::Chunked };
        let len = 1 + n * 77_777;
        if n.is_multiple_of(3) { upload(web, framing, len) } else { download(web, framing, len) }
    };
    std::thread::scope(|scope| {
        for client in 0..8 {
            scope.spawn(move || (0..count(10, 60)).for_each(|round| one(client * 5 + round)));
        }
    });
    assert!(server.memory("VmHWM") < MEMORY_KIB);
}
