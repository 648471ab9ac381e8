//! Listening sockets: one multishot accept each, what to do when descriptors run out, and an end
//! that resets nobody whose handshake the kernel has completed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use io_uring::{opcode, squeue, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::ops::{Op, OpId};
use super::place::Place;
use super::ring::Completion;
use super::shard::{self, Shard};
use super::shortage::Shortage;
use super::stream::TcpStream;
use super::sys;
use super::task::WakerSlot;
use super::timer;
use crate::limits;
use crate::model::TcpKeepalive;
use crate::time::clock::Mono;

/// Options of a listening socket.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Completed connections that may wait to be accepted; the kernel cuts it to
    /// net.core.somaxconn.
    pub backlog: u32,
    /// Join the port's SO_REUSEPORT group.
    pub reuse_port: bool,
}

/// A listening socket's state; shared by its handle and the accept in flight.
#[derive(Debug)]
pub(super) struct ListenerInner {
    socket: OwnedFd,
    op: Cell<Option<OpId>>,
    /// Accepted, not yet fetched.
    accepted: RefCell<VecDeque<OwnedFd>>,
    /// The accept's last error, until somebody sees it.
    error: Cell<Option<i32>>,
    /// Kept open, to have one descriptor left when there is none.
    spare: Place<OwnedFd>,
    /// Set once nobody is to be let in here any more.
    stopping: Cell<Option<Stop>>,
    waiter: WakerSlot,
    dropped: Cell<bool>,
    /// When it was last said that descriptors or memory ran out.
    complained: Cell<Option<Mono>>,
}

/// How a listener stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// It closes: the queue is served until it stayed empty for so long.
    Closed(Duration),
    /// Another process accepts from the same socket. What waits in this moment is still taken: the
    /// kernel wakes one of two that wait for connections, and may have woken this one.
    HandedOver,
}

/// What `poll_accept` found.
enum Found {
    Connection(OwnedFd),
    /// Not accepted for want of something.
    Exhausted(Shortage),
    /// The listener began to stop: wait in another way.
    Stopping,
}

impl ListenerInner {
    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn arm(self: &Rc<Self>, shard: &Shard) {
        let fd = types::Fd(self.fd());
        let cut = shard.faults.as_ref().is_some_and(|f| f.strikes(f.plan().end_multishot));
        let entry: squeue::Entry = if shard.features.multishot_accept && !cut {
            opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build()
        } else {
            let none = std::ptr::null_mut();
            opcode::Accept::new(fd, none, none.cast()).flags(libc::SOCK_CLOEXEC).build()
        };
        // SAFETY: the entry points at nothing.
        let id = unsafe { shard.submit(Op::Accept(Rc::clone(self)), || entry) };
        self.op.set(Some(id));
    }

    pub(super) fn accept_completed(&self, shard: &Shard, done: &Completion, last: bool) {
        if last {
            self.op.set(None);
        }
        let refused = shard.faults.as_ref().is_some_and(|f| f.strikes(f.plan().refuse_accept));
        match done.result {
            fd @ 0.. => {
                // SAFETY: the kernel has just given us this descriptor.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                if refused {
                    self.error.set(Some(libc::EMFILE));
                } else if !self.dropped.get() {
                    self.accepted.borrow_mut().push_back(fd);
                }
            }
            error if matches!(-error, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            error => self.error.set(Some(-error)),
        }
        self.waiter.wake();
    }

    fn poll_accept(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        stopping: bool,
    ) -> Poll<io::Result<Found>> {
        if let Some(fd) = self.accepted.borrow_mut().pop_front() {
            return Poll::Ready(Ok(Found::Connection(fd)));
        }
        match self.error.take() {
            // The connection died in the queue (accept(2) says to go on).
            None | Some(libc::ECONNABORTED | libc::EPROTO | libc::EPERM) => {}
            Some(code) => {
                let error = io::Error::from_raw_os_error(code);
                return Poll::Ready(Shortage::of(&error).map(Found::Exhausted).ok_or(error));
            }
        }
        if self.stopping.get().is_some() != stopping {
            return Poll::Ready(Ok(Found::Stopping));
        }
        if self.op.get().is_none() {
            shard::with(|shard| self.arm(shard));
        }
        self.waiter.set(cx.waker());
        Poll::Pending
    }

    /// Out of descriptors: uses the spare one to accept one connection and close it, so that its
    /// client learns at once, and the queue does not stand still.
    fn shed(&self) {
        if let Some(spare) = self.spare.take() {
            drop(spare);
            if let Ok(Some(fd)) = sys::accept_now(self.fd()) {
                sys::close(fd);
            }
        }
        self.keep_spare();
    }

    /// Sees to it that there is a spare descriptor. Somebody else (another shard, a connect) may
    /// have been quicker to take the one that `shed` let go of; then a later call finds one.
    fn keep_spare(&self) {
        if self.spare.is_empty()
            && let Ok(spare) = spare_descriptor()
        {
            self.spare.put(spare);
        }
    }

    /// Ends the accept in flight and waits for its last word.
    async fn disarm(&self) {
        if let Some(id) = self.op.get() {
            shard::with(|shard| shard.cancel(id));
        }
        poll_fn(|cx| {
            if self.op.get().is_none() {
                return Poll::Ready(());
            }
            self.waiter.set(cx.waker());
            Poll::Pending
        })
        .await;
    }
}

/// A listening TCP socket on this shard. Dropping it closes the socket: the kernel then resets what
/// still waits in its queue, so call [`TcpListener::stop_accepting`] first where that matters.
#[derive(Debug)]
pub struct TcpListener(Rc<ListenerInner>);

