//! A listener as the data path reads it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Pool, Routes, SiteLog};
use crate::acl::{Gate, House};
use crate::control::{self, Access, Headers, Limits, Passthrough, Retry, Tls};
use crate::model::{Handle, Protocol};
use crate::obs::{Board, ListenerCounters};
use crate::tls::Server;

/// A listener on one shard. Its settings change in place: connections see the new ones where they
/// look next (R6.7-14).
#[derive(Debug)]
pub struct Site {
    handle: Handle,
    /// The shard that this is on …
    pub(super) shard: usize,
    /// … and those that serve the listener.
    pub(super) shards: RefCell<Arc<[usize]>>,
    name: RefCell<Rc<str>>,
    /// What this shard counts for it.
    pub counters: Arc<ListenerCounters>,
    keepalive: Cell<Duration>,
    client: Cell<Duration>,
    member: Cell<Duration>,
    connect: Cell<Duration>,
    limits: Cell<Limits>,
    retry: Cell<Retry>,
    protocol: Cell<Protocol>,
    gone: Cell<bool>,
    pool: RefCell<Option<Rc<Pool>>>,
    pub(super) access: RefCell<Access>,
    headers: RefCell<Rc<Headers>>,
    /// What all shards share of it …
    pub(super) gate: Arc<Gate>,
    /// … and of the process.
    pub(super) house: Arc<House>,
    tunnel_timeout: Cell<Duration>,
    upgrades: RefCell<Arc<[String]>>,
    log: RefCell<Option<Rc<SiteLog>>>,
    server_timing: Cell<bool>,
    routes: RefCell<Option<Rc<Routes>>>,
    tls: RefCell<Option<Tls>>,
    passthrough: RefCell<Passthrough>,
    /// A member of its own was its client, and somebody has been told.
    warned: Cell<bool>,
}

impl Site {
    pub(super) fn new(
        handle: Handle,
        shard: usize,
        counters: Arc<ListenerCounters>,
        board: &Board,
    ) -> Site {
        let none = || Cell::new(Duration::ZERO);
        Site {
            handle,
            shard,
            shards: RefCell::default(),
            name: RefCell::new("".into()),
            counters,
            access: RefCell::default(),
            headers: RefCell::default(),
            gate: board.gate(handle),
            house: Arc::clone(board.house()),
            keepalive: none(),
            client: none(),
            member: none(),
            connect: none(),
            limits: Cell::default(),
            retry: Cell::default(),
            protocol: Cell::new(Protocol::Http),
            gone: Cell::new(false),
            pool: RefCell::default(),
            tunnel_timeout: none(),
            upgrades: RefCell::default(),
            log: RefCell::default(),
            server_timing: Cell::new(false),
            routes: RefCell::default(),
            tls: RefCell::default(),
            passthrough: RefCell::default(),
            warned: Cell::new(false),
        }
    }

    pub(super) fn set(&self, settings: &control::Listener, pool: Option<Rc<Pool>>) {
        self.name.replace(settings.name.as_str().into());
        self.shards.replace(settings.shards.as_slice().into());
        self.keepalive.set(settings.timeouts.keepalive);
        self.client.set(settings.timeouts.client);
        self.member.set(settings.timeouts.member);
        self.connect.set(settings.timeouts.connect);
        self.limits.set(settings.limits);
        self.retry.set(settings.retry);
        self.protocol.set(settings.protocol);
        self.pool.replace(pool);
        self.access.replace(settings.access.clone());
        self.tunnel_timeout.set(settings.tunnel.timeout);
        self.upgrades.replace(Arc::clone(&settings.tunnel.protocols));
        self.server_timing.set(settings.log.server_timing);
        self.headers.replace(Rc::new(settings.headers.clone()));
        self.tls.replace(settings.tls.clone());
        self.passthrough.replace(settings.passthrough.clone());
    }

    pub(super) fn set_log(&self, log: Option<SiteLog>) {
        self.log.replace(log.map(Rc::new));
    }

    pub(super) fn set_routes(&self, routes: Option<Rc<Routes>>) {
        self.routes.replace(routes);
    }

    pub(super) fn set_gone(&self) {
        self.gone.set(true);
    }

