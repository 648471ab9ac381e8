//! TCP connections of a shard. Owns the descriptor and its two halves, and the order of closing:
//! cancel what is in flight, wait for the kernel to let go, then close.
//!
//! `recv` and `send` hold a half each, `splice` goes around both. All state lives in
//! [`StreamInner`], which the operation table keeps alive until the last completion; so a dropped
//! future loses nothing and a dropped stream frees nothing too early.

mod recv;
mod send;
mod splice;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::buffers::Lease;
use super::connect::{self, ConnectOptions, Unconnected};
use super::events::EventQueue;
use super::payload::{Payload, SendBuf};
use super::shard::{self, Shard};
use super::sys::{self, TcpInfo, TcpSummary};
use super::timer;
use crate::limits;
use crate::model::TcpKeepalive;

use recv::RecvHalf;
pub(super) use send::Message;
use send::SendHalf;

/// What a stream is made of; shared by its handle and the operations in flight.
#[derive(Debug)]
pub(super) struct StreamInner {
    fd: RawFd,
    closing: Cell<bool>,
    recv: RecvHalf,
    pub(super) send: SendHalf,
}

impl StreamInner {
    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    /// The handle is gone: no more waiting, everything in flight ends, then the descriptor closes.
    fn begin_close(&self, shard: &Shard) {
        self.closing.set(true);
        self.recv.abandon(shard);
        self.send.abandon(shard);
        self.finish_close(shard);
    }

    /// Closes once the kernel has let go of both halves.
    fn finish_close(&self, shard: &Shard) {
        if self.closing.get() && !self.recv.in_flight() && !self.send.in_flight() {
            shard.close(self.fd);
            shard.closed();
        }
    }
}

/// A TCP connection on this shard. All methods take `&self`; none blocks the thread.
///
/// Dropping it cancels what is in flight, a posted send included, and closes the socket; `flush`
/// first if what was posted must still go out. Not `Send`.
#[derive(Debug)]
pub struct TcpStream(Rc<StreamInner>);

impl TcpStream {
    /// Connects to `addr`.
    ///
    /// # Errors
    /// The kernel's (refused, unreachable, out of descriptors or ports …), or `TimedOut` when
    /// `options.timeout` was over first.
    pub async fn connect(addr: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
        let connected = connect::connect(addr, options, None).await;
        connected.map_err(|unconnected| unconnected.error)
    }

    /// Connects to `addr` and posts `first`: where the ring can, both in one submission. `None`, or
    /// nothing in it, is a mere connect.
    ///
    /// # Errors
    /// As [`TcpStream::connect`]; then no byte of `first` has gone out, and it is given back.
    pub async fn connect_with(
        addr: SocketAddr,
        options: &ConnectOptions,
        first: Option<Payload>,
    ) -> Result<TcpStream, Unconnected> {
        connect::connect(addr, options, first).await
    }

    pub(super) fn inner(&self) -> &Rc<StreamInner> {
        &self.0
    }

    /// Connects to `addr` unless `over` ends first, which then stands for `options.timeout`: for
    /// whoever measures time by rules of his own.
    ///
    /// # Errors
    /// As with [`TcpStream::connect`]; `TimedOut` when `over` ended first.
    pub async fn connect_unless(
        addr: SocketAddr,
        options: &ConnectOptions,
        over: impl Future<Output = ()>,
    ) -> io::Result<TcpStream> {
        let connected = connect::connect_unless(addr, options, None, over).await;
        connected.map_err(|unconnected| unconnected.error)
    }

    /// Takes over a connected socket.
    pub fn from_fd(fd: OwnedFd) -> TcpStream {
        shard::with(Shard::opened);
        TcpStream(Rc::new(StreamInner {
            fd: std::os::fd::IntoRawFd::into_raw_fd(fd),
            closing: Cell::new(false),
            recv: RecvHalf::default(),
            send: SendHalf::default(),
        }))
    }

