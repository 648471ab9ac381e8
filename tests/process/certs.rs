//! Certificates for tests, made by a CA of their own.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SignatureAlgorithm,
};
use weir_core::time::clock;

/// Who issues.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub key: String,
}

/// What was issued.
pub struct Leaf {
    pub pem: String,
    pub key: String,
    /// Hexadecimal, in capitals, as `openssl x509 -serial` prints it.
    pub serial: String,
    /// Seconds since 1970.
    pub not_after: u64,
}

impl Ca {
    pub fn new(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names, with this serial number, for 90 days.
    pub fn leaf(&self, names: &[&str], serial: u64) -> Leaf {
        let end = clock::wall() + Duration::from_secs(90 * 86_400 + serial);
        self.leaf_of(names, serial, end, &PKCS_ECDSA_P256_SHA256)
    }

    pub fn leaf_of(
        &self,
        names: &[&str],
        serial: u64,
        end: SystemTime,
        kind: &'static SignatureAlgorithm,
    ) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(serial.into());
        params.not_before = (clock::wall() - Duration::from_secs(400 * 86_400)).into();
        params.not_after = end.into();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(kind).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let hex = format!("{serial:X}");
        let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Leaf {
            pem: certificate.pem(),
            key: key.serialize_pem(),
            serial: if hex.len() % 2 == 1 { format!("0{hex}") } else { hex },
            not_after: since.as_secs(),
        }
    }
}

impl Leaf {
    /// Its two files in a folder.
    pub fn write(&self, folder: &Path, name: &str) -> [PathBuf; 2] {
        let files = [folder.join(format!("{name}.pem")), folder.join(format!("{name}.key"))];
        replace(&files[0], &self.pem);
        replace(&files[1], &self.key);
        files
    }
}

/// Replaces a file in one step; only its owner may read it.
pub fn replace(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(new, path).unwrap();
}
