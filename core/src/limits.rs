//! Every bound of the program, in one place. Owns no logic; all modules read it.
//!
//! Relations between bounds are asserted at compile time at the end of the file.

/// Bytes of a response head, the status line and the last empty line included; more is a 502. A
/// listener's own limits hold for requests.
pub const MAX_HEAD_BYTES: usize = 65_536;
/// Header fields of a response head; more is a 502.
pub const MAX_HEADERS: usize = 1_000;
/// Bytes of a chunk-size line with its extension; more is malformed.
pub const MAX_CHUNK_LINE: usize = 4_096;
/// Attempts of one request at most, each at a member of its own (`max_attempts`, R6.7-13).
pub const MAX_ATTEMPTS: usize = 10;
/// Bytes of the table that one regular expression of a policy is compiled to …
pub const MAX_PATTERN_BYTES: usize = 128 << 10;
/// … and bytes of memory that compiling it may take.
pub const MAX_PATTERN_WORK: usize = 2 << 20;
/// Bytes of a URL that Weir sends a client to; more is a 414.
pub const MAX_LOCATION_BYTES: usize = 131_072;
/// Sessions of a pool that are told by an application's cookie; a power of two. 2 MiB a pool.
pub const STICKY_BINDINGS: usize = 131_072;
/// Places of that table that one session may stand in.
pub const STICKY_WAYS: usize = 8;
/// Connections that other shards have accepted, waiting to be taken over by one shard.
pub const HANDED_OVER: usize = 256;
/// Requests that one client connection may have answered before its task yields to the others.
pub const REQUESTS_PER_TURN: usize = 16;
/// Pieces that one relay moves before the other tasks have a turn.
pub const RELAY_PIECES: u16 = 16;

/// Bytes of one small lease: holds most heads, and is what a request's first bytes arrive in.
pub const SMALL_LEASE: usize = 4_096;
/// Bytes of one large lease: bodies are received into these.
pub const LARGE_LEASE: usize = 65_536;

/// The shape of a group of receive buffers; one of each group per shard.
#[derive(Clone, Copy, Debug)]
pub struct BufferShape {
    /// Bytes of one buffer.
    pub size: usize,
    /// Buffers at most; memory is touched only as they are used.
    pub total: u16,
    /// Buffers that the kernel is given at first, and at least …
    pub published_first: u16,
    /// … and at most; a power of two.
    pub published_most: u16,
}

/// Turns that received anything after which half as many buffers are published when that would
/// have done for each of them.
pub const DEMAND_TURNS: u16 = 256;

/// Small leases of a shard: at most 64 MiB, lent to at most as many arrivals at once.
pub const SMALL_BUFFERS: BufferShape =
    BufferShape { size: SMALL_LEASE, total: 16_384, published_first: 64, published_most: 1_024 };
/// Small leases lent at which clients without a member are not listened to before they have one.
pub const FIRST_LEASES: usize = SMALL_BUFFERS.total as usize / 2;
/// Large leases of a shard: at most 32 MiB. When peers that stopped reading hold all of them,
/// bodies go on in small ones.
pub const LARGE_BUFFERS: BufferShape =
    BufferShape { size: LARGE_LEASE, total: 512, published_first: 4, published_most: 256 };

/// Buffers for datagrams of a shard: each holds the longest (65,527 bytes over IPv6) with what the
/// kernel writes before it, in whole pages, so that a short one touches a single page. At most
/// 68 MiB.
pub const DATAGRAM_BUFFERS: BufferShape =
    BufferShape { size: 69_632, total: 1_024, published_first: 32, published_most: 256 };
/// The longest datagram: what UDP's length field allows over IPv6 (RFC 768, RFC 8200).
pub const DATAGRAM_BYTES: usize = 65_527;
/// Arrivals waiting in one UDP socket at which the ring stops receiving for it.
pub const DATAGRAM_QUEUE: usize = 64;
/// Datagrams that one socket may have on their way to the kernel, which takes or refuses them
/// within the turn; and send headers that a shard keeps.
pub const DATAGRAM_SENDS: usize = 1_024;
/// Bytes that the kernel is asked to hold for a UDP socket; it gives net.core.rmem_max at most.
pub const DATAGRAM_SOCKET_BUFFER: usize = 1 << 20;

