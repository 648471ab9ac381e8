//! Outgoing connections: one connect operation, its options, and its end when nobody waits any
//! more.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use io_uring::{opcode, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::ops::{Op, OpId};
use super::place::Place;
use super::ring::Completion;
use super::shard::{self, Shard};
use super::shortage::Shortage;
use super::stream::TcpStream;
use super::sys;
use super::task::WakerSlot;
use super::timer::{self, Elapsed};
use crate::model::TcpKeepalive;

/// Options of an outgoing connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Our own address; port 0 = the kernel picks one that is free towards this peer
    /// (IP_BIND_ADDRESS_NO_PORT).
    pub source: Option<SocketAddr>,
    /// `source` need not be an address of this host (IP_TRANSPARENT).
    pub transparent: bool,
    /// Time limit, with the wheel's accuracy; ends in `TimedOut`.
    pub timeout: Option<Duration>,
    /// TCP keep-alive with these times; `None` = off.
    pub keepalive: Option<TcpKeepalive>,
}

/// A connect in flight; owns the socket until it is a stream.
#[derive(Debug)]
pub(super) struct Connecting {
    socket: Place<OwnedFd>,
    address: SockAddr,
    op: Cell<Option<OpId>>,
    result: Cell<Option<i32>>,
    waiter: WakerSlot,
    abandoned: Cell<bool>,
}

impl Connecting {
    pub(super) fn completed(&self, shard: &Shard, done: &Completion) {
        self.op.set(None);
        self.result.set(Some(done.result));
        if self.abandoned.get() {
            self.give_up(shard);
        } else {
            self.waiter.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<i32> {
        match self.result.get() {
            Some(result) => Poll::Ready(result),
            None => {
                self.waiter.set(cx.waker());
                Poll::Pending
            }
        }
    }

    fn give_up(&self, shard: &Shard) {
        if self.socket.take().is_some() {
            shard.closed();
        }
    }
}

/// Cancels the connect when its future is dropped; the socket closes when the kernel has let go.
struct Guard(Rc<Connecting>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abandoned.set(true);
        shard::try_with(|shard| match self.0.op.get() {
            Some(id) => shard.cancel(id),
            None => self.0.give_up(shard),
        });
    }
}

pub(super) async fn connect(addr: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    match options.timeout {
        None => connect_unless(addr, options, pending()).await,
        Some(limit) => connect_unless(addr, options, timer::sleep(limit)).await,
    }
}

/// With this end of the caller's patience, and not that of the options.
pub(super) async fn connect_unless(
    addr: SocketAddr,
    options: &ConnectOptions,
    over: impl Future<Output = ()>,
) -> io::Result<TcpStream> {
    let connected = try_connect(addr, options, over).await;
    if let Err(error) = &connected {
        count_shortage(error);
    }
    connected
}

/// Counts what this host lacked, if it was that which an error of opening a socket is about.
pub(super) fn count_shortage(error: &io::Error) {
    shard::with(|shard| match Shortage::of(error) {
        Some(Shortage::Ports) => shard.stats.no_ports.add(1),
        Some(Shortage::Descriptors) => shard.stats.no_descriptors.add(1),
        _ => {}
    });
}

async fn try_connect(
    addr: SocketAddr,
    options: &ConnectOptions,
    over: impl Future<Output = ()>,
) -> io::Result<TcpStream> {
    let socket = open(addr, options)?;
    let fd = types::Fd(socket.as_raw_fd());
    let guard = Guard(Rc::new(Connecting {
        socket: Place::holding(socket),
        address: SockAddr::from(addr),
        op: Cell::new(None),
        result: Cell::new(None),
        waiter: WakerSlot::default(),
        abandoned: Cell::new(false),
    }));
    let connecting = &guard.0;
    shard::with(|shard| {
        shard.opened();
        let address = &connecting.address;
        let op = Op::Connect(Rc::clone(connecting));
        // SAFETY: the address lies in the reference-counted `Connecting`, which the operation
        // keeps.
        let id = unsafe {
            shard.submit(op, || {
                opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build()
            })
        };
        connecting.op.set(Some(id));
    });
    let mut over = pin!(over);
    let result = poll_fn(|cx| match connecting.poll(cx) {
        Poll::Ready(result) => Poll::Ready(Ok(result)),
        Poll::Pending => over.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await;
    if let Ok(result @ ..0) = result {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // An ICMP error that comes while the kernel still works on the connect is only noted. Of IPv4
    // it wakes the operation, which then finds no error where it looks, and ends as if all were
    // well; of IPv6 it does not (both seen with 6.18).
    sys::take_error(fd.0)?;
    result.map_err(|elapsed| io::Error::new(io::ErrorKind::TimedOut, elapsed))?;
    let socket = connecting.socket.take();
    shard::with(Shard::closed);
    socket.map(TcpStream::from_fd).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

fn open(addr: SocketAddr, options: &ConnectOptions) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(times) = options.keepalive {
        sys::set_keepalive(socket.as_raw_fd(), times)?;
    }
    if options.transparent {
        sys::set_transparent(socket.as_raw_fd(), addr.is_ipv6())?;
    }
    if let Some(source) = options.source {
        let late: libc::c_int = 1;
        let fd = socket.as_raw_fd();
        sys::set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &late)?;
        socket.bind(&SockAddr::from(source))?;
    }
    Ok(socket.into())
}
