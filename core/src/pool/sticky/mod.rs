//! Session stickiness: all pure. [`token`] writes and checks the value of the cookie that Weir
//! sets, [`Bindings`] is the table of sessions that are told by something the members or clients
//! made (an application's cookie), [`prefer`] is the first choice for such a session, alike on
//! every shard; [`Secret`] and [`Key`] keep clients from making things up. Called by `control`,
//! which builds what a pool needs, and for each request of a sticky pool.

mod bindings;
mod key;
mod rendezvous;
pub mod token;

pub use bindings::{Bindings, Seen};
pub use key::{Key, Secret};
pub use rendezvous::prefer;
