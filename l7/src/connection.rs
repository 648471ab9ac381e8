//! One client connection's life in HTTP/1: waits for a request, has it exchanged, goes on or ends.
//! What concerns one request lives in an `Exchange`, which an idle connection doesn't hold, so that
//! it stays small. One that has agreed on HTTP/2 is handed to `mux`.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use weir_core::limits::REQUESTS_PER_TURN;
use weir_core::rt::{self, Lease, Timer};
use weir_core::table::Ticket;
use weir_core::tls::Stream;

use crate::client::{Client, Front};
use crate::exchange::End;
use crate::limits::DRAIN_IDLE;
use crate::message;
use crate::mux;
use crate::pace::Departures;
use crate::service::Service;

/// Serves `stream` until it ends. The client is made before the future: what an async function is
/// given lies in its future once more, and an idle connection is little else.
pub(crate) fn run(
    service: Rc<Service>,
    ticket: Ticket,
    stream: Stream,
    peer: SocketAddr,
) -> impl Future<Output = ()> {
    let mut client = Client::alone(Front::new(service, ticket, stream, peer));
    async move {
        client.enter();
        if client.front().stream.alpn() == Some(mux::PROTOCOL) {
            // Large: not part of every connection's future.
            return Box::pin(mux::serve(client)).await;
        }
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
        let mut exchange = client.service().take_exchange(Some(first), client);
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
pub(crate) async fn all_taken(front: &Front, timer: &Timer) -> bool {
    let half = front.site().client_timeout() / 2;
    let mut departures = Departures::begin(rt::now(), front.stream.bytes_sent());
    let mut set = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(sent) = front.stream.poll_send_ready(cx) {
                return Poll::Ready(sent.is_ok());
            }
            if !std::mem::replace(&mut set, true) {
                timer.set(half);
            }
            if timer.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
            let acknowledged = front.stream.tcp_info().map(|info| info.bytes_acked);
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
    let (front, timer) = (client.front(), &client.timer);
    match end {
        // Closed in the middle, an answer that ends by close would look whole.
        End::Next(_) | End::Close | End::Linger if !all_taken(front, timer).await => Parting::Reset,
        End::Next(_) | End::Close => {
            // TLS's end has to leave before the socket does.
            if front.stream.say_end() {
                all_taken(front, timer).await;
            }
            if front.stream.has_event() && !front.stream.is_through() {
                return Parting::Linger;
            }
            // After an answer that went through a pipe nobody has looked for more of the client's:
            // bytes that are unread when a socket is closed have the kernel reset it, and drop what
            // it still has to send.
            if front.stream.plain().is_some_and(|s| !s.is_receiving() && s.has_unread()) {
                return Parting::Linger;
            }
            // The kernel holds the last segment back for the FIN, and drops it when the socket is
            // closed with bytes of the client unread, which may have come since it was asked last:
            // so the FIN goes first. A connection that is gone has nothing to be told.
            if front.stream.holds_back() {
                poll_fn(|cx| Poll::Ready(front.stream.poll_shutdown_write(cx).is_ready())).await;
            }
            Parting::Close
        }
        End::Linger => Parting::Linger,
        End::Abort => Parting::Reset,
    }
}

fn reset(client: Client) {
    client.into_front().into_iter().for_each(Front::reset);
}

async fn linger(client: Client) {
    if let Some(front) = client.into_front() {
        front.linger().await;
    }
}
