//! A known number of bytes on their way from one plain connection to another through a pipe, so
//! that they are not copied; never more than those: what stands behind them stays in the socket.
//! Owns the pipe and how much is left. Neither the connections nor a timer are its own: whoever
//! polls it lends them, goes on by leases when told to, and calls `leave` however it ends. Used for
//! bodies of HTTP (`l7`); for both ways at once, until their end, there is `relay`.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use crate::limits;
use crate::rt::{Pipe, TcpStream};

/// What has become of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many have come from the sender.
    Received(usize),
    /// So many were handed to the kernel for the receiver.
    Sent(usize),
    /// Some may have come before: they are to be had by `poll_recv`, and are to be sent before the
    /// next poll. Those count by [`Haul::pass`].
    Receive,
    /// All are through.
    Done,
    /// There is no pipe, or so little comes that none is worth having: what is left goes by leases.
    Leave,
}

/// Who has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The sender; `None`: it has sent FIN.
    From(Option<ErrorKind>),
    /// The receiver takes no more.
    To(ErrorKind),
}

/// Bytes on their way.
#[derive(Debug)]
pub struct Haul {
    /// `None` as long as receives or sends of the ring are under way.
    pipe: Option<Pipe>,
    /// Bytes that the sender still owes.
    left: u64,
    /// Little pieces in a row.
    sparse: u8,
    /// The receiver has to take something first.
    blocked: bool,
}

impl Haul {
    /// Prepares to move the next `bytes` bytes that come from `from` to `to`, and ends the receives
    /// of both for that. `None`, and nothing is changed, when there is no pipe for them.
    #[must_use]
    pub fn begin(from: &TcpStream, to: &TcpStream, bytes: u64) -> Option<Haul> {
        if !Pipe::spare(1) {
            return None;
        }
        from.pause();
        to.pause();
        Some(Haul { pipe: None, left: bytes, sparse: 0, blocked: false })
    }

    /// So many bytes went another way.
    pub fn pass(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }

    /// True while nothing is in the pipe: `leave` loses nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pipe.as_ref().is_none_or(|pipe| pipe.held() == 0)
    }

    /// True when it is the receiver that is waited for.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The next step. Both connections must be those that it began with.
    ///
    /// # Errors
    /// Who has failed; bytes of a sender that has were sent before.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
    ) -> Poll<Result<Step, Broken>> {
        self.blocked = false;
        let Some(pipe) = &mut self.pipe else { return self.poll_begun(cx, from, to) };
        if pipe.held() > 0 {
            let polled = to.poll_drain(cx, pipe);
            self.blocked = polled.is_pending();
            return polled.map(|sent| sent.map(Step::Sent).map_err(|e| Broken::To(e.kind())));
        }
        if self.left == 0 {
            return Poll::Ready(Ok(Step::Done));
        }
        if self.sparse >= limits::SPARSE_BEFORE_LEASES {
            return Poll::Ready(Ok(Step::Leave));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(limits::PIPE_BYTES);
        from.poll_fill(cx, pipe, most).map(|received| match received {
            Ok(0) => Err(Broken::From(None)),
            Ok(bytes) => {
                self.left -= bytes as u64;
                let sparse = bytes < limits::SMALL_LEASE;
                self.sparse = if sparse { self.sparse + 1 } else { 0 };
                Ok(Step::Received(bytes))
            }
            Err(error) => Err(Broken::From(Some(error.kind()))),
        })
    }

    /// Takes a pipe once nothing of the ring's is under way.
    fn poll_begun(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
    ) -> Poll<Result<Step, Broken>> {
        if self.left == 0 {
            return Poll::Ready(Ok(Step::Done));
        }
        if !from.is_paused() {
            return Poll::Ready(Ok(Step::Receive));
        }
        let Poll::Ready(sent) = to.poll_send_ready(cx) else {
            self.blocked = true;
            return Poll::Pending;
        };
        if let Err(error) = sent {
            return Poll::Ready(Err(Broken::To(error.kind())));
        }
        if to.poll_paused(cx).is_pending() {
            return Poll::Pending;
        }
        let begun: io::Result<()> = from.begin_splice().and_then(|()| to.begin_splice());
        self.pipe = begun.ok().and_then(|()| Pipe::one());
        Poll::Ready(Ok(if self.pipe.is_some() { Step::Received(0) } else { Step::Leave }))
    }

    /// Receives and sends are the ring's again, and the pipe goes back. Bytes in it are lost, and
    /// it is closed then.
    pub fn leave(self, from: &TcpStream, to: &TcpStream) {
        from.end_splice();
        to.end_splice();
    }
}
