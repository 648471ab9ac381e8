//! Pure: header fields as offsets, told apart by name. Owns the line-end check and what both kinds
//! of head have in common (Connection, Content-Length, Transfer-Encoding).

use std::ops::Range;

use httparse::Header;
use weir_core::control::Inserted;

use super::{Flaw, Span, list};
use crate::limits::MAX_CONNECTION_OPTIONS;

/// What a field means to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Forwarded as it is, unless Connection names it.
    Pass,
    /// Host.
    Host,
    /// Content-Length.
    Length,
    /// Transfer-Encoding.
    Coding,
    /// Connection.
    Connection,
    /// Upgrade: goes on only when it is granted.
    Upgrade,
    /// Concerns one connection only: never forwarded.
    Hop,
    /// Expect.
    Expect,
    /// X-Forwarded-For.
    ForwardedFor,
    /// One that the listener may insert; forwarded as it is where it doesn't.
    Inserted(Inserted),
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The name.
    pub(super) name: Span,
    /// The value without the space around it.
    pub(super) value: Span,
    /// Its meaning.
    pub(super) kind: Kind,
}

impl Field {
    /// The field whose name and value stand at these places of `raw`.
    #[inline]
    pub(crate) fn of_line(raw: &[u8], name: Range<usize>, value: Range<usize>) -> Field {
        let kind = classify(raw.get(name.clone()).unwrap_or_default());
        let [name, value] = [name, value].map(|part| Span::new(part.start, part.end));
        Field { name, value, kind }
    }

    /// What it means to a proxy.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name and its value; `raw` is the head that it is a part of.
    pub(crate) fn text<'a>(&self, raw: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        (self.name.get(raw), self.value.get(raw))
    }
}

/// What both kinds of head say about connection and body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Common {
    /// Connection has the option "close".
    pub(super) close: bool,
    /// Connection has the option "keep-alive".
    pub(super) keep_alive: bool,
    /// Connection has the option "upgrade".
    pub(super) upgrade: bool,
    /// Connection names fields, which then are not forwarded.
    pub(super) named: bool,
    /// Content-Length.
    pub(super) length: Option<u64>,
    /// What Transfer-Encoding says.
    pub(super) coding: Coding,
    /// There is a Date.
    pub(super) date: bool,
    /// Connection options seen.
    options: usize,
}

/// What all Transfer-Encoding fields together say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    /// There is none.
    #[default]
    Absent,
    /// "chunked", once.
    Chunked,
    /// "identity", once.
    Identity,
    /// Several codings, all of them known; or an empty field.
    Confused,
    /// Something that Weir doesn't know.
    Unknown,
}

