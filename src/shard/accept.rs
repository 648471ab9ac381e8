//! From an accepted connection to the service that has it: one task a listening socket accepts,
//! leaves what is too much for this shard to another one, has the listener judge the rest, and
//! has read what comes before the protocol. Knows no order of control; the shard starts the tasks.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use weir_core::model::Protocol;
use weir_core::net::Place;
use weir_core::rt::{self, TcpListener, TcpStream};
use weir_core::table::{Site, Ticket};
use weir_l4::{Origin, Tcp, Udp};
use weir_l7::Service;

use super::neighbours::Outbox;
use crate::greet::{Greeting, greet};
use crate::secure::secure;

/// How long an accept task rests after an error that the runtime did not handle itself.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// What serves connections, by protocol.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) http: Rc<Service>,
    pub(super) tcp: Rc<Tcp>,
    pub(super) udp: Rc<Udp>,
}

/// What all accept tasks of a shard need.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) services: Services,
    pub(super) outbox: Rc<Outbox>,
    /// Accept tasks that run, and connections that begin with a PROXY header or a handshake.
    pub(super) accepting: Rc<Cell<usize>>,
}

impl Services {
    /// Has a connection served, as a task of its own.
    fn serve(&self, ticket: Ticket, stream: TcpStream, peer: SocketAddr) {
        match ticket.site().protocol() {
            Protocol::Tcp => {
                rt::spawn(Rc::clone(&self.tcp).serve(ticket, stream, Origin::of(peer)));
            }
            _ => drop(rt::spawn(Rc::clone(&self.http).serve(ticket, stream, peer))),
        }
    }
}

impl Entrance {
    /// Has a task accept at `place` until `listener` is closed.
    pub(super) fn open(
        &self,
        place: Place,
        listener: Rc<TcpListener>,
        site: Rc<RefCell<Rc<Site>>>,
    ) {
        let until_closed = FallOnDrop::rise(&self.accepting);
        rt::spawn(accept(self.clone(), place, listener, site, until_closed));
    }

    /// Has the listener judge a connection of this shard's from now on, and whoever serves it
    /// serve it. Each is a task of its own.
    pub(super) fn let_in(&self, site: &Rc<Site>, socket: OwnedFd, peer: SocketAddr) {
        let stream = TcpStream::from_fd(socket);
        match site.admit(peer.ip(), rt::now()) {
            Ok(ticket) if !ticket.site().begins_at_once() => {
                let until_served = FallOnDrop::rise(&self.accepting);
                let services = self.services.clone();
                rt::spawn(begin_and_serve(services, ticket, stream, peer, until_served));
            }
            Ok(ticket) => self.services.serve(ticket, stream, peer),
            // C19: no answer; members never hear of it (R2.1-6).
            Err(_counted) => stream.reset(),
        }
    }
}

/// Accepts until the door is closed.
async fn accept(
    entrance: Entrance,
    place: Place,
    listener: Rc<TcpListener>,
    site: Rc<RefCell<Rc<Site>>>,
    _until_closed: FallOnDrop,
) {
    loop {
        match listener.accept_socket().await {
            Ok((socket, peer)) => {
                let site = Rc::clone(&site.borrow());
                if let Some(socket) = entrance.outbox.pass(&site, place, socket, peer) {
                    entrance.let_in(&site, socket, peer);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotConnected => return,
            Err(e) => {
                tracing::warn!("accept: {e}");
                rt::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Serves a connection that begins with a PROXY header, a TLS handshake, or both. `_until_served`
/// keeps a drain waiting, since the services know nothing of the connection until then.
async fn begin_and_serve(
    services: Services,
    mut ticket: Ticket,
    stream: TcpStream,
    peer: SocketAddr,
    _until_served: FallOnDrop,
) {
    let Greeting { client, values } = if ticket.site().expects_proxy_header() {
        match Box::pin(greet(&mut ticket, &stream, peer)).await {
            Ok(greeting) => greeting,
            Err(_counted) => return stream.reset(),
        }
    } else {
        Greeting { client: peer, values: Box::default() }
    };
    match ticket.site().protocol() {
        Protocol::Tcp => {
            let origin = Origin { peer, source: client, values };
            services.tcp.serve(ticket, stream, origin).await;
        }
        Protocol::Https => {
            if let Some(stream) = Box::pin(secure(&ticket, stream, client)).await {
                // In a task of its own: this one is larger than an idle connection should be.
                rt::spawn(services.http.serve(ticket, stream, client));
            }
        }
        _ => services.http.serve(ticket, stream, client).await,
    }
}

/// Counts a task out, also when it is dropped half-way.
struct FallOnDrop(Rc<Cell<usize>>);

impl FallOnDrop {
    /// Counts a task in.
    fn rise(count: &Rc<Cell<usize>>) -> FallOnDrop {
        count.set(count.get() + 1);
        FallOnDrop(Rc::clone(count))
    }
}

impl Drop for FallOnDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
