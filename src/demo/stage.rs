//! The demo's scene: embedded members, a balancer started as `serve` starts one, and load against
//! it. Owns the parts' lives; knows nothing of the plot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use weir_core::cert::Store;
use weir_core::model::{
    Balancer, Config, Listener, Member, Monitor, MonitorKind, Pool, Runtime, derive_id,
};
use weir_loadgen::{
    CpuOf, Delay, ErrorClass, Length, Live, OriginSpec, Origins, Plan, Report, Target,
};

use super::report::{Cores, Counts, Phase};
use crate::cores::{Machine, Plan as Placing};
use crate::server::{Running, Start, descriptors, fresh_secret, host, launch, seed};
use crate::shard::THREAD_PREFIX;

/// A member of the demo.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its weight.
    pub weight: u8,
    /// How long it thinks about each answer.
    pub delay: Duration,
}

/// The members: the heavier, the slower, since weight must decide and not speed.
pub const CAST: [Part; 3] = [
    Part { name: "small", weight: 1, delay: Duration::ZERO },
    Part { name: "medium", weight: 2, delay: Duration::from_micros(200) },
    Part { name: "large", weight: 3, delay: Duration::from_micros(500) },
];
/// Index into [`CAST`] of the member that goes down.
pub const VICTIM: usize = 1;

/// Bytes of each answer.
const BODY_SIZE: u64 = 128;
/// Accept queue of the balancer.
const BACKLOG: u32 = 1_024;
/// Between two probes of a member. A demo is in a hurry: one probe decides, where three in a row
/// do by default.
const PROBE_DELAY: Duration = Duration::from_secs(1);
/// How often a watcher looks at a running load.
const TICK: Duration = Duration::from_millis(50);

/// Everything that runs during the demo.
pub struct Stage {
    /// Who runs where.
    pub cores: Cores,
    origins: Origins,
    balancer: Running,
    addr: SocketAddr,
}

impl Stage {
    /// Starts members and balancer; every port is a free one of loopback.
    ///
    /// # Errors
    /// What the host lacks, or the part that could not be started.
    pub fn build() -> Result<Stage> {
        host()?;
        descriptors(1, 1, 0)?;
        let allowed: Vec<usize> = Machine::read()?.allowed.into_iter().collect();
        let &[balancer, ..] = allowed.as_slice() else { bail!("no core is left to run on") };
        let cores = Cores { balancer, clients: *allowed.get(1).unwrap_or(&balancer) };
        let spec = |part: &Part| OriginSpec {
            delay: if part.delay.is_zero() { Delay::None } else { Delay::Fixed(part.delay) },
            body_size: BODY_SIZE,
            ..OriginSpec::new(part.name)
        };
        let specs = CAST.iter().map(spec).collect();
        let origins = Origins::start(Some(cores.clients), specs).context("the demo's members")?;
        let config = Arc::new(config(origins.addrs()));
        let plan = Placing::single(balancer, config.balancers.len());
        let balancer = launch(Start {
            config,
            certificates: Store::default(),
            path: None,
            plan,
            signals: None,
            secret: fresh_secret()?,
            front: None,
            inherited: None,
        })?;
        let listener = balancer.ready.listeners.first();
        let addr = listener.and_then(|l| l.addresses.first().copied());
        let addr = addr.context("the balancer has no address")?;
        Ok(Stage { cores, origins, balancer, addr })
    }

    /// Puts the balancer under load from `connections` clients; measures after `warmup`.
    ///
    /// # Errors
    /// The load generator's thread could not be started.
    pub fn load(&self, connections: usize, warmup: Duration, time: Duration) -> Result<Load> {
        let target =
            Target::parse(&format!("http://{}/", self.addr)).map_err(|e| anyhow!("{e}"))?;
        let plan = Plan {
            connections,
            length: Length::Duration(time),
            cores: vec![self.cores.clients],
            warmup,
            seed: seed(),
            cpu_of: CpuOf::OwnThreads(THREAD_PREFIX.to_owned()),
            ..Plan::new(target)
        };
        let live = Live::new(&plan);
        let (sender, done) = channel();
        let watched = Arc::clone(&live);
        let run = move || {
            // The receiver is gone only when the demo has failed elsewhere.
            let _unheard = sender.send(weir_loadgen::run_with(&plan, &watched, &mut |_| {}));
        };
        std::thread::Builder::new().name("demo-load".into()).spawn(run).context("load thread")?;
        Ok(Load { live, done })
    }

