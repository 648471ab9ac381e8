//! Connections to members: opening them, and keeping the idle ones of one shard. Owns the idle
//! lists (last in, first out, one a member) and their janitor, which drops a connection as soon as
//! its member closes it or its time is over. Knows nothing of HTTP. Used by `exchange`.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use weir_core::model::TcpKeepalive;
use weir_core::net::source::{self, Sources};
use weir_core::rt::{self, ConnectOptions, EventQueue, Lease, Payload, Shortage, Timer};
use weir_core::table::{Keep, Member};
use weir_core::time::clock::Mono;
use weir_core::tls::{self, Bond, Stream};

use crate::error::Error;
use crate::limits::{MAX_IDLE_PER_MEMBER, SWEEP_INTERVAL};
use crate::shared::Lane;

/// Ends a list of slots.
const NONE: u32 = Keep::NONE;

/// An open connection to a member.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What carries the request.
    pub(crate) stream: Line,
    /// Whom it leads to.
    pub(crate) member: Rc<Member>,
    /// What it was opened under; `None` = clear text.
    secured: Option<Secured>,
    /// The addresses of ours, one of which it comes from.
    sources: Rc<Sources>,
    /// Counts it as long as it lives, if it is a connection of its own.
    _counted: Option<Counted>,
}

/// What carries a request to its member, and the answer back.
#[derive(Debug)]
pub(crate) enum Line {
    /// A connection of its own.
    Own(Stream),
    /// A stream on one that it shares with others.
    Shared(Lane),
}

impl Line {
    /// As [`Stream::poll_recv`].
    #[inline]
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        match self {
            Line::Own(stream) => stream.poll_recv(cx),
            Line::Shared(lane) => lane.poll_recv(cx),
        }
    }

    /// As [`Stream::poll_send_ready`].
    #[inline]
    pub(crate) fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Line::Own(stream) => stream.poll_send_ready(cx),
            Line::Shared(lane) => lane.poll_send_ready(cx),
        }
    }

    /// As [`Stream::post`].
    #[inline]
    pub(crate) fn post(&self, payload: Payload) -> io::Result<()> {
        match self {
            Line::Own(stream) => stream.post(payload),
            Line::Shared(lane) => lane.post(&payload),
        }
    }

    /// As [`Stream::is_through`].
    #[inline]
    pub(crate) fn is_through(&self) -> bool {
        self.own().is_some_and(Stream::is_through)
    }

    /// As [`Stream::expect_bulk`].
    pub(crate) fn expect_bulk(&self, bulk: bool) {
        if let Line::Own(stream) = self {
            stream.expect_bulk(bulk);
        }
    }

    /// As [`Stream::bytes_sent`].
    #[inline]
    pub(crate) fn bytes_sent(&self) -> u64 {
        match self {
            Line::Own(stream) => stream.bytes_sent(),
            Line::Shared(lane) => lane.bytes_sent(),
        }
    }

    /// Bytes that the member has taken; `None` when its connection is gone.
    pub(crate) fn bytes_taken(&self) -> Option<u64> {
        match self {
            Line::Own(stream) => stream.tcp_info().ok().map(|info| info.bytes_acked),
            Line::Shared(lane) => Some(lane.bytes_sent()),
        }
    }

    /// The connection, if it carries nothing else.
    pub(crate) fn own(&self) -> Option<&Stream> {
        match self {
            Line::Own(stream) => Some(stream),
            Line::Shared(_) => None,
        }
    }
}

/// Counts a connection to a member as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Member>);

impl Counted {
    /// It was opened just now.
    pub(crate) fn new(member: &Rc<Member>) -> Counted {
        member.counters.connections.add(1);
        member.counters.active_connections.rise();
        Counted(Rc::clone(member))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.active_connections.fall();
    }
}

/// What a connection inside TLS was opened under.
#[derive(Debug)]
pub(crate) struct Secured {
    bond: Rc<Bond>,
    /// The host that it was opened for; empty where the pool names one for all.
    host: Box<str>,
}

impl Secured {
    /// For requests for `host`.
    pub(crate) fn new(bond: Rc<Bond>, host: &str) -> Secured {
        let host = if bond.trust.has_name() { "" } else { host };
        Secured { host: host.into(), bond }
    }

    /// Whether what was opened under `secured` can carry a request for `host` to a member with
    /// this bond.
    pub(crate) fn fit(secured: Option<&Secured>, bond: Option<&Rc<Bond>>, host: &str) -> Fit {
        match (secured, bond) {
            (None, None) => Fit::Yes,
            (Some(secured), Some(bond)) if Rc::ptr_eq(&secured.bond, bond) => {
                match secured.host.is_empty() || *secured.host == *host {
                    true => Fit::Yes,
                    false => Fit::No,
                }
            }
            _ => Fit::Outdated,
        }
    }
}

/// Whether a kept connection can carry a request.
pub(crate) enum Fit {
    /// It can.
    Yes,
    /// It was opened for another host: a member may choose its certificate by that (RFC 9110, 7.4).
    No,
    /// It was opened when the pool's `tls` said something else.
    Outdated,
}

impl Connection {
    /// A stream on a connection that is shared.
    pub(crate) fn shared(lane: Lane, member: Rc<Member>) -> Connection {
        let (stream, sources) = (Line::Shared(lane), member.sources());
        Connection { stream, member, secured: None, sources, _counted: None }
    }

