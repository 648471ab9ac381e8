//! What goes wrong on a connection after its handshake, and what the peer is told of it.

use std::io;

/// A description byte of an alert (RFC 8446, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alert(pub(super) u8);

impl Alert {
    pub(super) const CLOSE_NOTIFY: Alert = Alert(0);
    pub(super) const UNEXPECTED_MESSAGE: Alert = Alert(10);
    pub(super) const BAD_RECORD_MAC: Alert = Alert(20);
    pub(super) const RECORD_OVERFLOW: Alert = Alert(22);
    pub(super) const DECODE_ERROR: Alert = Alert(50);
    pub(super) const PROTOCOL_VERSION: Alert = Alert(70);
    pub(super) const INTERNAL_ERROR: Alert = Alert(80);
    pub(super) const USER_CANCELED: Alert = Alert(90);
    pub(super) const NO_RENEGOTIATION: Alert = Alert(100);

    /// The bytes of it: warnings are those that end nothing by themselves.
    pub(super) fn bytes(self) -> [u8; 2] {
        let warning = matches!(self, Alert::CLOSE_NOTIFY | Alert::NO_RENEGOTIATION);
        [if warning { 1 } else { 2 }, self.0]
    }
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What the peer is told; `None` when it told us.
    pub(super) alert: Option<Alert>,
    kind: io::ErrorKind,
    why: &'static str,
}

impl Trouble {
    /// The peer broke the rules.
    pub(super) const fn fatal(alert: Alert, why: &'static str) -> Trouble {
        Trouble { alert: Some(alert), kind: io::ErrorKind::InvalidData, why }
    }

    /// Something of ours failed.
    pub(super) const fn internal(why: &'static str) -> Trouble {
        Trouble { alert: Some(Alert::INTERNAL_ERROR), kind: io::ErrorKind::Other, why }
    }

    /// The peer ended the connection by an alert, or without saying so.
    pub(super) const fn told(kind: io::ErrorKind, why: &'static str) -> Trouble {
        Trouble { alert: None, kind, why }
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> io::Error {
        io::Error::new(trouble.kind, trouble.why)
    }
}
