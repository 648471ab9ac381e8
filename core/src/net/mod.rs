//! What stands on sockets but is no part of the ring: the byte relay of two streams, the hauling of
//! a known number of bytes, the tasks that serve connections and our own addresses towards members,
//! which the data path uses; and, for the server's start-up only, the binding of listening sockets,
//! who owns a busy port, limits and cores of this process.

mod bind;
mod blame;
pub mod crowd;
pub mod haul;
pub mod owner;
pub mod relay;
pub mod source;
pub mod sys;

pub use bind::{
    BindError, Bound, Group, Joining, Place, Transport, Wanted, bind_all, bind_exclusive,
    bind_join, could_bind,
};
pub use blame::of_member;
