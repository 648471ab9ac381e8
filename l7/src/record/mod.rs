//! Pure: one line of the access log. Owns the two forms ([`elb`], [`json`]), the escaping of what
//! clients send, and time as text. Knows no clock and no socket: the exchange hands in what it has
//! noted, and writes the bytes to the listener's log. Interface section 3, R13.1-4.

mod elb;
mod escape;
mod json;
mod stamp;

#[cfg(test)]
mod tests;

use std::time::Duration;

use weir_core::limits::{LOG_LINE, MAX_ATTEMPTS};
use weir_core::model::AccessLogFormat;
use weir_core::obs::Sticky;
use weir_core::table::{Pool, SiteLog};
use weir_core::tls::Facts;

use crate::exchange::AttemptRecord as Attempt;

pub(crate) use stamp::Stamp;

/// Bytes that the target of a request may take up in a line, escapes included; it is cut there.
const TARGET_BYTES: usize = 16_384;
/// The same for each other text that a client sends.
const TEXT_BYTES: usize = 4_096;
/// The same for short ones: method, host, protocol, request id.
const WORD_BYTES: usize = 512;

// Three texts, four words, ten members and three objects with names of 255 characters, the rest.
const _: () = assert!(
    TARGET_BYTES + 3 * TEXT_BYTES + 4 * WORD_BYTES + (MAX_ATTEMPTS + 3) * 1_024 * 2 + 4_096
        <= LOG_LINE
);

/// What a request's first line and Host say, as far as they could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a [u8],
    /// Empty = none was sent.
    pub(crate) host: &'a [u8],
    /// The target as it was sent.
    pub(crate) target: &'a [u8],
    pub(crate) protocol: &'a [u8],
}

/// Everything that a line says. Empty texts are told as "none".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// When it ended, since 1970.
    pub(crate) wall: Duration,
    /// The same in ISO 8601.
    pub(crate) stamp: &'a [u8],
    pub(crate) log: &'a SiteLog,
    /// The client's address as text.
    pub(crate) client: &'a [u8],
    pub(crate) port: u16,
    /// 499 when the client left before there was an answer (C26).
    pub(crate) status: u16,
    /// `None` = what came was no request.
    pub(crate) asked: Option<Asked<'a>>,
    pub(crate) user_agent: &'a [u8],
    pub(crate) referer: &'a [u8],
    pub(crate) forwarded_for: &'a [u8],
    /// X-Request-ID as the member saw it.
    pub(crate) request_id: &'a [u8],
    /// Bytes from the client, head and body.
    pub(crate) request_length: u64,
    /// Bytes of the head among them.
    pub(crate) header_length: u64,
    /// Bytes to the client, heads and body.
    pub(crate) bytes_sent: u64,
    /// The same without heads.
    pub(crate) body_bytes_sent: u64,
    /// From the request's first byte until the answer's last one was handed over (R4.1-3).
    pub(crate) request_time: Duration,
    /// `request_time` without the waits for the client and for members.
    pub(crate) proxy_time: Duration,
    pub(crate) attempts: &'a [Attempt],
    pub(crate) pool: Option<&'a Pool>,
    /// Of the client's connection, in microseconds (R14.3-4).
    pub(crate) rtt_us: Option<u32>,
    /// What the handshake of the client's connection came to; `None` = it is plain.
    pub(crate) tls: Option<&'a Facts>,
    /// What was done with the request; empty = it was refused.
    pub(crate) action: &'static str,
    /// Why Weir answered itself, or cut the answer; empty = it did not.
    pub(crate) reason: &'static str,
    /// How stickiness chose the member (R11.2-4).
    pub(crate) sticky: Sticky,
    /// Number of the request on its connection, from 1.
    pub(crate) connection_requests: u64,
}

impl Record<'_> {
    /// What the client spoke, which may be something else than the listener does.
    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Appends the line, with its line break, in the form that the log asks for.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self.log.format {
            AccessLogFormat::Elb => elb::write(self, out),
            AccessLogFormat::Json => json::write(self, out),
        }
        out.push(b'\n');
    }
}
