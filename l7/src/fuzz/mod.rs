//! Fuzz targets: plain functions over bytes that say whether the input was accepted, or which
//! promise was broken. Pure. Called by `tests/fuzz.rs` (kept inputs and seeded mutations, in every
//! test run) and by cargo-fuzz (`fuzz/`); compiled for those only (feature `fuzz`).
//!
//! A target owes: no panic, no second reading of what it accepts, and the same meaning after
//! writing. `reference` holds readers of our own that share no code with the ones under test.

mod chunked;
mod cookies;
mod frames;
mod hpack;
mod policy;
mod reference;
mod request;
mod response;

pub use chunked::chunked;
pub use cookies::cookies;
pub use frames::frames;
pub use hpack::hpack;
pub use policy::policy_match;
pub use request::request_head;
pub use response::response_head;

/// `true`: accepted; `false`: refused, or incomplete.
///
/// # Errors
/// The promise that doesn't hold for this input.
pub type Outcome = Result<bool, String>;

/// Fails with `promise` and what was seen, unless it holds.
fn promise(holds: bool, promise: &str, seen: &[u8]) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{promise}: {}", seen.escape_ascii())) }
}
