//! Between the desired state and the prober: who is to be checked, and what came of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::control::State;
use weir_core::model::Handle;
use weir_core::rt::Sender;
use weir_health::{First, Prober, ProberCounters, Target};

use super::control::Event;

/// Beside one timeout, how long the start waits for the first verdicts.
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
        let prober = Prober::new(seed, counters, move |member, up| {
            list.verdicts.borrow_mut().push((member, up));
            // If control has too much to do it is told with the next verdict.
            list.told.set(list.told.get() || events.try_send(Event::Verdicts).is_ok());
        });
        Checks { prober, found }
    }

    /// Checks the members that `state` wants checked, and no others.
    pub fn begin(&self, state: &State, first: First) {
        self.prober.set_targets(targets(state), first);
    }

    /// The verdicts since the last time.
    pub fn take(&self) -> Vec<(Handle, bool)> {
        self.found.told.set(false);
        self.found.verdicts.take()
    }

    /// Members without a verdict.
    pub fn unjudged(&self) -> usize {
        self.prober.unjudged()
    }

    /// How long the first verdicts may take.
    pub fn patience(&self, state: &State) -> Duration {
        let checked = state.pools().filter(|(_, pool)| pool.is_checked());
        let timeouts = checked.filter_map(|(_, pool)| Some(pool.monitor.as_ref()?.timeout));
        timeouts.max().map_or(Duration::ZERO, |timeout| timeout + SLACK)
    }
}

/// R8.1-17: a pool that no listener uses is not checked; R8.1-4: a member with weight 0 is.
fn targets(state: &State) -> Vec<Target> {
    let mut targets = Vec::new();
    for (_, pool) in state.pools() {
        let Some(monitor) = pool.monitor.as_ref().filter(|_| pool.is_checked()) else { continue };
        let name: Arc<str> = pool.name.as_str().into();
        targets.extend(pool.members.iter().map(|member| Target {
            key: member.handle,
            pool: Arc::clone(&name),
            member: member.name.as_str().into(),
            address: member.address,
            monitor: Arc::clone(monitor),
            source: None,
            up: state.is_up(member.handle),
        }));
    }
    targets
}
