//! Pure: request heads: parsing, all checks that lead to a refusal, and writing for the member.

use std::mem::MaybeUninit;
use std::sync::Arc;

use httparse::{Header, Status};
use weir_core::control::Limits;

use super::fields::{Coding, Common, Field, Kind, collect, is_named, upgrades};
use super::target::{self, Target};
use super::write::{Lines, append_decimal};
use super::{Flaw, Span, Via, cookies};
use crate::body::Framing;
use crate::error::Error;
use crate::h2::head::{Excess, Head};
use crate::limits::USUAL_HEADERS;

/// What is remembered of a request while its exchange lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestFacts {
    /// HTTP/1.1 rather than 1.0; or HTTP/2.
    pub(crate) http11: bool,
    /// HTTP/2: the body is delimited by its stream, whatever `framing` it gets for the member.
    pub(crate) http2: bool,
    /// A call of gRPC, by HTTP/2: what came of it is told by trailers.
    pub(crate) grpc: bool,
    /// The client wants its connection kept.
    pub(crate) persistent: bool,
    /// HEAD: the answer has no body.
    pub(crate) is_head: bool,
    /// Sending it twice does what sending it once does (RFC 9110, 9.2.2).
    pub(crate) idempotent: bool,
    /// It names no host, so that it is sent with its member's (HTTP/1.0).
    pub(crate) names_member: bool,
    /// The client waits for 100 Continue.
    pub(crate) expects_continue: bool,
    /// How the body is delimited.
    pub(crate) framing: Framing,
}

/// A request head, borrowed from the received bytes.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(super) raw: &'a [u8],
    pub(super) fields: &'a [Field],
    method: Span,
    /// The protocol that CONNECT asks for in HTTP/2 (RFC 8441).
    protocol: Option<Span>,
    pub(super) target: Target,
    has_host: bool,
    pub(super) forwarded_for: bool,
    names_fields: bool,
    /// Connection has the option "upgrade".
    upgrade: bool,
    /// What outlives it.
    pub(crate) facts: RequestFacts,
}

impl From<Flaw> for Error {
    fn from(flaw: Flaw) -> Error {
        match flaw {
            Flaw::Syntax => Error::Syntax,
            Flaw::LineEnd => Error::LineEnd,
            Flaw::Version => Error::Version,
            Flaw::TooMany => Error::TooManyFields,
            Flaw::Length => Error::Length,
        }
    }
}

