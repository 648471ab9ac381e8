//! Bulk data through pipes: the same bytes in the same order as through leases, with every way to
//! begin, to wait and to end. With the feature off the same must hold, and nothing is spliced.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use socket2::SockRef;
use weir_core::limits::{PIPE_BYTES, PIPES};
use weir_core::net::relay::{End, Moved, Patience, Peer, Relay, Streams};
use weir_core::rt::{self, FaultPlan, Features, Pipe, RingStats, TcpStream, Timer};

use crate::relay::{LONG, Session, pattern, read_all, run};
use crate::support::{DEADLINE, on_counting_shard, on_shard};

fn spliced_at_all() -> bool {
    Features::from_environment().unwrap().splice
}

/// Sends all of `data` in large pieces, as a busy peer does, then FIN if `end`.
pub async fn pour(stream: &TcpStream, data: &[u8], end: bool) {
    for piece in data.chunks(1 << 20) {
        let mut buf = rt::SendBuf::new();
        buf.extend_from_slice(piece);
        stream.send(buf).await.unwrap();
    }
    stream.flush().await.unwrap();
    if end {
        stream.shutdown_write().await.unwrap();
    }
}

/// Reads exactly so many bytes.
pub async fn read_exactly(stream: &TcpStream, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let lease = stream.recv().await.unwrap().expect("the end came early");
        all.extend_from_slice(&lease);
    }
    assert_eq!(all.len(), bytes);
    all
}

/// Runs `work` beside; tells when it is done.
pub fn beside(work: impl Future<Output = ()> + 'static) -> Rc<Cell<bool>> {
    let done = Rc::new(Cell::new(false));
    let place = Rc::clone(&done);
    rt::spawn(async move {
        work.await;
        place.set(true);
    });
    done
}

/// Waits for it, for half of the time that the whole test has.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            rt::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(rt::timeout(DEADLINE / 2, holds).await.is_ok(), "waited in vain for {what}");
}

/// Both ways at once, to the end of both.
async fn exchange(up: Vec<u8>, down: Vec<u8>) -> (End, Moved) {
    let Session { client, member, near, far } = Session::new().await;
    let (client, member) = (Rc::new(client), Rc::new(member));
    let mut done = Vec::new();
    for (from, to, data) in [(&client, &member, up), (&member, &client, down)] {
        let (from, to, data) = (Rc::clone(from), Rc::clone(to), Rc::new(data));
        let sent = Rc::clone(&data);
        done.push(beside(async move { pour(&from, &sent, true).await }));
        done.push(beside(async move { assert!(read_all(&to).await == *data, "other bytes") }));
    }
    let ended = run(&near, &far, || LONG).await;
    until("all bytes", || done.iter().all(|done| done.get())).await;
    ended
}

#[test]
fn bulk_goes_through_pipes() {
    for (up, down) in [(12_000_000, 300), (300, 12_000_000)] {
        let stats = Arc::new(RingStats::default());
        let (end, moved) = on_counting_shard(&stats, FaultPlan::default(), move || {
            exchange(pattern(up, 11), pattern(down, 13))
        });
        let (up, down) = (up as u64, down as u64);
        let wanted = Moved { from_client: up, to_member: up, from_member: down, to_client: down };
        assert_eq!((end, moved), (End::Finished, wanted));
        let spliced = stats.spliced_bytes.get();
        assert!(if spliced_at_all() { spliced > 1_000_000 } else { spliced == 0 }, "{spliced}");
    }
}

/// While both sides send as fast as they can, leases may go on.
#[test]
fn bulk_both_ways_at_once_arrives() {
    let (end, moved) = on_shard(|| exchange(pattern(12_000_000, 11), pattern(9_000_001, 13)));
    let (up, down) = (12_000_000, 9_000_001);
    let wanted = Moved { from_client: up, to_member: up, from_member: down, to_client: down };
    assert_eq!((end, moved), (End::Finished, wanted));
}

