//! What a listener does with the headers that tell members who asks, and whom it believes.

use std::sync::Arc;

use super::access::Sets;
use crate::acl::PrefixSet;
use crate::model::{self, Config, InsertHeader};

/// A header that requests can be given (`insert_headers`). A client's own copy is never passed on
/// beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// X-Forwarded-ELB-IP: the balancer's address that the client connected to.
    ElbIp,
    /// X-Forwarded-ELB-ID: the balancer's id.
    ElbId,
    /// X-Forwarded-Port: the listener's port.
    Port,
    /// X-Forwarded-For-Port: the client's port.
    ClientPort,
    /// X-Forwarded-Host: Host as the client sent it.
    Host,
    /// X-Forwarded-Proto: what the client spoke, `http` or `https`.
    Proto,
    /// X-Real-IP: the client's address.
    RealIp,
    /// X-Request-ID: the request's id.
    RequestId,
    /// X-Forwarded-TLS-Certificate-ID: id of the certificate that the client was shown.
    CertificateId,
    /// X-Forwarded-TLS-Protocol: `TLSv1.2` or `TLSv1.3`.
    TlsProtocol,
    /// X-Forwarded-TLS-Cipher: the cipher suite.
    TlsCipher,
    /// X-Forwarded-Clientcert: the client's certificate.
    ClientCertificate,
    /// X-Forwarded-Clientcert-Subject: whose it is.
    ClientSubject,
    /// X-Forwarded-Clientcert-Issuer: who issued it.
    ClientIssuer,
    /// X-Forwarded-Clientcert-Serial: its serial number.
    ClientSerial,
    /// X-Forwarded-Clientcert-Fingerprint: its digest.
    ClientFingerprint,
    /// X-Forwarded-Clientcert-Verify: `SUCCESS`, or `NONE` where none was shown.
    ClientVerify,
    /// X-Forwarded-Clientcert-End: until when it is valid.
    ClientEnd,
}

impl Inserted {
    /// All of them, in the order in which they are written.
    pub const ALL: [Inserted; 18] = [
        Inserted::ElbIp,
        Inserted::ElbId,
        Inserted::Port,
        Inserted::ClientPort,
        Inserted::Host,
        Inserted::Proto,
        Inserted::RealIp,
        Inserted::RequestId,
        Inserted::CertificateId,
        Inserted::TlsProtocol,
        Inserted::TlsCipher,
        Inserted::ClientCertificate,
        Inserted::ClientSubject,
        Inserted::ClientIssuer,
        Inserted::ClientSerial,
        Inserted::ClientFingerprint,
        Inserted::ClientVerify,
        Inserted::ClientEnd,
    ];

    /// Its name, in the spelling that is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Inserted::ElbIp => "X-Forwarded-ELB-IP",
            Inserted::ElbId => "X-Forwarded-ELB-ID",
            Inserted::Port => "X-Forwarded-Port",
            Inserted::ClientPort => "X-Forwarded-For-Port",
            Inserted::Host => "X-Forwarded-Host",
            Inserted::Proto => "X-Forwarded-Proto",
            Inserted::RealIp => "X-Real-IP",
            Inserted::RequestId => "X-Request-ID",
            Inserted::CertificateId => "X-Forwarded-TLS-Certificate-ID",
            Inserted::TlsProtocol => "X-Forwarded-TLS-Protocol",
            Inserted::TlsCipher => "X-Forwarded-TLS-Cipher",
            Inserted::ClientCertificate => "X-Forwarded-Clientcert",
            Inserted::ClientSubject => "X-Forwarded-Clientcert-Subject",
            Inserted::ClientIssuer => "X-Forwarded-Clientcert-Issuer",
            Inserted::ClientSerial => "X-Forwarded-Clientcert-Serial",
            Inserted::ClientFingerprint => "X-Forwarded-Clientcert-Fingerprint",
            Inserted::ClientVerify => "X-Forwarded-Clientcert-Verify",
            Inserted::ClientEnd => "X-Forwarded-Clientcert-End",
        }
    }

    /// Does TLS alone give it a value?
    #[must_use]
    pub fn is_of_tls(self) -> bool {
        InsertSet::OF_TLS.has(self)
    }
}

