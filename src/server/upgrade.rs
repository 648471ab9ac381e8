//! What control does in a binary upgrade, on both sides. The serving process decides whether there
//! is to be one, what is handed over and when it stops to serve; the new one gets ready with what
//! it was handed, and waits for the word. Threads of [`crate::upgrade`] do what may block.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use weir_core::control::{Bound, State, Told, Verdict};
use weir_core::net::{Place, Transport};
use weir_core::pool::sticky::Secret;
use weir_core::rt::{self, Sender};
use weir_core::time::clock::{self, Mono};

use super::control::{Control, Event, millis_since};
use super::doors::{Moves, Stock};
use super::life::{End, Step};
use crate::admin;
use crate::notify;
use crate::remote::desk;
use crate::shard::{Outlet, QUIET};
use crate::upgrade::Upgraded;
use crate::upgrade::giver::{Job, Parting, Progress};
use crate::upgrade::heir::{Handed, Legacy, Waiting};
use crate::upgrade::wire::{Manifest, PROTOCOL};

/// How long a new process may take to get ready: half a minute beside the first answers of its
/// members, which take no longer than the longest timeout of a check (R8.9-3) while the machine has
/// a core for them. This process does not know whom the new one asks.
const PATIENCE: Duration = Duration::from_secs(30 + 51);

/// How long a process that can't take over all may take for the clients that it has let in.
const GIVE_BACK_LIMIT: Duration = Duration::from_millis(500);

/// How soon it is tried again to tell control something, when it has too much to do.
const RETRY: Duration = Duration::from_millis(10);

/// How long UDP flows may be held up before the new process has them: datagrams wait in the
/// sockets' buffers meanwhile. Those that are left then end.
const FLOWS_LIMIT: Duration = Duration::from_secs(5);
/// Parcels of flows that may wait to be sent: so many times 250 sockets are open twice.
const PARCELS: usize = 4;

/// What a user asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The program to start; `None` = the one under the name by which this one was started.
    pub program: Option<PathBuf>,
    /// How long it may take to get ready, at least a second; `None` = [`PATIENCE`].
    pub patience: Option<Duration>,
}

/// What a process needs to be replaced, beside its state.
pub struct Front {
    /// The program that this one was started as.
    pub program: PathBuf,
    /// The thread that does upgrades.
    pub jobs: mpsc::Sender<Job>,
    /// The secret of sticky pools.
    pub secret: Secret,
    /// The admin listener, if there is one.
    pub admin: Option<admin::Handle>,
    /// The control socket, if there is one.
    pub desk: Option<desk::Closer>,
}

/// An upgrade that is under way.
#[derive(Debug)]
pub struct Upgrading {
    started: Mono,
    reply: Option<mpsc::Sender<Upgraded>>,
    /// When the new process was told to serve: until it does, or fails, nothing else may happen.
    told: Option<Mono>,
    /// Signals that came meanwhile, each once.
    signals: Vec<i32>,
    /// Bindings that were handed over already.
    bindings: Told,
}

impl Upgrading {
    /// The signal waits until the upgrade has come to something; but who asks twice to end wants
    /// that at once.
    fn put_off(&mut self, signal: i32) -> Step {
        let ends = |signal: &i32| [libc::SIGTERM, libc::SIGINT].contains(signal);
        if ends(&signal) && self.signals.iter().any(ends) {
            return Step::End(End::AtOnce);
        }
        if !self.signals.contains(&signal) {
            self.signals.push(signal);
        }
        Step::Wait
    }
}

/// What a process was handed that is to take the place of another one.
#[derive(Debug)]
pub struct Inherited {
    /// Listening sockets.
    pub stock: Stock,
    /// The health of members.
    pub health: Vec<Verdict>,
    /// What waits for the word.
    pub waiting: Waiting,
}

/// The seconds in which bindings end.
fn seconds() -> u32 {
    u32::try_from(clock::mono().millis() / 1_000).unwrap_or(u32::MAX)
}

impl Control {
    /// Has the new program started; what follows comes as events.
    pub(super) fn begin_upgrade(&mut self, wanted: Wanted, reply: Option<mpsc::Sender<Upgraded>>) {
        let started = clock::mono();
        match self.job(wanted) {
            Ok(()) => {
                notify::reloading();
                let (told, signals, bindings) = (None, Vec::new(), Told::default());
                self.upgrading = Some(Upgrading { started, reply, told, signals, bindings });
            }
            Err(e) => answer(reply.as_ref(), &Upgraded::refused(format!("{e:#}"))),
        }
    }

