//! A connection slot that speaks HTTP/2: many requests under way at once on one connection, each
//! in a stream of its own. What the target says it has not looked at is sent again on the next
//! connection; its latency goes on from where it began. Called by `shard`.

use std::io;
use std::time::Duration;

use weir_core::rt::SendBuf;
use weir_core::time::clock::{Mono, mono};

use super::link::code_name;
use super::session::{Ear, Ended, Lost, Session};
use crate::client::{Client, Failure, Observer, Open};
use crate::pace::Ticket;
use crate::record::Answer;
use crate::search::Found;
use crate::shard::{Shard, Watch};
use crate::slot::{Next, Slot, Woken, can_send, wait};
use crate::template::Request;

/// A request that waits for its answer.
struct Flight<'a> {
    ticket: Ticket,
    request: &'a Request,
    begun: Mono,
    handed: Option<Mono>,
    /// What is known of the answer.
    answer: Answer,
    found: Found,
}

/// The life of a slot: connection after connection until nothing is left to send.
pub(crate) async fn run(shard: &Shard, mut client: Client<Watch>, number: usize) {
    let mut slot = Slot::new(shard, &mut client, number);
    while let Some(conn) = slot.connect().await {
        let places = slot.line.wire.in_flight;
        let flights = (0..places).map(|_| None).collect();
        let under_way = UnderWay { flights, first: slot.first, answered: 0 };
        let session = Session::new(places);
        let slot = &mut slot;
        Streams { slot, conn, session, under_way, hopeless: false }.converse().await;
        slot.line.observer.closed();
    }
}

/// The requests of a connection.
struct UnderWay<'a> {
    /// By the place of their stream.
    flights: Vec<Option<Flight<'a>>>,
    /// Number of the first place in the shard.
    first: usize,
    /// Answers on this connection.
    answered: u64,
}

impl<'a> UnderWay<'a> {
    fn take(&mut self, shard: &Shard, place: usize) -> Option<Flight<'a>> {
        shard.mark(self.first + place, None);
        self.flights.get_mut(place)?.take()
    }

    fn all(&self) -> impl Iterator<Item = &Flight<'a>> {
        self.flights.iter().flatten()
    }

    fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// A connection with its streams.
struct Streams<'s, 'a> {
    slot: &'s mut Slot<'a>,
    conn: Open,
    session: Session<'a>,
    under_way: UnderWay<'a>,
    /// Requests went unanswered for too long: no more of them on this connection.
    hopeless: bool,
}

impl Streams<'_, '_> {
    /// Uses the connection up.
    async fn converse(&mut self) {
        let mut more = true;
        loop {
            let ready = match can_send(&self.conn.stream).await {
                Ok(ready) => ready,
                Err(error) => return self.fail(Failure::reset(error)),
            };
            if ready {
                more = more && self.fill();
                if let Err(error) = self.send() {
                    return self.fail(Failure::reset(error));
                }
            }
            let nothing_left = !more && self.slot.waiting.is_empty();
            if self.under_way.is_empty() && (nothing_left || self.is_used_up()) {
                return;
            }
            let next = match self.slot.due().filter(|_| self.has_room()) {
                _ if !ready || self.session.has_more() => Next::Room,
                Some(due) => Next::Due(due),
                None => Next::Nothing,
            };
            match wait(&self.conn.stream, next, self.patience()).await {
                Woken::Received(Ok(Some(lease))) => {
                    if let Err(why) = self.hear(&lease) {
                        return self.fail(Failure::malformed(why));
                    }
                }
                Woken::Received(Ok(None)) => return self.fail(self.farewell()),
                Woken::Received(Err(error)) => return self.fail(Failure::reset(error)),
                Woken::Late => self.give_up(),
                Woken::Due => self.slot.note_lateness(),
                Woken::Writable => {}
            }
        }
    }

    fn is_used_up(&self) -> bool {
        let served = self.slot.line.wire.per_connection.is_some_and(|n| self.conn.served >= n);
        served || self.hopeless || self.session.is_leaving()
    }

    fn has_room(&self) -> bool {
        !self.is_used_up() && self.session.room() > 0
    }

    /// Opens streams for what is due and fits; false when nothing is left to send at all.
    fn fill(&mut self) -> bool {
        let now = mono();
        while self.has_room() {
            let Some(ticket) = self.slot.take(now) else { return false };
            if ticket.due.is_some_and(|due| due > now) {
                self.slot.waiting.push_front(ticket);
                return true;
            }
            self.begin(ticket, now);
        }
        true
    }

    fn begin(&mut self, ticket: Ticket, now: Mono) {
        let Some(request) = self.slot.line.wire.choose(&mut self.slot.talk.rng) else { return };
        let mut block = SendBuf::new();
        let id = self.slot.talk.write_block(&mut block, &self.slot.line.wire, request);
        let Some(place) = self.session.open(&block, &request.body, request.is_head) else { return };
        self.conn.served += 1;
        let start = ticket.due.unwrap_or(now);
        self.slot.shard.mark(self.under_way.first + place, Some(start));
        let answer = Answer { start, begun: now, ready: now, id, ..Answer::default() };
        let found = Found::default();
        let flight = Flight { ticket, request, begun: now, handed: None, answer, found };
        if let Some(free) = self.under_way.flights.get_mut(place) {
            *free = Some(flight);
        }
    }

