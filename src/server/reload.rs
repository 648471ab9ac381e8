//! Reload: from a file that was read again to the answer that says what changed and since when it
//! is in effect. All or nothing: whatever is wrong with the file, or with an address that it wants,
//! leaves the running state as it is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use weir_core::cert::Store;
use weir_core::config::{Failure, Loaded, Places, Problem};
use weir_core::control::{State, Verdict};
use weir_core::model::{Config, Handle};
use weir_core::obs::Board;
use weir_core::time::clock::{self, Mono};

use super::checking::Wait;
use super::checks;
use super::control::{Control, load_apart, millis_since};
use super::doors::{Moves, Stock};
use super::{check_sources, scarce_ports, settle_passthrough};
use crate::cores::{Machine, Plan};
use crate::here::place_bind_error;
use crate::shard::DoorChange;
use crate::{logging, notify};

/// What a reload came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Answer {
    /// Why nothing changed; `None` = the file is in effect on every shard.
    pub error: Option<String>,
    /// The same for the log, a line for each cause; empty = as `error` says it.
    #[serde(skip)]
    pub causes: Vec<String>,
    /// The version of the running state.
    pub version: u64,
    /// What changed, a line each; empty = nothing did.
    pub changes: Vec<String>,
    /// What the file asks for and needs more than a reload, and other things to know.
    pub notes: Vec<String>,
    /// From the request to the effect on all shards, in milliseconds.
    pub effective_ms: f64,
}

/// A listener that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// The scheme of its URLs.
    pub scheme: &'static str,
    /// Bound addresses with real ports.
    pub addresses: Vec<SocketAddr>,
}

/// A change that is on its way to the shards.
#[derive(Debug)]
pub struct Pending {
    answer: Answer,
    started: Mono,
    replies: Vec<mpsc::Sender<Answer>>,
}

/// A reload (or the start) that brings pools whose members nobody has asked yet: until their first
/// verdicts, or until `wait` is over, nothing changes but that these members are probed. Else
/// clients would be answered 503 for members that are well.
#[derive(Debug)]
pub struct Staged {
    config: Arc<Config>,
    certificates: Store,
    /// Where its keys stand, for what goes wrong last; empty at the start.
    places: Places,
    notes: Vec<String>,
    plan: Plan,
    /// What is to be served; the health that checks find meanwhile goes into it.
    pub next: State,
    awaited: BTreeSet<Handle>,
    wait: Wait,
}

impl Staged {
    /// How long until it has to be looked whether it still waits.
    pub fn tick(&self) -> Duration {
        self.wait.tick()
    }
}

/// The reload for which the file is being read, or which is staged.
#[derive(Debug, Default)]
pub struct Reloading {
    started: Option<Mono>,
    replies: Vec<mpsc::Sender<Answer>>,
    /// Who asked while it was being read: the file may have changed since.
    again: Option<Vec<mpsc::Sender<Answer>>>,
}

impl Pending {
    /// Something that a shard could not do.
    pub fn note(&mut self, text: &str) {
        self.answer.notes.push(text.to_owned());
    }
}

impl Reloading {
    /// One that has begun without a file.
    pub fn begun(now: Mono) -> Reloading {
        Reloading { started: Some(now), ..Reloading::default() }
    }
}

impl Answer {
    /// Nothing changed, and why.
    pub fn refused(error: String) -> Answer {
        Answer { error: Some(error), ..Answer::default() }
    }

    /// The same. A file's mistakes come as they are, with their places; all else with its causes.
    fn of_failure(error: &anyhow::Error) -> Answer {
        let Some(failure) = error.downcast_ref::<Failure>() else {
            return Answer::refused(format!("{error:#}"));
        };
        let causes = failure.problems().iter().map(Problem::log_line).collect();
        Answer { causes, ..Answer::refused(failure.to_string().trim_end().to_owned()) }
    }
}

impl Control {
    pub(super) fn next_state(
        &mut self,
        config: &Config,
        certificates: &Store,
        plan: &Plan,
    ) -> State {
        let shards_of = |balancer| plan.shards_of(balancer);
        self.fleet.state().next_with(config, certificates, &shards_of, &mut self.handles)
    }

    fn board_for(&self, state: &State) -> Board {
        let listeners = state.listeners().map(|(handle, _)| handle);
        let members = state.members().map(|(_, member)| member.handle);
        let board = self.fleet.board().next(self.fleet.count(), listeners, members);
        for (handle, listener) in state.listeners() {
            if listener.access.caps.per_source > 0 {
                board.gate(handle).prepare_sources();
            }
        }
        board
    }

