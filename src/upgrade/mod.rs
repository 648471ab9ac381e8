//! Replacing the running program (`weir upgrade`, SIGUSR2): the process that serves starts another
//! program with its own arguments and hands it all that it must not lose. [`giver`] is the serving
//! process' side, a thread that does what may block; [`heir`] is the side of the new process;
//! [`wire`] is what they say to each other, [`flows`] what of it is about UDP, [`program`] which
//! program it is. What is handed over
//! and when it takes effect is decided by the control threads of both (`server::upgrade`).
//!
//! ```text
//! serving process                          new process
//!   manifest, listening sockets  ────────►   reads the file, binds what is new, asks members
//!                                ◄────────   prepared
//!   bindings                     ────────►
//!   holds UDP flows up
//!   the latest ones, flows, go   ────────►   opens its doors
//!                                ◄────────   serving
//!   stops accepting, drains                  answers for the service
//! ```
//! Until `serving` has come any failure leaves the serving process as it was.

pub mod flows;
pub mod giver;
pub mod heir;
pub mod program;
pub mod wire;

use serde::{Deserialize, Serialize};

/// What an upgrade came to, for who asked for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Why the process that was asked serves on; `None` = the new one serves.
    pub error: Option<String>,
    /// The new process.
    pub pid: u32,
    /// From the request until it served, in milliseconds.
    pub effective_ms: f64,
}

impl Upgraded {
    /// Nothing changed, and why.
    pub fn refused(error: impl Into<String>) -> Upgraded {
        Upgraded { error: Some(error.into()), ..Upgraded::default() }
    }
}
