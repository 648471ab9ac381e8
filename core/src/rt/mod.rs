//! The runtime: pinned shards, tasks, timers and sockets over io_uring. STUB with the final signatures.
#![allow(clippy::todo, unused_variables, missing_docs)]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::counter::{Counter, Gauge};
use crate::time::clock::Mono;

/// How to start a shard.
#[derive(Clone, Debug, Default)]
pub struct ShardConfig {
    /// Thread name, at most 15 bytes ("weir-shard-0").
    pub name: String,
    /// The core to pin to; `None` = not pinned.
    pub core: Option<usize>,
    /// Stats block that the shard writes; share it with whoever reports.
    pub stats: Arc<RingStats>,
}

/// Why a shard could not be started or did not end well; `Display` names cause and cure.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("{0}")]
    Start(String),
    #[error("shard `{0}` panicked")]
    Panicked(String),
}

/// A running shard (one thread).
pub struct ShardHandle<T>(std::marker::PhantomData<T>);

impl<T> ShardHandle<T> {
    /// Waits until the shard's main future has ended and everything on it is torn down.
    pub fn join(self) -> Result<T, ShardError> {
        todo!()
    }
}

/// Starts a pinned shard: `main` runs on it; when it ends the other tasks are dropped, all operations
/// cancelled, and the thread ends.
pub fn start_shard<F, Fut, T>(config: ShardConfig, main: F) -> Result<ShardHandle<T>, ShardError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    todo!()
}

/// A spawned task. Dropping the handle lets the task run on.
#[derive(Debug, Clone, Copy)]
pub struct TaskHandle(u64);

impl TaskHandle {
    /// Drops the task's future at the next turn (its sockets close, its operations are cancelled).
    pub fn abort(self) {
        todo!()
    }
}

impl TaskHandle {
    /// Polls the task once more, as its own waker would; nothing when it has ended.
    pub fn wake(self) {
        todo!()
    }
}

/// The task that is being polled; `None` outside of one.
pub fn current_task() -> Option<TaskHandle> {
    todo!()
}

/// Runs `future` on this shard. A panic in it ends that task only and is counted.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> TaskHandle {
    todo!()
}

/// Lets the other runnable tasks and the ring have a turn.
pub async fn yield_now() {
    todo!()
}

/// The time at the start of this turn (cheap: no system call).
pub fn now() -> Mono {
    todo!()
}

/// Sleeps on the wheel: never early, a few milliseconds late.
pub async fn sleep(duration: Duration) {
    todo!()
}

/// Sleeps to an exact point (at most about 50 µs late on an idle core); dearer than `sleep`.
pub async fn sleep_exact(until: Mono) {
    todo!()
}

/// The time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Runs `future` for at most `limit` (wheel accuracy), then drops it.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    todo!()
}

/// A reusable timer: setting and clearing it costs a store, so that it may be set anew for each request.
#[derive(Debug)]
pub struct Timer(());

impl Timer {
    pub fn new() -> Self {
        todo!()
    }
    /// Expires `after` from now (replaces what was set).
    pub fn set(&self, after: Duration) {
        todo!()
    }
    pub fn clear(&self) {
        todo!()
    }
    /// Ready once the set time is over; pending while cleared.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        todo!()
    }
    /// Runs `future` under this timer, set to `limit`; the timer is cleared afterwards. No allocation.
    pub async fn limit<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        todo!()
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

/// Received bytes in a buffer on loan from the shard; dropping it gives the buffer back.
/// Not `Send`; never larger than `limits::LARGE_LEASE`; never empty when handed out.
#[derive(Debug)]
pub struct Lease(Rc<()>);

impl Lease {
    /// Drops the first `n` bytes (at most `len`).
    pub fn advance(&mut self, n: usize) {
        todo!()
    }
    /// Keeps the first `n` bytes only.
    pub fn truncate(&mut self, n: usize) {
        todo!()
    }
}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        todo!()
    }
}

/// An owned, growable send buffer from the shard's pool (goes back there when dropped or sent).
/// Derefs to `Vec<u8>`. Starts empty with at least 4 KiB capacity.
#[derive(Debug)]
pub struct SendBuf(Vec<u8>);

impl SendBuf {
    pub fn new() -> Self {
        todo!()
    }
}

impl Default for SendBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for SendBuf {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        todo!()
    }
}

impl DerefMut for SendBuf {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        todo!()
    }
}

