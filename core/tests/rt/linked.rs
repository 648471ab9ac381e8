//! Connections that begin with bytes: a connect and its first send in one submission. Whatever
//! becomes of either, the bytes arrive once or come back. And what is received for such a
//! beginning: one lease.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weir_core::limits::SMALL_LEASE;
use weir_core::rt::{
    self, ConnectOptions, FaultPlan, Features, Payload, RingStats, SendBuf, ShardConfig,
    TcpListener, TcpStream, Unconnected,
};

use crate::basics::pair;
use crate::support::{DEADLINE, listener, on_faulty_shard, on_shard};

/// An address where nobody listens; the port stays taken as long as the socket lives.
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// A listener whose queue is full: connects get no answer.
fn silent() -> (StdListener, Vec<StdStream>, SocketAddr) {
    let (socket, _) = nobody();
    socket.listen(0).unwrap();
    let full = StdListener::from(socket);
    let addr = full.local_addr().unwrap();
    let fill = |_| StdStream::connect_timeout(&addr, Duration::from_millis(300)).ok();
    let held: Vec<StdStream> = (0..4).map_while(fill).collect();
    assert!(held.len() < 4, "its queue does not fill");
    (full, held, addr)
}

/// So many bytes that tell where they stand.
fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 251 * 7 + n + salt) as u8).collect()
}

fn payload(bytes: &[u8]) -> Option<Payload> {
    let mut buf = SendBuf::new();
    buf.extend_from_slice(bytes);
    Some(buf.into())
}

fn text(payload: Option<&Payload>) -> Vec<u8> {
    let mut out = Vec::new();
    payload.unwrap().append_to(&mut out);
    out
}

/// All until FIN.
async fn read_all(stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(lease) = stream.recv().await.unwrap() {
        all.extend_from_slice(&lease);
    }
    all
}

