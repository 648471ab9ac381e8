//! The forwarding policies of a listener in the desired state: the compiled table, and the policies
//! that are left out of it because of a conflict (R10.3-1 to R10.3-3, C30).
//!
//! Two policies of a listener conflict when they have the same conditions. A file that holds such
//! a pair is refused by `config`; what changes objects one by one can make it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{Config, Handle, Id, Policy, Rule};
use crate::policy::{Resolve, Router};

/// Names of one kind that a description lists; the rest is counted.
const NAMES_SHOWN: usize = 5;

/// The policies of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    table: Option<Arc<Router>>,
    faults: Vec<Fault>,
}

/// A policy in the state `fault`: it routes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The policy.
    pub policy: Id,
    /// The user's name for it.
    pub name: String,
    /// Its conditions, in an order of their own.
    rules: Vec<Rule>,
}

/// The policies of each listener that has some, in file order.
pub(super) fn by_listener(config: &Config) -> HashMap<usize, Vec<&Policy>> {
    let mut lists: HashMap<usize, Vec<&Policy>> = HashMap::new();
    for policy in &config.policies {
        lists.entry(policy.listener).or_default().push(policy);
    }
    lists
}

impl Routes {
    /// What follows from `policies`, all of one listener, after `former`.
    pub(super) fn next(
        former: Option<&Routes>,
        policies: &[&Policy],
        config: &Config,
        pools: &[Handle],
    ) -> Routes {
        let none = Routes::default();
        let former = former.unwrap_or(&none);
        let (active, faults) = former.judge(policies, config.compat.policies_recover);
        if active.is_empty() {
            return Routes { table: None, faults };
        }
        let table = Router::new(active, &References { config, pools });
        let table = match &former.table {
            Some(former) if **former == table => Arc::clone(former),
            _ => Arc::new(table),
        };
        Routes { table: Some(table), faults }
    }

    /// The compiled table; `None` when no policy is active.
    #[must_use]
    pub fn table(&self) -> Option<&Arc<Router>> {
        self.table.as_ref()
    }

    /// The policies in the state `fault`.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Tells policies that route from those in conflict. Among policies with the same conditions
    /// the one that routes already goes on, else the first routes. One that was in fault stays so
    /// as long as it keeps its conditions, unless policies `recover`.
    fn judge<'p>(&self, policies: &[&'p Policy], recover: bool) -> (Vec<&'p Policy>, Vec<Fault>) {
        let routed: HashSet<Id> =
            self.table.iter().flat_map(|table| table.policies()).map(|policy| policy.id).collect();
        let sorted = |policy: &'p Policy| {
            let mut rules: Vec<&Rule> = policy.rules.iter().collect();
            rules.sort_unstable();
            rules
        };
        let stuck = |policy: &Policy, rules: &[&Rule]| {
            let same = |fault: &&Fault| {
                fault.policy == policy.id && fault.rules.iter().eq(rules.iter().copied())
            };
            !recover && self.faults.iter().any(|fault| same(&fault))
        };
        let (old, new): (Vec<_>, Vec<_>) =
            policies.iter().partition(|policy| routed.contains(&policy.id));
        let mut taken: HashSet<Vec<&Rule>> = HashSet::new();
        let mut faults: HashMap<Id, Fault> = HashMap::new();
        for policy in old.into_iter().chain(new) {
            let rules = sorted(policy);
            if stuck(policy, &rules) || taken.contains(&rules) {
                let rules = rules.into_iter().cloned().collect();
                let name = policy.name.clone();
                faults.insert(policy.id, Fault { policy: policy.id, name, rules });
            } else {
                taken.insert(rules);
            }
        }
        let active = policies.iter().filter(|policy| !faults.contains_key(&policy.id)).copied();
        let active = active.collect();
        (active, policies.iter().filter_map(|policy| faults.remove(&policy.id)).collect())
    }

    /// What is different in `to`, for people.
    pub(super) fn describe(&self, to: &Routes) -> Vec<String> {
        let mut lines = Vec::new();
        let (was, now) = (self.policies(), to.policies());
        let missing = |from: &HashMap<Id, &crate::policy::Policy>, other: &Routes| -> Vec<String> {
            let policies = other.table.iter().flat_map(|table| table.policies());
            let policies = policies.filter(|policy| !from.contains_key(&policy.id));
            policies.map(|policy| policy.name.to_string()).collect()
        };
        tell(&mut lines, "added", &missing(&was, to));
        let changed: Vec<String> = (to.table.iter().flat_map(|table| table.policies()))
            .filter(|policy| was.get(&policy.id).is_some_and(|former| !former.is_like(policy)))
            .map(|policy| policy.name.to_string())
            .collect();
        tell(&mut lines, "changed", &changed);
        tell(&mut lines, "removed", &missing(&now, self));
        let faults: Vec<String> = (to.faults.iter())
            .filter(|fault| !self.faults.contains(fault))
            .map(|fault| fault.name.clone())
            .collect();
        tell(&mut lines, "in fault (R10.3-1)", &faults);
        if lines.is_empty() && self.table != to.table {
            lines.push("names or order of policies changed".to_owned());
        }
        lines
    }

    fn policies(&self) -> HashMap<Id, &crate::policy::Policy> {
        let policies = self.table.iter().flat_map(|table| table.policies());
        policies.map(|policy| (policy.id, policy)).collect()
    }
}

fn tell(lines: &mut Vec<String>, what: &str, names: &[String]) {
    let shown = names.get(..names.len().min(NAMES_SHOWN)).unwrap_or_default();
    let more = names.len() - shown.len();
    match (names.len(), more) {
        (0, _) => {}
        (1, _) => lines.push(format!("policy {} {what}", shown.join(""))),
        (_, 0) => lines.push(format!("policies {} {what}", shown.join(" and "))),
        _ => lines.push(format!("policies {} and {more} more {what}", shown.join(" and "))),
    }
}

/// What indices of the configuration stand for in the state.
struct References<'a> {
    config: &'a Config,
    pools: &'a [Handle],
}

impl Resolve for References<'_> {
    fn pool(&self, index: usize) -> Option<Handle> {
        self.pools.get(index).copied()
    }

    fn port(&self, listener: usize) -> u16 {
        self.config.listeners.get(listener).map_or(0, |listener| listener.protocol_port)
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
