//! `weir gencert`: certificates for trying things out (R12.1-2). A CA of its own, made when it is
//! first needed, issues certificates for servers and clients. All keys are ECDSA P-256; files with
//! keys are their owner's alone.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use weir_core::cert;
use weir_core::time::clock;

use crate::logging;

/// A certificate is valid from so long ago, since other clocks may be slow.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// Days that one may be asked to be valid.
const MAX_DAYS: i64 = 36_500;
/// Names of the CA's files, without their ending.
const CA: &str = "ca";

/// What to make.
#[derive(Debug, Subcommand)]
pub enum What {
    /// A CA: ca.pem and ca.key
    Ca(Common),
    /// A server's certificate: NAME.pem and NAME.key, named after its first name
    Server {
        /// Host names and IP addresses; the first label of a name may be `*`
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// A client's certificate, for mutual TLS: NAME.pem and NAME.key
    Client {
        /// Whose it is
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What all of them take.
#[derive(Debug, Args)]
pub struct Common {
    /// Folder of the files; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// How many days it is valid; a CA that has to be made along lives ten times as long
    #[arg(long, value_name = "N", default_value_t = 365,
          value_parser = clap::value_parser!(i64).range(1..=MAX_DAYS))]
    days: i64,
    /// Overwrite files that are there; a CA is overwritten by `ca --force` only
    #[arg(long)]
    force: bool,
}

/// Makes it, and says what was made.
///
/// # Errors
/// A name that is none, a file that is there already or can't be written, a CA that can't be read.
pub fn make(what: &What) -> Result<()> {
    match what {
        What::Ca(common) => {
            fs::create_dir_all(&common.dir).with_context(|| common.dir.display().to_string())?;
            new_ca(common, common.days, common.force).map(drop)
        }
        What::Server { names, common } => {
            let names = names.iter().map(|name| host(name)).collect::<Result<Vec<_>>>()?;
            let mut params = CertificateParams::new(names.clone())?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let name = names.first().map_or("", String::as_str);
            let issued = issue(name, params, common);
            let file = file_name(name);
            let Paths { pem, key } = Paths::of(&common.dir, &file);
            // Whoever asks a second time may want just this.
            if issued.is_ok() || (file != CA && pem.exists() && key.exists()) {
                logging::answer(format_args!(
                    "\n[[certificate]]\nname = \"{file}\"\ncertificate = \"{}\"\n\
                     private_key = \"{}\"",
                    pem.display(),
                    key.display(),
                ));
            }
            issued
        }
        What::Client { name, common } => {
            if name.is_empty() || name.chars().any(char::is_control) {
                bail!("a client's name can't be empty or have control characters");
            }
            let mut params = CertificateParams::default();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            issue(name, params, common)
        }
    }
}

/// A name as certificates have it.
fn host(name: &str) -> Result<String> {
    match (name.parse::<IpAddr>(), cert::ascii(name)) {
        (Ok(address), _) => Ok(address.to_string()),
        (Err(_), Some(name)) => Ok(name),
        (Err(_), None) => {
            bail!("\"{}\" is no host name, such as www.example.com", name.escape_debug())
        }
    }
}

/// What a file is called after a name.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.replace("*.", "wildcard.").chars().map(plain).collect();
    name.trim_start_matches('.').to_owned()
}

/// Has the CA issue a certificate.
fn issue(name: &str, mut params: CertificateParams, common: &Common) -> Result<()> {
    let file = file_name(name);
    if file.is_empty() || file == CA {
        bail!("\"{name}\" would be the CA's own files, or none: choose another name");
    }
    fs::create_dir_all(&common.dir).with_context(|| common.dir.display().to_string())?;
    let paths = Paths::of(&common.dir, &file);
    paths.check(common.force)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, common.days);
    let issuer = match Paths::of(&common.dir, CA).pem.exists() {
        true => old_ca(&common.dir)?,
        false => new_ca(common, common.days.saturating_mul(10).min(MAX_DAYS), false)?,
    };
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    paths.write(&certificate, &key, common.force)
}

fn new_ca(common: &Common, days: i64, force: bool) -> Result<Issuer<'static, KeyPair>> {
    let paths = Paths::of(&common.dir, CA);
    paths.check(force)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Weir CA for trying things out");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, days);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    paths.write(&certificate, &key, force)?;
    Ok(Issuer::new(params, key))
}

fn old_ca(dir: &Path) -> Result<Issuer<'static, KeyPair>> {
    let Paths { pem, key } = Paths::of(dir, CA);
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("the CA: {}", path.display()))
    };
    let signs = KeyPair::from_pem(&read(&key)?);
    let signs = signs.with_context(|| format!("the CA: {}", key.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&read(&pem)?, signs);
    issuer.with_context(|| format!("the CA: {}", pem.display()))
}

fn valid(params: &mut CertificateParams, days: i64) {
    let now: SystemTime = clock::wall();
    let days = Duration::from_secs(days.unsigned_abs() * 86_400);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + days).into();
}

/// The two files of a certificate.
struct Paths {
    pem: PathBuf,
    key: PathBuf,
}

impl Paths {
    fn of(dir: &Path, name: &str) -> Paths {
        Paths { pem: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }

    /// Before anything is made: both files are written, or none.
    fn check(&self, force: bool) -> Result<()> {
        let there = [&self.pem, &self.key].into_iter().find(|path| path.symlink_metadata().is_ok());
        match there {
            Some(path) if !force => {
                bail!("{} is there already; --force overwrites it", path.display())
            }
            _ => Ok(()),
        }
    }

    fn write(&self, certificate: &Certificate, key: &KeyPair, force: bool) -> Result<()> {
        write(&self.key, &key.serialize_pem(), 0o600, force)?;
        write(&self.pem, &certificate.pem(), 0o644, force)?;
        logging::answer(format_args!("made {} and {}", self.pem.display(), self.key.display()));
        Ok(())
    }
}

/// A new file in place of what is there, so that nobody who has that open, or may read it, sees the
/// new one's content.
fn write(path: &Path, text: &str, mode: u32, force: bool) -> Result<()> {
    let written = || -> std::io::Result<()> {
        let target = if force { path.with_extension("new") } else { path.to_owned() };
        if force && target.symlink_metadata().is_ok() {
            fs::remove_file(&target)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&target)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if force { fs::rename(&target, path) } else { Ok(()) }
    };
    written().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_names() {
        for (name, file) in [
            ("www.example.com", "www.example.com"),
            ("*.example.com", "wildcard.example.com"),
            ("::1", "__1"),
            ("../etc/x", "_etc_x"),
            ("Jörg Müller", "J_rg_M_ller"),
        ] {
            assert_eq!(file_name(name), file);
        }
        assert_eq!(host("Bücher.example").unwrap(), "xn--bcher-kva.example");
        assert_eq!(host("::0001").unwrap(), "::1");
        assert!(host("a b").is_err());
    }
}
