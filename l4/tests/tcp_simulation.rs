#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! TCP sessions under a seeded simulator: connects that fail, FINs and resets at any point (of the
//! client's also before there is a member), members that leave and come back, deleted listeners,
//! changed limits, jumping clocks. A shadow model keeps the whole history and judges from it; it
//! shares no code with the session.
//!
//! `WEIR_SEED=n` replays one seed; `WEIR_COUNTS=full` runs many more.

use std::io::ErrorKind;
use std::time::Duration;

use weir_core::net::relay::{End, Peer};
use weir_core::obs::Ending;
use weir_core::time::clock::Mono;
use weir_l4::session::{Close, Event, Look, Outside, Session, Step};

/// Members that a session tries at most.
const ATTEMPTS: usize = 3;
const MEMBERS: u64 = 5;
const IDLE: u64 = 300;

struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % below
    }
}

/// What happens to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    /// Seconds pass: few, or, where a clock jumps, very many.
    Pass(u64),
    Connects(bool),
    Moves,
    Fin(Peer),
    Rst(Peer),
    Deleted,
    Leaves,
    Returns,
    Drain(Option<u64>),
}

fn roll(dice: &mut Dice) -> Fact {
    let peer = if dice.below(2) == 0 { Peer::Client } else { Peer::Member };
    match dice.below(40) {
        0..10 => Fact::Pass(dice.below(30)),
        10 => Fact::Pass(dice.below(1_000_000)),
        11..19 => Fact::Connects(dice.below(3) > 0),
        19..25 => Fact::Moves,
        25..28 => Fact::Fin(peer),
        28 => Fact::Rst(peer),
        29 => Fact::Deleted,
        30..33 => Fact::Leaves,
        33..36 => Fact::Returns,
        36 => Fact::Drain(None),
        _ => Fact::Drain(Some(10 + dice.below(60))),
    }
}

/// Drives a session as its shell does, with sockets that are made up.
struct Rig {
    session: Session,
    step: Step,
    now: u64,
    outside: Outside,
    tried: Vec<u64>,
    usable: u64,
    fins: Vec<Peer>,
    moved: u64,
    over: Option<Close>,
}

impl Rig {
    fn new(usable: u64) -> Rig {
        let mut rig = Rig {
            session: Session::default(),
            step: Step::Choose,
            now: 1_000,
            outside: Outside::default(),
            tried: Vec::new(),
            usable,
            fins: Vec::new(),
            moved: 1_000,
            over: None,
        };
        rig.choose();
        rig
    }

    fn on(&mut self, event: Event) {
        match self.session.on(event) {
            Some(Step::Close(close)) => self.end(close),
            Some(step) => self.step = step,
            None => assert!(self.over.is_some(), "silent before its end"),
        }
    }

    fn end(&mut self, close: Close) {
        assert_eq!(self.over, None, "it ends once");
        self.over = Some(close);
    }

    fn choose(&mut self) {
        while self.step == Step::Choose && self.over.is_none() {
            let next = (0..self.usable).find(|member| !self.tried.contains(member));
            self.tried.extend(next);
            self.on(Event::Chosen(next.is_some()));
        }
    }

    fn look(&mut self) -> Option<u64> {
        if self.over.is_some() {
            return None;
        }
        match self.session.look(at(self.now), self.outside) {
            Look::Close(close) => self.end(close),
            Look::Until(when) => return Some(when.nanos() / 1_000_000_000),
            Look::Stay => {}
        }
        None
    }

    fn live(&mut self, fact: Fact) {
        let relaying = self.step == Step::Relay;
        match fact {
            Fact::Pass(seconds) => return self.pass(seconds),
            Fact::Deleted => self.outside.deleted = true,
            // Only a member that is connected can be seen leaving.
            Fact::Leaves => self.outside.leaving = relaying,
            Fact::Returns => self.outside.leaving = false,
            Fact::Drain(seconds) => self.outside.drain = seconds.map(Duration::from_secs),
            _ => {}
        }
        self.look();
        if self.over.is_some() {
            return;
        }
        match fact {
            Fact::Connects(well) if self.step == Step::Connect => {
                self.on(Event::Connected(well));
                self.moved = self.now;
                self.choose();
            }
            Fact::Rst(Peer::Client) if self.step == Step::Connect => self.on(Event::ClientBroke),
            Fact::Moves if relaying => self.moved = self.now,
            Fact::Fin(peer) if relaying && !self.fins.contains(&peer) => {
                self.fins.push(peer);
                self.moved = self.now;
                if self.fins.len() == 2 {
                    self.on(Event::Ended(End::Finished, self.fins.first().copied()));
                }
            }
            Fact::Rst(peer) if relaying => {
                let end = End::Broken(peer, ErrorKind::ConnectionReset);
                self.on(Event::Ended(end, self.fins.first().copied()));
            }
            _ => {}
        }
    }

