//! The prober: one per process, on the control thread (C27). Owns a task for each member that is
//! checked, and tells of changes; the rules are `state`'s and `schedule`'s.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::model::{Handle, Monitor};
use weir_core::net::source::in_turn;
use weir_core::rt::{self, Shortage, TaskHandle};
use weir_core::time::clock::Mono;
use weir_core::tls::Trust;

use crate::counters::ProberCounters;
use crate::limits;
use crate::probe::{self, AskGrpc, Outcome, Question};
use crate::reason::{Local, Reason};
use crate::schedule;
use crate::state::{Past, State};
use crate::turns::Turns;

/// This host's own trouble is logged at most so often.
const COMPLAINT: Duration = Duration::from_secs(10);

/// A member to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is told by; the same as long as it is the same member.
    pub key: Handle,
    /// Its pool's name, for messages.
    pub pool: Arc<str>,
    /// Its name, for messages.
    pub member: Arc<str>,
    /// Where it serves; the monitor may name another port (R8.1-13).
    pub address: SocketAddr,
    /// How it is checked.
    pub monitor: Arc<Monitor>,
    /// What it has to show in checks inside TLS, which need this.
    pub trust: Option<Trust>,
    /// Our addresses towards it, in turn; empty = the kernel chooses.
    pub sources: Arc<[IpAddr]>,
    /// It counts as up until its checks find otherwise: it served before without them (C36).
    pub up: bool,
    /// When its first probe goes out, if it is new.
    pub first: First,
}

/// When the first probe of a new target goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Within the delay, but at most a second: somebody waits for its verdict.
    Soon,
    /// At a random moment of the first delay (R8.6-1).
    AtRandom,
}

/// Runs all checks of the process. Lives on one thread of the runtime.
pub struct Prober {
    /// Hears of first verdicts and of changes: key, up.
    tell: Box<dyn Fn(Handle, bool)>,
    checks: RefCell<HashMap<Handle, Rc<Check>>>,
    /// What another process has found of the targets that are set next.
    past: RefCell<HashMap<Handle, Past>>,
    counters: Arc<ProberCounters>,
    turns: Rc<Turns>,
    lots: Cell<u64>,
    complained: Cell<Option<Mono>>,
    grpc: Option<AskGrpc>,
}

/// The check of one member.
struct Check {
    target: RefCell<Target>,
    state: Cell<State>,
    since: Cell<Mono>,
    /// Which of our addresses is next.
    turn: Cell<usize>,
    task: Cell<Option<TaskHandle>>,
}

impl Prober {
    /// A prober without targets, which counts into `counters`. `tell` hears of each first verdict
    /// and each change: the target's key, and whether it is up. `seed` spreads the first probes;
    /// `at_once` of them run at the same time, but never more than [`limits::MAX_PROBES`]. `grpc`
    /// speaks HTTP/2.
    pub fn new(
        seed: u64,
        at_once: usize,
        counters: Arc<ProberCounters>,
        tell: impl Fn(Handle, bool) + 'static,
        grpc: Option<AskGrpc>,
    ) -> Rc<Prober> {
        Rc::new(Prober {
            tell: Box::new(tell),
            checks: RefCell::default(),
            past: RefCell::default(),
            counters,
            turns: Turns::new(at_once.min(limits::MAX_PROBES)),
            lots: Cell::new(seed),
            complained: Cell::new(None),
            grpc,
        })
    }

    /// Checks these from now on and no others. A target that stays keeps state and pace, also with
    /// another monitor, which counts from its next probe on (R8.1-5); one that goes loses its
    /// running probe.
    pub fn set_targets(self: &Rc<Self>, targets: Vec<Target>) {
        let mut checks = self.checks.borrow_mut();
        let mut old = std::mem::take(&mut *checks);
        for target in targets {
            if !probe::is_supported(&target.monitor.kind, self.grpc) {
                continue;
            }
            let key = target.key;
            let check = match old.remove(&key) {
                Some(check) if check.goes_on_as(&target) => {
                    check.target.replace(target);
                    check
                }
                former => {
                    former.iter().for_each(|former| former.end());
                    self.begin(target)
                }
            };
            checks.insert(key, check);
        }
        old.values().for_each(|check| check.end());
        self.counters.forget(old.keys());
        // Whoever comes later has a history of its own.
        self.past.borrow_mut().clear();
    }

    /// What has been found of each target that has had a verdict, for another process.
    pub fn past(&self) -> Vec<(Handle, Past)> {
        let checks = self.checks.borrow();
        let judged = checks.iter().filter(|(_, check)| check.state.get().is_judged());
        judged.map(|(key, check)| (*key, check.state.get().past())).collect()
    }

    /// Of the targets that are set next, those with these keys were checked by another process,
    /// which found that.
    pub fn go_on_from(&self, past: impl IntoIterator<Item = (Handle, Past)>) {
        self.past.replace(past.into_iter().collect());
    }