async fn far(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

/// Every kind of payload goes out, counts as sent, and what is posted next comes behind it.
#[test]
fn first_bytes_arrive_first() {
    on_shard(|| async {
        let (listener, addr) = listener();
        let (near, other) = pair(&listener).await;
        near.send(&b" lease"[..]).await.unwrap();
        let lease = other.recv().await.unwrap().unwrap();
        let mut head = SendBuf::new();
        head.extend_from_slice(b"head");
        let all: [(Option<Payload>, &[u8]); 4] = [
            (Some((&b"static"[..]).into()), b"static"),
            (payload(b"buffer"), b"buffer"),
            (Some((head, lease).into()), b"head lease"),
            (None, b""),
        ];
        for (first, wanted) in all {
            let options = ConnectOptions::default();
            let stream = TcpStream::connect_with(addr, &options, first).await.unwrap();
            let far = far(&listener).await;
            stream.send(&b", next"[..]).await.unwrap();
            stream.shutdown_write().await.unwrap();
            assert_eq!(stream.bytes_sent(), wanted.len() as u64 + 6);
            assert_eq!(read_all(&far).await, [wanted, b", next"].concat());
        }
        let empty = TcpStream::connect_with(addr, &ConnectOptions::default(), payload(b"")).await;
        assert!(empty.unwrap().may_post());
    });
}

/// Refused, or without an answer in time: the bytes come back, for whoever is asked next.
#[test]
fn who_cannot_be_connected_gives_the_bytes_back() {
    on_shard(|| async {
        let (_taken, dead) = nobody();
        let (_full, _held, silent) = silent();
        let (listener, addr) = listener();
        let mut options = ConnectOptions::default();
        let mut first = payload(b"question");
        for (member, kind) in [(dead, ErrorKind::ConnectionRefused), (silent, ErrorKind::TimedOut)]
        {
            options.timeout = Some(Duration::from_millis(50));
            let failed = TcpStream::connect_with(member, &options, first).await;
            let Unconnected { error, first: back } = failed.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert_eq!(text(back.as_ref()), b"question");
            first = back;
        }
        // One that is not even tried: no such address of ours.
        let source = Some(SocketAddr::from(([192, 0, 2, 1], 0)));
        let elsewhere = ConnectOptions { source, ..ConnectOptions::default() };
        let failed = TcpStream::connect_with(addr, &elsewhere, first).await.unwrap_err();
        assert_eq!(failed.error.kind(), ErrorKind::AddrNotAvailable);
        let stream = TcpStream::connect_with(addr, &options, failed.first).await.unwrap();
        stream.shutdown_write().await.unwrap();
        assert_eq!(read_all(&far(&listener).await).await, b"question");
    });
}

/// Nobody waits any more: both operations end, and the bytes with them (the shard looks).
#[test]
fn a_dropped_connect_leaves_nothing_behind() {
    on_shard(|| async {
        let (_full, _held, silent) = silent();
        let (_listener, addr) = listener();
        for turns in 0..6 {
            for addr in [silent, addr] {
                let (options, first) = (ConnectOptions::default(), payload(b"for nobody"));
                let mut connecting = Box::pin(TcpStream::connect_with(addr, &options, first));
                let polled = poll_fn(|cx| Poll::Ready(connecting.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
                for _ in 0..turns {
                    rt::yield_now().await;
                }
            }
        }
    });
}

/// On a ring that misbehaves: what a member gets is what was to be sent, once; what it does not get
/// comes back whole.
fn first_bytes_survive(faults: FaultPlan) {
    on_faulty_shard(faults, || async {
        let (_taken, dead) = nobody();
        let (listener, addr) = listener();
        let done = Rc::new(Cell::new(0));
        let lanes = 8;
        for lane in 0..lanes {
            let done = Rc::clone(&done);
            rt::spawn(async move {
                for n in 0..30 {
                    let options = ConnectOptions::default();
                    let said = bytes(8 + (lane * 37 + n * 1_237) % 60_000, n);
                    let mut first = payload(&said);
                    if n % 3 == 0 {
                        let failed = TcpStream::connect_with(dead, &options, first).await;
                        first = failed.unwrap_err().first;
                        assert_eq!(text(first.as_ref()), said);
                    }
                    let stream = TcpStream::connect_with(addr, &options, first).await.unwrap();
                    stream.shutdown_write().await.unwrap();
                    // The far side sends back what it got.
                    assert_eq!(read_all(&stream).await, said);
                }
                done.set(done.get() + 1);
            });
        }
        let server = rt::spawn(async move {
            while let Ok((far, _)) = listener.accept().await {
                rt::spawn(async move {
                    let all = read_all(&far).await;
                    far.send_copy(&all).await.unwrap();
                    far.shutdown_write().await.unwrap();
                });
            }
        });
        while done.get() < lanes {
            rt::sleep(Duration::from_millis(2)).await;
        }
        server.abort();
    });
}

#[test]
fn first_bytes_survive_every_fault() {
    let none = FaultPlan { seed: 11, ..FaultPlan::default() };
    first_bytes_survive(none);
    first_bytes_survive(FaultPlan { short_send: 500, ..none });
    first_bytes_survive(FaultPlan { cancel: 300, ..none });
    first_bytes_survive(FaultPlan { tiny_queue: true, ..none });
    first_bytes_survive(FaultPlan {
        starve: 100,
        cancel: 200,
        short_send: 300,
        end_multishot: 200,
        tiny_queue: true,
        ..none
    });
}

/// Calls into the kernel from the begin of so many connects, one after the other, until their bytes
/// are taken.
fn enters(features: Features, connects: u64) -> u64 {
    let stats: Arc<RingStats> = Arc::default();
    let counted = Arc::clone(&stats);
    let config = ShardConfig {
        name: "test".into(),
        stats,
        features: Some(features),
        ..ShardConfig::default()
    };
    let shard = rt::start_shard(config, move || async move {
        let (_listener, addr) = listener();
        let options = ConnectOptions::default();
        let mut streams = Vec::new();
        let start = counted.enters.get();
        for _ in 0..connects {
            let first = payload(b"question");
            let stream = TcpStream::connect_with(addr, &options, first).await.unwrap();
            stream.flush().await.unwrap();
            streams.push(stream);
        }
        counted.enters.get() - start
    });
    shard.unwrap().join().unwrap()
}

/// The point of it: one call less a connection.
#[test]
fn a_connect_takes_its_bytes_along() {
    let connects = 100;
    let linked = enters(Features::ALL, connects);
    let single = enters(Features { linked_sends: false, ..Features::ALL }, connects);
    println!("{linked} calls for {connects} connections, {single} without links");
    assert!(linked + connects / 2 < single, "{linked} calls, {single} without links");
}

/// Before anybody can take more, one lease is received, however much there is; then all of it.
#[test]
fn the_first_bytes_are_one_lease() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let said = bytes(20 * SMALL_LEASE, 3);
        near.send_copy(&said).await.unwrap();
        near.flush().await.unwrap();
        far.begin_first();
        let heard = poll_fn(|cx| far.poll_first(cx)).await.unwrap();
        for _ in 0..8 {
            rt::yield_now().await;
        }
        let lease = far.take_first().unwrap();
        assert!(lease.len() == heard && heard <= SMALL_LEASE);
        assert!(far.take_first().is_none());
        assert_eq!(far.bytes_received(), lease.len() as u64, "more was received");
        near.shutdown_write().await.unwrap();
        let mut all = lease.to_vec();
        drop(lease);
        all.extend(read_all(&far).await);
        assert!(all == said);
    });
}

/// Whether a connection breaks can be waited for without taking its bytes, or its FIN; and what is
/// asked for next ends that.
#[test]
fn breaks_are_seen_without_receiving() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        near.send_copy(b"question").await.unwrap();
        near.shutdown_write().await.unwrap();
        let broken = poll_fn(|cx| far.poll_broken(cx));
        assert!(rt::timeout(Duration::from_millis(30), broken).await.is_err());
        assert_eq!(far.bytes_received(), 0);
        assert_eq!(read_all(&far).await, b"question");

        for ends in [false, true] {
            let (near, far) = pair(&listener).await;
            near.send_copy(b"question").await.unwrap();
            assert_eq!(poll_fn(|cx| far.poll_first(cx)).await.unwrap(), 8);
            assert_eq!(&*far.take_first().unwrap(), b"question");
            let mut broken = Box::pin(poll_fn(|cx| far.poll_broken(cx)));
            assert!(rt::timeout(Duration::from_millis(10), &mut broken).await.is_err());
            if ends {
                near.shutdown_write().await.unwrap();
                assert!(rt::timeout(Duration::from_millis(10), &mut broken).await.is_err());
            }
            near.reset();
            rt::timeout(DEADLINE, broken).await.expect("the break is not seen");
            assert!(far.recv().await.is_err());
        }
    });
}
