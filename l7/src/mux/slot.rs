//! A stream's place in its connection: the exchange that is served there, its client and its waker,
//! which the next stream in this place uses again.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_core::rt;

use super::lane::{Lane, Shared};
use crate::client::Client;
use crate::exchange::{End, Exchange};
use crate::h2::connection::StreamRef;
use crate::h2::frame::Code;
use crate::pace::Departures;

/// A place.
pub(super) struct Slot {
    pub(super) client: Client,
    exchange: Option<Box<Exchange>>,
    waker: Waker,
    /// The exchange is over, and the client still has to take the rest of its answer.
    parting: Option<Departures>,
}

impl Slot {
    pub(super) fn new(shared: &Rc<Shared>, place: usize) -> Slot {
        Slot {
            client: Client::stream(Lane::new(shared, place)),
            exchange: None,
            waker: shared.ready.waker(place),
            parting: None,
        }
    }

    pub(super) fn lane(&self) -> Option<&Lane> {
        self.client.lane()
    }

    /// A request is served, or its answer is on its way.
    pub(super) fn is_in_use(&self) -> bool {
        self.exchange.is_some() || self.parting.is_some()
    }

    /// The request whose head the service has is the `nth` one of its connection, from zero.
    pub(super) fn begin(&mut self, shared: &Shared, stream: StreamRef, end: bool, nth: u32) {
        self.abandon(shared);
        let service = &shared.front.entry.service;
        let head = &mut *service.head.borrow_mut();
        head.join_cookies();
        if let Some(lane) = self.lane() {
            lane.begin(stream, end);
        }
        self.client.requests.set(nth);
        let mut exchange = service.take_exchange(None, &self.client);
        self.client.count_received(head.bytes().len() as u64);
        match exchange.take_head(head, end, &self.client) {
            None => self.exchange = Some(exchange),
            Some(end) => {
                service.give_back(exchange);
                self.part(&end);
            }
        }
    }

    /// Goes on with the request.
    pub(super) fn poll(&mut self, shared: &Shared) {
        let Some(mut exchange) = self.exchange.take() else { return self.poll_parting() };
        match exchange.poll(&mut Context::from_waker(&self.waker), &self.client) {
            Poll::Pending => self.exchange = Some(exchange),
            Poll::Ready(end) => {
                shared.front.entry.service.give_back(exchange);
                self.part(&end);
            }
        }
    }

    /// The exchange is over.
    fn part(&mut self, end: &End) {
        let Some(lane) = self.client.lane() else { return };
        if matches!(end, End::Abort) {
            // The client must not take what it got for the whole answer.
            return lane.clear(Code::INTERNAL);
        }
        lane.refuse_input();
        lane.end();
        if !lane.holds() {
            // A request whose rest nobody wants is given up (RFC 9113, 8.1).
            return lane.clear(Code::NO_ERROR);
        }
        let half = self.client.site().client_timeout() / 2;
        self.parting = Some(Departures::begin(rt::now(), lane.bytes_sent()));
        self.client.timer.set(half);
        // The timer has to be looked at once.
        self.waker.wake_by_ref();
    }

    /// Looks whether the client takes the rest of its answer.
    fn poll_parting(&mut self) {
        let cx = &mut Context::from_waker(&self.waker);
        let (Some(departures), Some(lane)) = (&mut self.parting, self.client.lane()) else {
            return;
        };
        if !lane.holds() {
            self.parting = None;
            return lane.clear(Code::NO_ERROR);
        }
        let half = self.client.site().client_timeout() / 2;
        while self.client.timer.poll_expired(cx).is_ready() {
            if !departures.go_on(lane.bytes_taken(), half, true) {
                self.parting = None;
                return lane.clear(Code::CANCEL);
            }
            self.client.timer.set(half);
        }
    }

    /// The client has given the stream up, or is gone.
    pub(super) fn abandon(&mut self, shared: &Shared) {
        self.give_up(shared, Code::CANCEL);
    }

    /// Ends the stream, whatever it is at.
    pub(super) fn give_up(&mut self, shared: &Shared, code: Code) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.abandon(&self.client);
            shared.front.entry.service.give_back(exchange);
        }
        self.parting = None;
        if let Some(lane) = self.client.lane() {
            lane.clear(code);
        }
    }
}