    /// Has the file read for those who asked; what follows comes as an event.
    pub(super) fn begin_reload(&mut self, replies: Vec<mpsc::Sender<Answer>>) {
        if self.is_draining() {
            let refused = Answer::refused("the process drains".to_owned());
            return tell(&replies, &refused);
        }
        if self.upgrading.is_some() {
            let refused = "an upgrade is under way: try again when it has ended".to_owned();
            return tell(&replies, &Answer::refused(refused));
        }
        if self.reloading.started.is_some() {
            self.reloading.again.get_or_insert_default().extend(replies);
            return;
        }
        self.reloading = Reloading { started: Some(clock::mono()), replies, again: None };
        notify::reloading();
        let begun = match &self.path {
            Some(path) => load_apart(path.clone(), self.sender.clone()),
            None => Err(anyhow!("this process was started without a file")),
        };
        if let Err(error) = begun {
            self.finish_reload(Err(error));
        }
    }

    /// The file was read: puts it into effect, or says why not.
    pub(super) fn finish_reload(&mut self, loaded: Result<Loaded>) {
        let draining = self.is_draining();
        let staged = loaded.and_then(|loaded| match draining {
            false => self.stage(loaded),
            true => Err(anyhow!("the process drains")),
        });
        match staged {
            Ok(staged) => self.staged = Some(staged),
            Err(e) => return self.end_reload(Answer::of_failure(&e)),
        }
        self.land_if_due(clock::mono());
    }

    /// What the file asks for is on its way, or was refused.
    fn end_reload(&mut self, answer: Answer) {
        let Reloading { started, replies, again } = std::mem::take(&mut self.reloading);
        let answer = Answer { version: self.fleet.state().version(), ..answer };
        let started = started.unwrap_or_else(clock::mono);
        self.pending.push(Pending { answer, started, replies });
        self.answer_pending(clock::mono());
        self.look_again();
        if let Some(again) = again {
            self.begin_reload(again);
        }
    }

    /// Is there a reload that has not been answered?
    pub(super) fn is_reloading(&self) -> bool {
        self.reloading.started.is_some() || self.staged.is_some() || !self.pending.is_empty()
    }

    /// The process has started: whoever asked for a reload meanwhile gets it now.
    pub(super) fn begin_what_waits(&mut self) {
        if let Some(again) = std::mem::take(&mut self.reloading).again {
            self.begin_reload(again);
        }
    }

    /// Works out what `config` asks for, and has the members asked on whom it depends.
    fn stage(&mut self, loaded: Loaded) -> Result<Staged> {
        let mut loaded = loaded;
        let settled = settle_passthrough(&mut loaded)?;
        check_sources(&loaded.config).map_err(|unfit| unfit.placed(&loaded.places))?;
        let Loaded { config, certificates, warnings, places, .. } = loaded;
        let is_empty = config.listeners.is_empty() && config.pools.is_empty();
        if is_empty && self.fleet.state().listeners().next().is_some() {
            bail!(
                "the file has neither a [[listener]] nor a [[pool]], as if it had been emptied by \
                 mistake: put them back; to serve nobody any more, stop the process"
            );
        }
        let config = Arc::new(config);
        if pinning(&config) != pinning(&self.begun_with) {
            // It changes nothing now, but must not keep the next start from coming about.
            Plan::new(&config, &Machine::read()?).map_err(|unfit| unfit.placed(&places))?;
        }
        let plan = self.plan.follow(&config).map_err(|unfit| unfit.placed(&places))?;
        let next = self.next_state(&config, &certificates, &plan);
        let scarce = scarce_ports(&next, config.runtime.max_connections);
        let awaited = next.members_of_dead_pools();
        let warned = warnings.iter().map(Problem::log_line);
        let notes = warned.chain(settled).chain(scarce).collect();
        Ok(Staged {
            notes,
            places,
            ..self.await_verdicts(config, certificates, plan, next, awaited)
        })
    }

