//! GRPC pools end to end: clients and members of the gRPC library, the real program between them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod calls;
mod checks;
mod lanes;
mod nginx;
mod peers;
#[path = "../process/mod.rs"]
mod process;
