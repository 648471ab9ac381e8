//! `weir serve`: the life of the process, from the file to the exit code. Owns the order of the
//! stages; each stage has a file. Nothing is left half started: whatever fails before the ready
//! line closes all sockets and is the one error that the user sees.
//!
//! `serve` and `demo` start a balancer by [`launch`]: the shards, and the control thread that tells
//! them what to do.

mod certificates;
mod checking;
mod checks;
mod control;
mod doors;
mod ejections;
mod fleet;
mod life;
mod passthrough;
mod reload;
mod seats;
mod secret;
mod sources;
mod start;
mod upgrade;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, anyhow, bail};
use weir_core::cert::Store;
use weir_core::config::Loaded;
use weir_core::model::{Config, LogLevel, Runtime};
use weir_core::pool::sticky::Secret;
use weir_core::rt::{self, ShardConfig, ShardHandle, Signals};
use weir_core::time::clock;
use weir_core::tls;

use crate::admin::{Admin, Book};
use crate::cores::{Machine, Plan};
use crate::here::{Unfit, place_bind_error};
use crate::remote::desk::{Desk, Gone};
use crate::shard::{News, REPORTS_PER_SHARD, Reports};
use crate::upgrade::heir::Heir;
use crate::upgrade::{Upgraded, giver, program};
use crate::{logging, notify};
use control::{Ask, Boot, Event, Outcome};
use fleet::Fleet;
use life::{End, SIGNALS};
use upgrade::{Front, Inherited};

pub use checks::{descriptors, host};
pub use control::Ready;
pub use passthrough::settle as settle_passthrough;
pub use reload::Answer;
pub use secret::fresh as fresh_secret;
pub use sources::{check_sources, scarce_ports};
pub use upgrade::Wanted;

/// Length of the admin listener's accept queue.
const ADMIN_BACKLOG: u32 = 128;
/// Name of the control thread.
const CONTROL_THREAD: &str = "weir-control";
/// Events that may wait for control beside the shards' reports.
const EVENTS: usize = 256;

/// Runs the balancer until a signal ends it.
///
/// # Errors
/// A bad file, a failed start, a lost shard, or connections that had to be cut.
pub fn serve(path: &Path, key_log: Option<&Path>) -> Result<()> {
    let signals = Signals::block(&SIGNALS).context("cannot take over the signals")?;
    logging::init(LogLevel::Info);
    let program = program::started_as().context("the path of this program")?;
    // Before any thread is pinned to a core.
    let jobs = giver::start()?;
    let mut heir = Heir::take().context("this process is to take another one's place")?;
    let Loaded { config, mut certificates, places, .. } = load(path)?;
    let config = Arc::new(config);
    if let Some(path) = key_log {
        log_keys(path)?;
    }
    host()?;
    let plan = Plan::new(&config, &Machine::read()?).map_err(|unfit| unfit.placed(&places))?;
    let checked = checks::checked_members(&config);
    descriptors(plan.cores.len(), checks::addresses(&config), checked)?;
    let listen = config.admin.as_ref().map(|a| a.listen);
    let handed = heir.as_mut().and_then(|heir| heir.admin.take());
    let admin = Admin::take_over(listen, handed, ADMIN_BACKLOG)
        .map_err(|e| place_bind_error(e, &config, &places))?;
    // Makes `run_dir`, where the secret is kept.
    let desk = desk(&config, heir.is_some())?;
    let secret = match &heir {
        Some(heir) => secret::inherited(heir.manifest.secret, &config.runtime.run_dir),
        None => secret::load(&config.runtime.run_dir, asks_for_run_dir(&config))?,
    };
    certificates.handed_on = heir.as_ref().map(Heir::ticket_keys).unwrap_or_default();
    let front = Front {
        program,
        jobs,
        secret: secret.secret,
        admin: admin.handle(listen)?,
        desk: desk.as_ref().map(Desk::closer).transpose()?,
    };
    let start = Start {
        config: Arc::clone(&config),
        certificates,
        path: Some(path.to_owned()),
        plan,
        signals: Some(signals),
        secret: secret.secret,
        front: Some(front),
        inherited: heir.as_mut().map(inherited).transpose()?,
    };
    let running = launch(start).map_err(|e| place_bind_error(e, &config, &places))?;
    secret.keep();
    let admin_addr = admin.addr();
    let served = admin.start(Arc::clone(&running.book));
    insist(served, "metrics can't be read", heir.is_some())?;
    let served = desk.map(|desk| open_desk(desk, path, &running, heir.is_some())).transpose();
    let _gone = insist(served, "`weir reload` does not find this process", heir.is_some())?;
    logging::announce(&ready_line(&running, admin_addr));
    match heir {
        Some(heir) => heir.serves(&running.ready.places).unwrap_or_else(|e| {
            tracing::warn!("the former process is not told that this one serves: {e:#}");
        }),
        None => notify::ready(),
    }
    running.wait()
}

