//! Forwarding policies: their listener, their order, their twins, and whose pools they use.

use std::collections::HashMap;

use super::listeners::{Resolved as Listener, check_pair};
use super::names::Names;
use crate::config::problem::{Findings, Placed, Span};
use crate::config::read::{ActionText, Document, PolicyText};
use crate::model::{Action, Balancer, Flavor, Policy, Protocol, Rule, derive_id};

/// A policy with its references found.
pub(super) struct Resolved {
    pub object: Policy,
    /// `None` where the file names none that exists.
    pub listener: Option<usize>,
    /// The pools that it names, with the place of each.
    pub pools: Vec<(usize, Span, String)>,
}

pub(super) fn resolve(
    document: &Document<'_, '_>,
    names: &Names,
    balancers: &[Balancer],
    listeners: &[Listener],
    findings: &mut Findings,
) -> Vec<Resolved> {
    let mut resolved = Vec::with_capacity(document.policies.len());
    for text in &document.policies {
        let policy = policy(text, names, listeners, findings);
        check_uses(&policy, document, balancers, listeners, findings);
        resolved.push(policy);
    }
    check_twins(document, &resolved, findings);
    resolved
}

fn policy(
    text: &PolicyText<'_, '_>,
    names: &Names,
    listeners: &[Listener],
    findings: &mut Findings,
) -> Resolved {
    let table = &text.head.table;
    let wanted = text.listener.as_ref();
    let listener =
        wanted.and_then(|name| names.listeners.find(name, || table.at("listener"), findings));
    let protocol = listener.and_then(|index| listeners.get(index)).map(|l| l.object.protocol);
    if let Some(protocol) = protocol.filter(|protocol| !protocol.is_l7()) {
        let what = format!("a {} listener has no forwarding policies", protocol.name());
        let help = "name an HTTP or HTTPS listener";
        table.error("listener", what, findings).row("R10.4-1").help(help);
    }
    let mut pools = Vec::new();
    let action = match &text.action {
        Some(ActionText::Pools(list)) => {
            pools = pools_of(text, list, names, findings);
            let weights = list.iter().map(|(_, weight)| *weight);
            Action::Pools(pools.iter().map(|(pool, ..)| *pool).zip(weights).collect())
        }
        Some(ActionText::Listener(name)) => {
            let path = || table.at("redirect_listener");
            let target = names.listeners.find(name, path, findings);
            check_target(text, name, listener, target, listeners, findings);
            Action::Listener(target.unwrap_or(0))
        }
        Some(ActionText::Url(url)) => Action::Url(url.clone()),
        Some(ActionText::Fixed(fixed)) => Action::Fixed(fixed.clone()),
        None => Action::Pools(Vec::new()),
    };
    let name = text.head.name().to_owned();
    let id = text.head.id.as_ref().map(|id| id.value);
    let object = Policy {
        id: id.unwrap_or_else(|| derive_id("l7policy", "", &name)),
        name,
        listener: listener.unwrap_or(0),
        priority: text.priority.as_ref().map(|priority| priority.value),
        rules: text.rules.clone(),
        action,
    };
    Resolved { object, listener, pools }
}

/// Finds the pools of an action; one that it names twice is reported.
fn pools_of(
    text: &PolicyText<'_, '_>,
    list: &[(Placed<String>, u8)],
    names: &Names,
    findings: &mut Findings,
) -> Vec<(usize, Span, String)> {
    let table = &text.head.table;
    let several = table.has("redirect_pools");
    let mut pools: Vec<(usize, Span, String)> = Vec::with_capacity(list.len());
    for (at, (name, _)) in list.iter().enumerate() {
        let path = match several {
            true => format!("{}[{at}].pool", table.at("redirect_pools")),
            false => table.at("redirect_pool"),
        };
        let Some(pool) = names.pools.find(name, || path.clone(), findings) else { continue };
        if let Some((_, earlier, _)) = pools.iter().find(|(other, ..)| *other == pool) {
            findings
                .error(name.span, path, "stands in this policy twice")
                .row("R10.5-1")
                .related(*earlier, "the first one")
                .help("take one out, and add its weight to the other");
            continue;
        }
        pools.push((pool, name.span, path));
    }
    pools
}

