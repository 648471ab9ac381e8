//! The bounds of health checking. Owns no logic.

/// Probes that run at once; each holds a descriptor. What is due beyond that waits its turn: it is
/// late, never failed.
pub const MAX_PROBES: usize = 4_096;