    /// Posts what the session has to say.
    fn send(&mut self) -> io::Result<()> {
        self.session.pump();
        if self.session.out().is_empty() {
            return Ok(());
        }
        let mut buffer = SendBuf::new();
        buffer.extend_from_slice(self.session.out());
        self.session.out().clear();
        self.conn.stream.post(buffer)?;
        let handed = mono();
        for (place, flight) in self.under_way.flights.iter_mut().enumerate() {
            if let Some(flight) = flight
                && flight.handed.is_none()
                && self.session.is_said(place)
            {
                flight.handed = Some(handed);
            }
        }
        Ok(())
    }

    /// How long the oldest request may still take.
    fn patience(&self) -> Option<Duration> {
        let oldest = self.under_way.all().map(|flight| flight.begun).min()?;
        Some(oldest.plus(self.slot.line.wire.timeout).since(mono()))
    }

    fn hear(&mut self, lease: &[u8]) -> Result<(), &'static str> {
        let mut hearing = Hearing { slot: self.slot, under_way: &mut self.under_way, now: mono() };
        self.session.feed(lease, &mut hearing)
    }

    /// Ends the requests that have waited for too long.
    fn give_up(&mut self) {
        let now = mono();
        for place in 0..self.under_way.flights.len() {
            let flight = self.under_way.flights.get(place).and_then(Option::as_ref);
            let is_late =
                |flight: &Flight<'_>| flight.begun.plus(self.slot.line.wire.timeout) <= now;
            if flight.is_some_and(is_late)
                && let Some(flight) = self.under_way.take(self.slot.shard, place)
            {
                self.session.cancel(place);
                self.hopeless = true;
                let failure = Failure::timeout("no whole answer within the time limit");
                self.slot.shard.finish(flight.ticket, Err(failure));
            }
        }
    }

    /// Why those that still wait have no answer.
    fn farewell(&self) -> Failure {
        match self.session.complaint() {
            Some(code) => Failure::coded("the target ended the connection", code_name(code)),
            None => Failure::closed("closed before the answer was whole"),
        }
    }

    /// All that wait fail.
    fn fail(&mut self, failure: Failure) {
        let mut failure = Some(failure);
        for place in 0..self.under_way.flights.len() {
            let Some(flight) = self.under_way.take(self.slot.shard, place) else { continue };
            let failure = failure.take();
            let failure = failure.unwrap_or_else(|| Failure::closed("lost with the one before it"));
            self.slot.shard.finish(flight.ticket, Err(failure));
        }
    }
}

/// Hears what one piece of input says.
struct Hearing<'s, 'a> {
    slot: &'s mut Slot<'a>,
    under_way: &'s mut UnderWay<'a>,
    now: Mono,
}

impl<'a> Hearing<'_, 'a> {
    fn flight(&mut self, place: usize) -> Option<&mut Flight<'a>> {
        self.under_way.flights.get_mut(place)?.as_mut()
    }
}

impl Ear for Hearing<'_, '_> {
    fn begun(&mut self, place: usize) {
        let now = self.now;
        self.flight(place).into_iter().for_each(|flight| flight.answer.first_byte = now);
    }

    fn head_begins(&mut self) {
        self.slot.talk.reader.noted.clear();
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.slot.talk.reader.noted.field(name, value);
    }

    fn head(&mut self, place: usize) {
        let flight = self.under_way.flights.get_mut(place).and_then(Option::as_mut);
        if let Some(flight) = flight {
            self.slot.talk.hear(&self.slot.line.wire, &mut flight.answer);
        }
    }

    fn body(&mut self, place: usize, part: &[u8]) {
        let Some(flight) = self.flight(place) else { return };
        if let Some(needle) = &flight.request.expect.contains {
            flight.found.feed(needle, part);
        }
    }

    fn ended(&mut self, place: usize, answer: Ended) {
        let Some(flight) = self.under_way.take(self.slot.shard, place) else { return };
        self.under_way.answered += 1;
        let fault = flight.request.expect.fault(answer.status, flight.found.is_there());
        let Ended { status, sent, received } = answer;
        let handed = flight.handed.unwrap_or(flight.answer.first_byte);
        let done = self.now;
        let answer = Answer { status, fault, handed, done, sent, received, ..flight.answer };
        self.slot.shard.finish(flight.ticket, Ok(answer));
    }

    fn lost(&mut self, place: usize, why: Lost) {
        let Some(flight) = self.under_way.take(self.slot.shard, place) else { return };
        let failure = match why {
            // One that answers nothing on a connection would be asked for ever.
            Lost::Unseen if self.under_way.answered > 0 => {
                let due = Some(flight.answer.start);
                return self.slot.waiting.push_back(Ticket { due, ..flight.ticket });
            }
            Lost::Unseen => Failure::closed("the target left before it answered anything"),
            Lost::Reset(code) => Failure::coded("the target reset the stream", code_name(code)),
            Lost::Malformed(why) => Failure::malformed(why),
        };
        self.slot.shard.finish(flight.ticket, Err(failure));
    }
}
