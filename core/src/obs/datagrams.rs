//! What a UDP listener counts of its datagrams.

use crate::counter::Counter;

/// Why a datagram was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramDrop {
    /// It was longer than UDP allows for, and is never forwarded short.
    Truncated,
    /// The pool has no member that could get it (C18).
    NoMember,
    /// There was no socket for a new flow: no descriptor, or too many flows to one member.
    NoSocket,
    /// A member sent what belongs to no flow (any more).
    Stray,
    /// It would have begun a flow while the process drains.
    Draining,
    /// It is for a QUIC pool, and no QUIC, or leads to no connection.
    NotQuic,
    /// The member that was chosen is the client itself (R2.1-13).
    MemberIsClient,
}

impl DatagramDrop {
    /// All of them, in the order of the counters.
    pub const ALL: [DatagramDrop; 7] = [
        DatagramDrop::Truncated,
        DatagramDrop::NoMember,
        DatagramDrop::NoSocket,
        DatagramDrop::Stray,
        DatagramDrop::Draining,
        DatagramDrop::NotQuic,
        DatagramDrop::MemberIsClient,
    ];

    /// The word in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DatagramDrop::Truncated => "truncated",
            DatagramDrop::NoMember => "no_member",
            DatagramDrop::NoSocket => "no_socket",
            DatagramDrop::Stray => "stray",
            DatagramDrop::Draining => "draining",
            DatagramDrop::NotQuic => "not_quic",
            DatagramDrop::MemberIsClient => "member_is_client",
        }
    }
}

/// The datagrams of one listener on one shard.
#[derive(Debug, Default)]
pub struct DatagramCounters {
    /// Received from clients.
    pub received: Counter,
    /// Sent to clients.
    pub sent: Counter,
    dropped: [Counter; DatagramDrop::ALL.len()],
}

impl DatagramCounters {
    /// Counts one that was not forwarded.
    pub fn drop(&self, why: DatagramDrop) {
        if let Some(counter) = self.dropped.get(why as usize) {
            counter.add(1);
        }
    }

    /// How many were not forwarded for this reason.
    #[must_use]
    pub fn dropped(&self, why: DatagramDrop) -> u64 {
        self.dropped.get(why as usize).map_or(0, Counter::get)
    }
}
