//! From the text of a connection to the bytes of the wire: cuts what is to be sent into records and
//! seals them where they lie. Received bytes that are passed on stay in their lease; what stands
//! around their records goes into a buffer beside it, and all leaves in one send.

use super::alert::Trouble;
use super::keys::{DATA, Key};
use crate::limits::{SMALL_LEASE, TLS_TEXT};
use crate::rt::{Framed, Lease, Payload, SendBuf};

/// Seals `payload` as application data.
#[inline]
pub(super) fn seal(key: &mut Key, payload: Payload) -> Result<Payload, Trouble> {
    match payload {
        Payload::Buf(buf) if buf.len() <= TLS_TEXT => seal_whole(key, buf),
        Payload::BufLease(mut buf, lease)
            if lease.len() <= SMALL_LEASE && buf.len() + lease.len() <= TLS_TEXT =>
        {
            // Small enough that one record is worth a copy.
            buf.extend_from_slice(&lease);
            seal_whole(key, buf)
        }
        Payload::BufLease(buf, lease) if buf.len() <= TLS_TEXT => {
            let mut frames = buf;
            seal_in(key, DATA, &mut frames)?;
            seal_lease(key, frames, lease)
        }
        Payload::Lease(lease) => seal_lease(key, SendBuf::new(), lease),
        Payload::Static(text) => seal_long(key, text),
        Payload::Buf(text) => seal_long(key, &text),
        other => {
            let mut text = SendBuf::new();
            other.append_to(&mut text);
            seal_long(key, &text)
        }
    }
}

fn seal_long(key: &mut Key, text: &[u8]) -> Result<Payload, Trouble> {
    let mut out = SendBuf::new();
    text.chunks(TLS_TEXT).try_for_each(|text| append(key, DATA, text, &mut out))?;
    Ok(out.into())
}

fn seal_whole(key: &mut Key, mut buf: SendBuf) -> Result<Payload, Trouble> {
    seal_in(key, DATA, &mut buf)?;
    Ok(buf.into())
}

/// Makes the text in `buf` a record.
fn seal_in(key: &mut Key, kind: u8, buf: &mut Vec<u8>) -> Result<(), Trouble> {
    let (len, before) = (buf.len(), key.before());
    // Twice as much would be more than the pool keeps.
    buf.reserve_exact(before + key.behind());
    buf.resize(before + len + key.behind(), 0);
    buf.copy_within(..len, before);
    let (head, rest) = buf.split_at_mut(before);
    let (text, tail) = rest.split_at_mut(len);
    key.seal(kind, head, text, tail)
}

/// Appends a record with `text` to `out`.
pub(super) fn append(
    key: &mut Key,
    kind: u8,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Trouble> {
    let (start, before) = (out.len(), key.before());
    out.resize(start + before, 0);
    out.extend_from_slice(text);
    out.resize(out.len() + key.behind(), 0);
    let (head, rest) = out[start..].split_at_mut(before);
    let (text, tail) = rest.split_at_mut(text.len());
    key.seal(kind, head, text, tail)
}

/// Seals `lease` where it lies, behind what is in `frames` already.
fn seal_lease(key: &mut Key, mut frames: SendBuf, mut lease: Lease) -> Result<Payload, Trouble> {
    let (before, behind) = (key.before(), key.behind());
    let (start, each) = (frames.len(), before + behind);
    frames.resize(start + each * lease.len().div_ceil(TLS_TEXT), 0);
    for (text, around) in lease.chunks_mut(TLS_TEXT).zip(frames[start..].chunks_exact_mut(each)) {
        let (head, tail) = around.split_at_mut(before);
        key.seal(DATA, head, text, tail)?;
    }
    Ok(Framed { frames, body: lease, first: start + before, gap: each }.into())
}
