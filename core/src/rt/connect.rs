//! Outgoing connections: one connect operation, its options, what is sent behind it, and its end
//! when nobody waits any more.

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
use super::payload::Payload;
use super::place::Place;
use super::ring::Completion;
use super::shard::{self, Shard};
use super::shortage::Shortage;
use super::stream::{StreamInner, TcpStream};
use super::sys;
use super::task::WakerSlot;
use super::timer::{self, Elapsed};
use crate::limits;
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

/// A connection that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unconnected {
    /// Why: as [`TcpStream::connect`] has it.
    pub error: io::Error,
    /// What it was to begin with. No byte of it has gone out.
    pub first: Option<Payload>,
}

/// A connect in flight; owns the stream until somebody has it. Nobody knows of that before, so the
/// connection's first send is the only operation on it beside the connect.
#[derive(Debug)]
pub(super) struct Connecting {
    stream: Place<TcpStream>,
    inner: Rc<StreamInner>,
    address: SockAddr,
    op: Cell<Option<OpId>>,
    result: Cell<Option<i32>>,
    waiter: WakerSlot,
    abandoned: Cell<bool>,
}

impl Connecting {
    fn new(socket: OwnedFd, addr: SocketAddr) -> Rc<Connecting> {
        let stream = TcpStream::from_fd(socket);
        Rc::new(Connecting {
            inner: Rc::clone(stream.inner()),
            stream: Place::holding(stream),
            address: SockAddr::from(addr),
            op: Cell::new(None),
            result: Cell::new(None),
            waiter: WakerSlot::default(),
            abandoned: Cell::new(false),
        })
    }

    /// Hands the connect to the ring, and behind it `first`, if there is any.
    fn begin(self: &Rc<Self>, shard: &Shard, first: Option<Payload>) {
        let (fd, address) = (types::Fd(self.inner.fd()), &self.address);
        let connect = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
        let op = Op::Connect(Rc::clone(self));
        let id = match first {
            // SAFETY: the address lies in the reference-counted `Connecting`, which the operation
            // keeps.
            None => unsafe { shard.submit(op, || connect) },
            Some(first) => {
                let send = self.inner.link(shard, first);
                let behind = (Op::Send(Rc::clone(&self.inner)), send);
                // SAFETY: as before; and what is sent belongs to the stream, which both keep.
                let [id, sent] = unsafe { shard.submit_linked((op, connect), behind) };
                self.inner.linked_as(sent);
                id
            }
        };
        self.op.set(Some(id));
    }

    pub(super) fn completed(&self, done: &Completion) {
        self.op.set(None);
        self.result.set(Some(done.result));
        if self.abandoned.get() {
            self.give_up();
        } else {
            self.waiter.wake();
        }
    }

    /// Ready with the connect's result; a send behind one that has failed is over then, too.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<i32> {
        match self.result.get() {
            Some(0) => Poll::Ready(0),
            Some(result) => self.poll_let_go(cx).map(|()| result),
            None => {
                self.waiter.set(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Ready when nothing is in flight any more.
    fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.op.get().is_some() {
            self.waiter.set(cx.waker());
        } else if self.inner.send.in_flight() {
            self.inner.send.wait(cx.waker());
        } else {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Asks the kernel to end what is in flight.
    fn cancel(&self, shard: &Shard) {
        match self.op.get() {
            // And with it what is linked to it.
            Some(id) => shard.cancel(id),
            None => self.inner.send.cancel(shard),
        }
    }

    /// Closes the socket; with RST if it is connected, since nobody wants that any more.
    fn give_up(&self) {
        if let Some(stream) = self.stream.take()
            && self.result.get() == Some(0)
        {
            stream.reset_on_close();
        }
    }

    /// Waits until the connection is there, or is not to be had, or `over` has ended.
    async fn outcome(&self, over: impl Future<Output = ()>) -> io::Result<()> {
        let mut over = pin!(over);
        let result = poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => over.as_mut().poll(cx).map(|()| Err(Elapsed)),
        })
        .await;
        if self.inner.send.has_sent() {
            return Ok(());
        }
        if let Ok(result @ ..0) = result {
            return Err(io::Error::from_raw_os_error(-result));
        }
        // An ICMP error that comes while the kernel still works on the connect is only noted. Of
        // IPv4 it wakes the operation, which then finds no error where it looks, and ends as if all
        // were well; of IPv6 it does not (both seen with 6.18). A send behind it may have met the
        // error first.
        self.inner.send.result()?;
        sys::take_error(self.inner.fd())?;
        result.map(drop).map_err(|elapsed| io::Error::new(io::ErrorKind::TimedOut, elapsed))
    }

    /// Has what is in flight ended, and takes back what has not gone out. `Ok`: it has, since the
    /// connect went well before it could be ended.
    async fn recall(&self, error: io::Error) -> Result<(), Unconnected> {
        loop {
            shard::with(|shard| self.cancel(shard));
            let gone = poll_fn(|cx| self.poll_let_go(cx));
            if timer::timeout(Duration::from_millis(limits::CANCEL_AGAIN_MS), gone).await.is_ok() {
                break;
            }
            // What was between two places of the kernel then, such as a send that a connect had
            // just let go, was not found.
        }
        if self.inner.send.has_sent() {
            return Ok(());
        }
        let first = shard::with(|shard| self.inner.send.take_back(shard));
        Err(Unconnected { error, first })
    }
}

/// Cancels the connect when its future is dropped; the socket closes when the kernel has let go.
struct Guard(Rc<Connecting>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abandoned.set(true);
        shard::try_with(|shard| match self.0.op.get() {
            Some(id) => shard.cancel(id),
            None => self.0.give_up(),
        });
    }
}

pub(super) async fn connect(
    addr: SocketAddr,
    options: &ConnectOptions,
    first: Option<Payload>,
) -> Result<TcpStream, Unconnected> {
    match options.timeout {
        None => connect_unless(addr, options, first, pending()).await,
        Some(limit) => connect_unless(addr, options, first, timer::sleep(limit)).await,
    }
}

/// With this end of the caller's patience, and not that of the options.
pub(super) async fn connect_unless(
    addr: SocketAddr,
    options: &ConnectOptions,
    first: Option<Payload>,
    over: impl Future<Output = ()>,
) -> Result<TcpStream, Unconnected> {
    let connected = try_connect(addr, options, first, over).await;
    if let Err(unconnected) = &connected {
        count_shortage(&unconnected.error);
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
    first: Option<Payload>,
    over: impl Future<Output = ()>,
) -> Result<TcpStream, Unconnected> {
    let socket = match open(addr, options) {
        Ok(socket) => socket,
        Err(error) => return Err(Unconnected { error, first }),
    };
    let first = first.filter(|first| !first.is_empty());
    let guard = Guard(Connecting::new(socket, addr));
    let connecting = &guard.0;
    let (linked, later) = shard::with(|shard| {
        let (linked, later) = match shard.features.linked_sends {
            true => (first, None),
            false => (None, first),
        };
        let is_linked = linked.is_some();
        connecting.begin(shard, linked);
        (is_linked, later)
    });
    match connecting.outcome(over).await {
        Ok(()) => {}
        Err(error) if linked => connecting.recall(error).await?,
        Err(error) => return Err(Unconnected { error, first: later }),
    }
    let Some(stream) = connecting.stream.take() else {
        return Err(Unconnected { error: io::ErrorKind::NotConnected.into(), first: later });
    };
    shard::with(|shard| stream.inner().unlink(shard));
    match later.map(|later| stream.post(later)) {
        Some(Err(error)) => Err(Unconnected { error, first: None }),
        _ => Ok(stream),
    }
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
