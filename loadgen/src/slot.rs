//! A connection slot with several requests under way at once, as far as it does not matter how:
//! its connections one after another, the tickets that wait for room, and what such a slot waits
//! for. What is said on a connection is `pipeline`'s and `h2`'s, who call this.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use weir_core::rt::{self, Lease};
use weir_core::time::clock::{Mono, mono};
use weir_core::tls::Stream;

use crate::client::{Client, Failure, Line, Open, late};
use crate::http::Talk;
use crate::pace::Ticket;
use crate::shard::{Shard, Watch};

/// What outlives a slot's connections.
pub(crate) struct Slot<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) line: &'a Line<Watch>,
    pub(crate) talk: &'a mut Talk,
    /// Opened before the run began.
    kept: Option<Open>,
    /// Number of its first place in the shard; it has one for each request that may be under way.
    pub(crate) first: usize,
    /// Tickets that were taken and wait for room, the next one first.
    pub(crate) waiting: VecDeque<Ticket>,
}

impl<'a> Slot<'a> {
    /// Slot number `number` of the shard.
    pub(crate) fn new(shard: &'a Shard, client: &'a mut Client<Watch>, number: usize) -> Slot<'a> {
        let (line, kept, talk) = client.parts();
        let first = number * line.wire.in_flight;
        Slot { shard, line, talk, kept, first, waiting: VecDeque::new() }
    }

    /// Waits until a request is due and gives a connection for it; its ticket is the first that
    /// waits then. `None` when nothing is left to send.
    pub(crate) async fn connect(&mut self) -> Option<Open> {
        loop {
            let ticket = self.take(mono())?;
            let begun = self.shard.begin(ticket, mono()).await;
            match self.open().await {
                Ok(conn) => {
                    let due = ticket.due.or(Some(begun));
                    self.waiting.push_front(Ticket { due, ..ticket });
                    return Some(conn);
                }
                Err(failure) => {
                    self.shard.finish(ticket, Err(failure));
                    self.shard.pause().await;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Open, Failure> {
        if let Some(conn) = self.kept.take() {
            return Ok(conn);
        }
        let opened = self.line.connect(&mut self.talk.rng);
        let opened = rt::timeout(self.line.wire.timeout, opened).await;
        opened.unwrap_or_else(|rt::Elapsed| Err(late()))
    }

    /// The next ticket: one that waits, or a new one.
    pub(crate) fn take(&mut self, now: Mono) -> Option<Ticket> {
        self.waiting.pop_front().or_else(|| self.shard.take(now))
    }

    /// When the next request that waits is due.
    pub(crate) fn due(&self) -> Option<Mono> {
        self.waiting.front().and_then(|ticket| ticket.due)
    }

    /// Counts how late we are for the request that was waited for.
    pub(crate) fn note_lateness(&self) {
        let now = mono();
        let next = self.waiting.front().filter(|ticket| !ticket.warm);
        if let Some(due) = next.and_then(|ticket| ticket.due) {
            self.shard.record(|recorder| recorder.sent_late(due, now));
        }
    }
}

/// What a slot waits for besides input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// That more can be sent.
    Room,
    /// That a request is due. Only for whoever can send: a past point wakes at once.
    Due(Mono),
    /// Nothing else.
    Nothing,
}

/// What came of it.
pub(crate) enum Woken {
    Received(io::Result<Option<Lease>>),
    Writable,
    Due,
    /// Nothing within the time limit.
    Late,
}

/// Whether something can be posted now.
pub(crate) async fn can_send(stream: &Stream) -> io::Result<bool> {
    match poll_fn(|cx| Poll::Ready(stream.poll_send_ready(cx))).await {
        Poll::Ready(result) => result.map(|()| true),
        Poll::Pending => Ok(false),
    }
}

/// Waits for input and for `next`, whichever comes first, for at most `limit`.
pub(crate) async fn wait(stream: &Stream, next: Next, limit: Option<Duration>) -> Woken {
    let mut point = pin!(async {
        match next {
            Next::Due(due) => rt::sleep_exact(due).await,
            Next::Room | Next::Nothing => pending().await,
        }
    });
    let either = poll_fn(|cx| {
        if let Poll::Ready(received) = stream.poll_recv(cx) {
            return Poll::Ready(Woken::Received(received));
        }
        match next {
            Next::Room => stream.poll_send_ready(cx).map(|_| Woken::Writable),
            Next::Due(_) => point.as_mut().poll(cx).map(|()| Woken::Due),
            Next::Nothing => Poll::Pending,
        }
    });
    match limit {
        None => either.await,
        Some(left) => rt::timeout(left, either).await.unwrap_or(Woken::Late),
    }
}
