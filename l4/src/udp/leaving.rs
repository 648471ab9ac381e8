//! Pure: until when flows of members that leave may run, as TCP sessions may (R7.14-4): for the
//! `connection_drain` of the pool that they were chosen from, as it is now, counted from when the
//! member was first seen to leave. Knows no flow and no clock; the room calls it with both.

use std::collections::HashMap;
use std::time::Duration;

use weir_core::model::Handle;
use weir_core::time::clock::Mono;

/// Members that leave and have flows.
#[derive(Debug, Default)]
pub(super) struct Leaving(HashMap<Handle, Leave>);

#[derive(Debug)]
struct Leave {
    since: Mono,
    /// `None` = its flows run until they are idle.
    until: Option<Mono>,
}

impl Leaving {
    /// The tables have changed. `members` are all that leave and have flows, each as often as one
    /// likes, with the time that their pool gives them; `None` = until they are idle. One that came
    /// back meanwhile has its whole time when it leaves again.
    pub(super) fn note(
        &mut self,
        now: Mono,
        members: impl IntoIterator<Item = (Handle, Option<Duration>)>,
    ) {
        let former = std::mem::take(&mut self.0);
        for (member, drain) in members {
            let since = former.get(&member).map_or(now, |leave| leave.since);
            let until = drain.map(|drain| since.plus(drain));
            self.0.insert(member, Leave { since, until });
        }
    }

    /// A member whose flows end now. It is not named again, since it has no flow any more.
    pub(super) fn due(&mut self, now: Mono) -> Option<Handle> {
        let is_due = |leave: &Leave| leave.until.is_some_and(|until| until <= now);
        let member = self.0.iter().find(|(_, leave)| is_due(leave)).map(|(member, _)| *member)?;
        self.0.remove(&member);
        Some(member)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.values().filter_map(|leave| leave.until).min()
    }
}

#[cfg(test)]
mod tests {
    use weir_core::model::Handles;

    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos((1 << 40) + seconds * 1_000_000_000)
    }

    fn limit(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    /// R7.14-4, the cases of TCP's `a_leaving_member_has_its_time`.
    #[test]
    fn a_leaving_member_has_its_time() {
        let member = Handles::default().fresh();
        let mut leaving = Leaving::default();
        leaving.note(at(0), [(member, None)]);
        assert_eq!((leaving.next(), leaving.due(at(1_000))), (None, None));
        leaving.note(at(5), [(member, limit(10)), (member, limit(10))]);
        assert_eq!(leaving.next(), Some(at(10)), "counted from when it left");
        leaving.note(at(9), [(member, limit(20))]);
        assert_eq!((leaving.next(), leaving.due(at(19))), (Some(at(20)), None), "the new time");
        leaving.note(at(9), []);
        assert_eq!(leaving.next(), None, "it came back");
        leaving.note(at(30), [(member, limit(10))]);
        assert_eq!((leaving.next(), leaving.due(at(39))), (Some(at(40)), None));
        assert_eq!(leaving.due(at(40)), Some(member));
        assert_eq!((leaving.next(), leaving.due(at(40))), (None, None), "once");
    }

    /// Each by its own pool.
    #[test]
    fn members_are_due_each_in_its_time() {
        let mut handles = Handles::default();
        let [one, two, three] = [0; 3].map(|_| handles.fresh());
        let mut leaving = Leaving::default();
        leaving.note(at(0), [(one, limit(30)), (two, limit(10)), (three, None)]);
        assert_eq!(leaving.next(), Some(at(10)));
        assert_eq!((leaving.due(at(29)), leaving.due(at(29))), (Some(two), None));
        assert_eq!(leaving.next(), Some(at(30)));
        assert_eq!((leaving.due(at(60)), leaving.due(at(60))), (Some(one), None));
    }
}
