//! Every bound of the load generator. Owns no logic; all modules read it.

use std::time::Duration;

/// Connections that one run may hold.
pub const MAX_CONNECTIONS: usize = 1_000_000;
/// Requests a second that may be asked for.
pub const MAX_RATE: u64 = 100_000_000;
/// Shards (cores) of one run.
pub const MAX_SHARDS: usize = 1_024;
/// Longest duration, warm-up, delay or timeout that can be asked for.
pub const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 3600);
/// Largest `--body` file, in bytes.
pub const MAX_BODY: u64 = 1 << 30;
/// Bytes of a response or request head that we accept; more is malformed.
pub const MAX_HEAD: usize = 65_536;
/// Header fields of a head that we accept; more is malformed.
pub const MAX_FIELDS: usize = 128;
/// Bytes of a chunk-size line or of one trailer section.
pub const MAX_CHUNK_LINE: usize = 16_384;

/// Requests under way at once on a connection.
pub const MAX_PIPELINE: usize = 1_024;
/// Streams under way at once on a connection of HTTP/2.
pub const MAX_STREAMS: usize = 1_000;
/// Streams that a target takes before it has said how many (RFC 9113, 6.5.2: no fewer than 100).
pub const H2_ASSUMED_STREAMS: usize = 100;
/// What a stream may receive before we give room again.
pub const H2_STREAM_WINDOW: u32 = 1 << 20;
/// The same of a connection of HTTP/2.
pub const H2_WINDOW: u32 = 1 << 24;
/// Bytes of bodies that are made ready for one send of HTTP/2.
pub const H2_OUT: usize = 65_536;
/// Bytes that wait to be sent on a connection of HTTP/2 because the target keeps asking.
pub const H2_OUT_LIMIT: usize = 1 << 20;
/// Kinds of requests of one run.
pub const MAX_TEMPLATES: usize = 10_000;
/// Weight of a kind of requests.
pub const MAX_WEIGHT: u32 = 1_000_000;
/// Requests with an id that are remembered, to be found in an access log.
pub const MAX_IDS: usize = 1 << 20;
/// Cookies that a connection slot keeps.
pub const MAX_COOKIES: usize = 64;
/// Members that a report tells apart; those beyond are counted together.
pub const MAX_MEMBERS: usize = 1_024;
/// Members whose latencies a shard keeps each by itself.
pub const MEMBER_HISTS: usize = 32;
/// Smallest and largest datagram payload.
pub const DATAGRAM_SIZE: (u64, u64) = (48, 65_507);
/// Bytes of a message unless the plan says otherwise.
pub const MESSAGE_SIZE: u64 = 64;
/// Slices of 10 ms that a drill looks at: an hour.
pub const MAX_SLICES: usize = 360_000;
/// How long a balancer may take to show a certificate that was written over the former one.
pub const ROTATION_LIMIT: Duration = Duration::from_secs(30);
/// Handshakes in a row that have to show it: each of the balancer's cores may take one of them.
pub const ROTATION_SIGHTS: u32 = 32;
/// How long one of these handshakes may take.
pub const SIGHT_LIMIT: Duration = Duration::from_secs(5);
/// How long a balancer that is started may take until it listens.
pub const START_LIMIT: Duration = Duration::from_secs(10);
/// How long one that is to end may take before it is killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(40);
/// Rounds of a run of two sides.
pub const MAX_ROUNDS: usize = 10_000;
/// Requests of one try of a search below which its percentiles say nothing.
pub const FEWEST_REQUESTS: u64 = 100;
/// Bytes of one reading of all metrics.
pub const MAX_SCRAPE: u64 = 64 << 20;
/// Between two tries at a target that is waited for.
pub const WAIT_PAUSE: Duration = Duration::from_millis(100);
/// Time for one reading of all metrics, and for a connection to a target that is waited for.
pub const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
/// How long the lines of an access log are waited for.
pub const LOG_LIMIT: Duration = Duration::from_secs(3);
/// Datagrams of one flow that may be on their way.
pub const MAX_FLIGHTS: usize = 65_536;
/// Time limit of a datagram unless the command line says otherwise.
pub const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a target may take to end a connection whose session tickets are wanted.
pub const TICKET_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of one piece of a long send.
pub const SEND_PIECE: usize = 65_536;

/// A request up to this size goes out in one send; a larger one is sent while the answer is read.
pub const SMALL_REQUEST: usize = 4_096;
/// A body of at least this many bytes asks the runtime for large receive buffers.
pub const BULK_BODY: u64 = 65_536;
/// A connect that took at least so long has had its SYN sent again: the kernel waits a second for
/// an answer (RFC 6298, 2.1), by a clock that is a little coarser than ours.
pub const SYN_AGAIN: Duration = Duration::from_millis(900);
/// Connections of one shard that may be opening at once before the run starts.
pub const OPENING: usize = 64;
/// How long the opening of all connections may take before the run starts without the rest.
pub const OPENING_LIMIT: Duration = Duration::from_secs(30);
/// What a closed-loop connection waits after a failed connect, so that a dead target isn't flooded.
pub const CONNECT_PAUSE: Duration = Duration::from_millis(10);
/// How often a shard looks at the stop flag, and the coordinator at the clock.
pub const TICK: Duration = Duration::from_millis(20);
/// Between all shards being ready and the common start.
pub const START_DELAY: Duration = Duration::from_millis(5);
/// With nothing but connect errors for so long, the target counts as unreachable.
pub const GIVE_UP: Duration = Duration::from_secs(1);
/// Time limit of one request unless the plan says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Descriptors a run needs besides its connections (rings, files, signals).
pub const SPARE_DESCRIPTORS: u64 = 64;
/// Seconds that the timeline of a report keeps; later ones are only in the totals.
pub const MAX_TIMELINE: usize = 86_400;

/// Largest latency that a histogram holds; longer ones count as this.
pub const MAX_LATENCY: Duration = Duration::from_secs(300);
/// Significant decimal digits of a histogram.
pub const LATENCY_DIGITS: u8 = 3;

/// Origins that one [`crate::Origins`] may hold.
pub const MAX_ORIGINS: usize = 1_024;
/// Accept queue of an origin.
pub const ORIGIN_BACKLOG: i32 = 4_096;
/// Streams that an origin takes at once on a connection of HTTP/2.
pub const ORIGIN_STREAMS: u32 = 1_000;
/// Commands that may wait for the origins' shard.
pub const ORIGIN_COMMANDS: usize = 64;
/// How long `kill` and `revive` wait for the shard's answer.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// How long a revived origin tries to get its port back.
pub const REVIVE_LIMIT: Duration = Duration::from_secs(2);
/// Body bytes that are sent in one piece; larger bodies repeat it.
pub const PATTERN: usize = 65_536;
/// A body up to this size goes into the same send as its head.
pub const INLINE_BODY: u64 = 3_072;

const _: () = assert!(INLINE_BODY < PATTERN as u64);
const _: () = assert!(PATTERN <= weir_core::limits::LARGE_LEASE);
const _: () = assert!(TICK.as_millis() < GIVE_UP.as_millis());
