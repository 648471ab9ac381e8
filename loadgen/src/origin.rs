//! Embedded origin servers: members for tests, for `weir demo` and for `loadgen serve`. Owns
//! their description, the handle to kill and revive them from another thread, and their accept
//! loops. One shard serves them all.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weir_core::counter::{Counter, Gauge};
use weir_core::rt::{self, Receiver, Sender, ShardConfig, ShardError, ShardHandle, TaskHandle};
use weir_core::time::clock::mono;
use weir_core::tls::{self, Server, Stream};

use crate::limits;
use crate::origin_bytes;
use crate::origin_conn::{self, End, Prepared};
use crate::origin_tls::OriginTls;
use crate::origin_udp;
use crate::seed::Rng;
use crate::units;

/// How long an origin takes to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delay {
    /// As fast as it can.
    #[default]
    None,
    /// Always so long (exact deadlines, not wheel ticks).
    Fixed(Duration),
    /// Between these two, evenly; drawn from the origin's seed.
    Uniform(Duration, Duration),
    /// The first, and the second with so many chances in a million.
    Bimodal(Duration, Duration, u32),
}

impl Delay {
    /// Reads `5ms`, `1ms-10ms`, or `1ms,100ms@5%`.
    ///
    /// # Errors
    /// A message with cause and cure.
    pub fn parse(text: &str) -> Result<Delay, String> {
        if let Some((usual, seldom)) = text.split_once(',') {
            let wrong = || format!("`{text}`: write it like 1ms,100ms@5%");
            let (seldom, share) = seldom.split_once('@').ok_or_else(wrong)?;
            let share = share.strip_suffix('%').and_then(|share| share.parse::<f64>().ok());
            let share = share.filter(|share| (0.0..=100.0).contains(share)).ok_or_else(wrong)?;
            let (usual, seldom) = (units::parse_duration(usual)?, units::parse_duration(seldom)?);
            return Ok(Delay::Bimodal(usual, seldom, (share * 1e4).round() as u32));
        }
        let Some((low, high)) = text.split_once('-') else {
            return Ok(match units::parse_duration(text)? {
                Duration::ZERO => Delay::None,
                delay => Delay::Fixed(delay),
            });
        };
        let (low, high) = (units::parse_duration(low)?, units::parse_duration(high)?);
        if low > high {
            return Err(format!("`{text}`: the shorter delay comes first"));
        }
        Ok(Delay::Uniform(low, high))
    }

    pub(crate) fn draw(self, rng: &mut Rng) -> Duration {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        match self {
            Delay::None => Duration::ZERO,
            Delay::Fixed(delay) => delay,
            Delay::Uniform(low, high) => Duration::from_nanos(rng.between(nanos(low), nanos(high))),
            Delay::Bimodal(usual, seldom, chance) => {
                if rng.between(1, 1_000_000) <= u64::from(chance) { seldom } else { usual }
            }
        }
    }
}

/// What an origin speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, WebSocket where it is asked for (messages come back), and HTTP/2 if it is to be.
    #[default]
    Http,
    /// Bytes over TCP come back.
    Echo,
    /// Bytes over TCP are thrown away.
    Sink,
    /// Bytes are sent over TCP for as long as somebody takes them.
    Source,
    /// Datagrams come back, with the origin's name in those of loadgen.
    Udp,
}

/// What an origin is and how it answers. One of HTTP: any method, any path, HTTP/1.1 with
/// keep-alive and pipelining; request bodies are read and thrown away; each answer carries
/// `X-Origin: name`.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginSpec {
    /// Value of the X-Origin field; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Where it listens; port 0 = any free one.
    pub listen: SocketAddr,
    /// Bytes of each answer's body.
    pub body_size: u64,
    /// Time between a whole request and its answer.
    pub delay: Delay,
    /// Status of its answers, 200–599.
    pub status: u16,
    /// Share of requests that are answered with 500 instead, 0–1.
    pub error_rate: f64,
    /// Share of requests whose connection is reset instead, 0–1.
    pub reset_rate: f64,
    /// Bodies come at this speed; 0 = as fast as they can.
    pub bytes_per_second: u64,
    /// What it speaks.
    pub speaks: Speaks,
    /// Inside TLS.
    pub tls: Option<OriginTls>,
    /// HTTP/2, too: with whom agrees on it inside TLS, and with whom begins so otherwise.
    pub http2: bool,
    /// Seed of delays and errors.
    pub seed: u64,
}

