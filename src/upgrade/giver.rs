//! The serving process' side of an upgrade: a thread that starts the new program, hands over what
//! control gives it, and tells control how far it is. It only waits and passes on; what the
//! process does at each step is control's to decide. Started with the process, before any thread
//! is pinned to a core: what it starts may run on all of them.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use weir_core::control::{Bound, MemberName, Verdict};
use weir_core::model::Id;
use weir_core::net::Place;
use weir_core::time::clock;
use weir_health::{Ejection, Past};

use super::flows::{Flows, Parcel};
use super::heir;
use super::wire::{Channel, Doors, Manifest, Message};
use crate::logging;

/// A shard that has not handed over its sockets or flows after this long will not; so long may the
/// new process leave the last things untaken.
const LEND_LIMIT: Duration = Duration::from_secs(5);
/// How long the new process may take to serve, once it was told to.
const SERVE_LIMIT: Duration = Duration::from_secs(15);
/// Lines of the new program's standard error that are kept for the answer.
const TAIL_LINES: usize = 20;
/// Bytes of a line that are kept.
const TAIL_BYTES: usize = 1_000;
/// How long a new process that hands nothing back any more may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether it has.
const END_TICK: Duration = Duration::from_millis(10);
/// How long the last of its words may take after its end.
const TAIL_LIMIT: Duration = Duration::from_millis(500);

/// Listening sockets that a shard lends: its number, and each with its place.
pub type Lent = (usize, io::Result<Vec<(Place, OwnedFd)>>);

/// What is asked of the thread: one upgrade.
pub struct Job {
    /// The program to start.
    pub program: PathBuf,
    /// How long it may take to get ready.
    pub patience: Duration,
    /// What it needs to get ready; the doors are filled in here.
    pub manifest: Manifest,
    /// Listeners of places where the file asks for any free port.
    pub free_ports: BTreeMap<Place, Id>,
    /// The listening socket of the admin listener.
    pub admin: Option<OwnedFd>,
    /// Where the shards lend their sockets.
    pub lent: Receiver<Lent>,
    /// How many shards there are.
    pub shards: usize,
    /// Whom to tell how far it is.
    pub tell: Box<dyn Fn(Progress) + Send>,
}

/// How far an upgrade is.
#[derive(Debug)]
pub enum Progress {
    /// The new process could serve now: it is handed what is much, and nobody has to wait for.
    Bindings {
        /// Takes what is bound. Dropped = the process is not to serve.
        reply: Sender<Vec<Bound>>,
    },
    /// It waits for the last things.
    Prepared {
        /// The UDP doors whose flows it would go on with, each with its listener's id.
        flows_of: Vec<(SocketAddr, String)>,
        /// Takes the last things. Dropped = it is not to serve.
        reply: Sender<Parting>,
    },
    /// The new process is told to serve: what comes now can't be taken back by this one.
    Done {
        /// Its id.
        pid: u32,
        /// The doors that it has taken over.
        taken: Vec<Place>,
    },
    /// It serves on as it did.
    Failed(String),
}

/// What is handed over last.
#[derive(Debug, Default)]
pub struct Parting {
    /// The health of members.
    pub health: Vec<Verdict>,
    /// What else their checks have come to.
    pub past: Vec<(MemberName, Past)>,
    /// What was bound since [`Progress::Bindings`].
    pub bindings: Vec<Bound>,
    /// Members that are left out, or were lately.
    pub ejections: Vec<(MemberName, Ejection)>,
    /// UDP flows, until all who send them have gone.
    pub flows: Option<Receiver<Parcel>>,
}

/// Starts the thread.
///
/// # Errors
/// It can't be made.
pub fn start() -> Result<Sender<Job>> {
    let (jobs, work) = channel::<Job>();
    let run = move || {
        for job in work {
            let tell = &job.tell;
            match begin(&job) {
                Err(error) => tell(Progress::Failed(format!("{error:#}"))),
                Ok((mut heir, lent)) => match heir.follow(&job, lent) {
                    Ok(taken) => {
                        tell(Progress::Done { pid: heir.child.id(), taken });
                        heir.see_off();
                    }
                    Err(error) => {
                        let text = heir.give_up(&error);
                        tell(Progress::Failed(text));
                    }
                },
            }
        }
    };
    std::thread::Builder::new().name("weir-upgrade".into()).spawn(run).context("thread")?;
    Ok(jobs)
}

