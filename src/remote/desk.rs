//! The process' side of the control socket: a thread that takes one request after the other and
//! hands it to control. Slow or silent callers are cut off; nothing here can hold up traffic.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use weir_core::time::clock;

use super::{MAX_LINE, Request, socket_path};
use crate::server::{Answer, Asker};

/// A caller that says nothing, or takes nothing, for so long is cut off.
const CALLER_LIMIT: Duration = Duration::from_secs(5);
/// A reload that takes longer than this is answered as unfinished: longer than two may take that
/// wait for first verdicts, since one may be under way.
const RELOAD_LIMIT: Duration = Duration::from_secs(120);
/// After a call that could not be taken (no descriptor is left) the thread rests for so long.
const REST: Duration = Duration::from_secs(1);

/// The bound socket; its file goes when this is dropped, also when the start fails.
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    file: Gone,
}

impl Desk {
    /// Binds the socket of `run_dir`, making the folder where it is missing.
    ///
    /// # Errors
    /// The folder or socket can't be made, or another process answers there; with the cure.
    pub fn bind(run_dir: &Path) -> Result<Desk> {
        let path = socket_path(run_dir);
        let cure = "set [runtime] run_dir to a folder of this process' user (in a systemd unit: \
                    RuntimeDirectory=weir)";
        make_folder(run_dir)
            .with_context(|| format!("cannot make the folder {}; {cure}", run_dir.display()))?;
        if UnixStream::connect(&path).is_ok() {
            bail!("another process listens on {}; {cure}", path.display());
        }
        // A socket that nobody listens on is left from a process that was killed.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e)
                    .with_context(|| format!("cannot replace {}; {cure}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("cannot bind {}; {cure}", path.display()))?;
        let file = Gone { path };
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", file.path.display()))?;
        Ok(Desk { listener, file })
    }

    /// Serves requests on a thread of its own, as long as the process lives. `config` is the file
    /// that the process serves, as it was named. The returned guard takes the socket's file away.
    ///
    /// # Errors
    /// The thread can't be made.
    pub fn serve(self, config: PathBuf, asker: Asker) -> Result<Gone> {
        let Desk { listener, file } = self;
        let run = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream.inspect_err(|e| tracing::warn!("control socket: {e}"))
                else {
                    // The caller still waits in the queue: the next try would come at once.
                    std::thread::park_timeout(REST);
                    continue;
                };
                if let Err(e) = attend(&stream, &config, &asker) {
                    tracing::warn!("control socket: {e}");
                }
            }
        };
        std::thread::Builder::new()
            .name("weir-desk".into())
            .spawn(run)
            .context("control socket")?;
        Ok(file)
    }
}

/// Takes the socket's file away when the process ends.
#[derive(Debug)]
pub struct Gone {
    path: PathBuf,
}

impl Drop for Gone {
    fn drop(&mut self) {
        // What is left of it does no harm: the next process replaces it.
        let _left = fs::remove_file(&self.path);
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// One caller, one request.
fn attend(stream: &UnixStream, config: &Path, asker: &Asker) -> io::Result<()> {
    stream.set_read_timeout(Some(CALLER_LIMIT))?;
    stream.set_write_timeout(Some(CALLER_LIMIT))?;
    let mut line = String::new();
    if BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)? == 0 {
        return Ok(()); // somebody only looked whether anybody listens
    }
    let text = match serde_json::from_str(&line) {
        Ok(Request::Reload { config: wanted }) => {
            serde_json::to_string(&reload(wanted.as_deref(), config, asker))
        }
        Ok(Request::Tables) => serde_json::to_string(&tables(asker)),
        Err(e) => serde_json::to_string(&Answer::refused(format!(
            "this is no request that this version knows: {e}"
        ))),
    };
    let mut text = text.map_err(io::Error::other)?;
    text.push('\n');
    let mut out = stream;
    out.write_all(text.as_bytes())
}

/// What each shard's table says, by the number of the shard.
fn tables(asker: &Asker) -> BTreeMap<usize, Vec<String>> {
    let (reply, told) = mpsc::channel();
    asker.show(reply);
    // Ends when the last shard has dropped its end.
    let until = clock::mono().plus(CALLER_LIMIT);
    std::iter::from_fn(|| told.recv_timeout(until.since(clock::mono())).ok()).collect()
}

/// Is `wanted`, an absolute path without links, the served file? Links are followed now: where the
/// name leads to another file than at the start, that is the one that a reload reads.
fn is_same(config: &Path, wanted: &Path) -> bool {
    wanted == config || fs::canonicalize(config).is_ok_and(|config| wanted == config)
}

fn reload(wanted: Option<&Path>, config: &Path, asker: &Asker) -> Answer {
    if let Some(wanted) = wanted
        && !is_same(config, wanted)
    {
        return Answer::refused(format!(
            "the process that listens here was started with {}, not with {}; give that file, or \
             use --pid",
            config.display(),
            wanted.display()
        ));
    }
    let (reply, told) = mpsc::channel();
    if !asker.reload(reply) {
        return Answer::refused("the process is about to end".to_owned());
    }
    told.recv_timeout(RELOAD_LIMIT).unwrap_or_else(|_| {
        let limit = RELOAD_LIMIT.as_secs();
        Answer::refused(format!("no shard's word after {limit} s; the process' log has the rest"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("a/b");
        let desk = Desk::bind(&run_dir).unwrap();
        let mode = fs::metadata(&desk.file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(&run_dir).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = Desk::bind(&run_dir).unwrap_err().to_string();
        assert!(refused.contains("another process") && refused.contains("run_dir"), "{refused}");
        drop(desk);
        assert!(!socket_path(&run_dir).exists(), "it leaves nothing behind");
    }

    #[test]
    fn a_socket_of_the_dead_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(socket_path(folder.path())).unwrap());
        assert!(socket_path(folder.path()).exists());
        Desk::bind(folder.path()).unwrap();
    }

    /// Configurations are often exchanged by turning a link to another file.
    #[test]
    fn the_file_is_known_by_its_name_where_links_turn() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        for name in ["one", "two", "other"] {
            fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
        assert!(is_same(&at("link"), &at("one")) && !is_same(&at("link"), &at("other")));
        fs::remove_file(at("link")).unwrap();
        std::os::unix::fs::symlink(at("two"), at("link")).unwrap();
        assert!(is_same(&at("link"), &at("two")) && !is_same(&at("link"), &at("one")));
        assert!(is_same(&at("gone"), &at("gone")));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let text = format!("{:#}", Desk::bind(Path::new("/proc/weir")).unwrap_err());
        assert!(text.contains("/proc/weir") && text.contains("RuntimeDirectory"), "{text}");
    }
}