/// Short sends, cancelled polls and receives, and shortages of buffers harm no byte.
#[test]
fn faults_harm_no_byte() {
    for seed in 1..=4 {
        let faults =
            FaultPlan { seed, starve: 50, cancel: 300, short_send: 300, ..FaultPlan::default() };
        let (end, moved) = on_counting_shard(&Arc::default(), faults, || {
            exchange(pattern(3_000_000, 11), pattern(2_000_000, 13))
        });
        assert_eq!((end, moved.to_member, moved.to_client), (End::Finished, 3_000_000, 2_000_000));
    }
}

/// A few messages, then bulk, then quiet, then messages again, then bulk the other way: with pipes
/// only while there is bulk.
#[test]
fn means_follow_what_there_is_to_move() {
    let stats = Arc::new(RingStats::default());
    let counted = Arc::clone(&stats);
    on_counting_shard(&stats, FaultPlan::default(), || async move {
        let Session { client, member, near, far } = Session::new().await;
        let done = beside(async move {
            let (client, member) = (Rc::new(client), Rc::new(member));
            for (from, to) in [(&client, &member), (&member, &client)] {
                for _ in 0..3 {
                    from.send_copy(b"ping").await.unwrap();
                    assert_eq!(read_exactly(to, 4).await, b"ping");
                    to.send_copy(b"pong").await.unwrap();
                    assert_eq!(read_exactly(from, 4).await, b"pong");
                }
                let (before, data) = (counted.spliced_bytes.get(), pattern(8_000_000, 17));
                let (from, sent) = (Rc::clone(from), data.clone());
                let poured = beside(async move { pour(&from, &sent, false).await });
                assert!(read_exactly(to, data.len()).await == data, "other bytes");
                until("all to be sent", || poured.get()).await;
                let spliced = counted.spliced_bytes.get() - before;
                assert!(if spliced_at_all() { spliced > 1_000_000 } else { spliced == 0 });
                until("the pipes to be given back", || rt::audit().pipes == 0).await;
            }
        });
        let mut relay = Relay::new(None, None);
        let timer = Timer::new();
        let streams = Streams { client: &near, member: &far };
        let end = poll_fn(|cx| relay.poll(cx, streams, &timer, LONG)).await;
        // Dropped by the work above, without a byte unread.
        assert_eq!(end, End::Finished);
        until("the peers' end", || done.get()).await;
    });
}

/// Small messages for long enough lead back to leases, even without a pause.
#[test]
fn sparse_data_gives_the_pipes_back() {
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let done = beside(async move {
            let data = pattern(6_000_000, 19);
            let (client, sent) = (Rc::new(client), data.clone());
            let pouring = Rc::clone(&client);
            let poured = beside(async move { pour(&pouring, &sent, false).await });
            assert!(read_exactly(&member, data.len()).await == data, "other bytes");
            until("all to be sent", || poured.get()).await;
            assert_eq!(rt::audit().pipes, if spliced_at_all() { 2 } else { 0 });
            for _ in 0..40 {
                client.send_copy(b"ping").await.unwrap();
                assert_eq!(read_exactly(&member, 4).await, b"ping");
            }
            assert_eq!(rt::audit().pipes, 0);
        });
        assert_eq!(run(&near, &far, || LONG).await.0, End::Finished);
        assert!(done.get());
    });
}

/// Half-close while bulk goes the other way.
#[test]
fn half_close_goes_through_pipes_as_well() {
    on_shard(|| async {
        for size in [PIPE_BYTES / 3, 10 * PIPE_BYTES, 50 * PIPE_BYTES + 1] {
            let Session { client, member, near, far } = Session::new().await;
            let done = beside(async move {
                client.send_copy(b"all of it").await.unwrap();
                client.shutdown_write().await.unwrap();
                assert!(read_all(&client).await == pattern(size, 23), "other bytes");
            });
            rt::spawn(async move {
                assert_eq!(read_all(&member).await, b"all of it");
                pour(&member, &pattern(size, 23), true).await;
            });
            let (end, moved) = run(&near, &far, || LONG).await;
            assert_eq!((end, moved.to_client), (End::Finished, size as u64));
            until("the peers' end", || done.get()).await;
        }
    });
}

