//! The answer's body through a pipe: where nothing about it changes on its way between two plain
//! connections, and its length is known, its bytes need not come here. Owns when that begins and
//! ends, and the counts; the moving is `core::net::haul`. Anything that does not fit (no pipe, a
//! quiet member, little pieces) goes on by leases, as `download` has it.

use std::task::{Context, Poll};

use weir_core::limits::LARGE_LEASE;
use weir_core::net::haul::{Broken, Haul, Step};
use weir_core::rt::TcpStream;
use weir_core::tls::Stream;

use super::Exchange;
use crate::client::Client;
use crate::error::Error;
use crate::limits::HAUL_BYTES;

impl Exchange {
    /// The member's connection, where it carries nothing else and is in clear text.
    fn plain_member(&self) -> Option<&TcpStream> {
        self.upstream()?.stream.own().and_then(Stream::plain)
    }

    /// A large body begins: its bytes will go through a pipe, if they may.
    pub(super) fn begin_haul(&mut self, client: &Client) {
        let bytes = self.download.relay.plain_left().unwrap_or(0);
        // What may still come of the request is to be received.
        if bytes >= HAUL_BYTES
            && self.upload.done()
            && let (Some(from), Some(to)) = (self.plain_member(), client.plain())
        {
            self.download.haul = Haul::begin(from, to, bytes);
        }
    }

    /// The rest, if there is one, goes by leases. What is in the pipe is lost.
    pub(super) fn leave_haul(&mut self, client: &Client) {
        let Some(haul) = self.download.haul.take() else { return };
        if let (Some(from), Some(to)) = (self.plain_member(), client.plain()) {
            haul.leave(from, to);
        }
    }

    /// Moves bytes on; ready when it is for leases to go on, or the body is through.
    pub(super) fn drive_haul(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        budget: &mut usize,
    ) -> Result<Poll<()>, Error> {
        while *budget > 0 {
            let connection = self.attempt.as_ref().and_then(|a| a.connection.as_ref());
            let from = connection.and_then(|c| c.stream.own()).and_then(Stream::plain);
            let (Some(haul), Some(connection)) = (&mut self.download.haul, connection) else {
                return Ok(Poll::Ready(()));
            };
            let (Some(from), Some(to)) = (from, client.plain()) else {
                return Ok(Poll::Ready(()));
            };
            let Poll::Ready(step) = haul.poll(cx, from, to) else { return Ok(Poll::Pending) };
            match step {
                Ok(Step::Received(bytes)) => {
                    connection.member.counters.bytes_received.add(bytes as u64);
                    self.download.relay.pass(bytes as u64);
                    self.moved = true;
                }
                Ok(Step::Sent(bytes)) => {
                    client.count_sent(bytes as u64);
                    *budget = budget.saturating_sub(bytes.div_ceil(LARGE_LEASE));
                    self.moved = true;
                }
                Ok(Step::Receive) => return Ok(Poll::Ready(())),
                Ok(step @ (Step::Done | Step::Leave)) => {
                    // More than the answer: nobody asked for it, and no other may get it.
                    let surplus = step == Step::Done && from.has_unread();
                    self.download.reusable &= !surplus;
                    self.leave_haul(client);
                    return Ok(Poll::Ready(()));
                }
                Err(Broken::From(None)) => return Err(Error::MemberClosed),
                Err(Broken::From(Some(kind))) => return Err(Error::of_member(kind)),
                Err(Broken::To(_)) => return Err(Error::ClientGone),
            }
        }
        Ok(Poll::Pending)
    }
}
