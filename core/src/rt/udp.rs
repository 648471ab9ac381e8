//! UDP sockets of a shard: the interface that the L4 path is written against. Its implementation
//! comes with the UDP listeners; until then binding is refused as unsupported.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::buffers::Lease;
use super::payload::Payload;

/// A datagram as it arrived.
#[derive(Debug)]
pub struct Datagram {
    /// Its bytes; several datagrams of `segment` bytes each when the kernel has joined them (GRO).
    pub data: Lease,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address that it was sent to (IP_PKTINFO); answers leave from there.
    pub local: IpAddr,
    /// Bytes of one datagram within `data`; 0 when it is a single one.
    pub segment: u16,
    /// It was longer than the buffer: it must not be forwarded short.
    pub truncated: bool,
}

/// A UDP socket on this shard.
#[derive(Debug)]
pub struct UdpSocket {
    never: std::convert::Infallible,
}

impl UdpSocket {
    /// Binds `addr`, with the port's SO_REUSEPORT group if `reuse_port`.
    ///
    /// # Errors
    /// `Unsupported`, for now.
    pub fn bind(_addr: SocketAddr, _reuse_port: bool) -> io::Result<UdpSocket> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "UDP sockets are not supported yet"))
    }

    /// The next datagram. A dropped future loses nothing.
    ///
    /// # Errors
    /// The kernel's; what the error queue says of a peer (IP_RECVERR) names it.
    pub async fn recv_from(&self) -> io::Result<Datagram> {
        match self.never {}
    }

    /// Sends one datagram (or, with `segment`, several of that size: GSO) to `peer`, from `local`
    /// if given.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn send_to(
        &self,
        _payload: Payload,
        _peer: SocketAddr,
        _local: Option<IpAddr>,
        _segment: Option<u16>,
    ) -> io::Result<()> {
        match self.never {}
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.never {}
    }
}
