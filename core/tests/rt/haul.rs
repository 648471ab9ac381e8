//! A known number of bytes through a pipe: those and no others, with every way to begin, to wait
//! and to end. With the feature off none begins.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use weir_core::limits::PIPES;
use weir_core::net::haul::{Broken, Haul, Step};
use weir_core::rt::{self, FaultPlan, Features, Lease, RingStats, TcpStream};

use crate::relay::{Session, pattern};
use crate::splice::{beside, pour, read_at_least, read_exactly, until};
use crate::support::{on_counting_shard, on_shard};

fn hauls_at_all() -> bool {
    Features::from_environment().unwrap().splice
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    Done,
    Leases(u64),
    Broken(Broken),
}

/// Moves `bytes` as HTTP does: what came before by leases, the rest through the pipe.
async fn haul(from: &TcpStream, to: &TcpStream, bytes: u64) -> Over {
    let Some(mut haul) = Haul::begin(from, to, bytes) else { return Over::Leases(bytes) };
    let mut left = bytes;
    let over = loop {
        let step = poll_fn(|cx| {
            let polled = haul.poll(cx, from, to);
            if polled != Poll::Ready(Ok(Step::Receive)) {
                return polled.map(|step| (step, None));
            }
            from.poll_recv(cx).map(|got| (Ok(Step::Receive), Some(got.unwrap().unwrap())))
        });
        match step.await {
            (Ok(Step::Receive), lease) => {
                let lease = lease.unwrap();
                let passed = pass(from, to, lease, left).await;
                haul.pass(passed);
                left -= passed as u64;
            }
            (Ok(Step::Received(bytes)), _) => left -= bytes as u64,
            (Ok(Step::Sent(_)), _) => {}
            (Ok(Step::Done), _) => break Over::Done,
            (Ok(Step::Leave), _) => break Over::Leases(left),
            (Err(broken), _) => break Over::Broken(broken),
        }
    };
    haul.leave(from, to);
    over
}

async fn pass_by_leases(from: &TcpStream, to: &TcpStream, mut left: u64) {
    while left > 0 {
        let lease = from.recv().await.unwrap().unwrap();
        left -= pass(from, to, lease, left).await as u64;
    }
    to.flush().await.unwrap();
}

/// Sends what of a lease belongs to the `left` bytes, and puts the rest back; how much it was.
async fn pass(from: &TcpStream, to: &TcpStream, mut lease: Lease, left: u64) -> usize {
    let len = lease.len().min(usize::try_from(left).unwrap());
    to.send_copy(&lease[..len]).await.unwrap();
    lease.advance(len);
    from.unread(lease);
    len
}

/// One body, with other bytes right behind it, which stay; then a message each way.
async fn one_body(size: usize) {
    let Session { client, member, near, far } = Session::new().await;
    let (near, far) = (near.plain().unwrap(), far.plain().unwrap());
    let data = Rc::new(pattern(size, 11));
    let sent = Rc::clone(&data);
    let member = Rc::new(member);
    let sender = Rc::clone(&member);
    rt::spawn(async move {
        sender.send_copy(&sent).await.unwrap();
        sender.send_copy(b"the next answer").await.unwrap();
    });
    let client = Rc::new(client);
    let reader = Rc::clone(&client);
    let read = beside(async move {
        assert!(read_exactly(&reader, data.len()).await == *data, "other bytes");
    });
    // As a connection that waits for its client's next request.
    let waits = rt::timeout(Duration::ZERO, near.recv()).await;
    assert!(waits.is_err());
    match haul(far, near, size as u64).await {
        Over::Done => {}
        Over::Leases(left) => {
            assert!(!hauls_at_all() || left == 0 || size < 1_000_000, "{left}");
            pass_by_leases(far, near, left).await;
        }
        Over::Broken(broken) => panic!("{broken:?}"),
    }
    assert_eq!(rt::audit().pipes, 0);
    until("all bytes", || read.get()).await;
    assert_eq!(read_exactly(far, 15).await, b"the next answer");
    client.send_copy(b"ping").await.unwrap();
    assert_eq!(read_exactly(near, 4).await, b"ping");
    near.send_copy(b"pong").await.unwrap();
    assert_eq!(read_exactly(&client, 4).await, b"pong");
    far.send_copy(b"more").await.unwrap();
    assert_eq!(read_exactly(&member, 4).await, b"more");
}

