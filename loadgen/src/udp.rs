//! One flow of datagrams: a socket of its own, so a source port of its own. Numbers what it sends,
//! matches what comes back: latency, loss, order, doubles, and whether the flow stays with its
//! member. Called by `shard`; one per connection slot.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use weir_core::rt::{self, Arrival, SendBuf, UdpOptions, UdpSocket};
use weir_core::time::clock::{Mono, mono};

use crate::client::{Failure, Observer, Opening};
use crate::datagram::Datagram;
use crate::limits;
use crate::noted::Name;
use crate::pace::Ticket;
use crate::record::{Answer, ErrorClass};
use crate::shard::{Shard, Watch};
use crate::wire::Wire;

/// A datagram that was sent not long ago.
struct Flight {
    ticket: Ticket,
    start: Mono,
    begun: Mono,
    answered: bool,
}

struct Flow<'a> {
    shard: &'a Shard,
    wire: &'a Wire,
    watch: Watch,
    socket: UdpSocket,
    slot: usize,
    number: u64,
    /// Those sent within the time limit, in order.
    flights: VecDeque<Flight>,
    /// Number of the first of them.
    base: u64,
    /// No unanswered one has a lower number.
    lowest: u64,
    unanswered: usize,
    /// One more than the highest number that came back.
    highest: u64,
    member: Name,
    /// What was before the measured window; `None` = it has not begun.
    before: Option<Before>,
}

/// Where a flow stood when it sent its first datagram that counts.
struct Before {
    /// Number of that one.
    serial: u64,
    not_sent: u64,
    missed: u64,
}

/// The life of flow `slot`, which is number `number` of the run.
pub(crate) async fn run(shard: &Rc<Shard>, wire: &Wire, slot: usize, number: usize) {
    let any: IpAddr = match wire.addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = wire.source(number).unwrap_or(SocketAddr::new(any, 0));
    let options = UdpOptions { errors: true, ..UdpOptions::default() };
    let socket = match UdpSocket::bind(source, options) {
        Ok(socket) => socket,
        Err(error) => {
            let failure = Failure::connect(error);
            shard.opening_failed(&failure);
            return;
        }
    };
    let mut flow = Flow {
        shard,
        wire,
        watch: Watch::new(shard),
        socket,
        slot,
        number: number as u64,
        flights: VecDeque::new(),
        base: 0,
        lowest: 0,
        unanswered: 0,
        highest: 0,
        member: Name::default(),
        before: None,
    };
    flow.go().await;
    flow.count_drops();
    if flow.highest > 0 {
        flow.watch.closed();
    }
}

