//! Connections to members: opening them, and keeping the idle ones of one shard. Owns the idle
//! lists (last in, first out, one a member) and their janitor, which drops a connection as soon as
//! its member closes it or its time is over. Knows nothing of HTTP. Used by `exchange`.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use weir_core::model::TcpKeepalive;
use weir_core::rt::{self, ConnectOptions, EventQueue, TcpStream, Timer};
use weir_core::table::{Keep, Member};
use weir_core::time::clock::Mono;
use weir_core::tls::Stream;

use crate::error::Error;
use crate::limits::{MAX_IDLE_PER_MEMBER, SWEEP_INTERVAL};

/// Ends a list of slots.
const NONE: u32 = Keep::NONE;

/// An open connection to a member, counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The socket.
    pub(crate) stream: Stream,
    /// Whom it leads to.
    pub(crate) member: Rc<Member>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.member.counters.active_connections.fall();
    }
}

/// A connection in the making. Boxed: it is rare beside reuse, and its size is the runtime's
/// matter.
pub(crate) type Connecting = Pin<Box<dyn Future<Output = Result<Connection, Error>>>>;

/// Begins to connect to `member`, for at most `limit`, with TCP keep-alive of these times.
pub(crate) fn connect(member: Rc<Member>, limit: Duration, keepalive: TcpKeepalive) -> Connecting {
    Box::pin(async move {
        let options =
            ConnectOptions { source: None, timeout: Some(limit), keepalive: Some(keepalive) };
        match TcpStream::connect(member.address, &options).await {
            Ok(stream) => {
                member.counters.connections.add(1);
                member.counters.active_connections.rise();
                Ok(Connection { stream: stream.into(), member })
            }
            Err(error) => {
                member.counters.connect_failures.add(1);
                Err(match error.kind() {
                    io::ErrorKind::TimedOut => Error::ConnectTimeout,
                    kind => Error::ConnectFailed(kind),
                })
            }
        }
    })
}

#[derive(Debug)]
struct Slot {
    /// `None`: free, `next` leads to another free slot.
    connection: Option<Connection>,
    expires: Mono,
    /// The next newer one of the same member.
    previous: u32,
    /// The next older one of the same member.
    next: u32,
}

/// The idle connections of one shard, all members.
#[derive(Debug)]
pub(crate) struct Idle {
    slots: RefCell<Slots>,
    /// Tokens are slot numbers. One that comes late finds the slot free or in other use, and then
    /// asks the connection in it.
    events: Rc<EventQueue>,
}

#[derive(Debug)]
struct Slots {
    all: Vec<Slot>,
    free: u32,
}

impl Idle {
    /// No connections yet.
    pub(crate) fn new() -> Rc<Idle> {
        let slots = RefCell::new(Slots { all: Vec::new(), free: NONE });
        Rc::new(Idle { slots, events: EventQueue::new() })
    }

    /// The newest idle connection to `member` that is fit for use.
    #[inline]
    pub(crate) fn take(&self, member: &Rc<Member>) -> Option<Connection> {
        while member.keep.newest.get() != NONE {
            let (connection, expires) = self.remove(member.keep.newest.get())?;
            if !connection.stream.has_event() && expires > rt::now() {
                return Some(connection);
            }
        }
        None
    }

    /// Closes all idle connections to `member`.
    pub(crate) fn clear(&self, member: &Member) {
        while self.remove(member.keep.newest.get()).is_some() {}
    }

    /// Keeps `connection` for at most `limit`; closes it when there are enough, or when its member
    /// may not be used any more (C38).
    #[inline]
    pub(crate) fn put(&self, connection: Connection, limit: Duration) {
        let member = &connection.member;
        let full = member.keep.count.get() >= MAX_IDLE_PER_MEMBER;
        if full || connection.stream.has_event() || !member.is_usable() {
            return;
        }
        let slots = &mut *self.slots.borrow_mut();
        let at = if slots.free == NONE { slots.all.len() as u32 } else { slots.free };
        connection.stream.watch(&self.events, at);
        let older = member.keep.newest.replace(at);
        member.keep.count.set(member.keep.count.get() + 1);
        member.counters.idle_connections.rise();
        if let Some(older) = slots.all.get_mut(older as usize) {
            older.previous = at;
        }
        let expires = rt::now().plus(limit);
        let slot = Slot { connection: Some(connection), expires, previous: NONE, next: older };
        match slots.all.get_mut(at as usize) {
            Some(free) => {
                slots.free = free.next;
                *free = slot;
            }
            None => slots.all.push(slot),
        }
    }

    /// Takes slot `at` out of its list; `None` when it is free.
    fn remove(&self, at: u32) -> Option<(Connection, Mono)> {
        let slots = &mut *self.slots.borrow_mut();
        let slot = slots.all.get_mut(at as usize)?;
        let connection = slot.connection.take()?;
        let (previous, next, expires) = (slot.previous, slot.next, slot.expires);
        slot.next = std::mem::replace(&mut slots.free, at);
        match slots.all.get_mut(previous as usize) {
            Some(newer) => newer.next = next,
            None => connection.member.keep.newest.set(next),
        }
        if let Some(older) = slots.all.get_mut(next as usize) {
            older.previous = previous;
        }
        let keep = &connection.member.keep;
        keep.count.set(keep.count.get().saturating_sub(1));
        connection.member.counters.idle_connections.fall();
        Some((connection, expires))
    }

    /// Drops what members close and what has been idle for too long. Runs as long as the shard.
    pub(crate) async fn janitor(self: Rc<Idle>) {
        let timer = Timer::new();
        let mut due = rt::now().plus(SWEEP_INTERVAL);
        loop {
            if let Ok(token) = timer.limit(due.since(rt::now()), self.events.next()).await {
                self.look_at(token);
            }
            // Events may come all the time: they must not put the sweep off.
            let now = rt::now();
            if now >= due {
                self.sweep();
                due = now.plus(SWEEP_INTERVAL);
            }
        }
    }

    fn look_at(&self, at: u32) {
        let spoilt = (self.slots.borrow().all.get(at as usize))
            .and_then(|slot| slot.connection.as_ref())
            .is_some_and(|connection| connection.stream.has_event());
        if spoilt {
            self.remove(at);
        }
    }

    fn sweep(&self) {
        let now = rt::now();
        let slots = self.slots.borrow().all.len() as u32;
        for at in 0..slots {
            let over = (self.slots.borrow().all.get(at as usize))
                .is_some_and(|slot| slot.connection.is_some() && slot.expires <= now);
            if over {
                self.remove(at);
            }
        }
    }
}
