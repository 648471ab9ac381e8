//! Certificates as files may hold them, made for each test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use tempfile::TempDir;

use super::*;
use crate::model::{Certificate, CertificateKind, Id, Pem};
use crate::time::clock;

const DAY: Duration = Duration::from_secs(86_400);

/// Someone who issues certificates, or is a leaf.
struct Party {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: String,
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn root(params: CertificateParams) -> Party {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Party { pem: certificate.pem(), key: key.serialize_pem(), issuer: Issuer::new(params, key) }
}

impl Party {
    fn issues(&self, params: CertificateParams) -> Party {
        self.issues_for(params, KeyPair::generate().unwrap())
    }

    fn issues_for(&self, params: CertificateParams, key: KeyPair) -> Party {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Party { pem: certificate.pem(), key: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }
}

fn settings(certificate: String, key: String) -> Certificate {
    Certificate {
        id: Id::nil(),
        name: "site".to_owned(),
        kind: CertificateKind::Server,
        certificate: Pem::Text(certificate),
        private_key: Some(Pem::Text(key)),
        domain: Vec::new(),
        ocsp_response: None,
    }
}

fn reading(certificate: &str, key: &str) -> Reading {
    read(&settings(certificate.to_owned(), key.to_owned()), clock::wall())
}

fn identity(reading: &Reading) -> &Identity {
    match &reading.material {
        Some(Material::Server(identity)) => identity,
        other => panic!("{other:?} {:?}", reading.errors),
    }
}

/// The one error of a reading.
fn error(reading: &Reading) -> (Part, &str) {
    assert!(reading.material.is_none());
    let [one] = reading.errors.as_slice() else { panic!("{:?}", reading.errors) };
    (one.part, &one.what)
}

/// R12.3-5: leaf first, each signed by the next; what is wrong is told apart.
#[test]
fn chains_are_checked() {
    let top = root(ca("Top"));
    let middle = top.issues(ca("Middle"));
    let low = middle.issues(ca("Low"));
    let leaf = low.issues(params("leaf", &["www.example.com"]));
    let chain = |list: &[&Party]| list.iter().map(|one| one.pem.as_str()).collect::<String>();
    for good in [
        chain(&[&leaf]),
        chain(&[&leaf, &low]),
        chain(&[&leaf, &low, &middle]),
        chain(&[&leaf, &low, &middle, &top]),
    ] {
        let found = reading(&good, &leaf.key);
        assert_eq!(identity(&found).names, ["www.example.com"]);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }
    for (list, told) in [
        (vec![&low, &leaf], "in the wrong order: the private key belongs to number 2, \"CN=leaf\""),
        (
            vec![&leaf, &middle, &low],
            "in the wrong order: certificate 1, \"CN=leaf\", was issued by number 3, \"CN=Low\"",
        ),
        (
            vec![&leaf, &middle],
            "lacks a certificate: number 1, \"CN=leaf\", was issued by \"CN=Low\", and number 2 is \
             \"CN=Middle\"",
        ),
        (vec![&leaf, &low, &top], "lacks a certificate: number 2, \"CN=Low\", was issued by"),
        (vec![&leaf, &leaf, &low], "the same certificate twice: numbers 1 and 2"),
        (
            vec![&leaf, &low, &middle, &top, &low],
            "goes on behind a root: certificate 4, \"CN=Top\"",
        ),
    ] {
        let found = reading(&chain(&list), &leaf.key);
        let (part, what) = error(&found);
        assert!(what.contains(told), "{what}");
        assert_eq!((part, found.errors[0].row), (Part::Certificate, "R12.3-5"));
        assert!(!found.errors[0].cure.is_empty());
    }
    // The same name, another key: a CA that was renewed, say.
    let namesake = root(ca("Low"));
    let found = reading(&chain(&[&leaf, &namesake]), &leaf.key);
    assert!(error(&found).1.contains("another key signed that"), "{:?}", found.errors);
    let found = reading(&chain(&[&leaf, &low]), &namesake.key);
    let (part, what) = error(&found);
    assert_eq!(part, Part::PrivateKey);
    assert!(what.contains("is not the key of \"CN=leaf\""), "{what}");
}

/// R12.3-5: keys of each kind, and what is no key.
#[test]
fn keys_are_checked() {
    let top = root(ca("Top"));
    for kind in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519]
    {
        let key = KeyPair::generate_for(kind).unwrap();
        let leaf = top.issues_for(params("leaf", &["a.example.com"]), key);
        identity(&reading(&leaf.pem, &leaf.key));
        // Signatures of each kind are checked, too.
        let self_signed = root(params("self", &["b.example.com"]));
        identity(&reading(&self_signed.pem, &self_signed.key));
    }
    let leaf = top.issues(params("leaf", &["a.example.com"]));
    let cut = &leaf.key[..leaf.key.len() - 40];
    let armour = |label: &str, text: &str| {
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let twice = leaf.key.clone() + &leaf.key;
    for (key, told) in [
        (armour("ENCRYPTED PRIVATE KEY", "MIIB"), "is encrypted by a passphrase"),
        (
            armour("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIB"),
            "is encrypted by a passphrase",
        ),
        (cut.to_owned(), "ends inside its PEM text"),
        (armour("PRIVATE KEY", "MIIB"), "is no key that can be used"),
        (armour("PRIVATE KEY", "é"), "is no base64"),
        (leaf.pem.clone(), "holds no private key"),
        (twice, "holds several private keys"),
        ("0\u{1}\u{2}".to_owned(), "looks like DER"),
    ] {
        let found = reading(&leaf.pem, &key);
        let (part, what) = error(&found);
        assert_eq!(part, Part::PrivateKey, "{what}");
        assert!(what.contains(told), "{told}: {what}");
        assert!(!what.contains("MIIB") && !found.errors[0].cure.contains("MIIB"));
    }
    let encrypted = armour("ENCRYPTED PRIVATE KEY", "MIIB");
    assert!(reading(&leaf.pem, &encrypted).errors[0].cure.contains("openssl pkey"));
}

#[test]
fn what_is_no_certificate_is_refused() {
    let leaf = root(params("leaf", &["a.example.com"]));
    for (text, told) in [
        (String::new(), "holds no certificate"),
        (leaf.key.clone(), "holds no certificate"),
        (leaf.pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "TRUSTED CERTIFICATE"),
        ("0\u{1}".to_owned(), "looks like DER"),
        (
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(),
            "no certificate as number 1",
        ),
        (leaf.pem.repeat(11), "more than 10 certificates"),
    ] {
        let found = reading(&text, &leaf.key);
        let (part, what) = error(&found);
        assert!(what.contains(told) && part == Part::Certificate, "{told}: {what}");
    }
}

/// R12.3-3, R12.4-2: an expired certificate is warned of and can be shown all the same.
#[test]
fn time_makes_warnings() {
    let now = clock::wall();
    let of = |from: SystemTime, to: SystemTime| {
        let mut params = params("leaf", &["a.example.com"]);
        (params.not_before, params.not_after) = (from.into(), to.into());
        let leaf = root(params);
        let found = reading(&leaf.pem, &leaf.key);
        identity(&found);
        let warnings: Vec<_> = found.warnings.iter().map(|one| one.what.clone()).collect();
        assert!(found.warnings.iter().all(|one| one.row == "R12.3-3"), "{warnings:?}");
        warnings.join("; ")
    };
    assert_eq!(of(now - DAY, now + 31 * DAY), "");
    assert_eq!(of(now - DAY, now + 29 * DAY + DAY / 2), "the text expires in 29 days");
    assert_eq!(of(now - DAY, now + DAY / 2 + DAY / 48), "the text expires in 12 hours");
    assert_eq!(of(now - 9 * DAY, now - 3 * DAY - DAY / 2), "the text has expired 3 days ago");
    assert_eq!(of(now + DAY + DAY / 2, now + 90 * DAY), "the text is valid only in 1 day");
}

/// R10.2-2, R10.2-3, R12.3-4: names to serve that are not the certificate's.
#[test]
fn names_that_clients_complain_about() {
    let leaf = root(params("leaf", &["Example.com", "*.example.com"]));
    let with = |domain: &[&str]| {
        let mut settings = settings(leaf.pem.clone(), leaf.key.clone());
        settings.domain = domain.iter().map(|name| (*name).to_owned()).collect();
        read(&settings, clock::wall())
    };
    let found = with(&[]);
    assert_eq!(identity(&found).names, ["*.example.com", "example.com"]);
    for good in [&["a.example.com"][..], &["*.example.com", "example.com"]] {
        let found = with(good);
        assert_eq!(identity(&found).names, good);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }
    let found = with(&["a.b.example.com", "other.example"]);
    assert_eq!(identity(&found).names, ["a.b.example.com", "other.example"]);
    let told: Vec<_> = found.warnings.iter().map(|one| (one.row, one.what.as_str())).collect();
    let deeper = "the certificate does not cover \"a.b.example.com\": \"*.example.com\" stands for \
                  names of one label more only";
    let other = "the certificate does not cover \"other.example\": it is for \"*.example.com\", \
                 \"example.com\"";
    assert_eq!(told, [("R10.2-3", deeper), ("R10.2-2", other)]);
    // Without alternative names the common name serves, as it once did.
    let mut old = params("Old.Example.com", &[]);
    old.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let old = root(old);
    let found = reading(&old.pem, &old.key);
    assert_eq!(identity(&found).names, ["old.example.com"]);
    let told: String = found.warnings.iter().map(|one| one.what.as_str()).collect();
    assert!(told.contains("no subject alternative names"), "{told}");
    assert!(told.contains("not for servers"), "{told}");
}

fn write(folder: &TempDir, name: &str, text: &str, mode: u32) -> Pem {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    Pem::File(path)
}

#[test]
fn files_are_bounded_and_plain_and_keys_are_kept_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let leaf = root(params("leaf", &["a.example.com"]));
    let mut one = settings(String::new(), String::new());
    one.certificate = write(&folder, "a.pem", &leaf.pem, 0o644);
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
        one.private_key = Some(write(&folder, "a.key", &leaf.key, mode));
        let found = read(&one, clock::wall());
        identity(&found);
        let told = found.warnings.iter().any(|one| one.what.contains("by every user"));
        assert_eq!(told, warned, "{mode:o}");
    }
    for (path, told) in [
        (folder.path().to_owned(), "it is no plain file"),
        (folder.path().join("none"), "No such file"),
    ] {
        one.certificate = Pem::File(path);
        let found = read(&one, clock::wall());
        assert!(error(&found).1.contains(told), "{:?}", found.errors);
    }
    one.certificate = write(&folder, "large.pem", &"x".repeat((1 << 20) + 1), 0o600);
    assert!(error(&read(&one, clock::wall())).1.contains("is larger than 1024 KiB"));
}