    /// The next bytes; `None` once the peer has sent FIN. While undelivered bytes wait here, the
    /// ring stops receiving after a few leases (back-pressure).
    ///
    /// # Errors
    /// The connection's (reset, timed out …); the same again on each further call.
    pub async fn recv(&self) -> io::Result<Option<Lease>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`TcpStream::recv`]. One task may wait at a time.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        self.0.poll_recv(cx)
    }

    /// Waits for bytes that cannot be passed on yet: ready with how many are here, in one lease,
    /// which `take_first` and `recv` hand out; with 0 once the peer has sent FIN before any. What
    /// comes behind that lease is not received until `recv` asks for it, but by a receive that was
    /// armed before. One task may wait at a time.
    ///
    /// # Errors
    /// As [`TcpStream::recv`].
    pub fn poll_first(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.0.poll_first(cx)
    }

    /// The bytes that `poll_first` has found.
    pub fn take_first(&self) -> Option<Lease> {
        self.0.recv.take()
    }

    /// Begins to receive for `poll_first`, and does not wait. False, and nothing is received, when
    /// half of the shard's small buffers are lent: what waits for long may have no more of them.
    pub fn begin_first(&self) -> bool {
        self.0.begin_first()
    }

    /// Ready once the connection has broken; bytes and FIN are left where they are. Not to be
    /// called while `poll_first` waits. The next `poll_recv` ends it.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_broken(cx)
    }

    /// Puts bytes back in front: the next `recv` yields them. An empty lease is dropped.
    pub fn unread(&self, lease: Lease) {
        self.0.recv.unread(lease);
    }

    /// Says that a large body is about to come (`true`), so that large leases are used from the
    /// next receive on. Streams also adapt by themselves, and go back by themselves.
    pub fn expect_bulk(&self, bulk: bool) {
        self.0.recv.expect_bulk(bulk);
    }

    /// Posts `payload` and returns, without waiting for the kernel to take it; waits only while an
    /// earlier post is in flight. All of it is sent.
    ///
    /// # Errors
    /// Those of an earlier post, for good; the payload is dropped then.
    pub async fn send(&self, payload: impl Into<Payload>) -> io::Result<()> {
        poll_fn(|cx| self.poll_send_ready(cx)).await?;
        self.post(payload)
    }

    /// As [`TcpStream::send`] with a copy of `data`, however long (in bounded pieces).
    ///
    /// # Errors
    /// As `send`.
    pub async fn send_copy(&self, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(limits::COPY_PIECE) {
            poll_fn(|cx| self.poll_send_ready(cx)).await?;
            let mut buf = SendBuf::new();
            buf.extend_from_slice(piece);
            self.post(buf)?;
        }
        Ok(())
    }

    /// Ready when `post` may be called, or with the error of an earlier post. One task may wait at
    /// a time.
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.send.poll_ready(cx)
    }

    /// True when `post` would not have to wait.
    pub fn may_post(&self) -> bool {
        !self.0.send.in_flight()
    }

    /// Posts without waiting. An empty payload is dropped.
    ///
    /// # Errors
    /// `WouldBlock` while an earlier post is in flight; else that post's error.
    pub fn post(&self, payload: impl Into<Payload>) -> io::Result<()> {
        self.0.post(payload.into(), false)
    }

    /// As [`TcpStream::post`], of the last bytes: whoever posts them calls `shutdown_write` next,
    /// or flushes and closes. The kernel holds back the last segment for the FIN, so that both go
    /// in one; without a FIN it would do so for 200 ms.
    ///
    /// # Errors
    /// As `post`.
    pub fn post_last(&self, payload: impl Into<Payload>) -> io::Result<()> {
        self.0.post(payload.into(), true)
    }

    /// True when the kernel may be holding back a segment for the FIN: the latest post was made by
    /// `post_last`.
    pub fn holds_back(&self) -> bool {
        self.0.send.holds_back()
    }

    /// Waits until the kernel has taken everything posted.
    ///
    /// # Errors
    /// Those of the posts.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send_ready(cx)).await
    }

    /// Bytes that the kernel has taken so far. Those of a post that is not over all count: they may
    /// have gone out. They stop counting when it turns out that they have not.
    pub fn bytes_sent(&self) -> u64 {
        self.0.send.bytes()
    }

    /// Bytes that have come from the kernel so far, delivered or not.
    pub fn bytes_received(&self) -> u64 {
        self.0.recv.bytes()
    }

    /// Flushes, then sends FIN; receiving goes on.
    ///
    /// # Errors
    /// Those of the posts, and `NotConnected` when the connection is gone.
    pub async fn shutdown_write(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown_write(cx)).await
    }

    /// As [`TcpStream::shutdown_write`]; once ready, not to be called again.
    pub fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send_ready(cx)
            .map(|flushed| flushed.and_then(|()| sys::shutdown_write(self.0.fd)))
    }

    /// Switches TCP keep-alive on with these times (R11.1-2).
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_keepalive(&self, times: TcpKeepalive) -> io::Result<()> {
        sys::set_keepalive(self.0.fd, times)
    }

    /// Closes with RST; what has not gone out is dropped.
    pub fn reset(self) {
        self.reset_on_close();
    }

    /// Closing will send RST, whoever closes; what has not gone out then is dropped.
    pub fn reset_on_close(&self) {
        // A socket that refuses the option is gone already; closing it is all that is left.
        let _ = sys::reset_on_close(self.0.fd);
    }

    /// Flushes, sends FIN, and discards what the peer still sends until its FIN, `max_bytes`, or
    /// `limit`; then closes. So an answer is not lost to the RST that unread data would cause.
    pub async fn close_lingering(self, max_bytes: u64, limit: Duration) {
        // However it ends (time over, peer gone), the connection closes: nothing to report.
        let _ = timer::timeout(limit, self.linger(max_bytes)).await;
    }

    async fn linger(&self, max_bytes: u64) -> io::Result<()> {
        self.shutdown_write().await?;
        let mut left = max_bytes;
        while let Some(lease) = self.recv().await? {
            left = left.saturating_sub(lease.len() as u64);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// True when bytes, FIN or an error are here already: an idle connection like that must not be
    /// used again.
    pub fn has_event(&self) -> bool {
        self.0.recv.has_event()
    }

    /// True when the peer has sent FIN and all before it was received: nothing more comes.
    pub fn is_through(&self) -> bool {
        self.0.recv.is_through()
    }

    /// Until the next `recv`, reports any event (bytes, FIN, error) as `token` to `queue`; keeps a
    /// receive armed for that.
    pub fn watch(&self, queue: &Rc<EventQueue>, token: u32) {
        self.0.watch(queue, token);
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        sys::peer_addr(self.0.fd)
    }

    /// Our own address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.0.fd)
    }

    /// What the kernel measures on the connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        sys::tcp_info(self.0.fd)
    }

    /// The part of `tcp_info` that a log line of a connection has, but cheaper.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp_summary(&self) -> io::Result<TcpSummary> {
        sys::tcp_summary(self.0.fd)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as the handle lives.
        unsafe { BorrowedFd::borrow_raw(self.0.fd) }
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let closed = shard::try_with(|shard| self.0.begin_close(shard));
        if closed.is_none() {
            // The shard has ended, and with it every operation on the descriptor.
            // SAFETY: the handle owned the descriptor, and it is going away.
            drop(unsafe { OwnedFd::from_raw_fd(self.0.fd) });
        }
    }
}
