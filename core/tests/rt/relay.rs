//! The byte relay between two real connections: all four ends live on one shard.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use weir_core::net::relay::{End, Moved, Patience, Peer, Relay, Streams};
use weir_core::rt::{self, ConnectOptions, Features, SendBuf, TcpStream, Timer};
use weir_core::time::clock;
use weir_core::tls::Stream;

use crate::support::{listener, on_shard};

pub const LONG: Patience =
    Patience { limit: Duration::from_secs(30), look: Duration::from_secs(30) };

/// A session: what the outside holds, and what is relayed between.
pub struct Session {
    pub client: TcpStream,
    pub member: TcpStream,
    pub near: Stream,
    pub far: Stream,
}

impl Session {
    pub async fn new() -> Session {
        let (client, near) = pair().await;
        let (far, member) = pair().await;
        Session { client, member, near: near.into(), far: far.into() }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let outside = TcpStream::connect(address, &ConnectOptions::default()).await.unwrap();
    (outside, listener.accept().await.unwrap().0)
}

/// Relays to the end.
pub async fn run(near: &Stream, far: &Stream, patience: impl Fn() -> Patience) -> (End, Moved) {
    let mut relay = Relay::new(None, None);
    let timer = Timer::new();
    let streams = Streams { client: near, member: far };
    let end = poll_fn(|cx| relay.poll(cx, streams, &timer, patience())).await;
    (end, relay.moved())
}

pub async fn read_all(stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(Some(lease)) = stream.recv().await {
        all.extend_from_slice(&lease);
    }
    all
}

pub fn pattern(len: usize, step: usize) -> Vec<u8> {
    (0..len).map(|at| (at * step / 7) as u8).collect()
}

#[test]
fn both_ways_at_once_and_each_end_by_itself() {
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let (up, down) = (pattern(3_000_000, 11), pattern(5_000_000, 13));
        let (client, member) = (Rc::new(client), Rc::new(member));
        for (stream, data) in [(&client, &up), (&member, &down)] {
            let (stream, data) = (Rc::clone(stream), data.clone());
            rt::spawn(async move {
                stream.send_copy(&data).await.unwrap();
                stream.shutdown_write().await.unwrap();
            });
        }
        let relayed = rt::timeout(Duration::from_secs(50), async {
            let wanted = (up.clone(), down.clone());
            let reading = Rc::clone(&member);
            let got = Rc::new(std::cell::RefCell::new(Vec::new()));
            let place = Rc::clone(&got);
            rt::spawn(async move {
                let all = read_all(&reading).await;
                place.replace(all);
            });
            let back = Rc::new(std::cell::RefCell::new(Vec::new()));
            let (place, reading) = (Rc::clone(&back), Rc::clone(&client));
            rt::spawn(async move {
                let all = read_all(&reading).await;
                place.replace(all);
            });
            let relayed = run(&near, &far, || LONG).await;
            while got.borrow().is_empty() || back.borrow().is_empty() {
                rt::yield_now().await;
            }
            assert!(*got.borrow() == wanted.0 && *back.borrow() == wanted.1, "other bytes");
            relayed
        });
        let (end, moved) = relayed.await.unwrap();
        assert_eq!(end, End::Finished);
        let (up, down) = (up.len() as u64, down.len() as u64);
        let wanted = Moved { from_client: up, to_member: up, from_member: down, to_client: down };
        assert_eq!(moved, wanted);
    });
}

#[test]
fn half_close_goes_through_and_the_other_way_goes_on() {
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        rt::spawn(async move {
            client.send_copy(b"question").await.unwrap();
            client.shutdown_write().await.unwrap();
            assert_eq!(read_all(&client).await, b"answer");
        });
        rt::spawn(async move {
            assert_eq!(read_all(&member).await, b"question");
            member.send_copy(b"ans").await.unwrap();
            rt::yield_now().await;
            member.send_copy(b"wer").await.unwrap();
            member.shutdown_write().await.unwrap();
            assert_eq!(read_all(&member).await, b"");
        });
        assert_eq!(run(&near, &far, || LONG).await.0, End::Finished);
    });
}

/// TCP segments that the kernel has received on a connection.
fn segments_in(stream: &TcpStream) -> u32 {
    stream.tcp_info().unwrap().segments_in
}

/// Where the end is known with the last bytes, both go on in one segment: each of them costs a way
/// through the kernel's stack, and so does its acknowledgement.
#[test]
fn the_last_bytes_take_the_fin_along() {
    let at_once = Features::from_environment().unwrap().multishot_recv;
    on_shard(move || async move {
        let Session { client, member, near, far } = Session::new().await;
        member.send_copy(b"last words").await.unwrap();
        member.shutdown_write().await.unwrap();
        let before = segments_in(&client);
        rt::spawn(async move {
            assert_eq!(read_all(&client).await, b"last words");
            let came = segments_in(&client) - before;
            assert_eq!(came, if at_once { 1 } else { 2 });
        });
        assert_eq!(run(&near, &far, || LONG).await.0, End::Finished);
    });
}

