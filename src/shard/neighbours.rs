//! The ways by which shards hand over to each other what they have accepted: a bounded mailbox a
//! shard. Whether a connection goes, and to whom, says `core::acl::Spread`; what becomes of it
//! there is for the shard that gets it. Made by the `fleet`, used by `accept`.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use weir_core::acl::{House, Share};
use weir_core::limits::HANDED_OVER;
use weir_core::model::Handle;
use weir_core::net::Place;
use weir_core::rt::{self, Receiver, Sender};
use weir_core::table::Site;

/// A connection that another shard has accepted, and nobody has judged or read.
#[derive(Debug)]
pub(super) struct Handed {
    /// The connection.
    pub socket: OwnedFd,
    /// Who is at its other end.
    pub peer: SocketAddr,
    /// Whose it is, …
    pub listener: Handle,
    /// … and by what door it came: where another listener has that now, it is that one's.
    pub place: Place,
}

/// One shard's ways to the others, and theirs to it.
#[derive(Debug)]
pub struct Neighbours {
    /// What it hands over by.
    pub(super) outbox: Outbox,
    /// What it gets.
    pub(super) inbox: Receiver<Handed>,
}

/// A shard's ways to the others.
#[derive(Debug)]
pub(super) struct Outbox {
    shard: usize,
    house: Arc<House>,
    /// By number of the shard.
    boxes: Arc<[Sender<Handed>]>,
}

impl Neighbours {
    /// Those of so many shards of one process, in their order.
    pub fn of(shards: usize, house: &Arc<House>) -> Vec<Neighbours> {
        house.spread.prepare(shards);
        let (boxes, inboxes): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| rt::mailbox(HANDED_OVER)).unzip();
        let boxes: Arc<[_]> = boxes.into();
        let neighbour = |(shard, inbox)| Neighbours {
            outbox: Outbox { shard, house: Arc::clone(house), boxes: Arc::clone(&boxes) },
            inbox,
        };
        inboxes.into_iter().enumerate().map(neighbour).collect()
    }
}

impl Outbox {
    /// What this shard shows the others.
    pub(super) fn share(&self) -> Option<&Share> {
        self.house.spread.share(self.shard)
    }

    /// Hands over a connection that was accepted at `place` for `site`, when this shard has too
    /// many; gives its socket back when it is to be served here, also for want of room on the way.
    pub(super) fn pass(
        &self,
        site: &Site,
        place: Place,
        socket: OwnedFd,
        peer: SocketAddr,
    ) -> Option<OwnedFd> {
        let Some(taker) = site.other_taker() else { return Some(socket) };
        let handed = Handed { socket, peer, listener: site.handle(), place };
        let sent = match self.boxes.get(taker) {
            Some(way) => way.try_send(handed),
            None => Err(handed),
        };
        match sent {
            Ok(()) => {
                self.share()?.handed_over.add(1);
                None
            }
            Err(handed) => {
                if let Some(share) = self.house.spread.share(taker) {
                    share.arrived();
                }
                Some(handed.socket)
            }
        }
    }
}