/// What can be sent without a copy.
#[derive(Debug)]
pub enum Payload {
    Static(&'static [u8]),
    Buf(SendBuf),
    Lease(Lease),
    /// A head and the bytes behind it, in one vectored send.
    BufLease(SendBuf, Lease),
}

impl From<SendBuf> for Payload {
    fn from(b: SendBuf) -> Self {
        Payload::Buf(b)
    }
}
impl From<Lease> for Payload {
    fn from(b: Lease) -> Self {
        Payload::Lease(b)
    }
}
impl From<(SendBuf, Lease)> for Payload {
    fn from((b, l): (SendBuf, Lease)) -> Self {
        Payload::BufLease(b, l)
    }
}
impl From<&'static [u8]> for Payload {
    fn from(b: &'static [u8]) -> Self {
        Payload::Static(b)
    }
}

/// Options of a listening socket.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Accept queue length.
    pub backlog: u32,
    /// Join a SO_REUSEPORT group.
    pub reuse_port: bool,
}

/// A listening TCP socket on this shard, with a multishot accept armed from the first `accept` on.
#[derive(Debug)]
pub struct TcpListener(Rc<()>);

impl TcpListener {
    pub fn bind(addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
        todo!()
    }
    /// Takes over a socket that already listens (made elsewhere, one per shard).
    pub fn from_fd(fd: OwnedFd) -> io::Result<TcpListener> {
        todo!()
    }
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }
    /// The next connection. Dropping the future loses nothing: what was accepted waits in the listener.
    /// EMFILE and the like are handled inside (back-off, spare descriptor, counted).
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        todo!()
    }
    /// Stops taking new handshakes, without resetting what the kernel has completed: SYNs are dropped from now on,
    /// `accept` goes on yielding completed connections; `Ok(None)`-like end is `accept` failing with `NotConnected`
    /// after the queue stayed empty for `quiet`. Then drop the listener.
    pub fn stop_accepting(&self, quiet: Duration) -> io::Result<()> {
        todo!()
    }
}

/// Options of an outgoing connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Source address; port 0 = any (IP_BIND_ADDRESS_NO_PORT).
    pub source: Option<SocketAddr>,
    /// Time limit (wheel accuracy); ends in `ErrorKind::TimedOut`.
    pub timeout: Option<Duration>,
}

/// A TCP connection on this shard. All methods take `&self`; dropping it cancels what is in flight and closes the socket.
/// State (received data, in-flight send) lives in the stream, so a dropped future loses nothing.
#[derive(Debug)]
pub struct TcpStream(Rc<()>);

impl TcpStream {
    pub async fn connect(addr: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
        todo!()
    }
    /// The next bytes; `None` = the peer has sent FIN. Back-pressure: the ring stops receiving while
    /// undelivered data waits here.
    pub async fn recv(&self) -> io::Result<Option<Lease>> {
        todo!()
    }
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        todo!()
    }
    /// Puts bytes back in front: the next `recv` yields them.
    pub fn unread(&self, lease: Lease) {
        todo!()
    }
    /// A large body is about to be received: use large leases from now on (`false`: back to small ones). A hint;
    /// the stream also adapts by itself.
    pub fn expect_bulk(&self, bulk: bool) {
        todo!()
    }
    /// Posts `payload`; waits only while an earlier one is still in flight. Errors of an earlier post surface here or in `flush`.
    /// All of the payload is sent (short sends are continued inside).
    pub async fn send(&self, payload: impl Into<Payload>) -> io::Result<()> {
        todo!()
    }
    /// Like `send` with a copy of `data` (any length; copied in bounded pieces).
    pub async fn send_copy(&self, data: &[u8]) -> io::Result<()> {
        todo!()
    }
    /// Ready when `post` may be called (nothing in flight), or with the error of the last post.
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
    /// Posts without waiting; only after `poll_send_ready` was ready (else the payload is refused with WouldBlock).
    pub fn post(&self, payload: impl Into<Payload>) -> io::Result<()> {
        todo!()
    }
    /// Waits until everything posted was handed to the kernel.
    pub async fn flush(&self) -> io::Result<()> {
        todo!()
    }
    /// Bytes of all posts handed to the kernel so far.
    pub fn bytes_sent(&self) -> u64 {
        todo!()
    }
    /// Bytes received from the kernel so far.
    pub fn bytes_received(&self) -> u64 {
        todo!()
    }
    /// Flushes, then sends FIN; receiving goes on.
    pub async fn shutdown_write(&self) -> io::Result<()> {
        todo!()
    }
    /// Closes with RST at once; unsent data is dropped.
    pub fn reset(self) {
        todo!()
    }
    /// Flush, FIN, then discard what the peer still sends until its FIN, `max_bytes` or `limit`; then close.
    pub async fn close_lingering(self, max_bytes: u64, limit: Duration) {
        todo!()
    }
    /// True when data, FIN or an error is already here (so an idle connection must not be reused).
    pub fn has_event(&self) -> bool {
        todo!()
    }
    /// While nobody waits in `recv`: report any event (data, FIN, error) as `token` to `queue`. Ends with the next `recv`.
    pub fn watch(&self, queue: &Rc<EventQueue>, token: u32) {
        todo!()
    }
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        todo!()
    }
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
}

