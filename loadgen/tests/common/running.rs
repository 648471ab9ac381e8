//! What a test starts, and ends by itself: programs, and a member.

use std::process::{Child, Command};

use weir_loadgen::{OriginSpec, Origins};

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

/// A member, which ends when it is dropped, and its URL.
pub fn origin() -> (Origins, String) {
    let origins = Origins::start(None, vec![OriginSpec::new("a")]).unwrap();
    let url = format!("http://{}/", origins.addrs()[0]);
    (origins, url)
}
