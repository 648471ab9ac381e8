//! The control socket: how `weir reload` and `weir upgrade` reach the running process. A
//! Unix socket in `run_dir`, for the process' own user alone; one line of JSON asks, one line
//! answers. [`desk`] is the process' side, [`call`] the command's.

pub mod call;
pub mod desk;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the socket in `run_dir`.
pub const SOCKET: &str = "control.sock";
/// Its name until it is found there.
const DRAFT: &str = "control.sock.new";
/// Longest line that either side takes, in bytes.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// What a command asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Read the file again.
    Reload {
        /// The file that the process is expected to serve, absolute; `None` = whichever it is.
        config: Option<PathBuf>,
    },
    /// Replace the program.
    Upgrade {
        /// As for `Reload`.
        config: Option<PathBuf>,
        /// The program to start, absolute; `None` = the one that runs, by its name.
        program: Option<PathBuf>,
        /// How long it may take to get ready, in seconds; `None` = the process knows.
        patience: Option<u64>,
    },
    /// Tell what each shard's table says.
    Tables,
}

/// Where a socket is bound that is to take the place of another one. The kernel's tables show this
/// name for ever.
fn draft_path(run_dir: &Path) -> PathBuf {
    run_dir.join(DRAFT)
}

/// Where a process with this `run_dir` listens.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}
