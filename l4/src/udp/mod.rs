//! UDP forwarding: the flow table ([`Table`], pure).

mod sockets;
mod table;

pub use sockets::SocketId;
pub use table::{Begun, Client, Flow, FlowId, Table};
