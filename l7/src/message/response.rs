//! Pure: response heads: parsing, all checks that lead to a 502, and writing for the client.

use std::mem::MaybeUninit;

use httparse::{Header, Status};
use weir_core::limits::{MAX_HEAD_BYTES, MAX_HEADERS};

use super::fields::{Coding, Common, Field, Kind, collect, is_named, upgrades};
use super::write::Lines;
use super::{Flaw, Key, cookies};
use crate::body::Framing;
use crate::h2::block::BlockWriter;
use crate::limits::USUAL_HEADERS;

/// What a member says to a key of WebSocket.
const ACCEPT: &[u8] = b"Sec-WebSocket-Accept";

/// What is remembered of a response while its exchange lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseFacts {
    /// Status code, 100 to 999.
    pub(crate) status: u16,
    /// The member keeps its connection.
    pub(crate) persistent: bool,
    /// How the body is delimited.
    pub(crate) framing: Framing,
}

/// A response head, borrowed from the received bytes.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    raw: &'a [u8],
    fields: &'a [Field],
    http11: bool,
    names_fields: bool,
    /// Connection has the option "upgrade".
    upgrade: bool,
    /// It has a Date.
    pub(crate) has_date: bool,
    /// What outlives it.
    pub(crate) facts: ResponseFacts,
}

/// What the client is told about its connection and the body's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientSide {
    /// The client speaks HTTP/1.1.
    pub(crate) http11: bool,
    /// Its connection stays open after this answer.
    pub(crate) persistent: bool,
    /// The body goes out chunked.
    pub(crate) chunked: bool,
    /// It becomes a tunnel: Upgrade goes on.
    pub(crate) upgrade: bool,
}