/// Bytes of a TLS record's text at most (RFC 8446, 5.1) …
pub const TLS_TEXT: usize = 16_384;
/// … and by how much sealing may make it longer (RFC 5246, 6.2.3; TLS 1.3 allows 256).
pub const TLS_EXPANSION: usize = 2_048;
/// Room for TLS records that come in several leases, one a connection at most while one comes: a
/// whole record in whole pages, of which a short one touches few. At most 320 MiB a shard; a
/// connection that finds none is closed.
pub const RECORD_BUFFERS: BufferShape =
    BufferShape { size: 20_480, total: 16_384, published_first: 0, published_most: 0 };
/// Records in a row without application data (alerts, key updates, empty ones) that a TLS peer may
/// send after the handshake.
pub const TLS_QUIET_RECORDS: u8 = 32;
/// Bytes of a handshake that may wait to be understood before more is received: one message of the
/// largest size that rustls takes, in records.
pub const TLS_HANDSHAKE_BYTES: usize = (64 << 10) + 4_096;
/// Bytes of messages after the handshake (tickets) that come in several records.
pub const TLS_LATE_MESSAGE: usize = 32 << 10;
/// Steps of handshakes, each with what asymmetric cryptography it needs, in one turn of a shard.
pub const TLS_STEPS_PER_TURN: usize = 4;

/// Entries of a ring's submission queue; a fuller turn submits more than once.
pub const SUBMISSION_ENTRIES: u32 = 1_024;
/// Entries of a ring's completion queue; beyond, the kernel keeps completions aside.
pub const COMPLETION_ENTRIES: u32 = 8_192;

/// Undelivered leases of one stream at which the ring stops receiving for it (back-pressure).
pub const RECEIVE_QUEUE: usize = 4;
/// Full small leases in a row after which a stream goes over to large ones …
pub const FULL_BEFORE_LARGE: u8 = 2;
/// … and little-filled large ones in a row after which it goes back.
pub const SPARSE_BEFORE_SMALL: u8 = 8;

/// Pipes of a shard, two descriptors each, for bulk data that is spliced; a session takes two, an
/// answer's body one …
pub const PIPES: usize = 32;
/// … and bytes that one holds: as many pages, of which received data often fills a part only.
pub const PIPE_BYTES: usize = 256 << 10;
/// How long the kernel is not asked for pipes again that it had none of, in milliseconds.
pub const PIPE_REFUSED_MS: u64 = 5_000;
/// Quarter-full large leases in a row after which a relay goes over to splicing …
pub const FULL_BEFORE_SPLICE: u8 = 4;
/// … small amounts in a row after which it goes back to leases …
pub const SPARSE_BEFORE_LEASES: u8 = 16;
/// … and how long nothing moves before it does, in milliseconds.
pub const SPLICE_QUIET_MS: u64 = 1_000;

/// Room of a fresh send buffer.
pub const SEND_BUFFER: usize = 4_096;
/// A send buffer that has grown beyond this is freed instead of kept.
pub const SEND_BUFFER_KEPT: usize = 16_384;
/// Send buffers that a shard keeps.
pub const SEND_BUFFERS_POOLED: usize = 1_024;
/// Bytes that `send_copy` copies at a time.
pub const COPY_PIECE: usize = SEND_BUFFER_KEPT;

/// Bytes of registered memory of a shard's executor, whose own I/O is not used.
pub const EXECUTOR_IO_MEMORY: usize = 64 << 10;
/// Entries of that executor's rings.
pub const EXECUTOR_RING_DEPTH: usize = 32;

/// How long a listener waits after it ran out of descriptors or memory, in milliseconds.
pub const ACCEPT_BACKOFF_MS: u64 = 100;
/// How often a shard tells control at most that the same member fails too often, in milliseconds.
pub const SUSPECT_PAUSE_MS: u64 = 1_000;
/// How often a shard says at most that it lacks ports, descriptors or memory for connections to
/// members, in milliseconds; each of these apart. And the process that it is full.
pub const SHORTAGE_LOG_MS: u64 = 10_000;
/// How long a shard that ends waits for its last operations, in milliseconds.
pub const TEARDOWN_MS: u64 = 2_000;
/// After so long the kernel is asked once more to end a connect that is given up, in milliseconds.
pub const CANCEL_AGAIN_MS: u64 = 50;

