//! One client connection's life: waits for a request, has it exchanged, goes on or ends. Owns the
//! client's socket and timer; what concerns one request lives in an `Exchange`, which an idle
//! connection doesn't hold, so that it stays small.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use weir_core::limits::REQUESTS_PER_TURN;
use weir_core::rt::{self, Lease, Payload, Timer};
use weir_core::table::{Site, Ticket};
use weir_core::tls::Stream;

use crate::exchange::End;
use crate::limits::{DRAIN_IDLE, LINGER_BYTES, LINGER_TIME};
use crate::message::{self, AddressText};
use crate::pace::Departures;
use crate::service::Service;

/// The client's side, as exchanges see it.
#[derive(Debug)]
pub(crate) struct Client {
    entry: Entry,
    pub(crate) stream: Stream,
    /// Address of whose connection it is …
    pub(crate) address: IpAddr,
    /// … and its port.
    pub(crate) port: u16,
    /// The address as text, made once per connection.
    pub(crate) peer: AddressText,
    /// Bytes that were received and posted, and requests that ended.
    pub(crate) received: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    pub(crate) requests: Cell<u32>,
    /// The one timer of this connection: all waits of a request exclude each other.
    pub(crate) timer: Timer,
}

/// A connection's entry in its service, and its ticket, as long as it lives.
#[derive(Debug)]
struct Entry {
    service: Rc<Service>,
    ticket: Ticket,
    /// `None` until its task runs.
    place: Option<u32>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.place.into_iter().for_each(|place| self.service.crowd.leave(place));
    }
}

impl Client {
    fn new(service: Rc<Service>, ticket: Ticket, stream: Stream, peer: SocketAddr) -> Client {
        let entry = Entry { service, ticket, place: None };
        Client {
            entry,
            stream,
            address: peer.ip(),
            port: peer.port(),
            peer: AddressText::new(peer.ip()),
            received: Cell::new(0),
            sent: Cell::new(0),
            requests: Cell::new(0),
            timer: Timer::new(),
        }
    }

    #[inline]
    pub(crate) fn service(&self) -> &Service {
        &self.entry.service
    }

    #[inline]
    pub(crate) fn site(&self) -> &Site {
        self.entry.ticket.site()
    }

    /// Did it come in clear text to a listener for TLS?
    #[inline]
    pub(crate) fn is_stray(&self) -> bool {
        self.site().is_tls() && self.stream.tls().is_none()
    }

    /// The next bytes from the client, counted.
    #[inline]
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let polled = self.stream.poll_recv(cx);
        if let Poll::Ready(Ok(Some(lease))) = &polled {
            self.count_received(lease.len() as u64);
        }
        polled
    }

    /// Posts bytes for the client, counted. Only after `poll_send_ready`.
    #[inline]
    pub(crate) fn post(&self, payload: Payload) -> io::Result<()> {
        self.count_sent(payload.len() as u64);
        self.stream.post(payload)
    }

    #[inline]
    pub(crate) fn count_received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
        self.site().counters.bytes_received.add(bytes);
    }

    #[inline]
    pub(crate) fn count_sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
        self.site().counters.bytes_sent.add(bytes);
    }
}

/// Serves `stream` until it ends. The client is made before the future: what an async function is
/// given lies in its future once more, and an idle connection is little else.
pub(crate) fn run(
    service: Rc<Service>,
    ticket: Ticket,
    stream: Stream,
    peer: SocketAddr,
) -> impl Future<Output = ()> {
    let mut client = Client::new(service, ticket, stream, peer);
    async move {
        client.entry.place = Some(client.service().crowd.enter());
        let end = requests(&client).await;
        match parting(&client, end).await {
            Parting::Close => {}
            Parting::Reset => reset(client),
            // Rare, and large: not part of every connection's future.
            Parting::Linger => Box::pin(linger(client)).await,
        }
    }
}

