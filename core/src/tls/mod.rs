//! TLS on a shard: what a handshake needs, and the streams it makes. Certificates are `cert`'s;
//! what a listener shows and accepts is put together by `control` and reaches the shards as
//! [`Server`]. The only user of rustls on the data path.

mod context;
mod resolver;
mod stream;

use std::sync::Arc;
use std::time::Duration;

pub use context::{Certificates, server_config};
pub use resolver::take_chosen;
pub use stream::Stream;

/// What the handshakes of one HTTPS listener need. Built by control, shared by all shards.
#[derive(Clone, Debug)]
pub struct Server {
    /// Versions, suites, certificates, tickets, who must show a certificate. Its
    /// `enable_secret_extraction` must be set: rustls shakes hands, [`Stream`] seals and opens.
    pub config: Arc<rustls::ServerConfig>,
    /// Time for a whole handshake: 1–300 s.
    pub handshake_timeout: Duration,
}
