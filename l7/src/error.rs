//! Everything that can go wrong with a request, and what follows from it: one exhaustive table of
//! side, status (requirements 2.3, 18), retryability and reason. Owns no sockets. Raised by all
//! modules, turned into an answer by `exchange`.

use std::fmt;
use std::io::ErrorKind;

use weir_core::rt::Shortage;
use weir_core::tls::Failure;

use crate::body::BadBody;

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client, or the way to it.
    Client,
    /// The member, or the way to it.
    Member,
    /// The configuration, or Weir.
    Internal,
}

/// Whether the same request may be sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail again, or nobody wants the answer.
    Never,
    /// As long as no byte of an answer has come, if sending it twice does no harm (C14): its method
    /// is idempotent, none of its bytes was handed to the kernel, or `retry_non_idempotent`.
    Unanswered,
    /// The same, at another member, unless its session is bound to this one (R6.7-12).
    Unbound,
    /// Nothing of it was sent (C13).
    Always,
}

/// Why a request did not get the member's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The head is not valid HTTP.
    Syntax,
    /// A line of the head ends in a bare LF, or holds a bare CR.
    LineEnd,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A request target that has none of the allowed forms, or bytes that no target may hold.
    Target,
    /// Host is missing, repeated or malformed.
    Host,
    /// Content-Length is repeated or is no number.
    Length,
    /// Content-Length beside Transfer-Encoding, or Transfer-Encoding from HTTP/1.0.
    LengthAndCoding,
    /// Transfer-Encoding that is empty, or lists several codings.
    Coding,
    /// Expect asks for something else than 100-continue.
    Expectation,
    /// The head is larger than the listener's max_header_bytes.
    HeadTooLarge,
    /// More fields than the listener's max_headers, or too many connection options.
    TooManyFields,
    /// Malformed chunk framing in the request's body.
    Chunk,
    /// The client ended its side within the body.
    BodyCut,
    /// The target is longer than the listener's max_uri_bytes.
    UriTooLong,
    /// The body is larger than the listener's max_body_bytes: known from Content-Length, or found
    /// while chunks come.
    BodyTooLarge,
    /// A transfer coding other than chunked and identity.
    UnknownCoding,
    /// CONNECT: Weir is no tunnel.
    Connect,
    /// The head stayed incomplete for client_timeout.
    HeadTimeout,
    /// Plain HTTP came to an HTTPS listener.
    PlainHttp,
    /// A gap in the body lasted client_timeout.
    BodyTimeout,
    /// The client's connection broke.
    ClientGone,
    /// The client took nothing of its answer for client_timeout.
    ClientStalled,
    /// The listener has no pool.
    NoPool,
    /// The pool has no members.
    NoMember,
    /// No member of the pool may be used.
    NoUsableMember,
    /// No connection to the member: refused, reset, unreachable.
    ConnectFailed(ErrorKind),
    /// No connection to the member, since this host lacks ports, descriptors or memory for it.
    Shortage(Shortage),
    /// No connection to the member within connect_timeout.
    ConnectTimeout,
    /// The handshake of TLS with the member failed.
    MemberTls(Failure),
    /// The member's connection broke before its answer was complete.
    MemberReset(ErrorKind),
    /// The member did not look at the request, and says so (HTTP/2).
    MemberRefused,
    /// The member's connection ended before it looked at the request (HTTP/2).
    MemberLeft,
    /// The member closed before its answer was complete.
    MemberClosed,
    /// The member's answer is not valid HTTP.
    BadAnswer,
    /// The member was silent for member_timeout.
    AnswerTimeout,
}

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Who is to blame.
    pub(crate) side: Side,
    /// Client-facing status; 499 is only counted, never sent (C26).
    pub(crate) status: u16,
    /// Whether to try once more.
    pub(crate) retry: Retry,
    /// For the log and the error page; a fixed text, free of client bytes.
    pub(crate) reason: &'static str,
}

impl Error {
    /// What broke a member's connection.
    pub(crate) fn of_member(kind: ErrorKind) -> Error {
        match kind {
            ErrorKind::ConnectionRefused => Error::MemberRefused,
            ErrorKind::NotConnected => Error::MemberLeft,
            ErrorKind::InvalidData => Error::BadAnswer,
            kind => Error::MemberReset(kind),
        }
    }

    /// Does it say something about the member's health? Not what this host lacked (descriptors,
    /// ports, memory), nor that a member of HTTP/2 ended connections in the way that it may.
    pub(crate) fn is_about_member(self) -> bool {
        match self {
            Error::ConnectFailed(kind) => weir_core::net::of_member(kind),
            Error::MemberRefused | Error::MemberLeft => false,
            error => error.verdict().side == Side::Member,
        }
    }

