//! Embedded origin servers: members for tests, for `weir demo` and for `loadgen serve`. Owns the
//! handle to kill and revive them from another thread. Each is on one shard, in turn where there
//! are several; what they are is `origin_spec`'s, one of them on its shard `origin_member`'s.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use weir_core::counter::{Counter, Gauge};
use weir_core::rt::{self, Sender, ShardConfig, ShardError, ShardHandle};

use crate::limits;
use crate::origin_member::{Seat, serve};
pub use crate::origin_spec::{Delay, OriginSpec, Speaks};

/// Why origins could not be started or controlled.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// A spec is out of range, or there are too many.
    #[error("{0}")]
    Spec(String),
    /// The address can't be listened on.
    #[error("cannot listen on {addr}: {error}; is the port in use?")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The shard could not be started or died.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// There is no such origin, or the shard doesn't answer.
    #[error("{0}")]
    Control(String),
}

/// Counters of one origin; written by its shard, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct OriginStats {
    pub(crate) requests: Counter,
    pub(crate) connections: Counter,
    pub(crate) open: Gauge,
}

/// What the names of the threads begin with that serve origins.
pub(crate) const THREADS: &str = "origins";

/// Running origins. Dropping it closes them and waits for their threads.
#[derive(Debug)]
pub struct Origins {
    addrs: Vec<SocketAddr>,
    names: Vec<String>,
    stats: Vec<Arc<OriginStats>>,
    /// Origin n is on shard n modulo their number.
    shards: Vec<Shard>,
}

/// One that serves origins.
struct Shard {
    commands: Sender<Command>,
    handle: ShardHandle<()>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl Shard {
    /// Serves `members`; all listen when it returns.
    fn start(name: String, core: Option<usize>, members: Vec<Seat>) -> Result<Shard, OriginError> {
        let (commands, inbox) = rt::mailbox(limits::ORIGIN_COMMANDS);
        let (tell, ready) = mpsc::channel();
        let config = ShardConfig { name, core, ..ShardConfig::default() };
        let handle = rt::start_shard(config, move || serve(members, inbox, tell))?;
        match ready.recv() {
            Ok(result) => result.map(|()| Shard { commands, handle }),
            Err(_) => Err(OriginError::Control("the origins' shard ended at once".to_string())),
        }
    }

    /// Ends what it serves and waits for it.
    fn end(self) {
        // The mailbox' end ends the shard's main future.
        drop(self.commands);
        let _ = self.handle.join();
    }
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) index: usize,
    pub(crate) action: Action,
    pub(crate) done: mpsc::Sender<Result<(), String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Kill,
    Revive,
}

impl Origins {
    /// Starts one shard (pinned to `core`, if given) that serves `specs`. All listen when it
    /// returns.
    ///
    /// # Errors
    /// A bad spec, a port in use, or a shard that can't start; then nothing is left running.
    pub fn start(core: Option<usize>, specs: Vec<OriginSpec>) -> Result<Origins, OriginError> {
        Origins::start_on(core.as_slice(), specs)
    }

    /// The same with a shard on each of `cores`, but no more of them than origins, which take them
    /// in turn; empty = one that isn't pinned.
    ///
    /// # Errors
    /// As [`Origins::start`].
    pub fn start_on(cores: &[usize], specs: Vec<OriginSpec>) -> Result<Origins, OriginError> {
        if specs.is_empty() || specs.len() > limits::MAX_ORIGINS {
            return Err(OriginError::Spec("there must be 1–1024 origins".to_string()));
        }
        let mut origins = Origins {
            addrs: Vec::new(),
            names: specs.iter().map(|spec| spec.name.clone()).collect(),
            stats: Vec::new(),
            shards: Vec::new(),
        };
        let count = cores.len().clamp(1, specs.len());
        let mut members: Vec<Vec<Seat>> = (0..count).map(|_| Vec::new()).collect();
        for (n, spec) in specs.into_iter().enumerate() {
            spec.check().map_err(OriginError::Spec)?;
            let seat = Seat::reserve(spec)?;
            origins.addrs.push(seat.addr);
            origins.stats.push(Arc::clone(&seat.stats));
            members[n % count].push(seat);
        }
        for (n, members) in members.into_iter().enumerate() {
            // When one can't start, those before it end with `origins`.
            let shard = Shard::start(format!("{THREADS}-{n}"), cores.get(n).copied(), members)?;
            origins.shards.push(shard);
        }
        Ok(origins)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.addrs.len()
    }

    /// True when there are none; never.
    pub fn is_empty(&self) -> bool {
        self.addrs.is_empty()
    }

    /// Where they listen, in the order of the specs.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Their names, in the same order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Requests that origin `index` has answered; 0 for one that doesn't exist.
    pub fn requests(&self, index: usize) -> u64 {
        self.stats.get(index).map_or(0, |stats| stats.requests.get())
    }

    /// Connections that origin `index` has accepted.
    pub fn connections(&self, index: usize) -> u64 {
        self.stats.get(index).map_or(0, |stats| stats.connections.get())
    }

    /// Connections that origin `index` has open now.
    pub fn open(&self, index: usize) -> u64 {
        self.stats.get(index).map_or(0, |stats| stats.open.get())
    }

    /// Kills origin `index` like a crash: its connections end with RST, new ones are refused. Its
    /// port stays reserved. Nothing happens when it is dead already.
    ///
    /// # Errors
    /// No such origin, or its shard doesn't answer within 5 s.
    pub fn kill(&self, index: usize) -> Result<(), OriginError> {
        self.command(index, Action::Kill)
    }

    /// Revives origin `index` on the same address. Nothing happens when it lives.
    ///
    /// # Errors
    /// As [`Origins::kill`]; or the port could not be listened on again.
    pub fn revive(&self, index: usize) -> Result<(), OriginError> {
        self.command(index, Action::Revive)
    }

    fn command(&self, index: usize, action: Action) -> Result<(), OriginError> {
        if index >= self.addrs.len() {
            return Err(OriginError::Control(format!("there is no origin {index}")));
        }
        let silent = || OriginError::Control("the origins' shard does not answer".to_string());
        let (done, answer) = mpsc::channel();
        let shards = self.shards.len().max(1);
        let command = Command { index: index / shards, action, done };
        let shard = self.shards.get(index % shards).ok_or_else(silent)?;
        shard.commands.try_send(command).map_err(|_| silent())?;
        let answer = answer.recv_timeout(limits::COMMAND_LIMIT).map_err(|_| silent())?;
        answer.map_err(OriginError::Control)
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.shards.drain(..).for_each(Shard::end);
    }
}
