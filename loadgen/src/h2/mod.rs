//! HTTP/2 as a client speaks it: `huffman` and `hpack` for header fields, `frame` for frames,
//! `fields` for rules about fields, `link` for a connection without its streams, `reply` for an
//! answer, `session` for one connection sans IO, `slot` for a connection slot of the run, which is
//! what `shard` calls. Nothing is shared with Weir's own HTTP/2.

mod fields;
mod frame;
pub(crate) mod hpack;
mod huffman;
mod link;
mod reply;
mod session;
pub(crate) mod slot;
