//! One TCP session's sockets, timers and counts: the thin shell around `session`, which decides.
//! While it is quiet it holds no buffer.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use weir_core::model::{Handle, ProxyHeader};
use weir_core::net::of_member;
use weir_core::net::relay::{Moved, Patience, Relay, Streams};
use weir_core::net::source;
use weir_core::obs::Ending;
use weir_core::proxy;
use weir_core::rt::{
    self, ConnectOptions, Payload, SendBuf, Shortage, TcpStream, TcpSummary, Timer, Unconnected,
};
use weir_core::table::{Member, Pool, Ticket};
use weir_core::time::clock::{self, Mono};
use weir_core::tls::Stream;

use super::Tcp;
use super::first::First;
use super::session::{Close, Event, Look, Outside, Session, Step};
use crate::choice::{self, Choice, header_for, is_own_client};
use crate::limits::{PROBES_AFTER, TCP_ATTEMPTS};
use crate::record::{Packets, Record};

/// What came of connecting to a member.
type Opened = Result<TcpStream, Unconnected>;

/// What ended the wait for a member.
enum Met {
    Opened(Opened),
    Close(Close),
    ClientBroke,
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who is connected: its family is the one that the client uses.
    pub peer: SocketAddr,
    /// The client: the peer, or whom its PROXY header names.
    pub source: SocketAddr,
    /// Further values of that header, whole TLVs.
    pub values: Box<[u8]>,
}

impl Origin {
    /// Of a client that speaks for itself.
    #[must_use]
    pub fn of(peer: SocketAddr) -> Origin {
        Origin { peer, source: peer, values: Box::default() }
    }
}

/// A session with all that it holds. Dropped before its end it is reset: the process ends.
struct Live {
    service: Rc<Tcp>,
    /// Its place among the service's connections, once it runs.
    place: Option<u32>,
    ticket: Ticket,
    client: Stream,
    first: First,
    origin: Origin,
    session: Session,
    tried: [Option<Handle>; TCP_ATTEMPTS],
    /// The member, from when it was chosen, and the pool that it was chosen from.
    choice: Option<(Choice, Rc<Pool>)>,
    upstream: Option<Upstream>,
    relay: Relay,
    /// What the counters have been told.
    counted: Moved,
    /// When it began, and how long the connect took that went well.
    begun: Mono,
    connect_time: Option<Duration>,
    /// How long the connect takes; then idle time.
    timer: Timer,
    /// Runs while the member leaves, and flows of such a member are limited.
    drain: Option<Timer>,
    /// TCP keep-alive is on towards the member.
    probed: bool,
    /// The change of the tables that was looked at last.
    epoch: u32,
    close: Option<Close>,
}

/// A connection to a member, counted as long as it lives.
struct Upstream {
    stream: Stream,
    member: Rc<Member>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.member.counters.active_connections.fall();
    }
}

/// Serves a connection until it ends.
pub(super) fn run(
    service: Rc<Tcp>,
    ticket: Ticket,
    client: TcpStream,
    origin: Origin,
) -> impl Future<Output = ()> {
    let mut live = Live::new(service, ticket, client, origin);
    async move {
        // Used where it is: moved, it would lie in the future twice.
        let live = &mut live;
        live.place = Some(live.service.crowd.enter());
        let mut step = Step::Choose;
        loop {
            step = match step {
                Step::Choose => live.choose(),
                Step::Connect => live.connecting().await,
                Step::Relay => poll_fn(|cx| live.poll_relay(cx)).await,
                Step::Close(close) => {
                    live.close = Some(close);
                    return;
                }
            }
        }
    }
}

impl Live {
    fn new(service: Rc<Tcp>, ticket: Ticket, client: TcpStream, origin: Origin) -> Live {
        let client = Stream::from(client);
        Live {
            place: None,
            epoch: service.epoch.get(),
            service,
            ticket,
            first: First::of(&client),
            client,
            origin,
            session: Session::default(),
            tried: [None; TCP_ATTEMPTS],
            choice: None,
            upstream: None,
            relay: Relay::new(None, None),
            counted: Moved::default(),
            begun: rt::now(),
            connect_time: None,
            timer: Timer::new(),
            drain: None,
            probed: false,
            close: None,
        }
    }

    fn on(&mut self, event: Event) -> Step {
        // `None` comes after the end only.
        self.session.on(event).unwrap_or(Step::Close(Close::by(Ending::Shutdown)))
    }

