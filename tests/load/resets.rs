//! Connections that end anywhere: before a byte, in the head, in the body, in the answer, by FIN or
//! RST. Afterwards nothing of them is left in the process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::count;
use crate::process::{LIMIT, Member, Server, config, get, until};
use crate::watch::{descriptors, sum};

/// Dice with a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a client may have sent when it goes away; cut anywhere.
const REQUESTS: [&str; 4] = [
    "GET / HTTP/1.1\r\nHost: test\r\nAccept: */*\r\n\r\n",
    "GET /1 HTTP/1.1\r\nHost: test\r\n\r\nGET /2 HTTP/1.1\r\nHost: test\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\n\r\n01234567890123456789",
    "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
];

/// One connection's life. Errors are what it is about.
fn one_life(web: SocketAddr, source: SocketAddr, dice: &mut Dice) -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(source))?;
    if dice.below(2) == 0 {
        socket.set_linger(Some(std::time::Duration::ZERO))?;
    }
    socket.connect_timeout(&SockAddr::from(web), LIMIT)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT))?;
    let request = REQUESTS[dice.below(4) as usize].as_bytes();
    let cut = match dice.below(3) {
        0 => request.len(),
        _ => dice.below(request.len() as u64 + 1) as usize,
    };
    stream.write_all(&request[..cut])?;
    if cut == request.len() {
        // Some read a part of the answer, some all that there is.
        let mut some = vec![0; 1 + dice.below(60) as usize];
        if dice.below(2) == 0 {
            let _part = stream.read(&mut some)?;
        }
    }
    Ok(())
}

/// 100,000 connections opened and ended at random points leave no descriptor, operation, stream or
/// receive buffer behind.
#[test]
fn connections_that_end_anywhere_leave_nothing_behind() {
    const LANES: u64 = 16;
    let lives = count(100_000, 4_000) / LANES;
    let member = Member::start("m");
    let server = Server::start(&config("\"auto\"", 5, 0, &[(member.addr, 1)]));
    assert_eq!(get(server.admin, "/healthz").status, 200);
    let own = ["weir_ring_streams", "weir_ring_operations", "weir_ring_tasks", "weir_ring_leases"];
    let before = own.map(|name| sum(&server, name));
    let descriptors_before = descriptors(&server);
    let web = server.web;
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            std::thread::spawn(move || {
                let mut dice = Dice(lane * 7_919 + 1);
                // Its own address, so that ports suffice.
                let source: SocketAddr = ([127, 0, 1, lane as u8 + 1], 0).into();
                (0..lives).filter(|_| one_life(web, source, &mut dice).is_ok()).count()
            })
        })
        .collect();
    let whole: usize = lanes.into_iter().map(|lane| lane.join().unwrap()).sum();
    assert!(whole > 0, "no connection came about");
    until("no client connection is left", || sum(&server, "weir_active_connections") == 0.0);
    // Idle connections to the member stay: one stream, one operation, one descriptor each.
    let kept = || sum(&server, "weir_member_active_connections");
    let due = || [before[0] + kept(), before[1] + kept(), before[2], before[3]];
    until("streams, operations, tasks and leases are back", || {
        own.map(|name| sum(&server, name)) == due()
    });
    until("descriptors are back", || {
        descriptors(&server) as f64 <= descriptors_before as f64 + kept()
    });
    assert_eq!(sum(&server, "weir_ring_task_panics_total"), 0.0);
    // Those reset before they were accepted have no peer any more, and are not counted.
    let served = sum(&server, "weir_connections_total");
    println!("{} lives, {whole} without an error, {served} served", lives * LANES);
    assert!(served >= (lives * LANES) as f64 * 0.3, "{served} served");
}
