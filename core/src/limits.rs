//! Every bound of the program, in one place. Owns no logic; all modules read it.
//!
//! Relations between bounds are asserted at compile time at the end of the file.

/// Bytes of a request or response head, the start line and the last empty line included (C16, R2.3-400c).
pub const MAX_HEAD_BYTES: usize = 65_536;
/// Header fields of one head; more is a 400 (interface, `max_headers`).
pub const MAX_HEADERS: usize = 1_000;
/// Bytes of a request target; more is a 414 (C16, `max_uri_bytes`).
pub const MAX_URI_BYTES: usize = 16_384;
/// Bytes of a chunk-size line with its extension; more is malformed.
pub const MAX_CHUNK_LINE: usize = 4_096;
/// Requests that one client connection may have answered before its task yields to the others.
pub const REQUESTS_PER_TURN: usize = 16;

/// Bytes of one small lease: holds most heads, and is what a request's first bytes arrive in.
pub const SMALL_LEASE: usize = 4_096;
/// Bytes of one large lease: bodies are received into these.
pub const LARGE_LEASE: usize = 65_536;

const _: () = assert!(MAX_URI_BYTES < MAX_HEAD_BYTES);
const _: () = assert!(SMALL_LEASE < LARGE_LEASE);
