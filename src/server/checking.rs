//! Between the desired state and the prober: who is to be checked, and what came of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::control::{Member, MemberName, State};
use weir_core::model::Handle;
use weir_core::rt::Sender;
use weir_core::tls::Stream;
use weir_health::{First, GrpcAnswering, GrpcCall, Past, Prober, ProberCounters, Target};

use super::checks;
use super::control::Event;

/// Beside one timeout, how long a start or a reload waits for the first verdicts.
const SLACK: Duration = Duration::from_secs(1);

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

/// How long the first verdicts on these members may take.
pub fn patience(state: &State, awaited: &BTreeSet<Handle>) -> Duration {
    let awaited = state.members().filter(|(_, member)| awaited.contains(&member.handle));
    let timeouts = awaited.filter_map(|(pool, _)| Some(pool.monitor.as_ref()?.timeout));
    timeouts.max().map_or(Duration::ZERO, |timeout| timeout + SLACK)
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
