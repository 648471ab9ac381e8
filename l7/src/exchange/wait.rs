//! Every wait of an exchange that relays: for whom, for how long, and what its end means (table
//! 6-3). Limits are read where they are set, so that a change holds from the next wait on
//! (R6.7-14).

use std::task::{Context, Poll};
use std::time::Duration;

use weir_core::net::haul::Haul;
use weir_core::rt;
use weir_core::time::clock::Mono;

use super::{Exchange, Step};
use crate::client::Client;
use crate::error::Error;
use crate::limits::HAUL_QUIET;
use crate::mux::Lane;
use crate::pace::{Arrivals, Departures};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// The rest of the head: one limit from its first byte.
    Head,
    /// More of the body.
    Body,
    /// The client to take its answer.
    Reader,
    /// The member to take the request.
    Taker,
    /// The member to answer, or to go on with its answer.
    Answer,
}

/// The present wait.
#[derive(Debug, Default)]
pub(super) struct Watch {
    since: Mono,
    /// What the client had sent when the wait began.
    received: u64,
    arrivals: Arrivals,
    departures: Departures,
}

impl Exchange {
    fn waits(&self, client: &Client) -> Waits {
        if self.download.blocked() || client.lane().is_some_and(Lane::is_choked) {
            Waits::Reader
        } else if self.upload.waits_for_client() {
            Waits::Body
        } else if self.upload.out.is_some() && !self.upload.broken {
            Waits::Taker
        } else {
            Waits::Answer
        }
    }

    /// Sets the limit for the present wait, anew whenever something has moved.
    pub(super) fn wait(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
    ) -> Poll<Result<Step, Error>> {
        let waits = self.waits(client);
        if self.body_is_too_slow(client) {
            return Poll::Ready(Err(Error::BodyTimeout));
        }
        let fresh = self.waiting != Some(waits);
        if fresh || self.moved {
            self.waiting = Some(waits);
            self.moved = false;
            self.set_limit(waits, fresh, client);
        }
        while client.timer.poll_expired(cx).is_ready() {
            let quiet = waits == Waits::Answer;
            if quiet && self.download.haul.as_ref().is_some_and(Haul::is_empty) {
                // Nothing has come for a while: the rest of the limit without a pipe.
                self.leave_haul(client);
                client.timer.set(limit(waits, client).saturating_sub(HAUL_QUIET));
                cx.waker().wake_by_ref();
            } else if let Err(error) = self.limit_over(waits, client) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }

    /// A wait for the body has gone on or ended: has it brought enough?
    fn body_is_too_slow(&mut self, client: &Client) -> bool {
        let (now, received) = (rt::now(), client.bytes_received());
        let watch = &mut self.watch;
        let (since, before) = (watch.since, watch.received);
        (watch.since, watch.received) = (now, received);
        if self.waiting != Some(Waits::Body) {
            return false;
        }
        let window = client.site().client_timeout();
        watch.arrivals.are_too_slow(now.since(since), received.saturating_sub(before), window)
    }

    fn set_limit(&mut self, waits: Waits, fresh: bool, client: &Client) {
        let limit = limit(waits, client);
        let sent = match waits {
            Waits::Answer if self.download.haul.is_some() => {
                return client.timer.set(limit.min(HAUL_QUIET));
            }
            Waits::Head | Waits::Body | Waits::Answer => return client.timer.set(limit),
            Waits::Reader => client.bytes_sent(),
            Waits::Taker => self.upstream().map_or(0, |c| c.stream.bytes_sent()),
        };
        let now = rt::now();
        // A reader that takes a little now and then doesn't get a new limit for it.
        if fresh || waits == Waits::Taker || self.watch.departures.are_brisk(now, sent) {
            self.watch.departures = Departures::begin(now, sent);
            client.timer.set(limit / 2);
        }
    }

    /// The limit is over: an error, unless whoever is waited for has taken enough meanwhile.
    fn limit_over(&mut self, waits: Waits, client: &Client) -> Result<(), Error> {
        let (taken, error) = match waits {
            Waits::Head => return Err(Error::HeadTimeout),
            Waits::Body => return Err(Error::BodyTimeout),
            Waits::Answer => return Err(Error::AnswerTimeout),
            Waits::Reader => (client.bytes_taken(), Error::ClientStalled),
            Waits::Taker => {
                let taken = self.upstream().and_then(|c| c.stream.bytes_taken());
                (taken, Error::AnswerTimeout)
            }
        };
        let half = limit(waits, client) / 2;
        let strict = waits == Waits::Reader;
        if !self.watch.departures.go_on(taken.ok_or(error)?, half, strict) {
            return Err(error);
        }
        client.timer.set(half);
        Ok(())
    }
}

fn limit(waits: Waits, client: &Client) -> Duration {
    match waits {
        Waits::Head | Waits::Body | Waits::Reader => client.site().client_timeout(),
        Waits::Taker | Waits::Answer => client.site().member_timeout(),
    }
}