/// Names and values of the fields in these lines of a trailer section that go on. Which of them a
/// message is told by its head stays out (RFC 9110, 6.5.1): where it goes, how long it is.
pub(crate) fn trailer_fields(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = lines.split(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
    let fields = lines.filter_map(|line| {
        let (name, value) = line.split_at_checked(line.iter().position(|&byte| byte == b':')?)?;
        Some((name, value.get(1..)?.trim_ascii()))
    });
    fields.filter(|(name, _)| matches!(classify(name), Kind::Pass | Kind::Inserted(_)))
}

/// The meaning of the field called `name`.
#[inline]
fn classify(name: &[u8]) -> Kind {
    let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
    // Programs that hand fields on as environment variables (CGI) read "_" as "-": a field whose
    // twin means something here must not reach them.
    let twin = |wanted: &[u8]| {
        let same = |(&a, &b): (&u8, &u8)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
        name.iter().zip(wanted).all(same)
    };
    match name.len() {
        2 if is(b"te") => Kind::Hop,
        4 if is(b"host") => Kind::Host,
        6 if is(b"expect") => Kind::Expect,
        7 if is(b"upgrade") => Kind::Upgrade,
        7 if is(b"trailer") => Kind::Hop,
        10 if is(b"connection") => Kind::Connection,
        10 if is(b"keep-alive") => Kind::Hop,
        14 if is(b"content-length") => Kind::Length,
        14 if is(b"http2-settings") => Kind::Hop,
        15 if is(b"x-forwarded-for") => Kind::ForwardedFor,
        16 if is(b"proxy-connection") => Kind::Hop,
        17 if is(b"transfer-encoding") => Kind::Coding,
        10 if twin(b"keep-alive") => Kind::Hop,
        14 if twin(b"content-length") || twin(b"http2-settings") => Kind::Hop,
        15 if twin(b"x-forwarded-for") => Kind::Hop,
        16 if twin(b"proxy-connection") => Kind::Hop,
        17 if twin(b"transfer-encoding") => Kind::Hop,
        9 if twin(b"x-real-ip") => Kind::Inserted(Inserted::RealIp),
        12 if twin(b"x-request-id") => Kind::Inserted(Inserted::RequestId),
        16 if twin(b"x-forwarded-port") => Kind::Inserted(Inserted::Port),
        16 if twin(b"x-forwarded-host") => Kind::Inserted(Inserted::Host),
        17 if twin(b"x-forwarded-proto") => Kind::Inserted(Inserted::Proto),
        18 if twin(b"x-forwarded-elb-ip") => Kind::Inserted(Inserted::ElbIp),
        18 if twin(b"x-forwarded-elb-id") => Kind::Inserted(Inserted::ElbId),
        20 if twin(b"x-forwarded-for-port") => Kind::Inserted(Inserted::ClientPort),
        22.. if twin(b"x-forwarded-") => of_tls(name, twin),
        _ => Kind::Pass,
    }
}

/// The meaning of a field whose name begins with `X-Forwarded-` and is longer than others.
#[cold]
fn of_tls(name: &[u8], twin: impl Fn(&[u8]) -> bool) -> Kind {
    let is = |header: &Inserted| {
        let wanted = header.name().as_bytes();
        header.is_of_tls() && name.len() == wanted.len() && twin(wanted)
    };
    Inserted::ALL.into_iter().find(is).map_or(Kind::Pass, Kind::Inserted)
}

/// Turns httparse's pieces into offsets and checks what it lets pass: a bare LF as line end.
/// `raw` is the head, exactly, and complete.
pub(super) fn collect(
    raw: &[u8],
    headers: &[Header<'_>],
    fields: &mut Vec<Field>,
) -> Result<Common, Flaw> {
    fields.clear();
    let mut common = Common::default();
    let mut clean = raw.ends_with(b"\r\n\r\n");
    for header in headers {
        let name = Span::of(raw, header.name.as_bytes());
        // Each line starts behind the line feed of the one before; a return must precede that.
        clean &= name.start().checked_sub(2).and_then(|at| raw.get(at)) == Some(&b'\r');
        let kind = classify(header.name.as_bytes());
        let field = Field { name, value: Span::of(raw, header.value), kind };
        fields.push(field);
        match kind {
            Kind::Length => common.add_length(header.value)?,
            Kind::Coding => common.add_coding(header.value),
            Kind::Connection => common.add_options(header.value)?,
            Kind::Pass => common.date |= header.name.eq_ignore_ascii_case("date"),
            _ => {}
        }
    }
    if clean { Ok(common) } else { Err(Flaw::LineEnd) }
}

impl Common {
    fn add_length(&mut self, value: &[u8]) -> Result<(), Flaw> {
        if self.length.is_some() {
            return Err(Flaw::Length);
        }
        self.length = Some(decimal(value).ok_or(Flaw::Length)?);
        Ok(())
    }

    fn add_coding(&mut self, value: &[u8]) {
        let mut any = false;
        for coding in list(value) {
            any = true;
            let known = if coding.eq_ignore_ascii_case(b"chunked") {
                Coding::Chunked
            } else if coding.eq_ignore_ascii_case(b"identity") {
                Coding::Identity
            } else {
                Coding::Unknown
            };
            self.coding = match self.coding {
                Coding::Absent => known,
                Coding::Unknown => Coding::Unknown,
                _ if known == Coding::Unknown => Coding::Unknown,
                _ => Coding::Confused,
            };
        }
        if !any && self.coding != Coding::Unknown {
            self.coding = Coding::Confused;
        }
    }

    fn add_options(&mut self, value: &[u8]) -> Result<(), Flaw> {
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.named = true;
            }
            self.options += 1;
        }
        if self.options > MAX_CONNECTION_OPTIONS { Err(Flaw::TooMany) } else { Ok(()) }
    }
}

