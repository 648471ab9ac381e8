//! The byte relay: what one side of a session sends goes to the other, both ways at once, until
//! both have ended, one breaks, or nothing moves for too long. Owns the bytes under way, one piece
//! a direction, and how long it has been quiet. Neither the sockets nor the timer are its own:
//! whoever polls it lends them and decides how they are closed. Used by tunnels (`l7`, after 101)
//! and by TCP sessions (`l4`).
//!
//! Half-close is kept: a FIN goes through when all before it has, and the other way goes on.
//! Back-pressure is kept: nothing is received while an earlier piece waits to be sent, so a session
//! holds one piece being sent, one waiting, and the few leases that a stream queues. An idle one
//! holds nothing. The streams themselves go over to large leases when there is much to move.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::limits::RELAY_PIECES;
use crate::rt::{self, Lease, Payload, Timer};
use crate::time::clock::Mono;
use crate::tls::Stream;

/// The two sides of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Who connected to the balancer.
    Client,
    /// Whom the balancer connected to.
    Member,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides sent FIN, and both were told.
    Finished,
    /// Nothing moved, either way, for the idle limit.
    Idle,
    /// This side's connection broke (reset, timed out …). What it had sent is with the other side's
    /// kernel; that side should be reset, so that it does not take the cut for an end.
    Broken(Peer, ErrorKind),
}

/// One side of a session: a stream of bytes, as [`Stream`] has it.
pub trait Side {
    /// As [`Stream::poll_recv`].
    ///
    /// # Errors
    /// The connection's, for good.
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>>;

    /// As [`Stream::poll_send_ready`].
    ///
    /// # Errors
    /// Those of an earlier post.
    fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// As [`Stream::post`].
    ///
    /// # Errors
    /// As there.
    fn post(&self, payload: Payload) -> io::Result<()>;

    /// As [`Stream::poll_shutdown_write`].
    ///
    /// # Errors
    /// As there.
    fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Side for Stream {
    #[inline]
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        Stream::poll_recv(self, cx)
    }

    #[inline]
    fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_send_ready(self, cx)
    }

    #[inline]
    fn post(&self, payload: Payload) -> io::Result<()> {
        Stream::post(self, payload)
    }

    fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown_write(self, cx)
    }
}

/// The two sides of a session.
#[derive(Debug)]
pub struct Streams<'a, C = Stream> {
    /// Towards the client.
    pub client: &'a C,
    /// Towards the member.
    pub member: &'a Stream,
}

// Not derived: that would ask the same of `C`.
impl<C> Clone for Streams<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Streams<'_, C> {}

/// How long a session may be quiet, as of now: limits may change while it lives.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The session ends when nothing has moved for so long.
    pub limit: Duration,
    /// A change of `limit` is noticed after so long at the latest; not zero.
    pub look: Duration,
}

/// Bytes that a session has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Received from the client.
    pub from_client: u64,
    /// Handed to the kernel for the member.
    pub to_member: u64,
    /// Received from the member.
    pub from_member: u64,
    /// Handed to the kernel for the client.
    pub to_client: u64,
}

/// A session's two directions.
#[derive(Debug)]
pub struct Relay {
    up: Way,
    down: Way,
    /// When something moved last; `None` until the first poll.
    moved: Option<Mono>,
    /// Who ended first.
    first: Option<Peer>,
}

/// Where one direction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    /// The sender has ended: a FIN is due behind what is under way.
    Ending,
    /// The sender broke: the end is due behind what is under way.
    Breaking(ErrorKind),
    /// The FIN is through.
    Ended,
    /// The sender broke, and all before is with the receiver.
    Broken(ErrorKind),
    /// The receiver takes no more. It may have sent something all the same, so the other direction
    /// decides how the session ends.
    Refused(ErrorKind),
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    flow: Flow,
    held: Option<Payload>,
    received: u64,
    sent: u64,
}

impl Relay {
    /// A session that begins with these bytes, which count as received already.
    #[must_use]
    pub fn new(for_member: Option<Payload>, for_client: Option<Payload>) -> Relay {
        Relay {
            up: Way { held: for_member, ..Way::default() },
            down: Way { held: for_client, ..Way::default() },
            moved: None,
            first: None,
        }
    }

    /// What has moved so far.
    #[must_use]
    pub fn moved(&self) -> Moved {
        Moved {
            from_client: self.up.received,
            to_member: self.up.sent,
            from_member: self.down.received,
            to_client: self.down.sent,
        }
    }

    /// Who sent FIN first, as far as anybody has.
    #[must_use]
    pub fn ended_first(&self) -> Option<Peer> {
        self.first
    }

    /// The limits are others now: `timer` follows them.
    pub fn rearm(&self, timer: &Timer, patience: Patience) {
        let quiet = self.moved.map(|moved| rt::now().since(moved)).unwrap_or_default();
        timer.set(patience.limit.saturating_sub(quiet).min(patience.look));
    }