    fn choose(&mut self) -> Step {
        if let Look::Close(close) = self.look() {
            return Step::Close(close);
        }
        let tried = self.tried.iter().flatten().copied();
        let pool = self.ticket.site().pool();
        let (source, ipv6) = (self.origin.source.ip(), self.origin.peer.is_ipv6());
        let choice = pool.and_then(|pool| {
            let choice = choice::choose(&pool, source, ipv6, tried, rt::now())?;
            Some((choice, pool))
        });
        let Some((choice, pool)) = choice else {
            // The last one that was tried stays, for the log.
            return self.on(Event::Chosen(false));
        };
        if let Some(free) = self.tried.iter_mut().find(|entry| entry.is_none()) {
            *free = Some(choice.held.member().handle);
        }
        let own_client = is_own_client(self.ticket.site(), &choice, source);
        self.choice = Some((choice, pool));
        self.on(if own_client { Event::ChosenClient } else { Event::Chosen(true) })
    }

    /// The client's address for the connection to this member, if that is to see it (R9.1-5). The
    /// port is the kernel's choice, free towards this member: with the client's own, two of its
    /// connections, by two listeners, to one member would be one and the same.
    fn source(&self, member: SocketAddr) -> Option<SocketAddr> {
        let mut source = self.origin.source;
        source.set_port(0);
        let same_family = source.is_ipv6() == member.is_ipv6();
        let keeps = same_family && self.ticket.site().keeps_client(member.ip());
        keeps.then_some(source)
    }

    /// A connection to a member in the making, with what it takes along.
    fn open(
        &self,
        member: &Member,
        first: Option<Payload>,
    ) -> impl Future<Output = Opened> + use<> {
        let (member, sources) = (member.address, member.sources());
        let source = self.source(member);
        let options = ConnectOptions {
            source,
            transparent: source.is_some(),
            timeout: Some(self.ticket.site().connect_timeout()),
            ..ConnectOptions::default()
        };
        async move {
            match options.transparent {
                true => TcpStream::connect_with(member, &options, first).await,
                false => source::connect_with(member, &sources, options, first).await,
            }
        }
    }

    /// As `connect`. Boxed, and made elsewhere than where it is awaited: the session outlives it by
    /// far, and keeps room for all that is held while it waits.
    fn connecting(&mut self) -> Pin<Box<impl Future<Output = Step>>> {
        Box::pin(self.connect())
    }

    async fn connect(&mut self) -> Step {
        self.first.waits(&self.timer);
        if poll_fn(|cx| Poll::Ready(self.poll_client(cx))).await.is_ready() {
            return self.on(Event::ClientBroke);
        }
        let Some((choice, pool)) = &self.choice else { return self.on(Event::Connected(false)) };
        let member = Rc::clone(choice.held.member());
        let header = self.header(header_for(self.ticket.site(), pool));
        let first = self.first.take(&self.client, header);
        let told = first.as_ref().map_or(0, Payload::len);
        let (mut opening, begun) = (pin!(self.open(&member, first)), rt::now());
        let met = poll_fn(|cx| {
            if let Look::Close(close) = self.look() {
                return Poll::Ready(Met::Close(close));
            }
            // Before the client: of one that breaks once the member is there the relay tells both.
            match opening.as_mut().poll(cx) {
                Poll::Ready(opened) => Poll::Ready(Met::Opened(opened)),
                Poll::Pending => self.poll_client(cx).map(|()| Met::ClientBroke),
            }
        });
        match met.await {
            Met::Close(close) => Step::Close(close),
            Met::ClientBroke => self.on(Event::ClientBroke),
            Met::Opened(Err(Unconnected { error, first })) => {
                self.first.put_back(&self.client, first);
                let ours = Shortage::of(&error).is_some();
                member.counters.connect_failures.add(u64::from(!ours));
                if of_member(error.kind()) {
                    member.failed(rt::now());
                }
                self.on(Event::Connected(false))
            }
            Met::Opened(Ok(stream)) => {
                member.succeeded();
                member.counters.connections.add(1);
                member.counters.active_connections.rise();
                self.connect_time = Some(rt::now().since(begun));
                self.connected(Upstream { stream: stream.into(), member }, told);
                self.on(Event::Connected(true))
            }
        }
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.first.poll(cx, &self.client, &self.timer)
    }

    /// The member is there, and so many bytes are on their way to it.
    fn connected(&mut self, upstream: Upstream, told: usize) {
        self.upstream = Some(upstream);
        let (from_client, to_member) = (self.first.taken(), told as u64);
        let moved = Moved { from_client, to_member, ..Moved::default() };
        self.relay = Relay::new(None, None).having_moved(moved);
        if let Some((choice, _)) = &self.choice {
            choice.bind(rt::now());
            self.ticket.site().counters.sticky.count(choice.sticky);
        }
    }

