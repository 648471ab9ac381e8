//! After a 101: bytes both ways until both sides have ended. Owns a tunnel's counting and which
//! limit holds for it; the moving itself is `core::net::relay`. Everything of HTTP is over: no
//! status can be sent any more, and neither connection is used again.

use std::sync::Arc;
use std::task::{Context, Poll};

use weir_core::net::relay::{self, Moved, Patience, Relay, Streams};
use weir_core::obs::ListenerCounters;
use weir_core::table::{Member, Site};

use super::{End, Exchange, Phase, Step};
use crate::client::Client;
use crate::error::Error;
use crate::upstream::Connection;

/// A tunnel. Boxed by the exchange, since most requests never become one. While it is quiet it
/// holds no buffer.
#[derive(Debug)]
pub(super) struct Tunnel {
    relay: Relay,
    /// What the counters have been told.
    counted: Moved,
    /// Counts it as active as long as it lives.
    counters: Arc<ListenerCounters>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.counters.active_tunnels.fall();
    }
}

impl Exchange {
    /// The member has switched: what either side sent already goes first, the 101 in front of all
    /// that is for the client.
    pub(super) fn begin_tunnel(&mut self, client: &Client) -> Phase {
        let for_member = self.rest.take().map(Into::into);
        let for_client = self.download.out.take();
        let counters = Arc::clone(&client.site().counters);
        counters.active_tunnels.rise();
        let relay = Relay::new(for_member, for_client);
        self.tunnel = Some(Box::new(Tunnel { relay, counted: Moved::default(), counters }));
        // It may live for days: what only requests need goes back.
        self.replay = Vec::new();
        Phase::Tunnel
    }

    pub(super) fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
    ) -> Poll<Result<Step, Error>> {
        let connection = self.attempt.as_ref().and_then(|attempt| attempt.connection.as_ref());
        let (Some(tunnel), Some(connection)) = (&mut self.tunnel, connection) else {
            return Poll::Ready(Ok(Step::End(End::Abort)));
        };
        let Some(member) = connection.stream.own() else {
            return Poll::Ready(Ok(Step::End(End::Abort)));
        };
        let patience = patience(client.site(), &connection.member);
        let polled = match client.lane() {
            Some(lane) => {
                let streams = Streams { client: lane, member };
                tunnel.relay.poll(cx, streams, &client.timer, patience)
            }
            None => {
                let streams = Streams { client: &client.front().stream, member };
                tunnel.relay.poll(cx, streams, &client.timer, patience)
            }
        };
        tunnel.count(client, connection);
        let Poll::Ready(end) = polled else { return Poll::Pending };
        tracing::debug!(?end, moved = ?tunnel.counted, "tunnel ended");
        let broken = matches!(end, relay::End::Broken(..));
        if broken {
            // Whoever did not break it must not take the cut for an end.
            member.reset_on_close();
        }
        // Here the request is over, status 101.
        if let Some(attempt) = &mut self.attempt {
            attempt.end(None);
        }
        Poll::Ready(Ok(Step::End(if broken { End::Abort } else { End::Close })))
    }
}

impl Exchange {
    /// A tunnel's client has broken off: the member must not take that for an end.
    pub(super) fn break_tunnel(&self) {
        let member = self.upstream().and_then(|connection| connection.stream.own());
        if self.phase == Phase::Tunnel
            && let Some(member) = member
        {
            member.reset_on_close();
        }
    }
}

impl Tunnel {
    fn count(&mut self, client: &Client, connection: &Connection) {
        let (now, before) = (self.relay.moved(), self.counted);
        let member = &connection.member.counters;
        client.count_received(now.from_client - before.from_client);
        client.count_sent(now.to_client - before.to_client);
        member.bytes_received.add(now.from_member - before.from_member);
        member.bytes_sent.add(now.to_member - before.to_member);
        self.counted = now;
    }
}

/// How long a tunnel to `member` may be quiet (R6.6-2): the listener's limit, but no longer than
/// member_timeout once the member is to get nothing new (C12). A change of either is noticed within
/// member_timeout.
fn patience(site: &Site, member: &Member) -> Patience {
    let (limit, look) = (site.tunnel_timeout(), site.member_timeout());
    Patience { limit: if member.is_leaving() { limit.min(look) } else { limit }, look }
}