impl<'a> Request<'a> {
    /// Parses the head at the start of `raw` (no empty lines in front); `None` while it is
    /// incomplete. `scratch` holds the fields. Errors: all of R2.3-400a, 400c, 413, 414, 501.
    pub(crate) fn parse(
        raw: &'a [u8],
        limits: &Limits,
        scratch: &'a mut Vec<Field>,
    ) -> Result<Option<Request<'a>>, Error> {
        let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; USUAL_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(raw, &mut headers) {
            Ok(Status::Complete(len)) => {
                Request::check(raw, len, &request, limits, scratch).map(Some)
            }
            Ok(Status::Partial) => incomplete(raw, limits).map(|()| None),
            Err(httparse::Error::TooManyHeaders) => parse_long(raw, limits, scratch),
            Err(error) => Err(refusal(error, raw, limits)),
        }
    }

    /// The request that `head`, decoded from HTTP/2, is; `end`: it has no body. Errors as those of
    /// `parse`; what breaks the rules of HTTP/2 never gets here.
    pub(crate) fn from_head(
        head: &'a Head,
        end: bool,
        limits: &Limits,
    ) -> Result<Request<'a>, Error> {
        let (raw, fields, pseudo) = (head.bytes(), head.fields(), head.pseudo());
        let (method, path) = (pseudo.method.unwrap_or_default(), pseudo.path.unwrap_or_default());
        // A path that is missing had no room.
        let long = pseudo.path.is_none() || path.get(raw).len() > limits.uri;
        match head.excess() {
            Some(Excess::Bytes) if !long => return Err(Error::HeadTooLarge),
            Some(Excess::Fields) => return Err(Error::TooManyFields),
            None if pseudo.protocol.is_none() && method.get(raw) == b"CONNECT" => {
                return Err(Error::Connect);
            }
            _ if long => return Err(Error::UriTooLong),
            _ => {}
        }
        let name = method.get(raw);
        let target = target::parse(name, path.get(raw), path.start())?;
        let rest = survey(raw, fields)?;
        if !rest.host {
            return Err(Error::Host);
        }
        let framing = match head.length() {
            Some(length) if length > limits.body => return Err(Error::BodyTooLarge),
            Some(length) => Framing::Length(length),
            None if end => Framing::None,
            None => Framing::Chunked,
        };
        // What comes on such a stream is no body.
        let framing = if pseudo.protocol.is_some() { Framing::None } else { framing };
        Ok(Request {
            raw,
            fields,
            method,
            protocol: pseudo.protocol,
            target,
            has_host: true,
            forwarded_for: rest.forwarded_for,
            names_fields: false,
            upgrade: false,
            facts: RequestFacts {
                http11: true,
                http2: true,
                grpc: is_grpc(raw, fields),
                persistent: true,
                is_head: name == b"HEAD",
                idempotent: is_idempotent(name),
                names_member: false,
                expects_continue: rest.expects,
                framing,
            },
        })
    }

    /// The target in origin form, in two parts: one that an absolute form lacks, and one as sent.
    pub(crate) fn target(&self) -> [&'a [u8]; 2] {
        [self.target.alone, self.target.path.get(self.raw)]
    }

    /// Names and values of all fields, as sent.
    pub(crate) fn all_fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().map(|field| (field.name.get(self.raw), field.value.get(self.raw)))
    }

    /// Bytes of the head.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// The values of the cookie called `name`, in their order.
    pub(crate) fn cookies<'b>(&'b self, name: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        let (raw, fields) = (self.raw, self.fields);
        let named = |field: &&Field| field.name.get(raw).eq_ignore_ascii_case(b"cookie");
        (fields.iter().filter(named)).flat_map(|field| cookies::values(field.value.get(raw), name))
    }

    /// The method; that of HTTP/1.1 for what CONNECT asks for in HTTP/2.
    pub(crate) fn method(&self) -> &'a [u8] {
        if self.is_connect() { b"GET" } else { self.method.get(self.raw) }
    }

    /// CONNECT of HTTP/2, with the protocol that it is for.
    pub(crate) fn is_connect(&self) -> bool {
        self.protocol.is_some()
    }

    /// Host and port as sent: of an absolute form, else of Host; empty when there is neither.
    pub(crate) fn host(&self) -> &'a [u8] {
        let authority = self.target.authority.map(|authority| authority.get(self.raw));
        let host = || self.fields.iter().find(|field| field.kind == Kind::Host);
        authority.or_else(|| Some(host()?.value.get(self.raw))).unwrap_or_default()
    }

    /// Path and query as sent, the latter without `?` and empty if there is none. The path of
    /// `OPTIONS *` is `*`.
    pub(crate) fn path_and_query(&self) -> (&'a [u8], &'a [u8]) {
        let whole = self.target.path.get(self.raw);
        let mark = whole.iter().position(|&byte| byte == b'?').unwrap_or(whole.len());
        let (path, query) = whole.split_at(mark);
        let path = if path.is_empty() { self.target.alone } else { path };
        (path, query.get(1..).unwrap_or_default())
    }

    /// The values of all fields called `name`, in whatever case.
    pub(crate) fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| field.name.get(self.raw).eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|field| field.value.get(self.raw))
    }

    fn check(
        raw: &'a [u8],
        len: usize,
        found: &httparse::Request<'_, 'a>,
        limits: &Limits,
        fields: &'a mut Vec<Field>,
    ) -> Result<Request<'a>, Error> {
        let method = found.method.unwrap_or_default().as_bytes();
        let path = found.path.unwrap_or_default().as_bytes();
        if path.len() > limits.uri {
            return Err(Error::UriTooLong);
        }
        if len > limits.head {
            return Err(Error::HeadTooLarge);
        }
        if found.headers.len() > limits.fields {
            return Err(Error::TooManyFields);
        }
        if method == b"CONNECT" {
            return Err(Error::Connect);
        }
        let raw = raw.get(..len).unwrap_or_default();
        let http11 = found.version == Some(1);
        let method_span = Span::of(raw, method);
        if method_span.start() != 0 {
            return Err(Error::LineEnd);
        }
        let common = collect(raw, found.headers, fields)?;
        let target = target::parse(method, path, Span::of(raw, path).start())?;
        let rest = survey(raw, fields)?;
        if http11 && !rest.host {
            return Err(Error::Host);
        }
        let framing = framing(&common, http11)?;
        if matches!(framing, Framing::Length(length) if length > limits.body) {
            return Err(Error::BodyTooLarge);
        }
        // Whether a body follows "identity" is read differently by different programs: nothing
        // that follows is taken for a request.
        let persistent = !common.close && common.coding != Coding::Identity;
        Ok(Request {
            raw,
            fields,
            method: method_span,
            protocol: None,
            target,
            has_host: rest.host,
            forwarded_for: rest.forwarded_for,
            names_fields: common.named,
            upgrade: common.upgrade,
            facts: RequestFacts {
                http11,
                http2: false,
                grpc: false,
                persistent: persistent && (http11 || common.keep_alive),
                is_head: method == b"HEAD",
                idempotent: is_idempotent(method),
                names_member: !rest.host && target.authority.is_none(),
                // A 1.0 client cannot wait for an interim answer (RFC 9110, 10.1.1).
                expects_continue: rest.expects && http11,
                framing,
            },
        })
    }

    /// The protocol that this request may switch to: the first of those it names that is `allowed`.
    /// Only a GET without a body in HTTP/1.1 may (RFC 9110, 7.8; RFC 6455, 4.1): a tunnel that
    /// begins behind a body would begin where two parsers may disagree.
    pub(crate) fn upgrade(&self, allowed: impl FnOnce() -> Arc<[String]>) -> Option<&'a [u8]> {
        let named = |name: &&[u8], allowed: &[String]| {
            allowed.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        };
        if let Some(protocol) = self.protocol {
            return Some(protocol.get(self.raw)).filter(|name| named(name, &allowed()));
        }
        let bodiless = matches!(self.facts.framing, Framing::None | Framing::Length(0));
        let may = self.upgrade && self.facts.http11 && bodiless;
        if !may || self.method() != b"GET" {
            return None;
        }
        let allowed = allowed();
        upgrades(self.raw, self.fields).find(|name| named(name, &allowed))
    }

    /// Appends the head for the member: HTTP/1.1, hop-by-hop fields removed, X-Forwarded-For and
    /// the like as the listener wants them, the body's framing as `facts.framing` says.
    pub(crate) fn write(&self, out: &mut Vec<u8>, via: Via<'_>) {
        let raw = self.raw;
        out.reserve(raw.len() + via.peer.len() + via.member.len() + 64);
        out.extend_from_slice(self.method());
        out.push(b' ');
        out.extend_from_slice(self.target.alone);
        out.extend_from_slice(self.target.path.get(raw));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut lines = Lines::new(raw, out, 0);
        for field in self.fields {
            match field.kind {
                Kind::Pass if via.key.is_some() && is_key(field.name.get(raw)) => {}
                Kind::Inserted(header) if via.headers.insert.drops(header) => {}
                Kind::Pass | Kind::Inserted(_)
                    if !self.names_fields || !is_named(raw, self.fields, field.name.get(raw)) =>
                {
                    lines.forward(field);
                }
                Kind::Host => match self.target.authority {
                    Some(authority) => lines.write(field.name.get(raw), authority.get(raw)),
                    None => lines.forward(field),
                },
                Kind::Expect if self.facts.expects_continue => lines.forward(field),
                _ => {}
            }
        }
        let out = lines.finish();
        if !self.has_host {
            self.write_host(out, &via);
        }
        self.write_forwarded_for(out, &via);
        if let Some(sides) = &via.sides {
            self.write_inserted(out, via.headers, sides);
        }
        if let Some(protocol) = via.upgrade {
            append_field(out, b"Connection", b"Upgrade");
            append_field(out, b"Upgrade", protocol);
        }
        if let Some(key) = &via.key {
            append_field(out, b"Sec-WebSocket-Key", key.as_bytes());
        }
        match self.facts.framing {
            Framing::Length(length) => {
                out.extend_from_slice(b"Content-Length: ");
                append_decimal(out, length);
                out.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => append_field(out, b"Transfer-Encoding", b"chunked"),
            Framing::None | Framing::UntilClose => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn is_key(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"sec-websocket-key")
}

pub(super) fn append_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The rare head with more than `USUAL_HEADERS` fields.
#[cold]
#[inline(never)]
fn parse_long<'a>(
    raw: &'a [u8],
    limits: &Limits,
    fields: &'a mut Vec<Field>,
) -> Result<Option<Request<'a>>, Error> {
    // A field takes four bytes at least.
    let room = limits.fields.min(raw.len() / 4);
    let mut headers = vec![MaybeUninit::<Header<'_>>::uninit(); room];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(raw, &mut headers) {
        Ok(Status::Complete(len)) => Request::check(raw, len, &request, limits, fields).map(Some),
        Ok(Status::Partial) => incomplete(raw, limits).map(|()| None),
        Err(error) => Err(refusal(error, raw, limits)),
    }
}

