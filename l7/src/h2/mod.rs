//! HTTP/2 without sockets and clocks (RFC 9113, RFC 7541, RFC 8441): received bytes go in, events
//! come out, and what is to be sent is appended to the caller's buffer. Owns frames, header
//! compression, the states of streams, flow control and the budgets against floods; knows nothing
//! of exchanges. Called by the connection that serves a client, and by those to members.
//!
//! | module | owns |
//! | --- | --- |
//! | `frame` | frames and their small payloads |
//! | `hpack` | header compression |
//! | `head` | a decoded head, in the form that heads of HTTP/1 are kept in |
//! | `block` | writing a head or trailers |
//! | `connection` | both roles of a connection: `Connection`, `Event` |
//!
//! How it is used:
//!
//! ```text
//! Connection::server(limits, now), ::client(limits, now)
//! start(&mut out)                          preface and settings
//! step(&input[at..], &mut head, &mut out, now) -> Result<Step { used, event }, Fault>
//!     call it until `used` is all of the input and `event` is None; behind each call the input
//!     goes on at `at += used`. Events:
//!       Head { stream, end }               `head` holds it: request, response (interim ones, too)
//!       Trailers { stream }                `head` holds them; the peer's side has ended
//!       Data { stream, len, end }          the next `len` bytes of the input are body: take them
//!                                          from there and add them to `at`
//!       Reset { stream, code, by_peer, unprocessed }
//!                                          the stream is gone
//!       GoAway { code }                    the peer takes no new streams
//!     `Fault`: the connection has ended; GOAWAY was appended: send it and close.
//! consumed(stream, n, &mut out)            n bytes of its body have gone on: the window reopens
//! open(method_is_head, end, &mut out, |block| …) -> Option<StreamRef>   (client role)
//! send_head(stream, end, &mut out, |block| { block.status(200); block.field(name, value); … })
//! send_trailers(stream, &mut out, |block| …)
//! want(stream, true)                       it has body to send …
//! next_sender() -> Option<(stream, room)>  … whose turn it is, and how many bytes it may send
//! send_data(stream, len, end, &mut out)    appends a DATA head: `len` bytes of body must follow it
//! reset(stream, code, &mut out)            gives a stream up
//! go_away(&mut out), finish_drain(&mut out), drained()
//!                                          the two steps of a drain
//! ```
//!
//! `stream` is a `StreamRef` (a place in a slab and the stream's number), which has no effect once
//! the stream is gone. `out` must be sent in the order in which it was appended to; the caller
//! doesn't call `step` while too much of it waits: so a peer that doesn't read is bounded.

pub(crate) mod block;
pub(crate) mod connection;
pub(crate) mod frame;
pub(crate) mod head;
pub(crate) mod hpack;

#[cfg(test)]
mod oracle;
