//! A connection slot that speaks HTTP/2: many requests under way at once on one connection, each
//! in a stream of its own. What the target says it has not looked at is sent again on the next
//! connection; its latency goes on from where it began. Called by `shard`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use weir_core::rt::{self, Lease, SendBuf};
use weir_core::time::clock::{Mono, mono};

use super::session::{Ear, Ended, Lost, Session, code_name};
use crate::client::{Client, Failure, Line, Observer, Open, late};
use crate::http::Talk;
use crate::pace::Ticket;
use crate::record::Answer;
use crate::search::Found;
use crate::shard::{Shard, Watch};
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
    let mut waiting = VecDeque::new();
    while let Some(ticket) = waiting.pop_front().or_else(|| shard.take(mono())) {
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
                waiting.push_front(Ticket { due: ticket.due.or(Some(begun)), ..ticket });
                let places = line.wire.in_flight;
                let flights: Vec<_> = (0..places).map(|_| None).collect();
                let under_way = UnderWay { flights, first: slot * places, answered: 0, waiting };
                let session = Session::new(places);
                let hopeless = false;
                let mut slot = Slot { shard, line, talk, conn, session, under_way, hopeless };
                slot.converse().await;
                waiting = slot.under_way.waiting;
                line.observer.closed();
            }
        }
    }
}

async fn connect(line: &Line<Watch>, talk: &mut Talk) -> Result<Open, Failure> {
    let opened = rt::timeout(line.wire.timeout, line.connect(&mut talk.rng)).await;
    opened.unwrap_or_else(|rt::Elapsed| Err(late()))
}

/// The requests of a connection.
struct UnderWay<'a> {
    /// By the place of their stream.
    flights: Vec<Option<Flight<'a>>>,
    /// Number of the first place in the shard.
    first: usize,
    /// Answers on this connection.
    answered: u64,
    /// Tickets for what is to be sent next.
    waiting: VecDeque<Ticket>,
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

struct Slot<'a> {
    shard: &'a Shard,
    line: &'a Line<Watch>,
    talk: &'a mut Talk,
    conn: Open,
    session: Session<'a>,
    under_way: UnderWay<'a>,
    /// Requests went unanswered for too long: no more of them on this connection.
    hopeless: bool,
}

impl<'a> Slot<'a> {
    /// Uses the connection up.
    async fn converse(&mut self) {
        let mut more = true;
        loop {
            let ready = match self.send_ready().await {
                Ok(ready) => ready,
                Err(error) => return self.fail(Failure::reset(error)),
            };
            if ready {
                more = more && self.fill();
                if let Err(error) = self.send() {
                    return self.fail(Failure::reset(error));
                }
            }
            let nothing_left = !more && self.under_way.waiting.is_empty();
            if self.under_way.is_empty() && (nothing_left || self.is_used_up()) {
                return;
            }
            match self.wait(!ready || self.session.has_more()).await {
                Woken::Received(Ok(Some(lease))) => {
                    if let Err(why) = self.hear(&lease) {
                        return self.fail(Failure::malformed(why));
                    }
                }
                Woken::Received(Ok(None)) => return self.fail(self.farewell()),
                Woken::Received(Err(error)) => return self.fail(Failure::reset(error)),
                Woken::Late => self.give_up(),
                Woken::Due => self.note_lateness(),
                Woken::Writable => {}
            }
        }
    }

