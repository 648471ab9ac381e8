//! Bounds that only HTTP forwarding has; the shared ones stand in `weir_core::limits`.

use std::time::Duration;

use weir_core::limits::{LARGE_LEASE, MAX_HEADERS, SMALL_LEASE};

/// Fields that the first, cheap attempt at a head has room for.
pub(crate) const USUAL_HEADERS: usize = 64;
/// Bytes that a method and the space behind it rarely exceed: where a target that is too long is
/// looked for before its line has ended.
pub(crate) const LONG_METHOD: usize = 32;
/// Options that the Connection fields of one head may name, "close" and "keep-alive" included.
pub(crate) const MAX_CONNECTION_OPTIONS: usize = 32;
/// Hops of X-Forwarded-For that are followed from the right, as long as they are trusted.
pub(crate) const MAX_HOPS: usize = 64;
/// Bytes of a request id that is taken over from a trusted proxy.
pub(crate) const MAX_REQUEST_ID: usize = 64;
/// Hexadecimal digits of a chunk size.
pub(crate) const MAX_CHUNK_DIGITS: u8 = 16;
/// Bytes of a trailer section.
pub(crate) const MAX_TRAILER_BYTES: u32 = 65_536;
/// Body bytes that are copied behind a head or a chunk prefix, rather than sent from their lease.
pub(crate) const COPY_MAX: usize = SMALL_LEASE;
/// Body bytes still to come from which on a stream is told to use large leases.
pub(crate) const BULK_BYTES: u64 = 32_768;
/// Body bytes still to come from which on they are moved through a pipe, if they may be.
pub(crate) const HAUL_BYTES: u64 = 98_304;
/// How long a pipe is kept while no bytes come for it.
pub(crate) const HAUL_QUIET: Duration = Duration::from_millis(weir_core::limits::SPLICE_QUIET_MS);
/// Body pieces that one exchange moves before the other tasks have a turn.
pub(crate) const PIECES_PER_TURN: usize = 16;
/// Interim (1xx) answers that a member may give to one request.
pub(crate) const MAX_INTERIM: u8 = 32;
/// Idle connections kept for one member on one shard.
pub(crate) const MAX_IDLE_PER_MEMBER: u32 = 128;
/// How often idle member connections are looked through for those whose time is over.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Exchange states kept for reuse on one shard.
pub(crate) const FREE_EXCHANGES: usize = 1_024;
/// Bytes of a request's body that are kept so that the request can be sent again; one with a
/// larger body is not.
pub(crate) const REPLAY_BODY_BYTES: usize = 65_536;
/// Bytes of a kept replay buffer; a larger one is given back to the allocator.
pub(crate) const KEPT_REPLAY_BYTES: usize = 16_384;
/// While draining: how long a connection may stay idle before it is closed.
pub(crate) const DRAIN_IDLE: Duration = Duration::from_secs(1);
/// Bytes a second that a client has to send of a body, or take of an answer, on average over
/// client_timeout of waiting for it; ends those who keep connections busy with a byte now and then.
/// A modem of 1991 manages five times as much.
pub(crate) const MIN_CLIENT_RATE: u64 = 240;
/// Bytes discarded from a client that still sends after its final answer.
pub(crate) const LINGER_BYTES: u64 = 8 << 20;
/// How long such a client is listened to.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(5);

