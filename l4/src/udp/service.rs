//! All UDP flows of one shard. The door of UDP: the server hands in bound sockets with the site
//! that they are for, and says when the tables have changed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use weir_core::model::Handle;
use weir_core::obs::Ending;
use weir_core::rt::{self, UdpSocket};
use weir_core::table::Site;

use super::room::Room;

/// How often it is looked whether the last flow has ended.
const IDLE_TICK: Duration = Duration::from_millis(20);

/// Names one listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    listener: Handle,
    number: u32,
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