    /// The table 2-1 of the requirements.
    pub(crate) const fn verdict(self) -> Verdict {
        use Retry::{Always, Never, Unanswered, Unbound};
        use Side::{Client, Internal, Member};
        let (side, status, retry, reason) = match self {
            Error::Syntax => (Client, 400, Never, "malformed request head"),
            Error::LineEnd => (Client, 400, Never, "line does not end in CR LF"),
            Error::Version => (Client, 400, Never, "HTTP version is neither 1.0 nor 1.1"),
            Error::Target => (Client, 400, Never, "malformed request target"),
            Error::Host => (Client, 400, Never, "missing, repeated or malformed Host"),
            Error::Length => (Client, 400, Never, "repeated or malformed Content-Length"),
            Error::LengthAndCoding => (Client, 400, Never, "ambiguous body framing"),
            Error::Coding => (Client, 400, Never, "malformed Transfer-Encoding"),
            Error::Expectation => (Client, 400, Never, "unknown expectation"),
            Error::HeadTooLarge => (Client, 400, Never, "request head too large"),
            Error::TooManyFields => (Client, 400, Never, "too many header fields"),
            Error::PlainHttp => (Client, 400, Never, "plain HTTP was sent to an HTTPS port"),
            Error::Chunk => (Client, 400, Never, "malformed chunk in the request body"),
            Error::BodyCut => (Client, 499, Never, "client left within the request body"),
            Error::UriTooLong => (Client, 414, Never, "request target too long"),
            Error::BodyTooLarge => (Client, 413, Never, "request body too large"),
            Error::UnknownCoding => (Client, 501, Never, "unknown transfer coding"),
            Error::Connect => (Client, 501, Never, "CONNECT is not supported"),
            Error::HeadTimeout => (Client, 408, Never, "request head took too long"),
            Error::BodyTimeout => (Client, 408, Never, "request body took too long"),
            Error::ClientGone => (Client, 499, Never, "client closed the connection"),
            Error::ClientStalled => (Client, 499, Never, "client does not read"),
            Error::NoPool => (Internal, 404, Never, "no pool for this request"),
            Error::NoMember => (Internal, 502, Never, "pool has no member"),
            Error::NoUsableMember => (Internal, 503, Never, "no member is usable"),
            Error::ConnectFailed(_) => (Member, 502, Always, "cannot connect to the member"),
            Error::Shortage(what) => (Internal, 502, Always, shortage_reason(what)),
            Error::ConnectTimeout => (Member, 504, Always, "connecting to the member timed out"),
            Error::MemberTls(failure) => (Member, 502, Always, tls_reason(failure)),
            Error::MemberReset(_) => (Member, 502, Unanswered, "member reset the connection"),
            Error::MemberRefused => (Member, 502, Always, "member refused the request unseen"),
            Error::MemberLeft => (Member, 502, Always, "member closed before it saw the request"),
            Error::MemberClosed => (Member, 502, Unanswered, "member closed the connection"),
            Error::BadAnswer => (Member, 502, Never, "malformed answer from the member"),
            Error::AnswerTimeout => (Member, 504, Unbound, "member did not answer in time"),
        };
        Verdict { side, status, retry, reason }
    }
}

/// What this host lacked for a connection to a member, in the log.
const fn shortage_reason(what: Shortage) -> &'static str {
    match what {
        Shortage::Ports => "no port of our own is left towards the member",
        Shortage::Descriptors => "no descriptor is left for a connection to the member",
        Shortage::Memory => "no memory is left for a connection to the member",
    }
}

/// What a failed handshake with a member is called in the log.
const fn tls_reason(failure: Failure) -> &'static str {
    match failure {
        Failure::PlainHttp => "member speaks clear text where TLS is due",
        Failure::Malformed | Failure::Oversize => "member broke the rules of TLS",
        Failure::Version => "member and Weir have no TLS version in common",
        Failure::Cipher => "member and Weir have no TLS cipher in common",
        Failure::Protocol => "member does not speak the pool's protocol inside TLS",
        Failure::CertificateMissing => "member shows no certificate",
        Failure::CertificateExpired => "member's certificate has expired or is not valid yet",
        Failure::CertificateUnknown => "member's certificate is of an unknown issuer",
        Failure::CertificateName => "member's certificate is for another name",
        Failure::CertificateInvalid => "member's certificate does not hold",
        Failure::CertificateWanted => "member wants a certificate, and members are shown none",
        Failure::Refused => "member refused the TLS handshake",
        Failure::Closed | Failure::Silent => "member closed within the TLS handshake",
        Failure::Timeout => "TLS handshake with the member took too long",
        Failure::Internal => "TLS handshake with the member: internal error",
    }
}

impl From<BadBody> for Error {
    /// Of a request's body.
    fn from(bad: BadBody) -> Error {
        match bad {
            BadBody::Malformed => Error::Chunk,
            BadBody::TooLarge => Error::BodyTooLarge,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict().reason)?;
        match self {
            Error::ConnectFailed(kind) | Error::MemberReset(kind) => write!(f, ": {kind}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
