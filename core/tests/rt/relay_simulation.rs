//! The byte relay between two scripted peers, by a seed: pieces of all sizes, FINs and resets in
//! any order, peers that take nothing for a while. A shadow model says after each step what must
//! have gone through and what must wait, and in the end how the session ended; it keeps the peers'
//! history and shares no code with the relay. Bytes that go through pipes are in `splice`.
//!
//! `WEIR_SEED=n` replays one seed; `WEIR_COUNTS=full` runs many more.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};

use weir_core::net::relay::{End, Moved, Peer, Relay, Side, Streams};
use weir_core::rt::{self, Lease, Payload, SendBuf, Timer};

use crate::relay::LONG;
use crate::support::on_shard;

struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % below
    }
}

/// How a peer has ended what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Fin,
    Reset(ErrorKind),
}

/// A peer as the relay sees it.
#[derive(Default)]
struct Scripted(RefCell<Script>);

#[derive(Default)]
struct Script {
    /// Said and not yet received.
    says: VecDeque<Vec<u8>>,
    last: Option<Last>,
    last_was_received: bool,
    /// Pieces that it takes still.
    takes: usize,
    /// It takes no more, for this reason.
    refuses: Option<ErrorKind>,
    /// The relay knows that a piece may be posted.
    ready: bool,
    heard: Vec<u8>,
    pieces: usize,
    /// What was posted last was posted as the last.
    was_last: bool,
    is_shut: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

impl Scripted {
    fn script(&self) -> RefMut<'_, Script> {
        self.0.borrow_mut()
    }
}

impl Script {
    fn can_send(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match (self.refuses, self.takes) {
            (Some(kind), _) => Poll::Ready(Err(kind.into())),
            (None, 1..) => Poll::Ready(Ok(())),
            (None, 0) => {
                self.sender = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn tell(waker: &mut Option<Waker>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

impl Side for Scripted {
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let mut script = self.script();
        assert!(!script.last_was_received, "received from, behind its end");
        if let Some(piece) = script.says.pop_front() {
            let mut lease = Lease::gather().unwrap();
            assert_eq!(lease.push(&piece), piece.len());
            return Poll::Ready(Ok(Some(lease)));
        }
        let Some(last) = script.last else {
            script.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        };
        script.last_was_received = true;
        Poll::Ready(match last {
            Last::Fin => Ok(None),
            Last::Reset(kind) => Err(kind.into()),
        })
    }

    fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut script = self.script();
        let ready = script.can_send(cx);
        script.ready = matches!(ready, Poll::Ready(Ok(())));
        ready
    }

    fn post(&self, payload: Payload) -> io::Result<()> {
        let mut script = self.script();
        assert!(std::mem::take(&mut script.ready), "posted while a piece is being sent");
        assert!(!script.is_shut && !script.was_last, "posted behind the last");
        script.takes -= 1;
        script.pieces += 1;
        payload.append_to(&mut script.heard);
        Ok(())
    }

    fn post_last(&self, payload: Payload) -> io::Result<()> {
        self.post(payload)?;
        self.script().was_last = true;
        Ok(())
    }

    fn is_through(&self) -> bool {
        let script = self.script();
        script.says.is_empty() && script.last == Some(Last::Fin)
    }

    fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut script = self.script();
        let ready = script.can_send(cx);
        if matches!(ready, Poll::Ready(Ok(()))) {
            assert!(!std::mem::replace(&mut script.is_shut, true), "shut twice");
        }
        ready
    }
}

/// What happens to a peer.
#[derive(Clone, Copy, Debug)]
enum Fact {
    /// It says so many pieces.
    Says(usize),
    Fin,
    /// Its connection breaks; what is sent to it fails only later …
    Breaks(ErrorKind),
    /// … from now on, if it has broken, or if the peer has said its FIN.
    Refuses,
    /// It takes so many pieces more.
    Takes(usize),
    /// The relay is polled, and nothing has happened.
    Nothing,
}

fn roll(dice: &mut Dice) -> Fact {
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::TimedOut];
    match dice.below(32) {
        0..10 => Fact::Says(1 + dice.below(3) as usize),
        10 => Fact::Says(20 + dice.below(30) as usize),
        11 | 12 => Fact::Fin,
        13 => Fact::Breaks(kinds[dice.below(2) as usize]),
        14..17 => Fact::Refuses,
        17..29 => Fact::Takes(1 + dice.below(4) as usize),
        29 => Fact::Takes(20 + dice.below(30) as usize),
        _ => Fact::Nothing,
    }
}

/// What is known of one peer's history.
#[derive(Default)]
struct History {
    /// What it said, piece by piece, those included that the session began with.
    said: Vec<Vec<u8>>,
    /// Of those so many.
    before: usize,
    last: Option<Last>,
    /// Pieces that it was ready to take, in all.
    takes: usize,
    refuses: Option<ErrorKind>,
    /// Of the other's pieces those that it got.
    got: usize,
    /// Its FIN was taken from it so many-th of all FINs.
    fin_order: Option<usize>,
    /// It was told the other's FIN.
    told: bool,
    /// The last piece came with the knowledge that it is the last.
    with_last: bool,
}

/// How one direction stands, when all that can move has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Open,
    Through,
    Broken(ErrorKind),
    Refused(ErrorKind),
}

