//! The desired state: what the balancer is to do, as a value with a version.
//!
//! `config` says what a file wants; [`State::next`] turns that into the next state, in which every
//! object that was there before keeps its [`Handle`](crate::model::Handle); [`State::diff`] tells
//! what changes from one state to another, [`State::apply`] does it, [`State::describe`] says it to
//! people. All pure. The server's control thread owns the one state of the process and sends diffs
//! to the shards, whose `table::View` applies them.

mod access;
mod change;
mod connections;
mod ejections;
mod headers;
mod legacy;
mod limits;
mod log;
mod objects;
mod passthrough;
mod retry;
mod routes;
mod state;
mod stickiness;
mod tls;
mod trust;
mod tunnel;
mod words;

#[cfg(test)]
mod tests;

pub use access::Access;
pub use change::{Change, Diff};
pub use connections::Connections;
pub use headers::{ForwardedFor, Headers, InsertSet, Inserted};
pub use legacy::{Bound, MemberName, Told, Verdict};
pub use limits::Limits;
pub use log::Log;
pub use objects::{Listener, Member, Pool, Timeouts};
pub use passthrough::Passthrough;
pub use retry::Retry;
pub use routes::{Fault, Routes};
pub use state::State;
pub use stickiness::{By, Stickiness};
pub use tls::Tls;
pub use tunnel::Tunnel;
