//! Who may connect, all pure: sets of networks ([`PrefixSet`]), white and black lists over them
//! ([`List`]), and what the shards share to keep the limits of connections ([`Gate`] a listener,
//! [`House`] a process). Knows no socket and no clock; `table` asks it for every connection, of
//! whichever protocol.

mod bucket;
mod gate;
mod list;
mod prefixes;
mod sources;

pub use bucket::Bucket;
pub use gate::{Caps, Gate, House, Open};
pub use list::{List, Refusal};
pub use prefixes::PrefixSet;
pub use sources::{Claim, Sources};
