//! Pure: header fields in HPACK (RFC 7541). What is read may use all of it; what is written is
//! made once a request and leaves the target's table alone, so that every request costs the same.
//! Used by `session` and `template`.

use std::collections::VecDeque;

use super::huffman;
use crate::limits::{MAX_FIELDS, MAX_HEAD};

/// Bytes of the table that the target may fill: the protocol's own, so that we needn't ask.
pub(super) const TABLE: usize = 4_096;
/// What an entry counts beside its bytes (RFC 7541, 4.1).
const OVERHEAD: usize = 32;

/// RFC 7541, appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

const CUT: &str = "a block of header fields is cut off";

/// Reads the blocks of one connection, in their order.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The newest entry is the first.
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// As RFC 7541, 4.1 counts it.
    size: usize,
    /// What the target has cut the table to; `None` = never.
    limit: Option<usize>,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A string as it stands in the block, or decoded into the scratch buffer.
enum Text<'a> {
    Plain(&'a [u8]),
    Decoded,
}

impl Text<'_> {
    fn of<'b>(&'b self, scratch: &'b [u8]) -> &'b [u8] {
        match self {
            Text::Plain(text) => text,
            Text::Decoded => scratch,
        }
    }
}

impl Decoder {
    /// Hands each field of `block` to `sink`.
    ///
    /// # Errors
    /// What is wrong with it; the connection is of no more use then.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut sink: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        let mut rest = block;
        let (mut fields, mut bytes) = (0, 0);
        let mut count = |name: &[u8], value: &[u8]| {
            fields += 1;
            bytes += name.len() + value.len();
            sink(name, value);
            match fields > MAX_FIELDS || bytes > MAX_HEAD {
                true => Err("more than 128 header fields, or 64 KiB of them"),
                false => Ok(()),
            }
        };
        while let Some(&first) = rest.first() {
            match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    let (name, value) = self.entry(index)?;
                    count(name, value)?;
                }
                0x20..0x40 => self.resize(integer(&mut rest, 5)?)?,
                _ => {
                    let kept = first >= 0x40;
                    let index = integer(&mut rest, if kept { 6 } else { 4 })?;
                    self.literal(&mut rest, index, kept, &mut count)?;
                }
            }
        }
        Ok(())
    }

    fn literal(
        &mut self,
        rest: &mut &[u8],
        index: usize,
        kept: bool,
        count: &mut impl FnMut(&[u8], &[u8]) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let name = match index {
            0 => string(rest, &mut self.name)?,
            _ => {
                let mut name = std::mem::take(&mut self.name);
                name.clear();
                name.extend_from_slice(self.entry(index)?.0);
                self.name = name;
                Text::Decoded
            }
        };
        let value = string(rest, &mut self.value)?;
        let (name, value) = (name.of(&self.name), value.of(&self.value));
        count(name, value)?;
        if kept {
            let entry = (name.to_vec(), value.to_vec());
            self.keep(entry);
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), &'static str> {
        let place = index.checked_sub(1).ok_or("a header field has the index 0")?;
        if let Some((name, value)) = STATIC.get(place) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let found = self.entries.get(place - STATIC.len());
        let (name, value) = found.ok_or("a header field has an index that does not exist")?;
        Ok((name, value))
    }

    fn keep(&mut self, entry: (Vec<u8>, Vec<u8>)) {
        self.size += entry.0.len() + entry.1.len() + OVERHEAD;
        self.entries.push_front(entry);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit.unwrap_or(TABLE) {
            let Some((name, value)) = self.entries.pop_back() else { return };
            self.size -= name.len() + value.len() + OVERHEAD;
        }
    }

    fn resize(&mut self, limit: usize) -> Result<(), &'static str> {
        if limit > TABLE {
            return Err("the table of header fields was made larger than allowed");
        }
        self.limit = Some(limit);
        self.evict();
        Ok(())
    }
}

/// RFC 7541, 5.1.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, &'static str> {
    let (&first, mut more) = rest.split_first().ok_or(CUT)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        for shift in (0..).step_by(7) {
            let (&byte, after) = more.split_first().ok_or(CUT)?;
            more = after;
            if shift > 21 {
                return Err("a number in a header block is out of all proportion");
            }
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
    }
    *rest = more;
    Ok(value)
}

