//! What is done on a connection of bytes, plain or inside TLS: echo, upload, download, or nothing
//! at all. Called by `client`.

use std::future::poll_fn;

use weir_core::rt;
use weir_core::time::clock::{Mono, mono};
use weir_core::tls::Stream;

use crate::client::{Failure, Open, both};
use crate::limits;
use crate::pattern;
use crate::plan::Exchange;
use crate::record::{Answer, ErrorClass};
use crate::sending::send_pattern;
use crate::wire::Wire;

/// One exchange on `conn`; also says whether the connection can go on.
pub(crate) async fn exchange(conn: &Open, wire: &Wire) -> Result<(Answer, bool), Failure> {
    let (stream, size) = (&conn.stream, wire.size);
    let mut answer = Answer::default();
    match wire.exchange {
        Exchange::Connect => {
            let now = mono();
            (answer.handed, answer.first_byte, answer.done) = (now, now, now);
            if wire.resume && stream.tls().is_some() {
                // Who has had no ticket by then is not waited for.
                let _ = rt::timeout(limits::TICKET_LIMIT, take_tickets(stream)).await;
            }
        }
        Exchange::Echo => {
            let (read, handed) = both(send_pattern(stream, size), read(stream, size, true)).await?;
            answer = Answer { sent: size, received: size, ..read };
            answer.handed = handed.unwrap_or(answer.first_byte);
        }
        Exchange::Upload => {
            send_pattern(stream, size).await.map_err(Failure::reset)?;
            stream.flush().await.map_err(Failure::reset)?;
            let now = mono();
            (answer.handed, answer.first_byte, answer.done) = (now, now, now);
            answer.sent = size;
        }
        Exchange::Download => {
            let now = mono();
            answer = Answer { received: size, handed: now, ..read(stream, size, false).await? };
        }
    }
    Ok((answer, wire.per_connection.is_none_or(|n| conn.served + 1 < n)))
}

/// Ends the connection in order: before the target's end its session tickets have come, without
/// which the next handshake would be a full one.
async fn take_tickets(stream: &Stream) {
    if poll_fn(|cx| stream.poll_shutdown_write(cx)).await.is_ok() {
        while let Ok(Some(_)) = stream.recv().await {}
    }
}

/// Reads `size` bytes; `same`: they must be those that were sent.
async fn read(stream: &Stream, size: u64, same: bool) -> Result<Answer, Failure> {
    let (mut at, mut first): (u64, Option<Mono>) = (0, None);
    let mut good = true;
    stream.expect_bulk(size >= limits::BULK_BODY);
    loop {
        let mut lease = match stream.recv().await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Err(Failure::closed("closed before all bytes had come")),
            Err(error) => return Err(Failure::reset(error)),
        };
        let now = mono();
        let take = usize::try_from(size - at).unwrap_or(usize::MAX).min(lease.len());
        good &= !same || pattern::stands_at(at, &lease[..take]);
        at += take as u64;
        let first_byte = *first.get_or_insert(now);
        if at < size {
            continue;
        }
        lease.advance(take);
        if same && !lease.is_empty() {
            return Err(Failure::malformed("more bytes came back than were sent"));
        }
        stream.unread(lease);
        let fault = (!good).then_some(ErrorClass::Check);
        return Ok(Answer { first_byte, done: now, fault, ..Answer::default() });
    }
}
