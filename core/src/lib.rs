//! The ground that every other package of Weir stands on.
//!
//! A module uses only modules named earlier in this list:
//! `limits` → `counter` → `time` → `model` → `config` → `pool` → `rt` → `net` → `obs`.
//! (`acl`, `control`, `tls` and `table` join with the issues that need them.)

pub mod config;
pub mod counter;
pub mod limits;
pub mod model;
pub mod net;
pub mod obs;
pub mod pool;
pub mod rt;
pub mod time;
