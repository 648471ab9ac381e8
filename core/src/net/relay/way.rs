//! One direction of a relay: what one side has sent, and the end of it, on their way to the other
//! side; in leases, or in a pipe that both sides' sockets lend and take bytes from directly. Owns
//! what is under way and the counts. `mod` polls two of them and decides about pipes.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use super::Side;
use crate::limits;
use crate::rt::{Payload, Pipe};

/// Where one direction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Flow {
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

/// What is under way.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Bytes(Payload),
    /// As many as the pipe holds; it may be empty.
    Pipe(Pipe),
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) flow: Flow,
    held: Held,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Pieces that may still be moved before the other tasks have their turn. Each way has its
    /// own: one that always has something to move would leave nothing for the other.
    budget: u16,
}

/// How much a session has to move.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Pieces in a row that speak for other means.
    streak: u8,
}

impl Pace {
    pub(super) fn reset(&mut self) {
        self.streak = 0;
    }

    /// Leases keep coming full.
    pub(super) fn is_full(&self) -> bool {
        self.streak >= limits::FULL_BEFORE_SPLICE
    }

    /// Pipes get only little.
    pub(super) fn is_sparse(&self) -> bool {
        self.streak >= limits::SPARSE_BEFORE_LEASES
    }

    fn note(&mut self, speaks: bool) {
        self.streak = if speaks { self.streak.saturating_add(1) } else { 0 };
    }
}

impl Way {
    /// With these bytes under way.
    pub(super) fn beginning_with(payload: Option<Payload>) -> Way {
        Way { held: payload.map(Held::Bytes).unwrap_or_default(), ..Way::default() }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.budget = limits::RELAY_PIECES;
    }

    /// There may be more to move, but not in this turn.
    pub(super) fn has_spent(&self) -> bool {
        self.budget == 0
    }

    fn spend(&mut self, bytes: usize) {
        let pieces = bytes.div_ceil(limits::LARGE_LEASE);
        self.budget = self.budget.saturating_sub(u16::try_from(pieces).unwrap_or(u16::MAX));
    }

    /// From now on bytes go through this pipe. None may be under way.
    pub(super) fn go_through(&mut self, pipe: Pipe) {
        self.held = Held::Pipe(pipe);
    }

    /// Gives the pipe back; bytes in it are lost.
    pub(super) fn leave_pipe(&mut self) {
        if matches!(self.held, Held::Pipe(_)) {
            self.held = Held::Nothing;
        }
    }

    /// Nothing is under way, nor an end.
    pub(super) fn is_empty(&self) -> bool {
        let idle = match &self.held {
            Held::Nothing => true,
            Held::Bytes(_) => false,
            Held::Pipe(pipe) => pipe.held() == 0,
        };
        idle && !matches!(self.flow, Flow::Ending | Flow::Breaking(_))
    }

    /// Moves bytes on until either side has to be waited for; true when something moved.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Side,
        to: &impl Side,
        pace: &mut Pace,
    ) -> bool {
        let mut moved = false;
        while self.budget > 0 {
            let goes_on = match (self.flow, &self.held) {
                (Flow::Ended | Flow::Broken(_) | Flow::Refused(_), _) => false,
                (_, Held::Pipe(pipe)) if pipe.held() > 0 => self.drain(cx, to),
                (Flow::Open, Held::Pipe(_)) => self.fill(cx, from, pace),
                (Flow::Open, Held::Nothing) => self.receive(cx, from, pace),
                (_, Held::Bytes(_)) => self.send(cx, from, to),
                _ => self.finish(cx, to),
            };
            if !goes_on {
                return moved;
            }
            moved = true;
        }
        moved
    }

    /// Takes the next piece, or notes the end; false while there is neither.
    fn receive(&mut self, cx: &mut Context<'_>, from: &impl Side, pace: &mut Pace) -> bool {
        let Poll::Ready(received) = from.poll_recv(cx) else { return false };
        match received {
            Ok(Some(lease)) => {
                self.received += lease.len() as u64;
                pace.note(lease.len() >= limits::LARGE_LEASE / 4);
                self.held = Held::Bytes(lease.into());
            }
            Ok(None) => self.flow = Flow::Ending,
            Err(error) => self.flow = Flow::Breaking(error.kind()),
        }
        true
    }

    /// As `receive`, into the pipe.
    fn fill(&mut self, cx: &mut Context<'_>, from: &impl Side, pace: &mut Pace) -> bool {
        let (Held::Pipe(pipe), Some(from)) = (&mut self.held, from.plain()) else { return false };
        let Poll::Ready(received) = from.poll_fill(cx, pipe, limits::PIPE_BYTES) else {
            return false;
        };
        match received {
            Ok(0) => self.flow = Flow::Ending,
            Ok(bytes) => {
                self.received += bytes as u64;
                pace.note(bytes < limits::SMALL_LEASE);
            }
            Err(error) => self.flow = Flow::Breaking(error.kind()),
        }
        true
    }

    /// Posts what was received; false while the receiver has to be waited for.
    fn send(&mut self, cx: &mut Context<'_>, from: &impl Side, to: &impl Side) -> bool {
        let Poll::Ready(ready) = to.poll_send_ready(cx) else { return false };
        let posted = match (ready, std::mem::take(&mut self.held)) {
            (Ok(()), Held::Bytes(payload)) => {
                self.budget -= 1;
                self.sent += payload.len() as u64;
                if from.is_through() { to.post_last(payload) } else { to.post(payload) }
            }
            (ready, _) => ready,
        };
        self.note_refusal(posted);
        true
    }

    /// Empties the pipe as far as the receiver takes it; false when it has to be waited for.
    fn drain(&mut self, cx: &mut Context<'_>, to: &impl Side) -> bool {
        let (Held::Pipe(pipe), Some(to)) = (&mut self.held, to.plain()) else { return false };
        let Poll::Ready(sent) = to.poll_drain(cx, pipe) else { return false };
        if let Ok(bytes) = sent {
            self.spend(bytes);
            self.sent += bytes as u64;
        }
        self.note_refusal(sent.map(|_| ()));
        true
    }

    /// Passes the end on; false while the receiver has to be waited for.
    fn finish(&mut self, cx: &mut Context<'_>, to: &impl Side) -> bool {
        let done = match self.flow {
            Flow::Ending => to.poll_shutdown_write(cx),
            _ => to.poll_send_ready(cx),
        };
        let Poll::Ready(done) = done else { return false };
        self.flow = match self.flow {
            Flow::Breaking(kind) => Flow::Broken(kind),
            _ => Flow::Ended,
        };
        self.note_refusal(done);
        true
    }

    /// The receiver takes no more, if this is an error.
    fn note_refusal(&mut self, done: io::Result<()>) {
        let Err(error) = done else { return };
        self.flow = match self.flow {
            Flow::Breaking(kind) | Flow::Broken(kind) => Flow::Broken(kind),
            _ => Flow::Refused(error.kind()),
        };
    }
}