impl Flow<'_> {
    async fn go(&mut self) {
        let mut held: Option<Ticket> = None;
        let mut more = true;
        loop {
            let now = mono();
            self.expire(now);
            if let Some(ticket) = held.take_if(|ticket| ticket.due.is_none_or(|due| due <= now)) {
                self.send(ticket, now);
            }
            let free = self.shard.constant_rate() || self.unanswered == 0;
            if held.is_none() && more && free && self.flights.len() < limits::MAX_FLIGHTS {
                held = self.shard.take(now);
                more = held.is_some();
                if more {
                    continue;
                }
            }
            if !more && held.is_none() && self.unanswered == 0 {
                return;
            }
            let due = held.and_then(|ticket| ticket.due);
            match self.wait(due).await {
                Some(Ok(Arrival::Datagram(datagram))) if datagram.peer == self.wire.addr => {
                    self.arrived(&datagram.data);
                }
                Some(Ok(Arrival::Datagram(_))) => {}
                Some(Ok(Arrival::Refused(refusal))) => self.refused(refusal.error),
                Some(Err(error)) => self.refused(error.kind()),
                None => {
                    let late = held.filter(|ticket| !ticket.warm).and_then(|ticket| ticket.due);
                    let now = mono();
                    late.filter(|&due| due <= now).into_iter().for_each(|due| {
                        self.shard.record(|recorder| recorder.sent_late(due, now));
                    });
                }
            }
        }
    }

    /// Those that our own kernel has dropped, both ways.
    fn count_drops(&self) {
        let Some(before) = &self.before else { return };
        let not_sent = self.socket.drops().saturating_sub(before.not_sent);
        let missed = self.socket.missed().saturating_sub(before.missed);
        self.shard.record(|recorder| {
            recorder.datagrams.not_sent += not_sent;
            recorder.datagrams.missed += missed;
        });
    }

    /// Whether what comes of datagram `serial` counts.
    fn counts(&self, serial: u64) -> bool {
        self.before.as_ref().is_some_and(|before| serial >= before.serial)
    }

    /// What arrives; `None` when `due`, or the time limit of the oldest, comes first.
    async fn wait(&self, due: Option<Mono>) -> Option<io::Result<Arrival>> {
        let mut point = pin!(async {
            match due {
                Some(due) => rt::sleep_exact(due).await,
                None => std::future::pending().await,
            }
        });
        let oldest = self.flights.get((self.lowest - self.base) as usize);
        let limit = oldest.map(|flight| flight.begun.plus(self.wire.timeout));
        let mut limit = pin!(async {
            match limit {
                Some(limit) => rt::sleep(limit.since(mono())).await,
                None => std::future::pending().await,
            }
        });
        poll_fn(|cx| {
            if let Poll::Ready(arrival) = self.socket.poll_recv(cx) {
                return Poll::Ready(Some(arrival));
            }
            if point.as_mut().poll(cx).is_ready() || limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }

    fn send(&mut self, ticket: Ticket, now: Mono) {
        let serial = self.base + self.flights.len() as u64;
        if !ticket.warm && self.before.is_none() {
            let (not_sent, missed) = (self.socket.drops(), self.socket.missed());
            self.before = Some(Before { serial, not_sent, missed });
        }
        let mut buffer = SendBuf::new();
        let run = self.wire.run;
        let size = usize::try_from(self.wire.size).unwrap_or(usize::MAX);
        Datagram { run, flow: self.number, serial }.write(&mut buffer, size);
        let start = ticket.due.unwrap_or(now);
        self.flights.push_back(Flight { ticket, start, begun: now, answered: false });
        self.unanswered += 1;
        self.shard.mark(self.slot, Some(start));
        self.shard.record(|recorder| recorder.datagrams.sent += u64::from(!ticket.warm));
        // What is not taken is told by `drops`, and counts as lost.
        self.socket.send(buffer, self.wire.addr, None);
    }

    fn arrived(&mut self, data: &[u8]) {
        let now = mono();
        let known = Datagram::read(data);
        let ours = |&(datagram, _, _): &(Datagram, Name, bool)| {
            datagram.run == self.wire.run && datagram.flow == self.number
        };
        let Some((datagram, member, good)) = known.filter(ours) else {
            let counts = self.before.is_some();
            self.shard.record(|recorder| recorder.datagrams.strange += u64::from(counts));
            return;
        };
        let serial = datagram.serial;
        let counts = u64::from(self.counts(serial));
        if serial < self.base {
            self.shard.record(|recorder| recorder.datagrams.late += counts);
            return;
        }
        let Some(flight) = self.flights.get_mut((serial - self.base) as usize) else { return };
        if flight.answered {
            self.shard.record(|recorder| recorder.datagrams.doubled += counts);
            return;
        }
        flight.answered = true;
        self.unanswered -= 1;
        if self.highest == 0 {
            self.watch.opened(Opening::default());
        }
        let overtaken = serial + 1 < self.highest;
        self.highest = self.highest.max(serial + 1);
        let size = data.len() as u64;
        let moved = !self.member.is_empty() && !member.is_empty() && member != self.member;
        let answer = Answer {
            start: flight.start,
            begun: flight.begun,
            ready: flight.begun,
            handed: flight.begun,
            first_byte: now,
            done: now,
            sent: self.wire.size,
            received: size,
            fault: (!good || size != self.wire.size).then_some(ErrorClass::Check),
            member,
            moved,
            overtaken,
            ..Answer::default()
        };
        let ticket = flight.ticket;
        self.member = member;
        self.settle();
        self.shard.finish(ticket, Ok(answer));
    }

    /// The network says that one of ours could not be delivered: the oldest, for want of knowledge.
    fn refused(&mut self, error: io::ErrorKind) {
        let place = (self.lowest - self.base) as usize;
        let Some(flight) = self.flights.get_mut(place) else { return };
        flight.answered = true;
        self.unanswered -= 1;
        let ticket = flight.ticket;
        self.settle();
        self.shard.finish(ticket, Err(Failure::connect(error.into())));
    }

    /// Forgets what is older than the time limit; what was not answered by then is lost.
    fn expire(&mut self, now: Mono) {
        while let Some(flight) = self.flights.front()
            && now.since(flight.begun) >= self.wire.timeout
        {
            let (ticket, answered) = (flight.ticket, flight.answered);
            self.flights.pop_front();
            self.base += 1;
            if !answered {
                self.unanswered -= 1;
                self.shard.finish(ticket, Err(Failure::timeout("no datagram came back in time")));
            }
        }
        self.settle();
    }

    /// Looks for the oldest that is not answered.
    fn settle(&mut self) {
        self.lowest = self.lowest.max(self.base);
        while self
            .flights
            .get((self.lowest - self.base) as usize)
            .is_some_and(|flight| flight.answered)
        {
            self.lowest += 1;
        }
        let oldest = self.flights.get((self.lowest - self.base) as usize);
        self.shard.mark(self.slot, oldest.map(|flight| flight.start));
    }
}