    /// Moves what can be moved. Ready when the session has ended; then nothing is under way any
    /// more, unless it ended idle. `timer` is the session's: it is set here, and nobody else may
    /// use it meanwhile.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        streams: Streams<'_, impl Side>,
        timer: &Timer,
        patience: Patience,
    ) -> Poll<End> {
        let Streams { client, member } = streams;
        let mut budget = RELAY_PIECES;
        let moved = self.up.drive(cx, client, member, &mut budget)
            | self.down.drive(cx, member, client, &mut budget);
        if moved {
            self.note_end();
        }
        if let Some(end) = self.end() {
            return Poll::Ready(end);
        }
        if self.moved.is_none() {
            timer.set(patience.limit.min(patience.look));
        }
        if moved || self.moved.is_none() {
            // The timer looks here when it expires, and is set for the rest.
            self.moved = Some(rt::now());
        }
        if budget == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_idle(cx, timer, patience)
    }

    fn end(&self) -> Option<End> {
        match (self.up.flow, self.down.flow) {
            (Flow::Broken(kind), _) => Some(End::Broken(Peer::Client, kind)),
            (_, Flow::Broken(kind)) => Some(End::Broken(Peer::Member, kind)),
            (Flow::Ended, Flow::Ended) => Some(End::Finished),
            (Flow::Refused(kind), Flow::Ended | Flow::Refused(_)) => {
                Some(End::Broken(Peer::Member, kind))
            }
            (Flow::Ended, Flow::Refused(kind)) => Some(End::Broken(Peer::Client, kind)),
            _ => None,
        }
    }

    fn note_end(&mut self) {
        if self.first.is_none() {
            self.first = match (self.up.flow, self.down.flow) {
                (Flow::Ending | Flow::Ended, _) => Some(Peer::Client),
                (_, Flow::Ending | Flow::Ended) => Some(Peer::Member),
                _ => None,
            };
        }
    }

    /// Looks whether the session has been quiet for too long, by the limit that holds now.
    fn poll_idle(&self, cx: &mut Context<'_>, timer: &Timer, patience: Patience) -> Poll<End> {
        while timer.poll_expired(cx).is_ready() {
            let now = rt::now();
            let quiet = now.since(self.moved.unwrap_or(now));
            if quiet >= patience.limit {
                return Poll::Ready(End::Idle);
            }
            timer.set(patience.limit.saturating_sub(quiet).min(patience.look));
        }
        Poll::Pending
    }
}

impl Way {
    /// Moves bytes on until either side has to be waited for; true when something moved.
    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Side,
        to: &impl Side,
        budget: &mut usize,
    ) -> bool {
        let mut moved = false;
        while *budget > 0 {
            let goes_on = match (self.flow, self.held.is_some()) {
                (Flow::Ended | Flow::Broken(_) | Flow::Refused(_), _) => false,
                (Flow::Open, false) => self.receive(cx, from),
                _ => self.send(cx, to, budget),
            };
            if !goes_on {
                return moved;
            }
            moved = true;
        }
        moved
    }

    /// Takes the next piece, or notes the end; false while there is neither.
    fn receive(&mut self, cx: &mut Context<'_>, from: &impl Side) -> bool {
        match from.poll_recv(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(Some(lease))) => {
                self.received += lease.len() as u64;
                self.held = Some(lease.into());
            }
            Poll::Ready(Ok(None)) => self.flow = Flow::Ending,
            Poll::Ready(Err(error)) => self.flow = Flow::Breaking(error.kind()),
        }
        true
    }

    /// Sends what is due, be it bytes or the end; false while the receiver has to be waited for.
    fn send(&mut self, cx: &mut Context<'_>, to: &impl Side, budget: &mut usize) -> bool {
        let done = match (self.held.is_some(), self.flow) {
            (false, Flow::Ending) => to.poll_shutdown_write(cx),
            _ => to.poll_send_ready(cx),
        };
        let done = match done {
            Poll::Pending => return false,
            Poll::Ready(done) => done,
        };
        let done = match (done, self.held.take()) {
            (Ok(()), Some(payload)) => {
                *budget -= 1;
                self.sent += payload.len() as u64;
                to.post(payload)
            }
            (Ok(()), None) => {
                self.flow = match self.flow {
                    Flow::Breaking(kind) => Flow::Broken(kind),
                    _ => Flow::Ended,
                };
                Ok(())
            }
            (refused, _) => refused,
        };
        if let Err(error) = done {
            self.flow = match self.flow {
                Flow::Breaking(kind) => Flow::Broken(kind),
                _ => Flow::Refused(error.kind()),
            };
        }
        true
    }
}
