//! Between the desired state and the prober: who is to be checked, and what came of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::control::{Member, MemberName, State};
use weir_core::model::Handle;
use weir_core::rt::Sender;
use weir_core::time::clock::Mono;
use weir_core::tls::Stream;
use weir_health::{First, GrpcAnswering, GrpcCall, Past, Prober, ProberCounters, Target};

use super::checks;
use super::control::Event;

/// Beside one timeout, how long a start or a reload waits for the first verdicts.
const SLACK: Duration = Duration::from_secs(1);
/// How often is looked whether they are there; no more than this counts from one look to the next.
const LOOK: Duration = Duration::from_millis(100);
/// So long after the one before, a look is late: this thread, which probes as well, had no core.
const LATE: Duration = Duration::from_millis(200);

/// The health checks of this process.
#[derive(Debug)]
pub struct Checks {
    prober: Rc<Prober>,
    found: Rc<Found>,
}

/// Verdicts that control has not taken yet.
#[derive(Debug, Default)]
struct Found {
    verdicts: RefCell<Vec<(Handle, bool)>>,
    /// Control has been told that there are some.
    told: Cell<bool>,
}

impl Checks {
    /// No checks yet; an event tells control when there are verdicts.
    pub fn new(seed: u64, counters: Arc<ProberCounters>, events: Sender<Event>) -> Checks {
        let found: Rc<Found> = Rc::default();
        let list = Rc::clone(&found);
        let tell = move |member, up| {
            list.verdicts.borrow_mut().push((member, up));
            // If control has too much to do it is told with the next verdict.
            list.told.set(list.told.get() || events.try_send(Event::Verdicts).is_ok());
        };
        let at_once = checks::probes_at_once();
        let prober = Prober::new(seed, at_once, counters, tell, Some(ask_grpc));
        Checks { prober, found }
    }

    /// Checks the members that `state` wants checked, and no others.
    pub fn begin(&self, state: &State) {
        self.prober.set_targets(targets(state, First::AtRandom, |_| true).collect());
    }

    /// The same, and already those `awaited` that the `next` state wants checked: somebody waits
    /// for their verdicts, so they are asked soon.
    pub fn begin_early(&self, state: &State, next: &State, awaited: &BTreeSet<Handle>) {
        let is_awaited = |member| awaited.contains(&member);
        let served = state.checked_members();
        let mut all: Vec<Target> = targets(state, First::Soon, is_awaited).collect();
        all.extend(targets(state, First::AtRandom, |member| !is_awaited(member)));
        all.extend(targets(next, First::Soon, |m| is_awaited(m) && !served.contains(&m)));
        self.prober.set_targets(all);
    }

    /// What the checks have found of members, for another process.
    pub fn past(&self, state: &State) -> Vec<(MemberName, Past)> {
        let past: HashMap<Handle, Past> = self.prober.past().into_iter().collect();
        let names = state.members_by_name().into_iter();
        names.filter_map(|(name, member)| Some((name, *past.get(&member)?))).collect()
    }

    /// Goes on with what another process has found, for the members of the state that is to be
    /// served; to be called before they are checked.
    pub fn go_on_from(&self, past: &[(MemberName, Past)], next: &State) {
        let members = next.members_by_name();
        let known = past.iter().filter_map(|(name, past)| Some((*members.get(name)?, *past)));
        self.prober.go_on_from(known);
    }

    /// Checks nobody any more: members keep the health that they were found in.
    pub fn end(&self) {
        self.prober.set_targets(Vec::new());
    }

    /// The verdicts since the last time.
    pub fn take(&self) -> Vec<(Handle, bool)> {
        self.found.told.set(false);
        self.found.verdicts.take()
    }

    /// Those of `members` that have had no verdict yet.
    pub fn unjudged(&self, members: &BTreeSet<Handle>) -> usize {
        self.prober.unjudged(members.iter().copied())
    }
}

/// One call of a gRPC check: this program's HTTP/2 speaks for the prober.
fn ask_grpc(stream: Stream, call: GrpcCall) -> GrpcAnswering {
    Box::pin(async move {
        let GrpcCall { secure, authority, service } = call;
        let answer = weir_l7::ask_grpc(&stream, secure, &authority, &service).await;
        // Nobody is to keep it in TIME_WAIT.
        stream.reset();
        answer.map(|answer| (answer.status, answer.serving))
    })
}