/// Lets go from `from` to `to` what can go, and says how that direction stands.
fn settle(from: &mut History, to: &mut History, fins: &mut usize) -> Stands {
    if to.refuses.is_none() {
        let got = from.said.len().min(to.takes);
        to.with_last |= got > to.got && got == from.said.len() && from.last == Some(Last::Fin);
        to.got = got;
    }
    let all = to.got == from.said.len();
    // The sender's end is behind its bytes; it is told by another piece's room.
    let room = to.takes > to.got;
    if all && from.last == Some(Last::Fin) && to.refuses.is_none() {
        to.told |= room;
        from.fin_order.get_or_insert_with(|| {
            *fins += 1;
            *fins
        });
    }
    match (from.last, to.refuses) {
        (Some(Last::Fin), _) if to.told => Stands::Through,
        (Some(Last::Reset(kind)), refuses) if all && (room || refuses.is_some()) => {
            Stands::Broken(kind)
        }
        (_, Some(kind)) if !all || from.last == Some(Last::Fin) => Stands::Refused(kind),
        _ => Stands::Open,
    }
}

/// How the session has ended, if it has.
fn judge(up: Stands, down: Stands) -> Option<End> {
    match (up, down) {
        (Stands::Broken(kind), _) => Some(End::Broken(Peer::Client, kind)),
        (_, Stands::Broken(kind)) => Some(End::Broken(Peer::Member, kind)),
        (Stands::Open, _) | (_, Stands::Open) => None,
        (Stands::Refused(kind), _) => Some(End::Broken(Peer::Member, kind)),
        (_, Stands::Refused(kind)) => Some(End::Broken(Peer::Client, kind)),
        (Stands::Through, Stands::Through) => Some(End::Finished),
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// A relay, its peers, and what must have become of them.
struct World {
    relay: Relay,
    timer: Timer,
    woken: Arc<Flag>,
    peers: [Scripted; 2],
    histories: [History; 2],
    fins: usize,
    dice: Dice,
}

const SIDES: [Peer; 2] = [Peer::Client, Peer::Member];

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut histories = [History::default(), History::default()];
        let beginnings = histories.each_mut().map(|history| {
            if dice.below(3) > 0 {
                return None;
            }
            let (mut first, piece) = (SendBuf::new(), piece(&mut dice));
            first.extend_from_slice(&piece);
            history.said.push(piece);
            history.before = 1;
            Some(Payload::from(first))
        });
        let [up, down] = beginnings;
        World {
            relay: Relay::new(up, down),
            timer: Timer::new(),
            woken: Arc::new(Flag(AtomicBool::new(true))),
            peers: Default::default(),
            histories,
            fins: 0,
            dice,
        }
    }

    /// What happens, at the peer and in the books.
    fn happens(&mut self, at: usize, fact: Fact) {
        let (mut script, history) = (self.peers[at].script(), &mut self.histories[at]);
        match fact {
            Fact::Says(count) if script.last.is_none() => {
                let pieces: Vec<_> = (0..count).map(|_| piece(&mut self.dice)).collect();
                script.says.extend(pieces.iter().cloned());
                history.said.extend(pieces);
            }
            Fact::Fin if script.last.is_none() => {
                (script.last, history.last) = (Some(Last::Fin), Some(Last::Fin));
            }
            Fact::Breaks(kind) if script.last.is_none() => {
                let last = Some(Last::Reset(kind));
                (script.last, history.last) = (last, last);
            }
            // Who has said FIN may break afterwards; only who sends to it learns of that.
            Fact::Refuses if script.last.is_some() => {
                let kind = match script.last {
                    Some(Last::Reset(kind)) => kind,
                    _ => ErrorKind::BrokenPipe,
                };
                let kind = script.refuses.unwrap_or(kind);
                (script.refuses, history.refuses) = (Some(kind), Some(kind));
            }
            Fact::Takes(count) => {
                script.takes += count;
                history.takes += count;
            }
            _ => return,
        }
        let script = &mut *script;
        match fact {
            Fact::Takes(_) | Fact::Refuses => Script::tell(&mut script.sender),
            _ => Script::tell(&mut script.receiver),
        }
    }

    /// Polls as long as the relay has been woken.
    fn run(&mut self) -> Option<End> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        let [client, member] = &self.peers;
        while self.woken.0.swap(false, Relaxed) {
            let streams = Streams { client, member };
            if let Poll::Ready(end) = self.relay.poll(&mut cx, streams, &self.timer, LONG) {
                return Some(end);
            }
        }
        None
    }

    /// Holds the peers against the books; true when the session has ended.
    fn check(&mut self, end: Option<End>) -> bool {
        let [client, member] = &mut self.histories;
        let up = settle(client, member, &mut self.fins);
        let down = settle(member, client, &mut self.fins);
        assert_eq!(end, judge(up, down), "up {up:?}, down {down:?}");
        let histories = [&self.histories[0], &self.histories[1]];
        for ((script, own), other) in
            self.peers.iter().map(Scripted::script).zip(histories).zip([histories[1], histories[0]])
        {
            assert_eq!(script.pieces, own.got, "pieces that went through");
            assert!(script.heard == other.said[..own.got].concat(), "other bytes");
            assert_eq!((script.is_shut, script.was_last), (own.told, own.with_last));
        }
        if end == Some(End::Finished) {
            let client_first = histories[0].fin_order < histories[1].fin_order;
            assert_eq!(self.relay.ended_first(), Some(SIDES[usize::from(!client_first)]));
        }
        // Each way holds one piece while the receiver is not ready, and takes no more meanwhile.
        let (mut moved, mut held) = (Moved::default(), 0);
        for (at, stands) in [up, down].into_iter().enumerate() {
            let (from, to) = (histories[at], histories[1 - at]);
            let taken = from.said.len().min(to.got + 1).max(from.before);
            let is_held = taken > to.got && !matches!(stands, Stands::Refused(_));
            // What the session began with lies in no lease.
            held += u64::from(is_held && taken > from.before);
            let bytes = |pieces: &[Vec<u8>]| pieces.iter().map(|it| it.len() as u64).sum::<u64>();
            let (received, sent) =
                (bytes(&from.said[from.before..taken]), bytes(&from.said[..to.got]));
            match at {
                0 => (moved.from_client, moved.to_member) = (received, sent),
                _ => (moved.from_member, moved.to_client) = (received, sent),
            }
        }
        assert_eq!(self.relay.moved(), moved);
        assert_eq!(rt::audit().leases as u64, held, "leases that are held");
        end.is_some()
    }
}

