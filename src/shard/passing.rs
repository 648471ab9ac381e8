//! A shard's part of handing UDP flows over: the serving process' shards send them out in parcels,
//! the new one's take them in with their doors. The flows themselves are `weir_l4::udp`'s; what
//! carries the parcels is `crate::upgrade`'s.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use weir_core::model::Handle;
use weir_core::net::{Place, Transport};
use weir_core::rt;
use weir_core::time::clock::Mono;
use weir_l4::udp::{self, Passing};

use super::Desk;
use super::doors::{Door, each};
use crate::upgrade::flows::{Parcel, Seat};

/// How often it is looked whether all is still, or the next parcel may go.
const TICK: Duration = Duration::from_millis(1);

/// Where a shard's flows go.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Takes few parcels at a time.
    pub parcels: SyncSender<Parcel>,
    /// What has not gone by then ends with this process' service.
    pub until: Mono,
}

impl Desk {
    /// Holds the listeners of these doors up, and sends their flows as soon as all is still.
    pub(super) fn pass_flows(&self, shard: usize, places: &BTreeSet<Place>, outlet: Outlet) {
        let seats = self.seats(shard);
        let named = |(door, seat): (&udp::Door, &Seat)| {
            let place = Place { transport: Transport::Udp, address: seat.address };
            places.contains(&place).then_some(*door)
        };
        let doors: Vec<udp::Door> = seats.iter().filter_map(named).collect();
        let passing = self.services().udp.hold(&doors);
        rt::spawn(async move {
            for one in &passing {
                while one.is_held() && !one.is_still() {
                    rt::sleep(TICK).await;
                }
            }
            for one in passing {
                send(one, &seats, &outlet).await;
            }
        });
    }

    /// The UDP doors, with what both processes call them.
    fn seats(&self, shard: usize) -> HashMap<udp::Door, Seat> {
        let doors = self.doors.borrow();
        let seats = doors.iter().flat_map(|(place, doors)| {
            doors.iter().enumerate().filter_map(move |(at, door)| match door {
                Door::Udp { door, .. } => Some((*door, Seat { address: place.address, shard, at })),
                Door::Tcp { .. } => None,
            })
        });
        seats.collect()
    }

    /// Goes on with flows of a process that is replaced by this one.
    pub(super) fn adopt_flows(&self, listener: Handle, parcels: Vec<Parcel>) {
        let doors = self.doors.borrow();
        let door = |seat: Option<Seat>| {
            let seat = seat?;
            let place = Place { transport: Transport::Udp, address: seat.address };
            match doors.get(&place)?.get(seat.at)? {
                Door::Udp { door, .. } => Some(*door),
                Door::Tcp { .. } => None,
            }
        };
        let batches = parcels.into_iter().map(|parcel| parcel.map_doors(door)).collect();
        let count = self.services().udp.adopt(listener, batches);
        tracing::debug!("{count} UDP flows of the former process go on");
    }

    /// Flows that were held up and have not left go on.
    pub(super) fn go_on(&self) {
        self.services().udp.go_on();
    }

    /// The process that the doors came from serves on by them, and goes on with its flows.
    pub(super) fn give_back(&self) {
        self.services().udp.give_back();
        let all: BTreeSet<Place> = self.doors.borrow().keys().copied().collect();
        self.hand_over(&all);
    }

    /// There is no other process: flows go on, and doors let clients in which that one has begun to
    /// close, when it came to its end before it was heard to serve.
    pub(super) fn serve_on(&self) {
        self.go_on();
        for (place, door) in self.doors.borrow().iter().flat_map(each) {
            if let Door::Tcp { listener, .. } = door
                && let Err(e) = listener.go_on()
            {
                tracing::error!("{place} may let nobody in until Weir is started again: {e}");
            }
        }
    }
}

/// Sends a listener's flows, as long as there is time, somebody takes them, and they don't go on
/// here.
async fn send(mut passing: Passing, seats: &HashMap<udp::Door, Seat>, outlet: &Outlet) {
    let goes_on = |passing: &Passing| passing.is_held() && rt::now() < outlet.until;
    while goes_on(&passing) {
        let batch = match passing.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(error) => return tracing::warn!("UDP flows can't be handed over: {error}"),
        };
        let mut parcel = batch.map_doors(|door| seats.get(&door).copied());
        loop {
            match outlet.parcels.try_send(parcel) {
                Ok(()) => break passing.confirm(),
                Err(TrySendError::Full(back)) if goes_on(&passing) => parcel = back,
                Err(_) => return,
            }
            rt::sleep(TICK).await;
        }
    }
}