/// Has the control socket served, in the place of another process's where there was one.
fn open_desk(desk: Desk, path: &Path, running: &Running, takes_over: bool) -> Result<Gone> {
    let mut desk = desk;
    if takes_over {
        desk.publish()?;
    }
    let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    desk.serve(file, running.asker())
}

/// What has failed ends a start; but where this process has taken the clients of another one over
/// already, they are worth more than that.
fn insist<T: Default>(done: Result<T>, without: &str, takes_over: bool) -> Result<T> {
    match done {
        Err(e) if takes_over => {
            tracing::error!("{without} until the next `weir upgrade` (SIGUSR2): {e:#}");
            Ok(T::default())
        }
        done => done,
    }
}

/// What control needs of what was handed over.
fn inherited(heir: &mut Heir) -> Result<Inherited> {
    let stock = std::mem::take(&mut heir.groups);
    let waiting = heir.waiting().context("hand-over")?;
    Ok(Inherited { stock, health: heir.health(), waiting })
}

/// Has the keys of TLS sessions logged, and says so.
fn log_keys(path: &Path) -> Result<()> {
    let file = path.display();
    tls::log_keys(path).with_context(|| format!("cannot log TLS keys to {file}"))?;
    tracing::warn!("keys of all TLS sessions go to {file}: whoever reads it can read the traffic");
    Ok(())
}

/// Does the file ask for a `run_dir`? Such a one must do; without the one that nobody asked for the
/// process runs all the same.
fn asks_for_run_dir(config: &Config) -> bool {
    config.runtime.run_dir != Runtime::default().run_dir
}

