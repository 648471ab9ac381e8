//! Servers that answer a fixed script, and short plans.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weir_loadgen::{Length, Plan, Target};

/// A short plan against `addr`: so many requests over so many connections, no warm-up.
pub fn plan(addr: SocketAddr, connections: usize, requests: u64) -> Plan {
    let mut plan = Plan::new(Target::from(addr));
    plan.connections = connections;
    plan.length = Length::Requests(requests);
    plan.warmup = Duration::ZERO;
    plan.timeout = Duration::from_secs(8);
    plan
}

/// A server that reads until an empty line and then writes `answer`, again and again, in pieces
/// of `piece` bytes; with `close` it closes after one answer. Its threads end with the test
/// process.
pub struct Scripted {
    pub addr: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

pub fn scripted(answer: &'static [u8], piece: usize, close: bool) -> Scripted {
    serving(answer, piece, close, usize::MAX)
}

/// One that answers so many requests and hangs then: its connections stay, and it accepts new ones.
pub fn hanging_after(answers: usize) -> Scripted {
    serving(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 99, false, answers)
}

fn serving(answer: &'static [u8], piece: usize, close: bool, most: usize) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let answered = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            count.fetch_add(1, Ordering::SeqCst);
            stream.set_nodelay(true).unwrap();
            let answered = Arc::clone(&answered);
            std::thread::spawn(move || {
                while read_head(&mut stream) {
                    if answered.fetch_add(1, Ordering::SeqCst) >= most {
                        continue;
                    }
                    for part in answer.chunks(piece) {
                        if stream.write_all(part).is_err() {
                            return;
                        }
                    }
                    if close {
                        return;
                    }
                }
            });
        }
    });
    Scripted { addr, connections }
}

fn read_head(stream: &mut std::net::TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}
