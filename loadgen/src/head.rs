//! Pure: finds a whole message head in bytes that arrive in any pieces. Owns the bytes of a head
//! that came in parts; a head that arrives at once is parsed where it lies. Used by `response`
//! and `request`.

use crate::limits::MAX_HEAD;

/// Collects one head. One per connection; its memory is kept from message to message.
#[derive(Debug, Default)]
pub(crate) struct HeadBuffer {
    partial: Vec<u8>,
}

/// What a parser says about a prefix: `None` = goes on, else the head's length and what it means.
pub(crate) type Parsed<T> = Result<Option<(usize, T)>, &'static str>;

impl HeadBuffer {
    /// Drops what was collected.
    pub(crate) fn clear(&mut self) {
        self.partial.clear();
    }

    /// True when no byte of a head has been seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// Takes bytes of the head. Answers how many of `data` belong to it, and its meaning once it
    /// is whole.
    ///
    /// The parser only ever sees whole lines, so that the verdict doesn't depend on how the bytes
    /// were cut.
    pub(crate) fn feed<T>(
        &mut self,
        data: &[u8],
        mut parse: impl FnMut(&[u8]) -> Parsed<T>,
    ) -> Result<(usize, Option<T>), &'static str> {
        const TOO_LONG: &str = "the head is longer than 64 KiB";
        let Some(last) = data.iter().rposition(|&b| b == b'\n') else {
            return self.keep(data).map(|()| (data.len(), None)).ok_or(TOO_LONG);
        };
        let before = self.partial.len();
        let found = if before == 0 {
            parse(&data[..=last])?
        } else {
            self.partial.extend_from_slice(&data[..=last]);
            let found = parse(&self.partial)?;
            self.partial.truncate(before);
            found
        };
        match found {
            Some((length, _)) if length > MAX_HEAD => Err(TOO_LONG),
            Some((length, meaning)) => {
                self.partial.clear();
                debug_assert!(length > before, "a head that was whole before was not seen");
                Ok((length.saturating_sub(before), Some(meaning)))
            }
            None => self.keep(data).map(|()| (data.len(), None)).ok_or(TOO_LONG),
        }
    }

    fn keep(&mut self, data: &[u8]) -> Option<()> {
        if self.partial.len() + data.len() > MAX_HEAD {
            return None;
        }
        self.partial.extend_from_slice(data);
        Some(())
    }
}

/// What the fields of a head say about framing and the connection. Shared by requests and
/// responses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing {
    /// Content-Length, when present.
    pub(crate) length: Option<u64>,
    /// Transfer-Encoding is present.
    pub(crate) encoded: bool,
    /// … and chunked is its last coding.
    pub(crate) chunked: bool,
    /// `Connection: close`.
    pub(crate) close: bool,
    /// `Connection: keep-alive`.
    pub(crate) keep_alive: bool,
    /// `Expect: 100-continue`.
    pub(crate) expect: bool,
}

impl Framing {
    /// Reads the fields that matter (RFC 9112 section 6).
    pub(crate) fn read(fields: &[httparse::Header<'_>]) -> Result<Framing, &'static str> {
        let mut framing = Framing::default();
        for field in fields {
            let value = field.value.trim_ascii();
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => framing.length(value)?,
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    framing.encoded = true;
                    let last = value.rsplit(|&b| b == b',').next().unwrap_or(value);
                    framing.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
                }
                10 if field.name.eq_ignore_ascii_case("connection") => framing.connection(value),
                6 if field.name.eq_ignore_ascii_case("expect") => {
                    framing.expect = value.eq_ignore_ascii_case(b"100-continue");
                }
                _ => {}
            }
        }
        if framing.encoded && framing.length.is_some() {
            return Err("Content-Length beside Transfer-Encoding");
        }
        Ok(framing)
    }

    fn length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "Content-Length is not a number";
        if value.is_empty() || value.len() > 19 {
            return Err(BAD);
        }
        let mut length: u64 = 0;
        for &byte in value {
            if !byte.is_ascii_digit() {
                return Err(BAD);
            }
            length = length * 10 + u64::from(byte - b'0');
        }
        if self.length.is_some_and(|seen| seen != length) {
            return Err("two Content-Length fields that differ");
        }
        self.length = Some(length);
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}