/// R12.1-1: a bundle is a list of certificates, in any order and number.
#[test]
fn bundles_are_read() {
    let (a, b) = (root(ca("A")), root(ca("B")));
    let mut bundle = settings(a.pem.clone() + &b.pem, String::new());
    (bundle.kind, bundle.private_key) = (CertificateKind::Client, None);
    let found = read(&bundle, clock::wall());
    let Some(Material::Client(authorities)) = &found.material else { panic!("{found:?}") };
    assert_eq!(authorities.roots.len(), 2);
    let certificates = vec![found.material.clone(), None];
    let store = Store { certificates, ..Store::default() };
    assert!(store.authorities(0).is_some() && store.identity(0).is_none());
    assert!(store.authorities(1).is_none() && store.authorities(2).is_none());
    bundle.certificate = Pem::Text(b.pem + &a.pem);
    assert_ne!(read(&bundle, clock::wall()).material, found.material);
}

/// R12.1-1: a CA that nobody could verify chains by is told when it is read; else the listener
/// would find out, and serve nobody. An old one goes on, as its issuer meant it to.
#[test]
fn cas_that_cannot_be_used_are_refused() {
    let read = |text: &str| {
        let kind = CertificateKind::Client;
        let settings = settings(text.to_owned(), String::new());
        read(&Certificate { kind, private_key: None, ..settings }, clock::wall())
    };
    let mut odd = ca("Odd");
    let constraints = CustomExtension::from_oid_content(&[2, 5, 29, 30], vec![0x30, 0]);
    odd.custom_extensions.extend([constraints.clone(), constraints]);
    let text = root(ca("Plain")).pem + &root(odd).pem;
    let told = read(&text);
    let (part, what) = error(&told);
    assert_eq!(part, Part::Certificate);
    assert!(what.contains("has a CA that can't be used: number 2, \"CN=Odd\": "), "{what}");
    let mut old = ca("Old");
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let told = read(&root(old).pem);
    assert!(told.material.is_some(), "{:?}", told.errors);
    let warned = &told.warnings[0];
    assert!(warned.what.contains("has expired") && warned.cure.contains("holds all the same"));
}

