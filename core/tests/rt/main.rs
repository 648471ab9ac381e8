//! The runtime against the real kernel: sockets, cancellation, back-pressure, faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod basics;
mod edges;
mod haul;
mod linked;
mod relay;
mod relay_simulation;
mod spin;
mod splice;
mod stress;
mod support;
mod udp;
