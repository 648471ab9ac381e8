//! Pure: decoding of header blocks (RFC 7541, 3 and 6). Each field is appended to one buffer in the
//! form of a field line of HTTP/1, `name: value` CR LF, so that heads of both versions are kept and
//! forwarded by the same code.

use std::ops::Range;

use super::table::{STATIC, Table};
use super::{DEFAULT_TABLE, Error, huffman};

/// Where a field stands in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) name: Range<usize>,
    /// Its value; behind it CR LF.
    pub(crate) value: Range<usize>,
    /// The name is a token without capital letters, with or without a colon in front, the value
    /// has no control bytes but tabs and no space around it (RFC 9113, 8.2.1).
    pub(crate) valid: bool,
}

/// The decoder of one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    /// Bytes of the table that the peer was allowed.
    allowed: usize,
}

/// How a literal field is added to the table, by the first bits of its octet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub(crate) const fn new() -> Decoder {
        Decoder { table: Table::new(DEFAULT_TABLE), allowed: DEFAULT_TABLE }
    }

    /// Decodes one block, appending to `out`; `each` is called with every field and may take it
    /// back off `out`.
    ///
    /// # Errors
    /// What is malformed, and what `each` refuses. The decoder is of no use behind one.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        out: &mut Vec<u8>,
        mut each: impl FnMut(&mut Vec<u8>, Line) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut input = Input { rest: block };
        let mut begun = false;
        while let Some(&first) = input.rest.first() {
            let line = if first & 0x80 != 0 {
                let index = input.integer(0x7f)?;
                self.indexed(index, out)?
            } else if first & 0xc0 == 0x40 {
                self.literal(&mut input, 0x3f, Keep::Yes, out)?
            } else if first & 0xe0 == 0x20 {
                self.size_update(&mut input, begun)?;
                continue;
            } else {
                self.literal(&mut input, 0x0f, Keep::No, out)?
            };
            begun = true;
            each(out, line)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> String {
        let entry = |index| {
            let (name, value, _) = self.table.get(index)?;
            Some(format!("{}: {}\n", name.escape_ascii(), value.escape_ascii()))
        };
        (0..).map_while(entry).collect()
    }

    fn indexed(&self, index: usize, out: &mut Vec<u8>) -> Result<Line, Error> {
        let (name, value, valid) = self.entry(index)?;
        let start = out.len();
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        let name = start..out.len();
        out.extend_from_slice(b": ");
        Ok(finish(name, value, valid, out))
    }

    /// An entry of either table (RFC 7541, 2.3.3).
    #[inline]
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8], bool), Error> {
        let place = index.checked_sub(1).ok_or(Error::Malformed)?;
        match STATIC.get(place) {
            Some((name, value)) => Ok((name, value, true)),
            None => self.table.get(place - STATIC.len()).ok_or(Error::Malformed),
        }
    }

    fn literal(
        &mut self,
        input: &mut Input<'_>,
        mask: u8,
        keep: Keep,
        out: &mut Vec<u8>,
    ) -> Result<Line, Error> {
        let start = out.len();
        let index = input.integer(mask)?;
        let valid_name = if index == 0 {
            input.string(out)?;
            is_name(out.get(start..).unwrap_or_default())
        } else {
            let (name, _, valid) = self.entry(index)?;
            out.extend_from_slice(name);
            // An entry's flag is that of both its parts.
            valid || is_name(name)
        };
        let name = start..out.len();
        out.extend_from_slice(b": ");
        let from = out.len();
        input.string(out)?;
        let value = from..out.len();
        out.extend_from_slice(b"\r\n");
        let [name_text, value_text] =
            [&name, &value].map(|range| out.get(range.clone()).unwrap_or_default());
        let valid = valid_name && is_value(value_text);
        if keep == Keep::Yes {
            self.table.insert(name_text, value_text, valid);
        }
        Ok(Line { name, value, valid })
    }

    /// Only in front of a block's fields (RFC 7541, 4.2), and never above what we allowed.
    fn size_update(&mut self, input: &mut Input<'_>, begun: bool) -> Result<(), Error> {
        let max = input.integer(0x1f)?;
        if begun || max > self.allowed {
            return Err(Error::Malformed);
        }
        self.table.resize(max);
        Ok(())
    }
}

#[inline]
fn finish(name: Range<usize>, value: &[u8], valid: bool, out: &mut Vec<u8>) -> Line {
    let from = out.len();
    out.extend_from_slice(value);
    let value = from..out.len();
    out.extend_from_slice(b"\r\n");
    Line { name, value, valid }
}

/// What is left of a block.
struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Error> {
        let (&byte, rest) = self.rest.split_first().ok_or(Error::Malformed)?;
        self.rest = rest;
        Ok(byte)
    }

    /// An integer whose first bits are those of `mask` (RFC 7541, 5.1). None that is of use comes
    /// near 28 bits.
    #[inline]
    fn integer(&mut self, mask: u8) -> Result<usize, Error> {
        let first = self.byte()? & mask;
        if first < mask {
            return Ok(usize::from(first));
        }
        let mut number = usize::from(mask);
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Malformed)
    }

    /// Appends a string literal (RFC 7541, 5.2).
    #[inline]
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let coded = self.rest.first().is_some_and(|byte| byte & 0x80 != 0);
        let len = self.integer(0x7f)?;
        let (text, rest) = self.rest.split_at_checked(len).ok_or(Error::Malformed)?;
        self.rest = rest;
        if coded {
            return huffman::decode(text, out).ok_or(Error::Malformed);
        }
        out.extend_from_slice(text);
        Ok(())
    }
}

/// Bytes of a name: those of a token but for capital letters.
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let other = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at] = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        at += 1;
    }
    at = 0;
    while at < other.len() {
        table[other[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_name(name: &[u8]) -> bool {
    let name = name.strip_prefix(b":").unwrap_or(name);
    !name.is_empty() && name.iter().all(|&byte| NAME_BYTES[usize::from(byte)])
}

fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bad = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    // No early end: so the compiler looks at many bytes at once.
    let control = value.iter().fold(false, |any, &byte| any | bad(byte));
    !control && !blank(value.first()) && !blank(value.last())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
pub(crate) mod tests;
