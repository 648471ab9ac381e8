//! TLS on a shard: what a handshake needs, and the streams it makes. Certificates are `cert`'s;
//! what a listener shows and accepts is put together by `control` and reaches the shards as
//! [`Server`]. The only user of rustls on the data path.
//!
//! | module | owns |
//! | --- | --- |
//! | `handshake` | a handshake, by rustls; `turns`: how many at once |
//! | `stream` | a connection, plain or TLS; `channel`: what TLS puts between socket and text |
//! | `incoming`, `outgoing` | records from and to leases |
//! | `keys` | sealing and opening one record |
//! | `context`, `resolver` | what a listener's handshakes need; which certificate is shown |
//! | `key_log` | the log of session keys, for debugging |
//! | `facts`, `failure`, `alert` | what a handshake came to; what went wrong |

mod alert;
mod channel;
mod context;
mod facts;
mod failure;
mod handshake;
mod incoming;
mod key_log;
mod keys;
mod outgoing;
mod resolver;
mod stream;
pub mod tickets;
mod trust;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use context::{Certificates, server_config};
pub use facts::Facts;
pub use failure::Failure;
pub use handshake::{Failed, accept, connect};
pub use key_log::log_keys;
pub use resolver::take_chosen;
pub use stream::Stream;
pub use trust::{Bond, Offer, Trust, without_port};

/// What the handshakes of one HTTPS listener need. Built by control, shared by all shards.
#[derive(Clone, Debug)]
pub struct Server {
    /// Versions, suites, certificates, tickets, who must show a certificate. Its
    /// `enable_secret_extraction` must be set: rustls shakes hands, [`Stream`] seals and opens.
    pub config: Arc<rustls::ServerConfig>,
    /// Time for a whole handshake: 1–300 s.
    pub handshake_timeout: Duration,
}

impl Server {
    /// What shakes hands by `config`, with what streams and logs need beside.
    #[must_use]
    pub fn new(mut config: rustls::ServerConfig, handshake_timeout: Duration) -> Server {
        config.enable_secret_extraction = true;
        config.cert_resolver = Arc::new(Noting(config.cert_resolver));
        Server { config: Arc::new(config), handshake_timeout }
    }
}

/// Notes the name that a client asks for, of which rustls tells nobody else.
#[derive(Debug)]
struct Noting(Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        handshake::note_name(hello.server_name());
        self.0.resolve(hello)
    }
}

/// What a handshake with a member needs.
#[derive(Clone, Debug)]
pub struct Client {
    /// Versions, suites, whom to trust, sessions to resume. Its `enable_secret_extraction` must be
    /// set.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that is asked for, and that the member's certificate must be for.
    pub server_name: ServerName<'static>,
}

impl Client {
    /// What shakes hands by `config` with `server_name`.
    #[must_use]
    pub fn new(mut config: rustls::ClientConfig, server_name: ServerName<'static>) -> Client {
        config.enable_secret_extraction = true;
        Client { config: Arc::new(config), server_name }
    }
}