    /// Timers fire on the way: the one that `look` asked for, and the idle one.
    fn pass(&mut self, seconds: u64) {
        let until = self.now + seconds;
        while self.over.is_none() {
            let drain = self.look();
            let idle = (self.step == Step::Relay).then_some(self.moved + IDLE);
            let next = drain.into_iter().chain(idle).filter(|next| *next <= until).min();
            let Some(next) = next else { break };
            self.now = next.max(self.now);
            if Some(next) == drain {
                self.look();
                assert!(self.over.is_some(), "when it said so, there is something to do");
            } else {
                self.on(Event::Ended(End::Idle, self.fins.first().copied()));
            }
        }
        self.now = until;
    }
}

fn at(seconds: u64) -> Mono {
    Mono::from_nanos(seconds * 1_000_000_000)
}

/// How a session with this history must have ended, and when; from the facts alone.
fn judge(usable: u64, facts: &[Fact]) -> Option<(Ending, u64)> {
    let failed = |now| Some((Ending::ConnectFailed, now));
    if usable == 0 {
        return failed(1_000);
    }
    let (mut now, mut left) = (1_000, usable.min(ATTEMPTS as u64));
    let (mut connected, mut quiet_since) = (false, 0);
    let (mut left_at, mut drain): (Option<u64>, Option<u64>) = (None, None);
    let (mut client_fin, mut member_fin) = (None, None);
    for (order, fact) in facts.iter().enumerate() {
        match *fact {
            Fact::Pass(seconds) => {
                let drained = left_at.zip(drain).map(|(at, time)| (at + time, Ending::Drained));
                let idle = connected.then_some((quiet_since + IDLE, Ending::Idle));
                // Of two at once the one that the tables want comes first.
                let first = drained.into_iter().chain(idle).min_by_key(|(when, _)| *when);
                if let Some((when, ending)) = first
                    && when <= now + seconds
                {
                    return Some((ending, when.max(now)));
                }
                now += seconds;
            }
            Fact::Deleted => return Some((Ending::Deleted, now)),
            Fact::Leaves if connected => left_at = left_at.or(Some(now)),
            Fact::Returns => left_at = None,
            Fact::Drain(time) => drain = time,
            Fact::Rst(Peer::Client) if !connected => return Some((Ending::ClientRst, now)),
            Fact::Connects(true) if !connected => (connected, quiet_since) = (true, now),
            Fact::Connects(false) if !connected => {
                left -= 1;
                if left == 0 {
                    return failed(now);
                }
            }
            _ => {}
        }
        if let Some((at, time)) = left_at.zip(drain)
            && now >= at + time
        {
            return Some((Ending::Drained, now));
        }
        if !connected || matches!(fact, Fact::Connects(_)) {
            continue;
        }
        match *fact {
            Fact::Moves => quiet_since = now,
            Fact::Rst(Peer::Client) => return Some((Ending::ClientRst, now)),
            Fact::Rst(Peer::Member) => return Some((Ending::MemberRst, now)),
            Fact::Fin(peer) => {
                let fin = if peer == Peer::Client { &mut client_fin } else { &mut member_fin };
                if fin.is_none() {
                    (*fin, quiet_since) = (Some(order), now);
                }
                if let Some((client, member)) = client_fin.zip(member_fin) {
                    let first = client < member;
                    return Some((if first { Ending::ClientFin } else { Ending::MemberFin }, now));
                }
            }
            _ => {}
        }
    }
    None
}

fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let usable = dice.below(MEMBERS + 1);
    let mut rig = Rig::new(usable);
    let mut facts = Vec::new();
    let mut ended_at = rig.over.map(|_| rig.now);
    for _ in 0..dice.below(120) {
        let fact = roll(&mut dice);
        facts.push(fact);
        let before = rig.over;
        rig.live(fact);
        if before.is_some() {
            assert_eq!(rig.over, before, "after the end nothing happens");
        } else if rig.over.is_some() {
            ended_at = Some(rig.now);
        }
        assert!(rig.tried.len() <= ATTEMPTS, "{facts:?}");
    }
    let wanted = judge(usable, &facts);
    let found = rig.over.map(|close| close.ending);
    assert_eq!(found, wanted.map(|(ending, _)| ending), "{usable} {facts:?}");
    assert_eq!(rig.session.is_over(), rig.over.is_some());
    if let (Some(ended), Some((_, when))) = (ended_at, wanted) {
        assert!(ended >= when, "too early, at {ended} and not {when}");
    }
    if let Some(close) = rig.over {
        let said = matches!(close.ending, Ending::ClientFin | Ending::MemberFin);
        assert_eq!(close.reset, !said, "only who was told goes without a reset");
    }
}

/// R2.2-3, R6.3-1, R6.7-1, R7.14-4.
#[test]
fn sessions_end_as_their_history_says() {
    if let Ok(seed) = std::env::var("WEIR_SEED") {
        return run(seed.parse().unwrap());
    }
    let full = std::env::var("WEIR_COUNTS").is_ok_and(|counts| counts == "full");
    for seed in 0..if full { 2_000_000 } else { 5_000 } {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("seed {seed} fails; WEIR_SEED={seed} runs it again");
        }
    }
}
