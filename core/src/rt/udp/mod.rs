//! UDP sockets of a shard. Owns the descriptor, and the order of closing: cancel what is in flight,
//! wait for the kernel to let go, then close.
//!
//! `recv` and `send` hold a half each, `errors` the error queue, `wire` the formats. As with
//! streams, all state lives in [`UdpInner`], which the operation table keeps alive until the last
//! completion: a dropped future loses nothing and a dropped socket frees nothing too early.
//!
//! A datagram arrives whole or is marked as truncated. Joining datagrams in the kernel (GRO, GSO)
//! has not been measured yet, and is not used.

mod errors;
mod recv;
mod send;
mod wire;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::buffers::Lease;
use super::connect;
use super::payload::Payload;
use super::shard::{self, Shard};
use super::sys;
use crate::limits;

use recv::RecvHalf;
pub(super) use send::{Posted, Quiet, Sending};

/// A datagram as it arrived.
#[derive(Debug)]
pub struct Datagram {
    /// Its bytes; a datagram may be empty.
    pub data: Lease,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address that it was sent to (IP_PKTINFO); answers leave from there.
    pub local: IpAddr,
    /// It was longer than the buffer: it must not be forwarded short.
    pub truncated: bool,
}

/// What the network, or the kernel, says about a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it was sent to.
    pub peer: SocketAddr,
    /// What happened; `ConnectionRefused` = nobody listens there.
    pub error: io::ErrorKind,
}

/// What a socket receives.
#[derive(Debug)]
pub enum Arrival {
    /// A datagram.
    Datagram(Datagram),
    /// An error about one that was sent; only with [`UdpOptions::errors`].
    Refused(Refusal),
}

/// Options of a UDP socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpOptions {
    /// Join the port's SO_REUSEPORT group.
    pub reuse_port: bool,
    /// Learn which peer an error is about (IP_RECVERR).
    pub errors: bool,
    /// The address need not be one of this host (IP_TRANSPARENT).
    pub transparent: bool,
}

/// What a socket is made of; shared by its handle and the operations in flight.
#[derive(Debug)]
pub(super) struct UdpInner {
    fd: RawFd,
    closing: Cell<bool>,
    /// The address that it is bound to, if it is a single one.
    local: Option<IpAddr>,
    reports_errors: bool,
    recv: RecvHalf,
    /// Sends in flight.
    sends: Cell<usize>,
    /// Datagrams that were not sent.
    drops: Cell<u64>,
    closed: Cell<bool>,
}

impl UdpInner {
    /// Closes once the kernel has let go.
    fn finish_close(&self, shard: &Shard) {
        let busy = self.recv.in_flight() || self.sends.get() > 0;
        if self.closing.get() && !busy && !self.closed.replace(true) {
            shard.close(self.fd);
            shard.closed();
        }
    }

    /// The handle is gone: a send that says nothing should not be waited for in a sleep.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }
}

/// A UDP socket on this shard. Dropping it drops what waits to be received, and closes it; what was
/// posted still goes out. Not `Send`.
#[derive(Debug)]
pub struct UdpSocket(Rc<UdpInner>);

impl UdpSocket {
    /// Binds `addr`; IPV6_V6ONLY for IPv6. Counts it when no port or descriptor was left.
    ///
    /// # Errors
    /// The kernel's: address in use, not available, permission denied … Where any port would do
    /// and none is left it is `AddrNotAvailable`, as for TCP.
    pub fn bind(addr: SocketAddr, options: UdpOptions) -> io::Result<UdpSocket> {
        let bound = UdpSocket::try_bind(addr, options).map_err(|error| {
            match error.raw_os_error() == Some(libc::EADDRINUSE) && addr.port() == 0 {
                true => io::Error::from_raw_os_error(libc::EADDRNOTAVAIL),
                false => error,
            }
        });
        if let Err(error) = &bound {
            connect::count_shortage(error);
        }
        bound
    }