    /// The same for the process' start: nobody is served yet, so all first verdicts are awaited.
    /// But for those of members whose health another process has handed over.
    pub(super) fn stage_start(&mut self, health: &[Verdict]) -> Staged {
        let (config, plan) = (Arc::clone(&self.config), self.plan.clone());
        let certificates = self.certificates.clone();
        let mut next = self.next_state(&config, &certificates, &plan);
        let known = next.resolve(health);
        let mut awaited = next.checked_members();
        for (member, _) in &known {
            awaited.remove(member);
        }
        next.set_health(known);
        self.await_verdicts(config, certificates, plan, next, awaited)
    }

    fn await_verdicts(
        &self,
        config: Arc<Config>,
        certificates: Store,
        plan: Plan,
        next: State,
        awaited: BTreeSet<Handle>,
    ) -> Staged {
        if !awaited.is_empty() {
            self.checks.begin_early(self.fleet.state(), &next, &awaited);
        }
        let wait = Wait::new(&next, &awaited, clock::mono());
        let (notes, places) = (Vec::new(), Places::default());
        Staged { config, certificates, places, notes, plan, next, awaited, wait }
    }

    /// Looks whether there is a change that waits for first verdicts, and still has to.
    pub(super) fn is_waiting(&mut self, now: Mono) -> bool {
        self.staged.as_mut().is_some_and(|staged| {
            !staged.wait.look(now).is_zero() && self.checks.unjudged(&staged.awaited) > 0
        })
    }

    /// Ends a reload that waited for first verdicts, when they are there or the time is over.
    pub(super) fn land_if_due(&mut self, now: Mono) {
        if self.staged.is_none() || self.is_waiting(now) {
            return;
        }
        // The last ones may have been found while another event was handled.
        self.take_verdicts();
        if let Some(staged) = self.staged.take() {
            let landed = self.land(staged);
            self.check_what_is_served();
            self.end_reload(landed.unwrap_or_else(|e| Answer::of_failure(&e)));
        }
    }

    /// Gives up a reload that waits.
    pub(super) fn abandon_staged(&mut self, why: &str) {
        if self.staged.take().is_some() {
            self.end_reload(Answer::refused(why.to_owned()));
        }
    }

    /// Puts the whole of it into effect; what may fail comes first, and changes nothing then.
    fn land(&mut self, staged: Staged) -> Result<Answer> {
        let Staged { config, certificates, places, notes, plan, next, .. } = staged;
        let log = (config.log != self.config.log).then(|| logging::prepare(&config.log));
        let log = log.transpose()?;
        let logs = self.writers.open(&next)?;
        let moves = self.doors.plan(&next, clock::mono(), &mut Stock::new());
        let mut moves = moves.map_err(|e| place_bind_error(e, &config, &places))?;
        let targets = self.writers.start(logs)?;
        // Last of what may fail: sockets that join others and close again may cut clients.
        moves.listen()?;
        self.writers.keep(&targets);
        let mut notes = notes;
        notes.extend(self.needs_upgrade(&config));
        notes.extend(moves.warnings.iter().cloned());
        let mut changes = self.fleet.state().describe(&next);
        if let Some(log) = log {
            log.apply();
            changes.push("[log]: changed".to_owned());
        }
        let (was, timeout) =
            (self.config.runtime.shutdown_timeout, config.runtime.shutdown_timeout);
        if was != timeout {
            changes.push(format!("[runtime]: shutdown_timeout {was:?} → {timeout:?}"));
            self.set_shutdown_timeout(timeout);
        }
        let (was, most) = (self.config.runtime.max_connections, config.runtime.max_connections);
        if was != most {
            changes.push(format!("[runtime]: max_connections {was} → {most}"));
        }
        let (was, most) = (self.config.runtime.max_skew_percent, config.runtime.max_skew_percent);
        if was != most {
            changes.push(format!("[runtime]: max_skew_percent {was} → {most}"));
        }
        self.config = config;
        self.certificates = certificates;
        self.plan = plan;
        self.put_into_effect(next, moves);
        self.begin_certificates();
        Ok(Answer { changes, notes, ..Answer::default() })
    }

    /// Sends what is to be served to the shards, with its doors.
    pub(super) fn put_into_effect(&mut self, next: State, moves: Moves) {
        let most = checks::max_connections(&self.config, self.fleet.count());
        let house = self.fleet.board().house();
        house.set_limit(most);
        house.spread.set_bound(self.config.runtime.max_skew_percent);
        if self.fleet.state().diff(&next).changes.is_empty() && !self.fleet.is_new() {
            return;
        }
        let (doors, doings) = moves.accept();
        self.doors = doors;
        let next = next.following(self.fleet.state());
        self.publish(next, doings);
        self.review_ejections();
    }

