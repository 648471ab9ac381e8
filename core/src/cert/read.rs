//! Reads one `[[certificate]]` from its files and judges it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::chain::{self, Facts, Link};
use super::material::{Authorities, Identity, Material};
use super::ocsp::Status;
use super::pem::Wrong;
use super::{ascii, covers, der, file, key, names, ocsp, pem};
use crate::limits::{EXPIRY_WARNING_DAYS, MAX_BUNDLE, MAX_CHAIN};
use crate::model::{Certificate, CertificateKind, Pem};

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Names that one message lists.
const LISTED: usize = 5;

/// The key of a `[[certificate]]` that something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The chain or bundle.
    Certificate,
    /// The key.
    PrivateKey,
    /// The names to serve.
    Domain,
    /// The response to staple.
    OcspResponse,
}

impl Part {
    /// The key's name.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Part::Certificate => "certificate",
            Part::PrivateKey => "private_key",
            Part::Domain => "domain",
            Part::OcspResponse => "ocsp_response",
        }
    }
}

/// Something to say about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub part: Part,
    /// What is the matter; begins with the file's name.
    pub what: String,
    /// How to mend it.
    pub cure: String,
    /// Requirement row of the rule.
    pub row: &'static str,
}

/// What came of reading one.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// `None` when there are errors.
    pub material: Option<Material>,
    /// Why it can't be used.
    pub errors: Vec<Note>,
    /// What is doubtful about it.
    pub warnings: Vec<Note>,
}

/// Reads the files of a certificate and checks them as of `now`.
#[must_use]
pub fn read(settings: &Certificate, now: SystemTime) -> Reading {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut reader = Reader { settings, now, reading: Reading::default() };
    let material = match settings.kind {
        CertificateKind::Server => reader.identity().map(|one| Material::Server(Arc::new(one))),
        CertificateKind::Client => reader.authorities().map(|one| Material::Client(Arc::new(one))),
    };
    let Reader { mut reading, .. } = reader;
    reading.material = material.filter(|_| reading.errors.is_empty());
    reading
}

struct Reader<'a> {
    settings: &'a Certificate,
    /// Seconds since 1970.
    now: i64,
    reading: Reading,
}

/// A file's name in a message, or what stands for it.
fn subject(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(_) => "the text".to_owned(),
    }
}

