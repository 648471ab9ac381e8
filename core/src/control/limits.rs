//! The size limits of a listener's requests, as control hands them to the shards.

use crate::model;

/// How large requests may be. Exactly the limit passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, the start line and the last empty line included, 1,024–1,048,576; 400
    /// above (R2.3-400c).
    pub head: usize,
    /// Fields of a head, 1–10,000; 400 above.
    pub fields: usize,
    /// Bytes of a target, 256–1,048,576; 414 above, tested before the head (C16).
    pub uri: usize,
    /// Bytes of a body, its framing left out; `u64::MAX` = no limit; 413 above (R6.4-2, C15).
    pub body: u64,
}

impl Limits {
    pub(super) fn of(listener: &model::Listener) -> Limits {
        Limits {
            head: listener.max_header_bytes as usize,
            fields: listener.max_headers as usize,
            uri: listener.max_uri_bytes as usize,
            body: match listener.max_body_bytes {
                0 => u64::MAX,
                bytes => bytes,
            },
        }
    }
}

impl Default for Limits {
    /// Those of a listener that says nothing about them.
    fn default() -> Self {
        Limits::of(&model::Listener::default())
    }
}
