//! A listener that is deleted while its connections and flows are busy.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::echo::{self, Client};
use crate::plan;
use crate::process::{LIMIT, Server, address_after, until};

/// Clients of each listener.
const EACH: usize = 6;

/// What clients and test tell each other.
#[derive(Default)]
struct Board {
    /// Answers to clients of listeners that go, and of those that stay.
    going: AtomicU64,
    staying: AtomicU64,
    /// The deletion is asked for, and it is done.
    begun: AtomicBool,
    deleted: AtomicBool,
    over: AtomicBool,
}

/// Ends the clients with the test, however that ends.
struct Ending<'a>(&'a Board);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.deleted.store(true, Relaxed);
        self.0.over.store(true, Relaxed);
    }
}

/// Talks until the connection is cut, and says how it was. At most one answer may come after the
/// deletion: a session that sees it in the turn behind.
fn until_cut(mut client: Client, board: &Board) -> ErrorKind {
    let mut late = 0;
    while !board.over.load(Relaxed) {
        let deleted = board.deleted.load(Relaxed);
        if let Err(error) = client.ask("hello") {
            return error.kind();
        }
        board.going.fetch_add(1, Relaxed);
        late += u64::from(deleted);
        assert!(late <= 1, "it goes on after the deletion");
    }
    panic!("it was never cut")
}

/// Asks, and some times more after the deletion: how many answers there were to those.
fn until_silence(socket: &UdpSocket, board: &Board) -> u64 {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut late, mut asked_late) = (0, 0);
    for n in 0.. {
        let deleted = board.deleted.load(Relaxed);
        asked_late += u64::from(deleted);
        let answered = is_answered(socket, n);
        assert!(answered || board.begun.load(Relaxed), "a datagram was lost");
        board.going.fetch_add(1, Relaxed);
        late += u64::from(answered && deleted);
        if asked_late == 10 {
            break;
        }
    }
    late
}

/// Is there an answer to this question? Those to earlier ones may come first.
fn is_answered(socket: &UdpSocket, question: u64) -> bool {
    let mut buf = [0; 100];
    // A refusal of an earlier datagram is told here.
    let _refused = socket.send(question.to_string().as_bytes());
    while let Ok(len) = socket.recv(&mut buf) {
        if buf[..len].ends_with(format!(" {question}").as_bytes()) {
            return true;
        }
    }
    false
}

fn go_on(mut client: Client, board: &Board) {
    while !board.over.load(Relaxed) {
        client.ask("hello").expect("of another listener");
        board.staying.fetch_add(1, Relaxed);
    }
}

/// R6.3-1, C4: with a deletion the next bytes of its clients meet a reset, datagrams get no answer
/// any more, and the ports are closed, in the midst of what is said. What uses the same pools by
/// other listeners goes on.
#[test]
fn deleted_listeners_stop_under_traffic() {
    let stays = |name: &str, protocol: &str, pool: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"{protocol}\"\n\
             protocol_port = 0\ndefault_pool = \"{pool}\"\n"
        )
    };
    let more = stays("stream", "TCP", "web") + &stays("datagram", "UDP", "dns");
    let both = plan("", "", &[(echo::member(), 1)], &more);
    let without = |text: &str, name: &str| {
        let start = text.find(&format!("[[listener]]\nname = \"{name}\"")).unwrap();
        let end = start + text[start..].find("[[pool]]").unwrap();
        format!("{}{}", &text[..start], &text[end..])
    };
    let server = Server::start(&both);
    let at =
        |name: &str, scheme: &str| address_after(&server.ready, &format!("{name} {scheme}://"));
    let (web, dns) = (at("web", "tcp"), at("dns", "udp"));
    let client = |scheme: &str, to: SocketAddr| Client::from("127.0.0.1", scheme, to).unwrap();
    let board = Board::default();
    std::thread::scope(|scope| {
        let ending = Ending(&board);
        let (mut cut, mut silent) = (Vec::new(), Vec::new());
        for _ in 0..EACH {
            cut.push(scope.spawn(|| until_cut(client("tcp", web), &board)));
            silent.push(scope.spawn(|| until_silence(&echo::socket(dns), &board)));
            scope.spawn(|| go_on(client("tcp", at("stream", "tcp")), &board));
            scope.spawn(|| go_on(client("udp", at("datagram", "udp")), &board));
        }
        let passed = |count: &AtomicU64, more: u64| {
            let before = count.load(Relaxed);
            until("traffic", || count.load(Relaxed) >= before + more);
        };
        until("all to be there", || server.sum("weir_active_connections") == 4.0 * EACH as f64);
        passed(&board.going, 500);
        board.begun.store(true, Relaxed);
        let (code, out, err) = server.reload(&without(&without(&both, "web"), "dns"));
        board.deleted.store(true, Relaxed);
        for client in cut {
            let how = client.join().unwrap();
            assert!(matches!(how, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{how}");
        }
        for client in silent {
            assert_eq!(client.join().unwrap(), 0, "answers after the deletion");
        }
        passed(&board.staying, 500);
        drop(ending);
        assert_eq!(code, Some(0), "{out}{err}");
    });
    assert!(TcpStream::connect_timeout(&web, LIMIT).is_err(), "the port is open");
    UdpSocket::bind(dns).unwrap();
}
