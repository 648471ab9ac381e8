//! Pure: header compression for HTTP/2 (RFC 7541). Knows bytes of names and values and nothing of
//! their meaning. Called by `h2::connection`.

mod decode;
mod encode;
pub(crate) mod huffman;
pub(crate) mod table;

pub(crate) use decode::{Decoder, Line};
pub(crate) use encode::Encoder;
pub(crate) use table::ENTRY_OVERHEAD;

/// Bytes of a dynamic table before anything else is agreed on (RFC 9113, 6.5.2).
pub(crate) const DEFAULT_TABLE: usize = 4_096;

/// Why a block can't be decoded; the connection ends, for its tables have come apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Not the format, or an index of nothing.
    Malformed,
    /// The list is so large that decoding it is not worth the work.
    TooLarge,
}