/// RFC 7541, 5.2; `scratch` takes what was coded.
fn string<'a>(rest: &mut &'a [u8], scratch: &mut Vec<u8>) -> Result<Text<'a>, &'static str> {
    let coded = rest.first().ok_or(CUT)? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (text, after) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = after;
    if !coded {
        return Ok(Text::Plain(text));
    }
    scratch.clear();
    huffman::decode(text, scratch)?;
    Ok(Text::Decoded)
}

/// Appends a field: by its index where the whole of it is in the standard's table, else in plain,
/// never for the target's table.
pub(crate) fn write(out: &mut Vec<u8>, name: &str, value: &str) {
    let whole = STATIC.iter().position(|&entry| entry == (name, value));
    if let Some(place) = whole.filter(|_| !value.is_empty()) {
        return put_integer(out, 0x80, 7, place + 1);
    }
    match STATIC.iter().position(|entry| entry.0 == name) {
        Some(place) => put_integer(out, 0, 4, place + 1),
        None => {
            out.push(0);
            put_string(out, name.as_bytes());
        }
    }
    put_string(out, value.as_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

fn put_integer(out: &mut Vec<u8>, kind: u8, prefix: u32, value: usize) {
    let most = (1usize << prefix) - 1;
    if value < most {
        return out.push(kind | value as u8);
    }
    out.push(kind | most as u8);
    let mut left = value - most;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
        let mut found = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, |name, value| found.push((text(name), text(value))))?;
        Ok(found)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_string(), value.to_string())
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    /// RFC 7541, C.6: three answers over a table of 256 bytes, with Huffman codes and evictions.
    #[test]
    fn the_answers_of_the_standard() {
        let mut decoder = Decoder::default();
        assert_eq!(fields(&mut decoder, &hex("3fe101")), Ok(vec![]));
        let first =
            hex("4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0\
             82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3");
        let date = pair("date", "Mon, 21 Oct 2013 20:13:21 GMT");
        let location = pair("location", "https://www.example.com");
        let private = pair("cache-control", "private");
        let answer = [pair(":status", "302"), private.clone(), date.clone(), location.clone()];
        assert_eq!(fields(&mut decoder, &first).unwrap(), answer);
        assert_eq!(decoder.size, 222);
        let second = fields(&mut decoder, &hex("4883 640e ffc1 c0bf")).unwrap();
        assert_eq!(second, [pair(":status", "307"), private, date, location]);
        let third =
            hex("88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b\
             d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f\
             9587 3160 65c0 03ed 4ee5 b106 3d50 07");
        let third = fields(&mut decoder, &third).unwrap();
        assert_eq!(third[0], pair(":status", "200"));
        assert_eq!(third[4], pair("content-encoding", "gzip"));
        assert!(third[5].1.starts_with("foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600"));
        assert_eq!(decoder.size, 215);
    }

    #[test]
    fn bad_blocks_are_refused() {
        for block in ["80", "ff8000", "be", "7f", "0083", "40018102", "3fe21f", "7fffffffff7f"] {
            assert!(fields(&mut Decoder::default(), &hex(block)).is_err(), "{block}");
        }
        let many: Vec<u8> = std::iter::repeat_n(0x82, 200).collect();
        assert!(fields(&mut Decoder::default(), &many).unwrap_err().contains("128"));
    }

    #[test]
    fn what_is_written_is_small_and_leaves_no_trace() {
        let mut out = Vec::new();
        write(&mut out, ":method", "GET");
        write(&mut out, ":scheme", "https");
        write(&mut out, ":path", "/x");
        assert_eq!(out, [0x82, 0x87, 4, 2, b'/', b'x']);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[a-z:-]{1,200}", value in "[ -~]{0,300}") {
            let (mut out, mut decoder) = (Vec::new(), Decoder::default());
            write(&mut out, &name, &value);
            prop_assert_eq!(fields(&mut decoder, &out), Ok(vec![(name, value)]));
            prop_assert_eq!(decoder.size, 0);
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&mut Decoder::default(), &data);
        }
    }
}
