//! Pure: request and response heads. Owns finding the pieces (httparse), checking again what
//! httparse lets pass, and writing a head anew from the pieces; what goes on is never the raw
//! bytes. Knows no socket. A parsed head borrows the received bytes and is dropped before any wait;
//! what must live on stands in the small `RequestFacts` and `ResponseFacts`. Called by `exchange`.

mod address;
pub(crate) mod cookies;
mod date;
mod fields;
mod insert;
mod phrase;
mod request;
mod response;
mod target;
#[cfg(test)]
mod upgrade_tests;
mod websocket;
mod write;

pub(crate) use address::AddressText;
#[cfg(feature = "fuzz")]
pub(crate) use cookies::{set_value as set_cookie_value, values as cookie_values};
pub(crate) use date::{DAY, HttpDate, calendar, put_digits};
pub(crate) use insert::{Sides, Via};
pub(crate) use phrase::phrase;
pub(crate) use request::{Request, RequestFacts};
pub(crate) use response::{ClientSide, Response, ResponseFacts};
pub(crate) use websocket::Key;
pub(crate) use write::{append_decimal, append_hex};

pub(crate) use fields::{Field, Kind, decimal, trailer_fields};

/// A part of a head, as offsets into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Span {
        // A head is bounded by a limit of 1 MiB at most and a lease behind it, so offsets fit.
        Span { start: start as u32, end: end as u32 }
    }

    /// Where `part` stands in `raw`, of which it must be a slice.
    fn of(raw: &[u8], part: &[u8]) -> Span {
        let start = (part.as_ptr() as usize).wrapping_sub(raw.as_ptr() as usize);
        debug_assert!(start + part.len() <= raw.len());
        Span::new(start, start + part.len())
    }

    fn start(self) -> usize {
        self.start as usize
    }

    fn end(self) -> usize {
        self.end as usize
    }

    pub(crate) fn get(self, raw: &[u8]) -> &[u8] {
        raw.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// What is wrong with a head, whichever side sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Not the grammar.
    Syntax,
    /// A bare LF or CR.
    LineEnd,
    /// A version other than 1.0 and 1.1.
    Version,
    /// Too many fields, or too many connection options.
    TooMany,
    /// Content-Length is repeated or no number.
    Length,
}

impl From<httparse::Error> for Flaw {
    fn from(error: httparse::Error) -> Flaw {
        match error {
            httparse::Error::NewLine => Flaw::LineEnd,
            httparse::Error::Version => Flaw::Version,
            httparse::Error::TooManyHeaders => Flaw::TooMany,
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::Status
            | httparse::Error::Token => Flaw::Syntax,
        }
    }
}

/// Names and values of field lines that were written here.
pub(crate) fn own_lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
    lines.filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 2..)?))
    })
}

/// Bytes of a head that is followed by its body, the empty line included.
pub(crate) fn head_len(message: &[u8]) -> usize {
    message.windows(4).position(|end| end == b"\r\n\r\n").map_or(message.len(), |at| at + 4)
}

/// Bytes of empty lines (CR LF) in front of a request, which are skipped (RFC 9112, 2.2).
pub(crate) fn empty_lines(raw: &[u8]) -> usize {
    raw.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2
}

/// The elements of a comma-separated list, trimmed; empty ones are left out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}
