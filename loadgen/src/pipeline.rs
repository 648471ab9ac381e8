//! A connection slot with several requests under way at once (HTTP/1.1 pipelining, RFC 9112
//! section 9.3.2). Answers come in the order of the requests. When the connection fails, all that
//! wait on it fail. Called by `shard`.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use weir_core::rt::SendBuf;
use weir_core::time::clock::{Mono, mono};

use crate::client::{Client, Failure, Observer, Open};
use crate::limits;
use crate::pace::Ticket;
use crate::record::Answer;
use crate::sending::send_copy;
use crate::shard::{Shard, Watch};
use crate::slot::{Next, Slot, Woken, can_send, wait};
use crate::template::Request;

/// A request that waits for its answer.
struct Flight<'a> {
    ticket: Ticket,
    request: &'a Request,
    start: Mono,
    begun: Mono,
    handed: Mono,
    place: usize,
}

/// The life of a slot: connection after connection until nothing is left to send.
pub(crate) async fn run(shard: &Shard, mut client: Client<Watch>, number: usize) {
    let mut slot = Slot::new(shard, &mut client, number);
    while let Some(conn) = slot.connect().await {
        let slot = &mut slot;
        Pipeline { slot, conn, ahead: VecDeque::new(), serial: 0, fed: 0 }.converse().await;
        slot.line.observer.closed();
    }
}

/// A connection with the requests on it.
struct Pipeline<'s, 'a> {
    slot: &'s mut Slot<'a>,
    conn: Open,
    ahead: VecDeque<Flight<'a>>,
    /// Requests that were sent.
    serial: usize,
    /// Bytes of the present answer.
    fed: u64,
}

impl Pipeline<'_, '_> {
    /// Uses the connection up.
    async fn converse(&mut self) {
        let mut more = true;
        loop {
            let ready = match can_send(&self.conn.stream).await {
                Ok(ready) => ready,
                Err(error) => return self.lose(Failure::reset(error)),
            };
            if ready && more {
                more = match self.fill().await {
                    Ok(goes_on) => goes_on,
                    Err(error) => return self.lose(Failure::reset(error)),
                };
            }
            if self.ahead.is_empty() && (!more || self.is_used_up()) {
                return;
            }
            let next = match self.slot.due() {
                _ if !more || !self.has_room() => Next::Nothing,
                Some(due) if ready => Next::Due(due),
                _ => Next::Room,
            };
            match wait(&self.conn.stream, next, self.patience()).await {
                Woken::Received(Ok(Some(lease))) => {
                    if let Err(failure) = self.take(&lease) {
                        return self.lose(failure);
                    }
                    let head = self.slot.talk.reader.head();
                    if head.is_some_and(|head| !head.keep_alive) && self.fed == 0 {
                        let failure = Failure::closed("the target closed before it answered all");
                        return self.lose(failure);
                    }
                }
                Woken::Received(Ok(None)) => {
                    let whole = self.fed > 0 && self.slot.talk.reader.end().is_ok();
                    if whole {
                        self.answered(mono());
                    }
                    return self.lose(Failure::closed("closed before the answer was whole"));
                }
                Woken::Received(Err(error)) => return self.lose(Failure::reset(error)),
                Woken::Late => {
                    let oldest = Failure::timeout("no answer within the time limit");
                    let others = || Failure::timeout("given up with one before it that was late");
                    return self.fail(oldest, others);
                }
                Woken::Due => self.slot.note_lateness(),
                Woken::Writable => {}
            }
        }
    }

    fn is_used_up(&self) -> bool {
        self.slot.line.wire.per_connection.is_some_and(|n| self.conn.served >= n)
    }

    fn has_room(&self) -> bool {
        self.ahead.len() < self.slot.line.wire.in_flight && !self.is_used_up()
    }

    /// How long the oldest request may still take: answers before it don't lengthen that, nor do
    /// requests behind it.
    fn patience(&self) -> Option<Duration> {
        let oldest = self.ahead.front()?.begun;
        Some(oldest.plus(self.slot.line.wire.timeout).since(mono()))
    }

