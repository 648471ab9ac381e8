//! The bounds of health checking. Owns no logic.

use std::time::Duration;

/// Probes that run at once; each holds a descriptor. What is due beyond that waits its turn: it is
/// late, never failed.
pub const MAX_PROBES: usize = 4_096;
/// The longest ejection of a member, unless its pool's `base_ejection` is longer.
pub const MAX_EJECTION: Duration = Duration::from_secs(300);
