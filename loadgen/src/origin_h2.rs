//! One connection of HTTP/2 of an origin: takes requests, waits its delay, answers; many at once.
//! The answers' heads are made once. Called by `origin_conn`, which also says when it is wanted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::Duration;

use weir_core::rt::SendBuf;
use weir_core::time::clock::{Mono, mono};
use weir_core::tls::Stream;

use crate::h2::service::{Service, Wanted};
use crate::origin_conn::End;
use crate::origin_member::Member;
use crate::slot::{Next, Woken, can_send, wait};

/// Time between two pieces of a body that is sent slowly.
const TRICKLE: Duration = Duration::from_millis(100);

/// What is done to a stream when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Answer { is_head: bool },
    SendMore,
}

/// One connection.
struct Talk<'a> {
    member: &'a Member,
    stream: &'a Stream,
    service: Service,
    /// The next one first; the streams' numbers keep the order of those of one moment.
    due: BinaryHeap<Reverse<(Mono, u32, Act)>>,
}

/// Serves a connection to its end.
pub(crate) async fn serve(member: &Member, stream: &Stream) -> End {
    let mut talk = Talk { member, stream, service: Service::new(), due: BinaryHeap::new() };
    match talk.converse().await {
        Ok(end) => end,
        // The client is gone.
        Err(_) => End::Quiet,
    }
}

impl Talk<'_> {
    async fn converse(&mut self) -> io::Result<End> {
        loop {
            if self.do_what_is_due() {
                return Ok(End::Cut);
            }
            let ready = can_send(self.stream).await?;
            if ready {
                self.send()?;
            }
            let next = match self.due.peek() {
                _ if !ready || self.service.has_more() => Next::Room,
                Some(Reverse((due, _, _))) => Next::Due(*due),
                None => Next::Nothing,
            };
            match wait(self.stream, next, None).await {
                Woken::Received(Ok(Some(lease))) => {
                    let mut wanted = Vec::new();
                    let fed = self.service.feed(&lease, &mut wanted);
                    self.plan(&wanted);
                    if fed.is_err() {
                        self.stream.flush().await?;
                        self.send()?;
                        return Ok(End::Refused);
                    }
                }
                Woken::Received(Ok(None)) => return Ok(End::Quiet),
                Woken::Received(Err(error)) => return Err(error),
                Woken::Writable | Woken::Due | Woken::Late => {}
            }
        }
    }

    /// Each request is answered after its delay.
    fn plan(&mut self, wanted: &[Wanted]) {
        let now = mono();
        for &Wanted { stream, is_head } in wanted {
            let delay = self.member.draw_delay();
            self.due.push(Reverse((now.plus(delay), stream, Act::Answer { is_head })));
        }
    }

    /// True when the connection is to be cut.
    fn do_what_is_due(&mut self) -> bool {
        let now = mono();
        while let Some(&Reverse((due, stream, act))) = self.due.peek() {
            if due > now {
                return false;
            }
            self.due.pop();
            let per_piece = self.member.spec.bytes_per_second.div_ceil(10);
            let goes_on = match act {
                Act::SendMore => self.service.allow(stream, per_piece),
                Act::Answer { .. } if self.member.happens(self.member.spec.reset_rate) => {
                    return true;
                }
                Act::Answer { is_head } => self.answer(stream, is_head, per_piece),
            };
            if goes_on {
                self.due.push(Reverse((due.plus(TRICKLE), stream, Act::SendMore)));
            }
        }
        false
    }

    /// Answers a stream; true when its body goes out in pieces of `per_piece` bytes (0: at once).
    fn answer(&mut self, stream: u32, is_head: bool, per_piece: u64) -> bool {
        let (block, size) = self.member.draw_answer().block(is_head);
        // Counted before it can be seen, so that a client that has its answer finds it counted.
        self.member.stats.requests.add(1);
        let allowed = if per_piece == 0 { u64::MAX } else { per_piece };
        self.service.answer(stream, block, size, allowed);
        allowed < size
    }

    fn send(&mut self) -> io::Result<()> {
        self.service.pump();
        if self.service.out().is_empty() {
            return Ok(());
        }
        let mut buffer = SendBuf::new();
        buffer.extend_from_slice(self.service.out());
        self.service.out().clear();
        self.stream.post(buffer)
    }
}