/// The new process.
struct Heir {
    child: Child,
    channel: Channel,
    tail: Tail,
    /// It has closed its end of the channel.
    is_gone: bool,
}

/// The listening sockets of all shards, and what they are.
type Collected = (Vec<Doors>, Vec<OwnedFd>);

/// Collects the sockets and starts the program that is to have them.
fn begin(job: &Job) -> Result<(Heir, Collected)> {
    let collected = collect(job)?;
    let (here, there) = UnixStream::pair().context("cannot make a socket")?;
    let program = job.program.display();
    let mut child = Command::new(&job.program)
        .args(std::env::args_os().skip(1))
        .env(heir::VARIABLE, heir::VALUE)
        .stdin(OwnedFd::from(there))
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    tracing::info!("upgrade: {program} starts as process {}", child.id());
    let tail = Tail::of(child.stderr.take().map(BufReader::new)).inspect_err(|_| {
        let _just_ended = child.kill().and_then(|()| child.wait());
    })?;
    Ok((Heir { child, channel: Channel::over(here), tail, is_gone: false }, collected))
}

/// The sockets of all shards, by place.
fn collect(job: &Job) -> Result<Collected> {
    let mut places: BTreeMap<Place, Vec<(usize, OwnedFd)>> = BTreeMap::new();
    for _ in 0..job.shards {
        let lent = job.lent.recv_timeout(LEND_LIMIT);
        let (shard, sockets) = lent.context("a shard did not hand over its sockets")?;
        let sockets = sockets.context(
            "cannot copy the listening sockets (where descriptors are missing, set [runtime] \
             max_connections lower, or raise LimitNOFILE= for the next start)",
        )?;
        for (place, socket) in sockets {
            places.entry(place).or_default().push((shard, socket));
        }
    }
    let (mut doors, mut all) = (Vec::new(), Vec::new());
    for (place, mut sockets) in places {
        sockets.sort_by_key(|(shard, _)| *shard);
        doors.push(Doors {
            door: place.into(),
            free_port_of: job.free_ports.get(&place).map(ToString::to_string),
            shards: sockets.iter().map(|(shard, _)| *shard).collect(),
        });
        all.extend(sockets.into_iter().map(|(_, socket)| socket));
    }
    Ok((doors, all))
}

impl Heir {
    fn say(&mut self, message: &Message, rights: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel.send(message, rights).context("the new process takes nothing")
    }

