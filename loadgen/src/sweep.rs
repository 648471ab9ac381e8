//! `loadgen sweep`: several configurations of Weir, each started, searched for its knee and stopped
//! again; a table, and the best one. Owns the started processes. Called by `commands`.

mod finals;

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};
use weir_core::time::clock::mono;

pub use self::finals::Finals;
use self::finals::two_best;
use crate::admin::pause;
use crate::control::Control;
use crate::engine::RunError;
use crate::knee::{self, Knee, Search, Try};
use crate::limits;
use crate::live::{Second, Snapshot};
use crate::plan::{CpuOf, Plan, TlsOptions};
use crate::target::Target;
use crate::units;
use crate::verdict::FailIf;

/// What came of all configurations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Name and version of this form.
    pub schema: String,
    /// Each configuration, in the order in which they were given.
    pub entries: Vec<Entry>,
    /// The file of the best one: by the final turns, otherwise the highest rate, then the least
    /// processor time.
    pub best: Option<PathBuf>,
    /// The two best in turn, where there are two.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finals: Option<Finals>,
    /// The first rate straight at a member, without a balancer, where there is one of ours: what
    /// this machine can do at all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direct: Option<Try>,
}

/// One configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its file.
    pub config: PathBuf,
    /// What the search found, or …
    pub knee: Option<Knee>,
    /// … why there was none.
    pub failure: Option<String>,
}

/// What is swept.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Weir's program.
    pub weir: PathBuf,
    /// Its files.
    pub configs: Vec<PathBuf>,
    /// The objective.
    pub slo: Vec<FailIf>,
    /// Where each search begins, and how it ends.
    pub search: Search,
    /// A member of ours that answers HTTP without a balancer.
    pub direct: Option<SocketAddr>,
}

/// A started balancer; stopped when dropped.
struct Balancer {
    child: Child,
    /// What it says; a file without a name.
    said: File,
}

impl Balancer {
    fn start(weir: &Path, config: &Path) -> Result<Balancer, String> {
        let mut command = Command::new(weir);
        command.arg("serve").arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let told = |error: io::Error| format!("cannot start {}: {error}", weir.display());
        let said = nameless().map_err(told)?;
        command.stderr(said.try_clone().map_err(told)?);
        let child = command.spawn().map_err(told)?;
        Ok(Balancer { child, said })
    }

    /// The last that it said, a line below the other; what it does in order is left out.
    fn last_words(&self) -> String {
        let mut tail = [0; 2_048];
        let length = self.said.metadata().map_or(0, |meta| meta.len());
        let from = length.saturating_sub(tail.len() as u64);
        // What can't be read says nothing.
        let taken = self.said.read_at(&mut tail, from).unwrap_or(0);
        let text = String::from_utf8_lossy(&tail[..taken]);
        let lines = text.lines().filter(|line| !line.contains(" INFO ") && !line.is_empty());
        lines.map(|line| format!("\n    {line}")).collect()
    }

    /// Waits until somebody listens at the target; told apart from a program that ended.
    fn wait(&mut self, plan: &Plan, control: &Control) -> Result<(), String> {
        let addr = plan.target.resolve()?;
        let until = mono().plus(limits::START_LIMIT);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let words = self.last_words();
                return Err(format!("it ended at once ({status}); try weir check --config{words}"));
            }
            if std::net::TcpStream::connect_timeout(&addr, limits::START_LIMIT).is_ok() {
                return Ok(());
            }
            if mono() >= until || control.is_stopped() {
                return Err(format!("nobody listens on {addr} after its start"));
            }
            pause(limits::TICK);
        }
    }
}

