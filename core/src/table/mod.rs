//! One shard's replica of the backend table: its listeners (sites), pools and members, as the data
//! path reads them: no lock, no atomic but the counters'.
//!
//! [`View::apply`] takes the diffs of `control` between turns. Objects are shared by reference
//! count: a connection keeps what it holds, so a listener or pool that is gone lives on until the
//! last connection that came by it ends (R6.3-2, C37). Protocol code reads sites and asks
//! [`Pool::pick`]; it changes nothing here.

mod admit;
mod log;
mod member;
mod outcomes;
mod pool;
mod routes;
mod site;
mod view;

#[cfg(test)]
mod tests;

pub use admit::Ticket;
pub use log::SiteLog;
pub use member::{Held, Keep, Member};
pub use outcomes::Suspect;
pub use pool::{Nobody, Pool};
pub use routes::{Routes, Way};
pub use site::Site;
pub use view::View;