    /// May it carry further requests: is its member usable, and are our addresses towards it the
    /// same as when it was opened?
    fn may_be_kept(&self) -> bool {
        self.member.is_usable() && Rc::ptr_eq(&self.sources, &self.member.sources())
    }

    /// Bytes, the end or an error are here already.
    fn has_event(&self) -> bool {
        self.stream.own().is_none_or(Stream::has_event)
    }
}

/// A connection in the making. Boxed: it is rare beside reuse, and its size is the runtime's
/// matter.
pub(crate) type Connecting = Pin<Box<dyn Future<Output = Result<Connection, Error>>>>;

/// Begins to connect to `member`, for at most `limit`, the handshake of TLS included, with TCP
/// keep-alive of these times. `host` is the one that the request asks for, without a port.
pub(crate) fn connect(
    member: Rc<Member>,
    host: &str,
    limit: Duration,
    keepalive: TcpKeepalive,
) -> Connecting {
    let secured = member.bond().map(|bond| Secured::new(bond, host));
    let sources = member.sources();
    Box::pin(async move {
        let opened = open(&member, secured.as_ref(), limit, keepalive).await;
        match opened {
            Ok(stream) => {
                let counted = Some(Counted::new(&member));
                let stream = Line::Own(stream);
                Ok(Connection { stream, member, secured, sources, _counted: counted })
            }
            Err(error) => {
                count_failure(&member, error);
                Err(error)
            }
        }
    })
}

/// Counts a connection that did not come about, unless this host is to blame.
pub(crate) fn count_failure(member: &Member, error: Error) {
    if !matches!(error, Error::Shortage(_)) {
        member.counters.connect_failures.add(1);
    }
}

/// Opens a connection, as [`connect`] does; counts handshakes.
pub(crate) async fn open(
    member: &Member,
    secured: Option<&Secured>,
    limit: Duration,
    keepalive: TcpKeepalive,
) -> Result<Stream, Error> {
    let begun = rt::now();
    let options = ConnectOptions {
        timeout: Some(limit),
        keepalive: Some(keepalive),
        ..ConnectOptions::default()
    };
    let connected = source::connect(member.address, &member.sources(), options).await;
    let tcp = connected.map_err(|error| match Shortage::of(&error) {
        Some(shortage) => Error::Shortage(shortage),
        None if error.kind() == io::ErrorKind::TimedOut => Error::ConnectTimeout,
        None => Error::ConnectFailed(error.kind()),
    })?;
    let Some(secured) = secured else { return Ok(tcp.into()) };
    let client = secured.bond.client(&secured.host, member.address.ip());
    let left = limit.saturating_sub(rt::now().since(begun));
    let shaken = match rt::timeout(left, tls::connect(tcp, &client)).await {
        Ok(shaken) => shaken.map_err(Error::MemberTls),
        Err(rt::Elapsed) => Err(Error::ConnectTimeout),
    };
    let counters = &member.counters;
    match shaken.as_ref().map(|stream| stream.tls().is_some_and(|facts| facts.resumed)) {
        Ok(resumed) => {
            counters.tls_handshakes.add(1);
            counters.tls_resumed.add(u64::from(resumed));
        }
        Err(_) => counters.tls_failures.add(1),
    }
    shaken
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

    /// The newest idle connection to `member` that is fit for use by a request for `host`.
    #[inline]
    pub(crate) fn take(&self, member: &Rc<Member>, host: &str) -> Option<Connection> {
        let mut at = member.keep.newest.get();
        let bond = if at == NONE { None } else { member.bond() };
        while at != NONE {
            let (fit, older) = self.look(at, bond.as_ref(), host)?;
            if let Fit::No = fit {
                at = older;
                continue;
            }
            let (connection, expires) = self.remove(at)?;
            let alive = !connection.has_event() && expires > rt::now();
            if alive && let Fit::Yes = fit {
                return Some(connection);
            }
            at = older;
        }
        None
    }

    /// Whether the connection in slot `at` fits, and the next older one.
    #[inline]
    fn look(&self, at: u32, bond: Option<&Rc<Bond>>, host: &str) -> Option<(Fit, u32)> {
        let slots = self.slots.borrow();
        let slot = slots.all.get(at as usize)?;
        let secured = slot.connection.as_ref()?.secured.as_ref();
        Some((Secured::fit(secured, bond, host), slot.next))
    }

    /// The oldest idle connection to `member`.
    fn oldest(&self, member: &Member) -> Option<u32> {
        let slots = self.slots.borrow();
        let newest = Some(member.keep.newest.get()).filter(|&at| at != NONE);
        let older = |&at: &u32| Some(slots.all.get(at as usize)?.next).filter(|&at| at != NONE);
        std::iter::successors(newest, older).last()
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
        let Some(stream) = connection.stream.own() else { return };
        if stream.has_event() || !connection.may_be_kept() {
            return;
        }
        if member.keep.count.get() >= MAX_IDLE_PER_MEMBER {
            // Kept for hosts that nobody asks for any more, they would be in the way of all others.
            let of_a_host = connection.secured.as_ref().is_some_and(|s| !s.host.is_empty());
            match self.oldest(member).filter(|_| of_a_host) {
                Some(oldest) => drop(self.remove(oldest)),
                None => return,
            }
        }
        let slots = &mut *self.slots.borrow_mut();
        let at = if slots.free == NONE { slots.all.len() as u32 } else { slots.free };
        if let Line::Own(stream) = &connection.stream {
            stream.watch(&self.events, at);
        }
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
            .is_some_and(Connection::has_event);
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
