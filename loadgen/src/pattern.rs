//! Pure: the bytes that bodies and messages are made of: lines of 64, so that whoever receives
//! them can tell whether they are the right ones. Used by members and by clients.

use crate::limits::PATTERN;

static BYTES: [u8; PATTERN] = pattern();

const fn pattern() -> [u8; PATTERN] {
    let mut bytes = [0; PATTERN];
    let alphabet = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";
    let mut at = 0;
    while at < PATTERN {
        bytes[at] = alphabet[at % 64];
        at += 1;
    }
    bytes
}

/// The next bytes of a text of which `left` bytes are missing, from the beginning of a line.
pub(crate) fn piece(left: u64) -> &'static [u8] {
    let length = usize::try_from(left).unwrap_or(PATTERN).min(PATTERN);
    &BYTES[..length]
}

/// At most `length` bytes of the text from `offset` on; some, unless `length` is 0.
pub(crate) fn piece_at(offset: u64, length: usize) -> &'static [u8] {
    let rest = &BYTES[(offset % PATTERN as u64) as usize..];
    &rest[..length.min(rest.len())]
}

/// Whether `data` stands at `offset` of the text.
pub(crate) fn stands_at(offset: u64, data: &[u8]) -> bool {
    let mut at = (offset % PATTERN as u64) as usize;
    let mut rest = data;
    while !rest.is_empty() {
        let take = rest.len().min(PATTERN - at);
        if rest[..take] != BYTES[at..at + take] {
            return false;
        }
        rest = &rest[take..];
        at = 0;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_lines_of_64() {
        assert_eq!(piece(0), b"");
        assert_eq!(piece(u64::MAX).len(), PATTERN);
        assert!(piece(1000).split(|&b| b == b'\n').take(15).all(|line| line.len() == 63));
    }

    #[test]
    fn places_are_known() {
        let all = [piece(u64::MAX), piece(100)].concat();
        assert!(stands_at(0, &all));
        assert!(stands_at(7, &all[7..]));
        assert!(stands_at(PATTERN as u64 + 3, &all[3..70]));
        assert!(!stands_at(1, &all));
        assert!(stands_at(5, b""));
        assert_eq!((piece_at(7, 3), piece_at(PATTERN as u64 - 1, 9)), (&b"789"[..], &b"\n"[..]));
    }
}
