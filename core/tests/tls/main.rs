//! TLS streams against themselves, and against rustls and openssl: real sockets on a shard.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod keys;
mod pair;
mod peers;
mod streams;
#[path = "../rt/support.rs"]
mod support;
