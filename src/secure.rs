//! The beginning of a connection to an HTTPS listener: its handshake, or what came in its place.
//! Owns the counting; `core::tls` shakes hands. Called by `shard`, after a PROXY header if one is
//! expected.

use std::net::SocketAddr;

use weir_core::rt::TcpStream;
use weir_core::table::Ticket;
use weir_core::tls::{self, Failed, Failure, Stream};

/// Shakes hands with the client of `ticket`. Plain HTTP comes back as a plain stream, whose request
/// the HTTP service refuses in words. `None` when the connection is over.
pub async fn secure(ticket: &Ticket, tcp: TcpStream, client: SocketAddr) -> Option<Stream> {
    let site = ticket.site();
    let Some(server) = site.tls() else {
        // Nothing of a listener for TLS may pass in clear text.
        tcp.reset();
        return None;
    };
    let counters = &site.counters.handshakes;
    match tls::accept(tcp, &server).await {
        Ok(stream) => {
            stream.tls().into_iter().for_each(|facts| counters.count(facts));
            Some(stream)
        }
        Err(Failed::PlainHttp(tcp)) => {
            counters.count_failure(Failure::PlainHttp);
            Some(tcp.into())
        }
        Err(Failed::Closed(failure)) => {
            let reason = failure.reason();
            tracing::debug!(listener = %site.name(), %client, reason, "no handshake");
            counters.count_failure(failure);
            None
        }
    }
}
