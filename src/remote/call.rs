//! The command's side of the control socket: finds the running process, asks, prints the answer.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use weir_core::net::sys;
use weir_core::time::clock;

use super::{DRAFT, MAX_LINE, Request, SOCKET, socket_path};
use crate::logging;
use crate::server::Answer;
use crate::upgrade::Upgraded;

/// Longer than the process takes for its last answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(150);

/// How often it is looked whether a process that says nothing is stopped.
const LOOK: Duration = Duration::from_secs(5);

/// Which process is meant.
#[derive(Clone, Debug)]
pub enum Whom {
    /// The one that serves this file.
    Config(PathBuf),
    /// The one with this id.
    Pid(u32),
}

/// `weir reload`: has the process read its file again; returns when that is in effect on every
/// shard.
///
/// # Errors
/// No such process, or the file was refused: nothing has changed then.
pub fn reload(whom: &Whom) -> Result<()> {
    let (socket, config) = find(whom)?;
    let answer: Answer = ask(&socket, &Request::Reload { config }, ANSWER_LIMIT)?;
    if let Some(error) = answer.error {
        bail!("nothing changed: {error}");
    }
    if answer.changes.is_empty() {
        logging::answer("no change in what is served");
    }
    for line in answer.changes {
        logging::answer(line);
    }
    for line in answer.notes {
        logging::answer(format_args!("note: {line}"));
    }
    logging::answer(format_args!(
        "version {} is effective on all shards after {:.1} ms",
        answer.version, answer.effective_ms
    ));
    Ok(())
}

/// `weir upgrade`: has the process replaced by another one; returns when that one serves.
///
/// # Errors
/// No such process, or the new one could not take over: the running one serves on.
pub fn upgrade(whom: &Whom, program: Option<&Path>, patience: Option<u64>) -> Result<()> {
    let (socket, config) = find(whom)?;
    let program = program
        .map(|path| fs::canonicalize(path).with_context(|| path.display().to_string()))
        .transpose()?;
    let request = Request::Upgrade { config, program, patience };
    let limit = ANSWER_LIMIT + Duration::from_secs(patience.unwrap_or_default());
    let upgraded: Upgraded = ask(&socket, &request, limit)?;
    if let Some(error) = upgraded.error {
        bail!("no upgrade, the running process serves on: {error}");
    }
    logging::answer(format_args!(
        "process {} serves after {:.1} ms; the former one ends with its last connection",
        upgraded.pid, upgraded.effective_ms
    ));
    Ok(())
}

/// The control socket of the process that is meant, and the file that it is to serve.
fn find(whom: &Whom) -> Result<(PathBuf, Option<PathBuf>)> {
    match whom {
        Whom::Config(path) => {
            let loaded = weir_core::config::load(path).map_err(|mistakes| {
                logging::say(mistakes.to_string().trim_end());
                // Without a place it is the file itself.
                let is_read = mistakes.problems().iter().any(|one| one.line > 0);
                let why = if is_read { "the file has mistakes" } else { "the file can't be read" };
                anyhow!("nothing changed: {why}, the process was not asked")
            })?;
            let run_dir = loaded.config.runtime.run_dir;
            let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
            Ok((socket_path(&run_dir), Some(path)))
        }
        Whom::Pid(pid) => Ok((socket_of(*pid)?, None)),
    }
}

fn ask<T: DeserializeOwned>(socket: &Path, request: &Request, limit: Duration) -> Result<T> {
    let mut stream = UnixStream::connect(socket).map_err(|e| {
        anyhow!(
            "no running process is reached by {}: {e}. Is it running, does its [runtime] run_dir \
             say the same, and is this the user that it runs as? Where run_dir was changed in the \
             file since it began, name the process itself: --pid PID",
            socket.display()
        )
    })?;
    let text = serde_json::to_string(request)? + "\n";
    stream.write_all(text.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write))?;
    let line = answer(&stream, limit)?;
    serde_json::from_slice(&line).context("the process' answer is not understood")
}