/// Some of the headers that can be inserted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsertSet(u32);

impl InsertSet {
    /// Is this one inserted?
    #[inline]
    #[must_use]
    pub fn has(self, header: Inserted) -> bool {
        self.0 >> header as u32 & 1 == 1
    }

    /// Is none inserted?
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The same, and this one.
    #[must_use]
    pub fn with(self, header: Inserted) -> InsertSet {
        InsertSet(self.0 | 1 << header as u32)
    }

    /// What TLS alone gives a value.
    const OF_TLS: InsertSet = InsertSet(u32::MAX << Inserted::CertificateId as u32);

    /// Is a client's own copy of this header left out? Of those that come from TLS all are as soon
    /// as one is inserted: a member that believes one believes the others.
    #[inline]
    #[must_use]
    pub fn drops(self, header: Inserted) -> bool {
        self.has(header) || (header.is_of_tls() && self.0 & Self::OF_TLS.0 != 0)
    }
}

/// What becomes of X-Forwarded-For (R9.1-3, R9.1-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedFor {
    /// The peer's address goes behind what came.
    #[default]
    Append,
    /// The peer's address alone.
    Replace,
    /// No such header.
    Remove,
    /// As it came; none when none came.
    Preserve,
}

/// The headers of a listener's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// X-Forwarded-For.
    pub forwarded_for: ForwardedFor,
    /// The others.
    pub insert: InsertSet,
    /// The balancer's id, as text.
    pub balancer: String,
    /// Clients speak TLS.
    pub tls: bool,
    /// Peers whose X-Forwarded-For and X-Request-ID are believed; `None` = nobody's.
    pub trusted: Option<Arc<PrefixSet>>,
}

impl Headers {
    pub(super) fn of(listener: &model::Listener, config: &Config, sets: &Sets) -> Headers {
        let balancer = config.balancers.get(listener.balancer);
        let mut headers = Headers {
            balancer: balancer.map(|balancer| balancer.id.to_string()).unwrap_or_default(),
            tls: listener.protocol == model::Protocol::Https,
            ..Headers::default()
        };
        if !listener.trusted_proxies.is_empty() {
            headers.trusted = Some(sets.make(listener.trusted_proxies.iter().copied()));
        }
        for (name, what) in &listener.insert_headers {
            match what {
                InsertHeader::Append => headers.forwarded_for = ForwardedFor::Append,
                InsertHeader::Replace => headers.forwarded_for = ForwardedFor::Replace,
                InsertHeader::Remove => headers.forwarded_for = ForwardedFor::Remove,
                InsertHeader::Preserve => headers.forwarded_for = ForwardedFor::Preserve,
                InsertHeader::Set(false) => {}
                InsertHeader::Set(true) => {
                    let header = Inserted::ALL.into_iter().find(|header| header.name() == name);
                    headers.insert = header.map_or(headers.insert, |h| headers.insert.with(h));
                }
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_and_modes() {
        let set = |name: &str, on| (name.to_owned(), InsertHeader::Set(on));
        let listener = model::Listener {
            insert_headers: vec![
                ("X-Forwarded-For-Processing-Mode".to_owned(), InsertHeader::Preserve),
                set("X-Real-IP", true),
                set("X-Forwarded-Port", false),
                set("X-Request-ID", true),
            ],
            ..model::Listener::default()
        };
        let headers = Headers::of(&listener, &Config::default(), &Sets::default());
        assert_eq!(headers.forwarded_for, ForwardedFor::Preserve);
        let on: Vec<_> = Inserted::ALL.into_iter().filter(|h| headers.insert.has(*h)).collect();
        assert_eq!(on, [Inserted::RealIp, Inserted::RequestId]);
        assert!(headers.trusted.is_none() && InsertSet::default().is_empty());
    }
}