impl<'a> Response<'a> {
    /// Parses the head at the start of `raw`; `None` while it is incomplete. `to_head` says that
    /// the request was HEAD. Errors: whatever makes a response malformed (R2.3-502c).
    pub(crate) fn parse(
        raw: &'a [u8],
        to_head: bool,
        scratch: &'a mut Vec<Field>,
    ) -> Result<Option<Response<'a>>, Flaw> {
        let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; USUAL_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, raw, &mut headers) {
            Ok(Status::Complete(len)) => {
                Response::check(raw, len, &response, to_head, scratch).map(Some)
            }
            Ok(Status::Partial) => incomplete(raw),
            Err(httparse::Error::TooManyHeaders) => parse_long(raw, to_head, scratch),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of the head.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// The value that it sets the cookie called `name` to.
    pub(crate) fn sets_cookie(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (raw, fields) = (self.raw, self.fields);
        let named = |field: &&Field| field.name.get(raw).eq_ignore_ascii_case(b"set-cookie");
        (fields.iter().filter(named))
            .find_map(|field| cookies::set_value(field.value.get(raw), name))
    }

    /// A 101 that switches to `protocol` and to nothing else (RFC 9110, 7.8).
    pub(crate) fn switches_to(&self, protocol: &[u8]) -> bool {
        let mut named = upgrades(self.raw, self.fields);
        self.facts.status == 101
            && self.http11
            && self.upgrade
            && named.next().is_some_and(|name| name.eq_ignore_ascii_case(protocol))
            && named.next().is_none()
    }

    /// Whether it accepts this key of WebSocket.
    pub(crate) fn accepts(&self, key: &Key) -> bool {
        let accept = |field: &&Field| field.name.get(self.raw).eq_ignore_ascii_case(ACCEPT);
        let mut found = self.fields.iter().filter(accept);
        let good = found.next().is_some_and(|field| key.is_accepted_by(field.value.get(self.raw)));
        good && found.next().is_none()
    }

    fn check(
        raw: &'a [u8],
        len: usize,
        found: &httparse::Response<'_, 'a>,
        to_head: bool,
        fields: &'a mut Vec<Field>,
    ) -> Result<Response<'a>, Flaw> {
        let raw = raw.get(..len).unwrap_or_default();
        let status = found.code.unwrap_or_default();
        // Empty lines in front, which httparse skips, are not allowed here.
        if len > MAX_HEAD_BYTES || status < 100 || !raw.starts_with(b"HTTP/1.") {
            return Err(Flaw::Syntax);
        }
        let http11 = found.version == Some(1);
        let common = collect(raw, found.headers, fields)?;
        let framing = framing(&common, http11, status, to_head)?;
        let persistent = !common.close && (http11 || common.keep_alive);
        Ok(Response {
            raw,
            fields,
            http11,
            names_fields: common.named,
            upgrade: common.upgrade,
            has_date: common.date,
            facts: ResponseFacts { status, persistent, framing },
        })
    }

    /// Appends the head for the client: HTTP/1.1, hop-by-hop fields removed, framing and
    /// persistence as `side` says.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn write(&self, out: &mut Vec<u8>, side: ClientSide) {
        self.write_with(out, side, |_| {});
    }

    /// The same with the field lines that `more` appends.
    pub(crate) fn write_with(
        &self,
        out: &mut Vec<u8>,
        side: ClientSide,
        more: impl FnOnce(&mut Vec<u8>),
    ) {
        let raw = self.raw;
        out.reserve(raw.len() + 128);
        let start = self.write_status_line(out);
        let mut lines = Lines::new(raw, out, start);
        for field in self.fields {
            // Beside chunked a length is ambiguous.
            if self.passes(field) && !(side.chunked && field.kind == Kind::Length)
                || side.upgrade && field.kind == Kind::Upgrade
            {
                lines.forward(field);
            }
        }
        let out = lines.finish();
        if side.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if side.upgrade {
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        } else if self.facts.status >= 200 {
            if !side.persistent {
                out.extend_from_slice(b"Connection: close\r\n");
            } else if !side.http11 {
                out.extend_from_slice(b"Connection: keep-alive\r\n");
            }
        }
        more(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Whether a field goes on to the client, whatever it speaks.
    #[inline]
    fn passes(&self, field: &Field) -> bool {
        match field.kind {
            // What is inserted into requests means nothing here: the member's own goes through.
            Kind::Pass | Kind::Host | Kind::Expect | Kind::ForwardedFor | Kind::Inserted(_) => {
                !self.names_fields || !is_named(self.raw, self.fields, field.name.get(self.raw))
            }
            // 1xx and 204 may not carry a length (RFC 9110, 8.6).
            Kind::Length => self.facts.status >= 200 && self.facts.status != 204,
            _ => false,
        }
    }

    /// Writes the head for a client of HTTP/2.
    pub(crate) fn write_block(&self, block: &mut BlockWriter<'_>) {
        let switched = self.facts.status == 101;
        // On a stream that has become a tunnel there is nothing else to say (RFC 8441, 5).
        block.status(if switched { 200 } else { self.facts.status });
        for field in self.fields.iter().filter(|field| self.passes(field)) {
            let name = field.name.get(self.raw);
            if !switched || !name.eq_ignore_ascii_case(ACCEPT) {
                block.field(name, field.value.get(self.raw));
            }
        }
    }

    /// Writes the status line, unless it stands in the raw head as it would be written; returns
    /// how much of the raw head may be copied then.
    fn write_status_line(&self, out: &mut Vec<u8>) -> usize {
        let end = self.raw.iter().position(|&b| b == b'\r').unwrap_or_default();
        // "HTTP/1.1 200" are twelve bytes; the space behind them is part of the grammar.
        let reason = self.raw.get(12..end).unwrap_or_default();
        if self.http11 && !reason.is_empty() {
            return end + 2;
        }
        out.extend_from_slice(b"HTTP/1.1");
        out.extend_from_slice(self.raw.get(8..12).unwrap_or_default());
        out.extend_from_slice(if reason.is_empty() { b" " } else { reason });
        out.extend_from_slice(b"\r\n");
        0
    }
}

#[cold]
fn incomplete<'a>(raw: &[u8]) -> Result<Option<Response<'a>>, Flaw> {
    if raw.len() > MAX_HEAD_BYTES { Err(Flaw::Syntax) } else { Ok(None) }
}

/// The rare head with more than `USUAL_HEADERS` fields.
#[cold]
#[inline(never)]
fn parse_long<'a>(
    raw: &'a [u8],
    to_head: bool,
    fields: &'a mut Vec<Field>,
) -> Result<Option<Response<'a>>, Flaw> {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, raw, &mut headers) {
        Ok(Status::Complete(len)) => {
            Response::check(raw, len, &response, to_head, fields).map(Some)
        }
        Ok(Status::Partial) => incomplete(raw),
        Err(error) => Err(error.into()),
    }
}

/// How a response's body is delimited (RFC 9112, 6.3). Both a length and a coding, a coding that
/// nobody asked for, or one from HTTP/1.0 is malformed.
fn framing(common: &Common, http11: bool, status: u16, to_head: bool) -> Result<Framing, Flaw> {
    let framing = match (common.coding, common.length) {
        (Coding::Absent, Some(length)) => Framing::Length(length),
        (Coding::Absent | Coding::Identity, None) => Framing::UntilClose,
        (Coding::Chunked, None) if http11 => Framing::Chunked,
        _ => return Err(Flaw::Syntax),
    };
    let bodiless = to_head || status < 200 || status == 204 || status == 304;
    Ok(if bodiless { Framing::None } else { framing })
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