/// Exchanges requests until the connection is to end.
async fn requests(client: &Client) -> End {
    let mut idle_limit = client.site().client_timeout();
    let mut silent = true;
    let mut rest = None;
    // Requests answered since this task last waited.
    let mut in_turn = 0;
    loop {
        let first = match rest.take().and_then(without_empty_lines) {
            Some(lease) => lease,
            None => match idle(client, idle_limit, &mut in_turn).await {
                Some(lease) => lease,
                None => {
                    client.site().counters.silent_closes.add(u64::from(silent));
                    return End::Close;
                }
            },
        };
        let mut exchange = client.service().take_exchange(first, client);
        let end = poll_fn(|cx| {
            let polled = exchange.poll(cx, client);
            in_turn = if polled.is_pending() { 0 } else { in_turn + 1 };
            polled
        })
        .await;
        client.service().give_back(exchange);
        match end {
            End::Next(more) => rest = more,
            end => return end,
        }
        silent = false;
        idle_limit = client.site().keepalive_timeout();
        if in_turn >= REQUESTS_PER_TURN {
            in_turn = 0;
            rt::yield_now().await;
        }
    }
}

fn without_empty_lines(mut lease: Lease) -> Option<Lease> {
    let empty = message::empty_lines(&lease);
    if empty > 0 {
        lease.advance(empty);
    }
    (!lease.is_empty()).then_some(lease)
}

/// Waits for the first bytes of a request; `None` when the connection is to be closed.
async fn idle(client: &Client, limit: Duration, in_turn: &mut usize) -> Option<Lease> {
    let mut set = false;
    let mut draining = false;
    poll_fn(|cx| {
        loop {
            match client.poll_recv(cx) {
                Poll::Ready(Ok(Some(lease))) => {
                    if let Some(lease) = without_empty_lines(lease) {
                        return Poll::Ready(Some(lease));
                    }
                }
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        *in_turn = 0;
        if client.service().is_draining() && !draining {
            draining = true;
            client.timer.set(DRAIN_IDLE.min(limit));
        } else if !set {
            client.timer.set(limit);
        }
        set = true;
        client.timer.poll_expired(cx).map(|()| None)
    })
    .await
}

/// Waits until the kernel has taken what is posted; false when the client takes too little of it.
async fn all_taken(client: &Client) -> bool {
    let half = client.site().client_timeout() / 2;
    let mut departures = Departures::begin(rt::now(), client.stream.bytes_sent());
    let mut set = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(sent) = client.stream.poll_send_ready(cx) {
                return Poll::Ready(sent.is_ok());
            }
            if !std::mem::replace(&mut set, true) {
                client.timer.set(half);
            }
            if client.timer.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
            let acknowledged = client.stream.tcp_info().map(|info| info.bytes_acked);
            if !acknowledged.is_ok_and(|bytes| departures.go_on(bytes, half, true)) {
                return Poll::Ready(false);
            }
            set = false;
        }
    })
    .await
}

/// How a connection is closed.
enum Parting {
    Close,
    Reset,
    Linger,
}

/// How the connection is to be closed after `end`, once what is posted has been taken.
async fn parting(client: &Client, end: End) -> Parting {
    match end {
        // Closed in the middle, an answer that ends by close would look whole.
        End::Next(_) | End::Close | End::Linger if !all_taken(client).await => Parting::Reset,
        End::Next(_) | End::Close => {
            // TLS's end has to leave before the socket does.
            if client.stream.say_end() {
                all_taken(client).await;
            }
            Parting::Close
        }
        End::Linger => Parting::Linger,
        End::Abort => Parting::Reset,
    }
}

fn reset(client: Client) {
    let Client { entry, stream, .. } = client;
    stream.reset();
    drop(entry);
}

async fn linger(client: Client) {
    let Client { entry, stream, .. } = client;
    stream.close_lingering(LINGER_BYTES, LINGER_TIME).await;
    drop(entry);
}
