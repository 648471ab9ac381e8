//! HTTP/2 as a client speaks it: `huffman` and `hpack` for header fields, `frame` for frames,
//! `reply` for an answer, `session` for one connection sans IO, `slot` for a connection slot of
//! the run, which is what `shard` calls. Nothing is shared with Weir's own HTTP/2.

mod frame;
pub(crate) mod hpack;
mod huffman;
mod reply;
mod session;
pub(crate) mod slot;