    /// Why there can be no upgrade now.
    fn obstacle(&self) -> Option<&'static str> {
        match () {
            () if self.is_draining() => Some("the process drains"),
            () if !self.fleet.is_settled() => Some("the process starts: try again when it serves"),
            () if self.upgrading.is_some() => Some("an upgrade is under way already"),
            () if self.is_reloading() => Some("a reload is under way: try again when it has ended"),
            () => None,
        }
    }

    fn job(&mut self, wanted: Wanted) -> Result<()> {
        if let Some(obstacle) = self.obstacle() {
            return Err(anyhow!(obstacle));
        }
        let front = self.front.as_ref().context("this process can't be replaced")?;
        let state = self.fleet.state();
        let patience = wanted.patience.unwrap_or(PATIENCE).max(Duration::from_secs(1));
        let listener_id = |(place, handle)| Some((place, state.listener(handle)?.id));
        let (lend, lent) = mpsc::channel();
        let admin = front.admin.as_ref().map(admin::Handle::lend).transpose();
        let admin = admin.context("admin listener")?;
        let sender = self.sender.clone();
        let job = Job {
            program: wanted.program.unwrap_or_else(|| front.program.clone()),
            patience,
            manifest: Manifest {
                protocol: PROTOCOL,
                doors: Vec::new(),
                admin: admin.as_ref().map(|(asked, _)| *asked),
                secret: front.secret.bytes(),
                tickets: tickets(state),
                health: state.verdicts().iter().map(Into::into).collect(),
            },
            free_ports: self.doors.with_free_port().filter_map(listener_id).collect(),
            admin: admin.map(|(_, socket)| socket),
            lent,
            shards: self.fleet.count(),
            tell: Box::new(move |progress| tell(&sender, Event::Upgrade(progress))),
        };
        self.fleet.lend(&lend);
        front.jobs.send(job).map_err(|_| anyhow!("the thread for upgrades has ended"))
    }

    /// The upgrade has come further. Returns signals that were put off until now.
    #[must_use]
    pub(super) fn upgrade(&mut self, progress: Progress) -> Vec<i32> {
        match progress {
            // Who waits for it hears that it is dropped.
            Progress::Bindings { .. } | Progress::Prepared { .. } if self.is_draining() => {
                Vec::new()
            }
            Progress::Bindings { reply } => {
                // The thread waits for it.
                let _unheard = reply.send(self.bindings());
                Vec::new()
            }
            Progress::Prepared { flows_of, reply } => {
                let parting = self.parting(&flows_of);
                if let Some(upgrading) = &mut self.upgrading {
                    upgrading.told = Some(clock::mono());
                }
                let _unheard = reply.send(parting);
                Vec::new()
            }
            Progress::Done { pid, taken } => self.hand_over(pid, taken),
            Progress::Failed(error) => self.serve_on(error),
        }
    }

    /// What was bound since this was asked last in this upgrade.
    fn bindings(&mut self) -> Vec<Bound> {
        let upgrading = self.upgrading.as_mut();
        let told = upgrading.map(|upgrading| &mut upgrading.bindings);
        told.map(|told| self.fleet.state().bindings(told, seconds())).unwrap_or_default()
    }

    /// What is handed over last. UDP flows by the doors `flows_of`, as far as those listeners have
    /// them here, are held up from now on.
    fn parting(&mut self, flows_of: &[(SocketAddr, String)]) -> Parting {
        let bindings = self.bindings();
        let state = self.fleet.state();
        let serves = |place, id: &String| {
            let listener = self.doors.listener(place).and_then(|handle| state.listener(handle));
            listener.is_some_and(|listener| listener.id.to_string() == *id)
        };
        let places = flows_of.iter().filter_map(|(address, id)| {
            let place = Place { transport: Transport::Udp, address: *address };
            serves(place, id).then_some(place)
        });
        let places: BTreeSet<Place> = places.collect();
        let health = state.verdicts();
        let (past, ejections) = (self.checks.past(state), self.ejections.hand_over(state));
        // Last, since nobody receives from then on.
        let flows = (!places.is_empty()).then(|| {
            let (parcels, flows) = mpsc::sync_channel(PARCELS);
            let until = clock::mono().plus(FLOWS_LIMIT);
            self.fleet.pass_flows(places, &Outlet { parcels, until });
            flows
        });
        Parting { health, past, bindings, ejections, flows }
    }

    /// The new process serves: this one stops accepting, and ends when its connections have.
    fn hand_over(&mut self, pid: u32, taken: Vec<Place>) -> Vec<i32> {
        let Some(upgrading) = self.upgrading.take() else { return Vec::new() };
        let upgraded = Upgraded {
            error: None,
            pid,
            effective_ms: millis_since(upgrading.started, clock::mono()),
        };
        let open = self.fleet.active_connections();
        let told = upgrading.told.map(|told| millis_since(told, clock::mono())).unwrap_or_default();
        tracing::info!(
            "process {pid} serves, {told:.1} ms after it was told to; {open} client connections \
             were open here"
        );
        self.life.hand_over();
        // Who is up is asked by the new process from now on; each process more would double that.
        self.checks.end();
        self.abandon_staged("the process was replaced");
        self.fleet.hand_over(taken.into_iter().collect(), QUIET);
        self.book.set_draining();
        notify::replaced_by(pid);
        if let Some(front) = self.front.take() {
            front.admin.into_iter().for_each(|admin| admin.stop());
            front.desk.into_iter().for_each(|desk| desk.close());
        }
        answer(upgrading.reply.as_ref(), &upgraded);
        upgrading.signals
    }

    /// There is no upgrade: everything stays as it was.
    fn serve_on(&mut self, error: String) -> Vec<i32> {
        let Some(upgrading) = self.upgrading.take() else { return Vec::new() };
        self.fleet.go_on();
        if !self.is_draining() {
            notify::ready();
        }
        answer(upgrading.reply.as_ref(), &Upgraded::refused(error));
        upgrading.signals
    }

    /// What to do about a signal that would get in the way of a new process that was told to
    /// serve; `None` = what is always done.
    pub(super) fn put_off(&mut self, signal: i32) -> Option<Step> {
        let told = self.upgrading.as_mut().filter(|upgrading| upgrading.told.is_some());
        told.map(|upgrading| upgrading.put_off(signal))
    }

    /// Of a process that takes another one's place: says that it could serve, and waits for the
    /// last things that it is handed. They go into what is to be served, and into `moves`. `Some`
    /// when a signal or a lost shard ended it before.
    pub(super) async fn inherit(
        &mut self,
        waiting: Waiting,
        moves: &mut Moves,
    ) -> Result<Option<End>> {
        let sender = self.sender.clone();
        let tell = move |handed| tell(&sender, Event::Inherited(Box::new(handed)));
        let flows_of = match &self.staged {
            Some(staged) => moves
                .handed_over()
                .filter_map(|(address, listener)| {
                    Some((address, staged.next.listener(listener)?.id.to_string()))
                })
                .collect(),
            None => Vec::new(),
        };
        waiting.prepared(flows_of, tell)?;
        loop {
            if !self.is_draining()
                && let Some(legacy) = self.legacy.take()
            {
                let mut legacy = legacy?;
                moves.adopt(std::mem::take(&mut legacy.flows));
                self.adopt(legacy);
                return Ok(None);
            }
            if let Some(end) = self.turn().await {
                return Ok(Some(end));
            }
        }
    }

    /// Of a process that was about to take another one's place, and can't, or is not to: lets
    /// nobody in any more, so that the other one serves on, and sees clients off that it has got
    /// already.
    pub(super) async fn give_back(&mut self) {
        // A signal that has begun it counts: the next one ends the process at once.
        if !self.is_draining() {
            self.life.hand_over();
        }
        self.fleet.give_back();
        // Nothing is lost by a later end, but datagrams wait for the other process meanwhile.
        let until = clock::mono().plus(GIVE_BACK_LIMIT);
        while let Some(left) = Some(until.since(clock::mono())).filter(|left| !left.is_zero()) {
            if let Ok(Some(_)) = rt::timeout(left, self.turn()).await {
                break;
            }
        }
    }

    fn adopt(&mut self, legacy: Legacy) {
        let Some(next) = self.staged.as_mut().map(|staged| &mut staged.next) else { return };
        let health = next.resolve(&legacy.health);
        next.set_health(health);
        self.checks.go_on_from(&legacy.past, next);
        self.ejections.adopt(&legacy.ejections, next);
    }

    /// The process whose place this one takes hands something over.
    pub(super) fn take_handed(&mut self, handed: Result<Handed>) {
        match handed {
            Ok(Handed::Bound(bound)) => {
                if let Some(staged) = &self.staged {
                    staged.next.adopt_bindings(&bound, seconds());
                }
            }
            Ok(Handed::Last(legacy)) => self.legacy = Some(Ok(legacy)),
            Err(error) => self.legacy = Some(Err(error)),
        }
    }
}

/// Tells control, which would wait for ever otherwise; lost only when the process ends. For threads
/// that have time.
fn tell(control: &Sender<Event>, event: Event) {
    let mut event = event;
    while let Err(unheard) = control.try_send(event) {
        if control.is_closed() {
            return;
        }
        event = unheard;
        std::thread::park_timeout(RETRY);
    }
}

/// Session ticket keys, as they are handed over.
fn tickets(state: &State) -> Vec<(Vec<u8>, Vec<u8>)> {
    let keys = state.ticket_keys().into_iter();
    keys.map(|(context, keys)| (context.to_vec(), keys)).collect()
}

/// Who asked may have gone; the log has the answer too.
fn answer(reply: Option<&mpsc::Sender<Upgraded>>, upgraded: &Upgraded) {
    if let Some(error) = &upgraded.error {
        tracing::error!("no upgrade, this process serves on: {error}");
    }
    let _unheard = reply.map(|reply| reply.send(upgraded.clone()));
}
