//! What a warm TCP connection or UDP flow carries costs no allocation: shown by counting what the
//! shard's thread asks of the allocator. One test only, since the count is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../../core/tests/rt/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use weir_core::control::State;
use weir_core::model::{self, Config, Handles, Protocol};
use weir_core::obs::Board;
use weir_core::rt;
use weir_core::table::{Site, View};
use weir_core::time::clock;
use weir_l4::{Origin, Tcp, Udp};

/// Longest wait for anything that should come at once.
const SOON: Duration = Duration::from_secs(10);

/// What the test asks of the shard; `None` = end.
type Ask = Option<mpsc::Sender<u64>>;

/// A shard with a TCP and a UDP listener in front of one member that serves both.
struct Shard {
    tcp: SocketAddr,
    udp: SocketAddr,
    asks: rt::Sender<Ask>,
    handle: Option<rt::ShardHandle<()>>,
}

impl Shard {
    fn start(member: SocketAddr) -> Shard {
        let (asks, receiver) = rt::mailbox(4);
        let (tell, told) = mpsc::channel();
        let config = rt::ShardConfig { name: "test-shard".into(), ..rt::ShardConfig::default() };
        let handle = rt::start_shard(config, move || main(member, receiver, tell)).unwrap();
        let (tcp, udp) = told.recv_timeout(SOON).unwrap();
        Shard { tcp, udp, asks, handle: Some(handle) }
    }

    /// Allocations of the shard's thread so far. Asking costs some itself.
    fn allocations(&self) -> u64 {
        let (tell, told) = mpsc::channel();
        assert!(self.asks.try_send(Some(tell)).is_ok());
        told.recv_timeout(SOON).unwrap()
    }

    /// Allocations that so many rounds cause.
    fn cost(&self, rounds: usize, round: &mut dyn FnMut()) -> u64 {
        let before = self.allocations();
        (0..rounds).for_each(|_| round());
        self.allocations() - before
    }

    fn allocates_nothing(&self, what: &str, mut round: impl FnMut()) {
        // Pools and queues reach their size; asking has its own price. On a busy machine a queue
        // grows now and then all the same; what a round costs shows every time.
        let mut extra = || {
            self.cost(50, &mut round);
            let asking = self.cost(0, &mut round);
            self.cost(200, &mut round).saturating_sub(asking)
        };
        let extras: Vec<u64> = (0..5).map(|_| extra()).take_while(|n| *n > 0).collect();
        assert!(extras.len() < 5, "{extras:?} allocations in 200 times {what}, each time");
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let _gone = self.asks.try_send(None);
        let _ended = self.handle.take().map(rt::ShardHandle::join);
    }
}

/// A site for each protocol, with the member behind it.
fn site(protocol: Protocol, member: SocketAddr) -> Rc<Site> {
    let listener = model::Listener {
        name: "web".into(),
        protocol,
        default_pool: Some(0),
        keepalive_timeout: Duration::from_secs(60),
        ..model::Listener::default()
    };
    let pool = model::Pool {
        name: "app".into(),
        members: vec![model::Member {
            id: model::Id::from_u128(1),
            name: "a".into(),
            address: member,
            weight: 1,
        }],
        ..model::Pool::default()
    };
    let config = Config {
        balancers: vec![model::Balancer::default()],
        listeners: vec![listener],
        pools: vec![pool],
        ..Config::default()
    };
    let state = State::default().next(&config, &|_| vec![0], &mut Handles::default());
    let (handles, members) = (state.listeners(), state.members());
    let handles: Vec<_> = handles.map(|(handle, _)| handle).collect();
    let members: Vec<_> = members.map(|(_, member)| member.handle).collect();
    let board = Board::default().next(1, handles.iter().copied(), members.into_iter());
    let view = View::new(0, 7);
    view.apply(&State::default().diff(&state), &Arc::new(board), clock::mono(), true);
    view.site(handles[0]).unwrap()
}

async fn main(
    member: SocketAddr,
    mut asks: rt::Receiver<Ask>,
    tell: mpsc::Sender<(SocketAddr, SocketAddr)>,
) {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let options = rt::ListenOptions { backlog: 16, reuse_port: false };
    let listener = rt::TcpListener::bind(any, &options).unwrap();
    let socket = Rc::new(rt::UdpSocket::bind(any, rt::UdpOptions::default()).unwrap());
    tell.send((listener.local_addr().unwrap(), socket.local_addr().unwrap())).unwrap();
    let (tcp, udp) = (Tcp::start(), Udp::start());
    udp.open(&site(Protocol::Udp, member), socket);
    let (site, serving) = (site(Protocol::Tcp, member), Rc::clone(&tcp));
    let accepting = rt::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let ticket = site.admit(peer.ip(), rt::now()).unwrap();
            rt::spawn(Rc::clone(&serving).serve(ticket, stream, Origin::of(peer)));
        }
    });
    while let Some(Some(tell)) = asks.recv().await {
        tell.send(counting::so_far()).unwrap();
    }
    accepting.abort();
    let _ended = rt::timeout(SOON, tcp.idle()).await;
}

/// A member that sends back what comes, by TCP and by UDP.
fn echo() -> SocketAddr {
    let (listener, socket) = (0..20)
        .find_map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = UdpSocket::bind(listener.local_addr().unwrap()).ok()?;
            Some((listener, socket))
        })
        .unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = stream.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut reader, &mut stream));
        }
    });
    std::thread::spawn(move || {
        let mut buf = [0; 2_048];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _asker_is_gone = socket.send_to(&buf[..len], from);
        }
    });
    addr
}

#[test]
fn warm_flows_allocate_nothing() {
    let shard = Shard::start(echo());
    let mut stream = TcpStream::connect(shard.tcp).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut talk = |bytes: &[u8]| {
        stream.write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).unwrap();
    };
    // The count counts: a connection's beginning does allocate.
    assert!(shard.cost(1, &mut || talk(b"hello")) > 0);
    shard.allocates_nothing("a few bytes by TCP", || talk(b"hello"));
    shard.allocates_nothing("200 kB by TCP", || talk(&[7; 200_000]));

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(shard.udp).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let ask = |bytes: &[u8]| {
        socket.send(bytes).unwrap();
        assert_eq!(socket.recv(&mut [0; 2_048]).unwrap(), bytes.len());
    };
    assert!(shard.cost(1, &mut || ask(b"hello")) > 0);
    shard.allocates_nothing("a datagram", || ask(b"hello"));
    shard.allocates_nothing("datagrams of any size", || {
        [0, 1, 1_400].into_iter().for_each(|len| ask(&vec![7; len]));
    });
}
