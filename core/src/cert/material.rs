//! What was read, ready for use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::TicketFile;
use crate::model::Id;

/// A server certificate with its key. Equal to another one that shows clients the same.
#[derive(Clone)]
pub struct Identity {
    /// Whose it is.
    pub id: Id,
    /// The user's name for it.
    pub name: String,
    /// Chain, key and OCSP response.
    pub certified: Arc<CertifiedKey>,
    /// Names that it serves, normalised; the first label may be `*`.
    pub names: Vec<String>,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Until when the OCSP response holds, in seconds since 1970; `None` = there is none, or it
    /// does not say.
    pub ocsp_until: Option<i64>,
    /// SHA-256 of the chain and the OCSP response.
    pub digest: [u8; 32],
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        (self.id, self.digest) == (other.id, other.digest)
            && (&self.name, &self.names) == (&other.name, &other.names)
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    /// Says which one it is; never the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {:?}", self.name, self.serial, self.names)
    }
}

/// The certificates of a CA bundle.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Whose bundle it is.
    pub id: Id,
    /// The user's name for it.
    pub name: String,
    /// The certificates, in file order; never empty.
    pub roots: Vec<CertificateDer<'static>>,
    /// Until when the first of them to end is valid, in seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of all of them.
    pub digest: [u8; 32],
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.digest;
        write!(formatter, "{} {a:02x}{b:02x}{c:02x}{d:02x}", self.name)
    }
}

/// What one `[[certificate]]` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// To be shown.
    Server(Arc<Identity>),
    /// To be trusted.
    Client(Arc<Authorities>),
}

impl Material {
    /// Until when it is valid, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        match self {
            Material::Server(identity) => identity.not_after,
            Material::Client(authorities) => authorities.not_after,
        }
    }
}

/// What the files hold that a configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// Of all certificates, by their index there. `None` where a configuration that did not come
    /// from a file names one.
    pub certificates: Vec<Option<Material>>,
    /// The host's own bundle, if a pool asks for it.
    pub system: Option<Arc<Authorities>>,
    /// Session ticket keys, by their file.
    pub tickets: BTreeMap<PathBuf, Arc<TicketFile>>,
    /// Session ticket keys of the process whose place this one takes, packed, by their context.
    pub handed_on: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Store {
    /// A server certificate.
    #[must_use]
    pub fn identity(&self, index: usize) -> Option<&Arc<Identity>> {
        match self.certificates.get(index)?.as_ref()? {
            Material::Server(identity) => Some(identity),
            Material::Client(_) => None,
        }
    }

    /// A CA bundle.
    #[must_use]
    pub fn authorities(&self, index: usize) -> Option<&Arc<Authorities>> {
        match self.certificates.get(index)?.as_ref()? {
            Material::Client(authorities) => Some(authorities),
            Material::Server(_) => None,
        }
    }
}