#[test]
fn exactly_what_was_asked_for_is_moved() {
    let sizes = [1, 4_096, 300_000, (1 << 20) + 3, 12_000_000];
    let stats = Arc::new(RingStats::default());
    on_counting_shard(&stats, FaultPlan::default(), move || async move {
        for size in sizes {
            one_body(size).await;
        }
    });
    let spliced = stats.spliced_bytes.get();
    assert!(if hauls_at_all() { spliced > 6_000_000 } else { spliced == 0 }, "{spliced}");
}

/// Short sends, cancelled polls and receives, and shortages of buffers harm no byte.
#[test]
fn faults_harm_no_byte() {
    for seed in 1..=4 {
        let faults =
            FaultPlan { seed, starve: 50, cancel: 300, short_send: 300, ..FaultPlan::default() };
        on_counting_shard(&Arc::default(), faults, || one_body(3_000_001));
    }
}

/// Pipes that the kernel keeps small, or has none of, are not used: all goes by leases.
#[test]
fn without_a_pipe_leases_go_on() {
    let stats = Arc::new(RingStats::default());
    let faults = FaultPlan { seed: 3, small_pipe: 1_000, ..FaultPlan::default() };
    on_counting_shard(&stats, faults, || async {
        for _ in 0..3 {
            one_body(900_000).await;
        }
    });
    assert_eq!(stats.spliced_bytes.get(), 0);
}

/// A sender that ends or breaks before it has sent all, a receiver that breaks: who it was is told,
/// all that the sender had sent before its FIN is through, and a pipe with bytes in it is not used
/// again.
#[test]
fn who_breaks_it_off_is_told() {
    if !hauls_at_all() {
        // None begins: shown above.
        return;
    }
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let (near, far) = (near.plain().unwrap(), far.plain().unwrap());
        let data = pattern(3_000_000, 13);
        let sent = data.clone();
        rt::spawn(async move { pour(&member, &sent, true).await });
        let client = Rc::new(client);
        let reader = Rc::clone(&client);
        let read = beside(async move {
            assert!(read_exactly(&reader, data.len()).await == data, "other bytes");
        });
        assert_eq!(haul(far, near, 3_000_001).await, Over::Broken(Broken::From(None)));
        until("what was sent before", || read.get()).await;
        assert_eq!(rt::audit().pipes, 0);
    });
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let (near, far) = (near.plain().unwrap(), far.plain().unwrap());
        let endless = rt::spawn(async move {
            let piece = vec![7; 1 << 20];
            while member.send_copy(&piece).await.is_ok() {}
        });
        rt::spawn(async move {
            read_at_least(&client, 5_000_000).await;
            client.reset();
        });
        let Over::Broken(Broken::To(kind)) = haul(far, near, u64::MAX).await else {
            panic!("it goes on");
        };
        assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind), "{kind:?}");
        assert_eq!(rt::audit().pipes, 0);
        endless.abort();
        // What was in the pipe is gone with it.
        for _ in 0..PIPES {
            one_body(1_000_001).await;
        }
    });
}

/// Little pieces for long enough give the pipe back.
#[test]
fn sparse_bytes_go_by_leases() {
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let (near, far) = (near.plain().unwrap(), far.plain().unwrap());
        rt::spawn(async move {
            for _ in 0..60 {
                member.send_copy(b"ping").await.unwrap();
                assert_eq!(read_exactly(&client, 4).await, b"ping");
            }
            member.send_copy(b"end!").await.unwrap();
            assert_eq!(read_exactly(&client, 4).await, b"end!");
        });
        let Over::Leases(left) = haul(far, near, 244).await else { panic!("still hauled") };
        assert!(left > 0 && rt::audit().pipes == 0, "{left}");
        pass_by_leases(far, near, left).await;
    });
}
