//! Weir's load generator: an independent judge of any HTTP balancer, and the origin servers to put
//! behind one. It shares the runtime and the clock with Weir, but no parser and no protocol code.
//!
//! In the order in which a run passes them:
//!
//! | module | owns |
//! | --- | --- |
//! | `cli`, `commands` | flags of the binary; what each command does and its exit code |
//! | [`plan`], `target`, [`template`] | what is asked for, checked; the bytes of the requests |
//! | [`engine`] | the coordinator thread: starts shards, keeps the clock of the run, samples |
//! | `shard`, `gate` | one core: its connections, its share of the schedule |
//! | [`pace`], [`ramp`] | who sends when (pure): closed loop, constant or changing rate, quota |
//! | `wire`, `secure` | what all connections share; TLS towards the target |
//! | `client`, `slot`, `pipeline` | one connection: connect, TLS, one exchange at a time or many |
//! | `h2` | the same over HTTP/2, with its own HPACK and frames; and the member's side of it |
//! | `http`, `tcp`, `ws`, `udp` | what is said on a connection, or in a flow |
//! | [`response`], [`chunked`], `head`, `noted`, [`search`] | what came back (pure parsers) |
//! | `websocket`, `datagram`, `jar`, `pattern` | what else goes out and comes back (pure) |
//! | [`record`], [`hist`], [`live`] | what is counted, afterwards and while it runs |
//! | [`shares`], [`statistics`] | members' shares against weights; tests of significance (pure) |
//! | [`report`], `text`, [`verdict`] | the result: JSON, text, `--fail-if` |
//! | `admin`, `prometheus`, `access_log`, `balancer` | the balancer's own view |
//! | `csv`, `html`, `chart`, [`compare`] | the report in other forms; two held against each other |
//! | [`machine`] | limits of this host that load runs into |
//! | [`cpu`] | `/proc`: processor time and memory of the target |
//! | `control` | several runs, ended together |
//! | [`rounds`], [`knee`] | two sides in turn; the highest rate that meets an objective |
//! | [`sweep`], [`drill`] | several configurations of Weir; failures with a verdict |
//! | [`idle`] | many idle connections and what they cost the target |
//! | [`origin`], `origin_*`, [`request`] | embedded members |
//!
//! Library users want [`run`] or [`run_with`], [`Plan`], [`Live`] and [`Origins`].

#![forbid(unsafe_code)]

mod access_log;
mod admin;
mod awaited;
mod balancer;
mod chart;
pub mod chunked;
pub mod cli;
mod client;
mod commands;
pub mod compare;
mod control;
pub mod cpu;
mod csv;
mod datagram;
pub mod drill;
pub mod engine;
mod gate;
mod h2;
mod head;
pub mod hist;
mod html;
mod http;
pub mod idle;
mod jar;
pub mod knee;
pub mod limits;
pub mod live;
pub mod machine;
mod noted;
pub mod origin;
mod origin_bytes;
mod origin_conn;
mod origin_h2;
mod origin_member;
mod origin_spec;
mod origin_tls;
mod origin_udp;
pub mod pace;
mod pattern;
mod pipeline;
pub mod plan;
mod prometheus;
pub mod ramp;
pub mod record;
pub mod report;
pub mod request;
pub mod response;
pub mod rounds;
pub mod search;
mod secure;
mod seed;
mod sending;
pub mod setting;
mod shard;
pub mod shares;
mod slot;
pub mod statistics;
pub mod sweep;
mod target;
mod tcp;
pub mod template;
mod text;
mod udp;
pub mod units;
pub mod verdict;
mod websocket;
mod wire;
mod ws;

pub use access_log::LogView;
pub use admin::AdminView;
pub use balancer::BalancerView;
pub use commands::main;
pub use control::Control;
pub use engine::{RunError, run, run_with};
pub use live::{Live, Second, Snapshot};
pub use origin::{Delay, OriginError, OriginSpec, Origins, Speaks};
pub use origin_tls::OriginTls;
pub use plan::{CpuOf, Exchange, Length, Plan, PlanError, Reuse, TlsOptions};
pub use prometheus::Estimate;
pub use record::ErrorClass;
pub use report::Report;
pub use target::{Scheme, Target};
