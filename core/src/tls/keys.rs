//! The record protection of one direction: seals and opens single records in place, TLS 1.2 and
//! 1.3, with the keys that a handshake came to. Pure: bytes in, bytes out. Counts the records,
//! since a record's number makes its nonce; knows nothing of how records are cut or joined.
//!
//! rustls shakes hands and derives secrets; records are ours, because its record layer copies each
//! into memory of its own.

use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

use super::alert::{Alert, Trouble};
use crate::limits::{TLS_EXPANSION, TLS_TEXT};

/// Content types (RFC 8446, 5.1).
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// By how much TLS 1.3 may make a text longer (RFC 8446, 5.2).
const EXPANSION_13: usize = 256;

/// How a version and cipher lay records out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// The type is sealed with the text; the header is what is authenticated.
    Tls13,
    /// Eight bytes of the nonce travel in front of the text (RFC 5288).
    Gcm12,
    /// Nothing of the nonce travels (RFC 7905).
    ChaCha12,
}

/// Key of one direction, and the number of its next record.
#[derive(Debug)]
pub(super) struct Key {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    number: u64,
    style: Style,
}

impl Key {
    /// The key of `secrets`, of which `number` records have been used; `None` when they are of no
    /// cipher that Weir has.
    pub(super) fn new(
        version: ProtocolVersion,
        (number, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Option<Key> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        let style = match (version, &secrets) {
            (ProtocolVersion::TLSv1_3, _) => Style::Tls13,
            (_, ConnectionTrafficSecrets::Chacha20Poly1305 { .. }) => Style::ChaCha12,
            _ => Style::Gcm12,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?);
        Some(Key { key, iv: iv.as_ref().try_into().ok()?, number, style })
    }

    /// The number of the next record.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that stand before a record's text.
    #[inline]
    pub(super) fn before(&self) -> usize {
        match self.style {
            Style::Gcm12 => HEADER + 8,
            Style::Tls13 | Style::ChaCha12 => HEADER,
        }
    }

    /// Bytes that stand behind a record's text.
    #[inline]
    pub(super) fn behind(&self) -> usize {
        match self.style {
            Style::Tls13 => 1 + TAG,
            Style::Gcm12 | Style::ChaCha12 => TAG,
        }
    }

    #[inline]
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// What TLS 1.2 authenticates beside the text (RFC 5246, 6.2.3.3).
    #[inline]
    fn beside(&self, kind: u8, len: usize) -> [u8; 13] {
        let mut beside = [0; 13];
        beside[..8].copy_from_slice(&self.number.to_be_bytes());
        beside[8..11].copy_from_slice(&[kind, 3, 3]);
        beside[11..].copy_from_slice(&(len as u16).to_be_bytes());
        beside
    }

    /// Seals `text` where it lies and writes what stands before and behind it; these have the
    /// lengths [`Key::before`] and [`Key::behind`], and `text` at most [`TLS_TEXT`] bytes.
    #[inline]
    pub(super) fn seal(
        &mut self,
        kind: u8,
        before: &mut [u8],
        text: &mut [u8],
        behind: &mut [u8],
    ) -> Result<(), Trouble> {
        let len = (before.len() - HEADER + text.len() + behind.len()) as u16;
        let [high, low] = len.to_be_bytes();
        let nonce = self.nonce();
        let shown = if self.style == Style::Tls13 { DATA } else { kind };
        let header = [shown, 3, 3, high, low];
        before[..HEADER].copy_from_slice(&header);
        if self.style == Style::Gcm12 {
            before[HEADER..].copy_from_slice(&nonce[4..]);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = match self.style {
            Style::Tls13 => {
                self.key.seal_in_place_scatter(nonce, Aad::from(header), text, &[kind], behind)
            }
            Style::Gcm12 | Style::ChaCha12 => {
                let beside = Aad::from(self.beside(kind, text.len()));
                self.key.seal_in_place_scatter(nonce, beside, text, &[], behind)
            }
        };
        self.number += 1;
        sealed.map_err(|_| Trouble::internal("a record could not be sealed"))
    }

    /// Opens the whole record `record` where it lies: its type, and where its text is.
    #[inline]
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Trouble> {
        let opened = match self.style {
            Style::Tls13 => self.open_13(record),
            Style::Gcm12 | Style::ChaCha12 => self.open_12(record),
        };
        self.number += 1;
        let (kind, text) = opened?;
        if text.len() > TLS_TEXT {
            return Err(OVERFLOW);
        }
        Ok((kind, text))
    }

    fn open_13(&self, record: &mut [u8]) -> Result<(u8, Range<usize>), Trouble> {
        let (header, sealed) = record.split_first_chunk_mut::<HEADER>().ok_or(GARBLED)?;
        if header[0] != DATA {
            return Err(UNEXPECTED);
        }
        let nonce = Nonce::assume_unique_for_key(self.nonce());
        let opened = self.key.open_in_place(nonce, Aad::from(*header), sealed);
        let text = opened.map_err(|_| GARBLED)?;
        // Behind the text stands its type, and zeros as padding (RFC 8446, 5.4).
        let end = text.iter().rposition(|byte| *byte != 0).ok_or(UNEXPECTED)?;
        Ok((text[end], HEADER..HEADER + end))
    }

    fn open_12(&self, record: &mut [u8]) -> Result<(u8, Range<usize>), Trouble> {
        let (before, overhead) = (self.before(), self.before() + TAG);
        if record.len() < overhead {
            return Err(GARBLED);
        }
        let (kind, len) = (record[0], record.len() - overhead);
        let (head, sealed) = record.split_at_mut(before);
        let mut nonce = self.nonce();
        if self.style == Style::Gcm12 {
            nonce[..4].copy_from_slice(&self.iv[..4]);
            nonce[4..].copy_from_slice(&head[HEADER..]);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(self.beside(kind, len)), sealed);
        opened.map_err(|_| GARBLED)?;
        Ok((kind, before..before + len))
    }
}

const GARBLED: Trouble = Trouble::fatal(Alert::BAD_RECORD_MAC, "a record that does not open");
const OVERFLOW: Trouble = Trouble::fatal(Alert::RECORD_OVERFLOW, "a record that is too long");
const UNEXPECTED: Trouble = Trouble::fatal(Alert::UNEXPECTED_MESSAGE, "a record out of place");

/// Bytes of the whole record that begins with `header`.
#[inline]
pub(super) fn record_len(header: [u8; HEADER], version: ProtocolVersion) -> Result<usize, Trouble> {
    let [kind, major, _, high, low] = header;
    if !(CHANGE_CIPHER_SPEC..=DATA).contains(&kind) || major != 3 {
        return Err(UNEXPECTED);
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    let expansion = if version == ProtocolVersion::TLSv1_3 { EXPANSION_13 } else { TLS_EXPANSION };
    if len > TLS_TEXT + expansion { Err(OVERFLOW) } else { Ok(HEADER + len) }
}
