//! TCP: one session a client connection, from the choice of a member to the end of both
//! connections.
//!
//! | module | owns |
//! | --- | --- |
//! | `session` | where a session stands, and how it ends: pure |
//! | `serve` | its sockets, timers and counts |
//! | `service` | all sessions of a shard |

mod serve;
mod service;
pub mod session;

pub use serve::Origin;
pub use service::Tcp;