    fn hear(&mut self, limit: Duration, what: &str) -> Result<Message> {
        self.channel.set_limit(limit)?;
        match self.channel.recv() {
            Ok((message, _)) => Ok(message),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                bail!(
                    "the new process was not {what} within {} s (`--timeout` gives it longer)",
                    limit.as_secs()
                )
            }
            Err(_) => {
                self.is_gone = true;
                bail!("the new process ended before it was {what}")
            }
        }
    }

    /// The first message, with all that it needs to get ready.
    fn greet(&mut self, job: &Job, (doors, sockets): Collected) -> Result<()> {
        self.channel.set_limit(job.patience)?;
        let stderr = io::stderr();
        let mut rights = vec![stderr.as_fd()];
        rights.extend(job.admin.as_ref().map(AsFd::as_fd));
        rights.extend(sockets.iter().map(AsFd::as_fd));
        let manifest = Box::new(Manifest { doors, ..job.manifest.clone() });
        match self.channel.send(&Message::Manifest(manifest), &rights) {
            // What it said before it went is told when its answer is awaited.
            Err(e) if matches!(e.kind(), BrokenPipe | ConnectionReset) => Ok(()),
            done => done.context("the new process can't be handed the sockets"),
        }
    }

    /// From its start until it serves; the doors that it has taken.
    fn follow(&mut self, job: &Job, collected: Collected) -> Result<Vec<Place>> {
        self.greet(job, collected)?;
        let Message::Prepared { flows_of } = self.hear(job.patience, "ready")? else {
            bail!("the new process speaks another language");
        };
        let refused = || anyhow!("this process has begun to drain");
        self.channel.set_limit(LEND_LIMIT)?;
        let (reply, bindings) = channel();
        (job.tell)(Progress::Bindings { reply });
        self.hand_over_bindings(&bindings.recv().map_err(|_| refused())?)?;
        let (reply, parting) = channel();
        (job.tell)(Progress::Prepared { flows_of, reply });
        let parting: Parting = parting.recv().map_err(|_| refused())?;
        // Clients wait from now on, and signals too.
        self.hand_over_bindings(&parting.bindings)?;
        self.hand_over_flows(parting.flows)?;
        let health = parting.health.iter().map(Into::into).collect();
        let ejections = parting.ejections.iter().map(Into::into).collect();
        let past = parting.past.iter().map(Into::into).collect();
        self.say(&Message::Go { health, past, ejections }, &[])?;
        match self.hear(SERVE_LIMIT, "serving")? {
            Message::Serving { taken } => Ok(taken.into_iter().map(Into::into).collect()),
            _ => bail!("the new process speaks another language"),
        }
    }

    /// Passes bindings on: those of 131,072 sessions a pool are some 5 MB.
    fn hand_over_bindings(&mut self, bindings: &[Bound]) -> Result<()> {
        let mut all = bindings.iter();
        all.try_for_each(|bound| self.say(&Message::Bindings(bound.into()), &[]))
    }

    /// Passes UDP flows on, as shards send them.
    fn hand_over_flows(&mut self, parcels: Option<Receiver<Parcel>>) -> Result<()> {
        let Some(parcels) = parcels else { return Ok(()) };
        let start = clock::mono();
        let (mut count, mut sockets) = (0, 0);
        loop {
            let parcel = match parcels.recv_timeout(LEND_LIMIT) {
                Ok(parcel) => parcel,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("a shard did not hand over its UDP flows"),
            };
            let (flows, rights) = Flows::of(&parcel);
            self.say(&Message::Flows(flows), &rights)?;
            count += parcel.flows.len();
            sockets += parcel.sockets.len();
        }
        let took = clock::mono().since(start).as_secs_f64() * 1e3;
        tracing::info!(
            "upgrade: {count} UDP flows over {sockets} sockets went over in {took:.1} ms"
        );
        Ok(())
    }

    /// Ends it; what went wrong, with its last words.
    fn give_up(mut self, error: &anyhow::Error) -> String {
        // It may be about to end by itself: then its status says how.
        let until = clock::mono().plus(if self.is_gone { END_LIMIT } else { Duration::ZERO });
        drop(self.channel);
        let mut ended = self.child.try_wait().ok().flatten();
        while ended.is_none() && clock::mono() < until {
            std::thread::park_timeout(END_TICK);
            ended = self.child.try_wait().ok().flatten();
        }
        if ended.is_none() {
            let _just_ended = self.child.kill();
        }
        let status = self.child.wait();
        let mut text = format!("{error:#}");
        if let Some(status) = ended.or_else(|| status.ok().filter(|s| s.code().is_some())) {
            text += &format!(" ({status})");
        }
        let words = self.tail.words();
        if !words.is_empty() {
            text += "; its last words:\n";
            text += &words;
        }
        text
    }

    /// Waits for its end, which is not to leave a zombie.
    fn see_off(mut self) {
        let pid = self.child.id();
        match self.child.wait() {
            Ok(status) => tracing::warn!("the process {pid} that took over has ended: {status}"),
            Err(e) => tracing::warn!("the process {pid} that took over: {e}"),
        }
    }
}

/// What the new program says on standard error: passed on, and the last lines kept. When it serves
/// it is given our standard error, so that it does not need this process any more.
struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Receiver<()>,
}

impl Tail {
    fn of(stderr: Option<impl BufRead + Send + 'static>) -> Result<Tail> {
        let lines: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (end, ended) = channel();
        let kept = Arc::clone(&lines);
        let run = move || {
            let lines = stderr.into_iter().flat_map(|stderr| stderr.split(b'\n'));
            for line in lines.map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                logging::say(&line);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.truncate(TAIL_LINES - 1);
                kept.push_front(line.chars().take(TAIL_BYTES).collect());
            }
            // Who waits for it may have gone.
            let _unheard = end.send(());
        };
        std::thread::Builder::new().name("weir-tail".into()).spawn(run).context("thread")?;
        Ok(Tail { lines, ended })
    }

    /// The last lines, once there are no more.
    fn words(&self) -> String {
        // What the program has started itself may hold its standard error open.
        let _held_open = self.ended.recv_timeout(TAIL_LIMIT);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().cloned().collect::<Vec<_>>().join("\n")
    }
}
