//! The counter blocks of listeners and members. One block a shard and object.

use std::sync::OnceLock;

use super::{DatagramCounters, EndingCounters, HandshakeCounters, Histogram};
use crate::acl::Refusal;
use crate::counter::{Counter, Gauge};

/// One counter for each status code from 100 to 599. The hundred of a class takes its memory when
/// its first code is seen: most objects see two classes, and there are many objects.
#[derive(Debug, Default)]
pub struct StatusCounters([OnceLock<Box<[Counter; 100]>>; 5]);

impl StatusCounters {
    /// Counts one answer with `status`; a code outside 100 to 599 is not counted.
    pub fn count(&self, status: u16) {
        let (class, code) = (usize::from(status / 100), usize::from(status % 100));
        if let Some(counters) = self.0.get(class.wrapping_sub(1)) {
            let counters =
                counters.get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
            if let Some(counter) = counters.get(code) {
                counter.add(1);
            }
        }
    }

    /// The codes seen so far with their counts, ascending.
    pub fn seen(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (1u16..).zip(&self.0).flat_map(|(class, counters)| {
            let counters = counters.get().map_or(&[][..], |counters| &counters[..]);
            (class * 100..).zip(counters).map(|(code, c)| (code, c.get())).filter(|&(_, n)| n > 0)
        })
    }
}

/// One counter for each reason to refuse a connection.
#[derive(Debug, Default)]
pub struct RefusalCounters([Counter; Refusal::COUNT]);

impl RefusalCounters {
    /// Counts one connection that was refused.
    pub fn count(&self, refusal: Refusal) {
        if let Some(counter) = self.0.get(refusal.number()) {
            counter.add(1);
        }
    }

    /// How many were refused for this reason.
    pub fn get(&self, refusal: Refusal) -> u64 {
        self.0.get(refusal.number()).map_or(0, Counter::get)
    }
}

/// What stickiness did for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sticky {
    /// Its pool has none, or there was nothing that a session could be told by.
    #[default]
    None,
    /// There was no binding; now there is one.
    New,
    /// It went to the member that its session is bound to.
    Hit,
    /// It came with a binding that could not be followed: expired, altered, or its member may get
    /// no requests.
    Miss,
}

impl Sticky {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Sticky::None => "none",
            Sticky::New => "new",
            Sticky::Hit => "hit",
            Sticky::Miss => "miss",
        }
    }
}

/// How often stickiness did what.
#[derive(Debug, Default)]
pub struct StickyCounters([Counter; 4]);

impl StickyCounters {
    /// All that can happen, in the order of the counters.
    pub const ALL: [Sticky; 4] = [Sticky::None, Sticky::New, Sticky::Hit, Sticky::Miss];

    /// Counts one request.
    #[inline]
    pub fn count(&self, what: Sticky) {
        if let Some(counter) = self.0.get(what as usize) {
            counter.add(1);
        }
    }

    /// How often that happened.
    #[must_use]
    pub fn get(&self, what: Sticky) -> u64 {
        self.0.get(what as usize).map_or(0, Counter::get)
    }
}

/// What one shard counts for one listener.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Client connections accepted; those refused are not among them.
    pub connections: Counter,
    /// Client connections refused: closed by RST before anything else.
    pub refused: RefusalCounters,
    /// Client connections open now.
    pub active_connections: Gauge,
    /// Requests answered, with whatever status.
    pub requests: Counter,
    /// Bytes received from clients.
    pub bytes_received: Counter,
    /// Bytes sent to clients.
    pub bytes_sent: Counter,
    /// Client-facing status codes.
    pub statuses: StatusCounters,
    /// Client connections that are tunnels now, after a 101.
    pub active_tunnels: Gauge,
    /// Answered requests by what stickiness did for them.
    pub sticky: StickyCounters,
    /// Client connections closed without a complete request (silent, or cut off).
    pub silent_closes: Counter,
    /// HTTP/2 connections ended for a flood of what brings nobody anything.
    pub http2_floods: Counter,
    /// HTTP/2 connections ended for any other fault of the client's.
    pub http2_faults: Counter,
    /// Layer 4: how connections and flows ended.
    pub endings: EndingCounters,
    /// UDP: datagrams.
    pub datagrams: DatagramCounters,
    /// Requests for which a member was asked at least once; the others are in `local`.
    pub forwarded: Counter,
    /// Status codes of requests for which no member was asked (R4.2-1).
    pub local: StatusCounters,
    /// How long requests took.
    pub times: Times,
    /// TLS handshakes.
    pub handshakes: HandshakeCounters,
}

/// Times of the requests of a listener on one shard (R4.1-2 to R4.1-6).
#[derive(Debug, Default)]
pub struct Times {
    /// From the first byte of a request until its answer was handed to the kernel.
    pub request: Histogram,
    /// Until there was a connection to a member; each attempt.
    pub connect: Histogram,
    /// Until a member's answer began; each attempt.
    pub header: Histogram,
    /// Until a member's answer had come; each attempt.
    pub response: Histogram,
}

/// What one shard counts for one member of a pool.
#[derive(Debug, Default)]
pub struct MemberCounters {
    /// Connections opened to the member.
    pub connections: Counter,
    /// Connections to the member that exist now, idle ones included.
    pub active_connections: Gauge,
    /// Idle connections in the keep-alive pool.
    pub idle_connections: Gauge,
    /// Connections that could not be opened: refused, reset, unreachable, timed out.
    pub connect_failures: Counter,
    /// Handshakes of TLS with the member that ended well.
    pub tls_handshakes: Counter,
    /// Those of them that resumed an earlier session.
    pub tls_resumed: Counter,
    /// Handshakes of TLS with the member that failed, or took too long.
    pub tls_failures: Counter,
    /// Requests given to the member.
    pub requests: Counter,
    /// Bytes received from the member.
    pub bytes_received: Counter,
    /// Bytes sent to the member.
    pub bytes_sent: Counter,
    /// Status codes the member answered with.
    pub statuses: StatusCounters,
    /// How long those answers took, all together, in microseconds (R4.4-3).
    pub response_us: Counter,
    /// Requests sent once more, since a reused connection failed before any response byte.
    pub reuse_retries: Counter,
    /// Attempts that failed here, after which the request went to another member.
    pub retries: Counter,
}
