//! Many peers that do not read: what Weir holds for them is bounded, and others are served.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use weir_core::limits::{BufferShape, LARGE_BUFFERS, SMALL_BUFFERS};
use weir_core::time::clock;

use crate::process::{LIMIT, Server, pass_time, until};
use crate::{Plan, address, connect, talk};

/// Sessions that are stuck both ways.
const SESSIONS: usize = 48;
/// Bytes that each of their ends wants to send: more than the kernel keeps on both sides of the
/// balancer (4 MiB that wait to be sent, and what was received).
const BODY: usize = 16 << 20;
/// Bytes of the receive buffers of their ends, for which the kernel has a least size.
const NARROW: usize = 4 << 10;
/// No byte moved for so long: all is stuck.
const STILL: Duration = Duration::from_millis(750);
/// What a session costs beside its data, in bytes; an idle one has less.
const SESSION: usize = 4 << 10;

/// KiB by which the process may have grown: the leases that a shard may have (`docs/tcp.md`), and
/// its sessions.
fn bound() -> u64 {
    let group = |group: BufferShape| group.total as usize * group.size;
    let leases = group(LARGE_BUFFERS) + group(SMALL_BUFFERS);
    ((leases + SESSIONS * SESSION) >> 10) as u64
}

/// A socket that receives little.
fn narrow() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(NARROW).unwrap();
    socket
}

/// A member whose connections receive little; they come out of the channel.
fn narrow_member() -> (SocketAddr, Receiver<TcpStream>) {
    let socket = narrow();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(1_024).unwrap();
    let listener = TcpListener::from(socket);
    let (addr, (sender, came)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    (addr, came)
}

/// One end of a session, with the bytes that it has still to send.
struct End(TcpStream, usize);

impl End {
    /// Sends what is taken without waiting.
    fn push(&mut self) {
        let zeros = [0; 64 << 10];
        while self.1 > 0 {
            match self.0.write(&zeros[..zeros.len().min(self.1)]) {
                Ok(sent) => self.1 -= sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// All ends send until nothing moves any more; bytes that Weir has taken.
fn push_until_still(ends: &mut [End], server: &Server) -> f64 {
    let taken =
        || server.sum("weir_received_bytes_total") + server.sum("weir_member_received_bytes_total");
    let end = clock::mono().plus(LIMIT * 3);
    let (mut value, mut since) = (0.0, clock::mono());
    while value == 0.0 || clock::mono().since(since) < STILL {
        assert!(clock::mono() < end, "it never stopped: {value}");
        ends.iter_mut().for_each(End::push);
        pass_time(Duration::from_millis(20));
        let now = taken();
        if now != value {
            (value, since) = (now, clock::mono());
        }
    }
    value
}

/// R6.4-2: sessions whose ends send much and read nothing hold the leases that the limits allow,
/// not what is sent; the senders are held back, others are served, and all leases come back.
#[test]
fn crowds_that_read_nothing_hold_little() {
    weir_core::net::sys::raise_nofile().unwrap();
    let (member, came) = narrow_member();
    let plan = Plan::new(1).listener("web", 0, "app", "").pool("app", "", &[(member, 1)]);
    // One shard, since each has leases of its own.
    let server = Server::start(&plan.text().replace("\"auto\"", "[0]"));
    let web = address(&server, "web");
    talk(&mut connect(web), &mut came.recv_timeout(LIMIT).unwrap());
    let before = server.memory("VmRSS");
    let mut ends = Vec::new();
    for _ in 0..SESSIONS {
        let client = narrow();
        client.connect(&web.into()).unwrap();
        for stream in [client.into(), came.recv_timeout(LIMIT).unwrap()] {
            SockRef::from(&stream).set_nonblocking(true).unwrap();
            ends.push(End(stream, BODY));
        }
    }
    let taken = push_until_still(&mut ends, &server);
    let (grown, bound) = (server.memory("VmHWM").saturating_sub(before), bound());
    let offered = (ends.len() * BODY) as u64 >> 10;
    println!("{grown} KiB grown of {bound}; {taken} bytes taken of {offered} KiB");
    assert!(offered > 3 * bound, "too little to tell");
    assert!(grown < bound, "{grown} KiB, {bound} at most");
    let left: usize = ends.iter().map(|end| end.1).sum();
    assert!(left > 0, "nobody was held back");
    let mut other = connect(web);
    let mut upstream = came.recv_timeout(LIMIT).unwrap();
    talk(&mut other, &mut upstream);
    drop(ends);
    until("all leases back", || server.sum("weir_ring_leases") == 0.0);
    talk(&mut other, &mut upstream);
}
