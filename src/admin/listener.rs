//! The admin listener's bounds: so many connections at once, none silent for long. So nobody who
//! reaches the admin port can use up the descriptors that clients need.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections open at once; more wait in the accept queue.
const MAX_CONNECTIONS: usize = 64;
/// A connection on which nothing moves for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A listener with at most [`MAX_CONNECTIONS`] open connections.
#[derive(Debug)]
pub struct Bounded {
    /// `None` once it has stopped.
    inner: Option<TcpListener>,
    addr: SocketAddr,
    permits: Arc<Semaphore>,
    stop: Arc<Notify>,
}

impl Bounded {
    /// Bounds `inner`, which is closed when `stop` says so; connections live on.
    ///
    /// # Errors
    /// The kernel's, for the address.
    pub fn new(inner: TcpListener, stop: Arc<Notify>) -> io::Result<Bounded> {
        let addr = inner.local_addr()?;
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Ok(Bounded { inner: Some(inner), addr, permits, stop })
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed, so the permit is there once somebody leaves.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let accepted = match &mut self.inner {
            Some(inner) => {
                let mut stopped = pin!(self.stop.notified());
                let mut next = pin!(Listener::accept(inner));
                let either = |cx: &mut Context<'_>| match stopped.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => next.as_mut().poll(cx).map(Some),
                };
                std::future::poll_fn(either).await
            }
            None => None,
        };
        let Some((stream, addr)) = accepted else {
            self.inner = None;
            return std::future::pending().await;
        };
        (Connection { stream, idle: Box::pin(sleep(IDLE_LIMIT)), _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// A connection that ends with an error once it was silent for [`IDLE_LIMIT`].
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Passes progress on and restarts the clock; without progress looks at the clock.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.idle.as_mut().set(sleep(IDLE_LIMIT));
            return poll;
        }
        self.idle.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, poll)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watch(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    #[test]
    fn connections_above_the_bound_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = inner.local_addr().unwrap();
            let mut bounded = Bounded::new(inner, Arc::default()).unwrap();
            let clients: Vec<_> =
                (0..=MAX_CONNECTIONS).map(|_| Client::connect(addr).unwrap()).collect();
            let mut served = Vec::new();
            for _ in 0..MAX_CONNECTIONS {
                served.push(bounded.accept().await);
            }
            let wait = Duration::from_millis(20);
            assert!(tokio::time::timeout(wait, bounded.accept()).await.is_err());
            served.pop();
            bounded.accept().await;
            drop(clients);
        });
    }

    #[test]
    fn a_silent_connection_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _client = Client::connect(inner.local_addr().unwrap()).unwrap();
            let (mut connection, _) = Bounded::new(inner, Arc::default()).unwrap().accept().await;
            connection.idle.as_mut().set(sleep(Duration::ZERO));
            let mut space = [0; 8];
            let mut buf = ReadBuf::new(&mut space);
            let read = std::future::poll_fn(|cx| Pin::new(&mut connection).poll_read(cx, &mut buf));
            assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }
}
