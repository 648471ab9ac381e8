//! Pure: WebSocket's opening in HTTP/1.1 (RFC 6455, 4), for clients that open one on a stream of
//! HTTP/2, where its key has no place (RFC 8441, 5).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What a member makes its answer to a key with.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key made up for one request: 16 bytes in base64. It tells an answer to this request from one
/// that a cache kept, and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; 24]);

impl Key {
    /// The key of a request that nothing else has this number.
    pub(crate) fn of(number: u128) -> Key {
        let mut text = [0; 24];
        encode(&number.to_be_bytes(), &mut text);
        Key(text)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the answer to it.
    pub(crate) fn is_accepted_by(&self, accept: &[u8]) -> bool {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&self.0, GUID].concat());
        let mut text = [0; 28];
        encode(hash.as_ref(), &mut text);
        accept == text
    }
}

/// Base64 with padding; `out` has four bytes for each three begun.
fn encode(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (three, four) in bytes.chunks(3).zip(out.chunks_exact_mut(4)) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, digit) in four.iter_mut().enumerate() {
            let value = bits >> (18 - 6 * at) & 63;
            *digit = if at <= three.len() { DIGITS[value as usize] } else { b'=' };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, 1.3.
    #[test]
    fn the_answer_to_a_key() {
        let key = Key(*b"dGhlIHNhbXBsZSBub25jZQ==");
        assert!(key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo") && !key.is_accepted_by(b""));
        assert_eq!(Key::of(u128::from_be_bytes(*b"the sample nonce")), key);
    }
}