    /// What the member is told before anything of the client's (R9.1-16).
    fn header(&self, wanted: ProxyHeader) -> Option<SendBuf> {
        let version = match wanted {
            ProxyHeader::None => return None,
            ProxyHeader::V1 => proxy::Version::V1,
            ProxyHeader::V2 => proxy::Version::V2,
        };
        let (source, values) = (self.origin.source, &self.origin.values);
        // A client that has gone meanwhile is for the relay to find.
        let target = self.client.local_addr().unwrap_or(self.origin.peer);
        let mut header = SendBuf::new();
        proxy::write(version, source, target, values, &mut header);
        Some(header)
    }

    /// Writes the line of the connection log, if there is one.
    fn log(&self, ending: Ending) {
        let Some(log) = self.ticket.site().log() else { return };
        let choice = self.choice.as_ref();
        let summary = self.client.tcp_summary().ok();
        let packets = |it: TcpSummary| Packets {
            received: it.segments_in.into(),
            sent: it.segments_out.into(),
        };
        let record = Record {
            log: &log,
            source: self.origin.source,
            member: choice.map(|(choice, _)| &**choice.held.member()),
            pool: choice.map(|(_, pool)| &**pool),
            moved: self.moved(),
            duration: clock::mono().since(self.begun),
            connect_time: self.connect_time,
            packets: summary.map(packets),
            rtt_us: summary.map(|it| it.rtt_us),
            attempts: self.tried.iter().flatten().count(),
            sticky: choice.map(|(choice, _)| choice.sticky).unwrap_or_default(),
            ending,
        };
        log.pipe.line(|out| record.write(out));
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(close) = self.poll_look(cx) {
            return Poll::Ready(Step::Close(close));
        }
        let Some(upstream) = &self.upstream else {
            return Poll::Ready(self.on(Event::Connected(false)));
        };
        let streams = Streams { client: &self.client, member: &upstream.stream };
        let limit = self.ticket.site().keepalive_timeout();
        if !self.probed && rt::now().since(self.begun) >= PROBES_AFTER {
            self.probed = true;
            // A connection that refuses it is about to tell why.
            let _ = upstream.stream.set_keepalive(self.service.keepalive.get());
        }
        let patience = Patience { limit, look: if self.probed { limit } else { PROBES_AFTER } };
        let epoch = self.service.epoch.get();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.relay.rearm(&self.timer, patience);
        }
        let polled = self.relay.poll(cx, streams, &self.timer, patience);
        self.count();
        let Poll::Ready(end) = polled else { return Poll::Pending };
        let first = self.relay.ended_first();
        Poll::Ready(self.on(Event::Ended(end, first)))
    }

    /// What the tables say.
    fn look(&mut self) -> Look {
        let choice = self.choice.as_ref();
        let leaving = choice.filter(|(choice, _)| choice.held.member().is_leaving());
        let drain = leaving.map(|(_, pool)| pool.drain()).filter(|drain| drain.enable);
        let outside = Outside {
            deleted: self.ticket.site().is_gone(),
            leaving: leaving.is_some(),
            drain: drain.map(|drain| drain.timeout),
        };
        self.session.look(rt::now(), outside)
    }

    /// As `look`, with a timer for when to look again.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        loop {
            match self.look() {
                Look::Close(close) => return Poll::Ready(close),
                Look::Stay => {
                    self.drain = None;
                    return Poll::Pending;
                }
                Look::Until(when) => {
                    let timer = self.drain.get_or_insert_default();
                    timer.set(when.since(rt::now()));
                    if timer.poll_expired(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn moved(&self) -> Moved {
        match &self.upstream {
            Some(_) => self.relay.moved(),
            None => Moved { from_client: self.first.heard(), ..Moved::default() },
        }
    }

    fn count(&mut self) {
        let (now, before) = (self.moved(), self.counted);
        if now == before {
            return;
        }
        let site = &self.ticket.site().counters;
        site.bytes_received.add(now.from_client - before.from_client);
        site.bytes_sent.add(now.to_client - before.to_client);
        if let Some(Upstream { member, .. }) = &self.upstream {
            member.counters.bytes_received.add(now.from_member - before.from_member);
            member.counters.bytes_sent.add(now.to_member - before.to_member);
        }
        self.counted = now;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let close = self.close.unwrap_or(Close::by(Ending::Shutdown));
        if close.reset {
            self.client.reset_on_close();
            if let Some(upstream) = &self.upstream {
                upstream.stream.reset_on_close();
            }
        }
        self.count();
        self.ticket.site().counters.endings.count(close.ending);
        self.log(close.ending);
        if let Some(place) = self.place {
            self.service.crowd.leave(place);
        }
    }
}
