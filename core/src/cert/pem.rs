//! PEM text taken apart: certificates, a key, and why something is neither.

use rustls::pki_types::pem::{Error, PemObject, SectionKind};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

/// What is wrong, and how to mend it.
pub(super) type Wrong = (String, &'static str);

const SAVE_AS_PEM: &str = "give PEM text: -----BEGIN …, base64 lines, -----END …";
const FROM_DER: &str = "turn it into PEM: openssl x509 -inform der -in FILE -out FILE.pem";
const DECRYPT: &str = "take the passphrase off: openssl pkey -in FILE -out NEW, and keep the new \
    file to this user alone";

/// All certificates, in order; at most `most`.
pub(super) fn certificates(
    bytes: &[u8],
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|error| broken(&error))?;
        if kind != SectionKind::Certificate {
            continue; // a key may stand in the same file
        }
        if found.len() == most {
            let cure = "keep those that clients need: the leaf and its intermediates";
            return Err((format!("has more than {most} certificates"), cure));
        }
        found.push(CertificateDer::from(der));
    }
    if found.is_empty() {
        return Err(match bytes {
            [0x30, ..] => ("holds no PEM text; it looks like DER".to_owned(), FROM_DER),
            _ if contains(bytes, "BEGIN TRUSTED CERTIFICATE") => {
                let cure = "write a plain one: openssl x509 -in FILE -out NEW";
                ("holds OpenSSL's TRUSTED CERTIFICATE".to_owned(), cure)
            }
            _ => ("holds no certificate".to_owned(), SAVE_AS_PEM),
        });
    }
    Ok(found)
}

/// The one private key.
pub(super) fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Wrong> {
    let encrypted = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| contains(bytes, mark)) {
        return Err(("is encrypted by a passphrase, which nobody would type".to_owned(), DECRYPT));
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|error| broken(&error))?;
        found.extend(match kind {
            SectionKind::PrivateKey => Some(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der))),
            SectionKind::RsaPrivateKey => Some(PrivatePkcs1KeyDer::from(der).into()),
            SectionKind::EcPrivateKey => Some(PrivateSec1KeyDer::from(der).into()),
            _ => None,
        });
    }
    let many = found.len() > 1;
    match found.pop() {
        Some(_) if many => {
            Err(("holds several private keys".to_owned(), "keep the one of this certificate"))
        }
        Some(key) => Ok(key),
        None if bytes.first() == Some(&0x30) => {
            let cure = "turn it into PEM: openssl pkey -inform der -in FILE -out NEW";
            Err(("holds no PEM text; it looks like DER".to_owned(), cure))
        }
        None => Err(("holds no private key".to_owned(), SAVE_AS_PEM)),
    }
}

/// Never quotes the text: it may be a key.
fn broken(error: &Error) -> Wrong {
    let what = match error {
        Error::MissingSectionEnd { .. } => "ends inside its PEM text",
        Error::IllegalSectionStart { .. } => "has a -----BEGIN line that is cut",
        Error::Base64Decode(_) => "has PEM text that is no base64",
        _ => "is no PEM text",
    };
    (what.to_owned(), SAVE_AS_PEM)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
