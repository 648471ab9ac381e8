//! TCP: one session a client connection, from the choice of a member to the end of both
//! connections.
//!
//! | module | owns |
//! | --- | --- |
//! | `session` | where a session stands, and how it ends: pure |
//! | `first` | what a client says before it has a member |
//! | `serve` | its sockets, timers and counts |
//! | `service` | all sessions of a shard |

mod first;
mod serve;
mod service;
pub mod session;

pub use serve::Origin;
pub use service::Tcp;
