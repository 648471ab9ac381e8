//! The byte relay: what one side of a session sends goes to the other, both ways at once, until
//! both have ended, one breaks, or nothing moves for too long. Owns the bytes under way, one piece
//! a direction, and how long it has been quiet. Neither the sockets nor the timer are its own:
//! whoever polls it lends them and decides how they are closed. Used by tunnels (`l7`, after 101)
//! and by TCP sessions (`l4`).
//!
//! Half-close is kept: a FIN goes through when all before it has, and the other way goes on.
//! Back-pressure is kept: nothing is received while an earlier piece waits to be sent, so a session
//! holds one piece being sent, one waiting, and the few leases that a stream queues. An idle one
//! holds nothing. The streams themselves go over to large leases when there is much to move; when
//! those keep coming one way while the other is quiet, and neither side speaks TLS, bytes go
//! through a pair of pipes instead, and are not copied any more. `way` moves the bytes of one
//! direction.

mod way;

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::limits;
use crate::rt::{self, Lease, Payload, Pipe, TcpStream, Timer};
use crate::time::clock::Mono;
use crate::tls::Stream;

use way::{Flow, Pace, Way};

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

    /// As [`Stream::post_last`].
    ///
    /// # Errors
    /// As there.
    fn post_last(&self, payload: Payload) -> io::Result<()> {
        self.post(payload)
    }

    /// As [`Stream::is_through`].
    fn is_through(&self) -> bool {
        false
    }

    /// As [`Stream::poll_shutdown_write`].
    ///
    /// # Errors
    /// As there.
    fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The connection itself, where its bytes are those of the session.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
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

    #[inline]
    fn post_last(&self, payload: Payload) -> io::Result<()> {
        Stream::post_last(self, payload)
    }

    #[inline]
    fn is_through(&self) -> bool {
        Stream::is_through(self)
    }

    fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown_write(self, cx)
    }

    #[inline]
    fn plain(&self) -> Option<&TcpStream> {
        Stream::plain(self)
    }
}

/// The two sides of a session.
#[derive(Debug)]
pub struct Streams<'a, C = Stream, M = Stream> {
    /// Towards the client.
    pub client: &'a C,
    /// Towards the member.
    pub member: &'a M,
}

// Not derived: that would ask the same of `C` and `M`.
impl<C, M> Clone for Streams<'_, C, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, M> Copy for Streams<'_, C, M> {}

impl<C: Side, M: Side> Streams<'_, C, M> {
    fn plain(&self) -> (Option<&TcpStream>, Option<&TcpStream>) {
        (self.client.plain(), self.member.plain())
    }
}

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

/// A quiet session keeps its pipes for so long.
const PIPES_QUIET: Duration = Duration::from_millis(limits::SPLICE_QUIET_MS);

/// A session's two directions.
#[derive(Debug)]
pub struct Relay {
    up: Way,
    down: Way,
    /// When something moved last; `None` until the first poll.
    moved: Option<Mono>,
    /// Who ended first.
    first: Option<Peer>,
    means: Means,
    pace: Pace,
}

/// What the bytes go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Means {
    #[default]
    Leases,
    /// Leases, but nothing more is received from this side, until what it has sent is through. The
    /// other way goes on: who does not read until it is read from must not wait for it.
    Halting(Peer),
    /// Nothing is under way, and the other side's receive is ending as well.
    Pausing,
    Pipes,
}

impl Relay {
    /// A session that begins with these bytes, which count as received already.
    #[must_use]
    pub fn new(for_member: Option<Payload>, for_client: Option<Payload>) -> Relay {
        Relay {
            up: Way::beginning_with(for_member),
            down: Way::beginning_with(for_client),
            moved: None,
            first: None,
            means: Means::default(),
            pace: Pace::default(),
        }
    }

    /// The session has moved so much already.
    #[must_use]
    pub fn having_moved(mut self, moved: Moved) -> Relay {
        (self.up.received, self.up.sent) = (moved.from_client, moved.to_member);
        (self.down.received, self.down.sent) = (moved.from_member, moved.to_client);
        self
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
        timer.set(self.next_look(patience, quiet));
    }

