//! The compiled policies of one listener, and the search for the one that a request meets.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::action::{Action, Fixed};
use super::index::{Builder, Entry, Host, Index, Path};
use super::normal::written_host;
use super::pattern::Pattern;
use super::rank::{self, HOST_EXACT, Rank, host_wildcard};
use super::redirect::Redirect;
use super::rule::{Test, path_value};
use super::view::RequestView;
use crate::model::{self, Compare, Handle, Id, Rule, RuleKind};

/// All policies of a listener. Built by control, shared by all shards, never changed. Two are
/// equal when they treat every request alike and have the same names.
#[derive(Debug, PartialEq, Eq)]
pub struct Router {
    index: Index,
    policies: Box<[Policy]>,
    patterns: Box<[Pattern]>,
    pools: Box<[Handle]>,
    shares: Box<[Share]>,
}

/// One policy.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    /// Identity towards users.
    pub id: Id,
    /// The user's name.
    pub name: Box<str>,
    /// What a match does.
    pub action: Action,
    /// The conditions that the index doesn't answer.
    tests: Box<[Test]>,
    /// Hash of everything about it.
    print: u64,
}

/// The pools that share the requests of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The policy.
    pub policy: Id,
    /// Places in [`Router::pools`] with weights 0–100.
    pub pools: Box<[(u32, u8)]>,
}

/// What the indices in the model's policies stand for.
pub trait Resolve {
    /// The pool of this index.
    fn pool(&self, index: usize) -> Option<Handle>;
    /// The port of the listener of this index; 0 = any free one.
    fn port(&self, listener: usize) -> u16;
}

impl Router {
    /// Compiles the policies of one listener, in file order. A policy that makes no sense (an
    /// expression that doesn't compile, a pool that isn't there) is left out and logged; a checked
    /// configuration has none.
    pub fn new<'m>(
        policies: impl IntoIterator<Item = &'m model::Policy>,
        resolve: &dyn Resolve,
    ) -> Router {
        let mut making = Making::default();
        for model in policies {
            if let Err(why) = making.add(model, resolve) {
                tracing::error!(policy = model.name, "left out: {why}");
            }
        }
        Router {
            index: making.index.finish(),
            policies: making.policies.into(),
            patterns: making.patterns.into(),
            pools: making.pools.into(),
            shares: making.shares.into(),
        }
    }

    /// The policy that a request meets. `buffer` is used for what has to be decoded.
    #[inline]
    #[must_use]
    pub fn find(&self, view: &RequestView<'_>, buffer: &mut Vec<u8>) -> Option<&Policy> {
        self.search(view, buffer).0
    }

    /// The same, with the number of steps that it took: names hashed or compared, candidates
    /// looked at.
    pub fn search(&self, view: &RequestView<'_>, buffer: &mut Vec<u8>) -> (Option<&Policy>, u32) {
        let (mut best, mut tried, mut looked): (Option<Rank>, u32, u32) = (None, 0, 0);
        self.index.lists(view.host, view.path, &mut looked, &mut |list| {
            for entry in list {
                tried += 1;
                if best.is_some_and(|best| best <= entry.rank) {
                    break;
                }
                if self.holds(entry, view, buffer) {
                    best = Some(entry.rank);
                    break;
                }
            }
        });
        (best.and_then(|rank| self.policies.get(rank.order as usize)), looked + tried)
    }

    fn holds(&self, entry: &Entry, view: &RequestView<'_>, buffer: &mut Vec<u8>) -> bool {
        let pattern = entry.pattern().and_then(|at| self.patterns.get(at));
        let policy = self.policies.get(entry.rank.order as usize);
        pattern.is_none_or(|pattern| pattern.is_match(view.path))
            && policy.is_some_and(|p| p.tests.iter().all(|test| test.holds(view, buffer)))
    }

    /// The pools that policies send requests to, each once.
    #[must_use]
    pub fn pools(&self) -> &[Handle] {
        &self.pools
    }

    /// The sets of pools that share requests.
    #[must_use]
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// All policies, in file order.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }
}

impl Policy {
    /// Has anything about it changed, its name left aside?
    #[must_use]
    pub fn is_like(&self, other: &Policy) -> bool {
        self.print == other.print
    }
}

/// A router that is being made.
#[derive(Default)]
struct Making {
    index: Builder,
    policies: Vec<Policy>,
    patterns: Vec<Pattern>,
    pools: Vec<Handle>,
    places: HashMap<Handle, u32>,
    shares: Vec<Share>,
}