    /// Probes those of the present state and no others.
    pub(super) fn check_what_is_served(&self) {
        self.checks.begin(self.fleet.state());
    }

    pub(super) fn publish(&mut self, state: State, doings: Vec<Vec<DoorChange>>) {
        let board = Arc::new(self.board_for(&state).with_spools(self.writers.spools()));
        self.fleet.publish(state, board, doings);
        self.book.show(self.fleet.state(), self.fleet.board());
    }

    /// What the file asks for that a running process can't do.
    fn needs_upgrade(&self, config: &Config) -> Vec<String> {
        let (was, now) = (&self.begun_with.runtime, &config.runtime);
        let fixed = [
            ("[runtime] cores", was.cores != now.cores),
            ("[runtime] smt", was.smt != now.smt),
            ("[runtime] control_core", was.control_core != now.control_core),
            ("[runtime] numa_node", was.numa_node != now.numa_node),
            ("[runtime] spin", was.spin != now.spin),
            ("[runtime] backlog", was.backlog != now.backlog),
            ("[runtime] run_dir", was.run_dir != now.run_dir),
            ("[admin] listen", self.begun_with.admin != config.admin),
        ];
        let changed = fixed.iter().filter(|(_, changed)| *changed);
        changed
            .map(|(key, _)| format!("{key}: changed in the file; takes effect with `weir upgrade`"))
            .collect()
    }

    /// Answers for the changes that are in effect everywhere, and for those that were refused.
    pub(super) fn answer_pending(&mut self, now: Mono) {
        let effective = self.fleet.effective();
        let due = |p: &mut Pending| p.answer.error.is_some() || p.answer.version <= effective;
        let done: Vec<Pending> = self.pending.extract_if(.., due).collect();
        // While another reload is under way, this would end that one for systemd.
        if !done.is_empty() && !self.is_draining() && self.reloading.started.is_none() {
            notify::ready();
        }
        for Pending { mut answer, started, replies } in done {
            answer.effective_ms = millis_since(started, now);
            log_answer(&answer);
            tell(&replies, &answer);
        }
    }

    /// The process ends: who still waits hears so.
    pub(super) fn refuse_pending(&mut self) {
        let replies = std::mem::take(&mut self.reloading.replies);
        let waiting = self.pending.drain(..).flat_map(|pending| pending.replies);
        let again = self.reloading.again.take().unwrap_or_default();
        let replies: Vec<_> = waiting.chain(replies).chain(again).collect();
        tell(&replies, &Answer::refused("the process ends".to_owned()));
    }

    /// What is served where.
    pub(super) fn served(&self) -> Vec<Served> {
        let served = |(handle, listener): (_, &Arc<weir_core::control::Listener>)| Served {
            name: listener.name.clone(),
            scheme: match listener.protocol {
                weir_core::model::Protocol::Http => "http",
                weir_core::model::Protocol::Https => "https",
                weir_core::model::Protocol::Tcp => "tcp",
                weir_core::model::Protocol::Udp => "udp",
            },
            addresses: self.doors.of(handle).collect(),
        };
        self.fleet.state().listeners().map(served).collect()
    }
}

/// What says which cores a process runs on.
fn pinning(config: &Config) -> impl PartialEq + use<'_> {
    let runtime = &config.runtime;
    (&runtime.cores, runtime.smt, runtime.numa_node, runtime.control_core)
}

/// Who asked may have gone; the log has the answer too.
fn tell(replies: &[mpsc::Sender<Answer>], answer: &Answer) {
    for reply in replies {
        let _unheard = reply.send(answer.clone());
    }
}

fn log_answer(answer: &Answer) {
    match &answer.error {
        Some(error) => {
            let whole = std::slice::from_ref(error);
            let lines = if answer.causes.is_empty() { whole } else { &answer.causes };
            for line in lines {
                tracing::error!("reload refused, nothing changed: {line}");
            }
        }
        None => {
            for line in &answer.changes {
                tracing::info!("reload: {line}");
            }
            for line in &answer.notes {
                tracing::warn!("reload: {line}");
            }
            tracing::info!(
                "reload: version {} is in effect on all shards after {:.1} ms, {}",
                answer.version,
                answer.effective_ms,
                match answer.changes.len() {
                    1 => "1 change".to_owned(),
                    n => format!("{n} changes"),
                }
            );
        }
    }
}
