//! Readers that share no code with those under test: a strict one, which takes only the form that
//! Weir writes, a careless one, which reads heads as lenient programs do, and one for chunks.

use super::promise;

/// A head, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// The start line.
    pub(super) first: &'a [u8],
    /// Names and values.
    pub(super) fields: Vec<(&'a [u8], &'a [u8])>,
}

impl Head<'_> {
    /// Values of all fields of this name.
    pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = |(n, _): &&(&[u8], &[u8])| n.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|(_, value)| *value).collect()
    }
}

/// Takes a head only in the form that Weir writes: lines of printable bytes that end in CR LF,
/// `name: value`, an empty line at the very end.
pub(super) fn strict(head: &[u8]) -> Result<Head<'_>, String> {
    let body = head.strip_suffix(b"\r\n\r\n").ok_or("no empty line at the end")?;
    let mut lines = body.split(|&b| b == b'\n').peekable();
    let mut found = Head { first: b"", fields: Vec::new() };
    let mut first = true;
    while let Some(line) = lines.next() {
        let line = match lines.peek() {
            Some(_) => line.strip_suffix(b"\r").ok_or("a line without CR")?,
            None => line,
        };
        let printable = line.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f));
        promise(printable, "a line holds control bytes", line)?;
        if std::mem::take(&mut first) {
            found.first = line;
            continue;
        }
        let colon = line.iter().position(|&b| b == b':').ok_or("a line without a colon")?;
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b": ").ok_or("no space behind a colon")?;
        let token =
            name.iter().all(|&b| b.is_ascii_graphic() && !b"(),/:;<=>?@[\\]{}\"".contains(&b));
        promise(token && !name.is_empty(), "a name is no token", line)?;
        promise(value == value.trim_ascii(), "space around a value", line)?;
        found.fields.push((name, value));
    }
    Ok(found)
}

/// What a careless program makes of body framing: any line end, space around names, folded lines,
/// `_` for `-`, numbers up to the first byte that is no digit, lists of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Careless {
    /// Every number in a field that looks like Content-Length.
    pub(super) lengths: Vec<u64>,
    /// Some field that looks like Transfer-Encoding says "chunked" somewhere.
    pub(super) chunked: bool,
    /// Fields that look like Host.
    pub(super) hosts: usize,
    /// Empty lines before the end.
    pub(super) early_ends: usize,
}

/// Reads a head carelessly; with `twins` a `_` in a name counts as `-`.
pub(super) fn careless(head: &[u8], twins: bool) -> Careless {
    let mut found = Careless::default();
    let mut lines = head.split(|&b| b == b'\n' || b == b'\r' || b == 0).skip(1);
    let mut empty = 0;
    for line in lines.by_ref() {
        // CR LF is one empty piece; two line ends in a row are three.
        empty = if line.is_empty() { empty + 1 } else { 0 };
        found.early_ends += usize::from(empty == 3);
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let mut name = name.trim_ascii().to_ascii_lowercase();
        if twins {
            name.iter_mut().filter(|b| **b == b'_').for_each(|b| *b = b'-');
        }
        let value = value.get(1..).unwrap_or_default();
        match name.as_slice() {
            b"content-length" => found.lengths.extend(value.split(|&b| b == b',').map(number)),
            b"transfer-encoding" => {
                let lower = value.to_ascii_lowercase();
                found.chunked |= lower.windows(7).any(|part| part == b"chunked");
            }
            b"host" => found.hosts += 1,
            _ => {}
        }
    }
    // The head's own end.
    found.early_ends = found.early_ends.saturating_sub(1);
    found
}

/// CR and LF stand only in pairs.
pub(super) fn paired_line_ends(head: &[u8]) -> bool {
    let count = |b: u8| head.iter().filter(|&&other| other == b).count();
    let pairs = head.windows(2).filter(|pair| pair == b"\r\n").count();
    count(b'\r') == pairs && count(b'\n') == pairs
}

/// As C's `atoi`.
fn number(text: &[u8]) -> u64 {
    let digits = text.trim_ascii().iter().map_while(|b| (*b as char).to_digit(10));
    digits.fold(0, |n, digit| n.wrapping_mul(10).wrapping_add(u64::from(digit)))
}

/// What a chunked body comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// The end has not come.
    Incomplete,
    /// It can't be one.
    Malformed,
    /// Its data, and the bytes that it took.
    Whole(Vec<u8>, usize),
}

/// Reads a chunked body (RFC 9112, 7.1) line by line.
pub(super) fn chunks(input: &[u8], longest_line: usize) -> Chunks {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let Some((line, next)) = line(input, at) else { return Chunks::Incomplete };
        let size = line.filter(|line| line.len() < longest_line).and_then(size);
        let Some(size) = size else { return Chunks::Malformed };
        at = next;
        if size == 0 {
            return trailers(input, at, data);
        }
        let Some(end) = usize::try_from(size).ok().and_then(|size| at.checked_add(size)) else {
            return Chunks::Incomplete;
        };
        let Some(chunk) = input.get(at..end) else { return Chunks::Incomplete };
        data.extend_from_slice(chunk);
        match input.get(end..end + 2) {
            Some(b"\r\n") => at = end + 2,
            Some(_) => return Chunks::Malformed,
            None => return Chunks::Incomplete,
        }
    }
}

fn trailers(input: &[u8], mut at: usize, data: Vec<u8>) -> Chunks {
    loop {
        let Some((line, next)) = line(input, at) else { return Chunks::Incomplete };
        at = next;
        match line {
            Some([]) => return Chunks::Whole(data, at),
            Some(line) if is_field(line) => {}
            _ => return Chunks::Malformed,
        }
    }
}

fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&b| b == b':') else { return false };
    let name = line.get(..colon).unwrap_or_default();
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(token)
}

/// The line at `at` without its end, and where the next one begins. The line is `None` when it
/// holds control bytes or doesn't end in CR LF; the whole is `None` while it has not ended.
fn line(input: &[u8], at: usize) -> Option<(Option<&[u8]>, usize)> {
    let rest = input.get(at..)?;
    let end = rest.iter().position(|&b| b == b'\n')?;
    let line = rest.get(..end)?.strip_suffix(b"\r");
    let clean = |line: &&[u8]| line.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f));
    Some((line.filter(clean), at + end + 1))
}

/// The size in a chunk-size line whose extension, if there is one, is well formed.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at_checked(digits).filter(|_| (1..=16).contains(&digits))?;
    let extension = extension.trim_ascii_start();
    let bare = extension.is_empty() && line.len() == digits;
    let mut quoted = false;
    let mut bytes = extension.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => drop(bytes.next()),
            _ => {}
        }
    }
    let well_formed = bare || (extension.starts_with(b";") && !quoted);
    let size = std::str::from_utf8(size).ok().filter(|_| well_formed)?;
    u64::from_str_radix(size, 16).ok()
}
