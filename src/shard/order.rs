//! What control and a shard say to each other: orders, changes of doors, reports. Data alone;
//! orders are given by the server's `fleet`, and reports read by its `control`.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use weir_core::control::Diff;
use weir_core::model::Handle;
use weir_core::net::Place;
use weir_core::obs::Board;
use weir_core::table::Suspect;

use super::passing::Outlet;
use crate::upgrade::flows::Parcel;
use crate::upgrade::giver::Lent;

/// What control asks of a shard.
#[derive(Debug)]
pub enum Order {
    /// Follow the desired state, then report [`News::Applied`].
    Update(Update),
    /// Take no new handshakes, serve the accept queue until it stayed empty for `quiet`, let
    /// every connection end, then report [`News::Drained`].
    Drain {
        /// How long the accept queue has to stay empty.
        quiet: Duration,
    },
    /// Send its number and its listening sockets once more, with their places.
    Lend(mpsc::Sender<Lent>),
    /// Receive nothing any more for the listeners of these UDP doors, and send their flows.
    PassFlows {
        /// The doors.
        places: Arc<BTreeSet<Place>>,
        /// Where they go.
        outlet: Outlet,
    },
    /// There is no other process: receive again, and let clients in whatever it has left behind.
    GoOn,
    /// Another process serves by these doors, on the very same sockets: let nobody in any more,
    /// and then as [`Order::Drain`].
    HandOver {
        /// Its doors; others close.
        taken: Arc<BTreeSet<Place>>,
        /// How long the accept queues of those that close have to stay empty.
        quiet: Duration,
    },
    /// The process whose doors these are serves on: leave them to it, with the UDP flows that came
    /// from there, let nobody in any more, and then as [`Order::Drain`].
    GiveBack,
    /// Send its number and what its table says, in words.
    Show(mpsc::Sender<(usize, Vec<String>)>),
    /// Drop what is left and end.
    Stop,
}

/// The way from one version of the desired state to another.
#[derive(Debug)]
pub struct Update {
    /// What changes in the table.
    pub diff: Arc<Diff>,
    /// Who counts what, of the version that the diff leads to.
    pub board: Arc<Board>,
    /// What changes in this shard's listening sockets, after the table.
    pub doors: Vec<DoorChange>,
    /// The process has been serving already: members that join begin slowly.
    pub settled: bool,
}

/// A change of a shard's listening sockets. Places are the bound ones, with real ports.
#[derive(Debug)]
pub enum DoorChange {
    /// Serve clients of `listener` on `socket`.
    Open {
        /// What it is bound to.
        place: Place,
        /// Whose connections come by it.
        listener: Handle,
        /// This shard's own socket; it listens, or is a UDP socket.
        socket: OwnedFd,
    },
    /// From the next connection on they are `listener`'s.
    Assign {
        /// Which door.
        place: Place,
        /// Whose connections come by it.
        listener: Handle,
    },
    /// Go on with flows of the process that is replaced by this one, by doors that were opened
    /// before.
    Adopt {
        /// Whose flows they are.
        listener: Handle,
        /// The flows; doors are named as this process counts them.
        parcels: Vec<Parcel>,
    },
    /// TCP: take no new handshakes, serve the accept queue, close; connections live on (R6.3-2).
    /// UDP: close; the flows end with it.
    Close {
        /// Which door.
        place: Place,
    },
}

/// What a shard tells control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of the shard.
    pub shard: usize,
    /// What happened.
    pub news: News,
}

/// What happened on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It runs and takes orders.
    Ready,
    /// This version is in effect; what could not be done about its doors is told.
    Applied(u64, Vec<String>),
    /// A member fails too often; told at most once a second and member.
    Suspect(Suspect),
    /// After [`Order::Drain`]: no connection is left.
    Drained,
    /// Its main task is over, also after a panic.
    Ended,
}

/// Reports that one shard may have under way, beside suspects: ready, one version, drained, ended.
pub const REPORTS_PER_SHARD: usize = 4;

/// Where reports go. The receiver makes room for [`REPORTS_PER_SHARD`] of each shard.
pub type Reports = Arc<dyn Fn(Report) + Send + Sync>;
