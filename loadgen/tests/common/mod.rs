//! Waiting for a condition, with a deadline.

use std::time::Duration;

use weir_core::time::clock::mono;

/// Waits until `condition` holds; fails after ten seconds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = mono();
    while !condition() {
        assert!(mono().since(begun) < Duration::from_secs(10), "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