/// The line that a process answers with.
///
/// # Errors
/// It says nothing for so long, or is stopped; it will do what it was asked when it goes on.
fn answer(stream: &UnixStream, limit: Duration) -> Result<Vec<u8>> {
    let pid = sys::peer_pid(stream.as_fd()).context("control socket")?;
    stream.set_read_timeout(Some(LOOK.min(limit)))?;
    let mut reader = BufReader::new(stream.take(MAX_LINE));
    let (mut line, until) = (Vec::new(), clock::mono().plus(limit));
    loop {
        match reader.read_until(b'\n', &mut line) {
            Ok(_) if line.is_empty() => bail!("process {pid} has ended before it answered"),
            Ok(_) => return Ok(line),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e).with_context(|| format!("the answer of process {pid}")),
        }
        if is_stopped(pid) {
            bail!(
                "process {pid} does not answer: it is stopped (SIGSTOP, or a debugger). It has \
                 the request, and does what it asks for when it goes on: kill -CONT {pid}"
            );
        }
        if clock::mono() >= until {
            bail!(
                "process {pid} has not answered for {} s. It has the request, and may still do \
                 what it asks for; its log has the rest",
                limit.as_secs()
            );
        }
    }
}

/// Is it stopped by a signal or a debugger?
fn is_stopped(pid: u32) -> bool {
    // PID (NAME) STATE …, and a name may have brackets of its own.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

/// The control socket that a process listens on: one of its descriptors is that socket.
fn socket_of(pid: u32) -> Result<PathBuf> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).map_err(|e| {
        anyhow!("cannot look at process {pid}: {e}. Is it running, and is this its user?")
    })?;
    let sockets: Vec<String> = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
            Some(link)
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).context("/proc/net/unix")?;
    // Num RefCount Protocol Flags Type St Inode Path
    let path = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        let (inode, path) = (fields.next()?, Path::new(fields.next()?));
        let mine = sockets.iter().any(|socket| socket == inode);
        let is_ours = |name| name == SOCKET || name == DRAFT;
        let found = mine && path.file_name().is_some_and(is_ours);
        // By the name that it was given when it was there.
        found.then(|| path.with_file_name(SOCKET))
    });
    path.ok_or_else(|| {
        anyhow!(
            "process {pid} has no control socket. If it is a running `weir serve`, its log says \
             why, and SIGHUP reloads all the same: kill -HUP {pid}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_socket_is_told_so() {
        let text = socket_of(std::process::id()).unwrap_err().to_string();
        assert!(text.contains("no control socket") && text.contains("kill -HUP"), "{text}");
        let text = socket_of(u32::MAX).unwrap_err().to_string();
        assert!(text.contains("cannot look at process"), "{text}");
    }

    #[test]
    fn nobody_at_the_socket_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("none.sock");
        let asked = ask::<Answer>(&socket, &Request::Reload { config: None }, ANSWER_LIMIT);
        let text = asked.unwrap_err().to_string();
        assert!(text.contains("none.sock") && text.contains("run_dir"), "{text}");
        assert!(text.contains("--pid PID"), "{text}");
    }

    /// Who says nothing is given up after the limit, and who ends without a word at once.
    #[test]
    fn a_process_that_says_nothing_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("mute.sock");
        let mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let ask = |limit| ask::<Answer>(&socket, &Request::Reload { config: None }, limit);
        let text = ask(Duration::from_millis(50)).unwrap_err().to_string();
        let me = format!("process {}", std::process::id());
        assert!(text.contains(&me) && text.contains("has not answered"), "{text}");
        let caller = std::thread::spawn(move || {
            drop(mute.accept().unwrap());
            let (stream, _) = mute.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        });
        let text = ask(ANSWER_LIMIT).unwrap_err().to_string();
        assert!(text.contains("has ended before it answered"), "{text}");
        caller.join().unwrap();
    }
}