    /// Requests that each member has seen.
    pub fn requests(&self) -> [u64; CAST.len()] {
        std::array::from_fn(|index| self.origins.requests(index))
    }

    /// Ends the victim: its listener closes, its connections are reset.
    ///
    /// # Errors
    /// The members' thread does not answer.
    pub fn kill(&self) -> Result<()> {
        self.origins.kill(VICTIM).context("killing a member")
    }

    /// Brings the victim back on its old port.
    ///
    /// # Errors
    /// The members' thread does not answer, or the port is taken.
    pub fn revive(&self) -> Result<()> {
        self.origins.revive(VICTIM).context("reviving a member")
    }

    /// Whether health checks find the victim up.
    pub fn is_found_up(&self) -> bool {
        let state = self.balancer.book.state();
        let mut members = state.members().map(|(_, member)| member);
        let victim = members.find(|member| member.name == CAST[VICTIM].name);
        victim.is_some_and(|member| state.is_up(member.handle))
    }

    /// Ends everything; tells what went wrong with that.
    pub fn strike(self) {
        if let Err(error) = self.balancer.stop() {
            tracing::error!("{error}");
        }
    }
}

/// A load that runs on a thread of its own.
pub struct Load {
    live: Arc<Live>,
    done: Receiver<Result<Report, weir_loadgen::RunError>>,
}

impl Load {
    /// Waits a moment; the report when the load has ended.
    ///
    /// # Errors
    /// The load could not be run.
    pub fn wait_a_tick(&self) -> Result<Option<Report>> {
        match self.done.recv_timeout(TICK) {
            Ok(report) => Ok(Some(report.context("the demo's load")?)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the demo's load ended without a report"),
        }
    }

    /// What clients have got so far, the warm-up included.
    pub fn counts(&self) -> Counts {
        let now = self.live.snapshot();
        let refused = now.errors_of(ErrorClass::Status);
        let lost = now.error_count() - refused;
        Counts { answers: now.answers, refused, lost }
    }
}

/// The measured part of a load, in the report's terms.
pub fn phase(report: &Report) -> Phase {
    let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
    let refused = report.errors.status;
    let total = report.latency.total;
    Phase {
        time: seconds(report.duration),
        counts: Counts {
            answers: report.answers,
            refused,
            lost: report.errors.total.saturating_sub(refused),
        },
        latency: total.map_or([None; 5], |t| {
            let points = [t.p50, t.p90, t.p99, t.p999, t.max];
            points.map(|point| Duration::try_from_secs_f64(point).ok())
        }),
        cpu: report.cpu.as_ref().map(|cpu| seconds(cpu.seconds)),
    }
}

/// What a file with these members would say.
fn config(addresses: &[SocketAddr]) -> Config {
    let member = |(part, &address): (&Part, &SocketAddr)| Member {
        id: derive_id("member", "", part.name),
        name: part.name.to_owned(),
        address,
        weight: part.weight,
    };
    Config {
        runtime: Runtime { backlog: BACKLOG, ..Runtime::default() },
        balancers: vec![Balancer {
            id: derive_id("loadbalancer", "", "demo"),
            name: "demo".to_owned(),
            vip_address: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            ..Balancer::default()
        }],
        listeners: vec![Listener {
            id: derive_id("listener", "demo", "web"),
            name: "web".to_owned(),
            default_pool: Some(0),
            ..Listener::default()
        }],
        pools: vec![Pool {
            id: derive_id("pool", "", "app"),
            name: "app".to_owned(),
            members: CAST.iter().zip(addresses).map(member).collect(),
            monitor: Some(Monitor {
                kind: MonitorKind::Tcp,
                delay: PROBE_DELAY,
                timeout: PROBE_DELAY,
                rise: 1,
                fall: 1,
                port: None,
            }),
            ..Pool::default()
        }],
        ..Config::default()
    }
}
