//! What a certificate says, and whether a file's certificates make a chain (R12.3-5).

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::der;
use super::pem::Wrong;

/// Characters of a certificate's subject in a message.
const SHOWN: usize = 80;

/// What one certificate says.
#[derive(Debug)]
pub(super) struct Facts {
    /// Raw, to be compared.
    pub subject: Vec<u8>,
    /// Raw, to be compared.
    pub issuer: Vec<u8>,
    /// The subject for people: bounded, without control characters.
    pub shown: String,
    /// The same of the issuer.
    pub issuer_shown: String,
    /// SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// In hexadecimal.
    pub serial: String,
    /// The DNS names of its SAN extension; `None` = it has no such extension.
    pub alternative: Option<Vec<String>>,
    pub common_name: Option<String>,
    /// May it sign OCSP responses for its issuer?
    pub for_ocsp: bool,
    /// May it be used by servers? `None` = it doesn't say.
    pub for_servers: Option<bool>,
    /// Says where its issuer's certificate can be had: it comes from a public CA.
    pub names_issuer: bool,
}

/// `None` for what is no certificate.
pub(super) fn facts(der: &[u8]) -> Option<Facts> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let alternative = parsed.subject_alternative_name().ok()?;
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    let usage = parsed.extended_key_usage().ok()?;
    let access =
        parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => Some(access),
            _ => None,
        });
    let common_name = parsed.subject().iter_common_name().last();
    Some(Facts {
        subject: parsed.subject().as_raw().to_owned(),
        issuer: parsed.issuer().as_raw().to_owned(),
        shown: shown(&parsed.subject().to_string()),
        issuer_shown: shown(&parsed.issuer().to_string()),
        spki: parsed.public_key().raw.to_owned(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        serial: der::hex(parsed.raw_serial()),
        alternative: alternative
            .map(|san| san.value.general_names.iter().filter_map(dns).collect()),
        common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
        for_ocsp: usage.as_ref().is_some_and(|usage| usage.value.ocsp_signing),
        for_servers: usage.map(|usage| usage.value.server_auth || usage.value.any),
        names_issuer: access.is_some_and(|access| {
            let mut listed = access.accessdescs.iter();
            listed.any(|one| one.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS)
        }),
    })
}

fn shown(name: &str) -> String {
    let plain = name.chars().filter(|c| !c.is_control());
    match name.chars().count() > SHOWN {
        true => plain.take(SHOWN).chain(['…']).collect(),
        false => plain.collect(),
    }
}

impl Facts {
    /// Did it issue itself?
    pub(super) fn is_root(&self) -> bool {
        self.subject == self.issuer
    }
}

/// Does this key check the signature? `None` for kinds that nobody uses any more.
pub(super) fn is_signed(signed: &der::Signed<'_>, spki: &[u8]) -> Option<bool> {
    let (kind, key) = der::public_key(spki)?;
    let mut tried = None;
    for algorithm in default_provider().signature_verification_algorithms.all {
        let fits = algorithm.public_key_alg_id().as_ref() == kind
            && algorithm.signature_alg_id().as_ref() == signed.algorithm;
        if fits {
            let checked = algorithm.verify_signature(key, signed.body, signed.signature);
            tried = Some(tried == Some(true) || checked.is_ok());
        }
    }
    tried
}

/// One certificate of a file.
pub(super) struct Link<'a> {
    pub der: &'a CertificateDer<'static>,
    pub facts: Facts,
}

impl Link<'_> {
    /// Was it issued by `parent`? A signature of a kind that is not known is believed.
    fn is_issued_by(&self, parent: &Link<'_>) -> bool {
        self.facts.issuer == parent.facts.subject && self.is_signed_by(parent)
    }

    fn is_signed_by(&self, parent: &Link<'_>) -> bool {
        let signed = der::signed(self.der);
        signed.and_then(|signed| is_signed(&signed, &parent.facts.spki)).unwrap_or(true)
    }
}

/// Each certificate must be issued by the one right behind it; the first one is taken to be the
/// leaf.
pub(super) fn check_order(links: &[Link<'_>]) -> Result<(), Wrong> {
    for (at, (child, parent)) in links.iter().zip(links.iter().skip(1)).enumerate() {
        if !(child.facts.is_root() && child.der != parent.der) && child.is_issued_by(parent) {
            continue;
        }
        let (one, next) = (at + 1, at + 2);
        let (child_name, parent_name) = (&child.facts.shown, &parent.facts.shown);
        if child.der == parent.der {
            let what = format!("has the same certificate twice: numbers {one} and {next}");
            return Err((what, "take one of them out"));
        }
        if child.facts.is_root() {
            let what = format!(
                "goes on behind a root: certificate {one}, \"{child_name}\", issued itself, and \
                 number {next}, \"{parent_name}\", does not belong to the chain"
            );
            return Err((what, "end the chain there; leaf first, each signed by the next"));
        }
        let issuer = links.iter().enumerate().find(|(other, link)| {
            *other != at && !std::ptr::eq(*link, parent) && child.is_issued_by(link)
        });
        if let Some((other, issuer)) = issuer {
            let what = format!(
                "is in the wrong order: certificate {one}, \"{child_name}\", was issued by number \
                 {}, \"{}\", not by number {next}, \"{parent_name}\"",
                other + 1,
                issuer.facts.shown
            );
            return Err((what, "put the leaf first, and behind each its issuer"));
        }
        if child.facts.issuer == parent.facts.subject {
            let what = format!(
                "does not hold together: certificate {next}, \"{parent_name}\", has the name of \
                 the issuer of number {one}, \"{child_name}\", but another key signed that"
            );
            return Err((what, "get the issuer's certificate that belongs to this one"));
        }
        let what = format!(
            "lacks a certificate: number {one}, \"{child_name}\", was issued by \"{}\", and number \
             {next} is \"{parent_name}\"",
            child.facts.issuer_shown
        );
        return Err((what, "put the missing intermediate between them"));
    }
    Ok(())
}
