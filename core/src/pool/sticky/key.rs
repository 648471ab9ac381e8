//! The secret of a process, the key of a pool that follows from it, and keyed hashes (SipHash-2-4
//! with 128 bits, a pseudorandom function): who doesn't know the key can neither find nor foresee
//! a value.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::model::Id;

/// What the keys of all pools follow from. Processes with the same one understand each other's
/// cookies.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// A secret of these bytes, which should come from a source of randomness.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Secret {
        Secret(bytes)
    }

    /// Its bytes, for a process that takes over; to be handed on, never to be kept elsewhere.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// The key of the pool with this id; the same in every process with the same secret.
    #[must_use]
    pub fn key(&self, pool: Id) -> Key {
        Key(hash(&self.0, b'p', pool.as_bytes()).to_be_bytes())
    }
}

/// Nothing of it is shown.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The key of one pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 16]);

impl Key {
    /// What stands for a member in cookies: follows from its id, tells nothing about it.
    #[must_use]
    pub fn alias(&self, member: Id) -> u64 {
        hash(&self.0, b'm', member.as_bytes()) as u64
    }

    /// What stands for a session that is told by `value`; never 0.
    #[must_use]
    pub fn session(&self, value: &[u8]) -> u64 {
        (hash(&self.0, b's', value) as u64).max(1)
    }

    /// Shows that `text` was written by who has the key.
    pub(super) fn seal(&self, text: &[u8]) -> u128 {
        hash(&self.0, b't', text)
    }
}

/// Nothing of it is shown.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The use goes in front, so that a hash for one can't be taken for another's.
fn hash(key: &[u8; 16], use_of: u8, bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&[use_of]);
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written down: a version that hashes otherwise would end every session.
    #[test]
    fn hashes_stay_what_they_are() {
        let key = Secret::new(*b"0123456789abcdef").key(Id::from_u128(1));
        let again = Secret::new(*b"0123456789abcdef").key(Id::from_u128(1));
        assert_eq!(key, again);
        assert_eq!(key.alias(Id::from_u128(7)), again.alias(Id::from_u128(7)));
        assert_ne!(key, Secret::new(*b"0123456789abcdef").key(Id::from_u128(2)));
        assert_ne!(key, Secret::new(*b"0123456789abcdeg").key(Id::from_u128(1)));
        assert_ne!(key.alias(Id::from_u128(7)), key.alias(Id::from_u128(8)));
        assert_ne!(key.session(b"a"), key.session(b"b"));
        assert_eq!(format!("{key:?}"), "Key");
    }
}