    async fn send_ready(&self) -> io::Result<bool> {
        let stream = &self.conn.stream;
        let ready = poll_fn(|cx| Poll::Ready(stream.poll_send_ready(cx))).await;
        match ready {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    fn is_used_up(&self) -> bool {
        let served = self.line.wire.per_connection.is_some_and(|n| self.conn.served >= n);
        served || self.hopeless || self.session.is_leaving()
    }

    fn has_room(&self) -> bool {
        !self.is_used_up() && self.session.room() > 0
    }

    /// When the next request is due, if there is room for it.
    fn due(&self) -> Option<Mono> {
        let next = self.under_way.waiting.front();
        next.and_then(|ticket| ticket.due).filter(|_| self.has_room())
    }

    /// Opens streams for what is due and fits; false when nothing is left to send at all.
    fn fill(&mut self) -> bool {
        let now = mono();
        while self.has_room() {
            let ticket = self.under_way.waiting.pop_front();
            let Some(ticket) = ticket.or_else(|| self.shard.take(now)) else { return false };
            if ticket.due.is_some_and(|due| due > now) {
                self.under_way.waiting.push_front(ticket);
                return true;
            }
            self.begin(ticket, now);
        }
        true
    }

    fn begin(&mut self, ticket: Ticket, now: Mono) {
        let Some(request) = self.line.wire.choose(&mut self.talk.rng) else { return };
        let mut block = SendBuf::new();
        let id = self.talk.write_block(&mut block, &self.line.wire, request);
        let Some(place) = self.session.open(&block, &request.body, request.is_head) else { return };
        self.conn.served += 1;
        let start = ticket.due.unwrap_or(now);
        self.shard.mark(self.under_way.first + place, Some(start));
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
        if self.session.out.is_empty() {
            return Ok(());
        }
        let mut buffer = SendBuf::new();
        buffer.extend_from_slice(&self.session.out);
        self.session.out.clear();
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

    async fn wait(&self, is_blocked: bool) -> Woken {
        let stream = &self.conn.stream;
        let due = self.due();
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
            if is_blocked {
                return stream.poll_send_ready(cx).map(|_| Woken::Writable);
            }
            point.as_mut().poll(cx).map(|()| Woken::Due)
        });
        match self.patience() {
            None => either.await,
            Some(left) => rt::timeout(left, either).await.unwrap_or(Woken::Late),
        }
    }

    /// How long the oldest request may still take.
    fn patience(&self) -> Option<Duration> {
        let oldest = self.under_way.all().map(|flight| flight.begun).min()?;
        Some(oldest.plus(self.line.wire.timeout).since(mono()))
    }

    fn note_lateness(&self) {
        let now = mono();
        let next = self.under_way.waiting.front().filter(|ticket| !ticket.warm);
        if let Some(due) = next.and_then(|ticket| ticket.due) {
            self.shard.record(|recorder| recorder.lateness.record(now.since(due)));
        }
    }

    fn hear(&mut self, lease: &[u8]) -> Result<(), &'static str> {
        let mut hearing = Hearing {
            shard: self.shard,
            line: self.line,
            talk: self.talk,
            under_way: &mut self.under_way,
            now: mono(),
        };
        self.session.feed(lease, &mut hearing)
    }

    /// Ends the requests that have waited for too long.
    fn give_up(&mut self) {
        let now = mono();
        for place in 0..self.under_way.flights.len() {
            let flight = self.under_way.flights.get(place).and_then(Option::as_ref);
            let is_late = |flight: &Flight<'_>| flight.begun.plus(self.line.wire.timeout) <= now;
            if flight.is_some_and(is_late)
                && let Some(flight) = self.under_way.take(self.shard, place)
            {
                self.session.cancel(place);
                self.hopeless = true;
                let failure = Failure::timeout("no whole answer within the time limit");
                self.shard.finish(flight.ticket, Err(failure));
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
            let Some(flight) = self.under_way.take(self.shard, place) else { continue };
            let failure = failure.take();
            let failure = failure.unwrap_or_else(|| Failure::closed("lost with the one before it"));
            self.shard.finish(flight.ticket, Err(failure));
        }
    }
}

/// Hears what one piece of input says.
struct Hearing<'s, 'a> {
    shard: &'s Shard,
    line: &'s Line<Watch>,
    talk: &'s mut Talk,
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
        self.talk.reader.noted.clear();
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.talk.reader.noted.field(name, value);
    }

    fn head(&mut self, place: usize) {
        let flight = self.under_way.flights.get_mut(place).and_then(Option::as_mut);
        if let Some(flight) = flight {
            self.talk.hear(&self.line.wire, &mut flight.answer);
        }
    }

    fn body(&mut self, place: usize, part: &[u8]) {
        let Some(flight) = self.flight(place) else { return };
        if let Some(needle) = &flight.request.expect.contains {
            flight.found.feed(needle, part);
        }
    }

    fn ended(&mut self, place: usize, answer: Ended) {
        let Some(flight) = self.under_way.take(self.shard, place) else { return };
        self.under_way.answered += 1;
        let fault = flight.request.expect.fault(answer.status, flight.found.is_there());
        let Ended { status, sent, received } = answer;
        let handed = flight.handed.unwrap_or(flight.answer.first_byte);
        let done = self.now;
        let answer = Answer { status, fault, handed, done, sent, received, ..flight.answer };
        self.shard.finish(flight.ticket, Ok(answer));
    }

    fn lost(&mut self, place: usize, why: Lost) {
        let Some(flight) = self.under_way.take(self.shard, place) else { return };
        let failure = match why {
            // One that answers nothing on a connection would be asked for ever.
            Lost::Unseen if self.under_way.answered > 0 => {
                let due = Some(flight.answer.start);
                return self.under_way.waiting.push_back(Ticket { due, ..flight.ticket });
            }
            Lost::Unseen => Failure::closed("the target left before it answered anything"),
            Lost::Reset(code) => Failure::coded("the target reset the stream", code_name(code)),
            Lost::Malformed(why) => Failure::malformed(why),
        };
        self.shard.finish(flight.ticket, Err(failure));
    }
}
