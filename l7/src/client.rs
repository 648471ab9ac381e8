//! The client's side, as exchanges see it: a connection of HTTP/1 that is theirs alone, or one
//! stream of a connection of HTTP/2. Owns what is known of either; knows nothing of messages. Made
//! by `connection` and `mux`.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use weir_core::rt::{Lease, Payload, TcpStream, Timer};
use weir_core::table::{Site, Ticket};
use weir_core::tls::Stream;

use crate::limits::{LINGER_BYTES, LINGER_TIME};
use crate::message::AddressText;
use crate::mux::Lane;
use crate::service::Service;

/// A connection that was let in, whatever is spoken on it.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) entry: Entry,
    pub(crate) stream: Stream,
    /// Address of whose connection it is …
    pub(crate) address: IpAddr,
    /// … and its port.
    pub(crate) port: u16,
    /// The address as text, made once per connection.
    pub(crate) peer: AddressText,
}

/// A connection's entry in its service, and its ticket, as long as it lives.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) service: Rc<Service>,
    ticket: Ticket,
    /// `None` until its task runs.
    place: Option<u32>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.place.into_iter().for_each(|place| self.service.crowd.leave(place));
    }
}

impl Front {
    pub(crate) fn new(
        service: Rc<Service>,
        ticket: Ticket,
        stream: Stream,
        peer: SocketAddr,
    ) -> Front {
        Front {
            entry: Entry { service, ticket, place: None },
            stream,
            address: peer.ip(),
            port: peer.port(),
            peer: AddressText::new(peer.ip()),
        }
    }

    #[inline]
    pub(crate) fn site(&self) -> &Site {
        self.entry.ticket.site()
    }

    /// Closes it so that the client doesn't take what it got for all.
    pub(crate) fn reset(self) {
        let Front { entry, stream, .. } = self;
        stream.reset();
        drop(entry);
    }

    /// Sends what is posted, and listens for a while to what the client still sends.
    pub(crate) async fn linger(self) {
        let Front { entry, stream, .. } = self;
        stream.close_lingering(LINGER_BYTES, LINGER_TIME).await;
        drop(entry);
    }
}

/// Whom an exchange serves.
#[derive(Debug)]
pub(crate) struct Client {
    way: Way,
    /// Bytes that were received and posted, and requests that ended.
    pub(crate) received: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    pub(crate) requests: Cell<u32>,
    /// The one timer of whoever is served: all waits of a request exclude each other.
    pub(crate) timer: Timer,
}

/// What follows bytes that are posted for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// More of the answer.
    More,
    /// Other answers, maybe: this one ends with them.
    Others,
    /// Nothing: a connection of its own is closed next.
    End,
}

/// How it is reached.
#[derive(Debug)]
enum Way {
    Alone(Front),
    /// Boxed, since it is larger than a connection, of which there are many that are idle.
    Stream(Box<Lane>),
}

impl Client {
    /// One with a connection of its own.
    pub(crate) fn alone(front: Front) -> Client {
        Client::new(Way::Alone(front))
    }

    /// One that is a stream among others.
    pub(crate) fn stream(lane: Lane) -> Client {
        Client::new(Way::Stream(Box::new(lane)))
    }

    fn new(way: Way) -> Client {
        let (received, sent, requests) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Client { way, received, sent, requests, timer: Timer::new() }
    }

    /// Enters the present task among those that serve connections.
    pub(crate) fn enter(&mut self) {
        if let Way::Alone(Front { entry, .. }) = &mut self.way {
            entry.place = Some(entry.service.crowd.enter());
        }
    }

    /// Its connection.
    #[inline]
    pub(crate) fn front(&self) -> &Front {
        match &self.way {
            Way::Alone(front) => front,
            Way::Stream(lane) => lane.front(),
        }
    }

    /// Its connection, where that is its own and in clear text.
    pub(crate) fn plain(&self) -> Option<&TcpStream> {
        match &self.way {
            Way::Alone(front) => front.stream.plain(),
            Way::Stream(_) => None,
        }
    }

    /// Its stream, if it shares its connection.
    #[inline]
    pub(crate) fn lane(&self) -> Option<&Lane> {
        match &self.way {
            Way::Alone(_) => None,
            Way::Stream(lane) => Some(lane),
        }
    }

    /// The connection, for whoever closes it; `None` for a stream among others.
    pub(crate) fn into_front(self) -> Option<Front> {
        match self.way {
            Way::Alone(front) => Some(front),
            Way::Stream(_) => None,
        }
    }

    #[inline]
    pub(crate) fn service(&self) -> &Service {
        &self.front().entry.service
    }

    #[inline]
    pub(crate) fn site(&self) -> &Site {
        self.front().site()
    }

    /// Did it come in clear text to a listener for TLS?
    #[inline]
    pub(crate) fn is_stray(&self) -> bool {
        self.site().is_tls() && self.front().stream.tls().is_none()
    }

    /// The next bytes from the client, counted; of a stream those of the request's body.
    #[inline]
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let polled = match &self.way {
            Way::Alone(front) => front.stream.poll_recv(cx),
            Way::Stream(lane) => lane.poll_recv(),
        };
        if let Poll::Ready(Ok(Some(lease))) = &polled {
            self.count_received(lease.len() as u64);
        }
        polled
    }

    /// Ready when `post` may be called.
    #[inline]
    pub(crate) fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.way {
            Way::Alone(front) => front.stream.poll_send_ready(cx),
            Way::Stream(lane) => lane.poll_send_ready(),
        }
    }

    /// Posts bytes for the client, counted; on a stream they are body. Only after
    /// `poll_send_ready`.
    #[inline]
    pub(crate) fn post(&self, payload: Payload, then: Then) -> io::Result<()> {
        self.count_sent(payload.len() as u64);
        match &self.way {
            Way::Alone(front) if then == Then::End => front.stream.post_last(payload),
            Way::Alone(front) => front.stream.post(payload),
            Way::Stream(lane) => {
                lane.post(payload, then != Then::More);
                Ok(())
            }
        }
    }

    /// Says that a large body is about to come (`true`).
    pub(crate) fn expect_bulk(&self, bulk: bool) {
        if let Way::Alone(front) = &self.way {
            front.stream.expect_bulk(bulk);
        }
    }

    /// Bytes that have come from it, for its pace.
    #[inline]
    pub(crate) fn bytes_received(&self) -> u64 {
        match &self.way {
            Way::Alone(front) => front.stream.bytes_received(),
            Way::Stream(lane) => lane.bytes_received(),
        }
    }

    /// Bytes that have left for it, for its pace.
    #[inline]
    pub(crate) fn bytes_sent(&self) -> u64 {
        match &self.way {
            Way::Alone(front) => front.stream.bytes_sent(),
            Way::Stream(lane) => lane.bytes_sent(),
        }
    }

    /// Bytes that it has taken; `None` when its connection is gone.
    pub(crate) fn bytes_taken(&self) -> Option<u64> {
        match &self.way {
            Way::Alone(front) => front.stream.tcp_info().ok().map(|info| info.bytes_acked),
            Way::Stream(lane) => Some(lane.bytes_taken()),
        }
    }

    /// Counts bytes received. A connection of streams counts what comes in itself.
    #[inline]
    pub(crate) fn count_received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
        if let Way::Alone(front) = &self.way {
            front.site().counters.bytes_received.add(bytes);
        }
    }

    /// Counts bytes sent; see `count_received`.
    #[inline]
    pub(crate) fn count_sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
        if let Way::Alone(front) = &self.way {
            front.site().counters.bytes_sent.add(bytes);
        }
    }
}
