//! TCP and UDP forwarding. So far the UDP flow table; what uses it comes next.
#![forbid(unsafe_code)]

pub mod limits;
pub mod udp;
