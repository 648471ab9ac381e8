//! The flags of `drill`, and what they mean as a [`Drill`]: which deed, and what undoes it. Reads
//! the files that the drill is to replace, and has a certificate issued where that is needed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::load::{
    DURATION, JudgeArgs, LoadArgs, Paced, ReportArgs, WaitArgs, WatchArgs, conditions,
};
use super::values::{Rate, parse_constant};
use crate::drill::rotation::{self, Pair};
use crate::drill::{Change, Deed, Drill, Effect, Kind, Program, Replacement, Way, weights};
use crate::plan::Plan;
use crate::target::Target;
use crate::units;
use crate::verdict::{FailIf, Job};

/// Flags of `drill`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Drill")]
pub struct DrillArgs {
    /// kill-member, reload, rotate-cert, upgrade or drain
    #[arg(value_name = "WHAT", value_parser = Kind::parse, help_heading = None::<&str>)]
    pub kind: Kind,
    /// When it happens, from the beginning of the measured window
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = units::parse_duration)]
    pub at: Duration,
    /// How long until it is undone, where it can be
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = units::parse_duration)]
    pub undo_after: Duration,
    /// A command of the shell that does it
    #[arg(long = "do", value_name = "COMMAND")]
    pub deed: Option<String>,
    /// A command of the shell that undoes what --do did
    #[arg(long, value_name = "COMMAND")]
    pub undo: Option<String>,
    /// The configuration file that the running Weir serves: for drain, and in place of --pid for
    /// reload and upgrade
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Weir's program, which is asked to reload, to upgrade, and to make certificates
    #[arg(long, value_name = "FILE", default_value = "weir")]
    pub weir: PathBuf,
    /// Upgrade to this program [default: what stands under the name of the running one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// The member to drain: its name, or ADDRESS:PORT [default: the first of --serve]
    #[arg(long, value_name = "MEMBER")]
    pub member: Option<String>,
    /// The certificate's file to rotate, which the balancer reads anew when it changes
    #[arg(long, value_name = "FILE", requires = "private_key")]
    pub certificate: Option<PathBuf>,
    /// Its key's file
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub private_key: Option<PathBuf>,
    /// The certificate that takes its place [default: one for the same names, by weir gencert]
    #[arg(long, value_name = "FILE", requires = "new_private_key")]
    pub new_certificate: Option<PathBuf>,
    /// The key of that one
    #[arg(long, value_name = "FILE", requires = "new_certificate")]
    pub new_private_key: Option<PathBuf>,
    /// The folder of the CA (ca.pem, ca.key) that issues it [default: the certificate's]
    #[arg(long, value_name = "DIR", conflicts_with = "new_certificate")]
    pub authority: Option<PathBuf>,
    /// Requests a second, each due at its exact time; latencies count from then. 10k is 10000
    #[arg(long, short = 'r', value_name = "N", value_parser = parse_constant)]
    #[arg(help_heading = "Load")]
    pub rate: u64,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// When it begins.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Whom to watch.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Where the report goes.
    #[command(flatten)]
    pub report: ReportArgs,
    /// The exit code.
    #[command(flatten)]
    pub judge: JudgeArgs,
}

/// What is done, and what undoes it.
type Deeds = (Deed, Option<Deed>);

impl DrillArgs {
    /// The drill that the flags describe.
    ///
    /// # Errors
    /// What is missing, or can't be read; with the cure.
    pub fn drill(&self) -> Result<Drill, String> {
        if self.at >= self.load.time.duration.unwrap_or(DURATION) {
            return Err("--at must be within --duration".into());
        }
        let (deed, undo) = match (&self.deed, &self.undo) {
            (Some(command), undo) => (Deed::Shell(command.clone()), undo.clone().map(Deed::Shell)),
            // In place of the deed's own undo it would leave changed files behind.
            (None, Some(_)) => {
                return Err(
                    "--undo undoes what --do does: give --do, too, or leave --undo out".into()
                );
            }
            (None, None) => self.own_deed()?,
        };
        Ok(Drill { kind: self.kind, deed, at: self.at, undo, after: self.undo_after })
    }

