//! The process' side of the control socket: a thread that takes one request after the other and
//! hands it to control. Slow or silent callers are cut off; nothing here can hold up traffic.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use weir_core::net::sys;
use weir_core::time::clock;

use super::{MAX_LINE, Request, SOCKET, draft_path, socket_path};
use crate::server::{Answer, Asker, Wanted};
use crate::upgrade::Upgraded;

/// A caller that says nothing, or takes nothing, for so long is cut off.
const CALLER_LIMIT: Duration = Duration::from_secs(5);
/// A reload that takes longer than this is answered as unfinished: longer than two may take that
/// wait for first verdicts, since one may be under way.
const RELOAD_LIMIT: Duration = Duration::from_secs(120);
/// How long the end of the process waits for the answer of a caller to be written …
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// … and how often it looks.
const ANSWER_TICK: Duration = Duration::from_millis(1);
/// After a call that could not be taken (no descriptor is left) the thread rests for so long.
const REST: Duration = Duration::from_secs(1);

/// What to do about a `run_dir` that can't be used.
pub const CURE: &str = "set [runtime] run_dir to a folder of this process' user (in a systemd \
                        unit: RuntimeDirectory=weir)";

/// The bound socket; its file goes when this is dropped, also when the start fails.
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    file: Gone,
    closer: Closer,
}

/// Ends the thread that serves requests: another process answers from now on.
#[derive(Debug)]
pub struct Closer {
    closed: Arc<AtomicBool>,
    socket: UnixStream,
}

impl Closer {
    /// Takes no more callers.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        // Wakes the thread that waits for callers; one that is there already is still served.
        let _closed_already = self.socket.shutdown(Shutdown::Both);
    }
}

impl Desk {
    /// Binds the socket of `run_dir`, making the folder where it is missing.
    ///
    /// # Errors
    /// The folder or socket can't be made, or another process answers there; with the cure.
    pub fn bind(run_dir: &Path) -> Result<Desk> {
        let path = socket_path(run_dir);
        // A socket that nobody listens on is left from a process that was killed.
        if let Ok(other) = UnixStream::connect(&path) {
            let (who, end) = match sys::peer_pid(other.as_fd()) {
                Ok(pid) => (format!("process {pid}"), format!("kill {pid}")),
                Err(_) => ("another process".to_owned(), "kill PID".to_owned()),
            };
            bail!(
                "{who} listens on {} already. If it is a Weir that this one is to replace, stop it \
                 ({end}), or use weir upgrade; if both are to run, {CURE}",
                path.display()
            );
        }
        let mut desk = Desk::prepare(run_dir)?;
        desk.publish()?;
        Ok(desk)
    }

    /// Binds a socket that nobody finds before [`Desk::publish`], whoever listens there now.
    ///
    /// # Errors
    /// The folder or socket can't be made; with the cure.
    pub fn prepare(run_dir: &Path) -> Result<Desk> {
        let path = draft_path(run_dir);
        let made = make_folder(run_dir).map_err(|e| refused("make the folder", run_dir, &e))?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(refused("replace", &path, &e));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(|e| refused("bind", &path, &e))?;
        let file = Gone::of(path, made).context("control socket")?;
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", file.path.display()))?;
        let socket = OwnedFd::from(listener.try_clone().context("control socket")?).into();
        let closer = Closer { closed: Arc::default(), socket };
        Ok(Desk { listener, file, closer })
    }

    /// Takes the place of the socket that is there: no caller finds none.
    ///
    /// # Errors
    /// The folder can't be written any more.
    pub fn publish(&mut self) -> Result<()> {
        let path = self.file.path.with_file_name(SOCKET);
        fs::rename(&self.file.path, &path).map_err(|e| refused("replace", &path, &e))?;
        self.file.path = path;
        Ok(())
    }

