//! Sending: what all streams have to say leaves together, one send after the other; and whether the
//! client takes it.

use std::rc::Rc;
use std::task::{Context, Poll};

use weir_core::rt::{self, Timer};

use super::lane::{Shared, Wire};
use super::{Mux, Over};
use crate::h2::frame::HEAD;
use crate::limits::MUX_SEND_BYTES;
use crate::pace::Departures;

/// The present send.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// The kernel has not taken it yet.
    waits: bool,
    departures: Departures,
    timer: Timer,
}

impl Sending {
    /// Everything has been taken by the kernel.
    pub(super) fn is_done(&self, shared: &Shared) -> bool {
        !self.waits && shared.wire.borrow().owed() == 0
    }
}

impl Mux {
    /// Sends what there is, until the kernel has to be waited for.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        let shared = Rc::clone(&self.shared);
        let stream = &shared.front.stream;
        loop {
            match stream.poll_send_ready(cx) {
                Poll::Pending => return self.wait(cx),
                Poll::Ready(Err(_)) => return Err(Over::Gone),
                Poll::Ready(Ok(())) => self.sending.waits = false,
            }
            let wire = &mut *shared.wire.borrow_mut();
            self.fill(wire);
            let Some(out) = wire.out.take().filter(|out| !out.is_empty()) else { return Ok(()) };
            shared.front.site().counters.bytes_sent.add(out.len() as u64);
            shared.ready.mark_all(std::mem::take(&mut wire.choked));
            stream.post(out).map_err(|_| Over::Gone)?;
        }
    }

    /// Adds body of the streams, in turns, as far as windows and the send's size allow.
    fn fill(&mut self, wire: &mut Wire) {
        while wire.owed() + HEAD < MUX_SEND_BYTES
            && let Some((stream, room)) = wire.connection.next_sender()
        {
            let room = room.min(MUX_SEND_BYTES - wire.owed() - HEAD);
            let slot = self.slots.get(stream.place());
            let Some(lane) = slot.and_then(|slot| slot.lane()).filter(|lane| lane.is(stream))
            else {
                wire.connection.want(stream, false);
                continue;
            };
            if lane.fill(wire, room) {
                self.shared.ready.mark(stream.place());
            }
        }
    }

    /// The kernel is full: the client has to take something in time.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        let front = &self.shared.front;
        let half = front.site().client_timeout() / 2;
        let Sending { waits, departures, timer } = &mut self.sending;
        let (now, sent) = (rt::now(), front.stream.bytes_sent());
        if !std::mem::replace(waits, true) || departures.are_brisk(now, sent) {
            *departures = Departures::begin(now, sent);
            timer.set(half);
        }
        while timer.poll_expired(cx).is_ready() {
            let taken = front.stream.tcp_info().map(|info| info.bytes_acked);
            if !taken.is_ok_and(|taken| departures.go_on(taken, half, true)) {
                return Err(Over::Stalled);
            }
            timer.set(half);
        }
        Ok(())
    }
}