    fn try_bind(addr: SocketAddr, options: UdpOptions) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if options.transparent {
            sys::set_transparent(socket.as_raw_fd(), addr.is_ipv6())?;
        }
        socket.bind(&SockAddr::from(addr))?;
        UdpSocket::from_fd(socket.into(), options.errors)
    }

    /// Takes over a bound socket (made elsewhere, one a shard); `errors` as in [`UdpOptions`].
    ///
    /// # Errors
    /// The kernel's, when an option cannot be set.
    pub fn from_fd(fd: OwnedFd, errors: bool) -> io::Result<UdpSocket> {
        let socket = Socket::from(fd);
        // The ring waits for the socket; non-blocking ones would not be waited for.
        socket.set_nonblocking(false)?;
        // The kernel cuts it to net.core.rmem_max; a smaller one is no reason to fail.
        let _cut = socket.set_recv_buffer_size(limits::DATAGRAM_SOCKET_BUFFER);
        let addr = sys::local_addr(socket.as_raw_fd())?;
        sys::set_datagram_options(socket.as_raw_fd(), addr.is_ipv6(), errors)?;
        shard::with(Shard::opened);
        Ok(UdpSocket(Rc::new(UdpInner {
            fd: socket.into_raw_fd(),
            closing: Cell::new(false),
            local: Some(addr.ip()).filter(|ip| !ip.is_unspecified()),
            reports_errors: errors,
            recv: RecvHalf::default(),
            sends: Cell::new(0),
            drops: Cell::new(0),
            closed: Cell::new(false),
        })))
    }

    /// The next datagram or error. A dropped future loses nothing. When more than a few wait here
    /// the ring stops receiving, and what the kernel's buffer cannot hold is lost.
    ///
    /// # Errors
    /// What makes the socket unusable.
    pub async fn recv(&self) -> io::Result<Arrival> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`UdpSocket::recv`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        self.0.poll_recv(cx)
    }

    /// Receives nothing from now on: another process is to receive from the very same socket.
    /// `recv` hands out what has arrived here already; what comes later waits in the kernel, as
    /// much as the socket's buffer holds. Sends go on as ever.
    pub fn hold(&self) {
        shard::with(|shard| self.0.recv.hold(shard));
    }

    /// Receives again after [`UdpSocket::hold`], what has waited first.
    pub fn go_on(&self) {
        self.0.recv.go_on();
    }

    /// After [`UdpSocket::hold`]: has the last datagram been handed out, and none can come?
    pub fn is_still(&self) -> bool {
        self.0.recv.is_still()
    }

    /// Sends one datagram to `to`, from `from` if given (an address of this host; the port is the
    /// socket's). It leaves with this turn, or never: what the kernel does not take at once is
    /// dropped and counted. `false` when it was dropped already, since too many wait for this turn.
    pub fn send(&self, payload: impl Into<Payload>, to: SocketAddr, from: Option<IpAddr>) -> bool {
        self.0.post(payload.into(), to, from)
    }

    /// Datagrams that were dropped instead of sent, so far.
    pub fn drops(&self) -> u64 {
        self.0.drops.get()
    }

    /// Datagrams that came and that the kernel dropped, since its buffer was full; so far, 0 where
    /// the kernel doesn't tell. Costs a system call.
    pub fn missed(&self) -> u64 {
        sys::datagrams_missed(self.0.fd).unwrap_or(0)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.0.fd)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as the handle lives.
        unsafe { BorrowedFd::borrow_raw(self.0.fd) }
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let closed = shard::try_with(|shard| {
            self.0.closing.set(true);
            self.0.recv.abandon(shard);
            self.0.finish_close(shard);
        });
        if closed.is_none() {
            // The shard has ended, and with it every operation on the descriptor.
            // SAFETY: the handle owned the descriptor, and it is going away.
            drop(unsafe { OwnedFd::from_raw_fd(self.0.fd) });
        }
    }
}

const _: () = assert!(wire::DATA_AT + limits::DATAGRAM_BYTES <= limits::DATAGRAM_BUFFERS.size);
