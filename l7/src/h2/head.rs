//! Pure: a decoded head: the fields of a request, a response or a trailer section, kept as those of
//! HTTP/1 are, and what RFC 9113, 8 demands of them. Called by `h2::connection`; read by whoever
//! makes a `message::Request` or `message::Response` of it.

use super::hpack::{self, ENTRY_OVERHEAD, Line};
use crate::body::is_token;
use crate::limits::H2_EXCESS;
use crate::message::{Field, Kind, Span, decimal};

/// What a head is larger than: its limits are its listener's, so it is worth an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// More bytes than a head may have, each field counted with 32 more (RFC 9113, 6.5.2).
    Bytes,
    /// More fields.
    Fields,
}

/// What a block of fields is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Request,
    Response,
    Trailers,
}

/// A decoded head, in memory that is used again.
///
/// `bytes` has a line `name: value` CR LF for each field, in their order; those of the
/// pseudo-header fields are in it, but not in `fields`. `:authority` stands there as a field
/// `host`, in front of all others; a Host field that says the same is left out.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    pseudo: Pseudo,
    length: Option<u64>,
    size: usize,
    excess: Option<Excess>,
    malformed: bool,
    /// A field without a colon was there.
    begun: bool,
}

/// The pseudo-header fields (RFC 9113, 8.3), as far as they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pseudo {
    pub(crate) method: Option<Span>,
    pub(crate) scheme: Option<Span>,
    pub(crate) authority: Option<Span>,
    pub(crate) path: Option<Span>,
    pub(crate) protocol: Option<Span>,
    pub(crate) status: Option<Span>,
}

/// What a head may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes, each field counted with 32 more.
    pub(crate) bytes: usize,
    /// Fields, those with a colon left out.
    pub(crate) fields: usize,
}

