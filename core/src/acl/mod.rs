//! Who may connect, all pure: sets of networks ([`PrefixSet`]), white and black lists over them
//! ([`List`]), what the shards share to keep the limits of connections ([`Gate`] a listener,
//! [`House`] a process), and which of them takes a new one ([`Spread`]). Knows no socket and no
//! clock; `table` asks it for every connection, of whichever protocol.

mod bucket;
mod gate;
mod list;
mod prefixes;
mod sources;
mod spread;

pub use bucket::Bucket;
pub use gate::{Caps, Gate, House, Open};
pub use list::{List, Refusal};
pub use prefixes::PrefixSet;
pub use sources::{Claim, Sources};
pub use spread::{Share, Spread, skew};