    /// Moves what can be moved. Ready when the session has ended; then nothing is under way any
    /// more, unless it ended idle. `timer` is the session's: it is set here, and nobody else may
    /// use it meanwhile.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        streams: Streams<'_, impl Side, impl Side>,
        timer: &Timer,
        patience: Patience,
    ) -> Poll<End> {
        let before = self.means;
        let moved = self.drive(cx, streams);
        if moved {
            self.note_end();
        }
        if let Some(end) = self.end() {
            self.back_to_leases(streams);
            return Poll::Ready(end);
        }
        if self.moved.is_none() || (self.means != before && self.means == Means::Pipes) {
            timer.set(self.next_look(patience, Duration::ZERO));
        }
        if moved || self.moved.is_none() {
            // The timer looks here when it expires, and is set for the rest.
            self.moved = Some(rt::now());
        }
        if self.up.has_spent() || self.down.has_spent() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_idle(cx, streams, timer, patience)
    }

    /// Both ways, again after a change of the means; true when something moved.
    fn drive(&mut self, cx: &mut Context<'_>, streams: Streams<'_, impl Side, impl Side>) -> bool {
        let Streams { client, member } = streams;
        self.up.begin_turn();
        self.down.begin_turn();
        let mut moved = false;
        loop {
            moved |= self.up.drive(cx, client, member, &mut self.pace);
            let fast = if self.pace.is_full() { Peer::Client } else { Peer::Member };
            moved |= self.down.drive(cx, member, client, &mut self.pace);
            if !self.change_means(cx, streams, fast) {
                return moved;
            }
        }
    }

    /// Goes over to other means where that is due; true when it has, so that both ways must look
    /// again. If a side has much to send it is `fast`.
    fn change_means(
        &mut self,
        cx: &mut Context<'_>,
        streams: Streams<'_, impl Side, impl Side>,
        fast: Peer,
    ) -> bool {
        match self.means {
            Means::Leases => self.pace.is_full() && self.halt(streams, fast),
            Means::Halting(peer) => self.pause(cx, streams, peer),
            Means::Pausing => self.begin_splice(streams),
            Means::Pipes if self.pace.is_sparse() && self.is_empty() => {
                self.back_to_leases(streams);
                true
            }
            Means::Pipes => false,
        }
    }

    /// Begins to leave the leases, if there are pipes and bytes may go through them.
    fn halt(&mut self, streams: Streams<'_, impl Side, impl Side>, fast: Peer) -> bool {
        self.pace.reset();
        let (Some(client), Some(member)) = streams.plain() else { return false };
        let spare = Pipe::spare(2);
        if spare {
            match fast {
                Peer::Client => client.pause(),
                Peer::Member => member.pause(),
            }
            self.means = Means::Halting(fast);
        }
        spare
    }

    /// What `peer` has sent is through: if the other way is empty, too, its receive ends as well;
    /// else there will be a better moment.
    fn pause(
        &mut self,
        cx: &mut Context<'_>,
        streams: Streams<'_, impl Side, impl Side>,
        peer: Peer,
    ) -> bool {
        let (Some(client), Some(member)) = streams.plain() else { return false };
        let (from, to, way, back) = match peer {
            Peer::Client => (client, member, &self.up, &self.down),
            Peer::Member => (member, client, &self.down, &self.up),
        };
        let through = to.poll_send_ready(cx).is_ready();
        if !through || !from.is_paused() || !way.is_empty() {
            return false;
        }
        if back.is_empty() && from.may_post() {
            to.pause();
            self.means = Means::Pausing;
        } else {
            self.back_to_leases(streams);
        }
        true
    }

    /// Both receives have ended: if they have brought nothing more, bytes go through pipes.
    fn begin_splice(&mut self, streams: Streams<'_, impl Side, impl Side>) -> bool {
        let (Some(client), Some(member)) = streams.plain() else { return false };
        if client.is_receiving() || member.is_receiving() {
            return false;
        }
        let paused = client.is_paused() && member.is_paused() && self.is_empty();
        if !paused || !client.may_post() || !member.may_post() {
            self.back_to_leases(streams);
            return true;
        }
        let begun = client.begin_splice().and_then(|()| member.begin_splice());
        match Pipe::pair().filter(|_| begun.is_ok()) {
            Some([up, down]) => {
                self.means = Means::Pipes;
                self.up.go_through(up);
                self.down.go_through(down);
            }
            None => self.back_to_leases(streams),
        }
        true
    }

    /// Both ways are empty, or the session is over.
    fn back_to_leases(&mut self, streams: Streams<'_, impl Side, impl Side>) {
        if self.means == Means::Leases {
            return;
        }
        self.means = Means::Leases;
        self.pace.reset();
        self.up.leave_pipe();
        self.down.leave_pipe();
        if let (Some(client), Some(member)) = streams.plain() {
            client.end_splice();
            member.end_splice();
        }
    }

    fn is_empty(&self) -> bool {
        self.up.is_empty() && self.down.is_empty()
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
    fn poll_idle(
        &mut self,
        cx: &mut Context<'_>,
        streams: Streams<'_, impl Side, impl Side>,
        timer: &Timer,
        patience: Patience,
    ) -> Poll<End> {
        while timer.poll_expired(cx).is_ready() {
            let now = rt::now();
            let quiet = now.since(self.moved.unwrap_or(now));
            if quiet >= patience.limit {
                self.back_to_leases(streams);
                return Poll::Ready(End::Idle);
            }
            if self.means == Means::Pipes && quiet >= PIPES_QUIET && self.is_empty() {
                self.back_to_leases(streams);
                cx.waker().wake_by_ref();
            }
            timer.set(self.next_look(patience, quiet));
        }
        Poll::Pending
    }

    /// When the timer is to look here again, after so long without anything that moved.
    fn next_look(&self, patience: Patience, quiet: Duration) -> Duration {
        let next = patience.limit.saturating_sub(quiet).min(patience.look);
        if self.means == Means::Pipes { next.min(PIPES_QUIET) } else { next }
    }
}
