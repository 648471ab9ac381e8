//! Pure: the result of a run. The field names are those of the JSON; times are seconds. Put
//! together by `build`, written by `commands`, judged by `verdict`, shown by `text`.

mod build;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::balancer::BalancerView;
use crate::drill::DrillView;
use crate::hist::{Bucket, Point, Summary};
use crate::live::Second;
use crate::machine::Limits;
use crate::record::{Datagrams, Errors, Slice};
use crate::setting::Setting;
use crate::shares::Shares;

#[cfg(test)]
pub(crate) use self::build::tests;
pub(crate) use self::build::{Seen, Totals};

/// Name and version of the JSON's form; the number grows when a key changes its meaning or goes.
pub const SCHEMA: &str = "weir-loadgen/1";

/// What a run found. All numbers are of the measured window unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of the program.
    pub version: String,
    /// The URL as it was given.
    pub url: String,
    /// The address it stands for.
    pub address: SocketAddr,
    /// Request method.
    pub method: String,
    /// `closed` or `open` (constant rate).
    pub mode: String,
    /// Connections that were asked for.
    pub connections: usize,
    /// Requests a connection; absent = kept alive.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests_per_connection: Option<u64>,
    /// HTTP/2 with so many streams a connection; absent = HTTP/1.1, or something else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub streams: Option<usize>,
    /// Cores, one shard each; empty = one shard, not pinned.
    pub cores: Vec<usize>,
    /// Seed.
    pub seed: u64,
    /// What was asked besides, where and when.
    #[serde(default)]
    pub setting: Setting,
    /// Length of the warm-up, seconds.
    pub warmup: f64,
    /// Length of the measured window, seconds.
    pub duration: f64,
    /// Somebody stopped the run before its end.
    pub stopped_early: bool,
    /// Requests that ended: answers and requests without one.
    pub requests: u64,
    /// Whole answers of any status.
    pub answers: u64,
    /// Errors by class.
    pub errors: Errors,
    /// The first cause of each class that occurred (also in the warm-up).
    pub error_causes: BTreeMap<String, String>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests a second.
    pub rate: Rate,
    /// Connections opened, those before the start included.
    pub connections_opened: u64,
    /// Of these, TLS sessions that were resumed.
    #[serde(default)]
    pub tls_resumed: u64,
    /// What TLS handshakes agreed on.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tls: Vec<Agreed>,
    /// Bytes both ways.
    pub bytes: Bytes,
    /// Answers by member, where they tell it; by name.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Whether the members' shares agree with the weights that were expected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shares: Option<Shares>,
    /// Answers that came from another member than the one before, of clients that have to stay
    /// with theirs (`--sticky`, flows of datagrams).
    #[serde(default)]
    pub stickiness_violations: u64,
    /// Datagrams.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub datagrams: Option<Datagrams>,
    /// Latencies by phase.
    pub latency: Phases,
    /// Total latency by share of requests.
    #[serde(default)]
    pub percentiles: Vec<Point>,
    /// All latencies of each phase, so that runs can be added up: `NANOSECONDS:COUNT`, with spaces
    /// between; so many took at most so long, and longer than the slot before (three significant
    /// digits).
    #[serde(default)]
    pub histograms: BTreeMap<String, String>,
    /// Total latency, bars at 1, 1.5, 2, 3, 5, 7, 10, … µs.
    pub distribution: Vec<Bucket>,
    /// Requests still unanswered when the run ended; they are in no other number.
    pub unfinished: u64,
    /// How long the oldest of them had waited, seconds.
    pub oldest_unfinished: f64,
    /// Processor time and memory of the target, if it was watched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu: Option<CpuUse>,
    /// What the balancer itself says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub balancer: Option<BalancerView>,
    /// Limits of this host that load can run into.
    #[serde(default)]
    pub limits: Limits,
    /// Processor time of loadgen itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loadgen_cpu: Option<SelfUse>,
    /// Processor time of members inside loadgen (`--serve`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub members_cpu: Option<MembersUse>,
    /// One row a second.
    pub timeline: Vec<Second>,
    /// What came of a drill.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drill: Option<DrillView>,
    /// The measured window in slices of 10 ms, where it was asked for.
    #[serde(skip)]
    pub slices: Vec<Slice>,
    /// What the reader of these numbers should know.
    pub notes: Vec<String>,
}

