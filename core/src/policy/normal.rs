//! The one form in which hosts and paths are compared, so that two ways of writing the same thing
//! meet the same policy. What goes to a member is not changed by any of this.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};

/// A path with percent-encoded unreserved characters decoded, other encodings in capitals, and
/// without dot segments (RFC 3986, 6.2.2 and 5.2.4). `%2F` stays what it is: no slash. `buffer` is
/// used when something has to change.
#[inline]
pub fn path<'a>(raw: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let mut before = 0;
    let plain = raw.iter().all(|&byte| {
        let sound = byte != b'%' && !(byte == b'.' && before == b'/');
        before = byte;
        sound
    });
    if plain {
        return raw;
    }
    decode_unreserved(raw, buffer);
    if buffer.first() == Some(&b'/') {
        remove_dot_segments(buffer);
    }
    buffer
}

/// The beginning of a path as [`path`] would have it: dots stay, since more may follow.
#[must_use]
pub fn path_prefix(raw: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::new();
    decode_unreserved(raw, &mut buffer);
    buffer
}

/// A path as a person writes it: what no request can hold as it is (blanks, other than ASCII) is
/// percent-encoded.
#[must_use]
pub fn written(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() { out.push(byte) } else { push_encoded(&mut out, byte) }
    }
    out
}

/// A host without port and trailing dot, in lower case; an IPv6 address without brackets, in its
/// shortest form. `buffer` is used when something has to change.
#[inline]
pub fn host<'a>(raw: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if let [b'[', rest @ ..] = raw {
        return literal(rest, buffer);
    }
    let name = match raw.iter().rposition(|&byte| byte == b':') {
        Some(colon) => raw.get(..colon).unwrap_or_default(),
        None => raw,
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    if !name.iter().any(u8::is_ascii_uppercase) {
        return name;
    }
    buffer.clear();
    buffer.extend(name.iter().map(u8::to_ascii_lowercase));
    buffer
}

/// A host of the configuration in the same form.
#[must_use]
pub fn written_host(text: &str) -> Vec<u8> {
    match text.parse::<IpAddr>() {
        Ok(address) => address.to_string().into_bytes(),
        Err(_) => text.to_ascii_lowercase().into_bytes(),
    }
}

/// `rest`: behind the bracket of an IPv6 address.
#[cold]
fn literal<'a>(rest: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let inner = rest.split(|&byte| byte == b']').next().unwrap_or_default();
    let parsed = std::str::from_utf8(inner).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
    let Some(address) = parsed else { return inner };
    buffer.clear();
    // Cannot fail: a vector takes everything.
    let _ = write!(buffer, "{address}");
    buffer
}

fn decode_unreserved(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let encoded = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(h, l)| h << 4 | l),
            _ => None,
        };
        let Some(byte) = encoded else {
            out.push(*first);
            continue;
        };
        rest = tail.get(2..).unwrap_or_default();
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            push_encoded(out, byte);
        }
    }
}

/// In place: what is written never overtakes what is read.
fn remove_dot_segments(path: &mut Vec<u8>) {
    let (mut read, mut write) = (0, 0);
    while read < path.len() {
        let segment = path.get(read + 1..).unwrap_or_default();
        let length = segment.iter().position(|&byte| byte == b'/').unwrap_or(segment.len());
        let segment = segment.get(..length).unwrap_or_default();
        let (end, dots) = (read + 1 + length, matches!(segment, b"." | b".."));
        if segment == b".." {
            let kept = path.get(..write).unwrap_or_default();
            write = kept.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        }
        // Of a dot segment at the end its slash stays.
        let keep = match dots {
            true if end < path.len() => read..read,
            true => read..read + 1,
            false => read..end,
        };
        let kept = keep.len();
        path.copy_within(keep, write);
        write += kept;
        read = end;
    }
    path.truncate(write);
}

/// The bytes of an argument of a query: percent-encoding decoded, `+` a blank.
pub(super) fn argument(raw: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let [first, tail @ ..] = rest else { return None };
        rest = tail;
        let encoded = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        Some(match (first, encoded) {
            (_, Some((high, low))) => {
                rest = tail.get(2..).unwrap_or_default();
                high << 4 | low
            }
            (b'+', None) => b' ',
            (byte, None) => *byte,
        })
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Appends `byte` percent-encoded.
pub(super) fn push_encoded(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        let mut buffer = Vec::new();
        String::from_utf8(path(raw.as_bytes(), &mut buffer).to_vec()).unwrap()
    }

    /// R10.5-3: encodings and dots don't lead around a policy.
    #[test]
    fn paths() {
        for (raw, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/%61%2D%7e", "/a-~"),
            ("/a%2fb%3f", "/a%2Fb%3F"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/../../x", "/x"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x/%252e%252e/admin", "/x/%252e%252e/admin"),
            ("/.well-known/a", "/.well-known/a"),
            ("/a/...", "/a/..."),
            ("/a//../b", "/a/b"),
            ("//a", "//a"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz%", "/%zz%"),
            ("*", "*"),
        ] {
            assert_eq!(normal(raw), wanted, "{raw}");
        }
        assert_eq!(path_prefix(b"/%61/."), b"/a/.");
        assert_eq!(written("/\u{fc} x"), b"/%C3%BC%20x");
    }

    #[test]
    fn hosts() {
        for (raw, wanted) in [
            ("a.example", "a.example"),
            ("A.Example:8080", "a.example"),
            ("a.example.", "a.example"),
            ("a.example.:80", "a.example"),
            ("[0:0::1]:80", "::1"),
            ("[::1]", "::1"),
            ("1.2.3.4:5", "1.2.3.4"),
            ("", ""),
        ] {
            let mut buffer = Vec::new();
            assert_eq!(host(raw.as_bytes(), &mut buffer), wanted.as_bytes(), "{raw}");
        }
        assert_eq!(written_host("0:0::1"), b"::1");
    }

    #[test]
    fn arguments() {
        let read = |raw: &str| String::from_utf8(argument(raw.as_bytes()).collect()).unwrap();
        assert_eq!(read("a+b%20c%2b%"), "a b c+%");
    }

    proptest! {
        /// What comes out has no dot segments, begins with a slash, and is its own normal form
        /// (but for a percent sign that encodes nothing and comes to stand before two digits).
        #[test]
        fn normal_paths_are_normal(raw in "(/|\\.|%2e|%2F|%41|a|%25){0,24}") {
            let raw = format!("/{raw}");
            let once = normal(&raw);
            prop_assert!(once.starts_with('/'), "{once}");
            prop_assert!(!once.split('/').any(|part| part == "." || part == ".."), "{once}");
            prop_assert_eq!(normal(&once), once);
        }
    }
}
