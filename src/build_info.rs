//! What this program was built from. Set by `build.rs`; read by `--version` and `/metrics`.

/// Version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit of the sources, or "unknown" outside of a checkout.
pub const COMMIT: &str = env!("WEIR_COMMIT");
/// Version of the compiler.
pub const RUSTC: &str = env!("WEIR_RUSTC");
/// Target triple.
pub const TARGET: &str = env!("WEIR_TARGET");
/// "release" or "debug".
pub const PROFILE: &str = env!("WEIR_PROFILE");

/// The line behind `weir --version`.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("WEIR_COMMIT"),
    ", rustc ",
    env!("WEIR_RUSTC"),
    ", ",
    env!("WEIR_TARGET"),
    ", ",
    env!("WEIR_PROFILE"),
    ")"
);
