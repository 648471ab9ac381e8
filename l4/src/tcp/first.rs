//! What a client says before there is a member to hear it: its first bytes, one lease at most,
//! which the connect takes along, or which wait in its stream for the relay; and whether its
//! connection breaks meanwhile. Owns that state; `serve` asks for it while it connects.

use std::task::{Context, Poll, ready};

use weir_core::rt::{Payload, SendBuf, Timer};
use weir_core::tls::Stream;

use crate::limits::CLIENT_WATCHED_AFTER;

/// A client that waits for its member. Small: the session keeps it.
#[derive(Debug)]
pub(super) struct First {
    heard: Heard,
    bytes: u32,
    /// Only the connection's break is waited for.
    watched: bool,
    /// Too many wait like it: it is not listened to before it is connected.
    unheard: bool,
}

/// What there is of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing yet.
    Nothing,
    /// Bytes, which wait in its stream.
    Bytes,
    /// Bytes that a connect has taken along.
    Taken,
    /// FIN, and nothing before.
    End,
}

impl First {
    /// Begins to receive; what is there already is known in the next turn.
    pub(super) fn of(client: &Stream) -> First {
        let unheard = client.plain().is_some_and(|tcp| !tcp.begin_first());
        First { heard: Heard::Nothing, bytes: 0, watched: false, unheard }
    }

    /// A connect begins, with `timer` for as long as it takes.
    pub(super) fn waits(&self, timer: &Timer) {
        if !self.watched {
            timer.set(CLIENT_WATCHED_AFTER);
        }
    }

    /// Notes what the client says first. Ready once its connection has broken; where it has said
    /// something, or is not listened to, that is looked for by an operation of its own, which most
    /// connects are too short for.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &Stream,
        timer: &Timer,
    ) -> Poll<()> {
        let Some(tcp) = client.plain() else { return Poll::Pending };
        if self.heard == Heard::Nothing && !self.unheard {
            self.heard = match ready!(tcp.poll_first(cx)) {
                Ok(0) => Heard::End,
                Ok(bytes) => {
                    self.bytes = bytes as u32;
                    Heard::Bytes
                }
                Err(_) => return Poll::Ready(()),
            };
        }
        if !self.watched {
            ready!(timer.poll_expired(cx));
            self.watched = true;
        }
        tcp.poll_broken(cx)
    }

    /// What a connect is to take along: `header`, and behind it what the client has said so far.
    pub(super) fn take(&mut self, client: &Stream, header: Option<SendBuf>) -> Option<Payload> {
        let heard = client.plain().filter(|_| self.heard == Heard::Bytes);
        let lease = heard.and_then(|tcp| tcp.take_first());
        if lease.is_some() {
            self.heard = Heard::Taken;
        }
        match (header, lease) {
            (Some(header), Some(lease)) => Some((header, lease).into()),
            (Some(header), None) => Some(header.into()),
            (None, lease) => lease.map(Payload::from),
        }
    }

    /// What was taken has not reached a member.
    pub(super) fn put_back(&mut self, client: &Stream, taken: Option<Payload>) {
        if let Some(Payload::Lease(lease) | Payload::BufLease(_, lease)) = taken {
            client.unread(lease);
            self.heard = Heard::Bytes;
        }
    }

    /// Bytes that the client has said, as far as they have been received.
    pub(super) fn heard(&self) -> u64 {
        u64::from(self.bytes)
    }

    /// Those of them that a connect has taken along.
    pub(super) fn taken(&self) -> u64 {
        if self.heard == Heard::Taken { self.heard() } else { 0 }
    }
}
