//! Network namespaces for tests that need addresses, routes or packets of their own. A test runs
//! itself again inside one (`inside`), which is then the balancer's host; the hosts around it are
//! [`Namespace`]s, which vanish with the test however it ends. Needs root, or a user who may make
//! user namespaces.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::run;

/// Set in the run inside.
const INSIDE: &str = "WEIR_TEST_NAMESPACE";

/// True in the run that is inside a namespace, with loopback up. Outside it has that run made, of
/// the test with this name, and fails when that fails.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return true;
    }
    let mut command = Command::new("unshare");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt;
        meta.uid() == 0
    });
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(INSIDE, "1");
    let (code, out, err) = run(&mut command);
    assert_eq!(code, Some(0), "in a network namespace (root or user namespaces?):\n{out}{err}");
    assert!(out.contains("1 passed"), "there is no test {test}:\n{out}");
    false
}

/// Runs `ip` with these arguments, here.
pub fn ip(arguments: &str) {
    done(Command::new("ip").args(arguments.split(' ')));
}

/// Runs a command that has to succeed; what it printed.
pub fn done(command: &mut Command) -> String {
    let (code, out, err) = run(command);
    assert_eq!(code, Some(0), "{command:?}: {out}{err}");
    out
}

/// Another host, joined to this one by a cable.
pub struct Namespace {
    /// Lives as long as its input is open, and the namespace with it.
    holder: Child,
}

impl Namespace {
    /// With an interface of this name on our side of the cable (`eth0` on its own) and these
    /// addresses of ours and its, each with prefix length.
    pub fn join(name: &str, addresses: &[(&str, &str)]) -> Namespace {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        // It answers once it is inside.
        holder.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut answer = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        assert_eq!(answer, "\n", "unshare failed");
        let host = Namespace { holder };
        let id = host.holder.id();
        ip(&format!("link add {name} type veth peer name eth0 netns {id}"));
        ip(&format!("link set {name} up"));
        host.ip("link set lo up");
        host.ip("link set eth0 up");
        for (ours, its) in addresses {
            // Without waiting for the check that nobody else has an IPv6 address.
            let quick = if ours.contains(':') { " nodad" } else { "" };
            ip(&format!("address add {ours} dev {name}{quick}"));
            host.ip(&format!("address add {its} dev eth0{quick}"));
        }
        host
    }

    /// A process that is inside.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.id())).arg("--");
        command.arg(program.as_ref());
        command
    }

    /// Runs `ip` there.
    pub fn ip(&self, arguments: &str) {
        done(self.command("ip").args(arguments.split(' ')));
    }

    /// Python there, with the script of what hosts do and these arguments.
    pub fn host(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flows/host.py"));
        command.args(arguments);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _already_gone = self.holder.kill();
        let _already_reaped = self.holder.wait();
    }
}
