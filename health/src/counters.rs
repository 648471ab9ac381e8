//! What the prober counts, and why members fail their checks, for whoever shows it. Written by the
//! control thread, read by the admin thread; nothing on a request's path comes here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_core::counter::Counter;
use weir_core::model::Handle;

use crate::reason::{Code, Reason};

/// What the prober has done. One writer, the control thread.
#[derive(Debug, Default)]
pub struct ProberCounters {
    /// Probes that had an outcome.
    pub probes: Counter,
    /// Probes that this host could not make.
    pub void: Counter,
    failures: [Counter; Code::ALL.len()],
    /// Members whose last probe failed, and why.
    failing: Mutex<HashMap<Handle, Reason>>,
}

impl ProberCounters {
    /// Failed probes by reason, those that have occurred.
    pub fn failures(&self) -> impl Iterator<Item = (Code, u64)> + '_ {
        let all = Code::ALL.into_iter().zip(self.failures.iter().map(Counter::get));
        all.filter(|(_, n)| *n > 0)
    }

    /// Members whose last probe failed, and why.
    #[must_use]
    pub fn failing(&self) -> BTreeMap<Handle, Reason> {
        self.table().iter().map(|(member, reason)| (*member, reason.clone())).collect()
    }

    /// A probe of `member` had this outcome.
    pub(crate) fn record(&self, member: Handle, outcome: &Result<(), Reason>) {
        self.probes.add(1);
        match outcome {
            Ok(()) => drop(self.table().remove(&member)),
            Err(reason) => {
                if let Some(counter) = self.failures.get(reason.code() as usize) {
                    counter.add(1);
                }
                self.table().insert(member, reason.clone());
            }
        }
    }

    /// These are checked no more.
    pub(crate) fn forget<'a>(&self, members: impl Iterator<Item = &'a Handle>) {
        let mut table = self.table();
        members.for_each(|member| drop(table.remove(member)));
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Handle, Reason>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use weir_core::model::Handles;

    use super::*;

    #[test]
    fn the_last_probe_of_each_member_counts() {
        let mut handles = Handles::default();
        let (a, b) = (handles.fresh(), handles.fresh());
        let counters = ProberCounters::default();
        counters.record(a, &Err(Reason::ConnectTimeout));
        counters.record(a, &Err(Reason::Unreachable));
        counters.record(b, &Err(Reason::Unreachable));
        let failures: Vec<_> = counters.failures().collect();
        assert_eq!(failures, [(Code::ConnectTimeout, 1), (Code::ConnectFailed, 2)]);
        assert_eq!(counters.failing().get(&a), Some(&Reason::Unreachable));
        counters.record(a, &Ok(()));
        assert_eq!(counters.failing().keys().collect::<Vec<_>>(), [&b]);
        counters.forget([b].iter());
        assert!(counters.failing().is_empty());
        assert_eq!(counters.probes.get(), 4);
    }
}
