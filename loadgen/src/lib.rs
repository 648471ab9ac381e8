//! Weir's load generator: an independent judge of any HTTP balancer, and the origin servers to put
//! behind one. It shares the runtime and the clock with Weir, but no parser and no protocol code.
//!
//! In the order in which a run passes them:
//!
//! | module | owns |
//! | --- | --- |
//! | `cli`, `commands` | flags of the binary; what each command does and its exit code |
//! | [`plan`], `target` | what is asked for, checked; the bytes of the request |
//! | [`engine`] | the coordinator thread: starts shards, keeps the clock of the run, samples |
//! | `shard`, `gate` | one core: its connections, its share of the schedule |
//! | [`pace`] | who sends when (pure): closed loop, constant rate, quota |
//! | `client` | one connection: connect, send, read |
//! | [`response`], [`chunked`], `head` | what came back (pure parsers) |
//! | [`record`], [`hist`], [`live`] | what is counted, afterwards and while it runs |
//! | [`report`], `text`, [`verdict`] | the result: JSON, text, `--fail-if` |
//! | [`cpu`] | `/proc`: processor time and memory of the target |
//! | [`idle`] | many idle connections and what they cost the target |
//! | [`origin`], `origin_conn`, [`request`] | embedded members |
//!
//! Library users want [`run`] or [`run_with`], [`Plan`], [`Live`] and [`Origins`].

#![forbid(unsafe_code)]

pub mod chunked;
pub mod cli;
mod client;
mod commands;
pub mod cpu;
pub mod engine;
mod gate;
mod head;
pub mod hist;
pub mod idle;
pub mod limits;
pub mod live;
pub mod origin;
mod origin_conn;
pub mod pace;
pub mod plan;
pub mod record;
pub mod report;
pub mod request;
pub mod response;
mod seed;
mod shard;
mod target;
mod text;
pub mod units;
pub mod verdict;

pub use commands::main;
pub use engine::{RunError, run, run_with};
pub use live::{Live, Second, Snapshot};
pub use origin::{Delay, OriginError, OriginSpec, Origins};
pub use plan::{CpuOf, Length, Plan, PlanError, Reuse};
pub use record::ErrorClass;
pub use report::Report;
pub use target::Target;