/// What clients are shown decides whether two are the same, and no secret reaches a log.
#[test]
fn identities_are_compared_by_content() {
    let top = root(ca("Top"));
    let leaf = top.issues(params("leaf", &["a.example.com"]));
    let one = reading(&leaf.pem, &leaf.key);
    assert_eq!(one.material, reading(&leaf.pem, &leaf.key).material);
    assert_ne!(one.material, reading(&(leaf.pem.clone() + &top.pem), &leaf.key).material);
    let text = format!("{:?}", one.material);
    assert!(text.contains("site") && !text.contains("BEGIN"), "{text}");
}

/// A CA, and a certificate of its with its OCSP response, as openssl makes it.
fn with_response(folder: &TempDir, status: &str, signer: Option<&Party>) -> (Party, Certificate) {
    let top = root(ca("Top"));
    let leaf = top.issues(params("leaf", &["a.example.com"]));
    let signer = signer.unwrap_or(&top);
    for (name, text) in [
        ("top.pem", &top.pem),
        ("leaf.pem", &leaf.pem),
        ("signer.pem", &signer.pem),
        ("signer.key", &signer.key),
    ] {
        write(folder, name, text, 0o600);
    }
    let serial = reading(&leaf.pem, &leaf.key);
    let serial = identity(&serial).serial.to_uppercase();
    let revoked = if status == "R" { "260101000000Z" } else { "" };
    let index = format!("{status}\t400101000000Z\t{revoked}\t{serial}\tunknown\t/CN=leaf\n");
    write(folder, "index", &index, 0o600);
    openssl(folder, "ocsp -issuer top.pem -cert leaf.pem -reqout request");
    let by = "-rsigner signer.pem -rkey signer.key -CA top.pem";
    openssl(folder, &format!("ocsp -index index {by} -reqin request -respout response -ndays 7"));
    let mut settings = settings(leaf.pem.clone() + &top.pem, leaf.key.clone());
    settings.ocsp_response = Some(folder.path().join("response"));
    (leaf, settings)
}

