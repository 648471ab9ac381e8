//! HTTP/2 as clients and members of loadgen speak it: `huffman` and `hpack` for header fields,
//! `frame` for frames, `fields` for rules about fields, `link` for what both ends do alike. The
//! client's: `reply` for an answer, `session` for one connection sans IO, `slot` for a connection
//! slot of the run, which is what `shard` calls, `single` for a connection that is held, which is
//! what `idle` calls. The member's: `asked` for a request, `service` for one connection sans IO,
//! which is what `origin_h2` calls. Nothing is shared with Weir's own HTTP/2.

mod asked;
mod fields;
mod frame;
pub(crate) mod hpack;
mod huffman;
mod link;
mod reply;
pub(crate) mod service;
mod session;
pub(crate) mod single;
pub(crate) mod slot;
