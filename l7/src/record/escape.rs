//! Pure: bytes of clients made harmless. Whatever comes in, no line break, no quote and no control
//! character goes out raw, so that nobody forges a line or a field, or drives a terminal.

/// Appends `raw` for a quoted field of the ELB's form: `"`, `\` and every byte that is not
/// printable ASCII as `\xHH`. What would go beyond `limit` bytes is cut off.
pub(super) fn text(out: &mut Vec<u8>, raw: &[u8], limit: usize) {
    let plain = |b: &u8| (b' '..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    if raw.len() <= limit && raw.iter().all(plain) {
        return out.extend_from_slice(raw);
    }
    let end = out.len() + limit;
    for byte in raw {
        let room = end.saturating_sub(out.len());
        match byte {
            byte if plain(byte) && room >= 1 => out.push(*byte),
            byte if !plain(byte) && room >= 4 => {
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&hex(*byte));
            }
            _ => return,
        }
    }
}

/// Appends `raw` as the inside of a JSON string (RFC 8259, 7). Control characters of both sets,
/// line and paragraph separators become `\uHHHH`; a byte that is no UTF-8 becomes U+FFFD. What
/// would go beyond `limit` bytes is cut off.
pub(super) fn json(out: &mut Vec<u8>, raw: &[u8], limit: usize) {
    let plain = |b: &u8| (b' '..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    if raw.len() <= limit && raw.iter().all(plain) {
        return out.extend_from_slice(raw);
    }
    let end = out.len() + limit;
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            if !json_char(out, c, end) {
                return;
            }
        }
        if !chunk.invalid().is_empty() && !json_char(out, char::REPLACEMENT_CHARACTER, end) {
            return;
        }
    }
}

/// `false` when there is no room before `end`.
fn json_char(out: &mut Vec<u8>, c: char, end: usize) -> bool {
    let room = end.saturating_sub(out.len());
    let mut utf8 = [0; 4];
    let escaped = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if escaped && room >= 6 {
        let [high, low] = (c as u16).to_be_bytes();
        out.extend_from_slice(b"\\u");
        out.extend_from_slice(&hex(high));
        out.extend_from_slice(&hex(low));
    } else if matches!(c, '"' | '\\') && room >= 2 {
        out.extend_from_slice(&[b'\\', c as u8]);
    } else if !escaped && !matches!(c, '"' | '\\') && room >= c.len_utf8() {
        out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    } else {
        return false;
    }
    true
}

fn hex(byte: u8) -> [u8; 2] {
    let digit = |nibble: u8| b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or(b'0');
    [digit(byte >> 4), digit(byte & 15)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescape(text: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        let mut rest = text;
        while let Some((&byte, more)) = rest.split_first() {
            rest = more;
            if byte == b'\\' {
                assert_eq!(rest[0], b'x');
                let digits = std::str::from_utf8(&rest[1..3]).unwrap();
                raw.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &rest[3..];
            } else {
                raw.push(byte);
            }
        }
        raw
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_from_the_elb_form(raw: Vec<u8>) {
            let mut out = Vec::new();
            text(&mut out, &raw, usize::MAX / 2);
            prop_assert!(out.iter().all(|b| (b' '..0x7f).contains(b) && *b != b'"'));
            prop_assert_eq!(unescape(&out), raw);
        }

        #[test]
        fn any_bytes_make_a_json_string(raw: Vec<u8>) {
            let mut out = vec![b'"'];
            json(&mut out, &raw, usize::MAX / 2);
            out.push(b'"');
            prop_assert!(!out.iter().any(u8::is_ascii_control));
            let back: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&raw));
        }

        #[test]
        fn a_cut_leaves_whole_escapes(raw: Vec<u8>, limit in 0..40usize) {
            let mut out = Vec::new();
            text(&mut out, &raw, limit);
            prop_assert!(out.len() <= limit && raw.starts_with(&unescape(&out)));
            let mut out = vec![b'"'];
            json(&mut out, &raw, limit);
            prop_assert!(out.len() <= limit + 1);
            out.push(b'"');
            let back: String = serde_json::from_slice(&out).unwrap();
            prop_assert!(String::from_utf8_lossy(&raw).starts_with(&back));
        }
    }

    #[test]
    fn hostile_bytes() {
        let raw = b"a\"b\\c\r\n\x1b[2J\x00\x7f\xc3\xa9\xff\xe2\x80\xa8";
        let mut out = Vec::new();
        text(&mut out, raw, 1_000);
        assert_eq!(out, br"a\x22b\x5Cc\x0D\x0A\x1B[2J\x00\x7F\xC3\xA9\xFF\xE2\x80\xA8");
        let mut out = Vec::new();
        json(&mut out, raw, 1_000);
        let expected = "a\\\"b\\\\c\\u000D\\u000A\\u001B[2J\\u0000\\u007F\u{e9}\u{fffd}\\u2028";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
