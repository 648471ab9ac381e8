//! The beginning of a connection from a trusted proxy: its PROXY header, read for whatever protocol
//! follows. Owns the waiting and its limit; `core::proxy` knows the header, `core::table` who may
//! send one. Called by `shard` for listeners that expect one.

use std::net::SocketAddr;
use std::time::Duration;

use weir_core::acl::Refusal;
use weir_core::limits::PROXY_HEADER_MS;
use weir_core::proxy;
use weir_core::rt::{self, TcpStream};
use weir_core::table::Ticket;

/// Reads the header; returns the client that it names, or `peer` when it names none. What follows
/// the header stays in the stream. Counts what it refuses; the connection is then to be reset.
///
/// # Errors
/// No header, a malformed one, none in time, or a client that may not connect.
pub async fn greet(
    ticket: &mut Ticket,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Result<SocketAddr, Refusal> {
    let limit = Duration::from_millis(PROXY_HEADER_MS);
    let read = rt::timeout(limit, header(stream)).await;
    let client = match read {
        Ok(Some(source)) => source.unwrap_or(peer),
        Ok(None) => return Err(ticket.refuse(Refusal::ProxyHeader)),
        Err(rt::Elapsed) => return Err(ticket.refuse(Refusal::ProxyTimeout)),
    };
    ticket.identify(client.ip())?;
    Ok(client)
}

/// The source that a header names, if there is a good header.
async fn header(stream: &TcpStream) -> Option<Option<SocketAddr>> {
    // Bytes of a header that came in pieces; at most `MAX_PROXY_HEADER` and a lease.
    let mut before = Vec::new();
    loop {
        let mut lease = stream.recv().await.ok()??;
        let parsed = match before.as_slice() {
            [] => proxy::parse(&lease),
            _ => proxy::parse(&[&before, &lease[..]].concat()),
        };
        match parsed.ok()? {
            Some(header) => {
                // It was incomplete before, so that it ends in this lease.
                lease.advance(header.len.saturating_sub(before.len()));
                stream.unread(lease);
                return Some(header.source);
            }
            None => before.extend_from_slice(&lease),
        }
    }
}
