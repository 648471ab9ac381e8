//! Records however they are cut into arrivals: the same text, or the same end.

use proptest::prelude::*;
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::*;
use crate::limits::TLS_TEXT;
use crate::tls::keys::{ALERT, HANDSHAKE};
use crate::tls::outgoing::append;

impl Piece for Bytes {
    fn advance(&mut self, n: usize) {
        self.0.drain(..n);
    }

    fn truncate(&mut self, n: usize) {
        self.0.truncate(n);
    }

    fn gather() -> Option<Bytes> {
        Some(Bytes(Vec::new()))
    }

    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// A piece without a shard.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3];

fn key(version: ProtocolVersion, chacha: bool) -> Key {
    let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
    let secrets = match chacha {
        true => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        false => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
    };
    Key::new(version, (3, secrets)).unwrap()
}

/// What came of the pieces: the text, the types of control records, the end.
fn receive(incoming: &mut Incoming<Bytes>, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Option<End>) {
    let (mut text, mut kinds) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = Some(Bytes(piece.to_vec()));
        while let Some(piece) = rest.take() {
            let arrived = incoming.take(piece, |_, kind, text| {
                kinds.push(kind);
                Ok(if text == [1, 0] { Verdict::Ended } else { Verdict::GoesOn })
            });
            if let Some(more) = arrived.text {
                assert!(!more.is_empty());
                text.extend_from_slice(&more);
            }
            if arrived.end.is_some() {
                return (text, kinds, arrived.end);
            }
            rest = arrived.rest;
        }
    }
    (text, kinds, None)
}

fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for len in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*len).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Whether this byte is of a record's version, which nobody seals and we do not look at.
fn is_version(wire: &[u8], at: usize) -> bool {
    let mut start = 0;
    while start + 5 <= at {
        let end = start + 5 + usize::from(u16::from_be_bytes([wire[start + 3], wire[start + 4]]));
        if end > at {
            return false;
        }
        start = end;
    }
    matches!(at - start, 1 | 2)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn any_cut_gives_the_same_text(
        lengths in prop::collection::vec((0..3_usize, 0..=TLS_TEXT), 1..8),
        cuts in prop::collection::vec(
            prop_oneof![1..8_usize, 1..5_000_usize, 16_000..70_000_usize], 1..10),
        tls13: bool,
        chacha: bool,
        flip in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let version = VERSIONS[usize::from(tls13)];
        let (mut sealing, mut wire, mut sent) = (key(version, chacha), Vec::new(), Vec::new());
        let mut kinds = Vec::new();
        for (kind, len) in lengths {
            let text: Vec<u8> = (0..len).map(|n| (n * 31 + len) as u8).collect();
            match kind {
                0 => {
                    append(&mut sealing, HANDSHAKE, &[4; 9], &mut wire).unwrap();
                    kinds.push(HANDSHAKE);
                }
                _ => {
                    append(&mut sealing, DATA, &text, &mut wire).unwrap();
                    sent.extend(text);
                }
            }
        }
        append(&mut sealing, ALERT, &[1, 0], &mut wire).unwrap();
        kinds.push(ALERT);
        wire.extend([23, 3, 3]);
        let mut incoming = Incoming::new(key(version, chacha), version);
        if let Some(flip) = flip {
            // A bit that has changed ends it, with nothing but what was sent before that.
            let whole = wire.len() - 3;
            let at = flip.index(whole);
            prop_assume!(!is_version(&wire, at));
            wire[at] ^= 4;
            let (text, _, end) = receive(&mut incoming, &cut(&wire, &cuts));
            prop_assert!(sent.starts_with(&text));
            prop_assert!(end != Some(End::Notified));
        } else {
            let got = receive(&mut incoming, &cut(&wire, &cuts));
            prop_assert_eq!(got, (sent, kinds, Some(End::Notified)));
        }
    }

    /// Whatever comes, it ends by a reason or waits for more.
    #[test]
    fn noise_ends_it(noise in prop::collection::vec(any::<u8>(), 5..400), cut_at in 1..50_usize) {
        for version in VERSIONS {
            let mut incoming = Incoming::new(key(version, false), version);
            let (text, _, _) = receive(&mut incoming, &cut(&noise, &[cut_at]));
            prop_assert!(text.is_empty());
        }
    }
}

/// Issue 5, bad input: nothing but text keeps a connection going.
#[test]
fn records_that_carry_nothing_are_bounded() {
    for version in VERSIONS {
        let (mut sealing, mut wire) = (key(version, false), Vec::new());
        for _ in 0..=TLS_QUIET_RECORDS {
            append(&mut sealing, DATA, b"", &mut wire).unwrap();
        }
        let mut incoming = Incoming::new(key(version, false), version);
        let (_, _, end) = receive(&mut incoming, &[&wire]);
        assert_eq!(end, Some(End::Broken(FLOOD)));
        // Text between them starts the count anew.
        let (mut sealing, mut wire) = (key(version, false), Vec::new());
        for _ in 0..3 {
            for _ in 0..TLS_QUIET_RECORDS {
                append(&mut sealing, DATA, b"", &mut wire).unwrap();
            }
            append(&mut sealing, DATA, b"x", &mut wire).unwrap();
        }
        let mut incoming = Incoming::new(key(version, false), version);
        assert_eq!(receive(&mut incoming, &[&wire]).0, b"xxx");
    }
}

/// RFC 8446, 5.2, and RFC 5246, 6.2.3: records that are too long by their header.
#[test]
fn records_that_are_too_long_end_it_before_they_have_come() {
    for (version, most) in [(VERSIONS[0], 18_432_u16), (VERSIONS[1], 16_640)] {
        let header = |len: u16| [&[23, 3, 3][..], &len.to_be_bytes()].concat();
        let mut incoming = Incoming::new(key(version, false), version);
        assert_eq!(receive(&mut incoming, &[&header(most)]).2, None);
        let mut incoming = Incoming::new(key(version, false), version);
        let end = receive(&mut incoming, &[&header(most + 1)]).2;
        assert!(matches!(end, Some(End::Broken(Trouble { alert: Some(Alert(22)), .. }))));
    }
}