/// R5.5-2: from an HTTP listener to an HTTPS listener of the same balancer.
fn check_target(
    text: &PolicyText<'_, '_>,
    name: &Placed<String>,
    from: Option<usize>,
    to: Option<usize>,
    listeners: &[Listener],
    findings: &mut Findings,
) {
    let get = |index: Option<usize>| index.and_then(|index| listeners.get(index));
    let (Some(from), Some(to)) = (get(from), get(to)) else { return };
    let wrong = if to.object.protocol != Protocol::Https {
        "is no HTTPS listener"
    } else if from.object.protocol != Protocol::Http {
        "is for clients of an HTTP listener"
    } else if from.balancer.is_some() && to.balancer.is_some() && from.balancer != to.balancer {
        "belongs to another balancer"
    } else {
        return;
    };
    findings
        .error(name.span, text.head.table.at("redirect_listener"), wrong)
        .row("R5.5-2")
        .help("redirect an HTTP listener to an HTTPS listener of its balancer");
}

/// The pairs of protocols, as for a default pool.
fn check_uses(
    policy: &Resolved,
    document: &Document<'_, '_>,
    balancers: &[Balancer],
    listeners: &[Listener],
    findings: &mut Findings,
) {
    let listener = policy.listener.and_then(|index| listeners.get(index));
    let Some(listener) = listener.filter(|listener| listener.object.protocol.is_l7()) else {
        return;
    };
    let balancer = listener.balancer.and_then(|index| balancers.get(index));
    let flavor = balancer.map_or(Flavor::Dedicated, |balancer| balancer.flavor);
    for (pool, span, path) in &policy.pools {
        let Some(pool) = document.pools.get(*pool) else { continue };
        check_pair(&listener.object, flavor, pool, (*span, path.clone()), findings);
    }
}

/// Priorities that stand twice in a listener, and policies with the same conditions (C30).
fn check_twins(document: &Document<'_, '_>, policies: &[Resolved], findings: &mut Findings) {
    let mut priorities: HashMap<(usize, u16), Span> = HashMap::new();
    let mut conditions: HashMap<(usize, Vec<&Rule>), Span> = HashMap::new();
    for (text, policy) in document.policies.iter().zip(policies) {
        let Some(listener) = policy.listener else { continue };
        let table = &text.head.table;
        if let Some(priority) = &text.priority {
            let key = (listener, priority.value);
            if let Some(earlier) = priorities.get(&key) {
                let what = format!("{} is the priority of an earlier policy", priority.value);
                findings
                    .error(priority.span, table.at("priority"), what)
                    .related(*earlier, "the earlier one")
                    .help("give each policy of a listener its own priority");
            }
            priorities.entry(key).or_insert(priority.span);
        }
        if !text.rules_whole {
            continue;
        }
        let mut rules: Vec<&Rule> = policy.object.rules.iter().collect();
        rules.sort_unstable();
        let key = (listener, rules);
        if let Some(earlier) = conditions.get(&key) {
            let what = "an earlier policy of this listener has the same conditions";
            findings
                .error(table.span, table.path.clone(), what)
                .row("R10.3-1")
                .related(*earlier, "the earlier one")
                .help("take one out, or change its rules");
        }
        conditions.entry(key).or_insert(table.span);
    }
}

/// R10.5-1, R10.5-2: a pool serves one policy, or is a default pool, unless `[compat]` says
/// otherwise.
pub(super) fn check_sharing(
    document: &Document<'_, '_>,
    policies: &[Resolved],
    listeners: &[Listener],
    findings: &mut Findings,
) {
    const HELP: &str = "make a second pool of the same members, or set \
        [compat] pool_per_policy = \"shared\"";
    if document.compat.shared_pools {
        return;
    }
    let mut defaults: HashMap<usize, Span> = HashMap::new();
    for (text, listener) in document.listeners.iter().zip(listeners) {
        if let (Some(pool), Some(name)) = (listener.pool, &text.default_pool) {
            defaults.entry(pool).or_insert(name.span);
        }
    }
    let mut taken: HashMap<usize, Span> = HashMap::new();
    for policy in policies {
        for (pool, span, path) in &policy.pools {
            let clash = match (taken.get(pool), defaults.get(pool)) {
                (Some(other), _) => Some((*other, "is the pool of another policy", "R10.5-1")),
                (None, Some(other)) => Some((*other, "is a default pool", "R10.5-2")),
                (None, None) => None,
            };
            if let Some((other, what, row)) = clash {
                findings
                    .error(*span, path.clone(), what)
                    .row(row)
                    .related(other, "used here")
                    .help(HELP);
            }
            taken.entry(*pool).or_insert(*span);
        }
    }
}