impl Making {
    fn add(&mut self, model: &model::Policy, resolve: &dyn Resolve) -> Result<(), String> {
        let (hosts, rest) = first(&model.rules, |kind| *kind == RuleKind::HostName);
        let (paths, rest) = first(rest, |kind| *kind == RuleKind::Path);
        let tests = rest.into_iter().map(Test::new).collect::<Result<_, _>>()?;
        let paths = self.paths(paths)?;
        let action = self.action(model, resolve)?;
        let order = u32::try_from(self.policies.len()).map_err(|e| e.to_string())?;
        let base = rank::base(&action, model.priority, order);
        for (host, host_rank) in named_hosts(hosts) {
            for (path, (kind, path_rank), pattern) in &paths {
                let rank = Rank { host: host_rank, kind: *kind, path: *path_rank, ..base };
                self.index.add(host.clone(), path.clone(), Entry::new(rank, *pattern));
            }
        }
        let (id, name, print) = (model.id, model.name.as_str().into(), print(model, resolve));
        self.policies.push(Policy { id, name, action, tests, print });
        Ok(())
    }

    /// The ways in which `rule` names paths, with their ranks and expressions.
    #[allow(clippy::type_complexity, reason = "used here only")]
    fn paths(
        &mut self,
        rule: Option<&Rule>,
    ) -> Result<Vec<(Path, (u8, u16), Option<u32>)>, String> {
        let Some(rule) = rule else { return Ok(vec![(Path::Rest, rank::PATH_NONE, None)]) };
        let mut named = Vec::with_capacity(rule.values.len());
        for value in &rule.values {
            if rule.compare == Compare::Regex {
                let pattern = Pattern::new(value)?;
                let number = u32::try_from(self.patterns.len()).map_err(|e| e.to_string())?;
                named.push((Path::Rest, rank::path(rule.compare, pattern.len()), Some(number)));
                self.patterns.push(pattern);
                continue;
            }
            let text = path_value(value, rule.compare);
            let ranked = rank::path(rule.compare, text.len());
            let exact = rule.compare == Compare::EqualTo;
            named.push((if exact { Path::Exact(text) } else { Path::Prefix(text) }, ranked, None));
        }
        Ok(named)
    }

    fn action(&mut self, model: &model::Policy, resolve: &dyn Resolve) -> Result<Action, String> {
        let pools = match &model.action {
            model::Action::Listener(index) => {
                return Ok(Action::Redirect(Box::new(Redirect::to_https(resolve.port(*index)))));
            }
            model::Action::Url(url) => return Ok(Action::Redirect(Box::new(Redirect::new(url)))),
            model::Action::Fixed(fixed) => return Ok(Action::Fixed(Box::new(Fixed::new(fixed)))),
            model::Action::Pools(pools) => pools,
        };
        let mut shared = Vec::with_capacity(pools.len());
        for (index, weight) in pools {
            let handle = resolve.pool(*index).ok_or("its pool isn't there")?;
            shared.push((self.pool(handle), *weight));
        }
        match shared.as_slice() {
            [] => Err("it has no pool".to_owned()),
            [(pool, _)] => Ok(Action::Pool(*pool)),
            _ => {
                self.shares.push(Share { policy: model.id, pools: shared.into() });
                Ok(Action::Share(u32::try_from(self.shares.len() - 1).unwrap_or(u32::MAX)))
            }
        }
    }

    fn pool(&mut self, handle: Handle) -> u32 {
        let next = u32::try_from(self.pools.len()).unwrap_or(u32::MAX);
        *self.places.entry(handle).or_insert_with(|| {
            self.pools.push(handle);
            next
        })
    }
}

/// The first rule of a kind that the index can answer, and the others.
fn first<'r>(
    rules: impl IntoIterator<Item = &'r Rule>,
    is: impl Fn(&RuleKind) -> bool,
) -> (Option<&'r Rule>, Vec<&'r Rule>) {
    let mut found = None;
    let mut others = Vec::new();
    for rule in rules {
        if found.is_none() && is(&rule.kind) && !rule.invert {
            found = Some(rule);
        } else {
            others.push(rule);
        }
    }
    (found, others)
}

/// The hosts that `rule` names, with their ranks.
fn named_hosts(rule: Option<&Rule>) -> Vec<(Host, u16)> {
    let Some(rule) = rule else { return vec![(Host::Any, rank::HOST_NONE)] };
    let named = |text: &String| match text.strip_prefix('*') {
        Some(suffix) => {
            let rank = host_wildcard(suffix.len());
            (Host::Wildcard(suffix.to_ascii_lowercase().into_bytes()), rank)
        }
        None => (Host::Exact(written_host(text)), HOST_EXACT),
    };
    rule.values.iter().map(named).collect()
}

fn print(model: &model::Policy, resolve: &dyn Resolve) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&model.rules, model.priority).hash(&mut hasher);
    match &model.action {
        // What an index stands for, not the index: the file may be in another order.
        model::Action::Pools(pools) => {
            for (index, weight) in pools {
                (resolve.pool(*index), weight).hash(&mut hasher);
            }
        }
        model::Action::Listener(index) => resolve.port(*index).hash(&mut hasher),
        other => format!("{other:?}").hash(&mut hasher),
    }
    hasher.finish()
}
