//! A program that a test starts and ends.

use std::process::{Child, Command};

/// A started program that is ended by its id when the test is over.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal by its name.
pub fn signal(child: &Child, name: &str) {
    let done =
        Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}
