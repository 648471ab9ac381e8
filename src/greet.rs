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

/// What a header says.
#[derive(Debug)]
pub struct Greeting {
    /// The client that it names, or the peer when it names none.
    pub client: SocketAddr,
    /// Its further values (TLVs), to be passed on.
    pub values: Box<[u8]>,
}

/// Reads the header of `peer`. What follows
/// the header stays in the stream. Counts what it refuses; the connection is then to be reset.
///
/// # Errors
/// No header, a malformed one, none in time, or a client that may not connect.
pub async fn greet(
    ticket: &mut Ticket,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Result<Greeting, Refusal> {
    let limit = Duration::from_millis(PROXY_HEADER_MS);
    let read = rt::timeout(limit, header(stream)).await;
    let (source, values) = match read {
        Ok(Some(said)) => said,
        Ok(None) => return Err(ticket.refuse(Refusal::ProxyHeader)),
        Err(rt::Elapsed) => return Err(ticket.refuse(Refusal::ProxyTimeout)),
    };
    let client = source.unwrap_or(peer);
    ticket.identify(client.ip())?;
    Ok(Greeting { client, values })
}

/// The source and the values of a header, if there is a good one.
async fn header(stream: &TcpStream) -> Option<(Option<SocketAddr>, Box<[u8]>)> {
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
                let values = match before.as_slice() {
                    [] => proxy::values(lease.get(..header.len)?),
                    _ => proxy::values([&before, &lease[..]].concat().get(..header.len)?),
                };
                // It was incomplete before, so that it ends in this lease.
                lease.advance(header.len.saturating_sub(before.len()));
                stream.unread(lease);
                return Some((header.source, values.into()));
            }
            None => before.extend_from_slice(&lease),
        }
    }
}
