//! Certificates for tests, in files of their own folder.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A CA, and a certificate by it.
pub struct Files {
    pub ca: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
    _folder: tempfile::TempDir,
}

impl Files {
    /// For these names and addresses.
    pub fn new(names: &[&str]) -> Files {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("a CA for {names:?}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, owner).unwrap();
            path
        };
        Files {
            ca: write("ca.pem", &ca.pem()),
            chain: write("chain.pem", &leaf.pem()),
            key: write("key.pem", &key.serialize_pem()),
            _folder: folder,
        }
    }
}