/// Digits only, at least one; `None` also when the number doesn't fit.
pub(crate) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 20 {
        return None;
    }
    value.iter().try_fold(0u64, |number, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The protocols that the Upgrade fields of this head name, in their order (RFC 9110, 7.8).
pub(super) fn upgrades<'a>(
    raw: &'a [u8],
    fields: &'a [Field],
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    fields.iter().filter(|f| f.kind == Kind::Upgrade).flat_map(move |f| list(f.value.get(raw)))
}

/// Whether a Connection field of this head names `name`.
#[cold]
pub(super) fn is_named(raw: &[u8], fields: &[Field], name: &[u8]) -> bool {
    (fields.iter().filter(|f| f.kind == Kind::Connection))
        .flat_map(|f| list(f.value.get(raw)))
        .any(|option| option.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (name, kind) in [
            ("Host", Kind::Host),
            ("TE", Kind::Hop),
            ("eXpect", Kind::Expect),
            ("Trailer", Kind::Hop),
            ("UPGRADE", Kind::Upgrade),
            ("Connection", Kind::Connection),
            ("Keep-Alive", Kind::Hop),
            ("content-length", Kind::Length),
            ("HTTP2-Settings", Kind::Hop),
            ("X-Forwarded-For", Kind::ForwardedFor),
            ("Proxy-Connection", Kind::Hop),
            ("Transfer-Encoding", Kind::Coding),
            ("Cookie", Kind::Pass),
            ("Content_Length", Kind::Hop),
            ("TRANSFER_ENCODING", Kind::Hop),
            ("x_forwarded-for", Kind::Hop),
            ("Content.Length", Kind::Pass),
            ("X_Forwarded_Fox", Kind::Pass),
            ("Content-Lengtx", Kind::Pass),
        ] {
            assert_eq!(classify(name.as_bytes()), kind, "{name}");
        }
    }

    #[test]
    fn numbers() {
        for (text, number) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1 2", None),
            ("5,5", None),
            ("0x10", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), number, "{text}");
        }
    }

    #[test]
    fn codings() {
        for (values, coding) in [
            (&["chunked"][..], Coding::Chunked),
            (&["Chunked"], Coding::Chunked),
            (&["identity"], Coding::Identity),
            (&["gzip, chunked"], Coding::Unknown),
            (&["chunked", "chunked"], Coding::Confused),
            (&["identity, chunked"], Coding::Confused),
            (&["chunked", "gzip"], Coding::Unknown),
            (&[""], Coding::Confused),
            (&["chunked", ","], Coding::Confused),
            (&["chunked;q=1"], Coding::Unknown),
        ] {
            let mut common = Common::default();
            for value in values {
                common.add_coding(value.as_bytes());
            }
            assert_eq!(common.coding, coding, "{values:?}");
        }
    }

    #[test]
    fn trailers_that_go_on() {
        let lines = b"grpc-status: 0\r\nX-A:b \r\nContent-Length: 3\r\ntrailer: x\r\nHost: h\r\n\
                      transfer_encoding: chunked\r\nempty:\r\n\r\n";
        let found: Vec<_> = trailer_fields(lines).collect();
        let wanted: [(&[u8], &[u8]); 3] = [(b"grpc-status", b"0"), (b"X-A", b"b"), (b"empty", b"")];
        assert_eq!(found, wanted);
    }
}
