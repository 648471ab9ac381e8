//! Health checking: who asks members whether they work, when, and what follows from the answers.
//!
//! `state` (successes and failures to up and down) and `schedule` (when the next probe is due) are
//! pure; `turns` bounds how many probes run at once; `patience` says how long one waits; `probe`
//! asks a member once; [`Prober`] runs all checks of the process on the control thread and tells
//! what changed; [`Outliers`] (pure) says which members are left out since they fail what clients
//! ask. Knows nothing of pools' algorithms, shards or files: who is to be probed is told by
//! [`Prober::set_targets`]. gRPC probes are made where somebody speaks HTTP/2.
#![forbid(unsafe_code)]

mod counters;
pub mod limits;
mod outliers;
mod patience;
mod probe;
mod prober;
mod reason;
mod schedule;
mod state;
mod turns;

pub use counters::ProberCounters;
pub use outliers::{Ejection, Outliers, Verdict};
pub use probe::{AskGrpc, GrpcAnswering, GrpcCall};
pub use prober::{First, Prober, Target};
pub use reason::{Code, Local, Reason};
pub use state::Past;
