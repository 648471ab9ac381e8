//! QUIC connections under a UDP listener: which packet is one, what of its connection id tells the
//! connection, and which member that belongs to. All pure; `udp::room` asks for each datagram of a
//! QUIC pool. Nothing is decrypted and no version is known: only what RFC 8999 says of all versions
//! is read.

mod ids;
mod packet;

#[cfg(feature = "fuzz")]
mod fuzz;

#[cfg(feature = "fuzz")]
pub use fuzz::quic_datagram;
pub use ids::{Ids, bound, may_follow};
pub use packet::{Aim, Packet, aim, parse};
