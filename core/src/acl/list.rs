//! A listener's white or black list, and the reasons for which a connection is refused.

use std::net::IpAddr;
use std::sync::Arc;

use super::PrefixSet;
use crate::model::AccessKind;

/// Access control of a listener (R7.13-1): who is in the set is let in, or kept out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// White or black.
    pub kind: AccessKind,
    /// The addresses of all its groups.
    pub set: Arc<PrefixSet>,
}

impl List {
    /// May this client connect?
    #[inline]
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.set.contains(client) == (self.kind == AccessKind::White)
    }
}

/// Why a connection is closed before anything else happens on it. By RST, without an answer (C19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The access control list keeps the client out.
    AclDenied,
    /// The listener has as many open connections as it may.
    Connections,
    /// The listener has had as many new connections as it may in this second.
    Rate,
    /// The client's address has as many open connections as it may.
    Source,
    /// The process has as many open connections as it may.
    Process,
    /// The peer is none of those whose PROXY header is believed.
    ProxyUntrusted,
    /// No PROXY header, or a malformed one, where one is due.
    ProxyHeader,
    /// The PROXY header did not come in time.
    ProxyTimeout,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them, in the order of their numbers.
    pub const ALL: [Refusal; Refusal::COUNT] = [
        Refusal::AclDenied,
        Refusal::Connections,
        Refusal::Rate,
        Refusal::Source,
        Refusal::Process,
        Refusal::ProxyUntrusted,
        Refusal::ProxyHeader,
        Refusal::ProxyTimeout,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::AclDenied => "acl_denied",
            Refusal::Connections => "connection_limit",
            Refusal::Rate => "cps_limit",
            Refusal::Source => "source_limit",
            Refusal::Process => "process_limit",
            Refusal::ProxyUntrusted => "proxy_untrusted",
            Refusal::ProxyHeader => "proxy_header",
            Refusal::ProxyTimeout => "proxy_timeout",
        }
    }

    /// Its number, below [`Refusal::COUNT`].
    #[must_use]
    pub fn number(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_and_black() {
        let set = Arc::new(PrefixSet::new(["10.0.0.0/8".parse().unwrap()]));
        let white = List { kind: AccessKind::White, set: Arc::clone(&set) };
        let black = List { kind: AccessKind::Black, set };
        let (inside, outside) = ("10.1.1.1".parse().unwrap(), "11.1.1.1".parse().unwrap());
        assert!(white.allows(inside) && !white.allows(outside));
        assert!(!black.allows(inside) && black.allows(outside));
        // A white list without addresses lets nobody in, a black one everybody.
        let none = Arc::<PrefixSet>::default();
        assert!(!List { kind: AccessKind::White, set: Arc::clone(&none) }.allows(inside));
        assert!(List { kind: AccessKind::Black, set: none }.allows(inside));
    }

    #[test]
    fn numbers_are_places() {
        for (at, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.number(), at);
        }
    }
}