    /// For the end of its service in this process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn closer(&self) -> Result<Closer> {
        let Closer { closed, socket } = &self.closer;
        let socket = socket.try_clone().context("control socket")?;
        Ok(Closer { closed: Arc::clone(closed), socket })
    }

    /// Serves requests on a thread of its own, as long as the process lives. `config` is the file
    /// that the process serves, as it was named. The returned guard takes the socket's file away.
    ///
    /// # Errors
    /// The thread can't be made.
    pub fn serve(self, config: PathBuf, asker: Asker) -> Result<Gone> {
        let Desk { listener, mut file, closer } = self;
        // It has started: the folder stays for the next start.
        file.made = Made::default();
        let attending = Arc::clone(&file.attending);
        let run = move || {
            for stream in listener.incoming() {
                if closer.closed.load(Relaxed) && stream.is_err() {
                    return;
                }
                let Ok(stream) = stream.inspect_err(|e| tracing::warn!("control socket: {e}"))
                else {
                    // The caller still waits in the queue: the next try would come at once.
                    std::thread::park_timeout(REST);
                    continue;
                };
                // A panic in there would end this thread, and with it the lock.
                let _answering = attending.lock().unwrap_or_else(PoisonError::into_inner);
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

/// What could not be done, the kernel's reason, and then the cure.
fn refused(what: &str, path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("cannot {what} {}: {error}; {CURE}", path.display())
}

/// Lets whoever is being answered have the answer when the process ends, and takes the socket's
/// file away, unless it is another one's by then.
#[derive(Debug)]
pub struct Gone {
    path: PathBuf,
    /// Held while a caller is attended to.
    attending: Arc<Mutex<()>>,
    /// Device and number of the file.
    identity: (u64, u64),
    /// Goes after the file, while the start may fail.
    made: Made,
}

/// Folders that this process has made, the lowest first. They go when this is dropped, as far as
/// nobody has put anything there.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _in_use = fs::remove_dir(folder);
        }
    }
}

impl Gone {
    fn of(path: PathBuf, made: Made) -> io::Result<Gone> {
        let identity = identity(&path)?;
        Ok(Gone { path, attending: Arc::default(), identity, made })
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        // Control has answered by now; the caller may not have been told yet.
        let until = clock::mono().plus(ANSWER_LIMIT);
        while matches!(self.attending.try_lock(), Err(TryLockError::WouldBlock))
            && clock::mono() < until
        {
            std::thread::park_timeout(ANSWER_TICK);
        }
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // What is left of it does no harm: the next process replaces it.
            let _left = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Makes the folder with those above it; returns which ones there were not.
fn make_folder(folder: &Path) -> io::Result<Made> {
    let missing = folder.ancestors().take_while(|one| !one.exists());
    let made = Made(missing.map(Path::to_owned).collect());
    if !made.0.is_empty() || !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    Ok(made)
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
        Ok(Request::Upgrade { config: wanted, program, patience }) => {
            let patience = patience.map(Duration::from_secs);
            let how = Wanted { program, patience };
            serde_json::to_string(&upgrade(wanted.as_deref(), config, how, asker))
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

/// What the process serves is not what the caller takes it to serve.
fn mistaken(wanted: Option<&Path>, config: &Path) -> Option<String> {
    let wanted = wanted.filter(|wanted| !is_same(config, wanted))?;
    Some(format!(
        "the process that listens here was started with {}, not with {}; give that file, or use \
         --pid",
        config.display(),
        wanted.display()
    ))
}

fn upgrade(wanted: Option<&Path>, config: &Path, how: Wanted, asker: &Asker) -> Upgraded {
    if let Some(mistake) = mistaken(wanted, config) {
        return Upgraded::refused(mistake);
    }
    let (reply, told) = mpsc::channel();
    if !asker.upgrade(how, reply) {
        return Upgraded::refused("the process is about to end");
    }
    // It comes: each step of an upgrade has its limit.
    told.recv().unwrap_or_else(|_| Upgraded::refused("the process has ended"))
}

fn reload(wanted: Option<&Path>, config: &Path, asker: &Asker) -> Answer {
    if let Some(mistake) = mistaken(wanted, config) {
        return Answer::refused(mistake);
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
        let me = format!("process {} listens on", std::process::id());
        assert!(refused.starts_with(&me) && refused.contains("stop it (kill "), "{refused}");
        assert!(refused.contains("run_dir"), "{refused}");
        drop(desk);
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left behind");
        // What somebody else has put there stays.
        let desk = Desk::bind(&run_dir).unwrap();
        fs::write(run_dir.join("file"), "").unwrap();
        drop(desk);
        assert!(run_dir.join("file").exists() && !socket_path(&run_dir).exists());
    }

    /// The new process' socket is there from one moment to the next, and stays when the old goes.
    #[test]
    fn a_socket_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let old = Desk::bind(folder.path()).unwrap();
        let mut new = Desk::prepare(folder.path()).unwrap();
        let path = socket_path(folder.path());
        drop(UnixStream::connect(&path).unwrap());
        assert!(old.listener.accept().is_ok(), "the old one answers");
        new.publish().unwrap();
        old.closer.close();
        assert!(old.listener.accept().is_err());
        drop(old);
        drop(UnixStream::connect(&path).unwrap());
        assert!(new.listener.accept().is_ok());
        drop(new);
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left");
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
        let (cause, cure) =
            (text.find("os error").unwrap(), text.find("RuntimeDirectory").unwrap());
        assert!(text.contains("/proc/weir") && cause < cure, "{text}");
    }
}
