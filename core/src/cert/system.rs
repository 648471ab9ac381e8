//! The CA bundle of this host, for whoever trusts what the host trusts.

use std::path::Path;

use super::material::Authorities;
use super::read::digest;
use super::{file, pem};
use crate::limits::MAX_BUNDLE;
use crate::model::Id;

/// Where Linux distributions keep it; the first that is there counts.
const PLACES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads the host's bundle.
///
/// # Errors
/// Where it was looked for, or what is wrong with it.
pub fn system() -> Result<Authorities, String> {
    let found = PLACES.iter().find(|place| Path::new(place).exists());
    let place = found.ok_or_else(|| format!("no CA bundle at {}", PLACES.join(", ")))?;
    let text = file::read(Path::new(place)).map_err(|what| format!("{place} {what}"))?;
    let roots = pem::certificates(&text.bytes, MAX_BUNDLE);
    let roots = roots.map_err(|(what, _)| format!("{place} {what}"))?;
    Ok(Authorities {
        id: Id::nil(),
        name: "the system's".to_owned(),
        digest: digest(&roots, None),
        not_after: i64::MAX,
        roots,
    })
}
