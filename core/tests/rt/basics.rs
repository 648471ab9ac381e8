//! Each thing that the runtime offers, once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use weir_core::rt::{self, ConnectOptions, EventQueue, Payload, SendBuf, TcpListener, TcpStream};
use weir_core::time::clock;

use crate::support::{listener, on_shard};

/// A pair of connected streams on this shard.
pub async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let addr = listener.local_addr().unwrap();
    let near = TcpStream::connect(addr, &ConnectOptions::default()).await.unwrap();
    let (far, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, near.local_addr().unwrap());
    assert_eq!(far.local_addr().unwrap(), near.peer_addr().unwrap());
    (near, far)
}

async fn read_all(stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(lease) = stream.recv().await.unwrap() {
        all.extend_from_slice(&lease);
    }
    all
}

#[test]
fn bytes_pass_both_ways_and_half_close_holds() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        near.send_copy(b"hello ").await.unwrap();
        let mut buf = SendBuf::new();
        buf.extend_from_slice(b"wor");
        near.send(buf).await.unwrap();
        near.send(&b"ld"[..]).await.unwrap();
        near.shutdown_write().await.unwrap();
        assert_eq!(read_all(&far).await, b"hello world");
        assert_eq!((near.bytes_sent(), far.bytes_received()), (11, 11));
        // The other way is still open.
        far.send_copy(b"and back").await.unwrap();
        far.shutdown_write().await.unwrap();
        assert_eq!(read_all(&near).await, b"and back");
        assert!(far.tcp_info().unwrap().rtt_us > 0);
    });
}

#[test]
fn a_buffer_and_a_lease_go_out_in_one_vectored_send() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        near.send_copy(b"..payload").await.unwrap();
        let mut lease = far.recv().await.unwrap().unwrap();
        lease.advance(2);
        lease.truncate(4);
        let mut head = SendBuf::new();
        head.extend_from_slice(b"head+");
        far.send(Payload::BufLease(head, lease)).await.unwrap();
        far.shutdown_write().await.unwrap();
        assert_eq!(read_all(&near).await, b"head+payl");
    });
}