fn openssl(folder: &TempDir, args: &str) {
    let mut command = std::process::Command::new("openssl");
    let out = command.args(args.split(' ')).current_dir(folder.path()).output().unwrap();
    assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A response that is about the certificate, signed by its issuer and in force is stapled; any
/// other is told about and left out.
#[test]
fn ocsp_responses_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (leaf, settings) = with_response(&folder, "V", None);
    let now = clock::wall();
    let stapled = |found: &Reading| {
        let told = found.warnings.iter().map(|one| one.what.as_str()).collect::<String>();
        assert!(found.warnings.iter().all(|one| one.part == Part::OcspResponse), "{told}");
        (identity(found).certified.ocsp.is_some(), told)
    };
    let found = read(&settings, now);
    assert_eq!(stapled(&found), (true, String::new()));
    let until = identity(&found).ocsp_until.unwrap();
    let week = now + 7 * DAY;
    let week = week.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!((until - i64::try_from(week).unwrap()).abs() < 60, "{until}");
    // Another response makes another identity.
    let without = Certificate { ocsp_response: None, ..settings.clone() };
    assert_ne!(found.material, read(&without, now).material);
    let (sent, told) = stapled(&read(&settings, now + 8 * DAY));
    assert!(!sent && told.contains("has expired 1 day ago; nothing is stapled"), "{told}");
    // Without the issuer's certificate its signature can't be checked.
    let alone = Certificate { certificate: Pem::Text(leaf.pem.clone()), ..settings.clone() };
    assert_eq!(stapled(&read(&alone, now)), (true, String::new()));

    let other = tempfile::tempdir().unwrap();
    let (_, revoked) = with_response(&other, "R", None);
    let (sent, told) = stapled(&read(&revoked, now));
    assert!(sent && told.contains("the certificate is revoked"), "{told}");
    let mixed = Certificate { ocsp_response: revoked.ocsp_response.clone(), ..alone };
    let (sent, told) = stapled(&read(&mixed, now));
    assert!(!sent && told.contains("is not about this certificate"), "{told}");
    let (_, forged) = with_response(&other, "V", Some(&root(ca("Mallory"))));
    let (sent, told) = stapled(&read(&forged, now));
    assert!(!sent && told.contains("is not signed by the issuer"), "{told}");
    let bytes = fs::read(folder.path().join("response")).unwrap();
    for length in 0..bytes.len() {
        fs::write(folder.path().join("response"), &bytes[..length]).unwrap();
        assert!(!stapled(&read(&settings, now)).0, "{length} bytes");
    }
    fs::remove_file(folder.path().join("response")).unwrap();
    let (sent, told) = stapled(&read(&settings, now));
    assert!(!sent && told.contains("can't be read"), "{told}");
}

/// Whatever stands in a file, nothing but an answer comes of it.
#[test]
fn damaged_files_are_read_to_their_end() {
    let top = root(ca("Top"));
    let leaf = top.issues(params("leaf", &["a.example.com"]));
    let chain = leaf.pem.clone() + &top.pem;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % 1_000_003).unwrap() % below
    };
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut refused = 0;
    for _ in 0..2_000 {
        let (mut chain, mut key) = (chain.clone().into_bytes(), leaf.key.clone().into_bytes());
        for _ in 0..=random(3) {
            let text = if random(4) == 0 { &mut key } else { &mut chain };
            let at = random(text.len());
            text[at] = LETTERS[random(LETTERS.len())];
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let found = reading(&text(chain), &text(key));
        assert_eq!(found.material.is_none(), !found.errors.is_empty());
        refused += usize::from(found.material.is_none());
    }
    assert!(refused > 1_000, "{refused}");
}
