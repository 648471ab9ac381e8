//! Why handshakes fail: what is counted, and what logs say.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a handshake failed. The order is that of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Plain HTTP was sent to an HTTPS port.
    PlainHttp,
    /// What came is no TLS, or breaks its rules.
    Malformed,
    /// A message, or what waits for one, is larger than anybody needs.
    Oversize,
    /// No version in common.
    Version,
    /// No cipher suite, group or signature scheme in common.
    Cipher,
    /// No application protocol in common.
    Protocol,
    /// The peer has to show a certificate and didn't.
    CertificateMissing,
    /// The peer's certificate has expired, or isn't valid yet.
    CertificateExpired,
    /// The peer's certificate is of nobody that is trusted.
    CertificateUnknown,
    /// The peer's certificate is for other names.
    CertificateName,
    /// The peer's certificate doesn't hold for another reason.
    CertificateInvalid,
    /// The peer wants a certificate and was shown none.
    CertificateWanted,
    /// The peer refused by an alert.
    Refused,
    /// The peer closed or reset within the handshake.
    Closed,
    /// The peer closed without a byte.
    Silent,
    /// tls_handshake_timeout was over.
    Timeout,
    /// Something of ours failed.
    Internal,
}

impl Failure {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Failure; 17] = [
        Failure::PlainHttp,
        Failure::Malformed,
        Failure::Oversize,
        Failure::Version,
        Failure::Cipher,
        Failure::Protocol,
        Failure::CertificateMissing,
        Failure::CertificateExpired,
        Failure::CertificateUnknown,
        Failure::CertificateName,
        Failure::CertificateInvalid,
        Failure::CertificateWanted,
        Failure::Refused,
        Failure::Closed,
        Failure::Silent,
        Failure::Timeout,
        Failure::Internal,
    ];

    /// Its number, from 0.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Has the peer sent what nobody can make sense of?
    pub(super) const fn is_the_peers(self) -> bool {
        matches!(self, Failure::Malformed | Failure::Oversize)
    }

    /// The word in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Failure::PlainHttp => "plain_http",
            Failure::Malformed => "malformed",
            Failure::Oversize => "oversize",
            Failure::Version => "version",
            Failure::Cipher => "cipher",
            Failure::Protocol => "protocol",
            Failure::CertificateMissing => "certificate_missing",
            Failure::CertificateExpired => "certificate_expired",
            Failure::CertificateUnknown => "certificate_unknown",
            Failure::CertificateName => "certificate_name",
            Failure::CertificateInvalid => "certificate_invalid",
            Failure::CertificateWanted => "certificate_wanted",
            Failure::Refused => "refused",
            Failure::Closed => "closed",
            Failure::Silent => "silent",
            Failure::Timeout => "timeout",
            Failure::Internal => "internal",
        }
    }

    /// What logs say; a fixed text, free of the peer's bytes.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Failure::PlainHttp => "plain HTTP came in place of TLS",
            Failure::Malformed => "TLS handshake: malformed",
            Failure::Oversize => "TLS handshake: too large",
            Failure::Version => "TLS handshake: no version in common",
            Failure::Cipher => "TLS handshake: no cipher in common",
            Failure::Protocol => "TLS handshake: no application protocol in common",
            Failure::CertificateMissing => "TLS handshake: no certificate was shown",
            Failure::CertificateExpired => "TLS handshake: certificate expired or not yet valid",
            Failure::CertificateUnknown => "TLS handshake: certificate of an unknown issuer",
            Failure::CertificateName => "TLS handshake: certificate for another name",
            Failure::CertificateInvalid => "TLS handshake: certificate does not hold",
            Failure::CertificateWanted => "TLS handshake: the peer wants a certificate",
            Failure::Refused => "TLS handshake: the peer refused by an alert",
            Failure::Closed => "TLS handshake: the peer closed the connection",
            Failure::Silent => "TLS handshake: the peer closed without a byte",
            Failure::Timeout => "TLS handshake: took too long",
            Failure::Internal => "TLS handshake: internal error",
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        match error {
            Error::PeerIncompatible(what) => incompatible(what),
            Error::NoCertificatesPresented => Failure::CertificateMissing,
            Error::InvalidCertificate(why) => match why {
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Failure::CertificateExpired,
                CertificateError::UnknownIssuer => Failure::CertificateUnknown,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Failure::CertificateName,
                _ => Failure::CertificateInvalid,
            },
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                Failure::CertificateWanted
            }
            Error::AlertReceived(AlertDescription::ProtocolVersion) => Failure::Version,
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Failure::Protocol,
            Error::AlertReceived(_) => Failure::Refused,
            Error::NoApplicationProtocol => Failure::Protocol,
            Error::General(_)
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::EncryptError
            | Error::HandshakeNotComplete
            | Error::Other(_) => Failure::Internal,
            Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => Failure::Oversize,
            _ => Failure::Malformed,
        }
    }
}

fn incompatible(what: &PeerIncompatible) -> Failure {
    match what {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired => Failure::Version,
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoEcPointFormatsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::KeyShareExtensionRequired => Failure::Cipher,
        _ => Failure::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_list() {
        assert!(Failure::ALL.iter().enumerate().all(|(at, failure)| failure.number() == at));
    }
}
