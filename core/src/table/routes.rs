//! The forwarding policies of a listener as the data path uses them: the shared table, with what
//! belongs to this shard (its pools, and whose turn it is among pools that share requests).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Pool;
use crate::model::{Handle, Id};
use crate::policy::{Action, Fixed, Policy, Redirect, RequestView, Router, Share};
use crate::pool::Wrr;

/// A listener's policies on one shard.
#[derive(Debug)]
pub struct Routes {
    table: Arc<Router>,
    /// Beside the table's pools.
    pools: Box<[Option<Rc<Pool>>]>,
    /// Beside the table's shares.
    turns: Box<[RefCell<Wrr>]>,
}

/// Where a request goes that meets a policy.
#[derive(Debug)]
pub enum Way<'a> {
    /// To this pool; `None` when it is gone, which a state doesn't allow.
    Pool(Option<Rc<Pool>>),
    /// The client is sent elsewhere.
    Redirect(&'a Redirect),
    /// Weir answers.
    Fixed(&'a Fixed),
}

impl Routes {
    /// What comes after `former`: the same if the table is; else turns go on where their policy
    /// stays. `seed` decides where fresh ones begin, so that shards don't all begin alike.
    pub(super) fn next(
        former: Option<Rc<Routes>>,
        table: Option<&Arc<Router>>,
        pool: &dyn Fn(Handle) -> Option<Rc<Pool>>,
        seed: u64,
    ) -> Option<Rc<Routes>> {
        let table = table?;
        if let Some(former) = &former
            && Arc::ptr_eq(&former.table, table)
        {
            return Some(Rc::clone(former));
        }
        let mut former = former.map(|former| former.turns_by_policy()).unwrap_or_default();
        let turns = table.shares().iter().map(|share| {
            let mut turns = former.remove(&share.policy).unwrap_or_else(|| Wrr::new(seed));
            turns.set(share.pools.iter().map(|&(at, weight)| {
                let handle = table.pools().get(at as usize);
                (handle.map_or(0, |handle| handle.number()), u32::from(weight))
            }));
            RefCell::new(turns)
        });
        Some(Rc::new(Routes {
            turns: turns.collect(),
            pools: table.pools().iter().map(|&handle| pool(handle)).collect(),
            table: Arc::clone(table),
        }))
    }

    /// The turns of each policy, to go on from.
    fn turns_by_policy(&self) -> HashMap<Id, Wrr> {
        let shares = self.table.shares().iter().zip(&self.turns);
        shares.map(|(share, turns)| (share.policy, turns.borrow().clone())).collect()
    }

    /// The policy that a request meets, and where that leads. A policy whose pools have no weight
    /// left leads to none.
    #[inline]
    pub fn find(&self, view: &RequestView<'_>, buffer: &mut Vec<u8>) -> Option<(&Policy, Way<'_>)> {
        let policy = self.table.find(view, buffer)?;
        let way = match &policy.action {
            Action::Pool(at) => Way::Pool(self.pool(*at)),
            Action::Share(at) => Way::Pool(self.turn(*at as usize)),
            Action::Redirect(redirect) => Way::Redirect(redirect),
            Action::Fixed(fixed) => Way::Fixed(fixed),
        };
        Some((policy, way))
    }

    fn pool(&self, at: u32) -> Option<Rc<Pool>> {
        self.pools.get(at as usize).cloned().flatten()
    }

    fn turn(&self, at: usize) -> Option<Rc<Pool>> {
        let share: &Share = self.table.shares().get(at)?;
        let next = self.turns.get(at)?.borrow_mut().pick(|_| true)?;
        share.pools.get(next).and_then(|(pool, _)| self.pool(*pool))
    }

    /// In words, for what a shard says of its table.
    pub(super) fn describe(&self) -> String {
        let policy = |policy: &Policy| {
            let way = match &policy.action {
                Action::Pool(at) => self.pool(*at).map_or("none".into(), |p| p.name().to_string()),
                Action::Share(_) => "several pools".into(),
                Action::Redirect(_) => "a redirect".into(),
                Action::Fixed(fixed) => format!("status {}", fixed.status),
            };
            format!("{} to {way}", policy.name)
        };
        let all: Vec<String> = self.table.policies().iter().map(policy).collect();
        format!(", policies {}", all.join(" and "))
    }
}