    /// Was it deleted? At Layer 4 what came by it ends then (R6.3-1), at Layer 7 it goes on
    /// (R6.3-2).
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// What clients speak.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Which listener it is.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The user's name for it.
    pub fn name(&self) -> Rc<str> {
        Rc::clone(&self.name.borrow())
    }

    /// Idle time of a client connection; zero = no persistent connections. R6.7-4.
    #[inline]
    pub fn keepalive_timeout(&self) -> Duration {
        self.keepalive.get()
    }

    /// Time for the whole head from its first byte, then for each gap in the body. R6.7-5.
    #[inline]
    pub fn client_timeout(&self) -> Duration {
        self.client.get()
    }

    /// Silence of a member before 504. R6.7-6.
    #[inline]
    pub fn member_timeout(&self) -> Duration {
        self.member.get()
    }

    /// Time to connect to a member before 504. R6.7-7.
    #[inline]
    pub fn connect_timeout(&self) -> Duration {
        self.connect.get()
    }

    /// How large requests may be.
    #[inline]
    pub fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// What may be tried at another member. R6.7-13.
    #[inline]
    pub fn retry(&self) -> Retry {
        self.retry.get()
    }

    /// How long a tunnel may be quiet. R6.6-2.
    pub fn tunnel_timeout(&self) -> Duration {
        self.tunnel_timeout.get()
    }

    /// The protocols that an Upgrade may ask for. R6.6-1.
    pub fn upgrades(&self) -> Arc<[String]> {
        Arc::clone(&self.upgrades.borrow())
    }

    /// Do clients come by TLS?
    #[inline]
    pub fn is_tls(&self) -> bool {
        self.protocol.get() == Protocol::Https
    }

    /// Does a connection begin with what it is for: no PROXY header, no handshake?
    #[inline]
    pub fn begins_at_once(&self) -> bool {
        !self.expects_proxy_header() && !self.is_tls()
    }

    /// What the handshakes of its clients need; `None` = they don't come by TLS.
    #[inline]
    pub fn tls(&self) -> Option<Arc<Server>> {
        self.tls.borrow().as_ref().map(|tls| Arc::clone(&tls.server))
    }

    /// Its access log; `None` = it is off.
    #[inline]
    pub fn log(&self) -> Option<Rc<SiteLog>> {
        self.log.borrow().clone()
    }

    /// Do answers tell their times?
    #[inline]
    pub fn server_timing(&self) -> bool {
        self.server_timing.get()
    }

    /// Its forwarding policies; `None` = it has none.
    #[inline]
    pub fn routes(&self) -> Option<Rc<Routes>> {
        self.routes.borrow().clone()
    }

    /// What requests are given, and whose headers are believed.
    #[inline]
    pub fn headers(&self) -> Rc<Headers> {
        Rc::clone(&self.headers.borrow())
    }

    /// Does this member see the client's own address (R9.1-5)?
    #[inline]
    pub fn keeps_client(&self, member: IpAddr) -> bool {
        self.passthrough.borrow().keeps_client(member)
    }

    /// Are members told the client by the PROXY protocol, whatever their pool says?
    #[inline]
    pub fn tells_client(&self) -> bool {
        self.passthrough.borrow().tells_client()
    }

    /// Notes that a member was to be its own client (R2.1-13); `true` the first time.
    pub fn first_warning(&self) -> bool {
        !self.warned.replace(true)
    }

    /// Its settings in words; equal where the files are.
    pub(super) fn describe(&self) -> String {
        let times = [&self.keepalive, &self.client, &self.member, &self.connect];
        let times = times.map(Cell::get);
        let mut text = format!(
            "listener {}: {}, pool {}, timeouts {times:?} {:?}, {:?}, {:?}, upgrades {:?}, {:?}, \
             {:?}, log {:?}, server_timing {}, tls {:?}, {:?}",
            self.name(),
            self.protocol().name(),
            self.pool().map_or("none".into(), |pool| pool.name()),
            self.tunnel_timeout(),
            self.limits(),
            self.retry(),
            self.upgrades(),
            self.access.borrow(),
            self.headers(),
            self.log().map(|log| log.format),
            self.server_timing(),
            self.tls.borrow(),
            self.passthrough.borrow()
        );
        text += &self.routes().map_or(String::new(), |routes| routes.describe());
        text
    }

    /// Its default pool.
    #[inline]
    pub fn pool(&self) -> Option<Rc<Pool>> {
        self.pool.borrow().clone()
    }
}
