//! One request of HTTP/1.1 and its answer on an open connection. Owns what a slot knows of its
//! client: chance, cookies, ids, its member. Called by `client`, `pipeline` and `h2`.

use std::cell::Cell;
use std::io::Write;

use weir_core::rt::SendBuf;
use weir_core::time::clock::{Mono, mono};
use weir_core::tls::Stream;

use crate::client::{Failure, Open, both};
use crate::h2::hpack;
use crate::jar::Jar;
use crate::limits;
use crate::noted::Name;
use crate::record::Answer;
use crate::response::ResponseReader;
use crate::search::Needle;
use crate::seed::Rng;
use crate::sending::{send, send_copy};
use crate::template::{CLOSE, Request};
use crate::wire::Wire;

/// What a slot says and hears. One per slot; outlives its connections.
pub(crate) struct Talk {
    pub(crate) reader: ResponseReader,
    pub(crate) rng: Rng,
    jar: Jar,
    /// Number of the last id.
    serial: u64,
    /// Who answered last.
    member: Name,
}

/// Bits of an id's number that count the requests of a slot.
const SERIAL_BITS: u32 = 28;

impl Talk {
    pub(crate) fn new(wire: &Wire, slot: usize, rng: Rng) -> Talk {
        let mut reader = ResponseReader::default();
        reader.noted.member_field = wire.member_field.as_str().into();
        reader.noted.wants_cookies = wire.sticky;
        let serial = (slot as u64) << SERIAL_BITS;
        Talk { reader, rng, jar: Jar::default(), serial, member: Name::default() }
    }

    /// Appends a request's head and, if it is small, its body; gives the number of its id.
    fn write(&mut self, out: &mut Vec<u8>, wire: &Wire, request: &Request, last: bool) -> u64 {
        if !wire.sticky && wire.ids.is_none() {
            out.extend_from_slice(if last { &request.last_head } else { &request.head });
            return 0;
        }
        out.extend_from_slice(&request.fields);
        self.jar.write(out);
        let mut id = 0;
        if let Some(nonce) = wire.ids {
            id = self.next_id();
            // Writing into a Vec can't fail.
            let _ = write!(out, "X-Request-ID: {nonce:016x}{id:016x}\r\n");
        }
        out.extend_from_slice(if last { CLOSE } else { b"" });
        out.extend_from_slice(b"\r\n");
        id
    }

    fn next_id(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Appends a request's header block of HTTP/2; gives the number of its id.
    pub(crate) fn write_block(&mut self, out: &mut Vec<u8>, wire: &Wire, request: &Request) -> u64 {
        out.extend_from_slice(&request.block);
        if wire.sticky {
            let cookies = self.jar.value();
            if !cookies.is_empty() {
                hpack::write(out, "cookie", &String::from_utf8_lossy(&cookies));
            }
        }
        let Some(nonce) = wire.ids else { return 0 };
        let id = self.next_id();
        hpack::write(out, "x-request-id", &format!("{nonce:016x}{id:016x}"));
        id
    }

    /// What the answer's fields told, and whether another member answered than before.
    pub(crate) fn hear(&mut self, wire: &Wire, answer: &mut Answer) {
        let noted = &mut self.reader.noted;
        answer.member = noted.member;
        answer.timing = noted.timing;
        if wire.sticky {
            self.jar.take(&noted.cookies);
            answer.moved =
                !self.member.is_empty() && !noted.member.is_empty() && self.member != noted.member;
            if !noted.member.is_empty() {
                self.member = noted.member;
            }
        }
    }
}

/// One request and its answer on `conn`; also says whether the connection can go on. `has_begun` is
/// set with the answer's first byte.
pub(crate) async fn exchange(
    conn: &mut Open,
    wire: &Wire,
    talk: &mut Talk,
    has_begun: &Cell<bool>,
) -> Result<(Answer, bool), Failure> {
    let request = wire.choose(&mut talk.rng);
    let request = request.ok_or_else(|| Failure::closed("there is nothing to send"))?;
    conn.served += 1;
    let last = wire.per_connection.is_some_and(|n| conn.served >= n);
    talk.reader.start(request.is_head);
    let stream = &conn.stream;
    let before = (stream.bytes_sent(), stream.bytes_received());
    let mut head = SendBuf::new();
    let id = talk.write(&mut head, wire, request, last);
    let needle = request.expect.contains.as_ref();
    let reader = &mut talk.reader;
    let (times, handed) = if head.len() + request.body.len() <= limits::SMALL_REQUEST {
        head.extend_from_slice(&request.body);
        send(stream, head).await.map_err(Failure::reset)?;
        let handed = mono();
        (read(stream, reader, needle, has_begun).await?, Some(handed))
    } else {
        let sending = async {
            send(stream, head).await?;
            send_copy(stream, &request.body).await
        };
        both(sending, read(stream, reader, needle, has_begun)).await?
    };
    let known = reader.head().unwrap_or_default();
    let mut answer = Answer {
        status: known.status,
        fault: request.expect.fault(known.status, reader.has_found()),
        handed: handed.unwrap_or(times.0),
        first_byte: times.0,
        done: times.1,
        sent: stream.bytes_sent().saturating_sub(before.0),
        received: stream.bytes_received().saturating_sub(before.1),
        id,
        ..Answer::default()
    };
    talk.hear(wire, &mut answer);
    Ok((answer, known.keep_alive && !last && handed.is_some()))
}

/// Reads one answer; gives the times of its first and last byte.
async fn read(
    stream: &Stream,
    reader: &mut ResponseReader,
    needle: Option<&Needle>,
    has_begun: &Cell<bool>,
) -> Result<(Mono, Mono), Failure> {
    let mut first = None;
    let mut bulk = false;
    loop {
        let lease = match stream.recv().await {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                reader.end().map_err(Failure::closed)?;
                let now = mono();
                return Ok((first.unwrap_or(now), now));
            }
            Err(error) => return Err(Failure::reset(error)),
        };
        has_begun.set(true);
        let fed = reader.feed_seeking(&lease, needle).map_err(Failure::malformed)?;
        if fed.used < lease.len() {
            return Err(Failure::malformed("bytes follow the end of the answer"));
        }
        if fed.done {
            let now = mono();
            if bulk {
                stream.expect_bulk(false);
            }
            return Ok((first.unwrap_or(now), now));
        }
        if first.is_none() {
            first = Some(mono());
            let long = |length: u64| length >= limits::BULK_BODY;
            bulk = reader.head().is_some_and(|head| head.length.is_none_or(long));
            if bulk {
                stream.expect_bulk(true);
            }
        }
    }
}
