//! `weir serve`: the life of the process, from the file to the exit code. Owns the order of the
//! stages; each stage has a file. Nothing is left half started: whatever fails before the ready
//! line closes all sockets and is the one error that the user sees.

mod checks;
mod cores;
mod life;
mod shards;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use sd_notify::NotifyState;
use weir_core::model::Config;
use weir_core::net::{self, Group, Wanted};
use weir_core::rt::Signals;
use weir_core::time::clock;

use crate::admin::{Admin, Source};
use crate::logging;
use crate::shard::Order;
use life::{End, Life, SIGNALS, Step};

pub use checks::{descriptors, host};
pub use cores::Machine;
pub use shards::Shards;

/// Length of the admin listener's accept queue.
const ADMIN_BACKLOG: u32 = 128;
/// How often the main thread looks for a shard that died.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// The same while draining, where reports are waited for.
const DRAIN_TICK: Duration = Duration::from_millis(10);
/// How long an accept queue has to stay empty before a draining shard closes its listener: the
/// last ACK of a handshake that was under way comes within a round trip.
const QUIET: Duration = Duration::from_millis(250);

/// Runs the balancer until a signal ends it.
///
/// # Errors
/// A bad file, a failed start, a lost shard, or connections that had to be cut.
pub fn serve(path: &Path) -> Result<()> {
    let signals = Signals::block(&SIGNALS).context("cannot take over the signals")?;
    logging::init(tracing::Level::INFO);
    let config = load(path)?;
    host()?;
    let cores = cores::resolve(&config.runtime.cores, &Machine::read()?)?;
    descriptors(cores.len(), addresses(&config))?;
    let groups = bind(&config, cores.len())?;
    let admin = Admin::bind(config.admin.as_ref().map(|a| a.listen), ADMIN_BACKLOG)?;
    let ready = ready_line(&config, &groups, &cores, admin.addr());
    let shards = Shards::start(&config, &cores, groups, seed())?;
    admin.start(Source::new(&config, shards.obs()))?;
    logging::say(ready);
    tell_systemd(&[NotifyState::Ready]);
    let end = supervise(&signals, &shards, &admin, config.runtime.shutdown_timeout)?;
    finish(end, shards, &config)
}

fn load(path: &Path) -> Result<Arc<Config>> {
    let loaded = weir_core::config::load(path)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(loaded.config))
}

/// Listening sockets that one shard holds.
fn addresses(config: &Config) -> usize {
    wishes(config).iter().map(|w| w.addresses.len()).sum()
}

/// The addresses that each listener wants, in the order of the listeners.
pub fn wishes(config: &Config) -> Vec<Wanted> {
    let vips = |balancer: usize| config.balancers.get(balancer).map(|b| b.vip_address.as_slice());
    let wish = |listener: &weir_core::model::Listener| Wanted {
        listener: listener.name.clone(),
        addresses: vips(listener.balancer)
            .unwrap_or_default()
            .iter()
            .map(|&ip| SocketAddr::new(ip, listener.protocol_port))
            .collect(),
    };
    config.listeners.iter().map(wish).collect()
}

fn bind(config: &Config, shards: usize) -> Result<Vec<Group>> {
    let bound = net::bind_all(&wishes(config), shards, config.runtime.backlog)?;
    for warning in &bound.warnings {
        tracing::warn!("{warning}");
    }
    Ok(bound.groups)
}

/// Shards start their choices at random points, so that they do not all pick the same member.
pub fn seed() -> u64 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ since.as_secs().rotate_left(32) ^ clock::mono().nanos()
}

/// `weir: ready: web http://127.0.0.1:8080 (2 shards: cores 0,1); admin http://127.0.0.1:9180`
fn ready_line(
    config: &Config,
    groups: &[Group],
    cores: &[usize],
    admin: Option<SocketAddr>,
) -> String {
    let name = |index: usize| config.listeners.get(index).map_or("", |l| l.name.as_str());
    let listeners: Vec<String> =
        groups.iter().map(|g| format!("{} http://{}", name(g.wanted), g.addr)).collect();
    let listeners = if listeners.is_empty() { "no listener".into() } else { listeners.join(", ") };
    let (shards, noun) = match cores.len() {
        1 => ("1 shard", "core"),
        n => (&*format!("{n} shards"), "cores"),
    };
    let list = cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let admin = admin.map(|addr| format!("; admin http://{addr}")).unwrap_or_default();
    format!("weir: ready: {listeners} ({shards}: {noun} {list}){admin}")
}

/// Waits on signals and shards until something ends the process.
fn supervise(signals: &Signals, shards: &Shards, admin: &Admin, limit: Duration) -> Result<End> {
    let mut life = Life::new(shards.count(), limit);
    loop {
        let tick = if life.is_draining() { DRAIN_TICK } else { IDLE_TICK };
        let signal = signals.wait(Some(tick)).context("cannot wait for signals")?;
        let step = match signal {
            Some(number) => life.signal(number, clock::mono()),
            None => life.tick(clock::mono()),
        };
        let reports = std::iter::from_fn(|| shards.report()).map(|r| life.report(&r));
        for step in std::iter::once(step).chain(reports.collect::<Vec<_>>()) {
            match step {
                Step::Wait => {}
                Step::Say(text) => tracing::warn!("{text}"),
                Step::Drain => drain(shards, admin, limit),
                Step::End(end) => return Ok(end),
            }
        }
    }
}

fn drain(shards: &Shards, admin: &Admin, limit: Duration) {
    tracing::info!(
        "draining {} client connections for at most {} s",
        shards.active_connections(),
        limit.as_secs()
    );
    admin.set_draining();
    tell_systemd(&[NotifyState::Stopping]);
    shards.order(Order::Drain { quiet: QUIET.min(limit / 2) });
}

fn finish(end: End, shards: Shards, config: &Config) -> Result<()> {
    let open = shards.active_connections();
    let limit = config.runtime.shutdown_timeout.as_secs();
    match end {
        End::Drained => {
            for error in shards.stop() {
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
            let causes: String = shards.stop().iter().map(|e| format!(": {e}")).collect();
            bail!("shard {shard} ended unexpectedly{causes}; {} cut", connections(open))
        }
    }
}

fn connections(n: u64) -> String {
    let (s, were) = if n == 1 { ("", "was") } else { ("s", "were") };
    format!("{n} client connection{s} {were}")
}

/// Without a notify socket this does nothing; a broken one must not stop the service.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!("cannot tell systemd ({e}); is NotifyAccess= right?");
    }
}
