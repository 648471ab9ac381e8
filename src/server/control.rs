//! The control thread: the one owner of the desired state. Signals, reports of the shards, verdicts
//! of the health checks and requests of users come to it as events, one after the other; what
//! follows goes to the shards through the `fleet`. Runs on the runtime, like a shard, but serves
//! no clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use weir_core::cert::Store;
use weir_core::config::{self, Loaded};
use weir_core::model::{Config, Handles};
use weir_core::net::Place;
use weir_core::rt::{self, Receiver, Sender, Signals};
use weir_core::table::Suspect;
use weir_core::time::clock::{self, Mono};
use weir_core::tls::tickets;

use super::certificates::{Found, Keeper};
use super::checking::Checks;
use super::doors::Doors;
use super::ejections::Ejections;
use super::fleet::Fleet;
use super::life::{End, Life, Step};
use super::reload::{self, Answer, Pending};
use super::upgrade::{Front, Inherited, Upgrading, Wanted};
use crate::access_log::Writers;
use crate::admin::Book;
use crate::cores::Plan;
use crate::shard::{News, QUIET, Report};
use crate::upgrade::Upgraded;
use crate::upgrade::giver::Progress;
use crate::upgrade::heir::{Handed, Legacy};
use crate::{logging, notify};

/// A shard that was told to stop and has not ended after this long is left to the process's end.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How soon an order is given again that a shard had no room for.
const ORDER_TICK: Duration = Duration::from_millis(5);
/// How often control looks at the clock while it drains.
const DRAIN_TICK: Duration = Duration::from_millis(10);
/// The same while the process whose place this one takes is waited for.
const INHERIT_TICK: Duration = Duration::from_secs(1);
/// The same while nothing is due.
const IDLE_TICK: Duration = Duration::from_secs(3600);

/// What comes to control.
#[derive(Debug)]
pub enum Event {
    /// A signal.
    Signal(i32),
    /// A shard's news.
    Report(Report),
    /// A user's request.
    Ask(Ask),
    /// Health checks have found something.
    Verdicts,
    /// Shards have told of members that fail too often.
    Suspects,
    /// A file was read, for the reload that is under way.
    Loaded(Box<Result<Loaded>>),
    /// Something happened to a file that is watched.
    FilesChanged,
    /// The certificates' files were read again.
    CertificatesRead(Box<Found>),
    /// An upgrade that was asked for has come further.
    Upgrade(Progress),
    /// The process whose place this one is to take has handed something over, or serves on.
    Inherited(Box<Result<Handed>>),
}

/// What a user may ask of the running process.
#[derive(Debug)]
pub enum Ask {
    /// Read the file again; the answer comes when it is in effect, or was refused.
    Reload(mpsc::Sender<Answer>),
    /// Replace the program; the answer comes when the new process serves, or could not.
    Upgrade(Wanted, mpsc::Sender<Upgraded>),
    /// Have every shard send its number and what its table says.
    Show(mpsc::Sender<(usize, Vec<String>)>),
    /// End at once.
    Stop,
}

/// What control starts with.
pub struct Boot {
    /// What to serve.
    pub config: Arc<Config>,
    /// What its certificates hold.
    pub certificates: Store,
    /// The file that it came from, for reloads; `None` = it can't be reloaded.
    pub path: Option<PathBuf>,
    /// The shards, empty.
    pub fleet: Fleet,
    /// Which of them serve whom.
    pub plan: Plan,
    /// Seed of random choices.
    pub seed: u64,
    /// Where events come from and go to.
    pub events: (Sender<Event>, Receiver<Event>),
    /// Where shards tell of members that fail too often.
    pub suspects: Receiver<Suspect>,
    /// Signals to obey; `None` = none.
    pub signals: Option<Signals>,
    /// What the admin thread shows.
    pub book: Arc<Book>,
    /// What it needs to be replaced; `None` = it can't be.
    pub front: Option<Front>,
    /// What it was handed, where it takes another one's place.
    pub inherited: Option<Inherited>,
    /// Whom to tell that all listeners accept.
    pub ready: mpsc::Sender<Ready>,
}

