//! Pure: WebSocket's opening handshake and frames (RFC 6455), both roles. Used by `ws` and by the
//! members' `origin_ws`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// A frame goes on a message.
pub(crate) const CONTINUATION: u8 = 0;
/// A frame begins a message of text …
pub(crate) const TEXT: u8 = 1;
/// … or of bytes.
pub(crate) const BINARY: u8 = 2;
/// The end.
pub(crate) const CLOSE: u8 = 8;
/// A question whether the other one is there …
pub(crate) const PING: u8 = 9;
/// … and the answer.
pub(crate) const PONG: u8 = 10;

/// Added to a key before it is hashed (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of Sec-WebSocket-Accept for a key.
pub(crate) fn accept(key: &[u8]) -> String {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()).as_ref())
}

/// RFC 4648, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let place = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= group.len() { char::from(DIGITS[place]) } else { '=' });
        }
    }
    text
}

/// Appends the head of a whole message in one frame; clients mask (RFC 6455, 5.3).
pub(crate) fn head(out: &mut Vec<u8>, opcode: u8, length: u64, key: Option<[u8; 4]>) {
    out.push(0x80 | opcode);
    let masked = if key.is_some() { 0x80 } else { 0 };
    match length {
        0..126 => out.push(masked | length as u8),
        126..65_536 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(&key.unwrap_or_default()[..if key.is_some() { 4 } else { 0 }]);
}

/// Masks or unmasks bytes that stand at `offset` of their frame.
pub(crate) fn mask(data: &mut [u8], key: [u8; 4], offset: u64) {
    for (at, byte) in (offset..).zip(data) {
        *byte ^= key[(at % 4) as usize];
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    /// The last of its message.
    pub(crate) last: bool,
    pub(crate) length: u64,
    pub(crate) key: Option<[u8; 4]>,
}

/// Payload that was found: `data[start..used]` of what was fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) frame: Frame,
    pub(crate) start: usize,
    pub(crate) used: usize,
    /// Where it stands in its frame.
    pub(crate) offset: u64,
    /// The frame ends with it.
    pub(crate) whole: bool,
}

/// Follows the frames of one connection in one direction, however the bytes are cut.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: Vec<u8>,
    present: Option<(Frame, u64)>,
}

impl Frames {
    /// Takes bytes up to the end of a frame; `None`: all were of an unfinished head.
    pub(crate) fn feed(&mut self, data: &[u8]) -> Result<Option<Part>, &'static str> {
        let mut start = 0;
        while self.present.is_none() {
            if let Some(frame) = parse(&self.head)? {
                self.head.clear();
                self.present = Some((frame, 0));
                break;
            }
            let Some(&byte) = data.get(start) else { return Ok(None) };
            self.head.push(byte);
            start += 1;
        }
        let Some((frame, offset)) = self.present else { return Ok(None) };
        let left = usize::try_from(frame.length - offset).unwrap_or(usize::MAX);
        let used = start + left.min(data.len() - start);
        let now = offset + (used - start) as u64;
        let whole = now == frame.length;
        self.present = (!whole).then_some((frame, now));
        Ok(Some(Part { frame, start, used, offset, whole }))
    }
}

fn parse(head: &[u8]) -> Result<Option<Frame>, &'static str> {
    let [first, second, rest @ ..] = head else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err("a WebSocket frame has bits that nobody agreed on");
    }
    let (opcode, last) = (first & 15, first & 0x80 != 0);
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err("a WebSocket frame of an unknown kind");
    }
    let extra = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let masked = second & 0x80 != 0;
    if rest.len() < extra + if masked { 4 } else { 0 } {
        return Ok(None);
    }
    let (length, key) = rest.split_at(extra);
    let length = match extra {
        0 => u64::from(second & 0x7f),
        _ => length.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    };
    if opcode >= CLOSE && (length > 125 || !last) {
        return Err("a WebSocket control frame that is long or cut");
    }
    let key = if masked { key.first_chunk().copied() } else { None };
    Ok(Some(Frame { opcode, last, length, key }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_handshake_of_the_standard() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
    }

    #[test]
    fn odd_frames_are_refused() {
        let mut frames = Frames::default();
        assert!(frames.feed(&[0xc1, 0]).is_err());
        assert!(Frames::default().feed(&[0x83, 0]).is_err());
        assert!(Frames::default().feed(&[0x89, 126, 0, 200]).is_err());
        assert!(Frames::default().feed(&[0x09, 0]).is_err());
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(
            lengths in prop::collection::vec(0usize..70_000, 1..4),
            masked: bool,
            cut in 1usize..5000,
        ) {
            let key = masked.then_some([1, 2, 3, 4]);
            let mut bytes = Vec::new();
            for &length in &lengths {
                head(&mut bytes, BINARY, length as u64, key);
                let start = bytes.len();
                bytes.extend((0..length).map(|n| n as u8));
                if let Some(key) = key {
                    mask(&mut bytes[start..], key, 0);
                }
            }
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            let mut payload = Vec::new();
            for piece in bytes.chunks(cut) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let Some(part) = frames.feed(rest).unwrap() else { break };
                    let mut data = rest[part.start..part.used].to_vec();
                    if let Some(key) = part.frame.key {
                        mask(&mut data, key, part.offset);
                    }
                    payload.extend(data);
                    if part.whole {
                        prop_assert!(payload.iter().enumerate().all(|(n, &b)| b == n as u8));
                        found.push(std::mem::take(&mut payload).len());
                    }
                    rest = &rest[part.used..];
                }
            }
            // An empty frame at the very end shows with the next bytes.
            if lengths.last() == Some(&0) && found.len() < lengths.len() {
                found.push(0);
            }
            prop_assert_eq!(found, lengths);
        }
    }
}
