//! UDP forwarding. [`Table`] says which flow a datagram belongs to (pure, as is `sockets`, which
//! shares the upstream sockets out); a `room` is one listener with its sockets; [`Udp`] holds the
//! rooms of a shard.

mod room;
mod service;
mod sockets;
mod table;

pub use service::{Door, Udp};
use sockets::BySocket;
pub use sockets::SocketId;
pub use table::{Begun, Client, Flow, FlowId, Table};
