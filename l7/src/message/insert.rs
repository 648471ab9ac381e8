//! Pure: the headers that tell a member who asks, written behind those of the client, whose own
//! copies of them are left out (R9.1-2 to R9.1-4).

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use weir_core::acl::PrefixSet;
use weir_core::cert::PeerCertificate;
use weir_core::control::{ForwardedFor, Headers, Inserted};
use weir_core::tls::Facts;

use super::Key;
use super::address::{AddressText, parse_hop};
use super::fields::Kind;
use super::request::{Request, append_field};
use super::write::append_decimal;
use crate::identity::{Identity, RequestId};
use crate::limits::MAX_HOPS;

/// What a request is given on its way to a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Via<'a> {
    /// The peer's address, for X-Forwarded-For.
    pub(crate) peer: &'a [u8],
    /// Host for a request that came without one (HTTP/1.0): the member's address.
    pub(crate) member: &'a [u8],
    /// The protocol that the client may switch to.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// The key of WebSocket that goes with it, in place of one of the client's.
    pub(crate) key: Option<Key>,
    /// What the listener wants.
    pub(crate) headers: &'a Headers,
    /// For headers to be inserted; `None` = there are none.
    pub(crate) sides: Option<Sides<'a>>,
}

/// Both ends of the client's connection, and the request's identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sides<'a> {
    /// The client's port.
    pub(crate) port: u16,
    /// Our own address, if it is still known.
    pub(crate) local: Option<SocketAddr>,
    /// Client and id.
    pub(crate) identity: &'a Identity,
    /// What the client's handshake came to, if it speaks TLS.
    pub(crate) tls: Option<&'a Facts>,
}

impl Request<'_> {
    /// The client's address: the peer's, and while that is a trusted proxy, the one before it as
    /// X-Forwarded-For says, from the right. What can't be read ends the way; the chain of a
    /// trusted proxy is never followed beyond the first address that isn't one.
    pub(crate) fn client(&self, peer: IpAddr, trusted: &PrefixSet) -> IpAddr {
        let mut client = peer;
        for hop in self.hops().take(MAX_HOPS) {
            if !trusted.contains(client) {
                break;
            }
            let Some(before) = parse_hop(hop) else { break };
            client = before;
        }
        client
    }

    /// The elements of all X-Forwarded-For fields, the last one first.
    fn hops(&self) -> impl Iterator<Item = &[u8]> {
        let fields = self.fields.iter().rev().filter(|field| field.kind == Kind::ForwardedFor);
        let parts = fields.flat_map(|field| field.value.get(self.raw).rsplit(|&b| b == b','));
        parts.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty())
    }

    /// The id that came with the request, if there is exactly one and it can be taken over. To be
    /// asked only where the peer is a trusted proxy.
    pub(crate) fn id(&self) -> Option<RequestId> {
        let name = Inserted::RequestId.name().as_bytes();
        let mut found = (self.fields.iter())
            .filter(|field| field.name.get(self.raw).eq_ignore_ascii_case(name));
        let id = found.next()?;
        found.next().is_none().then(|| RequestId::keep(id.value.get(self.raw)))?
    }

    pub(super) fn write_forwarded_for(&self, out: &mut Vec<u8>, via: &Via<'_>) {
        let (earlier, peer) = match via.headers.forwarded_for {
            ForwardedFor::Append => (self.forwarded_for, via.peer),
            ForwardedFor::Replace => (false, via.peer),
            ForwardedFor::Preserve if self.forwarded_for => (true, &b""[..]),
            ForwardedFor::Preserve | ForwardedFor::Remove => return,
        };
        out.extend_from_slice(b"X-Forwarded-For: ");
        let mut separator: &[u8] = b"";
        if earlier {
            for field in self.fields.iter().filter(|f| f.kind == Kind::ForwardedFor) {
                let value = field.value.get(self.raw);
                if !value.is_empty() {
                    out.extend_from_slice(separator);
                    out.extend_from_slice(value);
                    separator = b", ";
                }
            }
        }
        if !peer.is_empty() {
            out.extend_from_slice(separator);
            out.extend_from_slice(peer);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The headers of the listener's set, in a fixed order; one without a value is left out.
    #[cold]
    pub(super) fn write_inserted(&self, out: &mut Vec<u8>, headers: &Headers, sides: &Sides<'_>) {
        let wanted = Inserted::ALL.into_iter().filter(|header| headers.insert.has(*header));
        for header in wanted {
            let start = out.len();
            out.extend_from_slice(header.name().as_bytes());
            out.extend_from_slice(b": ");
            let value = out.len();
            self.write_value(out, header, headers, sides);
            if out.len() == value {
                out.truncate(start);
            } else {
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn write_value(
        &self,
        out: &mut Vec<u8>,
        header: Inserted,
        headers: &Headers,
        sides: &Sides<'_>,
    ) {
        let Sides { port, local, identity, tls } = sides;
        let address =
            |out: &mut Vec<u8>, ip| out.extend_from_slice(AddressText::new(ip).as_bytes());
        match (header, local) {
            (Inserted::ElbIp, Some(local)) => address(out, local.ip()),
            (Inserted::Port, Some(local)) => append_decimal(out, u64::from(local.port())),
            (Inserted::ElbIp | Inserted::Port, None) => {}
            (Inserted::ElbId, _) => out.extend_from_slice(headers.balancer.as_bytes()),
            (Inserted::ClientPort, _) => append_decimal(out, u64::from(*port)),
            (Inserted::Host, _) => out.extend_from_slice(self.host()),
            (Inserted::Proto, _) => {
                out.extend_from_slice(if headers.tls { b"https" } else { b"http" });
            }
            (Inserted::RealIp, _) => address(out, identity.address),
            (Inserted::RequestId, _) => out.extend_from_slice(identity.id.text().as_bytes()),
            (header, _) => tls.iter().for_each(|facts| write_fact(out, header, facts)),
        }
    }

    /// Host, for HTTP/1.0 requests without one.
    pub(super) fn write_host(&self, out: &mut Vec<u8>, via: &Via<'_>) {
        let host = self.target.authority.map_or(via.member, |span| span.get(self.raw));
        append_field(out, b"Host", host);
    }
}

/// The value of a header that comes from TLS.
fn write_fact(out: &mut Vec<u8>, header: Inserted, facts: &Facts) {
    let shown = facts.peer_certificate();
    let of_shown = |part: fn(&PeerCertificate) -> &str| shown.map(part).unwrap_or_default();
    let value = match header {
        Inserted::CertificateId => {
            // A Vec takes all that is written.
            let _never = facts.certificate.map(|id| write!(out, "{id}"));
            return;
        }
        Inserted::TlsProtocol => facts.protocol(),
        Inserted::TlsCipher => facts.cipher(),
        Inserted::ClientCertificate => of_shown(|shown| &shown.pem),
        Inserted::ClientSubject => of_shown(|shown| &shown.subject),
        Inserted::ClientIssuer => of_shown(|shown| &shown.issuer),
        Inserted::ClientSerial => of_shown(|shown| &shown.serial),
        Inserted::ClientFingerprint => of_shown(|shown| &shown.fingerprint),
        // Whoever shows one that does not hold never gets here.
        Inserted::ClientVerify if shown.is_some() => "SUCCESS",
        Inserted::ClientVerify => "NONE",
        Inserted::ClientEnd => of_shown(|shown| &shown.end),
        _ => "",
    };
    out.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
#[path = "insert_tests.rs"]
mod tests;