impl TcpListener {
    /// Binds `addr` and listens; SO_REUSEADDR, and IPV6_V6ONLY for IPv6. Accepted connections
    /// inherit TCP_NODELAY.
    ///
    /// # Errors
    /// The kernel's: address in use, not available, permission denied …
    pub fn bind(addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        TcpListener::from_fd(socket.into())
    }

    /// Takes over a socket that listens already (made elsewhere, one a shard).
    ///
    /// # Errors
    /// When it cannot be made non-blocking, or no spare descriptor is left.
    pub fn from_fd(fd: OwnedFd) -> io::Result<TcpListener> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        let spare = spare_descriptor()?;
        shard::with(Shard::opened);
        Ok(TcpListener(Rc::new(ListenerInner {
            socket: socket.into(),
            op: Cell::new(None),
            accepted: RefCell::default(),
            error: Cell::new(None),
            spare: Place::holding(spare),
            stopping: Cell::new(None),
            waiter: WakerSlot::default(),
            dropped: Cell::new(false),
            complained: Cell::new(None),
        })))
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.0.fd())
    }

    /// Switches TCP keep-alive on for the connections that it accepts from now on (R11.1-2).
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_keepalive(&self, times: TcpKeepalive) -> io::Result<()> {
        sys::set_keepalive(self.0.fd(), times)
    }

    /// The next connection and its peer. A dropped future loses nothing. When descriptors or memory
    /// run out, it counts that, closes one waiting connection, and goes on after a pause.
    ///
    /// # Errors
    /// `NotConnected` after `stop_accepting`, once everything has been handed out; else what makes
    /// the socket unusable.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept_socket().await.map(|(socket, peer)| (TcpStream::from_fd(socket), peer))
    }

    /// As [`TcpListener::accept`], of a connection that may go to another shard, as the bare socket
    /// that [`TcpStream::from_fd`] takes there.
    ///
    /// # Errors
    /// As `accept`.
    pub async fn accept_socket(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        loop {
            match self.next().await? {
                Found::Connection(fd) => {
                    self.0.keep_spare();
                    // A peer that has reset already has no address; there is nothing to serve.
                    if let Ok(peer) = sys::peer_addr(fd.as_raw_fd()) {
                        return Ok((fd, peer));
                    }
                }
                Found::Exhausted(shortage) => {
                    shard::with(|shard| shard.stats.accept_failures.add(1));
                    self.complain(shortage);
                    self.0.shed();
                    timer::sleep(Duration::from_millis(limits::ACCEPT_BACKOFF_MS)).await;
                }
                Found::Stopping => {}
            }
        }
    }

    /// Says what ran out, now and then.
    fn complain(&self, shortage: Shortage) {
        let (now, pause) = (shard::now(), Duration::from_millis(limits::SHORTAGE_LOG_MS));
        if self.0.complained.get().is_some_and(|last| now.since(last) < pause) {
            return;
        }
        self.0.complained.set(Some(now));
        let place = self.local_addr().map_or("a listener".to_owned(), |addr| addr.to_string());
        tracing::error!("{place}: a client is turned away, and maybe others: {shortage}");
    }

    async fn next(&self) -> io::Result<Found> {
        let Some(stop) = self.0.stopping.get() else {
            return poll_fn(|cx| self.0.poll_accept(cx, false)).await;
        };
        if let Stop::Closed(quiet) = stop {
            let next = poll_fn(|cx| self.0.poll_accept(cx, true));
            if let Ok(found) = timer::timeout(quiet, next).await {
                return found;
            }
        }
        self.0.disarm().await;
        if let Some(fd) = self.0.accepted.borrow_mut().pop_front() {
            return Ok(Found::Connection(fd));
        }
        match sys::accept_now(self.0.fd())? {
            // SAFETY: the kernel has just given us this descriptor.
            Some(fd) => Ok(Found::Connection(unsafe { OwnedFd::from_raw_fd(fd) })),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "the listener has stopped")),
        }
    }

    /// Takes no new handshakes from now on, without resetting a connection that the kernel has
    /// completed: SYNs are dropped, `accept` goes on handing out connections, and fails with
    /// `NotConnected` once none has come for `quiet`. Then drop the listener; a client whose SYN
    /// was dropped tries again and is refused.
    ///
    /// # Errors
    /// When the kernel takes no filter; the listener then stops all the same, but a connection that
    /// completes in its last instant may be reset.
    pub fn stop_accepting(&self, quiet: Duration) -> io::Result<()> {
        self.0.stopping.set(Some(Stop::Closed(quiet)));
        self.0.waiter.wake();
        sys::drop_new_syns(self.0.fd())
    }

    /// New handshakes are taken again, where another process with the very same socket has called
    /// [`TcpListener::stop_accepting`] and is gone. Not for a listener that was stopped here.
    ///
    /// # Errors
    /// The kernel's.
    pub fn go_on(&self) -> io::Result<()> {
        sys::take_new_syns(self.0.fd())
    }

    /// Lets in nobody from now on, since another process accepts from the very same socket:
    /// `accept` hands out what the kernel has delivered here already and what waits in this
    /// moment, and then fails with `NotConnected`. What comes later is left to the other one;
    /// dropping the listener resets nobody.
    pub fn hand_over(&self) {
        self.0.stopping.set(Some(Stop::HandedOver));
        self.0.waiter.wake();
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.0.dropped.set(true);
        self.0.accepted.take();
        shard::try_with(|shard| {
            shard.closed();
            if let Some(id) = self.0.op.get() {
                shard.cancel(id);
            }
        });
    }
}

/// A descriptor to have in reserve.
fn spare_descriptor() -> io::Result<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from)
}
