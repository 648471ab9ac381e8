//! Pure: what a member's successes and failures come to.

/// What a member's checks have come to beside whether it is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// It has been up.
    pub known: bool,
    /// Outcomes in a row that speak against its present state.
    pub against: u32,
}

/// The state of one member's check.
///
/// A member that was never found up is up after its first success (R7.10-1); from then on it takes
/// `fall` failures in a row to go down and `rise` successes in a row to come up again (R8.7-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    up: bool,
    /// It has been up before.
    known: bool,
    /// It has had a verdict at all.
    judged: bool,
    /// Outcomes in a row that speak against the present state.
    against: u32,
}

impl State {
    /// Before the first probe. `up`: it served without checks until now, and counts as up until
    /// they find otherwise; else it is down until its first success (C36).
    pub(crate) fn new(up: bool) -> State {
        State { up, known: up, judged: false, against: 0 }
    }

    /// Before the first probe here of a member that another process has checked before.
    pub(crate) fn after(up: bool, past: Past) -> State {
        State { up, known: up || past.known, judged: false, against: past.against }
    }

    /// For another process.
    pub(crate) fn past(&self) -> Past {
        Past { known: self.known, against: self.against }
    }

    /// Takes one outcome; the new state if that changed it.
    pub(crate) fn record(&mut self, success: bool, rise: u8, fall: u8) -> Option<bool> {
        self.judged = true;
        if success == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match (self.up, self.known) {
            (true, _) => u32::from(fall),
            (false, true) => u32::from(rise),
            (false, false) => 1,
        };
        if self.against < needed {
            return None;
        }
        *self = State { up: success, known: true, judged: true, against: 0 };
        Some(success)
    }

    /// Is it up?
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// Has there been an outcome?
    pub(crate) fn is_judged(&self) -> bool {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(state: &mut State, outcomes: &str) -> Vec<Option<bool>> {
        outcomes.chars().map(|c| state.record(c == '+', 3, 2)).collect()
    }

    /// R7.10-1: a new member is up after one success, also after failures; R8.7-1: later it takes
    /// `rise` in a row.
    #[test]
    fn new_members_need_one_success_and_later_ones_rise() {
        let mut state = State::new(false);
        assert!(!state.is_up() && !state.is_judged());
        assert_eq!(run(&mut state, "--"), [None, None]);
        assert!(state.is_judged());
        assert_eq!(run(&mut state, "+"), [Some(true)]);
        assert_eq!(run(&mut state, "-+-"), [None; 3], "in a row");
        assert_eq!(run(&mut state, "-"), [Some(false)]);
        assert_eq!(run(&mut state, "++-++"), [None; 5], "in a row");
        assert_eq!(run(&mut state, "+"), [Some(true)]);
    }

    /// Another process goes on counting.
    #[test]
    fn outcomes_in_a_row_go_over() {
        let mut down = State::new(true);
        assert_eq!(run(&mut down, "--++"), [None, Some(false), None, None]);
        let mut down = State::after(down.is_up(), down.past());
        assert!(!down.is_judged());
        assert_eq!(run(&mut down, "+-"), [Some(true), None]);
        let mut up = State::after(down.is_up(), down.past());
        assert_eq!(run(&mut up, "-"), [Some(false)]);
        let mut never_up = State::after(false, State::new(false).past());
        assert_eq!(run(&mut never_up, "+"), [Some(true)]);
    }

    /// C36: who served before stays up until `fall` failures.
    #[test]
    fn who_served_before_stays_up() {
        let mut state = State::new(true);
        assert_eq!(run(&mut state, "-"), [None]);
        assert!(state.is_up());
        assert_eq!(run(&mut state, "-"), [Some(false)]);
        assert_eq!(run(&mut state, "++"), [None; 2], "it is no new member");
    }

    proptest! {
        /// A change always ends a row of the needed length, and states alternate.
        #[test]
        fn changes_end_rows(
            outcomes in prop::collection::vec(any::<bool>(), 0..200),
            rise in 1u8..=10,
            fall in 1u8..=10,
            up: bool,
        ) {
            let mut state = State::new(up);
            let mut last = up;
            let mut first = !up;
            for (at, &outcome) in outcomes.iter().enumerate() {
                if let Some(now) = state.record(outcome, rise, fall) {
                    prop_assert_ne!(now, last);
                    let needed = if first { 1 } else if now { rise } else { fall };
                    let row = outcomes[..=at].iter().rev().take_while(|&&o| o == now).count();
                    prop_assert!(row >= usize::from(needed));
                    last = now;
                    first = false;
                }
                prop_assert_eq!(state.is_up(), last);
            }
        }
    }
}