#[test]
fn connect_reports_refusal_and_deadline() {
    on_shard(|| async {
        let (gone, addr) = listener();
        drop(gone);
        let options = ConnectOptions::default();
        // The port closes a turn later; until then the queue may still take us.
        let refused = loop {
            match TcpStream::connect(addr, &options).await {
                Err(error) => break error,
                Ok(_) => rt::yield_now().await,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // A full queue that nobody empties makes connects hang.
        let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = socket2::Socket::from(full);
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let limit = Some(Duration::from_millis(200));
        let options = ConnectOptions { timeout: limit, ..ConnectOptions::default() };
        let mut held = Vec::new();
        let late = loop {
            match TcpStream::connect(addr, &options).await {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(late.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn connect_leaves_from_the_source_address() {
    on_shard(|| async {
        let (listener, addr) = listener();
        let source: SocketAddr = "127.0.0.7:0".parse().unwrap();
        let options = ConnectOptions { source: Some(source), ..ConnectOptions::default() };
        let near = TcpStream::connect(addr, &options).await.unwrap();
        let (_far, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), source.ip());
        assert_eq!(near.local_addr().unwrap(), peer);
    });
}

#[test]
fn reset_and_lingering_close_look_right_from_outside() {
    on_shard(|| async {
        let (listener, addr) = listener();
        let outside = std::thread::spawn(move || {
            let mut first = std::net::TcpStream::connect(addr).unwrap();
            let reset = first.read(&mut [0; 8]).unwrap_err().kind();
            let mut second = std::net::TcpStream::connect(addr).unwrap();
            // More than the other side will have read when it closes.
            second.write_all(&[7; 100_000]).unwrap();
            let mut answer = Vec::new();
            second.read_to_end(&mut answer).unwrap();
            second.shutdown(Shutdown::Write).unwrap();
            (reset, answer)
        });
        let (first, _) = listener.accept().await.unwrap();
        first.reset();
        let (second, _) = listener.accept().await.unwrap();
        second.send_copy(b"no").await.unwrap();
        second.close_lingering(1 << 20, Duration::from_secs(10)).await;
        while !outside.is_finished() {
            rt::yield_now().await;
        }
        let (reset, answer) = outside.join().unwrap();
        assert_eq!((reset, &answer[..]), (ErrorKind::ConnectionReset, &b"no"[..]));
    });
}

#[test]
fn a_slow_reader_stops_the_fast_writer() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let writer = rt::spawn(async move {
            for _ in 0..4_000 {
                near.send_copy(&[1; 16_384]).await.unwrap();
            }
        });
        // Take one lease, then let the writer run against the wall.
        let first = far.recv().await.unwrap().unwrap();
        let mut seen = 0;
        loop {
            rt::sleep(Duration::from_millis(50)).await;
            let now = far.bytes_received();
            if now == seen {
                break;
            }
            seen = now;
        }
        let held = seen as usize - first.len();
        assert!(held < 64 << 10, "{held} bytes wait in a stream that nobody reads");
        assert!(rt::audit().leases < 64, "{:?}", rt::audit());
        drop(first);
        let mut total = 0;
        while total < 4_000 * 16_384 - 65_536 {
            total += far.recv().await.unwrap().unwrap().len();
        }
        writer.abort();
    });
}

#[test]
fn a_dropped_future_cancels_and_loses_nothing() {
    on_shard(|| async {
        let (listener, addr) = listener();
        let short = Duration::from_millis(30);
        assert!(rt::timeout(short, listener.accept()).await.is_err());
        let near = TcpStream::connect(addr, &ConnectOptions::default()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        assert!(rt::timeout(short, far.recv()).await.is_err());
        near.send_copy(b"late").await.unwrap();
        assert_eq!(&*far.recv().await.unwrap().unwrap(), b"late");
        // A stream dropped with a receive armed closes: the peer sees FIN.
        assert!(rt::timeout(short, near.recv()).await.is_err());
        drop(far);
        assert!(near.recv().await.unwrap().is_none());
    });
}

#[test]
fn unread_bytes_come_first() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        near.send_copy(b"abcdef").await.unwrap();
        let mut lease = far.recv().await.unwrap().unwrap();
        lease.advance(4);
        far.unread(lease);
        assert!(far.has_event());
        assert_eq!(&*far.recv().await.unwrap().unwrap(), b"ef");
        assert!(!far.has_event());
    });
}

#[test]
fn a_watched_stream_reports_its_end() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let queue = EventQueue::new();
        near.watch(&queue, 17);
        assert!(!near.has_event());
        drop(far);
        assert_eq!(queue.next().await, 17);
        assert!(near.has_event());
        assert!(near.recv().await.unwrap().is_none());
    });
}

/// R6.7-15 on the real clock: never early.
#[test]
fn timers_are_never_early() {
    on_shard(|| async {
        for millis in [0, 1, 7, 70, 130] {
            let start = clock::mono();
            rt::sleep(Duration::from_millis(millis)).await;
            assert!(clock::mono().since(start) >= Duration::from_millis(millis));
        }
        let until = clock::mono().plus(Duration::from_micros(300));
        rt::sleep_exact(until).await;
        assert!(clock::mono() >= until);
    });
}

#[test]
fn a_timer_can_be_set_anew_and_cleared() {
    on_shard(|| async {
        let timer = rt::Timer::new();
        timer.set(Duration::from_secs(3_600));
        timer.set(Duration::from_millis(5));
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        let limited = timer.limit(Duration::from_millis(5), std::future::pending::<()>()).await;
        assert_eq!(limited, Err(rt::Elapsed));
        assert_eq!(timer.limit(Duration::from_secs(60), async { 3 }).await, Ok(3));
    });
}

#[test]
fn a_panic_ends_one_task_only() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        rt::spawn(async move {
            let _held = far;
            rt::yield_now().await;
            panic!("on purpose");
        });
        // The panicking task's stream closes, and the shard lives on.
        assert!(near.recv().await.unwrap().is_none());
    });
}

#[test]
fn an_aborted_task_lets_go_of_its_sockets() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let task = rt::spawn(async move {
            let _ = far.recv().await;
        });
        rt::yield_now().await;
        task.abort();
        assert!(near.recv().await.unwrap().is_none());
    });
}

