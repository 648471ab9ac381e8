//! A connection as whoever speaks a protocol sees it: plain TCP, or TLS over it, with one
//! interface. Bytes in and out are the protocol's own; the counts `bytes_*` are the wire's, which
//! is what the kernel's figures can be compared with.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::channel::Channel;
use super::facts::Facts;
use crate::model::TcpKeepalive;
use crate::rt::{EventQueue, Lease, Payload, TcpInfo, TcpStream, TcpSummary};

/// A connection on this shard. As [`TcpStream`] in all that is not said here.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    /// `None`: plain.
    tls: Option<Box<Channel>>,
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Stream {
        Stream { tcp, tls: None }
    }
}

impl Stream {
    pub(super) fn secured(tcp: TcpStream, tls: Box<Channel>) -> Stream {
        Stream { tcp, tls: Some(tls) }
    }

    /// The connection beneath, where its bytes are the protocol's own.
    #[inline]
    pub fn plain(&self) -> Option<&TcpStream> {
        self.tls.is_none().then_some(&self.tcp)
    }

    /// What its handshake came to; `None` when it is plain.
    #[inline]
    pub fn tls(&self) -> Option<&Facts> {
        self.tls.as_ref().map(|tls| &tls.facts)
    }

    /// The application protocol that its handshake agreed on, if any.
    #[inline]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls().and_then(|facts| facts.alpn.as_deref())
    }

    /// The next bytes; `None` once the peer has ended its side in order.
    ///
    /// # Errors
    /// The connection's, for good.
    pub async fn recv(&self) -> io::Result<Option<Lease>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Stream::recv`]. One task may wait at a time.
    #[inline]
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        match &self.tls {
            None => self.tcp.poll_recv(cx),
            Some(tls) => tls.poll_recv(&self.tcp, cx),
        }
    }

    /// Puts bytes back in front: the next `recv` yields them. An empty lease is dropped.
    pub fn unread(&self, lease: Lease) {
        match &self.tls {
            None => self.tcp.unread(lease),
            Some(tls) => tls.unread(lease),
        }
    }

    /// Says that a large body is about to come (`true`).
    #[inline]
    pub fn expect_bulk(&self, bulk: bool) {
        self.tcp.expect_bulk(bulk);
    }

    /// Ready when `post` may be called, or with the error of an earlier post. One task may wait at
    /// a time.
    #[inline]
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => self.tcp.poll_send_ready(cx),
            Some(tls) => tls.poll_send_ready(&self.tcp, cx),
        }
    }

    /// Posts without waiting. An empty payload is dropped.
    ///
    /// # Errors
    /// `WouldBlock` while an earlier post is in flight; else that post's error.
    #[inline]
    pub fn post(&self, payload: impl Into<Payload>) -> io::Result<()> {
        match &self.tls {
            None => self.tcp.post(payload),
            Some(tls) => tls.post(&self.tcp, payload.into()),
        }
    }

    /// As [`Stream::post`], of the last bytes, and ends our side within the stream: inside TLS they
    /// take close_notify along. Whoever posts them calls `poll_shutdown_write` next, or flushes and
    /// closes; the kernel holds the last segment back for that.
    ///
    /// # Errors
    /// As `post`.
    #[inline]
    pub fn post_last(&self, payload: impl Into<Payload>) -> io::Result<()> {
        match &self.tls {
            None => self.tcp.post_last(payload),
            Some(tls) => tls.post_last(&self.tcp, payload.into()),
        }
    }

    /// As [`TcpStream::holds_back`].
    #[inline]
    pub fn holds_back(&self) -> bool {
        self.tcp.holds_back()
    }

    /// Waits until the kernel has taken everything posted.
    ///
    /// # Errors
    /// Those of the posts.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send_ready(cx)).await
    }

    /// Bytes of the wire that the kernel has taken so far, those of a post under way included.
    #[inline]
    pub fn bytes_sent(&self) -> u64 {
        self.tcp.bytes_sent()
    }

    /// Bytes of the wire that have come from the kernel so far, delivered or not.
    #[inline]
    pub fn bytes_received(&self) -> u64 {
        self.tcp.bytes_received()
    }

    /// Flushes, then ends our side; receiving goes on. Once ready, not to be called again.
    ///
    /// # Errors
    /// Those of the posts, and `NotConnected` when the connection is gone.
    pub fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => self.tcp.poll_shutdown_write(cx),
            Some(tls) => tls.poll_shutdown_write(&self.tcp, cx),
        }
    }

    /// Tells the peer that nothing more comes, as far as that is said within the stream: by TLS's
    /// close_notify. Nothing may be posted after it, and the connection has to be closed next, for
    /// which the kernel may hold it back. True when there is something to flush for it; false while
    /// a post is in flight, too.
    pub fn say_end(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.say_end(&self.tcp))
    }

    /// Switches TCP keep-alive on with these times.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_keepalive(&self, times: TcpKeepalive) -> io::Result<()> {
        self.tcp.set_keepalive(times)
    }

    /// Closes with RST; what has not gone out is dropped.
    pub fn reset(self) {
        self.tcp.reset();
    }

    /// Closing will send RST, whoever closes; what has not gone out then is dropped.
    pub fn reset_on_close(&self) {
        self.tcp.reset_on_close();
    }

    /// Flushes, ends our side, and discards what the peer still sends until its FIN, `max_bytes`
    /// of the wire, or `limit`; then closes.
    pub async fn close_lingering(self, max_bytes: u64, limit: Duration) {
        if self.tls.is_some() && self.flush().await.is_ok() {
            self.say_end();
        }
        self.tcp.close_lingering(max_bytes, limit).await;
    }

    /// True when bytes, the end or an error are here already; inside TLS the beginning of a record
    /// counts, too.
    #[inline]
    pub fn has_event(&self) -> bool {
        self.tcp.has_event() || self.tls.as_ref().is_some_and(|tls| tls.has_event())
    }

    /// True when the peer has ended its side and all before it was received. False says nothing:
    /// inside TLS it is not known.
    #[inline]
    pub fn is_through(&self) -> bool {
        self.plain().is_some_and(TcpStream::is_through)
    }

    /// Until the next `recv`, reports any event (bytes, the end, an error) as `token` to `queue`;
    /// keeps a receive armed for that.
    #[inline]
    pub fn watch(&self, queue: &Rc<EventQueue>, token: u32) {
        match &self.tls {
            Some(tls) if tls.has_event() => queue.push(token),
            _ => self.tcp.watch(queue, token),
        }
    }

    /// Our own address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// What the kernel measures on the connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        self.tcp.tcp_info()
    }

    /// [`TcpStream::tcp_summary`] of the connection below.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp_summary(&self) -> io::Result<TcpSummary> {
        self.tcp.tcp_summary()
    }
}