    /// The plan that the flags ask for, and the conditions of failure. Reads the body file.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub fn plan(self) -> Result<(Plan, Vec<FailIf>), String> {
        let (mut load, mut fail_if) = (self.load, self.judge.fail_if);
        conditions(&mut load.urls, &mut fail_if)?;
        let rate = Some(Rate(self.rate, None));
        let plan = load.plan(Paced { rate, pids: self.watch.pids, ..Paced::default() })?;
        fail_if.iter().try_for_each(|condition| condition.fits(Job::Drill, &plan))?;
        Ok((plan, fail_if))
    }

    /// What loadgen does by itself.
    fn own_deed(&self) -> Result<Deeds, String> {
        match self.kind {
            Kind::KillMember if self.load.members.serve.is_empty() => {
                Err("kill-member needs members of ours (--serve ADDR), or --do".into())
            }
            Kind::KillMember => Ok((Deed::Kill, Some(Deed::Revive))),
            Kind::Reload => self.reload(),
            Kind::Upgrade => self.upgrade(),
            Kind::Drain => self.drain(),
            Kind::RotateCert => self.rotate(),
        }
    }

    fn reload(&self) -> Result<Deeds, String> {
        let deed = match (&self.config, self.watch.pids.first()) {
            (Some(config), _) => Deed::Change(Change::by(self.reloading(config))),
            (None, Some(&pid)) => Deed::Signal("HUP", pid),
            (None, None) => return Err("reload needs --config, --pid, or --do".into()),
        };
        Ok((deed, None))
    }

    fn upgrade(&self) -> Result<Deeds, String> {
        let mut args: Vec<OsString> = vec!["upgrade".into()];
        match (&self.config, self.watch.pids.first()) {
            (Some(config), _) => args.extend(["--config".into(), config.into()]),
            (None, Some(pid)) => args.extend(["--pid".into(), pid.to_string().into()]),
            (None, None) => return Err("upgrade needs --config, --pid, or --do".into()),
        }
        if let Some(program) = &self.program {
            args.extend(["--program".into(), program.into()]);
        }
        Ok((Deed::Change(Change::by(self.weir(args))), None))
    }

    fn drain(&self) -> Result<Deeds, String> {
        let config = self.config.as_deref();
        let config = config.ok_or("drain needs --config, the file of the running Weir, or --do")?;
        let first = self.load.members.serve.first().map(ToString::to_string);
        let member = self.member.clone().or(first);
        let member = member.ok_or("drain needs the --member that is to get nothing, or --do")?;
        let wrong = |why: String| format!("--config {}: {why}", config.display());
        let former = std::fs::read_to_string(config).map_err(|error| wrong(error.to_string()))?;
        let drained = weights::drained(&former, &member).map_err(wrong)?;
        let change = |from: &str, to: &str, way: Way| {
            let (from, to) = (from.as_bytes().to_vec(), to.as_bytes().to_vec());
            let files = vec![Replacement { path: config.to_path_buf(), from, to }];
            Deed::Change(Change { files, effect: self.reloading(config), way })
        };
        let undo = change(&drained, &former, Way::Back);
        Ok((change(&former, &drained, Way::Forth), Some(undo)))
    }

    fn rotate(&self) -> Result<Deeds, String> {
        let pair = |certificate: &Option<PathBuf>, private_key: &Option<PathBuf>| {
            let (certificate, private_key) = (certificate.clone()?, private_key.clone()?);
            Some(Pair { certificate, private_key })
        };
        let place = pair(&self.certificate, &self.private_key).ok_or(
            "rotate-cert needs --certificate and --private-key, the files of the listener, or --do",
        )?;
        let url = self.load.urls.first().ok_or("there is no URL to test; try loadgen --help")?;
        let target = Target::parse(url)?;
        let tls = self.load.tls.clone().options();
        let new = match pair(&self.new_certificate, &self.new_private_key) {
            Some(new) => new.read()?,
            None => {
                let beside = place.certificate.parent().unwrap_or(Path::new("."));
                let authority = self.authority.as_deref().unwrap_or(beside);
                rotation::issue(&self.weir, authority, &place, tls.name(&target))?
            }
        };
        let (deed, undo) = rotation::changes(&place, new, &target, &tls)?;
        Ok((Deed::Change(deed), Some(Deed::Change(undo))))
    }

    fn reloading(&self, config: &Path) -> Effect {
        self.weir(vec!["reload".into(), "--config".into(), config.into()])
    }

    fn weir(&self, args: Vec<OsString>) -> Effect {
        Effect::Program(Program { path: self.weir.clone(), args })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn drill(args: &[&str]) -> Result<Drill, String> {
        let all = ["loadgen", "drill"].iter().chain(args);
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        let Some(Command::Drill(args)) = cli.command else { panic!("no drill") };
        args.drill()
    }

    fn program(deed: &Deed) -> Vec<String> {
        let Deed::Change(Change { effect: Effect::Program(program), .. }) = deed else {
            panic!("{deed:?}")
        };
        let args = program.args.iter().map(|arg| arg.to_str().unwrap().to_string());
        std::iter::once(program.path.to_str().unwrap().to_string()).chain(args).collect()
    }

    #[test]
    fn deeds_follow_the_flags() {
        let deed = |args: &[&str]| {
            let drill = drill(&[args, &["http://h/", "--rate", "9"]].concat()).unwrap();
            (drill.deed, drill.undo)
        };
        let (kill, undo) = deed(&["kill-member", "--serve", "127.0.0.1:1"]);
        assert!(matches!((kill, undo), (Deed::Kill, Some(Deed::Revive))));
        let (shell, undo) = deed(&["drain", "--do", "a", "--undo", "b"]);
        assert!(matches!((shell, undo), (Deed::Shell(a), Some(Deed::Shell(b))) if a < b));
        assert!(matches!(deed(&["reload", "--pid", "7"]).0, Deed::Signal("HUP", 7)));
        let reload = deed(&["reload", "--config", "c", "--weir", "w"]).0;
        assert_eq!(program(&reload), ["w", "reload", "--config", "c"]);
        let upgrade = deed(&["upgrade", "--pid", "7", "--program", "p"]).0;
        assert_eq!(program(&upgrade), ["weir", "upgrade", "--pid", "7", "--program", "p"]);
    }

    #[test]
    fn a_drain_writes_the_file_and_puts_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.toml");
        let text = "[[pool]]\nname='p'\nmembers=[{name='m',address='::1',protocol_port=80}]\n";
        std::fs::write(&path, text).unwrap();
        let config = path.to_str().unwrap();
        for member in ["m", "[::1]:80"] {
            let args =
                ["drain", "http://h/", "--rate", "9", "--config", config, "--member", member];
            let drill = drill(&args).unwrap();
            assert_eq!(program(&drill.deed), ["weir", "reload", "--config", config]);
            let text_of = |deed: &Deed| {
                let Deed::Change(change) = deed else { panic!("{deed:?}") };
                String::from_utf8(change.files[0].to.clone()).unwrap()
            };
            assert_eq!(text_of(drill.undo.as_ref().unwrap()), text);
            assert!(text_of(&drill.deed).contains("weight = 0"));
        }
    }

    #[test]
    fn what_is_missing_is_told_with_its_cure() {
        for (args, part) in [
            (&["kill-member"][..], "--serve"),
            (&["reload"], "--config, --pid"),
            (&["upgrade"], "--config, --pid"),
            (&["drain"], "--config"),
            (&["drain", "--config", "/does/not/exist"], "--member"),
            (&["drain", "--config", "/does/not/exist", "--member", "m"], "/does/not/exist"),
            (&["rotate-cert"], "--certificate"),
            (&["rotate-cert", "--certificate", "x"], "--private-key"),
            (&["kill-member", "--serve", "127.0.0.1:1", "--undo", "true"], "give --do"),
            (&["reload", "--pid", "1", "--at", "11s"], "within --duration"),
            (&["reload", "--pid", "1", "-n", "9"], "unexpected argument '-n'"),
            (&["reload", "--pid", "1", "--direct", "http://h/"], "unexpected argument '--direct'"),
            (&["reload", "--pid", "1", "--rounds", "3"], "unexpected argument '--rounds'"),
        ] {
            let all = [args, &["http://h/", "--rate", "9"]].concat();
            let why = drill(&all).unwrap_err();
            assert!(why.contains(part), "{args:?}: {why}");
        }
        assert!(drill(&["reload", "h", "--pid", "1"]).unwrap_err().contains("--rate"));
        let changing = drill(&["reload", "h", "--pid", "1", "--rate", "1..9"]).unwrap_err();
        assert!(changing.contains("constant rate"), "{changing}");
    }
}
