//! A shard's doors: its listening sockets, each with the listener whose clients come by it. Opens,
//! assigns and closes them as control has it, and lends them to another process. What is accepted
//! there is `accept`'s; flows that go over with a door are `passing`'s.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use weir_core::model::Handle;
use weir_core::net::{Place, Transport};
use weir_core::rt::{TcpListener, UdpSocket};
use weir_core::table::Site;
use weir_l4::udp;

use super::order::DoorChange;
use super::{Desk, QUIET};

/// A listening socket, and whose clients come by it.
pub(super) enum Door {
    Tcp { listener: Rc<TcpListener>, site: Rc<RefCell<Rc<Site>>> },
    Udp { socket: Rc<UdpSocket>, door: udp::Door, site: Rc<Site> },
}

impl Door {
    pub(super) fn name(&self) -> Rc<str> {
        match self {
            Door::Tcp { site, .. } => site.borrow().name(),
            Door::Udp { site, .. } => site.name(),
        }
    }
}

impl Desk {
    /// TCP keep-alive as the table has it, for connections of both sides from now on.
    pub(super) fn follow_keepalive(&self) -> Vec<(Place, io::Error)> {
        let times = self.view.keepalive();
        self.services().http.set_keepalive(times);
        self.services().tcp.set_keepalive(times);
        let doors = self.doors.borrow();
        let set = |(place, door): (&Place, &Door)| match door {
            Door::Tcp { listener, .. } => {
                listener.set_keepalive(times).err().map(|error| (*place, error))
            }
            Door::Udp { .. } => None,
        };
        doors.iter().flat_map(each).filter_map(set).collect()
    }

    pub(super) fn change(&self, change: DoorChange) -> Option<(Place, io::Error)> {
        match change {
            DoorChange::Open { place, listener, socket } => {
                self.open(place, listener, socket).err().map(|error| (place, error))
            }
            DoorChange::Assign { place, listener } => {
                if let (Some(doors), Some(site)) =
                    (self.doors.borrow_mut().get_mut(&place), self.view.site(listener))
                {
                    doors.iter_mut().for_each(|door| self.assign(door, Rc::clone(&site)));
                }
                None
            }
            DoorChange::Adopt { listener, parcels } => {
                self.adopt_flows(listener, parcels);
                None
            }
            DoorChange::Close { place } => {
                let doors = self.doors.borrow_mut().remove(&place)?;
                let closed = doors.into_iter().map(|door| self.close(door));
                let failed = closed.fold(None, |failed, done| done.err().or(failed));
                failed.map(|error| (place, error))
            }
        }
    }

    fn open(&self, place: Place, listener: Handle, socket: OwnedFd) -> io::Result<()> {
        let site = self.view.site(listener);
        let site = site.ok_or_else(|| io::Error::other("its listener is not in the table"))?;
        let door = match place.transport {
            Transport::Tcp => self.open_tcp(place, site, socket)?,
            Transport::Udp => {
                let socket = Rc::new(UdpSocket::from_fd(socket, false)?);
                let door = self.services().udp.open(&site, Rc::clone(&socket));
                Door::Udp { socket, door, site }
            }
        };
        self.doors.borrow_mut().entry(place).or_default().push(door);
        Ok(())
    }

    fn open_tcp(&self, place: Place, site: Rc<Site>, socket: OwnedFd) -> io::Result<Door> {
        let listener = Rc::new(TcpListener::from_fd(socket)?);
        listener.set_keepalive(self.view.keepalive())?;
        let site = Rc::new(RefCell::new(site));
        self.entrance.open(place, Rc::clone(&listener), Rc::clone(&site));
        Ok(Door::Tcp { listener, site })
    }

    /// The listener whose clients come by a TCP door.
    pub(super) fn site_at(&self, place: Place) -> Option<Rc<Site>> {
        let doors = self.doors.borrow();
        doors.get(&place)?.iter().find_map(|door| match door {
            Door::Tcp { site, .. } => Some(Rc::clone(&site.borrow())),
            Door::Udp { .. } => None,
        })
    }

    /// Clients that come by `door` are those of another listener from now on.
    fn assign(&self, door: &mut Door, next: Rc<Site>) {
        match door {
            Door::Tcp { site, .. } => drop(site.replace(next)),
            Door::Udp { socket, door, site } => {
                self.services().udp.close(*door);
                *door = self.services().udp.open(&next, Rc::clone(socket));
                *site = next;
            }
        }
    }

    fn close(&self, door: Door) -> io::Result<()> {
        match door {
            Door::Tcp { listener, .. } => stop(&listener, QUIET),
            Door::Udp { door, .. } => {
                self.services().udp.close(door);
                Ok(())
            }
        }
    }

    /// Takes no new connections. UDP flows go on by their doors, as long as they are not silent.
    pub(super) fn close_all(&self, quiet: Duration) {
        self.services().udp.begin_drain();
        self.doors.borrow_mut().retain(|place, doors| {
            doors.retain(|door| {
                let Door::Tcp { listener, .. } = door else { return true };
                if let Err(e) = stop(listener, quiet) {
                    tracing::warn!("{place} closes without a drain: {e}");
                }
                false
            });
            !doors.is_empty()
        });
    }

    /// Its listening sockets once more, for another process.
    pub(super) fn lend(&self) -> io::Result<Vec<(Place, OwnedFd)>> {
        let doors = self.doors.borrow();
        let again = |(place, door): (&Place, &Door)| {
            let socket = match door {
                Door::Tcp { listener, .. } => listener.as_fd().try_clone_to_owned(),
                Door::Udp { socket, .. } => socket.as_fd().try_clone_to_owned(),
            };
            Ok((*place, socket?))
        };
        doors.iter().flat_map(each).map(again).collect()
    }

    /// Leaves these doors to another process, which has their very sockets.
    pub(super) fn hand_over(&self, taken: &BTreeSet<Place>) {
        let mut doors = self.doors.borrow_mut();
        for (_, mine) in doors.extract_if(|place, _| taken.contains(place)) {
            for door in mine {
                match door {
                    Door::Tcp { listener, .. } => listener.hand_over(),
                    Door::Udp { door, .. } => self.services().udp.leave(door),
                }
            }
        }
        self.go_on();
    }
}

/// Has a listener take nobody any more. Where the kernel keeps socket filters from this process,
/// SYNs are not dropped: said once, whatever number of sockets closes.
fn stop(listener: &TcpListener, quiet: Duration) -> io::Result<()> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let stopped = listener.stop_accepting(quiet);
    let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    if !stopped.as_ref().is_err_and(denied) {
        return stopped;
    }
    if !TOLD.swap(true, Relaxed) {
        tracing::warn!(
            "listeners close without dropping new handshakes first, so a client that connects in \
             that moment may be reset: this kernel gives socket filters (SO_ATTACH_FILTER) only to \
             processes with CAP_NET_ADMIN, others to all. To have them, grant it \
             (AmbientCapabilities=CAP_NET_ADMIN in the systemd unit, setcap cap_net_admin+ep on \
             the program), or withdraw the address before the stop"
        );
    }
    Ok(())
}

/// The doors of one place, each with it.
pub(super) fn each<'a>(
    (place, doors): (&'a Place, &'a Vec<Door>),
) -> impl Iterator<Item = (&'a Place, &'a Door)> {
    doors.iter().map(move |door| (place, door))
}
