//! What a handshake came to, for protocols, logs and metrics.

use std::cell::OnceCell;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ProtocolVersion};

use crate::cert::PeerCertificate;
use crate::model::Id;

/// What both sides agreed on, and how.
#[derive(Debug)]
pub struct Facts {
    pub(super) version: ProtocolVersion,
    pub(super) suite: CipherSuite,
    /// The application protocol, if one was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Which certificate the client was shown.
    pub certificate: Option<Id>,
    /// An earlier session was resumed.
    pub resumed: bool,
    /// How long the handshake took, from the first byte asked for to the last one needed.
    pub took: Duration,
    /// The certificate that a client has shown.
    pub(super) peer: Option<CertificateDer<'static>>,
    /// The same as text, once somebody has asked.
    pub(super) peer_text: OnceCell<Box<PeerCertificate>>,
}

impl Facts {
    /// What the client's certificate says, if it has shown one; of a resumed session that of the
    /// session's first handshake. Read when it is first asked for.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&PeerCertificate> {
        let read = |der| Box::new(PeerCertificate::read(der));
        self.peer.as_deref().map(|der| &**self.peer_text.get_or_init(|| read(der)))
    }

    /// Is it TLS 1.3? Else it is TLS 1.2.
    #[must_use]
    pub fn is_tls13(&self) -> bool {
        self.version == ProtocolVersion::TLSv1_3
    }

    /// The version as logs have it.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.is_tls13() { "TLSv1.3" } else { "TLSv1.2" }
    }

    /// The cipher suite by the name that OpenSSL, and so the usual logs, have for it.
    #[must_use]
    pub fn cipher(&self) -> &'static str {
        cipher_name(self.suite)
    }
}

/// A cipher suite by OpenSSL's name for it.
pub(super) fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        // rustls has no others.
        _ => "-",
    }
}
