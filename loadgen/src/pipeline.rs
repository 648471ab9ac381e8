//! A connection slot with several requests under way at once (HTTP/1.1 pipelining, RFC 9112
//! section 9.3.2). Answers come in the order of the requests. When the connection fails, all that
//! wait on it fail. Called by `shard`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use weir_core::rt::{self, Lease, SendBuf};
use weir_core::time::clock::{Mono, mono};

use crate::client::{Client, Failure, Line, Observer, Open, late};
use crate::http::Talk;
use crate::limits;
use crate::pace::Ticket;
use crate::record::Answer;
use crate::sending::send_copy;
use crate::shard::{Shard, Watch};
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

/// What a slot waits for.
enum Woken {
    Received(io::Result<Option<Lease>>),
    Writable,
    Due,
    Late,
}

/// The life of a slot: connection after connection until nothing is left to send.
pub(crate) async fn run(shard: &Shard, mut client: Client<Watch>, slot: usize) {
    let (line, mut kept, talk) = client.parts();
    let mut held = None;
    while let Some(ticket) = held.take().or_else(|| shard.take(mono())) {
        let begun = shard.begin(ticket, mono()).await;
        let conn = match kept.take() {
            Some(conn) => Ok(conn),
            None => connect(line, talk).await,
        };
        match conn {
            Err(failure) => {
                shard.finish(ticket, Err(failure));
                shard.pause().await;
            }
            Ok(conn) => {
                let mut slot = Slot {
                    shard,
                    line,
                    talk,
                    conn,
                    slot,
                    ahead: VecDeque::new(),
                    serial: 0,
                    fed: 0,
                };
                held = slot.converse(Ticket { due: ticket.due.or(Some(begun)), ..ticket }).await;
                line.observer.closed();
            }
        }
    }
}

async fn connect(line: &Line<Watch>, talk: &mut Talk) -> Result<Open, Failure> {
    let opened = rt::timeout(line.wire.timeout, line.connect(&mut talk.rng)).await;
    opened.unwrap_or_else(|rt::Elapsed| Err(late()))
}

struct Slot<'a> {
    shard: &'a Shard,
    line: &'a Line<Watch>,
    talk: &'a mut Talk,
    conn: Open,
    slot: usize,
    ahead: VecDeque<Flight<'a>>,
    /// Requests that were sent.
    serial: usize,
    /// Bytes of the present answer.
    fed: u64,
}