/// Connections whose TLS handshakes came to the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite by OpenSSL's name.
    pub cipher: String,
    /// Connections, those before the start included.
    pub connections: u64,
}

/// Answers of one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// What its answers call it.
    pub name: String,
    /// Answers.
    pub answers: u64,
    /// Its share of all answers that tell a member, 0–1.
    pub share: f64,
    /// Mean total latency of its answers, seconds.
    pub mean: f64,
    /// Their total latency in figures; absent where there are very many members.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<Summary>,
    /// The same by share of answers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub percentiles: Vec<Point>,
}

/// Requests a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Ended requests a second.
    pub achieved: f64,
    /// Asked for (constant rate); the mean where it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<u64>,
    /// The rates at the beginning and at the end of the measured window, where it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ramp: Option<[u64; 2]>,
    /// Whether that was reached within 0.5 %.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reached: Option<bool>,
    /// Requests that were due and never sent, for want of a free connection (constant rate).
    pub unsent: u64,
    /// Most requests that waited for a free connection at one time (constant rate), summed over
    /// the shards.
    pub max_backlog: u64,
}

/// Bytes of answered requests and their answers, heads included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// Latencies by phase; absent = nothing measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// TCP handshakes alone (of the opening and the measured window).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connect: Option<Summary>,
    /// TLS handshakes alone, of the same connections.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<Summary>,
    /// From the ready connection until all of the request was handed to the kernel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent: Option<Summary>,
    /// From the request's start to the first byte of its answer. Closed loop: the start is when
    /// the request began, a connect it needed included; constant rate: when it was due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_byte: Option<Summary>,
    /// From the answer's first byte to its last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<Summary>,
    /// From the start to the last byte.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<Summary>,
    /// Constant rate: from the sending to the last byte, that is without the correction for
    /// coordinated omission.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<Summary>,
    /// Constant rate: how late loadgen itself sent a request although a connection was free.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lateness: Option<Summary>,
}

/// What the target used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuUse {
    /// Processor time in the window, user and system, seconds.
    pub seconds: f64,
    /// Over how long that was measured, seconds.
    pub over: f64,
    /// The same for each ended request, µs.
    pub us_per_request: Option<f64>,
    /// Resident memory when the window began, bytes.
    pub rss_before: Option<u64>,
    /// Resident memory at its end, bytes.
    pub rss: Option<u64>,
}

/// What loadgen used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfUse {
    /// Processor time of all shards in the window, seconds; where they poll (`--spin`), the time in
    /// which they neither polled nor slept.
    pub seconds: f64,
    /// The same for each ended request, µs.
    pub us_per_request: Option<f64>,
    /// The same as a share of its cores' time, 0–1.
    pub busy: f64,
    /// The share of its time in which the busiest shard could not have done more, 0–1: it worked,
    /// or waited for its core.
    #[serde(default)]
    pub busiest: f64,
    /// The largest share of its time that a shard was ready and something else had its core, 0–1.
    #[serde(default)]
    pub waited: f64,
    /// The share of its cores' time that they had nothing to do and polled, 0–1.
    #[serde(default)]
    pub polled: f64,
}

/// What members inside loadgen used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MembersUse {
    /// Processor time of all of their cores in the window, seconds.
    pub seconds: f64,
    /// The same for each ended request, µs.
    pub us_per_request: Option<f64>,
    /// The share of its time in which the busiest of these cores could not have done more, 0–1: it
    /// worked, or waited to.
    pub busiest: f64,
    /// The largest share of its time that one was ready and something else had its core, 0–1.
    pub waited: f64,
}

impl Phases {
    /// All of them with their names, in the order in which a request passes them.
    pub fn named(&self) -> [(&'static str, Option<Summary>); 8] {
        [
            ("connect", self.connect),
            ("tls", self.tls),
            ("sent", self.sent),
            ("first_byte", self.first_byte),
            ("body", self.body),
            ("total", self.total),
            ("service", self.service),
            ("lateness", self.lateness),
        ]
    }
}

impl Report {
    /// Right answers a second.
    pub fn right_rate(&self) -> f64 {
        let right = self.requests.saturating_sub(self.errors.total);
        if self.duration > 0.0 { right as f64 / self.duration } else { 0.0 }
    }

    /// The JSON, one object with a line end.
    ///
    /// # Errors
    /// Never with what a report holds; the library wants it handled.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}
