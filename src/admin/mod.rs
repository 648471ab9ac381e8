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

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use weir_core::net::bind_exclusive;

use listener::Bounded;

pub use metrics::Book;

/// The bound admin listener; without an `[admin]` table it does nothing.
#[derive(Debug)]
pub struct Admin {
    bound: Option<(SocketAddr, std::net::TcpListener)>,
}

impl Admin {
    /// Binds the address, so that a busy port is found before anything runs.
    ///
    /// # Errors
    /// The address cannot be had; names the cause and the cure.
    pub fn bind(addr: Option<SocketAddr>, backlog: u32) -> Result<Admin> {
        let bound = addr.map(|a| bind_exclusive("admin", a, backlog)).transpose()?;
        Ok(Admin { bound })
    }

    /// The bound address with its real port.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.bound.as_ref().map(|(addr, _)| *addr)
    }

    /// Starts the thread; it lives as long as the process.
    ///
    /// # Errors
    /// The thread or its poller could not be made.
    pub fn start(&self, book: Arc<Book>) -> Result<()> {
        let Some((_, listener)) = &self.bound else { return Ok(()) };
        let listener = listener.try_clone().context("admin listener")?;
        listener.set_nonblocking(true).context("admin listener")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("admin thread")?;
        let main = async move {
            let listener = Bounded::new(tokio::net::TcpListener::from_std(listener)?);
            axum::serve(listener, router(book)).await
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
