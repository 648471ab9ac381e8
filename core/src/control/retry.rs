//! A listener's retry settings, as the data path needs them.

use crate::model;

/// How often, and what, may be tried at another member (R6.7-11, R6.7-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts of one request, the first included: 1–10; 1 = members are never tried in turn
    /// (`enable_member_retry = false`).
    pub attempts: u8,
    /// Requests that may have had an effect are sent again, too (C14).
    pub non_idempotent: bool,
}

impl Retry {
    pub(super) fn of(listener: &model::Listener) -> Retry {
        let attempts = if listener.enable_member_retry { listener.max_attempts } else { 1 };
        Retry { attempts, non_idempotent: listener.retry_non_idempotent }
    }
}

impl Default for Retry {
    /// Nothing is tried twice.
    fn default() -> Self {
        Retry { attempts: 1, non_idempotent: false }
    }
}
