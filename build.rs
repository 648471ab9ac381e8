//! Hands what `weir --version` and `weir_build_info` say about this build to the compiler.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    if let Some(head) = output("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = output(&rustc, &["--version"]);
    set("WEIR_COMMIT", commit);
    set("WEIR_RUSTC", version.and_then(|v| v.split(' ').nth(1).map(str::to_owned)));
    set("WEIR_TARGET", std::env::var("TARGET").ok());
    set("WEIR_PROFILE", std::env::var("PROFILE").ok());
}

/// A build outside of a checkout has no commit: it says so.
fn set(name: &str, value: Option<String>) {
    println!("cargo::rustc-env={name}={}", value.as_deref().unwrap_or("unknown"));
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let done = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    (done.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