/// A client that ends its side so soon behind its last bytes means a half-close; later, while it
/// waits for its answer, it has left.
pub(crate) const HALF_CLOSE: Duration = Duration::from_millis(100);
/// Bytes of request texts for the log that a kept exchange holds; more is given back.
pub(crate) const KEPT_TEXT_BYTES: usize = 4_096;
/// A head of HTTP/2 that is larger than its limit is answered, as long as it is not larger than so
/// many times that; beyond, its connection ends.
pub(crate) const H2_EXCESS: usize = 4;
/// Connections to one member that requests share, on one shard, from which on idle ones make room
/// for others.
pub(crate) const MAX_LINKS_PER_MEMBER: usize = 128;
/// Bytes of an answer that a member of HTTP/2 may send before the client has taken them; they are
/// what each request may hold …
pub(crate) const LANE_WINDOW: u32 = 65_536;
/// … and of all answers on one connection: room for every stream, so that a client that does not
/// read never holds the others up.
pub(crate) const LINK_WINDOW: u32 = H2_STREAMS * LANE_WINDOW;
/// Bytes taken of an answer after which the link is told.
pub(crate) const LANE_WINDOW_STEP: u32 = LANE_WINDOW / 4;
/// Bytes that wait to be sent to a member, and as many put together for one send, with which
/// nothing more is read from it.
pub(crate) const LINK_SEND_BYTES: usize = 65_536;
/// Streams whose answers are whole but for their end, which is awaited rather than reset: members
/// count resets, as we do.
pub(crate) const LINK_PARTING: usize = 16;
/// Connections to a member that may end, one after the other, before it looks at a request that it
/// has on them, until that counts as a failure: some serve only so many requests each.
pub(crate) const LINKS_LEFT: u8 = 32;
/// Leases that are read before others have a turn.
pub(crate) const LINK_LEASES_PER_TURN: usize = 16;
/// Streams of one HTTP/2 connection at a time (RFC 9113, 5.1.2).
pub(crate) const H2_STREAMS: u32 = 128;
/// Streams that have ended and are remembered, so that what comes late is told from what is wrong.
pub(crate) const H2_ENDED: usize = 256;
/// Bytes of one stream's body that its peer may send before any of them has gone on …
pub(crate) const H2_STREAM_WINDOW: u32 = 131_072;
/// … and of all streams of a connection together.
pub(crate) const H2_CONNECTION_WINDOW: u32 = 524_288;
/// Bytes of memory for a frame in pieces that a connection keeps; more is given back.
pub(crate) const H2_GATHER_KEPT: usize = 4_096;
/// Frames that a block of fields may come in beyond those it needs.
pub(crate) const H2_SPARE_CONTINUATIONS: usize = 16;
/// Streams of a connection that may come to nothing through the peer's doing, beyond those that are
/// answered …
pub(crate) const H2_RESET_BUDGET: u32 = 256;
/// … and those of a second.
pub(crate) const H2_RESETS_A_SECOND: u64 = 10;
/// Frames that bring neither request nor body, beyond those that go with what is moved …
pub(crate) const H2_FRAME_BUDGET: u32 = 1_024;
/// … and those of a second.
pub(crate) const H2_FRAMES_A_SECOND: u64 = 64;
/// Bytes of body for which a peer may open its windows in a frame each: who reads 4 KiB at a time
/// (Go) or less tells us as often.
pub(crate) const H2_SMALLEST_STEP: u32 = 512;
/// Bytes that are put together for one send to a client of HTTP/2.
pub(crate) const MUX_SEND_BYTES: usize = 65_536;
/// Bytes that such a client may be owed before nothing more of it is read, and no answer taken on.
pub(crate) const MUX_OWED_BYTES: usize = 65_536;
/// Leases that are read from it before others have a turn.
pub(crate) const MUX_LEASES_PER_TURN: usize = 16;
/// How often its streams are looked at again in one turn.
pub(crate) const MUX_ROUNDS_PER_TURN: usize = 16;
/// How long a client of HTTP/2 has to learn that it should open no more streams, before those that
/// it opens are refused; and how long one without streams keeps the memory for them.
pub(crate) const MUX_GRACE: Duration = Duration::from_secs(1);
/// Streams whose memory is kept by a connection that has none.
pub(crate) const MUX_KEPT_STREAMS: usize = 1;
/// Bytes of a body in one piece from which on it is passed on where it lies.
pub(crate) const MUX_WHOLE_LEASE: usize = 1_024;
/// Such pieces that one connection may have waiting; further ones are drawn together, since leases
/// are the whole shard's. What is passed on as it comes never has more than a turn's.
pub(crate) const MUX_WHOLE_LEASES: usize = 2 * MUX_LEASES_PER_TURN;

const _: () = assert!(H2_STREAM_WINDOW <= H2_CONNECTION_WINDOW);
const _: () = assert!(USUAL_HEADERS < MAX_HEADERS);
const _: () = assert!(COPY_MAX <= LARGE_LEASE);
