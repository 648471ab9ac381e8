//! The admin listener: `/metrics` and `/healthz` on a thread of its own, away from the shards.
//! Owns the HTTP side; [`metrics`] owns the text, [`names`] the names.

mod flaps;
mod handshakes;
mod listener;
mod metrics;
mod names;
mod process;
mod text;
mod traffic;
mod window;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::Notify;
use weir_core::net::bind_exclusive;

use listener::Bounded;

pub use metrics::Book;

/// How long connections may be open after [`Handle::stop`] without asking anything.
const GRACE: Duration = Duration::from_secs(1);

/// The bound admin listener; without an `[admin]` table it does nothing.
#[derive(Debug, Default)]
pub struct Admin {
    bound: Option<(SocketAddr, std::net::TcpListener)>,
    stop: Stop,
}

/// Says that it is over: to who accepts, and to all that is open.
#[derive(Clone, Debug, Default)]
struct Stop {
    accepting: Arc<Notify>,
    ended: Arc<Notify>,
}

/// The admin listener, for another process that takes it over.
#[derive(Debug)]
pub struct Handle {
    asked: SocketAddr,
    listener: std::net::TcpListener,
    stop: Stop,
}

impl Handle {
    /// What the file says of it, and its socket once more.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn lend(&self) -> io::Result<(SocketAddr, OwnedFd)> {
        Ok((self.asked, self.listener.try_clone()?.into()))
    }

    /// Another process answers by it: this one does no more.
    pub fn stop(&self) {
        self.stop.accepting.notify_one();
        self.stop.ended.notify_one();
    }
}

impl Admin {
    /// Binds the address, so that a busy port is found before anything runs.
    ///
    /// # Errors
    /// The address cannot be had; names the cause and the cure.
    pub fn bind(addr: Option<SocketAddr>, backlog: u32) -> Result<Admin> {
        let bound = addr.map(|a| bind_exclusive("admin", a, backlog)).transpose()?;
        Ok(Admin { bound, ..Admin::default() })
    }

    /// The bound address with its real port.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.bound.as_ref().map(|(addr, _)| *addr)
    }

    /// The listener that another process has handed over, which has the same wish; where this one
    /// has another wish, its own.
    ///
    /// # Errors
    /// As [`Admin::bind`].
    pub fn take_over(
        addr: Option<SocketAddr>,
        handed: Option<(SocketAddr, std::net::TcpListener)>,
        backlog: u32,
    ) -> Result<Admin> {
        match handed {
            Some((asked, listener)) if addr == Some(asked) => {
                let bound = Some((listener.local_addr().context("admin listener")?, listener));
                Ok(Admin { bound, ..Admin::default() })
            }
            _ => Admin::bind(addr, backlog),
        }
    }

    /// For handing the listener over to another process; `asked` is what the file says of it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn handle(&self, asked: Option<SocketAddr>) -> Result<Option<Handle>> {
        let Some(((_, listener), asked)) = self.bound.as_ref().zip(asked) else { return Ok(None) };
        let listener = listener.try_clone().context("admin listener")?;
        Ok(Some(Handle { asked, listener, stop: self.stop.clone() }))
    }

    /// Starts the thread; it lives as long as the process, or until [`Handle::stop`].
    ///
    /// # Errors
    /// The thread or its poller could not be made.
    pub fn start(self, book: Arc<Book>) -> Result<()> {
        let Some((_, listener)) = self.bound else { return Ok(()) };
        listener.set_nonblocking(true).context("admin listener")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("admin thread")?;
        let Stop { accepting, ended } = self.stop;
        let main = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let listener = Bounded::new(listener, accepting)?;
            let stopped = async move {
                ended.notified().await;
                // Who has just been let in has not asked yet.
                tokio::time::sleep(GRACE).await;
            };
            axum::serve(listener, router(book)).with_graceful_shutdown(stopped).await
        };
        let run = move || {
            if let Err(e) = runtime.block_on(main) {
                tracing::error!("the admin listener ended: {e}");
            }
        };
        std::thread::Builder::new().name("weir-admin".into()).spawn(run).context("admin thread")?;
        Ok(())
    }
}

fn router(book: Arc<Book>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_health))
        .with_state(book)
}

async fn show_metrics(State(book): State<Arc<Book>>) -> impl IntoResponse {
    let text = book.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn show_health(State(book): State<Arc<Book>>) -> impl IntoResponse {
    if book.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}
