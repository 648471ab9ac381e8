//! Passive health (`outlier_detection`): from what shards tell of members that fail too often to
//! who is left out, and back in. Owns the way to the decision, not the decision, which is
//! `weir_health`'s; control calls it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::control::{MemberName, Pool, State};
use weir_core::model::Handle;
use weir_core::rt::{Receiver, Sender};
use weir_core::table::Suspect;
use weir_core::time::clock::{self, Mono};
use weir_health::{Ejection, Outliers, Verdict};

use super::control::{Control, Event};

/// Suspects that may wait until control has time; more are told again by their shards.
pub const SUSPECTS: usize = 1_024;
/// That somebody stays in, since too many are out, is logged at most so often.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Who is left out, and who is suspected.
#[derive(Debug, Default)]
pub struct Ejections {
    outliers: Outliers,
    suspects: Rc<Suspects>,
    complained: Cell<Option<Mono>>,
}

/// Suspects that control has not looked at yet.
#[derive(Debug, Default)]
struct Suspects {
    list: RefCell<BTreeMap<Handle, Suspect>>,
    /// Control has been told that there are some.
    told: Cell<bool>,
}

impl Ejections {
    /// A task that keeps what shards tell, and tells control that there is something.
    pub fn listen(
        &self,
        mut reports: Receiver<Suspect>,
        events: Sender<Event>,
    ) -> impl Future<Output = ()> + use<> {
        let suspects = Rc::clone(&self.suspects);
        async move {
            while let Some(suspect) = reports.recv().await {
                suspects.list.borrow_mut().insert(suspect.member, suspect);
                let told = &suspects.told;
                told.set(told.get() || events.try_send(Event::Suspects).is_ok());
            }
        }
    }

    /// Who is left out, or was lately, for another process.
    pub fn hand_over(&self, state: &State) -> Vec<(MemberName, Ejection)> {
        let named =
            |(member, ejection): (Handle, Ejection)| Some((state.member_name(member)?, ejection));
        self.outliers.ejections().filter_map(named).collect()
    }

    /// Goes on with what another process has handed over, in the state that is to be served.
    pub fn adopt(&mut self, ejections: &[(MemberName, Ejection)], next: &mut State) {
        let members = next.members_by_name();
        let mut out = Vec::new();
        for (name, ejection) in ejections {
            if let Some(&member) = members.get(name) {
                self.outliers.adopt(member, *ejection);
                out.extend(ejection.out.then_some((member, true)));
            }
        }
        self.outliers.follow(next);
        next.set_ejected(&out);
    }

    /// How long until somebody comes back.
    pub fn left(&self, now: Mono) -> Option<Duration> {
        self.outliers.next().map(|next| next.since(now))
    }

    fn take(&self) -> Vec<Suspect> {
        self.suspects.told.set(false);
        self.suspects.list.take().into_values().collect()
    }

    /// Judges a suspect; `true` when it is to be left out.
    fn judge(&mut self, suspect: &Suspect, state: &State, now: Mono) -> bool {
        let Some(pool) = state.pool(suspect.pool) else { return false };
        let is_up = |member| state.is_up(member);
        let verdict = self.outliers.report(suspect.member, pool, is_up, now);
        let member = pool.members.iter().find(|member| member.handle == suspect.member);
        let (pool, member) = (&pool.name, member.map_or("", |member| &member.name));
        let failures = suspect.failures;
        match verdict {
            Verdict::Ejected { time, row } => tracing::warn!(
                "pool {pool}: member {member} is left out for {} s: it failed {failures} times in \
                 a row (ejection {row} in a row)",
                time.as_secs_f64()
            ),
            Verdict::ShareUsedUp => self.complain(now, || {
                format!("max_ejected_percent of pool {pool} are out already: member {member} stays")
            }),
            Verdict::LastOne => self.complain(now, || {
                format!("pool {pool} has no other member that is well: member {member} stays")
            }),
            Verdict::Moot => {}
        }
        matches!(verdict, Verdict::Ejected { .. })
    }

    fn complain(&self, now: Mono, what: impl Fn() -> String) {
        if self.complained.get().is_none_or(|last| now.since(last) >= COMPLAINT) {
            self.complained.set(Some(now));
            tracing::warn!("outlier_detection: {}, although it fails", what());
        }
    }
}

impl Control {
    /// Looks at what the shards have told.
    pub(super) fn take_suspects(&mut self) {
        let (now, state) = (clock::mono(), Arc::clone(self.fleet.state()));
        let suspects = self.ejections.take();
        let out = suspects.iter().filter(|suspect| self.ejections.judge(suspect, &state, now));
        let out: Vec<(Handle, bool)> = out.map(|suspect| (suspect.member, true)).collect();
        self.publish_ejections(&out);
    }

    /// Takes back those whose time is over.
    pub(super) fn bring_back_if_due(&mut self, now: Mono) {
        let back = self.ejections.outliers.bring_back(now);
        self.say_back(&back, "its time is over");
    }

    /// Health or members have changed: whose pool watches no more is in again, and so are those
    /// whose pool would have nobody else.
    pub(super) fn review_ejections(&mut self) {
        let state = Arc::clone(self.fleet.state());
        self.ejections.outliers.follow(&state);
        let back = self.ejections.outliers.relieve(&state);
        self.say_back(&back, "no other member is well");
    }

    fn say_back(&mut self, back: &[Handle], why: &str) {
        for (pool, member) in self.fleet.state().members() {
            if back.contains(&member.handle) {
                tracing::info!("pool {}: member {} is back: {why}", pool.name, member.name);
            }
        }
        let back: Vec<(Handle, bool)> = back.iter().map(|member| (*member, false)).collect();
        self.publish_ejections(&back);
    }

    fn publish_ejections(&mut self, changes: &[(Handle, bool)]) {
        if changes.is_empty() {
            return;
        }
        if let Some(staged) = &mut self.staged {
            staged.next.set_ejected(changes);
        }
        let mut state = self.fleet.state().as_ref().clone();
        if state.set_ejected(changes) {
            self.publish_health(state);
        }
    }

    /// Makes a state the desired one that differs in health alone.
    pub(super) fn publish_health(&mut self, state: State) {
        let may_serve_all = |pool: &Pool| pool.attached && pool.minimum_healthy > 0;
        for (_, pool) in state.pools().filter(|(_, pool)| may_serve_all(pool)) {
            let before = self.fleet.state();
            match (before.serves_all(pool), state.serves_all(pool)) {
                (false, true) => tracing::warn!(
                    "pool {}: no member is well, so all of them get traffic (pool_health)",
                    pool.name
                ),
                (true, false) => {
                    tracing::info!("pool {}: only members that are well get traffic", pool.name);
                }
                _ => {}
            }
        }
        let board = Arc::clone(self.fleet.board());
        self.fleet.publish(state, board, Vec::new());
        self.book.health(self.fleet.state());
    }
}