impl Slot<'_> {
    /// Uses the connection up. Gives back a ticket that was taken and not used.
    async fn converse(&mut self, first: Ticket) -> Option<Ticket> {
        let mut held = Some(first);
        let mut more = true;
        loop {
            if more {
                let filled = self.fill(&mut held).await;
                match filled {
                    Ok(goes_on) => more = goes_on,
                    Err(error) => {
                        self.fail(Failure::reset(error));
                        return held;
                    }
                }
            }
            if self.ahead.is_empty() && (!more || self.is_used_up()) {
                return held;
            }
            let due = held.and_then(|ticket| ticket.due).filter(|_| self.has_room());
            match self.wait(due, more && self.has_room()).await {
                Woken::Received(Ok(Some(lease))) => {
                    if let Err(failure) = self.take(&lease) {
                        self.fail(failure);
                        return held;
                    }
                    if self.talk.reader.head().is_some_and(|head| !head.keep_alive) && self.fed == 0
                    {
                        self.fail(Failure::closed("the target closed before it answered all"));
                        return held;
                    }
                }
                Woken::Received(Ok(None)) => {
                    let whole = self.fed > 0 && self.talk.reader.end().is_ok();
                    if whole {
                        self.answered(mono());
                    }
                    self.fail(Failure::closed("closed before the answer was whole"));
                    return held;
                }
                Woken::Received(Err(error)) => {
                    self.fail(Failure::reset(error));
                    return held;
                }
                Woken::Late => {
                    self.fail(Failure::timeout("no answer within the time limit"));
                    return held;
                }
                Woken::Due => {
                    let now = mono();
                    let late = held.filter(|ticket| !ticket.warm).and_then(|ticket| ticket.due);
                    late.into_iter().for_each(|due| {
                        self.shard.record(|recorder| recorder.lateness.record(now.since(due)));
                    });
                }
                Woken::Writable => {}
            }
        }
    }

    fn is_used_up(&self) -> bool {
        self.line.wire.per_connection.is_some_and(|n| self.conn.served >= n)
    }

    fn has_room(&self) -> bool {
        self.ahead.len() < self.line.wire.in_flight && !self.is_used_up()
    }

    /// Sends what is due and fits, in one piece; false when nothing is left to send at all.
    async fn fill(&mut self, held: &mut Option<Ticket>) -> io::Result<bool> {
        let stream = &self.conn.stream;
        if poll_fn(|cx| Poll::Ready(stream.poll_send_ready(cx))).await?.is_pending() {
            return Ok(true);
        }
        let now = mono();
        let mut buffer = SendBuf::new();
        let mut large: Option<&Request> = None;
        let before = self.ahead.len();
        let mut more = true;
        while self.has_room() && large.is_none() {
            let Some(ticket) = held.take().or_else(|| self.shard.take(now)) else {
                more = false;
                break;
            };
            if ticket.due.is_some_and(|due| due > now) {
                *held = Some(ticket);
                break;
            }
            let Some(request) = self.line.wire.choose(&mut self.talk.rng) else { break };
            self.conn.served += 1;
            let last = self.line.wire.per_connection.is_some_and(|n| self.conn.served >= n);
            buffer.extend_from_slice(if last { &request.last_head } else { &request.head });
            match request.body.len() <= limits::SMALL_REQUEST {
                true => buffer.extend_from_slice(&request.body),
                false => large = Some(request),
            }
            let place =
                self.slot * self.line.wire.in_flight + self.serial % self.line.wire.in_flight;
            self.serial += 1;
            let start = ticket.due.unwrap_or(now);
            self.shard.mark(place, Some(start));
            self.ahead.push_back(Flight { ticket, request, start, begun: now, handed: now, place });
        }
        if before == 0
            && let Some(flight) = self.ahead.front()
        {
            self.talk.reader.start(flight.request.is_head);
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

    async fn wait(&self, due: Option<Mono>, wants_room: bool) -> Woken {
        let stream = &self.conn.stream;
        let mut point = pin!(async {
            match due {
                Some(due) => rt::sleep_exact(due).await,
                None => std::future::pending().await,
            }
        });
        let either = poll_fn(|cx| {
            if let Poll::Ready(received) = stream.poll_recv(cx) {
                return Poll::Ready(Woken::Received(received));
            }
            if point.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Due);
            }
            // Whoever waits for a point in time has room already.
            if due.is_none() && wants_room && stream.poll_send_ready(cx).is_ready() {
                return Poll::Ready(Woken::Writable);
            }
            Poll::Pending
        });
        match self.ahead.is_empty() {
            true => either.await,
            false => rt::timeout(self.line.wire.timeout, either).await.unwrap_or(Woken::Late),
        }
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
                self.talk.reader.first = Some(now);
            }
            let needle = flight.request.expect.contains.as_ref();
            let fed = self.talk.reader.feed_seeking(rest, needle).map_err(Failure::malformed)?;
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
        let reader = &self.talk.reader;
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
        self.talk.hear(&self.line.wire, &mut answer);
        self.shard.mark(flight.place, None);
        self.shard.finish(flight.ticket, Ok(answer));
        if let (true, Some(next)) = (known.keep_alive, self.ahead.front()) {
            self.talk.reader.start(next.request.is_head);
        }
    }

    /// All that wait fail.
    fn fail(&mut self, failure: Failure) {
        self.fed = 0;
        let mut failure = Some(failure);
        for flight in std::mem::take(&mut self.ahead) {
            self.shard.mark(flight.place, None);
            let failure = failure.take();
            let failure = failure.unwrap_or_else(|| Failure::closed("lost with the one before it"));
            self.shard.finish(flight.ticket, Err(failure));
        }
    }
}