/// A reset in the midst of bulk, by either side, while the other sends or is sent to; nothing may
/// be left of it.
#[test]
fn resets_in_the_midst_are_told() {
    on_shard(|| async {
        for breaks in [Peer::Client, Peer::Member] {
            for pours in [Peer::Client, Peer::Member] {
                let Session { client, member, near, far } = Session::new().await;
                let (breaker, other) =
                    if breaks == Peer::Client { (client, member) } else { (member, client) };
                let (from, to, breaker_pours) =
                    if pours == breaks { (breaker, other, true) } else { (other, breaker, false) };
                let over = Rc::new(Cell::new(false));
                let gone = Rc::clone(&over);
                rt::spawn(async move {
                    let (from, to) = (Rc::new(from), Rc::new(to));
                    let pouring = Rc::clone(&from);
                    let endless = rt::spawn(async move {
                        let piece = vec![7; 1 << 20];
                        while pouring.send_copy(&piece).await.is_ok() {}
                    });
                    read_at_least(&to, 5_000_000).await;
                    let (breaker, other) = if breaker_pours { (from, to) } else { (to, from) };
                    breaker.reset_on_close();
                    if breaker_pours {
                        endless.abort();
                    }
                    drop(breaker);
                    // The other one's end would be told as well.
                    until("the relay to end", || gone.get()).await;
                    endless.abort();
                    drop(other);
                });
                let (end, _) = run(&near, &far, || LONG).await;
                let End::Broken(peer, kind) = end else { panic!("{end:?}") };
                assert_eq!(peer, breaks, "{pours:?} sends: {end:?}");
                let known = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(known.contains(&kind), "{end:?}");
                near.reset_on_close();
                far.reset_on_close();
                over.set(true);
            }
        }
    });
}

pub async fn read_at_least(stream: &TcpStream, bytes: usize) {
    let mut got = 0;
    while got < bytes {
        got += stream.recv().await.unwrap().expect("the end came early").len();
    }
}

/// A receiver that stops reading holds the sender back: a pipe is all that waits here. Idle, the
/// session ends, and its pipes are gone with what is in them.
#[test]
fn a_stuck_receiver_holds_a_pipe_at_most() {
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let sending = rt::spawn(async move {
            let _cut = client.send_copy(&vec![7; 64 << 20]).await;
        });
        let member = Rc::new(member);
        let reading = Rc::clone(&member);
        rt::spawn(async move { read_at_least(&reading, 4 << 20).await });
        let patience =
            Patience { limit: Duration::from_millis(2_500), look: Duration::from_millis(500) };
        let (end, moved) = run(&near, &far, || patience).await;
        assert_eq!(end, End::Idle);
        assert!(moved.from_client < 40 << 20, "{moved:?}");
        assert!(moved.from_client - moved.to_member <= PIPE_BYTES as u64, "{moved:?}");
        assert!(rt::audit().leases <= 8, "{:?}", rt::audit());
        sending.abort();
    });
}

/// Peers that do not read while they write: whatever the change of means waits for, the way back
/// must go on meanwhile.
#[test]
fn an_echo_never_waits_for_itself() {
    for (whose, short_send) in [(Peer::Member, 0), (Peer::Client, 0), (Peer::Member, 500)] {
        let faults = FaultPlan { seed: 5, short_send, ..FaultPlan::default() };
        on_counting_shard(&Arc::default(), faults, move || async move {
            let Session { client, member, near, far } = Session::new().await;
            let (asks, echoes) =
                if whose == Peer::Member { (client, member) } else { (member, client) };
            rt::spawn(async move {
                while let Some(lease) = echoes.recv().await.unwrap() {
                    echoes.send(lease).await.unwrap();
                    echoes.flush().await.unwrap();
                }
                echoes.shutdown_write().await.unwrap();
            });
            let asks = Rc::new(asks);
            let pouring = Rc::clone(&asks);
            let data = Rc::new(pattern(40_000_000, 31));
            let sent = Rc::clone(&data);
            let poured = beside(async move { pour(&pouring, &sent, true).await });
            let heard =
                beside(async move { assert!(read_all(&asks).await == *data, "other bytes") });
            assert_eq!(run(&near, &far, || LONG).await.0, End::Finished);
            until("the whole echo", || poured.get() && heard.get()).await;
        });
    }
}