/// All listeners accept.
#[derive(Debug)]
pub struct Ready {
    /// Each listener's name, protocol and bound addresses.
    pub listeners: Vec<reload::Served>,
    /// The doors by which clients come.
    pub places: Vec<Place>,
}

/// How the control thread ended.
pub struct Outcome {
    /// Why, or what went wrong while it started.
    pub end: Result<End>,
    /// The shards, if they could be stopped; to be joined.
    pub fleet: Option<Fleet>,
    /// Client connections that were open at the end.
    pub open: u64,
}

/// The state of the control thread.
pub(super) struct Control {
    /// What was started with: some of it can't change in a running process.
    pub(super) begun_with: Arc<Config>,
    pub(super) config: Arc<Config>,
    pub(super) certificates: Store,
    pub(super) keeper: Keeper,
    pub(super) path: Option<PathBuf>,
    pub(super) fleet: Fleet,
    pub(super) plan: Plan,
    pub(super) doors: Doors,
    pub(super) handles: Handles,
    pub(super) book: Arc<Book>,
    pub(super) sender: Sender<Event>,
    pub(super) pending: Vec<Pending>,
    pub(super) reloading: reload::Reloading,
    pub(super) checks: Checks,
    pub(super) ejections: Ejections,
    pub(super) staged: Option<reload::Staged>,
    pub(super) writers: Writers,
    pub(super) front: Option<Front>,
    pub(super) upgrading: Option<Upgrading>,
    /// What the process whose place this one takes has handed over last.
    pub(super) legacy: Option<Result<Legacy>>,
    pub(super) life: Life,
    /// What shards could not do about doors before the process served.
    pub(super) unopened: Vec<String>,
    /// Its doors are those of another process, too, which serves on unless this one says that it
    /// does: they must let clients in whatever happens here.
    pub(super) shares_doors: bool,
    events: Receiver<Event>,
    /// Shards that have reported that they run …
    pub(super) running: usize,
    /// … and that they have ended.
    ended: usize,
}

/// The control thread's main task.
pub async fn run(boot: Boot) -> Outcome {
    let Boot { config, certificates, path, fleet, plan, seed, events, .. } = boot;
    let Boot { suspects, signals, book, front, inherited, ready, .. } = boot;
    let (sender, events) = events;
    let ejections = Ejections::default();
    rt::spawn(ejections.listen(suspects, sender.clone()));
    if let Some(signals) = signals {
        rt::spawn(listen(signals, sender.clone()));
    }
    let mut control = Control {
        life: Life::new(fleet.count(), config.runtime.shutdown_timeout),
        doors: Doors::new(fleet.count(), config.runtime.backlog),
        begun_with: Arc::clone(&config),
        writers: Writers::new(fleet.count()),
        config,
        certificates,
        keeper: Keeper::default(),
        path,
        fleet,
        plan,
        handles: Handles::default(),
        checks: Checks::new(seed, book.prober(), sender.clone()),
        ejections,
        book,
        sender,
        pending: Vec::new(),
        reloading: reload::Reloading::default(),
        staged: None,
        front,
        upgrading: None,
        legacy: None,
        unopened: Vec::new(),
        shares_doors: false,
        events,
        running: 0,
        ended: 0,
    };
    let end = match control.start(inherited).await {
        Ok(None) => {
            control.fleet.settle();
            // Who waits for it is gone only when the process ends.
            let places = control.doors.places().collect();
            let _unheard = ready.send(Ready { listeners: control.served(), places });
            control.begin_what_waits();
            Ok(control.obey().await)
        }
        Ok(Some(end)) => Ok(end),
        Err(error) => Err(error),
    };
    control.finish(end).await
}

/// Passes signals on as events.
async fn listen(signals: Signals, sender: Sender<Event>) {
    loop {
        match signals.next().await {
            Ok(number) => {
                if sender.try_send(Event::Signal(number)).is_err() {
                    tracing::error!("signal {number} is lost: control has too much to do");
                }
            }
            Err(e) => return tracing::error!("no more signals are heard: {e}"),
        }
    }
}

