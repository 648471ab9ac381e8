//! The secret behind the cookies of sticky pools: kept in a file of `run_dir`, so that cookies hold
//! over a restart; nodes that shall understand each other's cookies get a copy of the file. Called
//! once, when the process starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use weir_core::pool::sticky::Secret;

use crate::remote::desk::CURE;

/// Name of the file in `run_dir`: 32 hexadecimal digits, for the process' user alone.
const FILE: &str = "sticky.key";
/// Bytes of a secret.
const LEN: usize = 16;

/// A secret, and where it is to be kept once the process serves: a start that fails leaves nothing.
#[derive(Debug)]
pub struct Found {
    /// What cookies are made with.
    pub secret: Secret,
    unsaved: Option<(PathBuf, [u8; LEN])>,
}

impl Found {
    /// Keeps it, where there is none yet. One that can't be kept lives as long as the process.
    pub fn keep(self) {
        if let Some((path, secret)) = self.unsaved
            && let Err(e) = keep(&path, &secret)
        {
            not_kept(&path, &e);
        }
    }
}

/// The secret of the process whose place this one takes. A `run_dir` of which the other one knew
/// nothing gets it, so that cookies outlive this process, too.
pub fn inherited(secret: [u8; LEN], run_dir: &Path) -> Found {
    let path = run_dir.join(FILE);
    let unsaved = (!path.exists()).then_some((path, secret));
    Found { secret: Secret::new(secret), unsaved }
}

/// The secret in `run_dir`; a new one where there is none yet. The one in place of a secret of
/// another user's lives as long as the process, unless the file asks for this folder (`asked`).
///
/// # Errors
/// The file can't be read or holds something else; the system has no randomness. With the cure.
pub fn load(run_dir: &Path, asked: bool) -> Result<Found> {
    let known = |secret| Found { secret, unsaved: None };
    let path = run_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match parse(text.trim()) {
            Some(secret) => Ok(known(Secret::new(secret))),
            None => bail!(
                "{} does not hold {} hexadecimal digits; take it away, and a new one is made \
                 (sticky sessions then begin anew)",
                path.display(),
                2 * LEN
            ),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let secret = random()?;
            Ok(Found { secret: Secret::new(secret), unsaved: Some((path, secret)) })
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !asked => {
            not_kept(&path, &e);
            fresh().map(known)
        }
        Err(e) => bail!("cannot read {}: {e}; {CURE}", path.display()),
    }
}

fn not_kept(path: &Path, why: &io::Error) {
    let path = path.display();
    tracing::warn!(
        "{path}: {why}; cookies of sticky pools end with this process. To keep them, {CURE}"
    );
}

/// A secret that is kept nowhere.
///
/// # Errors
/// The system has no randomness.
pub fn fresh() -> Result<Secret> {
    random().map(Secret::new)
}

fn random() -> Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    let mut source = File::open("/dev/urandom").context("/dev/urandom")?;
    source.read_exact(&mut bytes).context("/dev/urandom")?;
    Ok(bytes)
}

/// Whole or not at all: it takes its name when all of it is written. A draft that a full disk
/// doesn't take goes again.
fn keep(path: &Path, secret: &[u8; LEN]) -> io::Result<()> {
    let mut text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    let draft = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes()).and_then(|()| fs::rename(&draft, path)).inspect_err(|_| {
        // It is known by its name to nobody.
        let _left = fs::remove_file(&draft);
    })
}

fn parse(text: &str) -> Option<[u8; LEN]> {
    if text.len() != 2 * LEN || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        drop(load(folder.path(), true).unwrap());
        assert!(!path.exists(), "a start that failed leaves nothing");
        let found = load(folder.path(), true).unwrap();
        let secret = found.secret;
        found.keep();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = || load(folder.path(), true).unwrap().secret;
        assert_eq!(again(), secret);
        assert_ne!(fresh().unwrap(), secret);
        fs::write(&path, "00112233445566778899aabbccddeeff\n").unwrap();
        let bytes = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();
        assert_eq!(again(), Secret::new(bytes));
        for bad in
            ["", "0011", "0011223344556677-899aabbccddeeff", "+0112233445566778899aabbccddeef"]
        {
            fs::write(&path, bad).unwrap();
            let text = load(folder.path(), true).unwrap_err().to_string();
            assert!(text.contains("sticky.key") && text.contains("take it away"), "{text}");
        }
    }

    #[test]
    fn without_a_folder_it_is_the_process_own() {
        let own = || load(Path::new("/nowhere"), true).unwrap();
        assert_ne!(own().secret, own().secret);
        own().keep();
    }

    /// What a process took over is kept where nobody has kept one, and replaces none.
    #[test]
    fn a_secret_that_was_handed_over_is_kept_in_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        inherited([7; LEN], folder.path()).keep();
        let kept = || load(folder.path(), true).unwrap().secret;
        assert_eq!(kept(), Secret::new([7; LEN]));
        inherited([8; LEN], folder.path()).keep();
        assert_eq!(kept(), Secret::new([7; LEN]));
    }

    /// A disk that is full leaves no draft: `/dev/full` takes no byte.
    #[test]
    fn a_draft_that_the_disk_does_not_take_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::os::unix::fs::symlink("/dev/full", path.with_extension("new")).unwrap();
        assert!(keep(&path, &[7; LEN]).is_err());
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left");
    }
}
