//! Members that are left out for a while since they failed what clients asked of them, as the state
//! keeps them, and when a pool has so few members left that all get traffic. Who is left out, and
//! for how long, is decided by the server's control thread.

use std::collections::BTreeSet;

use super::{Change, Pool, State};
use crate::model::Handle;

impl State {
    /// Is this member left out?
    #[must_use]
    pub fn is_ejected(&self, member: Handle) -> bool {
        self.ejected.contains(&member)
    }

    /// Leaves members out (`true`), or takes them back; those whose pools watch nobody, or that are
    /// gone meanwhile, are passed over. `true` and the next version when that changed anything.
    pub fn set_ejected(&mut self, changes: &[(Handle, bool)]) -> bool {
        let watched = self.watched_members();
        let mut changed = false;
        for (member, out) in changes {
            changed |= match out {
                true => watched.contains(member) && self.ejected.insert(*member),
                false => self.ejected.remove(member),
            };
        }
        self.version += u64::from(changed);
        changed
    }

    /// Members that are left out when they fail too often.
    #[must_use]
    pub fn watched_members(&self) -> BTreeSet<Handle> {
        self.pools.values().flat_map(|pool| watched_of(pool)).collect()
    }

    /// Do all members of this pool get traffic, since too few are well
    /// (`minimum_healthy_member_count`)?
    #[must_use]
    pub fn serves_all(&self, pool: &Pool) -> bool {
        let fit = |member: Handle| self.is_up(member) && !self.is_ejected(member);
        let members = pool.members.iter();
        let fit = members.filter(|member| member.weight > 0 && fit(member.handle)).count();
        fit < usize::from(pool.minimum_healthy)
    }

    /// Those members of a pool of the next state that stay out in it.
    pub(super) fn ejected_of(&self, pool: &Pool) -> impl Iterator<Item = Handle> {
        watched_of(pool).filter(|member| self.is_ejected(*member))
    }

    /// What changes about them from this state to `to`.
    pub(super) fn ejections_to<'a>(&'a self, to: &'a State) -> impl Iterator<Item = Change> + 'a {
        let back = self.ejected.difference(&to.ejected).map(|member| (*member, false));
        let out = to.ejected.difference(&self.ejected).map(|member| (*member, true));
        back.chain(out).map(|(member, out)| Change::Ejected { member, out })
    }
}

/// The members of a pool that are watched: those of a pool that no listener uses are not. Shards
/// don't have them, so whoever was out is as good as new when a listener uses the pool again.
fn watched_of(pool: &Pool) -> impl Iterator<Item = Handle> {
    let watched = pool.attached && pool.outliers.is_some();
    pool.members.iter().filter(move |_| watched).map(|member| member.handle)
}
