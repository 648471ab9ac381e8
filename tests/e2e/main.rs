//! End to end: the real program between real members (nginx, and scripted ones on threads) and
//! real clients (curl, wrk, and raw sockets). Reduced counts every day; `tests/soak e2e` has all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../process/mod.rs"]
mod process;

mod algorithms;
mod bodies;
mod churn;
mod differential;
mod drain;
mod flapping;
mod hauls;
mod large;
mod nginx;
mod pressure;
mod reload;
mod retries;
mod slow;
mod tunnels;
mod weights;
mod wire;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One of these tests at a time: they measure memory, time and descriptors, and there may be only
/// two cores. Also raises this process' limit of descriptors, of which some tests need many.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    weir_core::net::sys::raise_nofile().unwrap();
    turn
}

/// The choices of cores to test with: one shard, and all cores where there are more.
pub fn core_choices() -> &'static [&'static str] {
    match weir_core::net::sys::allowed_cores().unwrap().len() {
        1 => &["\"auto\""],
        _ => &["[0]", "\"auto\""],
    }
}

/// Runs a program to its end; its exit code, stdout and stderr.
pub fn run(program: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|e| panic!("{program} (see tests/packages.sh): {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// Runs curl, quietly and with a limit on its time; its stdout. It has to succeed.
pub fn curl(args: &[&str]) -> String {
    let (code, out, err) = run("curl", &[&["-sS", "--max-time", "120"], args].concat());
    assert_eq!(code, Some(0), "curl {args:?}: {err}");
    out
}

/// A small, seeded source of numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from 0 to `below` - 1.
    pub fn below(&mut self, below: u64) -> u64 {
        (self.roll() >> 16) % below
    }
}
