//! What a listener allows its clients to switch to, and how long such a connection may be quiet.

use std::sync::Arc;
use std::time::Duration;

use crate::model;

/// The tunnel settings of a listener (R6.6-1, R6.6-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// A tunnel ends when nothing moved either way for so long.
    pub timeout: Duration,
    /// The protocols that an Upgrade may ask for.
    pub protocols: Arc<[String]>,
}

impl Tunnel {
    pub(super) fn of(listener: &model::Listener) -> Tunnel {
        Tunnel {
            timeout: listener.tunnel_timeout.unwrap_or(listener.member_timeout),
            protocols: listener.upgrade_protocols.as_slice().into(),
        }
    }
}
