//! Where one TCP session stands: choosing a member, connecting, relaying, over. Pure: told what
//! happened and what the tables say, it answers what is to be done next; it knows no socket and no
//! clock. `serve` does what it says.

use std::time::Duration;

use weir_core::net::relay::{End, Peer};
use weir_core::obs::Ending;
use weir_core::time::clock::Mono;

use crate::limits::TCP_ATTEMPTS;

/// A session. Begins with [`Step::Choose`].
#[derive(Debug, Default)]
pub struct Session {
    phase: Phase,
    /// Members tried so far.
    attempts: usize,
    /// Since when its member is leaving.
    leaving: Option<Mono>,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Choosing,
    Connecting,
    Relaying,
    Over,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a member to try, or none is left (C18).
    Chosen(bool),
    /// The member to try is the client itself, whose address it would see (R2.1-13).
    ChosenClient,
    /// The member has accepted, or it can't be had: refused, unreachable, too slow.
    Connected(bool),
    /// The client's connection broke before there was one to a member.
    ClientBroke,
    /// The relay has ended; this side, if any, had sent its FIN first.
    Ended(End, Option<Peer>),
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Choose a member that was not tried.
    Choose,
    /// Connect to the member that was chosen.
    Connect,
    /// Move bytes both ways.
    Relay,
    /// Close both connections.
    Close(Close),
}

/// How both connections are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Why.
    pub ending: Ending,
    /// By RST; else both have had their FIN.
    pub reset: bool,
}

impl Close {
    /// For this reason, with RST unless both sides have said that they were done.
    #[must_use]
    pub fn by(ending: Ending) -> Close {
        Close { ending, reset: !matches!(ending, Ending::ClientFin | Ending::MemberFin) }
    }
}

/// What the tables say of a session's listener, member and pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// The listener was deleted.
    pub deleted: bool,
    /// The member was removed, or has weight 0.
    pub leaving: bool,
    /// How long flows of such a member may run; `None` = until they are idle.
    pub drain: Option<Duration>,
}

/// What [`Session::look`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Go on.
    Stay,
    /// Go on; look again then.
    Until(Mono),
    /// Close.
    Close(Close),
}

impl Session {
    /// Takes note of what happened. An event that does not belong where the session stands changes
    /// nothing and is answered with what is due anyway; after the end that is `None`.
    pub fn on(&mut self, event: Event) -> Option<Step> {
        let step = match (self.phase, event) {
            (Phase::Choosing, Event::Chosen(true)) => Step::Connect,
            (Phase::Choosing, Event::Chosen(false)) => fail(),
            (Phase::Choosing, Event::ChosenClient) => {
                Step::Close(Close::by(Ending::MemberIsClient))
            }
            (Phase::Connecting, Event::Connected(true)) => Step::Relay,
            (Phase::Connecting, Event::Connected(false)) if self.attempts < TCP_ATTEMPTS => {
                Step::Choose
            }
            (Phase::Connecting, Event::Connected(false)) => fail(),
            (Phase::Choosing | Phase::Connecting, Event::ClientBroke) => {
                Step::Close(Close::by(Ending::ClientRst))
            }
            (Phase::Relaying, Event::Ended(end, first)) => Step::Close(Close::by(of(end, first))),
            (Phase::Choosing, _) => Step::Choose,
            (Phase::Connecting, _) => Step::Connect,
            (Phase::Relaying, _) => Step::Relay,
            (Phase::Over, _) => return None,
        };
        self.enter(step);
        Some(step)
    }

    fn enter(&mut self, step: Step) {
        let next = match step {
            Step::Choose => Phase::Choosing,
            Step::Connect => Phase::Connecting,
            Step::Relay => Phase::Relaying,
            Step::Close(_) => Phase::Over,
        };
        self.attempts += usize::from(self.phase == Phase::Choosing && next == Phase::Connecting);
        self.phase = next;
    }

    /// Looks at what the tables say at `now`: a deleted listener ends the session at once (R6.3-1,
    /// C4), a leaving member after the pool's `connection_drain` (R7.14-4), counted from when that
    /// was seen first. To be called when the tables have changed, and when it said so.
    pub fn look(&mut self, now: Mono, outside: Outside) -> Look {
        if self.phase == Phase::Over {
            return Look::Stay;
        }
        if outside.deleted {
            return self.close(Ending::Deleted);
        }
        if !outside.leaving || self.phase != Phase::Relaying {
            self.leaving = None;
            return Look::Stay;
        }
        let since = *self.leaving.get_or_insert(now);
        match outside.drain {
            None => Look::Stay,
            Some(drain) if now.since(since) >= drain => self.close(Ending::Drained),
            Some(drain) => Look::Until(since.plus(drain)),
        }
    }

    /// Has it ended?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    fn close(&mut self, ending: Ending) -> Look {
        self.phase = Phase::Over;
        Look::Close(Close::by(ending))
    }
}

fn fail() -> Step {
    Step::Close(Close::by(Ending::ConnectFailed))
}