/// How long a start or a reload still waits for first verdicts: the longest timeout of a check and
/// [`SLACK`], of time in which this thread could look. If a look is [`LATE`] that timeout is added
/// once, since probes are forgiven as much (`weir-health`, patience). So it ends on a machine that
/// never has a core for it, too.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    left: Duration,
    /// What the first late look adds.
    spare: Duration,
    looked: Mono,
}

impl Wait {
    /// Begins `now`, for the verdicts on these members.
    pub fn new(state: &State, awaited: &BTreeSet<Handle>, now: Mono) -> Wait {
        let awaited = state.members().filter(|(_, member)| awaited.contains(&member.handle));
        let timeouts = awaited.filter_map(|(pool, _)| Some(pool.monitor.as_ref()?.timeout));
        Wait::of(timeouts.max(), now)
    }

    /// `None` = nobody is waited for.
    fn of(timeout: Option<Duration>, now: Mono) -> Wait {
        let left = timeout.map_or(Duration::ZERO, |timeout| timeout + SLACK);
        Wait { left, spare: timeout.unwrap_or_default(), looked: now }
    }

    /// What is left of it; to be asked again within [`Wait::tick`].
    pub fn look(&mut self, now: Mono) -> Duration {
        let took = now.since(self.looked);
        self.looked = now;
        if took >= LATE && !self.left.is_zero() {
            self.left += std::mem::take(&mut self.spare);
        }
        self.left = self.left.saturating_sub(took.min(LOOK));
        self.left
    }

    /// Until the next look is due.
    pub fn tick(&self) -> Duration {
        self.left.min(LOOK)
    }
}

/// R8.1-17: a pool that no listener uses is not checked; R8.1-4: a member with weight 0 is.
fn targets(
    state: &State,
    first: First,
    which: impl Fn(Handle) -> bool,
) -> impl Iterator<Item = Target> {
    let checked = state.pools().filter(|(_, pool)| pool.is_checked());
    checked.flat_map(move |(_, pool)| {
        let name: Arc<str> = pool.name.as_str().into();
        let members = pool.members.iter().filter(|member| which(member.handle));
        let target = |member: &Member| {
            Some(Target {
                key: member.handle,
                pool: Arc::clone(&name),
                member: member.name.as_str().into(),
                address: member.address,
                monitor: Arc::clone(pool.monitor.as_ref()?),
                trust: pool.check_trust.clone(),
                sources: Arc::clone(&pool.sources),
                up: state.is_up(member.handle),
                first,
            })
        };
        members.filter_map(target).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    /// What is left after so many looks, so far apart.
    fn look(wait: &mut Wait, times: u32, apart: Duration) -> Duration {
        (0..times).fold(Duration::ZERO, |_, _| wait.look(wait.looked.plus(apart)))
    }

    #[test]
    fn first_verdicts_are_waited_for_one_timeout_and_a_second() {
        let mut wait = Wait::of(Some(TIMEOUT), Mono::from_nanos(1));
        assert_eq!(look(&mut wait, 29, LOOK), LOOK);
        // An event came meanwhile.
        assert_eq!(look(&mut wait, 1, LOOK / 4), LOOK * 3 / 4);
        assert_eq!((wait.tick(), look(&mut wait, 1, LOOK)), (LOOK * 3 / 4, Duration::ZERO));
        // What is over does not begin again.
        assert_eq!(look(&mut wait, 1, TIMEOUT), Duration::ZERO);
        assert_eq!(look(&mut Wait::of(None, Mono::default()), 1, LATE), Duration::ZERO);
    }

    #[test]
    fn time_in_which_nobody_could_look_does_not_count() {
        let mut wait = Wait::of(Some(TIMEOUT), Mono::from_nanos(1));
        assert_eq!(look(&mut wait, 10, LOOK), TIMEOUT);
        // Probes that were forgiven as much have their time, too.
        assert_eq!(look(&mut wait, 1, TIMEOUT * 30), TIMEOUT * 2 - LOOK);
        assert_eq!(wait.tick(), LOOK);
        // It ends all the same.
        assert_eq!(look(&mut wait, 39, TIMEOUT), Duration::ZERO);
    }
}
