//! The runtime: pinned shards, tasks, timers, and sockets over io_uring. The only door to glommio
//! and io_uring; nothing outside names them.
//!
//! A shard is one thread with its own ring. Its driver turns: run what is runnable, enter the
//! kernel once (submit, and sleep if there is nothing to do), hand out the completions, advance the
//! timers.
//!
//! | module | owns |
//! | --- | --- |
//! | `shard` | a shard's life: start, state, orderly end, audit |
//! | `driver`, `spin` | the turn; polls before sleep |
//! | `task`, `inbox`, `mailbox` | futures and wakers; wake-ups and values from other threads |
//! | `timer` | time limits on the wheel; exact points |
//! | `ring`, `ops` | the kernel's queues; which object a completion belongs to |
//! | `buffers`, `payload`, `pipe` | leases of received bytes; what is sent; bytes that stay away |
//! | `listener`, `connect`, `stream`, `udp` | sockets |
//! | `readable`, `signals`, `events` | other things to wait for |
//! | `features`, `probe`, `fault` | switches, start-up checks, faults for tests |
//! | `stats`, `shortage`, `sys`, `place` | counters, what ran out, socket calls, a cell |
#![allow(unsafe_code, reason = "the kernel's queues and buffers; each block says why it is sound")]

mod buffers;
mod connect;
mod demand;
mod driver;
mod events;
mod fault;
mod features;
mod flight;
mod inbox;
mod listener;
mod mailbox;
mod ops;
mod payload;
mod pipe;
mod place;
mod probe;
mod readable;
mod ring;
mod shard;
mod shortage;
mod signals;
mod spin;
mod stats;
mod stream;
mod sys;
mod task;
mod timer;
mod udp;

pub use buffers::Lease;
pub use connect::{ConnectOptions, Unconnected};
pub use events::EventQueue;
pub use fault::FaultPlan;
pub use features::{Features, OFF_VARIABLE};
pub use listener::{ListenOptions, TcpListener};
pub use mailbox::{Receiver, Sender, mailbox};
pub use payload::{Framed, Payload, SendBuf};
pub use pipe::Pipe;
pub use probe::{KERNEL_FLOOR, MEMLOCK_FLOOR, ProbeReport, probe};
pub use readable::readable;
pub use shard::{ShardConfig, ShardError, ShardHandle, audit, now, start_shard};
pub use shortage::Shortage;
pub use signals::Signals;
pub use stats::{Audit, RingStats};
pub use stream::TcpStream;
pub use sys::{TcpInfo, TcpSummary};
pub use task::{TaskHandle, current_task, spawn, yield_now};
pub use timer::{Elapsed, Timer, sleep, sleep_exact, timeout};
pub use udp::{Arrival, Datagram, Refusal, UdpOptions, UdpSocket};
