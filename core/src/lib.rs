//! The ground that every other package of Weir stands on.
//!
//! A module uses only modules named earlier in this list:
//! `limits` → `counter` → `time` → `model` → `policy` → `cert` → `config` → `pool` → `acl` →
//! `proxy` → `rt` → `tls` → `net` → `obs` → `control` → `table`.
//! A blank line between the declarations keeps rustfmt from sorting them.

pub mod limits;

pub mod counter;

pub mod time;

pub mod model;

pub mod policy;

pub mod cert;

pub mod config;

pub mod pool;

pub mod acl;

pub mod proxy;

pub mod rt;

pub mod tls;

pub mod net;

pub mod obs;

pub mod control;

pub mod table;
