//! Core pinning: which shard runs on which core, and which balancers it serves. [`Machine`] is what
//! the system has, [`Plan`] what the configuration makes of it; both are values, so that every
//! machine can be tested on any. Used by `serve`, `check` and `demo`.

mod list;
mod machine;
mod plan;

pub use machine::Machine;
pub use plan::Plan;
