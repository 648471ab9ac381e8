//! All TCP sessions of one shard. The door of TCP: the server hands in accepted connections with
//! the site that let them in, and says when the tables have changed.

use std::cell::Cell;
use std::rc::Rc;

use weir_core::model::TcpKeepalive;
use weir_core::net::crowd::Crowd;
use weir_core::rt::TcpStream;
use weir_core::table::Ticket;

use super::serve::{self, Origin};

/// TCP forwarding on one shard. One per shard; it and its futures stay there.
#[derive(Debug, Default)]
pub struct Tcp {
    pub(super) crowd: Crowd,
    pub(super) keepalive: Cell<TcpKeepalive>,
    /// Grows with each change that sessions have to look at.
    pub(super) epoch: Cell<u32>,
}

impl Tcp {
    /// A service without connections.
    #[must_use]
    pub fn start() -> Rc<Tcp> {
        Rc::default()
    }

    /// Serves one client connection, which the site of `ticket` let in, until it ends, however it
    /// ends. Dropping the future resets the connection.
    pub fn serve(
        self: Rc<Self>,
        ticket: Ticket,
        stream: TcpStream,
        origin: Origin,
    ) -> impl Future<Output = ()> {
        // Passed on as it is: a future around it would hold everything twice.
        serve::run(self, ticket, stream, origin)
    }

    /// Listeners, pools or members have changed: every session looks what that means for it, in
    /// this turn or the next.
    pub fn follow(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        self.crowd.wake_all();
    }

    /// TCP keep-alive of the connections that are opened to members from now on (R11.1-2).
    pub fn set_keepalive(&self, times: TcpKeepalive) {
        self.keepalive.set(times);
    }

    /// Connections being served.
    pub fn active(&self) -> usize {
        self.crowd.active()
    }

    /// Waits until no connection is being served.
    pub async fn idle(&self) {
        self.crowd.idle().await;
    }
}
