//! Chooses the certificate of a handshake, and notes which one it was.

use std::cell::Cell;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert::{Identity, Index};
use crate::model::{Id, SniMatch};

thread_local! {
    /// rustls doesn't tell which certificate a connection got; it asks on the thread, and within
    /// the call, that handles the client's first message.
    static CHOSEN: Cell<Option<Id>> = const { Cell::new(None) };
}

/// The certificate that was chosen on this thread since the last call.
pub fn take_chosen() -> Option<Id> {
    CHOSEN.take()
}

/// The certificates of a listener.
#[derive(Debug)]
pub struct Resolver {
    identities: Vec<Arc<Identity>>,
    index: Index,
    /// Places of what is shown for names that nothing else serves.
    default: Vec<usize>,
    suites: Vec<SupportedCipherSuite>,
}

impl Resolver {
    /// The first certificate is the default one. `suites` are those that the listener takes.
    pub fn new(
        identities: &[Arc<Identity>],
        mode: SniMatch,
        suites: Vec<SupportedCipherSuite>,
    ) -> Resolver {
        let first = identities.first();
        let twin = |other: &Arc<Identity>| first.is_some_and(|first| first.names == other.names);
        let places = identities.iter().enumerate();
        Resolver {
            index: Index::new(identities.iter().map(|one| &one.names), mode),
            // Those for the same names with a key of another kind serve as the default, too.
            default: places.filter(|(_, one)| twin(one)).map(|(place, _)| place).collect(),
            identities: identities.to_vec(),
            suites,
        }
    }

    fn choose(&self, hello: &ClientHello<'_>) -> Option<&Arc<Identity>> {
        let found = self.index.find(hello.server_name().unwrap_or_default());
        let places = if found.is_empty() { &self.default } else { found };
        let mut candidates = places.iter().filter_map(|place| self.identities.get(*place));
        let first = candidates.next()?;
        if places.len() == 1 || self.can_use(hello, first) {
            return Some(first);
        }
        // With none that the client can use, rustls finds the reason and sends its alert.
        Some(candidates.find(|other| self.can_use(hello, other)).unwrap_or(first))
    }

    /// Can the client check signatures of this key, in a suite that both sides take?
    fn can_use(&self, hello: &ClientHello<'_>, identity: &Identity) -> bool {
        let key = &identity.certified.key;
        let common = |suite: &SupportedCipherSuite| {
            suite.usable_for_signature_algorithm(key.algorithm())
                && hello.cipher_suites().contains(&suite.suite())
        };
        self.suites.iter().any(common) && key.choose_scheme(hello.signature_schemes()).is_some()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(&hello)?;
        CHOSEN.set(Some(chosen.id));
        Some(Arc::clone(&chosen.certified))
    }
}