/// Tokens of watched streams that had an event; one consumer task.
#[derive(Debug, Default)]
pub struct EventQueue(());

impl EventQueue {
    pub fn new() -> Rc<EventQueue> {
        todo!()
    }
    /// The next token.
    pub async fn next(&self) -> u32 {
        todo!()
    }
}

/// What TCP_INFO says.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpInfo {
    /// Smoothed round-trip time, µs.
    pub rtt_us: u32,
    /// Its variance, µs.
    pub rttvar_us: u32,
    /// Segments sent again.
    pub total_retrans: u32,
    /// Bytes that the peer has acknowledged.
    pub bytes_acked: u64,
    /// The kernel's state number (1 = ESTABLISHED, 8 = CLOSE_WAIT).
    pub state: u8,
}

/// Sends values to a shard from any thread.
#[derive(Debug)]
pub struct Sender<T>(std::marker::PhantomData<T>);
impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        todo!()
    }
}
impl<T: Send> Sender<T> {
    /// Fails with the value when the mailbox is full or the receiver is gone.
    pub fn try_send(&self, value: T) -> Result<(), T> {
        todo!()
    }
}

/// The shard's end of a mailbox.
#[derive(Debug)]
pub struct Receiver<T>(std::marker::PhantomData<T>);
impl<T: Send> Receiver<T> {
    /// The next value; `None` when all senders are gone.
    pub async fn recv(&mut self) -> Option<T> {
        todo!()
    }
}

/// A bounded mailbox; make it anywhere, then move the receiver into the shard's main closure.
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    todo!()
}

/// Waits until `fd` is readable.
pub async fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    todo!()
}

/// Signals delivered through a descriptor. Call `Signals::block` in `main` before any thread starts.
#[derive(Debug)]
pub struct Signals(());
impl Signals {
    /// Blocks `signals` (libc numbers) in this and all later threads and takes them over.
    pub fn block(signals: &[i32]) -> io::Result<Signals> {
        todo!()
    }
    /// The next signal's number; on a shard.
    pub async fn next(&self) -> io::Result<i32> {
        todo!()
    }
    /// The same for an ordinary thread: blocks until one comes or `limit` is over.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<Option<i32>> {
        todo!()
    }
}

/// What one shard's ring counts. The shard is the only writer.
#[derive(Debug, Default)]
pub struct RingStats {
    pub turns: Counter,
    pub submissions: Counter,
    pub completions: Counter,
    pub enters: Counter,
    pub no_buffers: Counter,
    pub cq_overflows: Counter,
    pub accept_failures: Counter,
    pub task_panics: Counter,
    pub tasks: Gauge,
    pub streams: Gauge,
    pub operations: Gauge,
    pub leases: Gauge,
}

/// Live objects of this shard; all zero when nothing leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub tasks: u64,
    pub operations: u64,
    pub streams: u64,
    pub leases: u64,
    pub timers: u64,
}

/// Counts what is alive on this shard (the asking task included).
pub fn audit() -> Audit {
    todo!()
}

/// What the start-up probe found.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// Human lines: what was found (kernel, ring features, limits).
    pub found: Vec<String>,
    /// What makes starting impossible; each names what, why and the cure.
    pub errors: Vec<String>,
    /// What makes Weir slower or smaller; each with its cure.
    pub warnings: Vec<String>,
}

/// Probes kernel, io_uring, ring features, memlock. Safe to call before any shard exists.
pub fn probe() -> ProbeReport {
    todo!()
}