#[test]
fn a_reset_is_told_and_what_came_before_it_arrives() {
    on_shard(|| async {
        for breaks in [Peer::Client, Peer::Member] {
            let Session { client, member, near, far } = Session::new().await;
            let (breaker, other) = match breaks {
                Peer::Client => (client, member),
                Peer::Member => (member, client),
            };
            rt::spawn(async move {
                breaker.send_copy(b"last words").await.unwrap();
                breaker.flush().await.unwrap();
                breaker.reset();
            });
            let (end, _) = run(&near, &far, || LONG).await;
            assert_eq!(end, End::Broken(breaks, ErrorKind::ConnectionReset));
            near.reset_on_close();
            far.reset_on_close();
            let words = other.recv().await;
            // A reset throws away what the other side's kernel hasn't read; bytes, if any come,
            // are the right ones.
            if let Ok(Some(words)) = words {
                assert_eq!(&*words, b"last words");
            }
            drop((near, far));
            while let Ok(lease) = other.recv().await {
                assert!(lease.is_some(), "the other side saw an orderly end");
            }
        }
    });
}

#[test]
fn bytes_that_are_there_already_go_first() {
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let first = |text: &[u8]| {
            let mut buf = SendBuf::new();
            buf.extend_from_slice(text);
            Some(buf.into())
        };
        let mut relay = Relay::new(first(b"up "), first(b"down "));
        for stream in [&client, &member] {
            stream.send_copy(b"more").await.unwrap();
            stream.shutdown_write().await.unwrap();
        }
        let timer = Timer::new();
        let streams = Streams { client: &near, member: &far };
        let end = poll_fn(|cx| relay.poll(cx, streams, &timer, LONG)).await;
        assert_eq!(end, End::Finished);
        let wanted = Moved { from_client: 4, to_member: 7, from_member: 4, to_client: 9 };
        assert_eq!(relay.moved(), wanted);
        assert_eq!(read_all(&member).await, b"up more");
        assert_eq!(read_all(&client).await, b"down more");
    });
}

#[test]
fn quiet_sessions_end_and_the_limit_may_change() {
    on_shard(|| async {
        const LIMIT: Duration = Duration::from_millis(300);
        let Session { client, member, near, far } = Session::new().await;
        // Bytes of either side count: the session outlives several limits.
        let talk = rt::spawn(async move {
            for turn in 0..8 {
                rt::sleep(LIMIT / 4).await;
                let speaker = if turn % 2 == 0 { &client } else { &member };
                speaker.send_copy(b"x").await.unwrap();
            }
            poll_fn(|_| std::task::Poll::<()>::Pending).await;
        });
        let start = clock::mono();
        let patience = Patience { limit: LIMIT, look: LIMIT };
        let (end, moved) = run(&near, &far, || patience).await;
        let took = clock::mono().since(start);
        assert_eq!((end, moved.from_client, moved.to_client), (End::Idle, 4, 4));
        assert!(took >= LIMIT * 3, "{took:?}");
        talk.abort();

        // An hour's patience becomes short while the session is quiet.
        let Session { client, member, near, far } = Session::new().await;
        let start = clock::mono();
        let shrinking = || {
            let early = clock::mono().since(start) < LIMIT / 2;
            let limit = if early { Duration::from_secs(3_600) } else { LIMIT };
            Patience { limit, look: LIMIT }
        };
        assert_eq!(run(&near, &far, shrinking).await.0, End::Idle);
        assert!(clock::mono().since(start) >= LIMIT);
        drop((client, member));
    });
}

/// A receiver that doesn't read holds the sender back, and only a few leases are lent meanwhile.
#[test]
fn a_stuck_receiver_holds_little() {
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let sending = rt::spawn(async move {
            // More than the kernel's buffers take on both connections.
            let _cut = client.send_copy(&vec![7; 64 << 20]).await;
        });
        let patience =
            Patience { limit: Duration::from_millis(500), look: Duration::from_millis(500) };
        let (end, moved) = run(&near, &far, || patience).await;
        assert_eq!(end, End::Idle);
        assert!(moved.from_client < 32 << 20, "{moved:?}");
        assert!(moved.from_client - moved.to_member <= 64 << 10, "{moved:?}");
        assert!(rt::audit().leases <= 8, "{:?}", rt::audit());
        sending.abort();
        drop(member);
    });
}
