//! Pure: encoding of header blocks (RFC 7541, 6). A field that comes again and again is entered
//! into the table when it is seen for the second time and is one or two bytes from then on; what is
//! different in every head never pushes those out.

use super::table::{ENTRY_OVERHEAD, STATIC, Table};
use super::{DEFAULT_TABLE, huffman};

/// Places of `found`, in pairs; a power of two.
const FOUND: usize = 256;
/// Places of `seen`; a power of two.
const SEEN: usize = 128;

/// The encoder of one connection.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Table,
    /// Entries made so far, wrapping.
    made: u16,
    /// By hash: the number of the entry that may have this name and value.
    found: [u16; FOUND],
    /// By hash: the mark of a field that was sent as a literal.
    seen: [u16; SEEN],
    /// The smallest size since the last block, while the peer has not been told of a change.
    shrunk: Option<usize>,
}

impl Encoder {
    /// An encoder at the start of a connection.
    pub(crate) const fn new() -> Encoder {
        let table = Table::new(DEFAULT_TABLE);
        Encoder { table, made: 0, found: [0; FOUND], seen: [0; SEEN], shrunk: None }
    }

    /// The peer allows a table of `size` bytes (SETTINGS_HEADER_TABLE_SIZE); more than the default
    /// is not used.
    pub(crate) fn allow(&mut self, size: u32) {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(DEFAULT_TABLE);
        if size != self.table.max() {
            self.shrunk = Some(self.shrunk.map_or(size, |least| least.min(size)));
            self.table.resize(size);
        }
    }

    /// Begins a block: tells of changed sizes (RFC 7541, 4.2).
    #[inline]
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(least) = self.shrunk.take() {
            let max = self.table.max();
            if least < max {
                integer(least, 0x1f, 0x20, out);
            }
            integer(max, 0x1f, 0x20, out);
        }
    }

    /// Appends the status of a response.
    #[inline]
    pub(crate) fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let digit = |unit: u16| b'0' + (status / unit % 10) as u8;
                return self.field(b":status", &[digit(100), digit(10), digit(1)], out);
            }
        };
        out.push(0x80 | index);
    }

    /// Appends a field; its name may have capital letters, which are written small.
    #[inline]
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let hash = hash(name, value);
        match self.find(hash, name, value) {
            Some(index) => integer(STATIC.len() + 1 + index, 0x7f, 0x80, out),
            None => self.literal(hash, name, value, out),
        }
    }

    /// The entry with this name and value, counted from the newest.
    #[inline]
    fn find(&self, hash: u64, name: &[u8], value: &[u8]) -> Option<usize> {
        let pair = (hash as usize) & (FOUND - 2);
        [pair, pair + 1].into_iter().find_map(|place| {
            let index = usize::from(self.made.wrapping_sub(1).wrapping_sub(self.found[place]));
            let (known, its_value, _) = self.table.get(index)?;
            (its_value == value && known.eq_ignore_ascii_case(name)).then_some(index)
        })
    }

    #[inline(never)]
    fn literal(&mut self, hash: u64, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let known = static_name(name);
        if let Some(index) = static_field(known, value) {
            return integer(index, 0x7f, 0x80, out);
        }
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        let (mask, first) = if is_secret(known) {
            (0x0f, 0x10)
        } else if size > self.table.max() / 4 || !self.seen_before(hash) {
            (0x0f, 0x00)
        } else {
            self.enter(hash, name, value);
            (0x3f, 0x40)
        };
        integer(known, mask, first, out);
        if known == 0 {
            string(name.iter().map(u8::to_ascii_lowercase), name.len(), out);
        }
        string(value.iter().copied(), value.len(), out);
    }

    /// Whether this field was a literal before; if not, it was from now on.
    fn seen_before(&mut self, hash: u64) -> bool {
        let mark = (hash >> 40) as u16 | 1;
        std::mem::replace(&mut self.seen[(hash >> 32) as usize & (SEEN - 1)], mark) == mark
    }

    /// Makes an entry. The name's case does not matter to `find`, and nobody else reads it.
    fn enter(&mut self, hash: u64, name: &[u8], value: &[u8]) {
        self.table.insert(name, value, true);
        let pair = (hash as usize) & (FOUND - 2);
        self.found[pair + 1] = std::mem::replace(&mut self.found[pair], self.made);
        self.made = self.made.wrapping_add(1);
    }
}

/// The first index of the static table with this name; zero: it has none.
fn static_name(name: &[u8]) -> usize {
    let first = name.first().map(u8::to_ascii_lowercase);
    let same = |known: &[u8]| {
        known.len() == name.len()
            && known.first().copied() == first
            && known.eq_ignore_ascii_case(name)
    };
    STATIC.iter().position(|(known, _)| same(known)).map_or(0, |place| place + 1)
}

/// The index of the static entry with this value, among those that have the name of entry `known`.
fn static_field(known: usize, value: &[u8]) -> Option<usize> {
    let place = known.checked_sub(1)?;
    let (name, _) = STATIC.get(place)?;
    let same_name = STATIC.iter().skip(place).take_while(|(other, _)| other == name);
    let found = same_name.map(|(_, value)| *value).position(|its| its == value)?;
    Some(known + found)
}

/// Fields that no table on the way may hold: authorization, cookie, proxy-authorization and
/// set-cookie (RFC 7541, 7.1.3).
fn is_secret(known: usize) -> bool {
    matches!(known, 23 | 32 | 49 | 55)
}

/// Appends an integer behind the bits `first` (RFC 7541, 5.1); `mask` has those that are free.
#[inline]
fn integer(number: usize, mask: u8, first: u8, out: &mut Vec<u8>) {
    if number < usize::from(mask) {
        return out.push(first | number as u8);
    }
    out.push(first | mask);
    let mut rest = number - usize::from(mask);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string literal in the shorter of its two forms.
fn string(text: impl Iterator<Item = u8> + Clone, len: usize, out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(text.clone());
    if coded < len {
        integer(coded, 0x7f, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer(len, 0x7f, 0x00, out);
        out.extend(text);
    }
}

/// A number for name and value; that of the name is the same in either case.
#[inline]
fn hash(name: &[u8], value: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    const SMALL: u64 = 0x2020_2020_2020_2020;
    let step = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let fold = |hash: u64, text: &[u8], small: u64| {
        let (words, rest) = text.as_chunks::<8>();
        let hash = words.iter().fold(hash, |h, word| step(h, u64::from_le_bytes(*word) | small));
        let last = rest.iter().fold(0, |word, &byte| word << 8 | u64::from(byte | small as u8));
        step(hash, last)
    };
    let hash = fold((name.len() as u64) << 32 | value.len() as u64, name, SMALL);
    let hash = fold(hash, value, 0);
    hash ^ hash >> 29
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
