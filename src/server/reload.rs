//! Reload: from a file that was read again to the answer that says what changed and since when it
//! is in effect. All or nothing: whatever is wrong with the file, or with an address that it wants,
//! leaves the running state as it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use weir_core::control::State;
use weir_core::model::Config;
use weir_core::obs::Board;
use weir_core::time::clock::{self, Mono};

use super::control::{Control, load_apart, millis_since};
use super::doors::Moves;
use crate::cores::Plan;
use crate::{logging, notify};

/// What a reload came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Answer {
    /// Why nothing changed; `None` = the file is in effect on every shard.
    pub error: Option<String>,
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

/// The reload for which the file is being read.
#[derive(Debug, Default)]
pub struct Reloading {
    started: Option<Mono>,
    replies: Vec<mpsc::Sender<Answer>>,
    /// Who asked while it was being read: the file may have changed since.
    again: Option<Vec<mpsc::Sender<Answer>>>,
}

impl Answer {
    /// Nothing changed, and why.
    pub fn refused(error: String) -> Answer {
        Answer { error: Some(error), ..Answer::default() }
    }
}

impl Control {
    /// The state that the process starts with; its doors are bound, not yet open.
    pub(super) fn first_state(&mut self, config: &Config) -> Result<Moves> {
        let plan = self.plan.clone();
        let state = self.next_state(config, &plan);
        let moves = self.doors.plan(&state, clock::mono())?;
        for warning in &moves.warnings {
            tracing::warn!("{warning}");
        }
        let board = self.board_for(&state);
        self.fleet.publish(state, board, Vec::new());
        Ok(moves)
    }

    fn next_state(&mut self, config: &Config, plan: &Plan) -> State {
        let shards_of = |balancer| plan.shards_of(balancer);
        self.fleet.state().next(config, &shards_of, &mut self.handles)
    }

    fn board_for(&self, state: &State) -> Arc<Board> {
        let listeners = state.listeners().map(|(handle, _)| handle);
        let members = state.members().map(|(_, member)| member.handle);
        Arc::new(self.fleet.board().next(self.fleet.count(), listeners, members))
    }

    /// Has the file read; what follows comes as an event.
    pub(super) fn begin_reload(&mut self, reply: Option<mpsc::Sender<Answer>>) {
        if self.reloading.started.is_some() {
            self.reloading.again.get_or_insert_default().extend(reply);
            return;
        }
        self.reloading = Reloading {
            started: Some(clock::mono()),
            replies: reply.into_iter().collect(),
            again: None,
        };
        notify::reloading();
        let begun = match &self.path {
            Some(path) => load_apart(path.clone(), self.sender.clone()),
            None => Err(anyhow::anyhow!("this process was started without a file")),
        };
        if let Err(error) = begun {
            self.finish_reload(Err(error));
        }
    }

    /// The file was read: puts it into effect, or says why not.
    pub(super) fn finish_reload(&mut self, loaded: Result<Config>) {
        let Reloading { started, replies, again } = std::mem::take(&mut self.reloading);
        let started = started.unwrap_or_else(clock::mono);
        let answer = loaded.and_then(|config| self.put_into_effect(config)).unwrap_or_else(|e| {
            let version = self.fleet.state().version();
            Answer { version, ..Answer::refused(failure_text(&e)) }
        });
        self.pending.push(Pending { answer, started, replies });
        self.answer_pending(clock::mono());
        if let Some(again) = again {
            self.begin_reload(None);
            self.reloading.replies.extend(again);
        }
    }

    fn put_into_effect(&mut self, config: Config) -> Result<Answer> {
        let config = Arc::new(config);
        let mut notes = self.needs_upgrade(&config);
        let plan = self.plan.follow(&config)?;
        let state = self.next_state(&config, &plan);
        let mut changes = self.fleet.state().describe(&state);
        let moves = self.doors.plan(&state, clock::mono())?;
        if config.log != self.config.log {
            logging::apply(&config.log)?;
            changes.push("[log]: changed".to_owned());
        }
        if config.runtime.shutdown_timeout != self.config.runtime.shutdown_timeout {
            changes.push(format!(
                "[runtime]: shutdown_timeout {:?} → {:?}",
                self.config.runtime.shutdown_timeout, config.runtime.shutdown_timeout
            ));
            self.set_shutdown_timeout(config.runtime.shutdown_timeout);
        }
        notes.extend(moves.warnings.iter().cloned());
        self.config = config;
        self.plan = plan;
        if !self.fleet.state().diff(&state).changes.is_empty() {
            let (doors, doings) = moves.accept();
            self.doors = doors;
            let board = self.board_for(&state);
            self.fleet.publish(state, board, doings);
            self.book.show(self.fleet.state(), self.fleet.board());
            self.follow_checks();
        }
        let version = self.fleet.state().version();
        Ok(Answer { error: None, version, changes, notes, effective_ms: 0.0 })
    }

    /// What the file asks for that a running process can't do.
    fn needs_upgrade(&self, config: &Config) -> Vec<String> {
        let (was, now) = (&self.config.runtime, &config.runtime);
        let fixed = [
            ("[runtime] cores", was.cores != now.cores),
            ("[runtime] smt", was.smt != now.smt),
            ("[runtime] control_core", was.control_core != now.control_core),
            ("[runtime] numa_node", was.numa_node != now.numa_node),
            ("[runtime] spin", was.spin != now.spin),
            ("[runtime] backlog", was.backlog != now.backlog),
            ("[runtime] run_dir", was.run_dir != now.run_dir),
            ("[admin] listen", self.config.admin != config.admin),
        ];
        let changed = fixed.iter().filter(|(_, changed)| *changed);
        changed
            .map(|(key, _)| format!("{key}: changed in the file; takes effect at the next start"))
            .collect()
    }

    /// Answers for the changes that are in effect everywhere, and for those that were refused.
    pub(super) fn answer_pending(&mut self, now: Mono) {
        let effective = self.fleet.effective();
        let due = |p: &mut Pending| p.answer.error.is_some() || p.answer.version <= effective;
        let done: Vec<Pending> = self.pending.extract_if(.., due).collect();
        for Pending { mut answer, started, replies } in done {
            answer.effective_ms = millis_since(started, now);
            log_answer(&answer);
            notify::ready();
            for reply in replies {
                // Who asked may have gone; the log has the answer too.
                let _unheard = reply.send(answer.clone());
            }
        }
    }

    /// The process ends: who still waits hears so.
    pub(super) fn refuse_pending(&mut self) {
        let replies = std::mem::take(&mut self.reloading.replies);
        let waiting = self.pending.drain(..).flat_map(|pending| pending.replies);
        for reply in waiting.chain(replies) {
            let _unheard = reply.send(Answer::refused("the process ends".to_owned()));
        }
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

/// A file's mistakes come as they are, with their places; all else with its causes.
fn failure_text(error: &anyhow::Error) -> String {
    match error.downcast_ref::<weir_core::config::Failure>() {
        Some(failure) => failure.to_string().trim_end().to_owned(),
        None => format!("{error:#}"),
    }
}

fn log_answer(answer: &Answer) {
    match &answer.error {
        Some(error) => tracing::error!("reload refused, nothing changed: {error}"),
        None => {
            for line in &answer.changes {
                tracing::info!("reload: {line}");
            }
            for line in &answer.notes {
                tracing::warn!("reload: {line}");
            }
            tracing::info!(
                "reload: version {} is in effect on all shards after {:.1} ms, {} changes",
                answer.version,
                answer.effective_ms,
                answer.changes.len()
            );
        }
    }
}
