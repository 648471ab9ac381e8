//! Who a request comes from, and what it is called: the address that counts as the client's and the
//! request's id. Made for each request, without allocation; rules, source hashing, the log and
//! error pages read it.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr};

use weir_core::pool::hash_address;

use crate::limits::MAX_REQUEST_ID;

/// Digits of an id of our own.
const OWN_DIGITS: usize = 32;

/// What is known of a request's origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The client's address: the connection's, or what the X-Forwarded-For of a trusted proxy
    /// says.
    pub(crate) address: IpAddr,
    /// The request's id.
    pub(crate) id: RequestId,
}

impl Identity {
    /// For source hashing.
    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        hash_address(self.address)
    }
}

impl Default for Identity {
    fn default() -> Self {
        Identity { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), id: RequestId::Own(0, 0) }
    }
}

/// A request's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// Ours: the shard's own start, and the number of the request.
    Own(u64, u64),
    /// Taken over from a trusted proxy.
    Kept(IdText),
}

/// An id as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdText {
    bytes: [u8; MAX_REQUEST_ID],
    len: u8,
}

impl RequestId {
    /// As text: 32 hexadecimal digits, or what the proxy sent.
    pub(crate) fn text(&self) -> IdText {
        let (start, number) = match self {
            RequestId::Kept(text) => return *text,
            RequestId::Own(start, number) => (*start, *number),
        };
        let mut text = IdText { bytes: [0; MAX_REQUEST_ID], len: OWN_DIGITS as u8 };
        let id = u128::from(start) << 64 | u128::from(number);
        for (at, byte) in text.bytes.iter_mut().take(OWN_DIGITS).enumerate() {
            let digit = id >> (4 * (OWN_DIGITS - 1 - at)) & 15;
            *byte = b"0123456789abcdef"[digit as usize];
        }
        text
    }

    /// Takes an id over; `None` when it is empty, too long, or has bytes that could mean something
    /// in a log or a header.
    pub(crate) fn keep(value: &[u8]) -> Option<RequestId> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(b);
        if value.is_empty() || !value.iter().all(plain) {
            return None;
        }
        let mut bytes = [0; MAX_REQUEST_ID];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(RequestId::Kept(IdText { bytes, len: value.len() as u8 }))
    }
}

impl IdText {
    /// The text; ASCII.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// For the program's own log.
impl fmt::Display for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

/// Where a shard's ids come from.
#[derive(Debug)]
pub(crate) struct Ids {
    start: u64,
    next: Cell<u64>,
}

impl Ids {
    /// Ids that no other shard and no other process has: 128 bits of the operating system's
    /// randomness (what seeds the standard library's hash maps) tell them apart.
    pub(crate) fn new() -> Ids {
        let random = || RandomState::new().hash_one(0u8);
        Ids { start: random(), next: Cell::new(random()) }
    }

    /// The next one. Costs one addition.
    #[inline]
    pub(crate) fn next(&self) -> RequestId {
        RequestId::Own(self.start, self.step())
    }

    /// A number that no id has.
    pub(crate) fn number(&self) -> u128 {
        u128::from(self.start) << 64 | u128::from(self.step())
    }

    #[inline]
    fn step(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: RequestId) -> String {
        String::from_utf8(id.text().as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn ids_as_text() {
        let id = RequestId::Own(0x0123_4567_89ab_cdef, 10);
        assert_eq!(text(id), "0123456789abcdef000000000000000a");
        assert_eq!(id.text().to_string(), text(id));
        assert_eq!(text(RequestId::Own(u64::MAX, u64::MAX)), "f".repeat(32));
    }

    #[test]
    fn ids_differ_within_a_shard_and_between_shards() {
        let (one, two) = (Ids::new(), Ids::new());
        let ids: std::collections::HashSet<String> =
            (0..1_000).flat_map(|_| [text(one.next()), text(two.next())]).collect();
        assert_eq!(ids.len(), 2_000);
    }

    #[test]
    fn what_is_kept() {
        let longest = "x".repeat(MAX_REQUEST_ID);
        for good in ["a", "7b0a-4e58", "Root=1-67891233-abc", &longest] {
            assert_eq!(text(RequestId::keep(good.as_bytes()).unwrap()), good);
        }
        let long = "x".repeat(MAX_REQUEST_ID + 1);
        for bad in ["", " a", "a b", "a,b", "a\"b", "<b>", "\u{e9}", "a;b", &long] {
            assert_eq!(RequestId::keep(bad.as_bytes()), None, "{bad}");
        }
    }
}
