//! The header of the PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2), by which a
//! proxy in front tells whom it speaks for. Pure: bytes in, an address out; and the other way round
//! for members. Knows neither who may send one (`table` does) nor sockets; the server reads headers
//! for every protocol.

#[cfg(feature = "fuzz")]
mod fuzz;
mod v1;
mod v2;
mod write;

use std::net::SocketAddr;

#[cfg(feature = "fuzz")]
pub use fuzz::proxy_header;
pub use v2::values;
pub use write::{Version, write};

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows is the connection's own.
    pub len: usize,
    /// Whom the proxy speaks for, IPv4-mapped addresses as IPv4. `None`: for itself (LOCAL), or
    /// for somebody without an IP address (UNKNOWN, AF_UNSPEC, AF_UNIX); the peer counts then.
    pub source: Option<SocketAddr>,
}

/// What is wrong with bytes that should be a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Neither version's beginning.
    #[error("no PROXY header")]
    Absent,
    /// Version 1 that doesn't follow the grammar, or is longer than 107 bytes.
    #[error("malformed PROXY header of version 1")]
    Line,
    /// Version 2 with an unknown version, command, family or protocol.
    #[error("PROXY header of version 2 with an unknown command or family")]
    Unknown,
    /// Version 2 that is too short for its addresses or too long for us, or whose TLVs don't fit.
    #[error("PROXY header of version 2 with a wrong length")]
    Length,
    /// The CRC32c that it carries is another one.
    #[error("PROXY header of version 2 with a wrong checksum")]
    Checksum,
}

/// Reads the header at the start of `data`; `None` while it is incomplete.
///
/// # Errors
/// What is wrong with it, as soon as that is certain.
pub fn parse(data: &[u8]) -> Result<Option<Header>, Flaw> {
    let begins = |with: &[u8]| data.iter().zip(with).all(|(a, b)| a == b);
    let mut header = if begins(v2::SIGNATURE) {
        v2::parse(data)?
    } else if begins(v1::SIGNATURE) {
        v1::parse(data)?
    } else {
        return Err(Flaw::Absent);
    };
    if let Some(source) = header.as_mut().and_then(|header| header.source.as_mut()) {
        source.set_ip(source.ip().to_canonical());
    }
    Ok(header)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