fn of(end: End, first: Option<Peer>) -> Ending {
    match end {
        End::Finished if first == Some(Peer::Member) => Ending::MemberFin,
        End::Finished => Ending::ClientFin,
        End::Idle => Ending::Idle,
        End::Broken(Peer::Client, _) => Ending::ClientRst,
        End::Broken(Peer::Member, _) => Ending::MemberRst,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos((1 << 40) + seconds * SECOND)
    }

    fn relaying() -> Session {
        let mut session = Session::default();
        assert_eq!(session.on(Event::Chosen(true)), Some(Step::Connect));
        assert_eq!(session.on(Event::Connected(true)), Some(Step::Relay));
        session
    }

    fn leaving(seconds: Option<u64>) -> Outside {
        let drain = seconds.map(Duration::from_secs);
        Outside { leaving: true, drain, deleted: false }
    }

    #[test]
    fn members_are_tried_one_after_the_other() {
        let mut session = Session::default();
        for attempt in 1..=TCP_ATTEMPTS {
            assert_eq!(session.on(Event::Chosen(true)), Some(Step::Connect));
            let next = session.on(Event::Connected(false));
            let last = attempt == TCP_ATTEMPTS;
            assert_eq!(next, Some(if last { fail() } else { Step::Choose }));
        }
        assert!(session.is_over());
        assert_eq!(session.on(Event::Chosen(true)), None);
    }

    /// C18: with RST.
    #[test]
    fn without_a_member_it_is_reset() {
        let mut session = Session::default();
        let close = Close { ending: Ending::ConnectFailed, reset: true };
        assert_eq!(session.on(Event::Chosen(false)), Some(Step::Close(close)));
    }

    /// R2.1-13: another member is not looked for, since the user is to notice.
    #[test]
    fn a_member_is_not_its_own_client() {
        let mut session = Session::default();
        let close = Close { ending: Ending::MemberIsClient, reset: true };
        assert_eq!(session.on(Event::ChosenClient), Some(Step::Close(close)));
        assert!(session.is_over());
    }

    /// Who is gone is not connected to anybody.
    #[test]
    fn a_client_that_breaks_needs_no_member() {
        let close = Close { ending: Ending::ClientRst, reset: true };
        let mut connecting = Session::default();
        connecting.on(Event::Chosen(true));
        let mut next = Session::default();
        next.on(Event::Chosen(true));
        next.on(Event::Connected(false));
        for mut session in [Session::default(), connecting, next] {
            assert_eq!(session.on(Event::ClientBroke), Some(Step::Close(close)));
            assert_eq!(session.on(Event::Connected(true)), None);
        }
        assert_eq!(relaying().on(Event::ClientBroke), Some(Step::Relay), "the relay tells");
    }

    /// R2.2-3: idle means RST to both sides; only a session that both sides have ended has none.
    #[test]
    fn each_end_has_its_name() {
        let (client, member) = (Some(Peer::Client), Some(Peer::Member));
        let broken = |peer| End::Broken(peer, ErrorKind::ConnectionReset);
        for (end, first, ending, reset) in [
            (End::Finished, client, Ending::ClientFin, false),
            (End::Finished, member, Ending::MemberFin, false),
            (End::Idle, client, Ending::Idle, true),
            (broken(Peer::Client), member, Ending::ClientRst, true),
            (broken(Peer::Member), None, Ending::MemberRst, true),
        ] {
            let step = relaying().on(Event::Ended(end, first));
            assert_eq!(step, Some(Step::Close(Close { ending, reset })));
        }
    }

    /// R6.3-1: wherever it stands.
    #[test]
    fn a_deleted_listener_ends_it() {
        let deleted = Outside { deleted: true, ..Outside::default() };
        let close = Look::Close(Close { ending: Ending::Deleted, reset: true });
        let mut connecting = Session::default();
        connecting.on(Event::Chosen(true));
        for mut session in [Session::default(), connecting, relaying()] {
            assert_eq!(session.look(at(0), Outside::default()), Look::Stay);
            assert_eq!(session.look(at(0), deleted), close);
            assert_eq!(session.look(at(0), deleted), Look::Stay, "once");
        }
    }

    /// R7.14-4: without connection_drain until idle, with it at most for so long.
    #[test]
    fn a_leaving_member_has_its_time() {
        let mut session = relaying();
        assert_eq!(session.look(at(0), leaving(None)), Look::Stay);
        assert_eq!(session.look(at(5), leaving(Some(10))), Look::Until(at(10)));
        assert_eq!(session.look(at(9), leaving(Some(20))), Look::Until(at(20)));
        assert_eq!(session.look(at(9), Outside::default()), Look::Stay, "it came back");
        assert_eq!(session.look(at(30), leaving(Some(10))), Look::Until(at(40)));
        let close = Look::Close(Close { ending: Ending::Drained, reset: true });
        assert_eq!(session.look(at(40), leaving(Some(10))), close);
    }

    #[test]
    fn what_does_not_belong_there_changes_nothing() {
        let mut session = Session::default();
        assert_eq!(session.on(Event::Connected(true)), Some(Step::Choose));
        assert_eq!(session.on(Event::Chosen(true)), Some(Step::Connect));
        assert_eq!(session.on(Event::Ended(End::Idle, None)), Some(Step::Connect));
        assert_eq!(session.on(Event::Connected(true)), Some(Step::Relay));
        assert_eq!(session.on(Event::Chosen(false)), Some(Step::Relay));
    }
}
