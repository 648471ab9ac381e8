//! Pure: the datagrams that loadgen sends and its members send back: which run, which flow, which
//! number, and who answered. Used by `udp` and `origin_udp`.

use crate::noted::Name;
use crate::pattern;

const ASKED: &[u8; 8] = b"WEIRLG1?";
const ANSWERED: &[u8; 8] = b"WEIRLG1!";
/// Bytes before the pattern.
pub(crate) const HEAD: usize = 48;
/// Bytes of a name.
const NAME: usize = 15;

/// What a datagram tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Number of the run.
    pub(crate) run: u64,
    /// Number of the flow.
    pub(crate) flow: u64,
    /// Number of the datagram in its flow, from 0.
    pub(crate) serial: u64,
}

impl Datagram {
    /// Appends the datagram, `size` bytes in all.
    pub(crate) fn write(self, out: &mut Vec<u8>, size: usize) {
        out.extend_from_slice(ASKED);
        for number in [self.run, self.flow, self.serial] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&[0; NAME + 1]);
        let mut left = size.saturating_sub(HEAD) as u64;
        while left > 0 {
            let piece = pattern::piece(left);
            out.extend_from_slice(piece);
            left -= piece.len() as u64;
        }
    }

    /// Reads what came back, from a member of ours or from whoever sends datagrams back as they
    /// are; says whether its bytes are right.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Datagram, Name, bool)> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_be_bytes(*head.get(at..)?.first_chunk()?))
        };
        let name = match &head[..8] {
            mark if mark == ANSWERED => {
                let length = usize::from(head[32]).min(NAME);
                Name::new(&head[33..33 + length])
            }
            mark if mark == ASKED => Name::default(),
            _ => return None,
        };
        let datagram = Datagram { run: number(8)?, flow: number(16)?, serial: number(24)? };
        Some((datagram, name, pattern::stands_at(0, rest)))
    }
}

/// Puts the answering member's name into a datagram of ours; others stay as they are.
pub(crate) fn sign(bytes: &mut [u8], name: &str) {
    if bytes.len() < HEAD || &bytes[..8] != ASKED {
        return;
    }
    bytes[..8].copy_from_slice(ANSWERED);
    let name = &name.as_bytes()[..name.len().min(NAME)];
    bytes[32] = name.len() as u8;
    bytes[33..33 + name.len()].copy_from_slice(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_back_with_a_name() {
        let sent = Datagram { run: 1, flow: 2, serial: 1 << 40 };
        for size in [HEAD, 49, 1400] {
            let mut bytes = Vec::new();
            sent.write(&mut bytes, size);
            assert_eq!(bytes.len(), size);
            assert_eq!(Datagram::read(&bytes), Some((sent, Name::default(), true)));
            sign(&mut bytes, "a-name-that-is-too-long");
            let (back, name, good) = Datagram::read(&bytes).unwrap();
            assert_eq!((back, name.to_string().as_str(), good), (sent, "a-name-that-is-", true));
        }
    }

    #[test]
    fn other_datagrams_are_left_alone() {
        let mut bytes = *b"something else";
        sign(&mut bytes, "a");
        assert_eq!(&bytes, b"something else");
        assert_eq!(Datagram::read(&bytes), None);
        assert_eq!(Datagram::read(&[0; 100]), None);
        let mut bytes = Vec::new();
        Datagram { run: 0, flow: 0, serial: 0 }.write(&mut bytes, 60);
        bytes[55] = b'x';
        assert!(!Datagram::read(&bytes).unwrap().2);
    }
}
