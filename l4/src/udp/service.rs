//! All UDP flows of one shard. The door of UDP: the server hands in bound sockets with the site
//! that they are for, and says when the tables have changed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use weir_core::model::Handle;
use weir_core::obs::Ending;
use weir_core::rt::{self, UdpSocket};
use weir_core::table::Site;

use super::passing::{Batch, Passing};
use super::room::Room;

/// How often it is looked whether the last flow has ended.
const IDLE_TICK: Duration = Duration::from_millis(20);

/// Names one listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Door {
    pub(super) listener: Handle,
    pub(super) number: u32,
}

/// UDP forwarding on one shard. One per shard; it and its futures stay there.
#[derive(Debug, Default)]
pub struct Udp {
    rooms: RefCell<BTreeMap<Handle, Rc<Room>>>,
    doors: Cell<u32>,
}

impl Udp {
    /// A service without listeners.
    #[must_use]
    pub fn start() -> Rc<Udp> {
        Rc::default()
    }

    /// Serves the clients that come by `socket` for the listener `site`.
    pub fn open(&self, site: &Rc<Site>, socket: Rc<UdpSocket>) -> Door {
        let number = self.doors.get();
        self.doors.set(number.wrapping_add(1));
        let room = {
            let mut rooms = self.rooms.borrow_mut();
            let room = rooms.entry(site.handle()).or_insert_with(|| Room::new(Rc::clone(site)));
            Rc::clone(room)
        };
        room.open(number, socket);
        Door { listener: site.handle(), number }
    }

    /// Serves nobody by this door any more. The flows that came by it end.
    pub fn close(&self, door: Door) {
        let room = self.rooms.borrow().get(&door.listener).cloned();
        if let Some(room) = room {
            room.close(door.number);
        }
    }

    /// Receives nothing any more for the listeners of these doors, so that another process can go
    /// on with their flows.
    pub fn hold(&self, doors: &[Door]) -> Vec<Passing> {
        let listeners: BTreeSet<Handle> = doors.iter().map(|door| door.listener).collect();
        let rooms = self.rooms.borrow();
        let held = listeners.iter().filter_map(|listener| rooms.get(listener)).map(|room| {
            room.hold();
            Passing::of(Rc::clone(room))
        });
        held.collect()
    }

    /// There is no other process: all flows go on here.
    pub fn go_on(&self) {
        self.rooms.borrow().values().for_each(Room::go_on);
    }

    /// Another process serves by this door, and goes on with the flows that it was passed.
    pub fn leave(&self, door: Door) {
        let room = self.rooms.borrow().get(&door.listener).cloned();
        if let Some(room) = room.filter(|room| room.held.get()) {
            room.release();
        }
        self.close(door);
    }

    /// Goes on with flows of `listener` that another process had; `None` is a door that they can't
    /// come by here. Call it before the doors receive. Returns how many go on.
    pub fn adopt(&self, listener: Handle, batches: Vec<Batch<Option<Door>>>) -> usize {
        let Some(room) = self.rooms.borrow().get(&listener).cloned() else { return 0 };
        let own = |door: Option<Door>| Some(door.filter(|door| door.listener == listener)?.number);
        room.adopt(batches.into_iter().map(|batch| batch.map_doors(own)).collect())
    }

    /// The process that had them goes on with the flows that were adopted; all others end.
    pub fn give_back(&self) {
        self.rooms.borrow().values().for_each(|room| room.give_back());
    }

    /// Listeners, pools or members have changed. What came by a listener that was deleted ends at
    /// once (R6.3-1).
    pub fn follow(&self) {
        let now = rt::now();
        let rooms: Vec<Rc<Room>> = self.rooms.borrow().values().cloned().collect();
        for room in rooms {
            if room.site.is_gone() {
                room.stop(Ending::Deleted);
                self.rooms.borrow_mut().remove(&room.site.handle());
            } else {
                room.follow(now);
            }
        }
    }

    /// From now on no flow begins, and those that there are end when they fall silent.
    pub fn begin_drain(&self) {
        let rooms: Vec<Rc<Room>> = self.rooms.borrow().values().cloned().collect();
        rooms.iter().for_each(Room::begin_drain);
    }

    /// Flows that there are.
    pub fn active(&self) -> usize {
        self.rooms.borrow().values().map(|room| room.flows()).sum()
    }

    /// Waits until there is no flow.
    pub async fn idle(&self) {
        while self.active() > 0 {
            rt::sleep(IDLE_TICK).await;
        }
    }
}

impl Drop for Udp {
    /// The process ends: what is still there is counted and logged.
    fn drop(&mut self) {
        self.rooms.get_mut().values().for_each(|room| room.stop(Ending::Shutdown));
    }
}
