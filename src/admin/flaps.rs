//! Pure: how often the checks changed their mind about each member (R4.3-2), and how often it was
//! left out. The first success of a member that starts down is no change of mind.

use std::collections::{BTreeSet, HashMap};

use weir_core::control::State;
use weir_core::model::Handle;

/// Changes of members' states.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    changes: HashMap<Handle, u64>,
    ejections: HashMap<Handle, u64>,
}

impl Flaps {
    /// Members may be up or down, in or out otherwise in `now` than they were in `before`.
    pub(super) fn compare(&mut self, before: &State, now: &State) {
        let present: BTreeSet<Handle> = now.members().map(|(_, member)| member.handle).collect();
        self.changes.retain(|handle, _| present.contains(handle));
        self.ejections.retain(|handle, _| present.contains(handle));
        let known: BTreeSet<Handle> = before.members().map(|(_, member)| member.handle).collect();
        for member in present {
            let up = now.is_up(member);
            if known.contains(&member)
                && before.is_up(member) != up
                && (!up || self.changes.contains_key(&member))
            {
                *self.changes.entry(member).or_default() += 1;
            }
            if now.is_ejected(member) && !before.is_ejected(member) {
                *self.ejections.entry(member).or_default() += 1;
            }
        }
    }

    /// How often the checks changed their mind about this member.
    pub(super) fn of(&self, member: Handle) -> u64 {
        self.changes.get(&member).copied().unwrap_or_default()
    }

    /// How often it was left out.
    pub(super) fn ejections_of(&self, member: Handle) -> u64 {
        self.ejections.get(&member).copied().unwrap_or_default()
    }
}
