//! Pure: looks for a text in bytes that arrive in any pieces (Knuth, Morris and Pratt). Used by
//! `response` for `--expect-body`.

/// What is looked for. Made once, used by all connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle {
    bytes: Vec<u8>,
    /// For each place: how long a beginning of the text ends there.
    borders: Vec<usize>,
}

/// How far the search in one body has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    matched: usize,
    there: bool,
}

impl Needle {
    /// An empty text is found in every body that has a byte.
    pub fn new(text: &[u8]) -> Needle {
        let mut borders = vec![0; text.len()];
        let mut length = 0;
        for at in 1..text.len() {
            while length > 0 && text[at] != text[length] {
                length = borders[length - 1];
            }
            if text[at] == text[length] {
                length += 1;
            }
            borders[at] = length;
        }
        Needle { bytes: text.to_vec(), borders }
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.bytes
    }
}

impl Found {
    /// Looks at the next bytes.
    pub fn feed(&mut self, needle: &Needle, data: &[u8]) {
        for &byte in data {
            if self.there {
                return;
            }
            while self.matched > 0 && needle.bytes[self.matched] != byte {
                self.matched = needle.borders[self.matched - 1];
            }
            if needle.bytes.get(self.matched) == Some(&byte) {
                self.matched += 1;
            }
            self.there = self.matched == needle.bytes.len();
        }
    }

    /// The text was seen.
    pub fn is_there(&self) -> bool {
        self.there
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(needle: &[u8], pieces: &[&[u8]]) -> bool {
        let needle = Needle::new(needle);
        let mut found = Found::default();
        pieces.iter().for_each(|piece| found.feed(&needle, piece));
        found.is_there()
    }

    #[test]
    fn texts_across_pieces() {
        assert!(found(b"hello", &[b"xhel", b"lo"]));
        assert!(found(b"aab", &[b"aaa", b"b"]));
        assert!(!found(b"hello", &[b"hell", b"hell"]));
        assert!(!found(b"a", &[]));
    }

    proptest! {
        #[test]
        fn as_a_plain_search(
            needle in "[ab]{1,5}", text in "[ab]{0,40}", cut in 0usize..40,
        ) {
            let (left, right) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(found(needle.as_bytes(), &[left, right]), text.contains(&needle));
        }
    }
}