impl Control {
    /// Puts what the checks have found into effect.
    pub(super) fn take_verdicts(&mut self) {
        let verdicts = self.checks.take();
        if let Some(staged) = &mut self.staged {
            staged.next.set_health(verdicts.iter().copied());
        }
        let mut state = self.fleet.state().as_ref().clone();
        if state.set_health(verdicts) {
            self.publish_health(state);
            self.review_ejections();
        }
    }

    /// Session ticket keys do their time. Not while a change waits, which would bring back those
    /// that it was worked out with.
    fn rotate_tickets(&mut self) {
        let now = tickets::now();
        if self.staged.is_some() || !self.fleet.state().tickets_are_due(now) {
            return;
        }
        let mut state = self.fleet.state().as_ref().clone();
        if state.rotate_tickets(now) {
            let board = Arc::clone(self.fleet.board());
            self.fleet.publish(state, board, Vec::new());
            tracing::info!("session tickets are sealed with new keys");
        }
    }

    /// Handles events until one ends the process.
    async fn obey(&mut self) -> End {
        loop {
            if let Some(end) = self.turn().await {
                return end;
            }
            self.land_if_due(clock::mono());
            self.bring_back_if_due(clock::mono());
            self.look_if_due(clock::mono());
            self.answer_pending(clock::mono());
            self.rotate_tickets();
        }
    }

    /// Waits for an event, or until something is due, and handles it.
    pub(super) async fn turn(&mut self) -> Option<End> {
        let waiting = self.is_waiting(clock::mono());
        let tick = match &self.staged {
            _ if self.life.is_timed() => DRAIN_TICK,
            _ if self.life.is_draining() => IDLE_TICK,
            // Nothing is due by time while another process is waited for.
            Some(staged) if waiting => staged.tick(),
            Some(_) => INHERIT_TICK,
            None => IDLE_TICK.min(self.certificates_left(clock::mono())),
        };
        let tick = self.ejections.left(clock::mono()).map_or(tick, |left| tick.min(left));
        let end = match self.event(tick).await {
            Ok(Some(event)) => self.handle(event),
            Ok(None) => Some(End::AtOnce),
            Err(rt::Elapsed) => None,
        };
        // Also after an event: a stream of them must not stretch a drain.
        end.or_else(|| self.step(self.life.tick(clock::mono())))
    }

    /// The next event, for at most `limit`, or less when orders wait for room.
    pub(super) async fn event(&mut self, limit: Duration) -> Result<Option<Event>, rt::Elapsed> {
        let limit = if self.fleet.deliver() { limit.min(ORDER_TICK) } else { limit };
        rt::timeout(limit, self.events.recv()).await
    }

