//! A pipe each way between our side and the other's, which takes and gives bytes in any pieces.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Chance;

/// Bytes that a pipe holds.
const ROOM: usize = 50_000;

/// The other side's end; ours are the methods. Whoever waits for it is polled again anyway.
#[derive(Clone)]
pub(super) struct Wire(Rc<RefCell<Pipes>>);

struct Pipes {
    to_them: VecDeque<u8>,
    to_us: VecDeque<u8>,
    closed: bool,
    chance: Chance,
    /// Longest piece.
    piece: usize,
}

impl Pipes {
    fn piece(&mut self, most: usize) -> usize {
        (1 + self.chance.below(self.piece)).min(most)
    }
}

impl Wire {
    pub(super) fn new(chance: &mut Chance) -> Wire {
        let (to_them, to_us) = (VecDeque::new(), VecDeque::new());
        let piece = chance.of(&[10, 300, 20_000, 100_000]);
        let chance = chance.split();
        Wire(Rc::new(RefCell::new(Pipes { to_them, to_us, closed: false, chance, piece })))
    }

    /// The next piece of what the other side has sent.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut pipes = self.0.borrow_mut();
        let most = pipes.to_us.len();
        let len = pipes.piece(most);
        pipes.to_us.drain(..len).collect()
    }

    /// Sends as much as there is room for.
    pub(super) fn give(&self, out: &mut Vec<u8>) {
        let mut pipes = self.0.borrow_mut();
        let len = out.len().min(ROOM.saturating_sub(pipes.to_them.len()));
        pipes.to_them.extend(out.drain(..len));
    }

    /// Nothing is under way to us.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.borrow().to_us.is_empty()
    }

    /// Bytes of a body that don't take too many pieces.
    pub(super) fn most(&self) -> usize {
        self.0.borrow().piece * 500
    }

    pub(super) fn close(&self) {
        self.0.borrow_mut().closed = true;
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipes = self.0.borrow_mut();
        if pipes.to_them.is_empty() {
            return if pipes.closed { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let most = pipes.to_them.len().min(buffer.remaining());
        let len = pipes.piece(most);
        let piece: Vec<u8> = pipes.to_them.drain(..len).collect();
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipes = self.0.borrow_mut();
        let most = data.len().min(ROOM.saturating_sub(pipes.to_us.len()));
        if most == 0 {
            return Poll::Pending;
        }
        let len = pipes.piece(most);
        pipes.to_us.extend(&data[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