/// What httparse refuses; a URI that is too long is named first (C16).
#[cold]
fn refusal(error: httparse::Error, raw: &[u8], limits: &Limits) -> Error {
    incomplete(raw, limits).err().unwrap_or_else(|| Flaw::from(error).into())
}

/// Limits that already hold for a head whose end has not come: the target (414, tested first,
/// C16), then the whole.
#[cold]
fn incomplete(raw: &[u8], limits: &Limits) -> Result<(), Error> {
    let line = raw.split(|&b| b == b'\n').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ');
    words.next();
    if words.next().is_some_and(|target| target.len() > limits.uri) {
        return Err(Error::UriTooLong);
    }
    if raw.len() > limits.head { Err(Error::HeadTooLarge) } else { Ok(()) }
}

/// What only requests have.
#[derive(Default)]
struct Survey {
    host: bool,
    forwarded_for: bool,
    expects: bool,
}

fn survey(raw: &[u8], fields: &[Field]) -> Result<Survey, Error> {
    let mut found = Survey::default();
    for field in fields {
        match field.kind {
            Kind::Host => {
                if found.host || !target::is_host(field.value.get(raw)) {
                    return Err(Error::Host);
                }
                found.host = true;
            }
            Kind::ForwardedFor => found.forwarded_for = true,
            Kind::Expect => {
                if !field.value.get(raw).eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::Expectation);
                }
                found.expects = true;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Whether the content's type is that of gRPC, with whatever encoding of its messages.
fn is_grpc(raw: &[u8], fields: &[Field]) -> bool {
    let kind = fields.iter().find(|field| field.name.get(raw) == b"content-type");
    let rest = kind.and_then(|field| field.value.get(raw).strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.first().is_none_or(|byte| b"+; ".contains(byte)))
}

/// How a request's body is delimited (RFC 9112, 6.3), refusing all that is ambiguous.
fn framing(common: &Common, http11: bool) -> Result<Framing, Error> {
    match common.coding {
        Coding::Absent => Ok(common.length.map_or(Framing::None, Framing::Length)),
        Coding::Unknown => Err(Error::UnknownCoding),
        Coding::Confused => Err(Error::Coding),
        _ if common.length.is_some() || !http11 => Err(Error::LengthAndCoding),
        Coding::Chunked => Ok(Framing::Chunked),
        Coding::Identity => Ok(Framing::None),
    }
}

fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