/// More sessions than pairs of pipes, stuck until these are all in use: the others go on in leases,
/// and all get through.
#[test]
fn sessions_beyond_the_pipes_go_on_in_leases() {
    on_shard(|| async {
        let stuck = Rc::new(Cell::new(0));
        let done = Rc::new(RefCell::new(Vec::new()));
        let go = Rc::new(Cell::new(false));
        let data = Rc::new(pattern(3_000_000, 29));
        for _ in 0..PIPES {
            let Session { client, member, near, far } = Session::new().await;
            // So that the kernel's buffers don't hold all of it.
            SockRef::from(&member).set_recv_buffer_size(64 << 10).unwrap();
            SockRef::from(far.plain().unwrap()).set_send_buffer_size(64 << 10).unwrap();
            let (sent, wanted) = (Rc::clone(&data), Rc::clone(&data));
            let (go, stuck) = (Rc::clone(&go), Rc::clone(&stuck));
            rt::spawn(async move { pour(&client, &sent, true).await });
            done.borrow_mut().push(beside(async move {
                let first = read_exactly_some(&member, 1_000_000).await;
                stuck.set(stuck.get() + 1);
                until("the others", || go.get()).await;
                let rest = read_all(&member).await;
                assert!([first, rest].concat() == **wanted, "other bytes");
                member.shutdown_write().await.unwrap();
            }));
            done.borrow_mut().push(beside(async move {
                assert_eq!(run(&near, &far, || LONG).await.0, End::Finished);
            }));
        }
        let pipes = if spliced_at_all() { PIPES as u64 } else { 0 };
        until("all pipes to be in use", || stuck.get() == PIPES && rt::audit().pipes == pipes)
            .await;
        go.set(true);
        until("all bytes", || done.borrow().iter().all(|done| done.get())).await;
    });
}

/// Pipes that the kernel keeps small, as for a user with many, are slower than leases: they are not
/// used, and not asked for again at once.
#[test]
fn small_pipes_are_left_alone() {
    let stats = Arc::new(RingStats::default());
    let faults = FaultPlan { seed: 3, small_pipe: 1_000, ..FaultPlan::default() };
    let (end, moved) = on_counting_shard(&stats, faults, || async {
        assert_eq!(Pipe::spare(2), spliced_at_all());
        let relayed = exchange(pattern(12_000_000, 11), pattern(300, 13)).await;
        assert!(!Pipe::spare(2) && Pipe::pair().is_none());
        relayed
    });
    assert_eq!((end, moved.to_member, moved.to_client), (End::Finished, 12_000_000, 300));
    assert_eq!(stats.spliced_bytes.get(), 0);
}

#[derive(Default)]
struct More(AtomicBool);

