//! Pure: how often the checks changed their mind about each member (R4.3-2). The first success of a
//! member that starts down is no change of mind.

use std::collections::HashMap;

use weir_core::control::State;
use weir_core::model::Handle;

/// Changes of state by member.
#[derive(Debug, Default)]
pub(super) struct Flaps(HashMap<Handle, u64>);

impl Flaps {
    /// Members may be up or down otherwise in `now` than they were in `before`.
    pub(super) fn compare(&mut self, before: &State, now: &State) {
        let present = |handle: &Handle| now.members().any(|(_, member)| member.handle == *handle);
        self.0.retain(|handle, _| present(handle));
        let known: HashMap<Handle, bool> =
            before.members().map(|(_, m)| (m.handle, before.is_up(m.handle))).collect();
        for (_, member) in now.members() {
            let up = now.is_up(member.handle);
            if known.get(&member.handle).is_none_or(|was| *was == up) {
                continue;
            }
            if !up || self.0.contains_key(&member.handle) {
                *self.0.entry(member.handle).or_default() += 1;
            }
        }
    }

    /// How often this member's state changed.
    pub(super) fn of(&self, member: Handle) -> u64 {
        self.0.get(&member).copied().unwrap_or_default()
    }
}