impl OriginSpec {
    /// A fast origin on a free port of 127.0.0.1 that answers 200 with 128 bytes.
    pub fn new(name: &str) -> OriginSpec {
        OriginSpec {
            name: name.to_string(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            body_size: 128,
            delay: Delay::None,
            status: 200,
            error_rate: 0.0,
            reset_rate: 0.0,
            bytes_per_second: 0,
            speaks: Speaks::Http,
            tls: None,
            http2: false,
            seed: 1,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// A message with cause and cure.
    pub fn check(&self) -> Result<(), String> {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
        if self.name.is_empty() || self.name.chars().any(odd) {
            return Err(format!("`{}`: a name has letters, digits, - _ .", self.name));
        }
        if !(200..=599).contains(&self.status) {
            return Err(format!("status {} is not between 200 and 599", self.status));
        }
        for (what, rate) in [("error", self.error_rate), ("reset", self.reset_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{what} rate {rate} is not between 0 and 1"));
            }
        }
        if self.tls.is_some() && self.speaks == Speaks::Udp {
            return Err("datagrams have no TLS".to_string());
        }
        if self.http2 && self.speaks != Speaks::Http {
            return Err("HTTP/2 is for origins that speak HTTP".to_string());
        }
        Ok(())
    }
}

/// Why origins could not be started or controlled.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// A spec is out of range, or there are too many.
    #[error("{0}")]
    Spec(String),
    /// The address can't be listened on.
    #[error("cannot listen on {addr}: {error}; is the port in use?")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The shard could not be started or died.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// There is no such origin, or the shard doesn't answer.
    #[error("{0}")]
    Control(String),
}

/// Counters of one origin; written by its shard, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct OriginStats {
    pub(crate) requests: Counter,
    pub(crate) connections: Counter,
    pub(crate) open: Gauge,
}

/// Running origins. Dropping it closes them and waits for their thread.
#[derive(Debug)]
pub struct Origins {
    addrs: Vec<SocketAddr>,
    names: Vec<String>,
    stats: Vec<Arc<OriginStats>>,
    commands: Option<Sender<Command>>,
    shard: Option<Shard>,
}

/// `ShardHandle` without a need for `Debug`.
struct Shard(ShardHandle<()>);

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shard")
    }
}

#[derive(Debug)]
struct Command {
    index: usize,
    action: Action,
    done: mpsc::Sender<Result<(), String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Revive,
}