impl Wake for More {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// A way that always has something to move, as where the balancer is slower than both sides, leaves
/// the other way its turn.
#[test]
fn a_busy_way_leaves_the_other_its_turn() {
    if !spliced_at_all() {
        // In leases a way moves a piece at a time.
        return;
    }
    on_shard(|| async {
        let Session { client, member, near, far } = Session::new().await;
        let streams = Streams { client: &near, member: &far };
        let (mut relay, timer) = (Relay::new(None, None), Timer::new());
        let [from, answers] = [SockRef::from(&client), SockRef::from(&member)];
        let arrived = SockRef::from(far.plain().unwrap());
        let discard = |socket: &SockRef<'_>| {
            let mut room = [std::mem::MaybeUninit::uninit(); 1 << 16];
            while socket.recv_with_flags(&mut room, libc::MSG_DONTWAIT).is_ok_and(|n| n > 0) {}
        };
        // Woken within a poll when there was more than fits into a turn.
        let more = Arc::new(More::default());
        let waker = Waker::from(Arc::clone(&more));
        let mut cx = Context::from_waker(&waker);
        let (piece, mut full_turns) = (vec![7; 1 << 20], 0);
        while full_turns < 3 {
            while from.send_with_flags(&piece, libc::MSG_DONTWAIT).is_ok() {}
            let spliced = rt::audit().pipes > 0;
            if spliced {
                answers.send_with_flags(b"answer", libc::MSG_DONTWAIT).unwrap();
                let look = libc::MSG_DONTWAIT | libc::MSG_PEEK;
                let mut byte = [std::mem::MaybeUninit::uninit()];
                while arrived.recv_with_flags(&mut byte, look).is_err() {
                    rt::yield_now().await;
                }
            }
            // What the ring has to say about it is handed out in the next turn.
            rt::yield_now().await;
            rt::yield_now().await;
            let before = relay.moved().from_member;
            more.0.store(false, Relaxed);
            assert!(relay.poll(&mut cx, streams, &timer, LONG).is_pending());
            if spliced && more.0.load(Relaxed) {
                assert!(relay.moved().from_member > before, "the answer waits");
                full_turns += 1;
            }
            discard(&answers);
            discard(&from);
            rt::yield_now().await;
        }
        near.reset_on_close();
        far.reset_on_close();
    });
}

/// Urgent data, which splicing stops at, is passed over as receives do it: the bytes behind it
/// arrive, even if the way back is stuck, and without being asked for again and again.
#[test]
fn urgent_data_is_passed_over() {
    let stats = Arc::new(RingStats::default());
    let counted = Arc::clone(&stats);
    on_counting_shard(&stats, FaultPlan::default(), || async move {
        let Session { client, member, near, far } = Session::new().await;
        let (client, member) = (Rc::new(client), Rc::new(member));
        let done = beside(async move {
            let (from, data) = (Rc::clone(&client), pattern(6_000_000, 19));
            let sent = data.clone();
            let poured = beside(async move { pour(&from, &sent, false).await });
            assert!(read_exactly(&member, data.len()).await == data, "other bytes");
            until("all to be sent", || poured.get()).await;
            assert_eq!(rt::audit().pipes, if spliced_at_all() { 2 } else { 0 });
            let back = Rc::clone(&member);
            let stuck = rt::spawn(async move {
                let _cut = back.send_copy(&vec![7; 64 << 20]).await;
            });
            let socket = SockRef::from(&*client);
            let before = counted.turns.get();
            for _ in 0..3 {
                assert_eq!(socket.send_out_of_band(b"!").unwrap(), 1);
                client.send_copy(b"behind").await.unwrap();
                assert_eq!(read_exactly(&member, 6).await, b"behind");
            }
            let turns = counted.turns.get() - before;
            assert!(turns < 5_000, "{turns} turns");
            // Nothing is received before all of this is here, its end included.
            socket.send_out_of_band(b"!").unwrap();
            socket.send(&[9; 10_000]).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(read_all(&member).await, [9; 10_000]);
            stuck.abort();
            member.reset_on_close();
        });
        let (end, _) = run(&near, &far, || LONG).await;
        // Both peers go at once, with bytes unread: who is seen first is chance.
        assert!(matches!(end, End::Broken(..)), "{end:?}");
        near.reset_on_close();
        until("the peers' end", || done.get()).await;
    });
}

async fn read_exactly_some(stream: &TcpStream, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        all.extend_from_slice(&stream.recv().await.unwrap().expect("the end came early"));
    }
    all
}
