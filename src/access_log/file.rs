//! The target of a log: opening it, and writing whole lines. A write that fails half-way (a full
//! disk) is taken back to the last line break, so that a file never holds part of a line.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use weir_core::model::LogTarget;

/// A log file is for its owner and group.
const FILE_MODE: u32 = 0o640;

/// An open target.
#[derive(Debug)]
pub(super) struct File {
    pub(super) target: LogTarget,
    file: fs::File,
    /// Part of a line stands at its end and could not be taken back.
    torn: bool,
}

/// What became of some lines.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Whole lines that the target took.
    pub(super) lines: u64,
    /// Why it took no more; `None` = it took all.
    pub(super) error: Option<io::Error>,
}

impl File {
    /// Opens `target`, a file to append to. A named pipe needs no reader to be opened.
    ///
    /// # Errors
    /// It can't be opened; names the path and the cure.
    pub(super) fn open(target: &LogTarget) -> Result<File> {
        let file = match target {
            LogTarget::Standard => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                stdout.context("access log: cannot use standard output")?.into()
            }
            LogTarget::File(path) => open(path).with_context(|| {
                format!(
                    "access log: cannot open {}; its folder must exist and be writable for this \
                     process' user (in a systemd unit: LogsDirectory=weir)",
                    path.display()
                )
            })?,
        };
        Ok(File { target: target.clone(), file, torn: false })
    }

    /// Writes `text`, whole lines, as far as the target takes them.
    pub(super) fn write(&mut self, text: &[u8]) -> Written {
        if self.torn && self.file.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        let mut taken = 0;
        let error = loop {
            let rest = text.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break None;
            }
            match self.file.write(rest) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(n) => taken += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Some(e),
            }
        };
        let taken = text.get(..taken).unwrap_or_default();
        let whole = taken.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        if whole < taken.len() {
            self.torn = !self.take_back((taken.len() - whole) as u64);
        }
        let lines = taken.iter().filter(|&&b| b == b'\n').count() as u64;
        Written { lines, error }
    }

    /// Takes the last `bytes` out of the file again, if they are its end; `false` when that can't
    /// be.
    fn take_back(&mut self, bytes: u64) -> bool {
        let Ok(meta) = self.file.metadata() else { return false };
        let ours = self.file.stream_position().is_ok_and(|at| at == meta.len());
        meta.is_file() && ours && self.file.set_len(meta.len().saturating_sub(bytes)).is_ok()
    }
}

/// For messages.
pub(super) fn describe(target: &LogTarget) -> String {
    match target {
        LogTarget::Standard => "access log on standard output".to_owned(),
        LogTarget::File(path) => format!("access log {}", path.display()),
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    let fifo = fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    let mut options = OpenOptions::new();
    if fifo {
        // With a reading end of our own it opens at once, and outlives its readers.
        return options.read(true).write(true).open(path);
    }
    options.append(true).create(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &Path) -> LogTarget {
        LogTarget::File(path.to_owned())
    }

    #[test]
    fn lines_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "old\n").unwrap();
        let mut file = File::open(&target(&path)).unwrap();
        let written = file.write(b"a\nb\n");
        assert!(written.lines == 2 && written.error.is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\na\nb\n");
        assert!(file.take_back(2));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\na\n");
        // Somebody else has written since: what stands at the end is not ours.
        file.write(b"c\n");
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"theirs\n").unwrap();
        assert!(!file.take_back(2));
    }

    #[test]
    fn a_full_disk_takes_nothing() {
        let mut file = File::open(&target(Path::new("/dev/full"))).unwrap();
        let written = file.write(b"a\n");
        assert_eq!(written.lines, 0);
        assert_eq!(written.error.unwrap().kind(), io::ErrorKind::StorageFull);
        assert!(!file.torn);
    }

    /// R13.1-1: a clear error.
    #[test]
    fn a_folder_that_is_not_there() {
        let error = File::open(&target(Path::new("/nonexistent/x.log"))).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("/nonexistent/x.log") && text.contains("must exist"), "{text}");
    }
}