/// Bytes that are like no others, as many as a lease holds at most.
fn piece(dice: &mut Dice) -> Vec<u8> {
    let most = [16, 1_500, 16_000][dice.below(3) as usize];
    let (len, first) = (1 + dice.below(most) as usize, dice.below(1 << 32) as usize);
    (first..first + len).map(|n| (n * 7 / 3) as u8).collect()
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let end = world.run();
    if world.check(end) {
        return;
    }
    for _ in 0..world.dice.below(200) {
        let at = world.dice.below(2) as usize;
        let fact = roll(&mut world.dice);
        if matches!(fact, Fact::Nothing) {
            world.woken.0.store(true, Relaxed);
        }
        world.happens(at, fact);
        let end = world.run();
        if world.check(end) {
            return;
        }
    }
}

/// Seeds that one shard runs: it has a deadline.
const BATCH: u64 = 1_000;

/// R2.2-3: half-close, the order of bytes, FIN and reset, and back-pressure.
#[test]
fn what_goes_through_is_what_the_history_says() {
    if let Ok(seed) = std::env::var("WEIR_SEED") {
        return on_shard(async move || run(seed.parse().unwrap()));
    }
    let full = std::env::var_os("WEIR_COUNTS").is_some_and(|counts| counts == "full");
    for batch in 0..if full { 200 } else { 3 } {
        on_shard(move || async move {
            for seed in batch * BATCH..(batch + 1) * BATCH {
                if catch_unwind(AssertUnwindSafe(|| run(seed))).is_err() {
                    panic!("seed {seed} fails; WEIR_SEED={seed} runs it again");
                }
                rt::yield_now().await;
            }
        });
    }
}
