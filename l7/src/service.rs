//! What one shard holds for HTTP: idle member connections, the connections being served, and what
//! is kept for reuse. The door of this crate: the server hands in accepted connections with the
//! site that they came by. Which sites, pools and members there are is `weir_core::table`'s.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use weir_core::model::TcpKeepalive;
use weir_core::net::crowd::Crowd;
use weir_core::rt::{self, Lease, TaskHandle};
use weir_core::table::{Member, Ticket};
use weir_core::time::clock;
use weir_core::tls::Stream;

use crate::client::Client;
use crate::connection;
use crate::exchange::Exchange;
use crate::h2::head::Head;
use crate::identity::Ids;
use crate::limits::FREE_EXCHANGES;
use crate::message::{Field, HttpDate};
use crate::policy::Scratch;
use crate::record::Stamp;
use crate::shared::Links;
use crate::upstream::Idle;

/// HTTP forwarding on one shard. One per shard; it and its futures stay there.
#[derive(Debug)]
pub struct Service {
    pub(crate) idle: Rc<Idle>,
    pub(crate) links: Rc<Links>,
    /// Room for what policies look at.
    pub(crate) scratch: RefCell<Scratch>,
    /// Room for the fields of the head that is being parsed.
    pub(crate) fields: RefCell<Vec<Field>>,
    /// Room for the head of HTTP/2 that has just come.
    pub(crate) head: RefCell<Head>,
    /// The time of log lines as text …
    pub(crate) stamp: RefCell<Stamp>,
    /// … and of answers.
    date: RefCell<HttpDate>,
    #[allow(clippy::vec_box, reason = "connections hold and hand back the very boxes")]
    free: RefCell<Vec<Box<Exchange>>>,
    pub(crate) ids: Ids,
    draining: Cell<bool>,
    keepalive: Cell<TcpKeepalive>,
    pub(crate) crowd: Crowd,
    janitor: TaskHandle,
}

impl Service {
    /// A service without connections. Must be called on the shard: it starts the task that looks
    /// after idle member connections.
    pub fn start() -> Rc<Service> {
        let idle = Idle::new();
        let janitor = rt::spawn(Rc::clone(&idle).janitor());
        Rc::new(Service {
            idle,
            links: Links::new(),
            scratch: RefCell::default(),
            fields: RefCell::default(),
            head: RefCell::default(),
            stamp: RefCell::default(),
            date: RefCell::default(),
            free: RefCell::default(),
            ids: Ids::new(),
            draining: Cell::new(false),
            keepalive: Cell::default(),
            crowd: Crowd::default(),
            janitor,
        })
    }

    /// Serves one client connection, which the site of `ticket` let in, until it ends, however it
    /// ends.
    pub fn serve(
        self: Rc<Self>,
        ticket: Ticket,
        stream: impl Into<Stream>,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> {
        // Passed on as it is: a future around it would hold everything twice.
        connection::run(self, ticket, stream.into(), peer)
    }

    /// Closes the idle connections to members that may not be used any more (C38). Requests on
    /// their way to them are left alone.
    pub fn retire(&self, members: &[Rc<Member>]) {
        for member in members {
            self.idle.clear(member);
            self.links.clear(member);
        }
    }

    /// TCP keep-alive of the connections that are opened to members from now on (R11.1-2).
    pub fn set_keepalive(&self, times: TcpKeepalive) {
        self.keepalive.set(times);
    }

    pub(crate) fn keepalive(&self) -> TcpKeepalive {
        self.keepalive.get()
    }

    /// From now on each answer carries `Connection: close`, and connections close once they have
    /// been idle for one second with nothing received.
    pub fn begin_drain(&self) {
        self.draining.set(true);
        self.crowd.wake_all();
    }

    /// Appends the field line that tells the time, for an answer that has none (RFC 9110, 6.6.1).
    #[inline]
    pub(crate) fn append_date(&self, out: &mut Vec<u8>) {
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(self.date.borrow_mut().at(wall));
        out.extend_from_slice(b"\r\n");
    }

    /// Connections being served.
    pub fn active(&self) -> usize {
        self.crowd.active()
    }

    /// Waits until no connection is being served.
    pub async fn idle(&self) {
        self.crowd.idle().await;
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// An exchange for the request whose first bytes are `lease`; a stream's has none.
    #[inline]
    pub(crate) fn take_exchange(&self, lease: Option<Lease>, client: &Client) -> Box<Exchange> {
        let mut exchange = self.free.borrow_mut().pop().unwrap_or_default();
        exchange.begin(lease, self.ids.next(), client);
        exchange
    }

    /// Keeps an exchange that has ended for the next request.
    #[inline]
    pub(crate) fn give_back(&self, mut exchange: Box<Exchange>) {
        exchange.clear();
        let mut free = self.free.borrow_mut();
        if free.len() < FREE_EXCHANGES {
            free.push(exchange);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.janitor.abort();
    }
}
