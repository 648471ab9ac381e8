//! Many uploads to members that do not read: what Weir holds for them is bounded by the windows
//! that it opens, others are served, and all of them end well once the members go on.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::process::{Server, address_after, python, until};
use crate::serve::curl;
use crate::{Front, Origin};

/// Connections of clients …
const CONNECTIONS: usize = 3;
/// … and the uploads on each.
const STREAMS: usize = 8;
/// Bytes of an upload: more than the kernel keeps of it on its way to the member.
const BODY: usize = 8 << 20;
/// Bytes of body that a client's connection may bring before any has gone on
/// (`H2_CONNECTION_WINDOW`).
const WINDOW: usize = 512 << 10;
/// Bytes of the receive buffers that hold it, which are not full: as many as one connection may
/// have waiting (`MUX_WHOLE_LEASES`), of the large kind.
const LEASES: usize = 32 * (64 << 10);
/// Bytes on their way to the member: what waits and what is being sent (`LINK_SEND_BYTES`), for
/// each request at most.
const SENDING: usize = 2 * (64 << 10);
/// Bytes for all else: states of connections and streams, records of TLS.
const STATES: usize = 2 << 20;
/// KiB by which the process may grow.
const BOUND: u64 =
    ((CONNECTIONS * (WINDOW + LEASES) + CONNECTIONS * STREAMS * SENDING + STATES) >> 10) as u64;

/// `pressure.py` with these words, which is told to go on by a line.
struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(words: &[&str]) -> Peer {
        let mut command = python("tests/h2/pressure.py");
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Peer { child, input, output: BufReader::new(output) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn goes_on(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its end, but for one that waits for something else.
        drop(self.input.take());
        let _it_has_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One shard, whose HTTPS listener serves `/slow` by a member of this protocol, and all else by one
/// that reads.
fn front(slow: SocketAddr, protocol: &str, well: SocketAddr) -> Front {
    let text = Front::text(well, "client_timeout = 120\nmember_timeout = 120");
    let slow = format!(
        "[[pool]]\nname = \"slow\"\nprotocol = \"{protocol}\"\nlb_algorithm = \"ROUND_ROBIN\"\n\
         members = [ {{ address = \"{}\", protocol_port = {} }} ]\n\
         [[l7policy]]\nname = \"slow\"\nlistener = \"secure\"\naction = \"REDIRECT_TO_POOL\"\n\
         rules = [{{ type = \"PATH\", value = \"/slow\" }}]\nredirect_pool = \"slow\"\n",
        slow.ip(),
        slow.port()
    );
    let server = Server::start(&(text.replace("cores = [0, 1]", "cores = [0]") + &slow));
    let addr = address_after(&server.ready, "secure https://");
    Front { server, addr }
}

/// R6.4-2: what waits for members is held in few bytes, whichever version they speak.
fn crowd(kind: &str, protocol: &str) {
    let mut member = Peer::start(&["member", kind]);
    let slow = SocketAddr::from(([127, 0, 0, 1], member.line().parse().unwrap()));
    let well = Origin::start();
    let front = front(slow, protocol, well.addr);
    let served = || assert_eq!(curl(&front, "/bytes/10", &[]), "xxxxxxxxxx 2 200");
    served();
    let before = front.server.memory("VmRSS");
    let port = front.addr.port().to_string();
    let numbers = [CONNECTIONS, STREAMS, BODY].map(|number| number.to_string());
    let [count, streams, body] = &numbers;
    let mut client = Peer::start(&["upload", &port, count, streams, body]);
    let held = client.line();
    let (grown, leases) =
        (front.server.memory("VmHWM").saturating_sub(before), front.server.sum("weir_ring_leases"));
    let offered = CONNECTIONS * STREAMS * BODY;
    println!("{kind}: {held} of {offered} bytes, {leases} leases, {grown} KiB grown of {BOUND}");
    let taken: usize = held.strip_prefix("held ").unwrap().parse().unwrap();
    assert!(taken < offered / 4 * 3, "nobody was held back: {taken}");
    assert!(offered as u64 >> 10 > 3 * BOUND, "too little to tell");
    assert!(grown < BOUND, "{grown} KiB, {BOUND} at most");
    served();
    member.goes_on();
    client.goes_on();
    assert_eq!(client.line(), "all well");
    let grown = front.server.memory("VmHWM").saturating_sub(before);
    assert!(grown < BOUND, "{grown} KiB while all went on, {BOUND} at most");
    until("all leases back", || front.server.sum("weir_ring_leases") == 0.0);
}

#[test]
fn uploads_to_http1_members_that_read_nothing_hold_little() {
    crowd("http", "HTTP");
}

#[test]
fn uploads_to_http2_members_that_read_nothing_hold_little() {
    crowd("http2", "GRPC");
}
