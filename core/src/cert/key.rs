//! A private key, ready to sign.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use super::pem::Wrong;

/// The key, if it is of a kind that TLS servers use.
pub(super) fn signing(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, Wrong> {
    any_supported_type(key).map_err(|_| {
        let what = "is no key that can be used, or is damaged";
        let cure = "make one of RSA with 2048 to 8192 bits, of ECDSA over P-256, P-384 or P-521, \
            or of Ed25519";
        (what.to_owned(), cure)
    })
}
