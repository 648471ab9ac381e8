//! Weir's HTTP forwarding. A request passes the modules in the order in which they stand here:
//!
//! - `service`: what a shard holds: sites (listeners), pools, free exchanges; the public door.
//! - `connection`: a client connection's life in HTTP/1: idle, exchange after exchange, close or
//!   linger; `mux`: in HTTP/2, streams side by side; `client`: what exchanges see of either.
//! - `exchange`: the heart: one request on one client connection and one member.
//! - `identity`: who a request comes from, and its id.
//! - `message`: heads: pieces found by httparse, re-checked, kept as offsets, written anew.
//! - `route`: which pool, which member; `policy`: what forwarding policies look at, and answer.
//! - `upstream`: connections to members and the idle ones among them; `shared`: those of HTTP/2,
//!   which many requests share.
//! - `body`: framing, decoding, framing anew; pure but for `body::relay`.
//! - `h2`: HTTP/2: frames, header compression, streams; pure.
//! - `pace`: how slow a client may be.
//! - `error`: everything that can go wrong, in one table with status and reason.
//! - `record`: a request's line in the access log; pure.
//! - `limits`: the bounds of this crate.
//! - `fuzz`: what fuzzing calls; not part of the program.
#![forbid(unsafe_code)]

mod service;

mod connection;

mod mux;

mod client;

mod exchange;

mod identity;

mod message;

mod route;

mod policy;

mod upstream;

mod shared;

mod body;

#[allow(dead_code, reason = "the connections that speak HTTP/2 call it; they come one by one")]
mod h2;

mod pace;

mod error;

mod record;

mod limits;

#[cfg(feature = "fuzz")]
pub mod fuzz;

pub use service::Service;
pub use shared::{GrpcAnswer, ask_grpc};