    /// Those targets that have had no verdict yet.
    pub fn unjudged(&self, among: impl Iterator<Item = Handle>) -> usize {
        let checks = self.checks.borrow();
        let unjudged =
            |key: &Handle| checks.get(key).is_some_and(|check| !check.state.get().is_judged());
        among.filter(unjudged).count()
    }

    fn begin(self: &Rc<Self>, target: Target) -> Rc<Check> {
        let now = rt::now();
        let delay = target.monitor.delay;
        let due = schedule::first(now, delay, target.first == First::Soon, self.lot());
        let past = self.past.borrow_mut().remove(&target.key);
        let state = match past {
            Some(past) => State::after(target.up, past),
            None => State::new(target.up),
        };
        let check = Rc::new(Check {
            state: Cell::new(state),
            since: Cell::new(now),
            turn: Cell::new(0),
            target: RefCell::new(target),
            task: Cell::new(None),
        });
        check.task.set(Some(rt::spawn(Rc::clone(self).keep_asking(Rc::clone(&check), due))));
        check
    }

    /// The life of a check.
    async fn keep_asking(self: Rc<Self>, check: Rc<Check>, mut due: Mono) {
        loop {
            rt::sleep(due.since(rt::now())).await;
            let turn = self.turns.take().await;
            let target = check.target.borrow().clone();
            let outcome = self.ask(&check, &target).await;
            drop(turn);
            self.record(&check, outcome);
            let delay = check.target.borrow().monitor.delay;
            due = schedule::next(due, delay, rt::now());
        }
    }

    /// Asks the member from one of our addresses, from another one if that has no port left.
    async fn ask(&self, check: &Check, target: &Target) -> Outcome {
        let turn = check.turn.replace(check.turn.get().wrapping_add(1));
        let no_port = Local::Lacks(Shortage::Ports);
        let mut outcome = Err(no_port);
        for source in in_turn(&target.sources, target.address.ip(), turn) {
            outcome = probe::probe(question(target, source, self.grpc)).await;
            if outcome != Err(no_port) {
                break;
            }
        }
        outcome
    }

    fn record(&self, check: &Check, outcome: Outcome) {
        let result = match outcome {
            Ok(result) => result,
            Err(local) => {
                self.counters.void.add(1);
                return self.complain(check, local);
            }
        };
        let key = check.target.borrow().key;
        self.counters.record(key, &result);
        let Monitor { rise, fall, .. } = *check.target.borrow().monitor;
        let mut state = check.state.get();
        let first = !state.is_judged();
        let change = state.record(result.is_ok(), rise, fall);
        check.state.set(state);
        if let Some(up) = change {
            check.log(up, result.err());
            check.since.set(rt::now());
        } else if first && let Err(reason) = &result {
            let Target { pool, member, .. } = &*check.target.borrow();
            tracing::warn!("pool {pool}: member {member}: its first check failed: {reason}");
        }
        if change.is_some() || first {
            (self.tell)(key, state.is_up());
        }
    }

    /// Says what this host lacks, but not for each of ten thousand members.
    fn complain(&self, check: &Check, local: Local) {
        let now = rt::now();
        if self.complained.get().is_some_and(|last| now.since(last) < COMPLAINT) {
            return;
        }
        self.complained.set(Some(now));
        let Target { pool, member, .. } = &*check.target.borrow();
        tracing::error!(
            "health checks can't be made (pool {pool}, member {member}, and maybe others): \
             {local}. Members keep their state"
        );
    }

    /// The next random number (SplitMix64).
    fn lot(&self) -> u64 {
        let state = self.lots.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.lots.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober")
            .field("checks", &self.checks.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Check {
    /// Is it the same check under these settings? Not at another address, and not when somebody
    /// waits now for a first verdict that has time.
    fn goes_on_as(&self, target: &Target) -> bool {
        let was = self.target.borrow();
        let hurries = target.first == First::Soon && was.first == First::AtRandom;
        was.address == target.address && (self.state.get().is_judged() || !hurries)
    }

    fn log(&self, up: bool, reason: Option<Reason>) {
        let Target { pool, member, .. } = &*self.target.borrow();
        let before = rt::now().since(self.since.get()).as_secs();
        match reason {
            Some(reason) => tracing::warn!(
                "pool {pool}: member {member} is down: {reason}; it was up for {before} s"
            ),
            None if up => tracing::info!("pool {pool}: member {member} is up after {before} s"),
            None => {}
        }
    }

    fn end(&self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Whom to ask, and how.
fn question(target: &Target, source: Option<IpAddr>, grpc: Option<AskGrpc>) -> Question<'_> {
    let port = target.monitor.port.unwrap_or(target.address.port());
    let address = SocketAddr::new(target.address.ip(), port);
    let trust = target.trust.as_ref();
    Question { address, monitor: &target.monitor, trust, source, grpc }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.checks.borrow().values().for_each(|check| check.end());
    }
}
