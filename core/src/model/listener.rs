//! A listener: what clients connect to.

use std::time::Duration;

use super::Id;

/// A listener. Its balancer's addresses are bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Index into [`Config::balancers`](super::Config::balancers).
    pub balancer: usize,
    /// What clients speak.
    pub protocol: Protocol,
    /// Port; 0 = any free one, the same for all shards.
    pub protocol_port: u16,
    /// Index into [`Config::pools`](super::Config::pools); `None` answers 404.
    pub default_pool: Option<usize>,
    /// Idle time of a client connection or flow; zero = no persistent connections (C21). R6.7-1 to
    /// R6.7-4.
    pub keepalive_timeout: Duration,
    /// The whole head from its first byte, then each gap in the body. R6.7-5.
    pub client_timeout: Duration,
    /// Silence of a member before 504. R6.7-6.
    pub member_timeout: Duration,
    /// Time to connect to a member before 504. R6.7-7.
    pub connect_timeout: Duration,
}

impl Default for Listener {
    /// An HTTP listener on any free port with the timeouts of table 6-3.
    fn default() -> Self {
        Listener {
            id: Id::nil(),
            name: String::new(),
            balancer: 0,
            protocol: Protocol::Http,
            protocol_port: 0,
            default_pool: None,
            keepalive_timeout: Duration::from_secs(60),
            client_timeout: Duration::from_secs(60),
            member_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// What clients of a listener speak (R6.8-1 to R6.8-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Streams, passed on as they are.
    Tcp,
    /// Datagrams, passed on as they are.
    Udp,
    /// HTTP in clear text.
    Http,
    /// HTTP inside TLS.
    Https,
}

impl Protocol {
    /// The word in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Http => "HTTP",
            Protocol::Https => "HTTPS",
        }
    }

    /// HTTP or HTTPS.
    #[must_use]
    pub fn is_l7(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Https)
    }
}
