//! The log of session keys, for debugging alone: with it Wireshark and their like read what was
//! recorded. Off unless the process was started with it (`weir serve --tls-key-log`); no variable
//! of the environment and no file switches it on. Called by rustls, within handshakes.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use rustls::{KeyLog, NoKeyLog};

/// Set once at most, before the first handshake: what a reload could switch on would be switched
/// on by whoever may write the file.
static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// From now on keys of all handshakes, with clients and members, are appended to this file, which
/// nobody else may read.
///
/// # Errors
/// The file can't be opened, or others may read it.
pub fn log_keys(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        let why = "is open to other users, and what is recorded could be read by its keys: chmod \
            600 it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let _already = LOG.set(Arc::new(Log { file, failed: AtomicBool::new(false) }));
    Ok(())
}

/// What handshakes are to be given.
pub(super) fn key_log() -> Arc<dyn KeyLog> {
    match LOG.get() {
        Some(log) => Arc::clone(log) as Arc<_>,
        None => Arc::new(NoKeyLog {}),
    }
}

#[derive(Debug)]
struct Log {
    file: File,
    /// A line could not be written, which was said.
    failed: AtomicBool,
}

impl KeyLog for Log {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        // One write a line: shards need no lock.
        let written = (&self.file).write_all(line(label, client_random, secret).as_bytes());
        if let Err(error) = written
            && !self.failed.swap(true, Relaxed)
        {
            tracing::warn!("the log of TLS keys is incomplete: {error}");
        }
    }
}

fn line(label: &str, client_random: &[u8], secret: &[u8]) -> String {
    let mut line = format!("{label} ");
    let mut hex = |bytes: &[u8], end| {
        // A String takes all that is written.
        let _never = bytes.iter().try_for_each(|byte| write!(line, "{byte:02x}"));
        line.push(end);
    };
    hex(client_random, ' ');
    hex(secret, '\n');
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_has_the_form_that_all_tools_read() {
        assert_eq!(super::line("CLIENT_RANDOM", &[0, 0xab], &[1]), "CLIENT_RANDOM 00ab 01\n");
    }
}
