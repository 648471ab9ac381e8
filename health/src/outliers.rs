//! Pure: which members are left out for a while since they failed what clients asked of them
//! (`outlier_detection`), and when they come back. Told by the shards, through control, that a
//! member has failed so often in a row; asked by control. Counts no failures and knows no sockets.

use std::collections::HashMap;
use std::time::Duration;

use weir_core::control::{Pool, State};
use weir_core::model::Handle;
use weir_core::time::clock::Mono;

use crate::limits::MAX_EJECTION;

/// The members that are out, and those that were lately.
#[derive(Debug, Default)]
pub struct Outliers(HashMap<Handle, Ejection>);

/// A member that was left out at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Ejections in a row.
    pub row: u32,
    /// It is out now.
    pub out: bool,
    /// When its last ejection ends, or ended.
    pub until: Mono,
}

/// What came of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is left out for so long, for the `row`th time in a row.
    Ejected {
        /// From now on.
        time: Duration,
        /// 1 = it behaved well before.
        row: u32,
    },
    /// It stays: as many members as may be are out.
    ShareUsedUp,
    /// It stays: nobody else would be left.
    LastOne,
    /// It is out already, its checks found it down, or nobody wants to know.
    Moot,
}

impl Outliers {
    /// A member of `pool` has failed as often in a row as its pool allows.
    ///
    /// At most `max_ejected_percent` of the members that have a weight are out at a time, rounded
    /// down, but one may always be; and one that is up always stays.
    pub fn report(
        &mut self,
        member: Handle,
        pool: &Pool,
        is_up: impl Fn(Handle) -> bool,
        now: Mono,
    ) -> Verdict {
        let Some(rules) = pool.outliers else { return Verdict::Moot };
        let known = pool.members.iter().any(|other| other.handle == member);
        if !known || self.is_out(member) || !is_up(member) {
            return Verdict::Moot;
        }
        let weighed = || pool.members.iter().filter(|other| other.weight > 0);
        let share = weighed().count() * usize::from(rules.max_ejected_percent) / 100;
        let out = pool.members.iter().filter(|other| self.is_out(other.handle)).count();
        if out >= share.max(1) {
            return Verdict::ShareUsedUp;
        }
        let stays = |handle: Handle| handle != member && is_up(handle) && !self.is_out(handle);
        if !weighed().any(|other| stays(other.handle)) {
            return Verdict::LastOne;
        }
        let base = rules.base_ejection;
        let row = self.0.get(&member).map_or(0, |record| record.row_at(now, base)) + 1;
        let time = base.saturating_mul(row).min(MAX_EJECTION.max(base));
        self.0.insert(member, Ejection { row, out: true, until: now.plus(time) });
        Verdict::Ejected { time, row }
    }

    /// Those whose time is over; they are back.
    pub fn bring_back(&mut self, now: Mono) -> Vec<Handle> {
        self.end_where(|_, record| record.until <= now)
    }

    /// Those of pools that would have nobody else: they are back before their time.
    pub fn relieve(&mut self, state: &State) -> Vec<Handle> {
        let mut back = Vec::new();
        for (_, pool) in state.pools().filter(|(_, pool)| pool.outliers.is_some()) {
            let up = || pool.members.iter().filter(|m| m.weight > 0 && state.is_up(m.handle));
            if up().all(|member| self.is_out(member.handle)) {
                back.extend(up().map(|member| member.handle));
            }
        }
        self.end_where(|member, _| back.contains(&member))
    }

    /// Forgets members that are gone, or whose pools watch no more.
    pub fn follow(&mut self, state: &State) {
        let watched = state.watched_members();
        self.0.retain(|member, _| watched.contains(member));
    }

    /// All that is remembered: for another process.
    pub fn ejections(&self) -> impl Iterator<Item = (Handle, Ejection)> {
        self.0.iter().map(|(member, ejection)| (*member, *ejection))
    }

