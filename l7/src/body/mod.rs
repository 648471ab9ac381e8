//! Bodies: how they are delimited, decoding, and framing them anew. `decode` and `Frame` are pure;
//! `relay` applies them to leases. Called by `exchange` for both directions.

mod decode;
mod relay;

pub(crate) use decode::{BadBody, Decoder, is_token};
pub(crate) use relay::Relay;

use crate::message::append_hex;

/// How a body is delimited where it comes from (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All until the peer ends its side (responses only).
    UntilClose,
}

/// How a body goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Frame {
    /// As it is: the head told the length, or the close does.
    #[default]
    Plain,
    /// In chunks; `open` once data was sent whose closing CR LF is still owed.
    Chunked {
        /// A CR LF is owed.
        open: bool,
    },
}

/// Bytes that a chunk's framing takes at most: CR LF, 16 digits, CR LF, and CR LF behind the data.
pub(crate) const MAX_PREFIX: usize = 22;
/// Bytes that the end of a chunked body takes at most.
pub(crate) const MAX_END: usize = 7;

impl Frame {
    /// Appends what stands in front of `len` (not zero) bytes of data.
    #[inline]
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>, len: usize) {
        debug_assert!(len > 0, "an empty chunk would end the body");
        if let Frame::Chunked { open } = self {
            if *open {
                out.extend_from_slice(b"\r\n");
            }
            append_hex(out, len as u64);
            out.extend_from_slice(b"\r\n");
            *open = true;
        }
    }

    /// What ends the present chunk; empty if none is open. A receiver may look at a chunk only when
    /// it is whole, so this must not wait for the next one.
    #[inline]
    pub(crate) fn close(&mut self) -> &'static [u8] {
        match self {
            Frame::Chunked { open } if *open => {
                *open = false;
                b"\r\n"
            }
            _ => b"",
        }
    }

    /// What ends the body; empty for a plain one.
    #[inline]
    pub(crate) fn end(&mut self) -> &'static [u8] {
        match std::mem::take(self) {
            Frame::Plain => b"",
            Frame::Chunked { open: false } => b"0\r\n\r\n",
            Frame::Chunked { open: true } => b"\r\n0\r\n\r\n",
        }
    }
}
