//! The table of operations that the kernel holds. Owns the link from a completion's `user_data`
//! back to the object it belongs to, and with it the object's life: an entry keeps its socket and
//! buffers alive until the operation's final completion, whatever has been dropped meanwhile.

use std::num::NonZeroU64;
use std::rc::Rc;

use super::connect::Connecting;
use super::listener::ListenerInner;
use super::readable::Polling;
use super::stream::StreamInner;
use super::udp::{Posted, UdpInner};

/// What an operation belongs to.
#[derive(Debug)]
pub(super) enum Op {
    Accept(Rc<ListenerInner>),
    Recv(Rc<StreamInner>),
    Send(Rc<StreamInner>),
    Connect(Rc<Connecting>),
    Poll(Rc<Polling>),
    RecvFrom(Rc<UdpInner>),
    SendTo(Posted),
    /// The shard's own: the read of its wake-up eventfd.
    Wake,
    /// Taken out while its completion is being handled.
    Busy,
}

/// Names one operation: slot and generation, never zero. Doubles as the ring's `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpId(NonZeroU64);

/// `user_data` of operations that nobody waits for (cancels, closes); no slot has it, since
/// generations start at 1.
pub(super) const UNTRACKED: u64 = 0;

impl OpId {
    pub(super) fn user_data(self) -> u64 {
        self.0.get()
    }

    fn new(slot: u32, generation: u32) -> OpId {
        let number = u64::from(generation.max(1)) << 32 | u64::from(slot);
        OpId(NonZeroU64::MIN.saturating_add(number - 1))
    }

    fn slot(self) -> usize {
        (self.0.get() & 0xffff_ffff) as usize
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    op: Option<Op>,
}

/// The table. One per shard.
#[derive(Debug, Default)]
pub(super) struct OpTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl OpTable {
    pub(super) fn insert(&mut self, op: Op) -> OpId {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.op = Some(op);
            return OpId::new(slot, entry.generation);
        }
        let slot = self.slots.len() as u32;
        self.slots.push(Slot { generation: 1, op: Some(op) });
        OpId::new(slot, 1)
    }

    /// Takes the operation out to handle a completion; `None` for one that is not ours (any more).
    pub(super) fn take(&mut self, user_data: u64) -> Option<(OpId, Op)> {
        let id = OpId(NonZeroU64::new(user_data)?);
        let entry = self.slots.get_mut(id.slot())?;
        if OpId::new(id.slot() as u32, entry.generation) != id {
            return None;
        }
        let op = entry.op.as_mut()?;
        Some((id, std::mem::replace(op, Op::Busy)))
    }

    /// Puts it back: it will complete again.
    pub(super) fn put_back(&mut self, id: OpId, op: Op) {
        self.slots[id.slot()].op = Some(op);
    }

    /// Frees the slot: that was the final completion.
    pub(super) fn free(&mut self, id: OpId) {
        let entry = &mut self.slots[id.slot()];
        entry.op = None;
        entry.generation = entry.generation.wrapping_add(1).max(1);
        self.free.push(id.slot() as u32);
    }

    /// Operations that the kernel holds.
    pub(super) fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether a cancellation out of the blue must go unnoticed by the operation's user.
    pub(super) fn may_be_cancelled(&self, id: OpId) -> bool {
        let op = self.slots.get(id.slot()).and_then(|slot| slot.op.as_ref());
        matches!(op, Some(Op::Recv(_) | Op::Send(_) | Op::Accept(_) | Op::RecvFrom(_) | Op::Wake))
    }

    /// All operations that the kernel holds.
    pub(super) fn ids(&self) -> impl Iterator<Item = OpId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.op.is_some())
            .map(|(index, slot)| OpId::new(index as u32, slot.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_completion_never_reaches_a_reused_slot() {
        let mut table = OpTable::default();
        let first = table.insert(Op::Wake);
        table.free(first);
        let second = table.insert(Op::Wake);
        assert_ne!(first, second);
        assert!(table.take(first.user_data()).is_none());
        assert!(table.take(second.user_data()).is_some());
        assert!(table.take(UNTRACKED).is_none());
        assert_eq!(table.live(), 1);
    }
}
