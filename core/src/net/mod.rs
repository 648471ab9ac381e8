//! Socket and process helpers that are no part of the ring: the binding of listening sockets, who
//! owns a busy port, limits and cores of this process. Called by the server at start-up only.

mod bind;
pub mod owner;
pub mod sys;

pub use bind::{BindError, Bound, Group, Wanted, bind_all, bind_exclusive, bind_join};