/// The control socket, but for a default `run_dir` that won't do.
fn desk(config: &Config, takes_over: bool) -> Result<Option<Desk>> {
    let run_dir = &config.runtime.run_dir;
    let desk = if takes_over { Desk::prepare(run_dir) } else { Desk::bind(run_dir) };
    match desk {
        Ok(desk) => Ok(Some(desk)),
        Err(e) if !asks_for_run_dir(config) => {
            tracing::warn!(
                "`weir reload` and `weir upgrade` will not find this process (SIGHUP and SIGUSR2 \
                 do): {e:#}"
            );
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// What a balancer is started with.
pub struct Start {
    /// What to serve.
    pub config: Arc<Config>,
    /// What its certificates hold.
    pub certificates: Store,
    /// The file that it came from, for reloads.
    pub path: Option<PathBuf>,
    /// Which shard runs on which core.
    pub plan: Plan,
    /// Signals to obey.
    pub signals: Option<Signals>,
    /// What cookies of sticky pools are made with.
    pub secret: Secret,
    /// What it needs to be replaced; `None` = it can't be.
    pub front: Option<Front>,
    /// What it was handed, where it takes another one's place.
    pub inherited: Option<Inherited>,
}

/// A balancer whose listeners accept.
pub struct Running {
    /// What it serves.
    pub ready: Ready,
    /// Its counters.
    pub book: Arc<Book>,
    plan: Plan,
    config: Arc<Config>,
    asks: rt::Sender<Event>,
    control: ShardHandle<Outcome>,
}

/// Starts shards and control; returns when all listeners accept.
///
/// # Errors
/// The thread, ring or address that could not be had; everything is closed again. Also when a
/// signal ended it before it was ready.
pub fn launch(start: Start) -> Result<Running> {
    let Start { config, certificates, path, plan, signals, secret, front, inherited } = start;
    let events = rt::mailbox(EVENTS + plan.cores.len() * REPORTS_PER_SHARD);
    let (suspect, suspects) = rt::mailbox(ejections::SUSPECTS);
    let sender = events.0.clone();
    let reports: Reports = Arc::new(move |report| {
        // Control is gone only when the process ends; then nobody needs the news. Suspects must not
        // take the room of other news; one for whom there is none is told of again.
        let _unheard = match report.news {
            News::Suspect(one) => suspect.try_send(one).is_ok(),
            _ => sender.try_send(Event::Report(report)).is_ok(),
        };
    });
    let fleet = Fleet::start(&plan.cores, config.runtime.spin, seed(), secret, &reports)?;
    let book = Arc::new(Book::new(fleet.rings()));
    let (ready, told) = channel();
    let asks = events.0.clone();
    let boot = Boot {
        config: Arc::clone(&config),
        certificates,
        path,
        fleet,
        plan: plan.clone(),
        seed: seed(),
        events,
        suspects,
        signals,
        book: Arc::clone(&book),
        front,
        inherited,
        ready,
    };
    let thread = ShardConfig {
        name: CONTROL_THREAD.to_owned(),
        core: config.runtime.control_core,
        ..ShardConfig::default()
    };
    let control = rt::start_shard(thread, move || control::run(boot))?;
    // The sender goes when control ends before.
    match told.recv() {
        Ok(ready) => Ok(Running { ready, book, plan, config, asks, control }),
        Err(_) => {
            let outcome = control.join()?;
            finish(outcome, &config)?;
            Err(anyhow!("ended by a signal before it was ready"))
        }
    }
}

/// A way to ask the running process for something, from any thread.
#[derive(Clone, Debug)]
pub struct Asker(rt::Sender<Event>);

impl Asker {
    /// Asks for a reload; `false` when the process is about to end.
    pub fn reload(&self, reply: Sender<Answer>) -> bool {
        self.0.try_send(Event::Ask(Ask::Reload(reply))).is_ok()
    }

    /// Asks for an upgrade; `false` when the process is about to end.
    pub fn upgrade(&self, wanted: Wanted, reply: Sender<Upgraded>) -> bool {
        self.0.try_send(Event::Ask(Ask::Upgrade(wanted, reply))).is_ok()
    }

    /// Has every shard send its number and what its table says; `false` when the process is about
    /// to end.
    pub fn show(&self, reply: Sender<(usize, Vec<String>)>) -> bool {
        self.0.try_send(Event::Ask(Ask::Show(reply))).is_ok()
    }
}

impl Running {
    /// For requests from elsewhere.
    pub fn asker(&self) -> Asker {
        Asker(self.asks.clone())
    }

    /// Waits until a signal or a lost shard ends it.
    ///
    /// # Errors
    /// A lost shard, or connections that had to be cut.
    pub fn wait(self) -> Result<()> {
        let outcome = self.control.join()?;
        finish(outcome, &self.config)
    }

    /// Ends it at once; what is still open is cut.
    ///
    /// # Errors
    /// A shard that ended badly.
    pub fn stop(self) -> Result<()> {
        // If control takes nothing it is about to end.
        let _ending = self.asks.try_send(Event::Ask(Ask::Stop));
        let outcome = self.control.join()?;
        let errors = outcome.fleet.map(Fleet::join).unwrap_or_default();
        errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Reads the file; from now on the log is as it says.
fn load(path: &Path) -> Result<Loaded> {
    let mut loaded = weir_core::config::load(path)?;
    let log = logging::prepare(&loaded.config.log);
    log.map_err(|e| Unfit::of("log.path", &e).placed(&loaded.places))?.apply();
    for warning in &loaded.warnings {
        tracing::warn!("{}", warning.log_line());
    }
    for line in settle_passthrough(&mut loaded)? {
        tracing::warn!("{line}");
    }
    check_sources(&loaded.config).map_err(|unfit| unfit.placed(&loaded.places))?;
    Ok(loaded)
}

/// Shards start their choices at random points, so that they do not all pick the same member.
pub fn seed() -> u64 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ since.as_secs().rotate_left(32) ^ clock::mono().nanos()
}

/// `ready: web http://127.0.0.1:8080 (2 shards: cores 0,1); admin http://127.0.0.1:9180`
fn ready_line(running: &Running, admin: Option<std::net::SocketAddr>) -> String {
    let mut listeners = Vec::new();
    for served in &running.ready.listeners {
        let url = |address| format!("{} {}://{address}", served.name, served.scheme);
        listeners.extend(served.addresses.iter().map(url));
    }
    let listeners = if listeners.is_empty() { "no listener".into() } else { listeners.join(", ") };
    let cores = &running.plan.cores;
    let (shards, noun) = match cores.len() {
        1 => ("1 shard", "core"),
        n => (&*format!("{n} shards"), "cores"),
    };
    let list = cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let admin = admin.map(|addr| format!("; admin http://{addr}")).unwrap_or_default();
    format!("ready: {listeners} ({shards}: {noun} {list}){admin}")
}

/// The exit code's reason: `Ok` after a clean drain, or where nobody was cut.
fn finish(outcome: Outcome, config: &Config) -> Result<()> {
    let Outcome { end, fleet, open } = outcome;
    let errors = fleet.map(Fleet::join).unwrap_or_default();
    let limit = config.runtime.shutdown_timeout.as_secs();
    let end = match end {
        Ok(end) => end,
        // Why a shard ended is known when it has been joined.
        Err(error) => return Err(errors.into_iter().next().map_or(error, Into::into)),
    };
    match end {
        End::Drained => {
            for error in errors {
                tracing::error!("{error}");
            }
            tracing::info!("drained; good bye");
            Ok(())
        }
        End::AtOnce | End::TimedOut if open == 0 => Ok(()),
        End::AtOnce => bail!("stopped at once by a second signal; {} cut", connections(open)),
        End::TimedOut => bail!(
            "stopped after {limit} s; {} cut. To give them longer, raise [runtime] \
             shutdown_timeout",
            connections(open)
        ),
        End::Lost(shard) => {
            let causes: String = errors.iter().map(|e| format!(": {e}")).collect();
            bail!("shard {shard} ended unexpectedly{causes}; {} cut", connections(open))
        }
    }
}

fn connections(n: u64) -> String {
    let (s, were) = if n == 1 { ("", "was") } else { ("s", "were") };
    format!("{n} client connection{s} {were}")
}