#[test]
fn a_mailbox_reaches_a_sleeping_shard() {
    let (sender, mut receiver) = rt::mailbox(4);
    let (ready_sender, ready) = std::sync::mpsc::channel();
    let sending = std::thread::spawn(move || {
        ready.recv().unwrap();
        for n in 0..100u32 {
            let mut value = n;
            while let Err(back) = sender.try_send(value) {
                value = back;
                std::thread::yield_now();
            }
        }
    });
    let got = on_shard(move || async move {
        ready_sender.send(()).unwrap();
        let mut got = Vec::new();
        while let Some(value) = receiver.recv().await {
            got.push(value);
        }
        got
    });
    sending.join().unwrap();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_full_mailbox_and_a_gone_receiver_give_the_value_back() {
    let (sender, receiver) = rt::mailbox(1);
    assert_eq!(sender.try_send(1), Ok(()));
    assert_eq!(sender.clone().try_send(2), Err(2));
    drop(receiver);
    assert_eq!(sender.try_send(3), Err(3));
}

#[test]
fn any_descriptor_can_be_waited_for() {
    on_shard(|| async {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let waiting = rt::readable(std::os::fd::AsFd::as_fd(&theirs));
        assert!(rt::timeout(Duration::from_millis(30), waiting).await.is_err());
        ours.write_all(b"x").unwrap();
        rt::readable(std::os::fd::AsFd::as_fd(&theirs)).await.unwrap();
    });
}

#[test]
fn signals_arrive_as_events() {
    // In a thread of its own, since the mask is a thread's.
    let caught = std::thread::spawn(|| {
        let signals = rt::Signals::block(&[libc::SIGUSR2]).unwrap();
        assert_eq!(signals.wait(Some(Duration::from_millis(1))).unwrap(), None);
        on_shard(move || async move {
            raise_in_this_thread(libc::SIGUSR2);
            signals.next().await.unwrap()
        })
    });
    assert_eq!(caught.join().unwrap(), libc::SIGUSR2);
    assert!(rt::Signals::block(&[9_999]).is_err());
}

#[allow(unsafe_code, reason = "there is no safe way to raise a signal in one thread")]
fn raise_in_this_thread(signal: i32) {
    // SAFETY: the calling thread has the signal blocked, so it becomes pending for it.
    unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
}

#[test]
fn stop_accepting_hands_out_what_the_kernel_has_completed() {
    on_shard(|| async {
        let (listener, addr) = listener();
        let near = TcpStream::connect(addr, &ConnectOptions::default()).await.unwrap();
        listener.stop_accepting(Duration::from_millis(50)).unwrap();
        let (far, _) = listener.accept().await.unwrap();
        far.send_copy(b"served").await.unwrap();
        assert_eq!(&*near.recv().await.unwrap().unwrap(), b"served");
        let end = listener.accept().await.unwrap_err();
        assert_eq!(end.kind(), ErrorKind::NotConnected);
        drop(listener);
        // Whoever comes now is refused once the socket has closed.
        let refused = loop {
            let options = ConnectOptions {
                timeout: Some(Duration::from_secs(20)),
                ..ConnectOptions::default()
            };
            match TcpStream::connect(addr, &options).await {
                Err(error) => break error,
                Ok(_) => rt::yield_now().await,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

/// Another process with the very same socket may have begun to close it, and be gone.
#[test]
fn a_listener_goes_on_that_somebody_else_has_begun_to_close() {
    on_shard(|| async {
        let (listener, addr) = listener();
        listener.go_on().unwrap();
        let same = listener.as_fd().try_clone_to_owned().unwrap();
        let other = TcpListener::from_fd(same).unwrap();
        other.stop_accepting(Duration::from_millis(1)).unwrap();
        drop(other);
        listener.go_on().unwrap();
        let timeout = Some(Duration::from_secs(20));
        let options = ConnectOptions { timeout, ..ConnectOptions::default() };
        let near = TcpStream::connect(addr, &options).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        far.send_copy(b"served").await.unwrap();
        assert_eq!(&*near.recv().await.unwrap().unwrap(), b"served");
    });
}

#[test]
fn large_bodies_pass_unchanged() {
    on_shard(|| async {
        let (listener, _) = listener();
        let (near, far) = pair(&listener).await;
        let body: Rc<[u8]> =
            (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let sent = Rc::clone(&body);
        rt::spawn(async move {
            near.send_copy(&sent).await.unwrap();
            near.shutdown_write().await.unwrap();
        });
        far.expect_bulk(true);
        assert!(read_all(&far).await == *body);
    });
}
