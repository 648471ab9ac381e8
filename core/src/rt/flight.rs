//! The operation that one half of a socket has in flight: which it is, and whether its end was
//! asked for already. Used by the receiving halves of streams and of UDP sockets.

use std::cell::Cell;

use super::ops::OpId;
use super::shard::Shard;

/// At most one operation.
#[derive(Debug, Default)]
pub(super) struct Flight {
    op: Cell<Option<OpId>>,
    cancelling: Cell<bool>,
}

impl Flight {
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.op.get().is_some()
    }

    /// An operation was handed to the ring.
    #[inline]
    pub(super) fn begin(&self, id: OpId) {
        self.cancelling.set(false);
        self.op.set(Some(id));
    }

    /// Its final completion is here.
    #[inline]
    pub(super) fn end(&self) {
        self.op.set(None);
    }

    /// Asks, once, for an early end; the final completion still comes.
    pub(super) fn cancel(&self, shard: &Shard) {
        if let Some(id) = self.op.get()
            && !self.cancelling.replace(true)
        {
            shard.cancel(id);
        }
    }
}
