//! loadgen as a command, and what it says.

use std::process::{Command, Output};

/// The command, without arguments.
pub fn command() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("loadgen"))
}

/// What a run with these arguments came to.
pub fn loadgen(args: &[&str]) -> Output {
    command().args(args).output().unwrap()
}

/// What was said, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