impl Reader<'_> {
    fn error(&mut self, part: Part, what: String, cure: &str) {
        let (cure, row) = (cure.to_owned(), "R12.3-5");
        self.reading.errors.push(Note { part, what, cure, row });
    }

    fn warn(&mut self, part: Part, what: String, cure: &str, row: &'static str) {
        self.reading.warnings.push(Note { part, what, cure: cure.to_owned(), row });
    }

    /// Reports what is wrong with a file.
    fn wrong<T>(&mut self, part: Part, pem: &Pem, found: Result<T, Wrong>) -> Option<T> {
        let report = |(what, cure): Wrong| {
            self.error(part, format!("{} {what}", subject(pem)), cure);
        };
        found.map_err(report).ok()
    }

    fn text(&mut self, part: Part, pem: &Pem) -> Option<file::Text> {
        let report = |what| self.error(part, what, "name a file that this user may read");
        file::text(pem).map_err(report).ok()
    }

    fn certificates(&mut self, most: usize) -> Option<Vec<CertificateDer<'static>>> {
        let source = &self.settings.certificate;
        let text = self.text(Part::Certificate, source)?;
        self.wrong(Part::Certificate, source, pem::certificates(&text.bytes, most))
    }

    fn facts(&mut self, list: &[CertificateDer<'static>]) -> Option<Vec<Facts>> {
        let source = &self.settings.certificate;
        let mut all = Vec::with_capacity(list.len());
        for (at, der) in list.iter().enumerate() {
            let facts = chain::facts(der).ok_or_else(|| {
                let what =
                    format!("has no certificate as number {}, only what looks like one", at + 1);
                (what, "write the file anew")
            });
            all.push(self.wrong(Part::Certificate, source, facts)?);
        }
        Some(all)
    }

    fn authorities(&mut self) -> Option<Authorities> {
        let roots = self.certificates(MAX_BUNDLE)?;
        let facts = self.facts(&roots)?;
        self.check_use(&roots, &facts)?;
        for one in &facts {
            let what = format!("{}: \"{}\"", subject(&self.settings.certificate), one.shown);
            self.check_time(one, &what, "what it has issued holds all the same");
        }
        Some(Authorities {
            id: self.settings.id,
            name: self.settings.name.clone(),
            digest: digest(&roots, None),
            not_after: facts.iter().map(|one| one.not_after).min()?,
            roots,
        })
    }

    /// Whoever verifies chains must be able to begin with each of them: what is found only there
    /// would leave a listener without TLS.
    fn check_use(&mut self, roots: &[CertificateDer<'static>], facts: &[Facts]) -> Option<()> {
        let source = &self.settings.certificate;
        for (at, (der, facts)) in roots.iter().zip(facts).enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(der).map(drop).map_err(|error| {
                let (n, name) = (at + 1, &facts.shown);
                let what = format!("has a CA that can't be used: number {n}, \"{name}\": {error}");
                (what, "take it out, or get one that is well-formed")
            });
            self.wrong(Part::Certificate, source, anchor)?;
        }
        Some(())
    }

    fn identity(&mut self) -> Option<Identity> {
        let chain = self.certificates(MAX_CHAIN);
        let key = self.key();
        let (chain, key) = (chain?, key?);
        let facts = self.facts(&chain)?;
        let (leaf, issuer) = self.check_chain(&chain, facts, &*key)?;
        let mut certified = CertifiedKey::new(chain, key);
        let (ocsp, until) = self.ocsp(&leaf, issuer.as_ref()).unzip();
        certified.ocsp = ocsp;
        Some(Identity { ocsp_until: until.flatten(), ..self.finish(leaf, certified) })
    }

    fn key(&mut self) -> Option<Arc<dyn rustls::sign::SigningKey>> {
        let source = self.settings.private_key.as_ref()?;
        let text = self.text(Part::PrivateKey, source)?;
        if text.open_to_others {
            let what = format!("{} can be read by every user of this host", subject(source));
            self.warn(Part::PrivateKey, what, "chmod 600 it, or 640 for a group", "R12.3-5");
        }
        let key = self.wrong(Part::PrivateKey, source, pem::private_key(&text.bytes))?;
        self.wrong(Part::PrivateKey, source, key::signing(&key))
    }

    /// The facts of the leaf and its issuer, if chain and key hold together.
    fn check_chain(
        &mut self,
        chain: &[CertificateDer<'static>],
        facts: Vec<Facts>,
        key: &dyn rustls::sign::SigningKey,
    ) -> Option<(Facts, Option<Facts>)> {
        let source = &self.settings.certificate;
        let mut links: Vec<Link<'_>> =
            chain.iter().zip(facts).map(|(der, facts)| Link { der, facts }).collect();
        let public = key.public_key();
        let public = public.as_ref().and_then(|spki| der::public_key(spki)).map(|(_, key)| key);
        let mine = |link: &Link<'_>| der::public_key(&link.facts.spki).map(|(_, k)| k) == public;
        match links.iter().position(mine) {
            Some(0) => {}
            Some(at) => {
                let what = format!(
                    "is in the wrong order: the private key belongs to number {}, \"{}\"",
                    at + 1,
                    links.get(at)?.facts.shown
                );
                let cure = "put that certificate first, and behind each its issuer";
                self.wrong::<()>(Part::Certificate, source, Err((what, cure)));
                return None;
            }
            None => {
                let leaf = &links.first()?.facts.shown;
                let what = format!("is not the key of \"{leaf}\" in {}", subject(source));
                let cure = "name the key that the certificate was requested with";
                let key = self.settings.private_key.as_ref()?;
                self.wrong::<()>(Part::PrivateKey, key, Err((what, cure)));
                return None;
            }
        }
        self.wrong(Part::Certificate, source, chain::check_order(&links))?;
        let leaf = links.remove(0).facts;
        if chain.len() == 1 && leaf.names_issuer && !leaf.is_root() {
            let what = format!(
                "{} has the leaf alone; most clients want its issuer \"{}\" too",
                subject(source),
                leaf.issuer_shown
            );
            let cure = "add the intermediate certificates behind it (a file named fullchain)";
            self.warn(Part::Certificate, what, cure, "R12.3-5");
        }
        let issuer = (!links.is_empty()).then(|| links.swap_remove(0).facts);
        Some((leaf, issuer))
    }

    /// The response to staple, and until when it holds. One that is of no use is left out.
    fn ocsp(&mut self, leaf: &Facts, issuer: Option<&Facts>) -> Option<(Vec<u8>, Option<i64>)> {
        let path = self.settings.ocsp_response.as_ref()?;
        let answer = file::read(path).and_then(|text| {
            let answer = ocsp::answer(&text.bytes, leaf, issuer)?;
            match answer.until {
                Some(until) if until <= self.now => {
                    Err(format!("has expired {} ago", days(self.now - until)))
                }
                _ => Ok((text.bytes, answer)),
            }
        });
        match answer {
            Ok((bytes, answer)) => {
                if answer.status != Status::Good {
                    let what = match answer.status {
                        Status::Revoked => "the certificate is revoked",
                        _ => "its issuer does not know the certificate",
                    };
                    let what = format!("{} says that {what}", path.display());
                    self.warn(Part::OcspResponse, what, "get another certificate", "R12.3-5");
                }
                Some((bytes, answer.until))
            }
            Err(wrong) => {
                let what = format!("{} {wrong}; nothing is stapled", path.display());
                let cure = "fetch a new one: openssl ocsp -issuer CA.pem -cert SITE.pem -url … \
                    -respout FILE";
                self.warn(Part::OcspResponse, what, cure, "R12.3-5");
                None
            }
        }
    }

    fn finish(&mut self, leaf: Facts, certified: CertifiedKey) -> Identity {
        let file = subject(&self.settings.certificate);
        self.check_time(&leaf, &file, "clients warn their users then; it is served all the same");
        if leaf.for_servers == Some(false) {
            let what = format!("{file} is not for servers: its extended key usage says so");
            let cure = "request one for TLS servers (serverAuth)";
            self.warn(Part::Certificate, what, cure, "R12.3-5");
        }
        let inside = self.names_inside(&leaf);
        let names = match self.settings.domain.is_empty() {
            true => inside,
            false => {
                self.check_domain(&inside);
                self.settings.domain.clone()
            }
        };
        Identity {
            id: self.settings.id,
            name: self.settings.name.clone(),
            names,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            serial: leaf.serial,
            ocsp_until: None,
            digest: digest(&certified.cert, certified.ocsp.as_deref()),
            certified: Arc::new(certified),
        }
    }

    /// R12.3-3: an expired certificate is served (C28), and told about.
    fn check_time(&mut self, facts: &Facts, of: &str, then: &str) {
        let (left, until) = (facts.not_after - self.now, facts.not_before - self.now);
        let what = match left {
            _ if until > 0 => format!("{of} is valid only in {}", days(until)),
            ..0 => format!("{of} has expired {} ago", days(-left)),
            _ if left < EXPIRY_WARNING_DAYS * DAY => format!("{of} expires in {}", days(left)),
            _ => return,
        };
        self.warn(Part::Certificate, what, &format!("renew it: {then}"), "R12.3-3");
    }

    /// DNS names; a common name only where there are no alternative ones at all.
    fn names_inside(&mut self, leaf: &Facts) -> Vec<String> {
        let file = subject(&self.settings.certificate);
        let written: Vec<&String> = match &leaf.alternative {
            Some(list) => list.iter().collect(),
            None => {
                let what = format!(
                    "{file} has no subject alternative names; today's clients accept no other"
                );
                self.warn(Part::Certificate, what, "request one that has them", "R12.3-4");
                leaf.common_name.iter().collect()
            }
        };
        let mut names: Vec<String> = written.into_iter().filter_map(|name| ascii(name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// R10.2-2, R10.2-3: names that clients will complain about.
    fn check_domain(&mut self, inside: &[String]) {
        let bare = self.settings.domain.iter();
        let bare = bare.filter(|name| !inside.iter().any(|inside| covers(inside, name)));
        let mut notes = Vec::new();
        for name in bare {
            let deeper = inside.iter().find(|inside| names::covers_deeper(inside, name));
            let has = match (deeper, inside) {
                (Some(wild), _) => format!("\"{wild}\" stands for names of one label more only"),
                (None, []) => "it has no names".to_owned(),
                (None, [first]) => format!("it is for \"{first}\""),
                (None, list) => {
                    let listed: Vec<_> =
                        list.iter().take(LISTED).map(|name| format!("\"{name}\"")).collect();
                    let more = if list.len() > LISTED { ", …" } else { "" };
                    format!("it is for {}{more}", listed.join(", "))
                }
            };
            let row = if deeper.is_some() { "R10.2-3" } else { "R10.2-2" };
            notes.push((format!("the certificate does not cover \"{name}\": {has}"), row));
        }
        for (what, row) in notes {
            self.warn(Part::Domain, what, "clients warn their users: get one for this name", row);
        }
    }
}

/// Seconds in days, or in hours where that is less than one.
fn days(seconds: i64) -> String {
    let (n, noun) = match seconds / DAY {
        0 => (seconds / 3600, "hour"),
        days => (days, "day"),
    };
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

pub(super) fn digest(list: &[CertificateDer<'static>], ocsp: Option<&[u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for der in list.iter().map(AsRef::as_ref).chain(ocsp) {
        context.update(&(der.len() as u64).to_be_bytes());
        context.update(der);
    }
    context.finish().as_ref().try_into().unwrap_or_default()
}
