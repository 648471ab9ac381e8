//! Connections that end at any point, in any way, beside others that ask whole requests: these must
//! not suffer, and afterwards no descriptor, stream, operation, buffer or task is left behind.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use socket2::{Domain, Socket, Type};
use weir_core::time::clock;

use crate::nginx::Nginx;
use crate::process::alive::Alive;
use crate::process::{LIMIT, Server, config, count};
use crate::wire::{Framing, Pattern, PatternMember, SEED, Wire, reset_on_close, write_body};
use crate::{Dice, alone};

/// Clients at a time, each on source addresses of its own, so that ports suffice.
const CLIENTS: u64 = 24;
/// Source addresses of one client.
const SOURCES: u64 = 4;
/// Seconds that a member's idle connection is kept in this test.
const MEMBER_TIMEOUT: u64 = 5;

/// What the clients together have seen.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicU64,
    cut: AtomicU64,
    /// The server ended a connection that the client was about to cut anyway.
    ended_by_server: AtomicU64,
}

fn connect(web: SocketAddr, source: u64) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let host = [127, 0, 1 + (source / 250) as u8, 1 + (source % 250) as u8];
    socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
    socket.connect(&web.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Bytes of a request, or of several, that are sent up to a random point.
fn script(dice: &mut Dice) -> Vec<u8> {
    static BODY: [u8; 30_000] = [b'b'; 30_000];
    let len = BODY.len();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes();
    match dice.below(6) {
        0 => get("/"),
        1 => get("/page"),
        2 => get("/").repeat(2 + dice.below(12) as usize),
        3 => get("/page").repeat(2 + dice.below(4) as usize),
        4 => {
            let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), &BODY].concat()
        }
        _ => {
            let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = format!("{len:x}\r\n");
            [head.as_bytes(), chunk.as_bytes(), &BODY, b"\r\n0\r\n\r\n"].concat()
        }
    }
}

/// One connection that is cut: at a random byte of what it sends, after a random number of bytes
/// that it reads, by RST or FIN.
fn cut_somewhere(stream: TcpStream, dice: &mut Dice) -> Result<()> {
    let all = script(dice);
    let sent = match dice.below(4) {
        0 => 0,
        1 => dice.below(28),
        2 => dice.below(all.len() as u64 + 1),
        _ => all.len() as u64,
    } as usize;
    if dice.below(2) == 0 {
        reset_on_close(&stream);
    }
    let middle = dice.below(sent as u64 + 1) as usize;
    (&stream).write_all(&all[..middle])?;
    (0..dice.below(20)).for_each(|_| std::thread::yield_now());
    (&stream).write_all(&all[middle..sent])?;
    if sent == all.len() {
        if dice.below(4) == 0 {
            stream.shutdown(Shutdown::Write)?;
        }
        if dice.below(2) == 0 {
            let mut some = vec![0; 1 + dice.below(3_000) as usize];
            if (&stream).read(&mut some)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
    (0..dice.below(20)).for_each(|_| std::thread::yield_now());
    Ok(())
}

/// One connection with whole requests: the others must not suffer from those that are cut.
fn whole(stream: TcpStream, dice: &mut Dice) {
    let mut wire = Wire::over(stream);
    let mut done = Vec::new();
    for _ in 0..=dice.below(3) {
        let (kind, sent) = if dice.below(2) == 0 {
            ("GET", wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n"))
        } else {
            let len = 1 + dice.below(50_000);
            let announced = Framing::Chunked.header(len);
            let head = wire.send(&format!("POST / HTTP/1.1\r\nHost: test\r\n{announced}\r\n"));
            let (written, mut pattern) = (AtomicU64::new(0), Pattern::new(SEED));
            let out = wire.stream();
            ("POST", head.and(write_body(out, Framing::Chunked, len, &mut pattern, &written)))
        };
        let head = match wire.head() {
            Ok(Some(head)) => head,
            other => panic!("{kind} (sent: {sent:?}) got {other:?}; before: {done:?}"),
        };
        assert_eq!(head.first, "HTTP/1.1 200 OK", "{kind} after {done:?}");
        wire.text(&head).unwrap();
        // The member may have answered before it had the whole body.
        if head.text.contains("\r\nConnection: close\r\n") {
            return;
        }
        done.push((kind, head.text));
    }
}

fn client(web: SocketAddr, number: u64, connections: u64, tally: &Tally) {
    let mut dice = Dice::new(SEED + number);
    for n in 0..connections {
        let stream = connect(web, number * SOURCES + n % SOURCES);
        if dice.below(16) == 0 {
            whole(stream, &mut dice);
            tally.whole.fetch_add(1, Relaxed);
            continue;
        }
        match cut_somewhere(stream, &mut dice) {
            Ok(()) => tally.cut.fetch_add(1, Relaxed),
            Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("{number}, {n}: no answer"),
            Err(_) => tally.ended_by_server.fetch_add(1, Relaxed),
        };
    }
}

/// 100,000 connections opened and ended at random points leave nothing behind, not even an idle
/// connection to a member once its time is over.
#[test]
fn connections_cut_anywhere_leave_nothing_behind() {
    let _turn = alone();
    let nginx = Nginx::start(&["n"]);
    let pattern = PatternMember::start();
    let text = config("\"auto\"", 5, 0, &[(nginx.addrs[0], 3), (pattern.addr, 1)]);
    let limit = format!("member_timeout = {MEMBER_TIMEOUT}\ndefault_pool");
    let server = Server::start(&text.replace("default_pool", &limit));
    let tally = Tally::default();
    client(server.web, 0, 50, &tally);
    let before = Alive::at_rest(&server);
    let start = clock::mono();
    let each = count(4_000, 100_000) / CLIENTS + 1;
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (web, tally) = (server.web, &tally);
            scope.spawn(move || client(web, number, each, tally));
        }
    });
    println!("{} connections in {:?}: {tally:?}", CLIENTS * each, clock::mono().since(start));
    assert_eq!(Alive::at_rest(&server), before);
    println!("alive before and after: {before:?}; {} KiB resident", server.memory("VmHWM"));
    assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
    let accepted = server.sum("weir_connections_total") as u64;
    println!("{accepted} served; nginx said: {:?}", nginx.errors());
    assert!(tally.whole.load(Relaxed) > CLIENTS, "{tally:?}");
}
