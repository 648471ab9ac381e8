//! A network namespace of a test's own, with loopback alone: sysctls and packet filters there are
//! nobody else's.

use std::process::Command;

use super::run;

/// A network namespace with nothing but loopback; removed at the end.
pub struct Space(String);

impl Space {
    pub fn new(name: &str) -> Space {
        let space = Space(format!("weir-{name}-{}", std::process::id()));
        let made = ip(&["netns", "add", &space.0]);
        assert!(made.0 == Some(0), "network namespaces need root: {}", made.2);
        let up = ip(&["-n", &space.0, "link", "set", "lo", "up"]);
        assert_eq!(up.0, Some(0), "{}", up.2);
        space
    }

    /// A command that runs inside.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).args(words);
        command
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(words: &[&str]) -> (Option<i32>, String, String) {
    run(Command::new("ip").args(words))
}