impl Origins {
    /// Starts one shard (pinned to `core`, if given) that serves `specs`. All listen when it
    /// returns.
    ///
    /// # Errors
    /// A bad spec, a port in use, or a shard that can't start; then nothing is left running.
    pub fn start(core: Option<usize>, specs: Vec<OriginSpec>) -> Result<Origins, OriginError> {
        if specs.is_empty() || specs.len() > limits::MAX_ORIGINS {
            return Err(OriginError::Spec("there must be 1–1024 origins".to_string()));
        }
        let mut members = Vec::new();
        for spec in specs {
            spec.check().map_err(OriginError::Spec)?;
            members.push(Seat::reserve(spec)?);
        }
        let addrs = members.iter().map(|seat| seat.addr).collect();
        let names = members.iter().map(|seat| seat.spec.name.clone()).collect();
        let stats = members.iter().map(|seat| Arc::clone(&seat.stats)).collect();
        let (commands, inbox) = rt::mailbox(limits::ORIGIN_COMMANDS);
        let (tell, ready) = mpsc::channel();
        let config = ShardConfig { name: "origins".to_string(), core, ..ShardConfig::default() };
        let handle = rt::start_shard(config, move || serve(members, inbox, tell))?;
        let shard = Some(Shard(handle));
        let origins = Origins { addrs, names, stats, commands: Some(commands), shard };
        match ready.recv() {
            Ok(Ok(())) => Ok(origins),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(OriginError::Control("the origins' shard ended at once".to_string())),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.addrs.len()
    }

    /// True when there are none; never.
    pub fn is_empty(&self) -> bool {
        self.addrs.is_empty()
    }

    /// Where they listen, in the order of the specs.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Their names, in the same order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Requests that origin `index` has answered; 0 for one that doesn't exist.
    pub fn requests(&self, index: usize) -> u64 {
        self.stats.get(index).map_or(0, |stats| stats.requests.get())
    }

    /// Connections that origin `index` has accepted.
    pub fn connections(&self, index: usize) -> u64 {
        self.stats.get(index).map_or(0, |stats| stats.connections.get())
    }

    /// Connections that origin `index` has open now.
    pub fn open(&self, index: usize) -> u64 {
        self.stats.get(index).map_or(0, |stats| stats.open.get())
    }

    /// Kills origin `index` like a crash: its connections end with RST, new ones are refused. Its
    /// port stays reserved. Nothing happens when it is dead already.
    ///
    /// # Errors
    /// No such origin, or its shard doesn't answer within 5 s.
    pub fn kill(&self, index: usize) -> Result<(), OriginError> {
        self.command(index, Action::Kill)
    }

    /// Revives origin `index` on the same address. Nothing happens when it lives.
    ///
    /// # Errors
    /// As [`Origins::kill`]; or the port could not be listened on again.
    pub fn revive(&self, index: usize) -> Result<(), OriginError> {
        self.command(index, Action::Revive)
    }

    fn command(&self, index: usize, action: Action) -> Result<(), OriginError> {
        if index >= self.addrs.len() {
            return Err(OriginError::Control(format!("there is no origin {index}")));
        }
        let silent = || OriginError::Control("the origins' shard does not answer".to_string());
        let (done, answer) = mpsc::channel();
        let command = Command { index, action, done };
        let commands = self.commands.as_ref().ok_or_else(silent)?;
        commands.try_send(command).map_err(|_| silent())?;
        let answer = answer.recv_timeout(limits::COMMAND_LIMIT).map_err(|_| silent())?;
        answer.map_err(OriginError::Control)
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        // The mailbox' end ends the shard's main future.
        self.commands = None;
        if let Some(Shard(handle)) = self.shard.take() {
            let _ = handle.join();
        }
    }
}

/// An origin before it runs: its port is held by a socket that never listens, so that no other
/// program and no outgoing connection takes the port while the origin is dead.
struct Seat {
    spec: OriginSpec,
    tls: Option<Server>,
    addr: SocketAddr,
    /// None for datagrams, which it would take away.
    holder: Option<Socket>,
    listener: OwnedFd,
    stats: Arc<OriginStats>,
}

impl Seat {
    fn reserve(spec: OriginSpec) -> Result<Seat, OriginError> {
        let fail = |addr| move |error| OriginError::Listen { addr, error };
        let tls = spec.tls.as_ref().map(|tls| tls.server(spec.http2));
        let tls = tls.transpose().map_err(OriginError::Spec)?;
        if spec.speaks == Speaks::Udp {
            let socket = std::net::UdpSocket::bind(spec.listen).map_err(fail(spec.listen))?;
            let addr = socket.local_addr().map_err(fail(spec.listen))?;
            let (holder, stats) = (None, Arc::default());
            return Ok(Seat { spec, tls, addr, holder, listener: socket.into(), stats });
        }
        let holder = socket(spec.listen).map_err(fail(spec.listen))?;
        let addr = holder.local_addr().map_err(fail(spec.listen))?;
        let addr = addr.as_socket().unwrap_or(spec.listen);
        let listener = listening(addr).map_err(fail(addr))?;
        Ok(Seat { spec, tls, addr, holder: Some(holder), listener, stats: Arc::default() })
    }
}

/// A bound socket. SO_REUSEADDR, so that a listener can join the holder's port.
fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it: the end of an answer must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn listening(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(addr)?;
    socket.listen(limits::ORIGIN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(StdListener::from(socket).into())
}

/// One origin on its shard; shared by its tasks. `epoch` grows when it is killed: tasks of an
/// older epoch end.
pub(crate) struct Member {
    pub(crate) spec: OriginSpec,
    pub(crate) stats: Arc<OriginStats>,
    pub(crate) answers: origin_conn::Answers,
    rng: RefCell<Rng>,
    addr: SocketAddr,
    tls: Option<Server>,
    _holder: Option<Socket>,
    alive: Cell<bool>,
    epoch: Cell<u64>,
    tasks: RefCell<Tasks>,
}

/// Handles of the tasks that a kill has to wake.
#[derive(Default)]
struct Tasks {
    slots: Vec<Option<TaskHandle>>,
    free: VecDeque<usize>,
}

async fn serve(
    seats: Vec<Seat>,
    mut inbox: Receiver<Command>,
    tell: mpsc::Sender<Result<(), OriginError>>,
) {
    let mut members = Vec::new();
    for (stream, seat) in (0u64..).zip(seats) {
        let addr = seat.addr;
        let member = Rc::new(Member {
            answers: origin_conn::Answers::new(&seat.spec),
            rng: RefCell::new(Rng::new(seat.spec.seed, stream)),
            spec: seat.spec,
            stats: seat.stats,
            addr,
            tls: seat.tls,
            _holder: seat.holder,
            alive: Cell::new(false),
            epoch: Cell::new(0),
            tasks: RefCell::default(),
        });
        if let Err(error) = member.listen(seat.listener) {
            let _ = tell.send(Err(OriginError::Listen { addr, error }));
            return;
        }
        members.push(member);
    }
    // Nobody waits any more only when the whole handle is gone; then the mailbox ends too.
    let _ = tell.send(Ok(()));
    while let Some(Command { index, action, done }) = inbox.recv().await {
        let result = match (members.get(index), action) {
            (None, _) => Err("there is no such origin".to_string()),
            (Some(member), Action::Kill) => {
                member.kill().await;
                Ok(())
            }
            (Some(member), Action::Revive) => member.revive().await.map_err(|e| e.to_string()),
        };
        let _ = done.send(result);
    }
}

impl Member {
    fn listen(self: &Rc<Self>, fd: OwnedFd) -> io::Result<()> {
        let (member, epoch) = (Rc::clone(self), self.epoch.get());
        if self.spec.speaks == Speaks::Udp {
            let socket = rt::UdpSocket::from_fd(fd, false)?;
            self.alive.set(true);
            rt::spawn(async move {
                member.while_alive(epoch, origin_udp::serve(&member, &socket)).await;
            });
            return Ok(());
        }
        let listener = rt::TcpListener::from_fd(fd)?;
        self.alive.set(true);
        rt::spawn(async move {
            member.while_alive(epoch, Rc::clone(&member).accept(listener, epoch)).await;
        });
        Ok(())
    }

    async fn accept(self: Rc<Self>, listener: rt::TcpListener, epoch: u64) {
        // An error of accept that the runtime doesn't handle itself ends the listener.
        while let Ok((tcp, _)) = listener.accept().await {
            self.stats.connections.add(1);
            let member = Rc::clone(&self);
            rt::spawn(async move {
                member.stats.open.rise();
                let shaken = member.while_alive(epoch, member.secured(tcp)).await;
                let Some(Some(stream)) = shaken else {
                    member.stats.open.fall();
                    return;
                };
                let life = member.while_alive(epoch, member.talk(&stream)).await;
                member.stats.open.fall();
                match life {
                    None => stream.reset(),
                    Some(end) => end.close(stream).await,
                }
            });
        }
    }

    /// The connection, once hands were shaken where TLS is spoken.
    async fn secured(&self, tcp: rt::TcpStream) -> Option<Stream> {
        match &self.tls {
            None => Some(tcp.into()),
            // Boxed: a handshake is large, and a connection has one.
            Some(server) => Box::pin(tls::accept(tcp, server)).await.ok(),
        }
    }

    async fn talk(&self, stream: &Stream) -> End {
        match self.spec.speaks {
            Speaks::Http => return origin_conn::serve(self, stream).await,
            Speaks::Echo => origin_bytes::echo(stream, &self.stats).await,
            Speaks::Sink => origin_bytes::sink(stream, &self.stats).await,
            Speaks::Source => origin_bytes::source(stream, &self.stats).await,
            Speaks::Udp => {}
        }
        End::Quiet
    }

    /// Draws whether something happens that has this chance, 0–1.
    pub(crate) fn happens(&self, chance: f64) -> bool {
        chance > 0.0 && self.rng.borrow_mut().unit() < chance
    }

    /// The next answer: the usual one, or by chance an error.
    pub(crate) fn draw_answer(&self) -> &Prepared {
        match self.happens(self.spec.error_rate) {
            true => &self.answers.error,
            false => &self.answers.normal,
        }
    }

    /// How long the next request waits for its answer.
    pub(crate) fn draw_delay(&self) -> Duration {
        self.spec.delay.draw(&mut self.rng.borrow_mut())
    }

    async fn kill(&self) {
        if !self.alive.replace(false) {
            return;
        }
        self.epoch.set(self.epoch.get() + 1);
        let handles: Vec<_> = self.tasks.borrow().slots.iter().flatten().copied().collect();
        handles.into_iter().for_each(TaskHandle::wake);
        // Let the woken tasks drop their sockets before the kill is reported as done.
        for _ in 0..4 {
            rt::yield_now().await;
        }
    }

    async fn revive(self: &Rc<Self>) -> io::Result<()> {
        if self.alive.get() {
            return Ok(());
        }
        let until = mono().plus(limits::REVIVE_LIMIT);
        loop {
            let again = match self.spec.speaks {
                Speaks::Udp => std::net::UdpSocket::bind(self.addr).map(OwnedFd::from),
                _ => listening(self.addr),
            };
            match again {
                Ok(fd) => return self.listen(fd),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && mono() < until => {
                    rt::sleep(Duration::from_millis(5)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Runs `future` until it ends or the member is killed (`None`).
    async fn while_alive<F: Future>(&self, epoch: u64, future: F) -> Option<F::Output> {
        let slot = self.enter();
        let mut future = pin!(future);
        let result = poll_fn(|cx| {
            if self.epoch.get() != epoch {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await;
        self.leave(slot);
        result
    }

    fn enter(&self) -> usize {
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.free.pop_front().unwrap_or(tasks.slots.len());
        if slot == tasks.slots.len() {
            tasks.slots.push(None);
        }
        tasks.slots[slot] = rt::current_task();
        slot
    }

    fn leave(&self, slot: usize) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.slots[slot] = None;
        tasks.free.push_back(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_and_drawn() {
        let ms = Duration::from_millis;
        assert_eq!(Delay::parse("0ms"), Ok(Delay::None));
        assert_eq!(Delay::parse("5ms"), Ok(Delay::Fixed(ms(5))));
        assert_eq!(Delay::parse("1ms-10ms"), Ok(Delay::Uniform(ms(1), ms(10))));
        assert!(Delay::parse("10ms-1ms").unwrap_err().contains("first"));
        let two = Delay::Bimodal(ms(1), ms(9), 250_000);
        assert_eq!(Delay::parse("1ms,9ms@25%"), Ok(two));
        assert!(Delay::parse("x").is_err() && Delay::parse("1ms,2ms").is_err());
        let mut rng = Rng::new(3, 0);
        let drawn: Vec<_> =
            (0..1000).map(|_| Delay::Uniform(ms(1), ms(10)).draw(&mut rng)).collect();
        assert!(drawn.iter().all(|d| (ms(1)..=ms(10)).contains(d)));
        let mean = drawn.iter().sum::<Duration>() / 1000;
        assert!((ms(5)..ms(6)).contains(&mean), "{mean:?}");
        let long = (0..1000).filter(|_| two.draw(&mut rng) == ms(9)).count();
        assert!((200..300).contains(&long), "{long}");
    }

    #[test]
    fn specs_out_of_range_are_refused() {
        let wrong = |change: fn(&mut OriginSpec)| {
            let mut spec = OriginSpec::new("a");
            change(&mut spec);
            spec.check().unwrap_err()
        };
        assert!(OriginSpec::new("a").check().is_ok());
        assert!(wrong(|s| s.name = "a\r\nb".into()).contains("name"));
        assert!(wrong(|s| (s.http2, s.speaks) = (true, Speaks::Echo)).contains("HTTP/2"));
        assert!(wrong(|s| s.status = 101).contains("status"));
        assert!(wrong(|s| s.error_rate = 1.5).contains("error rate"));
        assert!(wrong(|s| s.error_rate = f64::NAN).contains("error rate"));
    }

    #[test]
    fn a_held_port_can_be_listened_on_again_and_again() {
        let seat = Seat::reserve(OriginSpec::new("a")).unwrap();
        assert!(seat.holder.is_some());
        std::net::TcpStream::connect(seat.addr).unwrap();
        drop(seat.listener);
        assert!(std::net::TcpStream::connect(seat.addr).is_err());
        let again = listening(seat.addr).unwrap();
        std::net::TcpStream::connect(seat.addr).unwrap();
        drop(again);
    }
}
