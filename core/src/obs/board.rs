//! Which counter blocks, and which state that shards share, belong to which object. Made by the
//! control thread with each state; shards find their blocks in it, the admin thread sums over them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{ListenerCounters, MemberCounters, Spool};
use crate::acl::{Gate, House};
use crate::model::{Handle, LogTarget};
use crate::pool::Load;

/// One block a shard.
type Blocks<T> = Arc<[Arc<T>]>;

/// The counter blocks of all listeners and members, one a shard and object, and the logs. A value:
/// the next state has the next board, on which whoever stays finds the same blocks.
#[derive(Clone, Debug, Default)]
pub struct Board {
    listeners: HashMap<Handle, Blocks<ListenerCounters>>,
    members: HashMap<Handle, Blocks<MemberCounters>>,
    loads: HashMap<Handle, Arc<Load>>,
    gates: HashMap<Handle, Arc<Gate>>,
    house: Arc<House>,
    spools: HashMap<LogTarget, Arc<Spool>>,
}

impl Board {
    /// The board for these objects on `shards` shards; new ones begin at zero.
    #[must_use]
    pub fn next(
        &self,
        shards: usize,
        listeners: impl Iterator<Item = Handle>,
        members: impl Iterator<Item = Handle>,
    ) -> Board {
        let members = follow(&self.members, shards, members);
        let listeners = follow(&self.listeners, shards, listeners);
        let load = |handle| self.loads.get(handle).cloned().unwrap_or_default();
        let gate = |handle| self.gates.get(handle).cloned().unwrap_or_default();
        Board {
            house: Arc::clone(&self.house),
            gates: listeners.keys().map(|handle| (*handle, gate(handle))).collect(),
            listeners,
            loads: members.keys().map(|handle| (*handle, load(handle))).collect(),
            members,
            spools: self.spools.clone(),
        }
    }

    /// The same board with these logs.
    #[must_use]
    pub fn with_spools(self, spools: HashMap<LogTarget, Arc<Spool>>) -> Board {
        Board { spools, ..self }
    }

    /// What the writer of a log takes lines from; `None` when nobody writes it.
    #[must_use]
    pub fn spool(&self, target: &LogTarget) -> Option<&Arc<Spool>> {
        self.spools.get(target)
    }

    /// All logs, in no order.
    pub fn spools(&self) -> impl Iterator<Item = (&LogTarget, &Arc<Spool>)> {
        self.spools.iter()
    }

    /// A listener's blocks, in the order of the shards; empty for one that is not there.
    #[must_use]
    pub fn listener(&self, handle: Handle) -> &[Arc<ListenerCounters>] {
        self.listeners.get(&handle).map_or(&[], |blocks| blocks)
    }

    /// What a member has to do, all shards together; a fresh one for a member that is not there.
    #[must_use]
    pub fn load(&self, handle: Handle) -> Arc<Load> {
        self.loads.get(&handle).cloned().unwrap_or_default()
    }

    /// What the shards share of a listener; a fresh one for a listener that is not there.
    #[must_use]
    pub fn gate(&self, handle: Handle) -> Arc<Gate> {
        self.gates.get(&handle).cloned().unwrap_or_default()
    }

    /// What the shards share of the process; the same on every board.
    #[must_use]
    pub fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// A member's blocks, in the order of the shards; empty for one that is not there.
    #[must_use]
    pub fn member(&self, handle: Handle) -> &[Arc<MemberCounters>] {
        self.members.get(&handle).map_or(&[], |blocks| blocks)
    }
}

fn follow<T: Default>(
    old: &HashMap<Handle, Blocks<T>>,
    shards: usize,
    handles: impl Iterator<Item = Handle>,
) -> HashMap<Handle, Blocks<T>> {
    let fresh = || (0..shards).map(|_| Arc::default()).collect();
    handles.map(|handle| (handle, old.get(&handle).cloned().unwrap_or_else(fresh))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Handles;

    #[test]
    fn who_stays_keeps_counting() {
        let mut handles = Handles::default();
        let (a, b) = (handles.fresh(), handles.fresh());
        let first = Board::default().next(2, [a].into_iter(), [a].into_iter());
        first.listener(a)[1].requests.add(3);
        let second = first.next(2, [a, b].into_iter(), [b].into_iter());
        assert_eq!(second.listener(a)[1].requests.get(), 3);
        assert!(Arc::ptr_eq(&first.gate(a), &second.gate(a)));
        assert!(Arc::ptr_eq(first.house(), second.house()));
        assert_eq!(second.listener(b).len(), 2);
        assert!(second.member(a).is_empty());
    }
}
