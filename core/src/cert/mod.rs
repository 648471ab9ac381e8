//! Certificates: what the files of a `[[certificate]]` hold, read, checked and ready to be shown.
//!
//! [`read()`] turns one `[[certificate]]` into a [`Material`] and says what is wrong or doubtful
//! about it; [`Index`] finds certificates by the name that a client asks for. Knows no listener, no
//! TLS connection and no place in a file: `config` puts places to what is found, the server's
//! control thread reads anew what changed, `tls` shows what is here. Everything but the reading of
//! files is pure.

mod chain;
mod der;
mod file;
mod index;
mod key;
mod material;
mod names;
mod ocsp;
mod peer;
mod pem;
mod read;
mod system;
mod tickets;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;

pub use index::Index;
pub use material::{Authorities, Identity, Material, Store};
pub use names::{ascii, covers};
pub use peer::PeerCertificate;
pub use read::{Note, Part, Reading, read};
pub use system::system;
pub use tickets::{TicketFile, TicketReading, read_tickets};
