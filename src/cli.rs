//! The command line. Owns the grammar and the exit codes; runs nothing itself.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::build_info;
use crate::gencert;
use crate::remote::call::Whom;

/// Exit code for a bad file or a failed start.
pub const EXIT_FAILED: u8 = 1;
/// Exit code for a bad command line (clap uses the same).
pub const EXIT_USAGE: u8 = 2;

/// An elastic load balancer for bare-metal Linux.
#[derive(Debug, Parser)]
#[command(name = "weir", version = build_info::LONG_VERSION, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the load balancer in the foreground
    ///
    /// SIGTERM and SIGINT drain and stop, a second one stops at once. Exit code 0 after a clean
    /// drain, 1 when the start failed or connections had to be cut.
    Serve {
        /// The configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Append the keys of all TLS sessions to this file, for debugging: whoever reads it can
        /// read the traffic
        #[arg(long, value_name = "FILE")]
        tls_key_log: Option<PathBuf>,
    },
    /// Validate a configuration file: exit code 0, or 1 with every error and its place
    ///
    /// Asks this machine, too: cores, addresses, rights, and whether logs and run_dir could be
    /// written; not whether a port is in use. Starts, makes and binds nothing that would stay.
    Check {
        /// The configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The file is for another machine: don't ask whether this one has its cores, addresses,
        /// rights and folders
        #[arg(long)]
        elsewhere: bool,
    },
    /// Show the balancer at work on loopback: no configuration, no other program
    Demo {
        /// How long to put it under load
        #[arg(long, value_name = "N", default_value_t = 10,
              value_parser = clap::value_parser!(u64).range(3..=25))]
        seconds: u64,
    },
    /// Ask the running process to reload its file: waits, and prints what changed
    ///
    /// All or nothing: a bad file changes nothing. Exit code 0 once every shard follows the new
    /// file, 1 when it was refused or no process was found.
    Reload(Running),
    /// Replace the running program: the new one takes over the sockets, no connection is lost
    ///
    /// Waits until the new process serves. Exit code 0 then; 1 when it could not take over, and the
    /// running one serves on as before.
    Upgrade {
        /// Which process is meant.
        #[command(flatten)]
        whom: Running,
        /// The program to start, with the arguments of the running one; without it, what stands
        /// now under the name by which the running one was started
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
        /// Seconds that it may take to get ready; without it 81: half a minute beside the longest
        /// that the first answer of a member may take
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: Option<u64>,
    },
    /// Make certificates for trying things out: a CA, and what it issues
    ///
    /// Keys are files that only this user can read. Never overwrites a file without --force.
    Gencert {
        /// What to make
        #[command(subcommand)]
        what: gencert::What,
    },
    /// Show the state of the running process (not supported yet)
    Status(Later),
    /// Look for the cause of a problem (not supported yet)
    Diagnose(Later),
    /// Show or set quotas (not supported yet)
    Quota(Later),
}

/// Which running process is meant.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Running {
    /// The one that serves this configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The one with this process id
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

impl From<Running> for Whom {
    fn from(running: Running) -> Whom {
        match (running.config, running.pid) {
            (Some(path), _) => Whom::Config(path),
            // The grammar asks for one of the two; no process has id 0.
            (None, pid) => Whom::Pid(pid.unwrap_or_default()),
        }
    }
}

/// The arguments of a command that does not exist yet: anything is taken, nothing is done.
#[derive(Debug, clap::Args)]
pub struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _ignored: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_have_a_range() {
        assert!(Cli::try_parse_from(["weir", "demo", "--seconds", "3"]).is_ok());
        for bad in ["0", "26", "-1", "x"] {
            assert!(Cli::try_parse_from(["weir", "demo", "--seconds", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn later_commands_take_any_argument() {
        let cli = Cli::try_parse_from(["weir", "status", "--pid", "1", "--config=x"]).unwrap();
        assert!(matches!(cli.command, Command::Status(_)));
    }

    #[test]
    fn reload_and_upgrade_want_one_process() {
        assert!(Cli::try_parse_from(["weir", "reload", "--pid", "1"]).is_ok());
        assert!(Cli::try_parse_from(["weir", "reload", "--config", "x"]).is_ok());
        assert!(Cli::try_parse_from(["weir", "reload"]).is_err());
        assert!(Cli::try_parse_from(["weir", "upgrade", "--pid", "1", "--program", "x"]).is_ok());
        assert!(Cli::try_parse_from(["weir", "upgrade", "--timeout", "5"]).is_err());
        assert!(Cli::try_parse_from(["weir", "reload", "--pid", "1", "--config", "x"]).is_err());
    }
}