/// Bytes of a PROXY header of version 2, its TLVs included; a longer one is refused.
pub const MAX_PROXY_HEADER: usize = 4_096;
/// How long a connection may take to bring its PROXY header, in milliseconds.
pub const PROXY_HEADER_MS: u64 = 5_000;
/// Lines of the table that counts the connections of each client address, for a listener with
/// `connections_per_source`; a power of two …
pub const SOURCE_LINES: usize = 32_768;
/// … and addresses of one line, which is a cache line: 262,144 addresses in 2 MiB. An address that
/// finds its line full of others is let in and not counted.
pub const SOURCES_PER_LINE: usize = 8;
/// Bytes of a file with certificates, a key or an OCSP response; a chain has some thousand, the
/// bundle of all public CAs some 200,000.
pub const MAX_PEM_BYTES: u64 = 1 << 20;
/// Certificates of a chain that clients are shown; each costs every handshake its bytes.
pub const MAX_CHAIN: usize = 10;
/// Certificates of a CA bundle.
pub const MAX_BUNDLE: usize = 1_000;
/// Keys of a `ticket_keys` file.
pub const MAX_TICKET_KEYS: usize = 16;
/// How long after its full handshake a session can be resumed by its tickets, in seconds; for so
/// long nobody looks at the client's certificate again.
pub const TICKET_LIFETIME: u32 = 12 * 3_600;
/// After how many seconds tickets are sealed with another key; a key goes when its last ticket
/// has.
pub const TICKET_KEY_AGE: u64 = 4 * 3_600;
/// Bytes of a session that a ticket holds; a client's long certificate chain may make it longer,
/// and such a session can't be resumed.
pub const MAX_TICKET_STATE: usize = 12 << 10;
/// Bytes of names of CAs that a client is told to choose its certificate by; when there are more
/// it is told none.
pub const MAX_CA_NAMES: usize = 8 << 10;
/// Days before its end from which a certificate is warned of.
pub const EXPIRY_WARNING_DAYS: i64 = 30;
/// Tickets that one member's TLS sessions are kept by on one shard: eight for each of eight names.
pub const MEMBER_SESSIONS: usize = 64;
/// Bytes of log lines at which a shard hands a block of them to the writer.
pub const LOG_BLOCK: usize = 65_536;
/// Blocks of one shard and log target, 2 MiB of lines; when all are under way lines are dropped.
pub const LOG_BLOCKS: usize = 32;
/// Bytes of one log line at most; long fields are cut so that it holds.
pub const LOG_LINE: usize = 65_536;
/// Log targets of the process: each has a writing thread of its own.
pub const LOG_TARGETS: usize = 64;
/// How old a log line may become before it is written, in milliseconds.
pub const LOG_DELAY_MS: u64 = 500;

const _: () = assert!(SMALL_LEASE < LARGE_LEASE);
const _: () = assert!(PIPES >= 2 && PIPE_BYTES.is_multiple_of(LARGE_LEASE));
const _: () = assert!(STICKY_BINDINGS.is_multiple_of(STICKY_WAYS));
const _: () = assert!(SMALL_BUFFERS.published_most.is_power_of_two());
const _: () = assert!(LARGE_BUFFERS.published_most.is_power_of_two());
const _: () = assert!(DATAGRAM_BUFFERS.published_most.is_power_of_two());
const _: () = assert!(DATAGRAM_BUFFERS.published_most <= DATAGRAM_BUFFERS.total);
const _: () = assert!(SMALL_BUFFERS.published_most <= SMALL_BUFFERS.total);
const _: () = assert!(LARGE_BUFFERS.published_most <= LARGE_BUFFERS.total);
const _: () = assert!(5 + TLS_TEXT + TLS_EXPANSION <= RECORD_BUFFERS.size);
const _: () = assert!(LARGE_LEASE <= 4 * TLS_TEXT);
const _: () = assert!(SEND_BUFFER <= SEND_BUFFER_KEPT);