    pub(super) fn handle(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Signal(number) => match self.put_off(number) {
                Some(step) => self.step(step),
                None => self.signal(number),
            },
            Event::Report(report) => self.report(report),
            Event::Ask(Ask::Reload(reply)) => {
                self.begin_reload(vec![reply]);
                None
            }
            Event::Ask(Ask::Upgrade(wanted, reply)) => {
                self.begin_upgrade(wanted, Some(reply));
                None
            }
            Event::Upgrade(progress) => {
                let signals = self.upgrade(progress);
                signals.into_iter().find_map(|number| self.signal(number))
            }
            Event::Inherited(handed) => {
                self.take_handed(*handed);
                None
            }
            Event::Ask(Ask::Show(reply)) => {
                self.fleet.show(&reply);
                None
            }
            Event::Ask(Ask::Stop) => Some(End::AtOnce),
            Event::Verdicts => {
                self.take_verdicts();
                None
            }
            Event::Suspects => {
                self.take_suspects();
                None
            }
            Event::Loaded(loaded) => {
                self.finish_reload(*loaded);
                None
            }
            Event::FilesChanged => {
                self.look_at_certificates();
                None
            }
            Event::CertificatesRead(found) => {
                self.take_certificates(*found);
                None
            }
        }
    }

    fn signal(&mut self, number: i32) -> Option<End> {
        let step = self.life.signal(number, clock::mono());
        self.step(step)
    }

    fn report(&mut self, report: Report) -> Option<End> {
        match &report.news {
            News::Ready => self.running += 1,
            News::Applied(version, trouble) => {
                for text in trouble {
                    let text = format!("shard {}: {text}", report.shard);
                    tracing::error!("{text}");
                    self.pending.iter_mut().for_each(|pending| pending.note(&text));
                    if !self.fleet.is_settled() {
                        self.unopened.push(text);
                    }
                }
                self.fleet.applied(report.shard, *version);
                self.book.effective(self.fleet.effective());
            }
            News::Ended => self.ended += 1,
            News::Drained | News::Suspect(_) => {}
        }
        let step = self.life.report(&report);
        self.step(step)
    }

    fn step(&mut self, step: Step) -> Option<End> {
        match step {
            Step::Wait => {}
            Step::Say(text) => tracing::warn!("{text}"),
            Step::Reload => self.begin_reload(Vec::new()),
            Step::Upgrade => self.begin_upgrade(Wanted::default(), None),
            Step::Reopen => {
                if let Err(e) = logging::reopen() {
                    tracing::error!("SIGUSR1: {e:#}");
                }
                self.writers.reopen();
            }
            // Doors that a drain closes let nobody into the other process either.
            Step::Drain if self.shares_doors => {}
            Step::Drain => self.drain(),
            Step::End(end) => return Some(end),
        }
        None
    }

    fn drain(&mut self) {
        self.abandon_staged("the process drains");
        let limit = self.config.runtime.shutdown_timeout;
        tracing::info!(
            "draining {} client connections for at most {} s",
            self.fleet.active_connections(),
            limit.as_secs()
        );
        self.book.set_draining();
        notify::stopping();
        self.fleet.drain(QUIET.min(limit / 2));
    }

    pub(super) fn is_draining(&self) -> bool {
        self.life.is_draining()
    }

    /// A drain that begins from now on waits so long.
    pub(super) fn set_shutdown_timeout(&mut self, timeout: Duration) {
        self.life.set_timeout(timeout);
    }

    /// Stops the shards; what is still open is cut.
    async fn finish(mut self, end: Result<End>) -> Outcome {
        let open = self.fleet.active_connections();
        self.refuse_pending();
        self.fleet.stop();
        let until = clock::mono().plus(STOP_LIMIT);
        while self.ended < self.fleet.count() && clock::mono() < until {
            match self.event(until.since(clock::mono())).await {
                Ok(Some(Event::Report(Report { news: News::Ended, .. }))) => self.ended += 1,
                Ok(Some(_)) | Err(rt::Elapsed) => {}
                Ok(None) => break,
            }
        }
        let all = self.ended == self.fleet.count();
        self.writers.finish();
        Outcome { end, fleet: all.then_some(self.fleet), open }
    }
}

/// Time until `until`, for messages.
pub(super) fn millis_since(start: Mono, now: Mono) -> f64 {
    now.since(start).as_secs_f64() * 1e3
}

/// The reading thread of a reload: parsing a large file takes time that control doesn't have.
pub(super) fn load_apart(path: PathBuf, sender: Sender<Event>) -> Result<()> {
    let read = move || {
        // Control waits for this message: it must come, whatever happens in here.
        let read = std::panic::catch_unwind(|| Ok(config::load(&path)?));
        let loaded = read.unwrap_or_else(|_| Err(anyhow!("a defect: the file's reader panicked")));
        let loaded = loaded.context("reload");
        // Lost only when the process ends.
        let _unheard = sender.try_send(Event::Loaded(Box::new(loaded)));
    };
    std::thread::Builder::new().name("weir-reload".into()).spawn(read).context("reading thread")?;
    Ok(())
}