impl Head {
    /// The lines; see above.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The fields, in their order, as parts of `bytes`.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Names and values of the fields.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| field.text(&self.bytes))
    }

    /// The pseudo-header fields, as parts of `bytes`.
    pub(crate) fn pseudo(&self) -> Pseudo {
        self.pseudo
    }

    /// Content-Length; its field is among `fields`, too.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Makes one field of the parts that a client has sent its cookies in (RFC 9113, 8.2.3).
    #[inline]
    pub(crate) fn join_cookies(&mut self) {
        let is_cookie = |field: &Field| field.text(&self.bytes).0 == b"cookie";
        let mut cookies = self.fields.iter().filter(|field| is_cookie(field));
        if cookies.next().is_some() && cookies.next().is_some() {
            self.join_all_cookies();
        }
    }

    fn join_all_cookies(&mut self) {
        let mut line = b"cookie: ".to_vec();
        let start = self.bytes.len();
        let (name, value) = (start..start + 6, start + line.len());
        let mut place = None;
        for (at, field) in self.fields.iter().enumerate() {
            if let (b"cookie", part) = field.text(&self.bytes) {
                line.extend_from_slice(if place.is_some() { b"; " } else { b"" });
                line.extend_from_slice(part);
                place = place.or(Some(at));
            }
        }
        self.bytes.extend_from_slice(&line);
        let joined = Field::of_line(&self.bytes, name, value..self.bytes.len());
        self.bytes.extend_from_slice(b"\r\n");
        let mut at = 0..;
        self.fields.retain_mut(|field| {
            let first = at.next() == place;
            if first {
                *field = joined;
            }
            first || field.text(&self.bytes).0 != b"cookie"
        });
    }

    /// The status of a response, 100 to 999.
    pub(crate) fn status(&self) -> u16 {
        let status = self.pseudo.status.map_or(&[][..], |span| span.get(&self.bytes));
        status.iter().fold(0, |n, &digit| n * 10 + u16::from(digit.wrapping_sub(b'0') % 10))
    }

    /// Set when the head is beyond a limit. What was beyond it is missing; what is there is whole.
    pub(crate) fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// Forgets everything but the memory, of which no more than `keep` bytes are kept.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.fields.clear();
        if self.bytes.capacity() + self.fields.capacity() * size_of::<Field>() > keep {
            (self.bytes, self.fields) = (Vec::new(), Vec::new());
        }
        let (bytes, fields) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.fields));
        *self = Head { bytes, fields, ..Head::default() };
    }

    /// Decodes a block. `Ok(false)`: it is malformed, which ends its stream.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn decode(
        &mut self,
        decoder: &mut hpack::Decoder,
        block: &[u8],
        kind: Block,
        limits: HeadLimits,
    ) -> Result<bool, hpack::Error> {
        self.clear(usize::MAX);
        let mut bytes = std::mem::take(&mut self.bytes);
        let each = |bytes: &mut Vec<u8>, line: Line| self.add(bytes, &line, kind, limits);
        let result = decoder.decode(block, &mut bytes, each);
        self.bytes = bytes;
        result?;
        Ok(!self.malformed && (self.excess.is_some() || self.is_whole(kind)))
    }

    /// Takes the field that was just appended to `bytes`, or takes it off again.
    #[inline]
    fn add(
        &mut self,
        bytes: &mut Vec<u8>,
        line: &Line,
        kind: Block,
        limits: HeadLimits,
    ) -> Result<(), hpack::Error> {
        let start = line.name.start;
        self.size += line.name.len() + line.value.len() + ENTRY_OVERHEAD;
        if self.size > limits.bytes {
            self.excess = self.excess.or(Some(Excess::Bytes));
            bytes.truncate(start);
            // All of it has to be decoded, for the tables' sake; a bomb isn't worth the work.
            let bomb = self.size / H2_EXCESS > limits.bytes;
            return if bomb { Err(hpack::Error::TooLarge) } else { Ok(()) };
        }
        let good = line.valid
            && if bytes.get(start) == Some(&b':') {
                self.take_pseudo(bytes, line, kind)
            } else {
                self.begun = true;
                self.take_field(bytes, line, limits)
            };
        self.malformed |= !good;
        Ok(())
    }

    /// Pseudo-header fields come first, each at most once, in the right kind of head (8.3).
    fn take_pseudo(&mut self, bytes: &mut [u8], line: &Line, kind: Block) -> bool {
        let (start, name) = (line.name.start, line.name.clone());
        let pseudo = &mut self.pseudo;
        let (place, of) = match bytes.get(name.clone()).unwrap_or_default() {
            b":method" => (&mut pseudo.method, Block::Request),
            b":scheme" => (&mut pseudo.scheme, Block::Request),
            b":authority" => (&mut pseudo.authority, Block::Request),
            b":path" => (&mut pseudo.path, Block::Request),
            b":protocol" => (&mut pseudo.protocol, Block::Request),
            b":status" => (&mut pseudo.status, Block::Response),
            _ => return false,
        };
        if kind != of || self.begun || place.is_some() {
            return false;
        }
        *place = Some(Span::new(line.value.start, line.value.end));
        if bytes.get(name) == Some(b":authority") {
            // From here on it is Host: the last four letters of its name are.
            let host = start + 6..start + 10;
            if let Some(place) = bytes.get_mut(host.clone()) {
                place.copy_from_slice(b"host");
            }
            self.fields.push(Field::of_line(bytes, host, line.value.clone()));
        }
        true
    }

    fn take_field(&mut self, bytes: &mut Vec<u8>, line: &Line, limits: HeadLimits) -> bool {
        let field = Field::of_line(bytes, line.name.clone(), line.value.clone());
        let name = bytes.get(line.name.clone()).unwrap_or_default();
        let value = bytes.get(line.value.clone()).unwrap_or_default();
        match field.kind() {
            // What concerns one connection has no place in HTTP/2 (8.2.2).
            Kind::Connection | Kind::Coding | Kind::Upgrade => return false,
            Kind::Hop if matches!(name, b"keep-alive" | b"proxy-connection") => return false,
            Kind::Hop if name == b"te" && !value.eq_ignore_ascii_case(b"trailers") => return false,
            Kind::Length => {
                let length = decimal(value);
                if length.is_none() || self.length.is_some() {
                    return false;
                }
                self.length = length;
            }
            Kind::Host => {
                if let Some(authority) = self.pseudo.authority {
                    let same = authority.get(bytes).eq_ignore_ascii_case(value);
                    bytes.truncate(line.name.start);
                    return same;
                }
            }
            _ => {}
        }
        if self.fields.len() >= limits.fields {
            self.excess = self.excess.or(Some(Excess::Fields));
            bytes.truncate(line.name.start);
            return true;
        }
        self.fields.push(field);
        true
    }

    /// Whether nothing is missing, or there that must not be (8.3.1, 8.3.2; RFC 8441, 4).
    fn is_whole(&self, kind: Block) -> bool {
        let get = |span: Option<Span>| span.map(|span| span.get(&self.bytes));
        let pseudo = &self.pseudo;
        match kind {
            Block::Trailers => true,
            Block::Response => {
                let digits = get(pseudo.status).unwrap_or_default();
                // 101 has no meaning here (8.6).
                let good = matches!(digits, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']);
                good && digits != b"101"
            }
            Block::Request => {
                let method = get(pseudo.method).unwrap_or_default();
                let (scheme, path) = (get(pseudo.scheme), get(pseudo.path));
                if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
                    return false;
                }
                if method == b"CONNECT" && pseudo.protocol.is_none() {
                    return pseudo.authority.is_some() && scheme.is_none() && path.is_none();
                }
                let known =
                    pseudo.protocol.is_none() || method == b"CONNECT" && pseudo.authority.is_some();
                known && scheme.is_some_and(is_scheme) && path.is_some_and(|p| is_path(p, method))
            }
        }
    }
}

fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|&b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// A path in origin form, or the asterisk of OPTIONS. Which bytes beyond that a target may have is
/// for `message` to say, but a space would end it where HTTP/1 is spoken.
fn is_path(path: &[u8], method: &[u8]) -> bool {
    let form = path.first() == Some(&b'/') || (path == b"*" && method == b"OPTIONS");
    form && !path.iter().any(|&byte| byte <= b' ')
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
