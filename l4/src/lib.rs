//! TCP and UDP forwarding. A connection that was let in goes to [`Tcp`], which finds it a member
//! and relays bytes both ways; bound UDP sockets go to [`Udp`], which keeps their flows, those of
//! QUIC by connection id ([`quic`]). Listeners, pools and members are `weir_core::table`'s, sockets
//! and timers the runtime's.
#![forbid(unsafe_code)]

mod choice;
pub mod limits;
pub mod quic;
mod record;
mod tcp;
pub mod udp;

pub use record::Packets;
pub use tcp::session;
pub use tcp::{Origin, Tcp};
pub use udp::Udp;