/// A new file that has no name any more.
fn nameless() -> io::Result<File> {
    let now = mono().nanos();
    let path = std::env::temp_dir().join(format!("loadgen-{}-{now}.log", std::process::id()));
    let file = File::options().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // In order first, so that its port and its run_dir are free again.
        let asked = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let until = mono().plus(limits::STOP_LIMIT);
        while asked.is_ok() && mono() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause(limits::TICK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries each configuration.
///
/// # Errors
/// Nothing of what a configuration does: that stands in its entry.
pub fn run(
    plan: &Plan,
    setup: &Setup,
    control: &Control,
    on_second: &mut dyn FnMut(&str, &Second, &Snapshot),
) -> Result<Sweep, RunError> {
    let direct = setup.direct.and_then(|addr| straight(plan, setup, addr, control, on_second));
    let mut entries = Vec::new();
    for config in &setup.configs {
        if control.is_stopped() {
            break;
        }
        let name = config.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut watch = |label: &str, second: &Second, so_far: &Snapshot| {
            on_second(&format!("{name}, {label}"), second, so_far);
        };
        let found = one(plan, setup, config, control, &mut watch);
        let (knee, failure) = match found {
            Ok(knee) => (Some(knee), None),
            Err(why) => (None, Some(why)),
        };
        entries.push(Entry { config: config.clone(), knee, failure });
    }
    let finals = match two_best(&entries).filter(|_| !control.is_stopped()) {
        Some(both) => Finals::run(plan, setup, both, control, on_second),
        None => None,
    };
    let best = best(&entries, finals.as_ref());
    Ok(Sweep { schema: "weir-loadgen-sweep/1".to_string(), entries, best, finals, direct })
}

/// The first rate at the member `addr` itself, twice when it misses at first; `None` when it can't
/// be had, which the configurations will tell in their words.
fn straight(
    plan: &Plan,
    setup: &Setup,
    addr: SocketAddr,
    control: &Control,
    on_second: &mut dyn FnMut(&str, &Second, &Snapshot),
) -> Option<Try> {
    let rate = setup.search.next()?;
    let plan = Plan {
        target: Target::from(addr),
        rate: Some(rate),
        // All of them speak it.
        http2: false,
        streams: 1,
        tls: TlsOptions::default(),
        admin: None,
        access_log: None,
        ids: false,
        ..plan.clone()
    };
    let mut watch = |second: &Second, so_far: &Snapshot| {
        on_second("without a balancer", second, so_far);
    };
    let slo = knee::objective(&setup.slo);
    let mut once = || Some(Try::of(rate, &control.run(&plan, &mut watch).ok()?, &slo));
    let tried = once()?;
    if tried.met { Some(tried) } else { once().or(Some(tried)) }
}

fn one(
    plan: &Plan,
    setup: &Setup,
    config: &Path,
    control: &Control,
    on_second: &mut dyn FnMut(&str, &Second, &Snapshot),
) -> Result<Knee, String> {
    let (_balancer, plan) = started(plan, setup, config, control)?;
    let found = knee::search(&plan, &setup.slo, setup.search.clone(), control, on_second);
    found.map_err(|error| error.to_string())
}

/// A balancer with this configuration, which listens, and the plan that measures it.
fn started(
    plan: &Plan,
    setup: &Setup,
    config: &Path,
    control: &Control,
) -> Result<(Balancer, Plan), String> {
    let addr = plan.target.resolve()?;
    if std::net::TcpStream::connect_timeout(&addr, limits::START_LIMIT).is_ok() {
        // Or that one would be measured in the place of all.
        return Err(format!(
            "somebody listens on {addr} already: stop it, since a sweep starts Weir itself"
        ));
    }
    let mut balancer = Balancer::start(&setup.weir, config)?;
    balancer.wait(plan, control)?;
    let plan = Plan { cpu_of: CpuOf::Processes(vec![balancer.child.id()]), ..plan.clone() };
    Ok((balancer, plan))
}

/// The one that the final turns show to be better; where they show nothing, the highest rate wins,
/// with equal ones the least processor time at it.
fn best(entries: &[Entry], finals: Option<&Finals>) -> Option<PathBuf> {
    if let Some(finals) = finals {
        return Some(finals.configs[finals.winner.unwrap_or(0)].clone());
    }
    let found = entries.iter().find(|entry| entry.knee.as_ref().is_some_and(|k| k.rate.is_some()));
    match two_best(entries) {
        Some([first, _]) => Some(first.config.clone()),
        None => found.map(|entry| entry.config.clone()),
    }
}

/// The last run at the knee that met the objective.
fn at_knee(knee: &Knee) -> Option<&Try> {
    knee.tries.iter().rev().find(|tried| Some(tried.asked) == knee.rate && tried.met)
}

/// Processor time a request at the knee, µs.
fn cost(knee: &Knee) -> Option<f64> {
    at_knee(knee)?.cpu_us_per_request
}

impl Sweep {
    /// As text.
    pub fn to_text(&self) -> String {
        let seen = self.entries.iter().filter_map(|entry| at_knee(entry.knee.as_ref()?));
        let shards = seen.clone().any(|tried| tried.busy.is_some());
        let heads = if shards { "   busiest shard   skew" } else { "" };
        let mut out = format!("  requests/s        p99   CPU a request{heads}  configuration\n");
        for entry in &self.entries {
            let known = entry.knee.as_ref().and_then(at_knee);
            let rate = match &entry.knee {
                Some(knee) => knee.rate.map_or_else(|| "none".to_string(), units::count),
                None => "failed".to_string(),
            };
            let time = |time: Option<f64>| time.map_or_else(|| "–".to_string(), units::seconds);
            let p99 = time(known.and_then(|tried| tried.p99));
            let cpu = time(known.and_then(|tried| tried.cpu_us_per_request).map(|us| us / 1e6));
            let shares = match shards {
                true => known.map_or_else(String::new, shard_columns),
                false => String::new(),
            };
            let shares = if shards { format!("{shares:>23}") } else { shares };
            let mark = if self.best.as_ref() == Some(&entry.config) { "  ← best" } else { "" };
            let path = entry.config.display();
            out.push_str(&format!("  {rate:>10} {p99:>10} {cpu:>15}{shares}  {path}{mark}\n"));
            if let Some(failure) = &entry.failure {
                out.push_str(&format!("! {path}: {failure}\n"));
            }
            // Of one without a rate the reader wants to know why.
            let without = entry.knee.iter().filter(|knee| knee.rate.is_none());
            for note in without.flat_map(|knee| &knee.notes) {
                out.push_str(&format!("! {path}: {note}\n"));
            }
        }
        let finals = self.finals.iter().map(|finals| format!("\n  {}\n", finals.verdict));
        out.extend(finals);
        self.direct.iter().for_each(|tried| out.push_str(&straight_text(tried)));
        out
    }
}

/// How busy the busiest shard was, and how uneven they were.
fn shard_columns(tried: &Try) -> String {
    let busy = tried.busy.map_or_else(|| "–".to_string(), |busy| format!("{:.0} %", busy * 100.0));
    let skew = tried.skew.map_or_else(|| "–".to_string(), |skew| format!("{skew:.2}"));
    format!("{busy:>16} {skew:>6}")
}

fn straight_text(tried: &Try) -> String {
    let time = |time: Option<f64>| time.map_or_else(|| "–".to_string(), units::seconds);
    let mut out = format!(
        "\n  without a balancer, {} requests a second: p50 {}, p99 {}, {} errors\n",
        units::count(tried.asked),
        time(tried.p50),
        time(tried.p99),
        units::count(tried.errors),
    );
    if let Some(why) = &tried.why {
        out.push_str(&format!(
            "! a member alone misses the objective ({why}): that is this machine, or what else \
             runs on it, and no configuration of Weir\n"
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, rate: Option<u64>, cpu: f64) -> Entry {
        let tried = Try {
            asked: rate.unwrap_or(1),
            achieved: 1.0,
            p50: None,
            p99: None,
            errors: 0,
            cpu_us_per_request: Some(cpu),
            cpu_cores: None,
            busy: Some(0.875),
            skew: Some(1.25),
            met: rate.is_some(),
            why: None,
        };
        let knee = Knee {
            schema: String::new(),
            url: String::new(),
            slo: Vec::new(),
            rate,
            missed: None,
            tries: vec![tried],
            notes: Vec::new(),
        };
        Entry { config: name.into(), knee: Some(knee), failure: None }
    }

    #[test]
    fn the_best_is_quick_and_then_cheap() {
        let entries = [
            entry("a", Some(1000), 10.0),
            entry("b", Some(2000), 20.0),
            entry("c", Some(2000), 15.0),
            entry("d", None, 1.0),
        ];
        assert_eq!(best(&entries, None), Some(PathBuf::from("c")));
        assert_eq!(best(&entries[..1], None), Some(PathBuf::from("a")));
        assert!(best(&entries[3..], None).is_none());
        let [first, second] = two_best(&entries).unwrap();
        assert_eq!((&first.config, &second.config), (&"c".into(), &"b".into()));
        // What the turns show goes before what the searches found.
        let tries =
            |met| vec![Try { met, ..entries[0].knee.as_ref().unwrap().tries[0].clone() }; 5];
        let configs = ["c".into(), "b".into()];
        let finals = Finals::judge(2000, configs, [tries(false), tries(true)]);
        assert_eq!(best(&entries, Some(&finals)), Some(PathBuf::from("b")));
        let sweep = Sweep {
            schema: String::new(),
            best: Some("c".into()),
            entries: entries.into_iter().collect(),
            finals: Some(finals),
            direct: None,
        };
        let text = sweep.to_text();
        assert!(text.contains("15.0 µs            88 %   1.25  c  ← best"), "{text}");
        assert!(text.contains("busiest shard") && text.contains("b is better"), "{text}");
    }

    #[test]
    fn what_failed_is_told() {
        let mut none = entry("d", None, 1.0);
        if let Some(knee) = &mut none.knee {
            knee.notes = vec!["no rate met p99<5ms".to_string()];
        }
        let mut direct = none.knee.clone().unwrap().tries.remove(0);
        direct.why = Some("not p99<5ms: 8.00 ms".to_string());
        let entries = vec![none, entry("a", Some(1000), 1.0)];
        let direct = Some(direct);
        let sweep =
            Sweep { schema: String::new(), best: Some("a".into()), finals: None, entries, direct };
        let text = sweep.to_text();
        for part in ["none", "! d: no rate met", "without a balancer", "(not p99<5ms: 8.00 ms)"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
