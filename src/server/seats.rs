//! Pure: which of the UDP sockets that a process was handed is which. Two processes of an upgrade
//! name a socket by its address, its shard and its place among that shard's; the new process deals
//! sockets out anew, and flows follow theirs. `doors` notes where each has gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use weir_core::model::Handle;

use crate::upgrade::flows::{Parcel, Seat};

/// Where the sockets of the former process are now.
#[derive(Debug, Default)]
pub struct Seats {
    homes: HashMap<Seat, Seat>,
    /// Sockets of an address that a shard of the former process had, so far …
    former: HashMap<(SocketAddr, usize), usize>,
    /// … and that one of this process has.
    present: HashMap<(SocketAddr, usize), usize>,
}

impl Seats {
    /// The next socket of `address` that the shard `former` had there is one of `shard` here.
    pub fn note(&mut self, address: SocketAddr, former: usize, shard: usize) {
        let former = seat(&mut self.former, address, former);
        self.homes.insert(former, seat(&mut self.present, address, shard));
    }

    /// The addresses of all of them.
    pub fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.homes.values().map(|seat| seat.address).collect()
    }

    /// What each shard gets of flows that were handed over, by the listener that `listener_at` says
    /// of an address. A parcel whose doors are on several shards now goes to the first of them;
    /// doors of others are taken out.
    pub fn deal(
        &self,
        parcels: Vec<Parcel>,
        listener_at: impl Fn(SocketAddr) -> Option<Handle>,
    ) -> BTreeMap<(usize, Handle), Vec<Parcel>> {
        let mut dealt: BTreeMap<(usize, Handle), Vec<Parcel>> = BTreeMap::new();
        for parcel in parcels {
            let home = |door: &Option<Seat>| self.homes.get(door.as_ref()?).copied();
            let first = parcel.doors.iter().find_map(home);
            let to = first.and_then(|seat| Some((seat.shard, listener_at(seat.address)?)));
            let Some(to) = to else {
                let count = parcel.flows.len();
                tracing::warn!("{count} UDP flows came by doors that nobody has here, and end");
                continue;
            };
            let parcel = parcel.map_doors(|door| home(&door).filter(|seat| seat.shard == to.0));
            dealt.entry(to).or_default().push(parcel);
        }
        dealt
    }
}

fn seat(
    counts: &mut HashMap<(SocketAddr, usize), usize>,
    address: SocketAddr,
    shard: usize,
) -> Seat {
    let count = counts.entry((address, shard)).or_default();
    *count += 1;
    Seat { address, shard, at: *count - 1 }
}

#[cfg(test)]
mod tests {
    use weir_core::model::Handles;

    use super::*;

    fn parcel(doors: &[Seat]) -> Parcel {
        let doors = doors.iter().copied().map(Some).collect();
        Parcel { doors, members: Vec::new(), sockets: Vec::new(), flows: Vec::new() }
    }

    /// Three shards' sockets go to two shards, or to one that gets them all.
    #[test]
    fn flows_follow_their_door() {
        let addresses = [53, 54].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let seat = |n: usize, shard, at| Seat { address: addresses[n], shard, at };
        let mut seats = Seats::default();
        for (former, shard) in [(0, 0), (1, 1), (2, 0)] {
            seats.note(addresses[0], former, shard);
        }
        seats.note(addresses[1], 0, 1);
        assert!(seats.addresses().into_iter().eq(addresses));
        let mut handles = Handles::default();
        let listeners = [handles.fresh(), handles.fresh()];
        let listener_at = |address: SocketAddr| Some(listeners[usize::from(address.port() - 53)]);
        let parcels = vec![
            parcel(&[seat(0, 2, 0)]),
            parcel(&[seat(0, 1, 0)]),
            parcel(&[seat(0, 0, 0), seat(1, 0, 0)]),
            parcel(&[seat(0, 7, 0)]),
        ];
        let dealt = seats.deal(parcels, listener_at);
        let doors = |shard| -> Vec<Vec<Option<Seat>>> {
            let parcels = &dealt[&(shard, listeners[0])];
            parcels.iter().map(|parcel| parcel.doors.clone()).collect()
        };
        // The second of shard 0; the last door of the third parcel is another shard's.
        let expected = vec![vec![Some(seat(0, 0, 1))], vec![Some(seat(0, 0, 0)), None]];
        assert_eq!(doors(0), expected);
        assert_eq!(doors(1), vec![vec![Some(seat(0, 1, 0))]]);
        assert_eq!(dealt.len(), 2, "nobody has the door of the last one");
    }
}
