//! A running `weir serve` that is replaced by `weir upgrade`, again and again.

use std::ops::Deref;
use std::process::Command;

use super::{Server, run, weir};

/// A process that is replaced again and again. All that serve in its place are ended by their ids.
pub struct Line {
    pub server: Server,
    /// In the order of their service.
    pub pids: Vec<u32>,
}

impl Line {
    /// Starts the first one.
    pub fn start(text: &str) -> Line {
        Line::of(Server::start(text))
    }

    /// With the first one, which runs already.
    pub fn of(server: Server) -> Line {
        let pids = vec![server.pid()];
        Line { server, pids }
    }

    /// `weir upgrade` with these arguments, too; exit code, stdout and stderr.
    pub fn try_upgrade(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = weir();
        command.args(["upgrade", "--config"]).arg(&self.server.file.path).args(args);
        run(&mut command)
    }

    /// The next process, which serves.
    pub fn upgrade(&mut self, args: &[&str]) -> u32 {
        let (code, out, err) = self.try_upgrade(args);
        assert_eq!(code, Some(0), "{out}{err}");
        let pid = pid_in(&out);
        assert!(!self.pids.contains(&pid) && is_alive(pid), "{out}");
        self.pids.push(pid);
        pid
    }

    /// The process that serves now.
    pub fn last(&self) -> u32 {
        *self.pids.last().unwrap()
    }
}

/// What asks the server asks whoever serves in its place: both have the same file and addresses.
impl Deref for Line {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Also those of which nobody took note, because a test failed before: the file is in a
        // folder of this test's own, so whoever serves it was started by this test.
        let path = self.server.file.path.to_str().unwrap().as_bytes();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_str().unwrap_or_default().parse() else { continue };
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if words.windows(path.len()).any(|part| part == path) {
                kill(pid);
            }
        }
    }
}

fn kill(pid: u32) {
    // It may have ended meanwhile.
    let command = ["-c", "kill -KILL $0 2>&-", &pid.to_string()];
    let _gone = Command::new("sh").args(command).status();
}

/// The number in what `weir upgrade` says: `process 123 serves after …`.
pub fn pid_in(text: &str) -> u32 {
    let pid = text.split_once("process ").unwrap_or_else(|| panic!("no process in {text}")).1;
    pid.split(' ').next().unwrap().parse().unwrap()
}

/// Does it run? What its parent has not looked after is dead all the same.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}