    /// Sends what is due and fits, in one piece; false when nothing is left to send at all.
    async fn fill(&mut self) -> io::Result<bool> {
        let now = mono();
        let mut buffer = SendBuf::new();
        let mut large: Option<&Request> = None;
        let before = self.ahead.len();
        let mut more = true;
        while self.has_room() && large.is_none() {
            let Some(ticket) = self.slot.take(now) else {
                more = false;
                break;
            };
            if ticket.due.is_some_and(|due| due > now) {
                self.slot.waiting.push_front(ticket);
                break;
            }
            let Some(request) = self.slot.line.wire.choose(&mut self.slot.talk.rng) else { break };
            self.conn.served += 1;
            let last = self.slot.line.wire.per_connection.is_some_and(|n| self.conn.served >= n);
            buffer.extend_from_slice(if last { &request.last_head } else { &request.head });
            match request.body.len() <= limits::SMALL_REQUEST {
                true => buffer.extend_from_slice(&request.body),
                false => large = Some(request),
            }
            let place = self.slot.first + self.serial % self.slot.line.wire.in_flight;
            self.serial += 1;
            let start = ticket.due.unwrap_or(now);
            self.slot.shard.mark(place, Some(start));
            self.ahead.push_back(Flight { ticket, request, start, begun: now, handed: now, place });
        }
        if before == 0
            && let Some(flight) = self.ahead.front()
        {
            self.slot.talk.reader.start(flight.request.is_head);
        }
        if !buffer.is_empty() {
            self.conn.stream.post(buffer)?;
        }
        if let Some(request) = large {
            send_copy(&self.conn.stream, &request.body).await?;
        }
        let handed = mono();
        self.ahead.iter_mut().skip(before).for_each(|flight| flight.handed = handed);
        Ok(more)
    }

    /// Counts the answers that are whole with `lease`.
    fn take(&mut self, lease: &[u8]) -> Result<(), Failure> {
        let now = mono();
        let mut rest = lease;
        while !rest.is_empty() {
            let Some(flight) = self.ahead.front() else {
                return Err(Failure::malformed("bytes arrived that no request asked for"));
            };
            if self.fed == 0 {
                self.slot.talk.reader.first = Some(now);
            }
            let needle = flight.request.expect.contains.as_ref();
            let fed =
                self.slot.talk.reader.feed_seeking(rest, needle).map_err(Failure::malformed)?;
            self.fed += fed.used as u64;
            rest = &rest[fed.used..];
            if fed.done {
                self.answered(now);
            }
        }
        Ok(())
    }

    /// The oldest request has its answer.
    fn answered(&mut self, now: Mono) {
        let Some(flight) = self.ahead.pop_front() else { return };
        let reader = &self.slot.talk.reader;
        let known = reader.head().unwrap_or_default();
        let request = flight.request;
        let mut answer = Answer {
            status: known.status,
            fault: request.expect.fault(known.status, reader.has_found()),
            start: flight.start,
            begun: flight.begun,
            ready: flight.begun,
            handed: flight.handed,
            first_byte: reader.first.unwrap_or(now),
            done: now,
            sent: (request.head.len() + request.body.len()) as u64,
            received: std::mem::take(&mut self.fed),
            ..Answer::default()
        };
        self.slot.talk.hear(&self.slot.line.wire, &mut answer);
        self.slot.shard.mark(flight.place, None);
        self.slot.shard.finish(flight.ticket, Ok(answer));
        if let (true, Some(next)) = (known.keep_alive, self.ahead.front()) {
            self.slot.talk.reader.start(next.request.is_head);
        }
    }

    /// The connection is broken: all that wait fail.
    fn lose(&mut self, failure: Failure) {
        self.fail(failure, || Failure::closed("lost with the one before it"));
    }

    /// All that wait fail, the oldest by `failure`.
    fn fail(&mut self, failure: Failure, others: fn() -> Failure) {
        self.fed = 0;
        let mut failure = Some(failure);
        for flight in std::mem::take(&mut self.ahead) {
            self.slot.shard.mark(flight.place, None);
            let failure = failure.take().unwrap_or_else(others);
            self.slot.shard.finish(flight.ticket, Err(failure));
        }
    }
}
