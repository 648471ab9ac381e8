//! The value of the cookie that Weir sets (R11.4-3): a version, when the binding ends, what stands
//! for the member, and a seal over it all; in lower-case hexadecimal. It shows neither address nor
//! id, and any change of it shows.

use super::Key;

/// Of this form of the value.
const VERSION: u8 = b'1';
/// Bytes in front of the seal: end (seconds since 1970) and alias.
const BODY: usize = 16;
/// Bytes that are written in hexadecimal.
const BYTES: usize = BODY + 16;
/// Characters of a value.
pub const LEN: usize = 1 + 2 * BYTES;

/// A value, ready to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token([u8; LEN]);

impl Token {
    /// Its characters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why a value binds to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has not this form.
    Malformed,
    /// It was not written with this key, or was changed.
    Forged,
    /// Its time is over (R2.2-6).
    Expired,
}

/// The value that binds to the member with this alias until `until` (seconds since 1970).
#[must_use]
pub fn mint(key: &Key, alias: u64, until: u64) -> Token {
    let mut bytes = [0; BYTES];
    let (body, seal) = bytes.split_at_mut(BODY);
    let (end, member) = body.split_at_mut(8);
    end.copy_from_slice(&until.to_be_bytes());
    member.copy_from_slice(&alias.to_be_bytes());
    seal.copy_from_slice(&key.seal(body).to_be_bytes());
    let mut text = [VERSION; LEN];
    let digits = text.iter_mut().skip(1);
    for (digit, nibble) in digits.zip(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15])) {
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    Token(text)
}

/// The alias of the member that `value` binds to at `now` (seconds since 1970).
///
/// # Errors
/// It binds to nobody.
pub fn verify(key: &Key, value: &[u8], now: u64) -> Result<u64, Refusal> {
    let (version, digits) = value.split_first().ok_or(Refusal::Malformed)?;
    if *version != VERSION || digits.len() != 2 * BYTES {
        return Err(Refusal::Malformed);
    }
    let mut bytes = [0u8; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = pair.iter().try_fold(0, |byte, &digit| Some((byte << 4) | nibble(digit)?));
        *byte = pair.ok_or(Refusal::Malformed)?;
    }
    let (body, seal) = bytes.split_at(BODY);
    if key.seal(body).to_be_bytes() != seal {
        return Err(Refusal::Forged);
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &byte| (n << 8) | u64::from(byte));
    let (end, alias) = body.split_at(8);
    if number(end) <= now { Err(Refusal::Expired) } else { Ok(number(alias)) }
}

/// Lower case only: a value has one form.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Secret;
    use super::*;
    use crate::model::Id;

    fn key() -> Key {
        Secret::new(*b"a secret of ours").key(Id::from_u128(5))
    }

    /// R11.4-3, R2.2-6: it holds to the second, and only for the pool that it was made for.
    #[test]
    fn a_value_holds_until_its_end() {
        let token = mint(&key(), 42, 1_000);
        assert_eq!(token.as_bytes().len(), LEN);
        assert_eq!(verify(&key(), token.as_bytes(), 999), Ok(42));
        assert_eq!(verify(&key(), token.as_bytes(), 1_000), Err(Refusal::Expired));
        let other = Secret::new(*b"a secret of ours").key(Id::from_u128(6));
        assert_eq!(verify(&other, token.as_bytes(), 0), Err(Refusal::Forged));
        let upper = token.as_bytes().to_ascii_uppercase();
        assert_eq!(verify(&key(), &upper, 0), Err(Refusal::Malformed));
        for value in [&b""[..], b"1", b"2", b"127.0.0.1:80", &[b'1'; LEN - 1], &[b'g'; LEN]] {
            assert_eq!(verify(&key(), value, 0), Err(Refusal::Malformed), "{value:?}");
        }
        assert_eq!(verify(&key(), &[b'1'; LEN], 0), Err(Refusal::Forged));
    }

    proptest! {
        /// R2.2-5: any change of any character shows.
        #[test]
        fn no_change_goes_unseen(alias: u64, until in 1u64.., at in 0..LEN, to: u8) {
            let token = mint(&key(), alias, until);
            prop_assert_eq!(verify(&key(), token.as_bytes(), 0), Ok(alias));
            let mut changed = token.as_bytes().to_vec();
            changed[at] = to;
            let same = changed == token.as_bytes();
            prop_assert_eq!(verify(&key(), &changed, 0).is_ok(), same);
        }

        /// Any bytes at all: no panic, and nothing is believed.
        #[test]
        fn no_bytes_are_believed(value: Vec<u8>, tail in "[0-9a-f]{64}") {
            prop_assert!(verify(&key(), &value, 0).is_err());
            let well_formed = ["1", &tail].concat();
            prop_assert_eq!(verify(&key(), well_formed.as_bytes(), 0), Err(Refusal::Forged));
        }
    }
}
