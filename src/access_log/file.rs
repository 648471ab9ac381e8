//! The target of a log: opening it, and writing whole lines. A write that fails half-way (a full
//! disk) is taken back to the last line break, so that a file never holds part of a line. A target
//! whose reader has stalled is waited for, as long as the caller says.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use weir_core::model::LogTarget;
use weir_core::net::sys;
use weir_core::time::clock::{self, Mono};

/// A log file is for its owner and group.
const FILE_MODE: u32 = 0o640;
/// Between two times that the caller is asked whether a stalled target is still waited for.
const ASK: Duration = Duration::from_millis(250);
/// Before what is said to have room, and then takes nothing, is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// An open target.
#[derive(Debug)]
pub(super) struct File {
    pub(super) target: LogTarget,
    file: fs::File,
    /// It has a reader (a pipe, a terminal, a socket), which may stall.
    read: bool,
    /// Since when its reader has taken nothing.
    stalled: Option<Mono>,
    /// Part of a line stands at its end and could not be taken back.
    torn: bool,
}

/// What became of some lines.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Whole lines that the target took.
    pub(super) lines: u64,
    /// Why it took no more; `None` = it took all.
    pub(super) trouble: Option<Trouble>,
}

/// Why a target takes no more.
#[derive(Debug)]
pub(super) enum Trouble {
    Failed(io::Error),
    /// Its reader has stalled for so long that the caller has given it up.
    Stalled,
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
            LogTarget::File(path) => open(path).map_err(|e| {
                anyhow!(
                    "access log: cannot open {}: {e}; its folder must exist and be writable for \
                     this process' user (in a systemd unit: LogsDirectory=weir)",
                    path.display()
                )
            })?,
        };
        // What can't be asked is waited for like a disk.
        let read = file.metadata().is_ok_and(|meta| !meta.is_file());
        Ok(File { target: target.clone(), file, read, stalled: None, torn: false })
    }

    /// Writes `text`, whole lines, as far as the target takes them. While it is stalled, `gives_up`
    /// is asked several times a second whether to give it up; it is told since when.
    pub(super) fn write(&mut self, text: &[u8], gives_up: impl Fn(Mono) -> bool) -> Written {
        if self.torn && self.has_room(&gives_up) && self.file.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        let mut taken = 0;
        let trouble = loop {
            let rest = text.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break None;
            }
            if !self.has_room(&gives_up) {
                break Some(Trouble::Stalled);
            }
            // More could be waited for in the middle of the write.
            match self.file.write(if self.read { piece(rest) } else { rest }) {
                Ok(0) => break Some(Trouble::Failed(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    taken += n;
                    self.stalled = None;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(AGAIN),
                Err(e) => break Some(Trouble::Failed(e)),
            }
        };
        let taken = text.get(..taken).unwrap_or_default();
        let whole = taken.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        if whole < taken.len() {
            self.torn = !self.take_back((taken.len() - whole) as u64);
        }
        let lines = taken.iter().filter(|&&b| b == b'\n').count() as u64;
        Written { lines, trouble }
    }

    /// Waits for its reader; `false` when that is given up.
    fn has_room(&mut self, gives_up: impl Fn(Mono) -> bool) -> bool {
        if !self.read || sys::takes_bytes(self.file.as_fd()) {
            return true;
        }
        let since = *self.stalled.get_or_insert_with(clock::mono);
        while !gives_up(since) {
            if sys::takes_bytes_within(self.file.as_fd(), ASK) {
                return true;
            }
        }
        false
    }

    /// Takes the last `bytes` out of the file again, if they are its end; `false` when that can't
    /// be.
    fn take_back(&mut self, bytes: u64) -> bool {
        let Ok(meta) = self.file.metadata() else { return false };
        let ours = self.file.stream_position().is_ok_and(|at| at == meta.len());
        meta.is_file() && ours && self.file.set_len(meta.len().saturating_sub(bytes)).is_ok()
    }
}

/// The beginning of `text` that a pipe takes whole: whole lines as far as they fit, of a longer
/// line as much as fits. So lines of several writers don't mix, and what a reader finds ends with
/// one.
fn piece(text: &[u8]) -> &[u8] {
    let most = text.get(..sys::PIPE_BYTES).unwrap_or(text);
    let whole = most.iter().rposition(|&b| b == b'\n').and_then(|at| most.get(..=at));
    whole.unwrap_or(most)
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
        // With a reading end of our own it opens at once, and outlives its readers. Should others
        // write to it as well, no write may wait all the same.
        let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        return options.open(path);
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
        let written = file.write(b"a\nb\n", |_| true);
        assert!(written.lines == 2 && written.trouble.is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\na\nb\n");
        assert!(file.take_back(2));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\na\n");
        // Somebody else has written since: what stands at the end is not ours.
        file.write(b"c\n", |_| true);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"theirs\n").unwrap();
        assert!(!file.take_back(2));
    }

    #[test]
    fn a_full_disk_takes_nothing() {
        let mut file = File::open(&target(Path::new("/dev/full"))).unwrap();
        let written = file.write(b"a\n", |_| true);
        assert_eq!(written.lines, 0);
        let Some(Trouble::Failed(error)) = written.trouble else { panic!("it took all") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(!file.torn);
    }

    /// A reader that has stalled is waited for until it is given up; one that comes back gets whole
    /// lines.
    #[test]
    fn a_stalled_reader_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut file = File::open(&target(&path)).unwrap();
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        let text = line.repeat(1_000);
        let asked = std::cell::Cell::new(0);
        let gives_up = |_| asked.replace(asked.get() + 1) == 2;
        let written = file.write(&text, gives_up);
        assert!(matches!(written.trouble, Some(Trouble::Stalled)));
        assert_eq!(asked.get(), 3);
        assert!((4..1_000).contains(&written.lines), "{written:?}");
        // Who reads all that is there makes room.
        let mut reader = open(&path).unwrap();
        assert_eq!(drain(&mut reader), line.repeat(written.lines as usize));
        // A line that no pipe takes whole is torn.
        let mut long = vec![b'y'; 2 << 20];
        long.push(b'\n');
        let written = file.write(&long, |_| true);
        assert!(matches!(written.trouble, Some(Trouble::Stalled)) && file.torn, "{written:?}");
        assert!(drain(&mut reader).iter().all(|&b| b == b'y'));
        assert!(file.write(b"next\n", |_| true).trouble.is_none());
        assert_eq!(drain(&mut reader), b"\nnext\n");
    }

    #[test]
    fn pieces_end_with_lines() {
        let short = b"one\ntwo\n";
        assert_eq!(piece(short), short);
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        assert_eq!(piece(&line.repeat(9)), line.repeat(4));
        let long = [b'y'; 9_000];
        assert_eq!(piece(&long).len(), sys::PIPE_BYTES);
        // The rest of a long line goes with what follows it.
        let rest = [&long[..100], b"\n", line.as_slice(), long.as_slice()].concat();
        assert_eq!(piece(&rest).len(), 101 + line.len());
    }

    /// All that stands in a pipe now.
    fn drain(reader: &mut fs::File) -> Vec<u8> {
        let mut taken = Vec::new();
        let empty = io::Read::read_to_end(reader, &mut taken).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        taken
    }

    /// R13.1-1: a clear error.
    #[test]
    fn a_folder_that_is_not_there() {
        let error = File::open(&target(Path::new("/nonexistent/x.log"))).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("/nonexistent/x.log") && text.contains("must exist"), "{text}");
    }
}
