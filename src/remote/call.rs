//! The command's side of the control socket: finds the running process, asks, prints the answer.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use super::{DRAFT, MAX_LINE, Request, SOCKET, socket_path};
use crate::logging;
use crate::server::Answer;
use crate::upgrade::Upgraded;

/// Longer than the process takes for its last answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(150);

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
                anyhow!("nothing changed: the file has mistakes, the process was not asked")
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
             say the same, and is this the user that it runs as?",
            socket.display()
        )
    })?;
    stream.set_read_timeout(Some(limit))?;
    let text = serde_json::to_string(request)? + "\n";
    let mut line = String::new();
    stream.write_all(text.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write))?;
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut line).context("the process' answer")?;
    serde_json::from_str(&line).context("the process' answer is not understood")
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
    }
}
