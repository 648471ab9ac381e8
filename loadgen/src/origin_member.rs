//! One origin on the shard that serves it: its port, its accept loop, its end and its return.
//! Called by `origin`; what is said on a connection is `origin_conn`'s and its like.

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
use weir_core::rt::{self, Receiver, TaskHandle};
use weir_core::time::clock::mono;
use weir_core::tls::{self, Server, Stream};

use crate::limits;
use crate::origin::{Action, Command, OriginError, OriginStats};
use crate::origin_bytes;
use crate::origin_conn::{self, End, Prepared};
use crate::origin_spec::{OriginSpec, Speaks};
use crate::origin_udp;
use crate::seed::Rng;

/// An origin before it runs: its port is held by a socket that never listens, so that no other
/// program and no outgoing connection takes the port while the origin is dead.
pub(crate) struct Seat {
    pub(crate) spec: OriginSpec,
    tls: Option<Server>,
    pub(crate) addr: SocketAddr,
    /// None for datagrams, which it would take away.
    holder: Option<Socket>,
    listener: OwnedFd,
    pub(crate) stats: Arc<OriginStats>,
}

impl Seat {
    pub(crate) fn reserve(spec: OriginSpec) -> Result<Seat, OriginError> {
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

pub(crate) async fn serve(
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