    /// Remembers what another process has handed over.
    pub fn adopt(&mut self, member: Handle, ejection: Ejection) {
        self.0.insert(member, ejection);
    }

    /// When the next one comes back.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.0.values().filter(|record| record.out).map(|record| record.until).min()
    }

    fn is_out(&self, member: Handle) -> bool {
        self.0.get(&member).is_some_and(|record| record.out)
    }

    fn end_where(&mut self, over: impl Fn(Handle, &Ejection) -> bool) -> Vec<Handle> {
        let due = self.0.iter_mut().filter(|(member, record)| record.out && over(**member, record));
        let back = due.map(|(member, record)| {
            record.out = false;
            *member
        });
        back.collect()
    }
}

impl Ejection {
    /// Each `base` that it has been in since makes the row one shorter.
    fn row_at(&self, now: Mono, base: Duration) -> u32 {
        let good = now.since(self.until).as_nanos() / base.as_nanos().max(1);
        self.row.saturating_sub(u32::try_from(good).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use weir_core::model::{self, Config, Handles, Monitor, MonitorKind, OutlierDetection};

    use super::*;

    const BASE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(1).plus(Duration::from_secs(seconds))
    }

    /// A pool with members of these weights, all of them up.
    fn state(weights: &[u8], percent: u8) -> State {
        let member = |(at, weight): (usize, &u8)| model::Member {
            id: model::Id::nil(),
            name: format!("m{at}"),
            address: ([10, 0, 0, at as u8], 80).into(),
            weight: *weight,
        };
        let outlier_detection = OutlierDetection {
            enable: true,
            base_ejection: BASE,
            max_ejected_percent: percent,
            ..OutlierDetection::default()
        };
        let members = weights.iter().enumerate().map(member).collect();
        let seconds = Duration::from_secs;
        let monitor = Some(Monitor {
            kind: MonitorKind::Tcp,
            delay: seconds(5),
            timeout: seconds(3),
            rise: 1,
            fall: 1,
            port: None,
        });
        let pool = model::Pool { members, outlier_detection, monitor, ..model::Pool::default() };
        let listener = model::Listener { default_pool: Some(0), ..model::Listener::default() };
        let config = Config { listeners: vec![listener], pools: vec![pool], ..Config::default() };
        let mut state = State::default().next(&config, &|_| vec![0], &mut Handles::default());
        state.set_health(state.checked_members().into_iter().map(|member| (member, true)));
        state
    }

    struct Scene {
        state: State,
        members: Vec<Handle>,
        outliers: Outliers,
    }

    impl Scene {
        fn new(weights: &[u8], percent: u8) -> Scene {
            let state = state(weights, percent);
            let members = state.members().map(|(_, member)| member.handle).collect();
            Scene { state, members, outliers: Outliers::default() }
        }

        fn report(&mut self, member: usize, down: &BTreeSet<usize>, now: Mono) -> Verdict {
            let (_, pool) = self.state.pools().next().unwrap();
            let down: BTreeSet<Handle> = down.iter().map(|at| self.members[*at]).collect();
            let is_up = |handle| !down.contains(&handle);
            self.outliers.report(self.members[member], pool, is_up, now)
        }
    }

    /// The time grows with each ejection in a row, up to a bound, and shrinks again while a member
    /// stays in.
    #[test]
    fn ejections_grow_and_are_forgiven() {
        let none = BTreeSet::new();
        let mut scene = Scene::new(&[1, 1], 50);
        let mut now = at(0);
        for row in 1..=12u32 {
            let time = (BASE * row).min(MAX_EJECTION);
            assert_eq!(scene.report(0, &none, now), Verdict::Ejected { time, row });
            assert_eq!(scene.report(0, &none, now), Verdict::Moot);
            assert_eq!(scene.outliers.bring_back(now.plus(time - BASE / 2)), []);
            now = now.plus(time);
            assert_eq!(scene.outliers.next(), Some(now));
            assert_eq!(scene.outliers.bring_back(now), [scene.members[0]]);
            assert_eq!(scene.outliers.next(), None);
        }
        now = now.plus(BASE * 10);
        let third = Verdict::Ejected { time: BASE * 3, row: 3 };
        assert_eq!(scene.report(0, &none, now), third, "ten of twelve are forgiven");
    }

    /// One may always be out, but never the last one that is up.
    #[test]
    fn the_share_holds_and_somebody_stays() {
        let none = BTreeSet::new();
        let ejected = Verdict::Ejected { time: BASE, row: 1 };
        let mut small = Scene::new(&[1, 1, 1], 10);
        assert_eq!(small.report(0, &none, at(0)), ejected);
        assert_eq!(small.report(1, &none, at(0)), Verdict::ShareUsedUp);
        let mut all = Scene::new(&[1, 1, 1, 0], 100);
        assert_eq!(all.report(0, &none, at(0)), ejected);
        assert_eq!(all.report(1, &BTreeSet::from([2]), at(0)), Verdict::LastOne);
        assert_eq!(all.report(2, &BTreeSet::from([2]), at(0)), Verdict::Moot, "it is down");
        assert_eq!(all.report(1, &none, at(0)), ejected);
        assert_eq!(all.report(2, &none, at(0)), Verdict::LastOne, "weight 0 serves nobody");
        assert_eq!(Scene::new(&[1], 100).report(0, &none, at(0)), Verdict::LastOne);
    }

    /// Who is out comes back before its time when its pool has nobody else, and is forgotten when
    /// nobody watches any more.
    #[test]
    fn a_pool_without_anybody_else_takes_them_back() {
        let none = BTreeSet::new();
        let mut scene = Scene::new(&[1, 1, 1, 1], 50);
        scene.report(0, &none, at(0));
        scene.report(1, &none, at(0));
        assert_eq!(scene.outliers.relieve(&scene.state), []);
        let mut state = scene.state.clone();
        state.set_health(scene.members[2..].iter().map(|member| (*member, false)));
        let mut back = scene.outliers.relieve(&state);
        back.sort_unstable();
        assert_eq!(back, scene.members[..2]);
        assert_eq!(scene.outliers.relieve(&state), []);
        scene.report(0, &none, at(0));
        scene.outliers.follow(&State::default());
        assert_eq!(scene.outliers.next(), None);
    }

    proptest! {
        /// Whatever is reported and whenever: the share holds, somebody who is up stays in, no
        /// ejection lasts longer than the bound, and in the end everybody is back.
        #[test]
        fn whatever_is_reported(
            weights in prop::collection::vec(0u8..3, 1..12),
            percent in 1u8..=100,
            steps in prop::collection::vec((0usize..12, 0u64..200, any::<u16>()), 0..80),
        ) {
            let mut scene = Scene::new(&weights, percent);
            let weighed = weights.iter().filter(|weight| **weight > 0).count();
            let share = (weighed * usize::from(percent) / 100).max(1);
            let mut now = at(0);
            for (member, wait, down) in steps {
                now = now.plus(Duration::from_secs(wait));
                scene.outliers.bring_back(now);
                let down: BTreeSet<usize> =
                    (0..weights.len()).filter(|at| down >> at & 1 == 1).collect();
                let verdict = scene.report(member % weights.len(), &down, now);
                let is_out = |at: usize| scene.outliers.is_out(scene.members[at]);
                let out = (0..weights.len()).filter(|at| is_out(*at)).count();
                prop_assert!(out <= share);
                if let Verdict::Ejected { time, .. } = verdict {
                    prop_assert!(time >= BASE && time <= MAX_EJECTION);
                    prop_assert!((0..weights.len())
                        .any(|at| weights[at] > 0 && !down.contains(&at) && !is_out(at)));
                }
            }
            scene.outliers.bring_back(now.plus(MAX_EJECTION));
            prop_assert_eq!(scene.outliers.next(), None);
        }
    }
}
