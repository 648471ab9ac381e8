//! What turns one state into another.

use std::sync::Arc;

use super::{Listener, Pool};
use crate::model::{Handle, TcpKeepalive};

/// The way from one version to another. To be applied whole and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The version that it starts from.
    pub from: u64,
    /// The version that it leads to.
    pub to: u64,
    /// What changes, in this order: pools, pools that go, health, listeners, listeners that go. So
    /// whoever still uses a pool that goes keeps it with the health that it had (C37).
    pub changes: Vec<Change>,
}

/// One change. Objects come whole: who applies it compares with what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A pool is new, or something about it or its members is.
    Pool(Handle, Arc<Pool>),
    /// A member is up or down.
    Health {
        /// The member.
        member: Handle,
        /// Up: it gets traffic.
        up: bool,
    },
    /// A member is left out for a while, or back.
    Ejected {
        /// The member.
        member: Handle,
        /// It gets no traffic.
        out: bool,
    },
    /// A listener is new, or something about it is.
    Listener(Handle, Arc<Listener>),
    /// A listener is gone.
    DropListener(Handle),
    /// A pool is gone with its members.
    DropPool(Handle),
    /// TCP keep-alive of both sides has other times.
    Keepalive(TcpKeepalive),
}
