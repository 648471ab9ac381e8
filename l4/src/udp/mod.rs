//! UDP forwarding. [`Table`] says which flow a datagram belongs to (pure, as are `sockets`, which
//! shares the upstream sockets out, and `leaving`, which says when flows of members that go end); a
//! `room` is one listener with its sockets; [`Udp`] holds the rooms of a shard; `passing` and
//! `adopting` have another process go on with its flows.

mod adopting;
mod leaving;
mod passing;
mod room;
mod service;
mod sockets;
mod table;

pub use passing::{Batch, Facts, Passed, Passing};
pub use service::{Door, Udp};
use sockets::BySocket;
pub use sockets::SocketId;
pub use table::{Adopted, Begun, Client, Flow, FlowId, Table};
