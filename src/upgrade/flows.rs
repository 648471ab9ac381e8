//! Flows of UDP in what two processes of an upgrade say to each other. Where there may be 100,000
//! of them a flow is a row of values without names. Called by `giver` and `heir`.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use weir_core::net::relay::Moved;
use weir_core::obs::StickyCounters;
use weir_core::time::clock::Mono;
use weir_l4::Packets;
use weir_l4::udp::{Batch, Facts, Passed};

/// Which of the sockets of a place: both processes count alike, since it is the serving one's
/// shards that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    /// The address that it is bound to.
    pub address: SocketAddr,
    /// The shard that has it.
    pub shard: usize,
    /// Counts those of the address that this shard has, from 0.
    pub at: usize,
}

/// Flows as a shard hands them out.
pub type Parcel = Batch<Option<Seat>>;

/// The same as a message; the descriptors of its sockets come beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Flows {
    doors: Vec<Option<Seat>>,
    members: Vec<(String, SocketAddr)>,
    alone: Vec<bool>,
    flows: Vec<Row>,
}

/// A flow: client, address asked; places of door, member and socket; last use and beginning in
/// nanoseconds of CLOCK_MONOTONIC; bytes and datagrams that it has moved; stickiness, facts; ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row(SocketAddr, IpAddr, [u32; 3], [u64; 2], [u64; 4], [u64; 2], u8, [bool; 4], Vec<u64>);

impl Flows {
    /// The message, and the descriptors that go beside it.
    pub fn of(parcel: &Parcel) -> (Flows, Vec<BorrowedFd<'_>>) {
        let Batch { doors, members, sockets, flows } = parcel;
        let flows = Flows {
            doors: doors.clone(),
            members: members.iter().map(|(id, address)| (id.to_string(), *address)).collect(),
            alone: sockets.iter().map(|(alone, _)| *alone).collect(),
            flows: flows.iter().map(Row::of).collect(),
        };
        (flows, sockets.iter().map(|(_, socket)| socket.as_fd()).collect())
    }

    /// What it says; `None` when it is none that [`Flows::of`] has made.
    pub fn parcel(self, rights: Vec<OwnedFd>) -> Option<Parcel> {
        if rights.len() != self.alone.len() {
            return None;
        }
        let member = |(id, address): (String, SocketAddr)| Some((id.parse().ok()?, address));
        Some(Batch {
            doors: self.doors,
            members: self.members.into_iter().map(member).collect::<Option<_>>()?,
            sockets: self.alone.into_iter().zip(rights).collect(),
            flows: self.flows.into_iter().map(Row::passed).collect::<Option<_>>()?,
        })
    }
}

impl Row {
    fn of(flow: &Passed) -> Row {
        let Moved { from_client, to_member, from_member, to_client } = flow.moved;
        let Facts { branched, told, answered, binds } = flow.facts;
        Row(
            flow.client,
            flow.local,
            [flow.door, flow.member, flow.socket],
            [flow.used.nanos(), flow.begun.nanos()],
            [from_client, to_member, from_member, to_client],
            [flow.packets.received, flow.packets.sent],
            flow.sticky as u8,
            [branched, told, answered, binds],
            flow.ids.clone(),
        )
    }

    fn passed(self) -> Option<Passed> {
        let Row(client, local, places, times, moved, packets, sticky, facts, ids) = self;
        let ([door, member, socket], [received, sent]) = (places, packets);
        let [used, begun] = times.map(Mono::from_nanos);
        let [from_client, to_member, from_member, to_client] = moved;
        let [branched, told, answered, binds] = facts;
        Some(Passed {
            client,
            local,
            door,
            member,
            socket,
            used,
            begun,
            moved: Moved { from_client, to_member, from_member, to_client },
            packets: Packets { received, sent },
            sticky: *StickyCounters::ALL.get(usize::from(sticky))?,
            facts: Facts { branched, told, answered, binds },
            ids,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use weir_core::model::Id;
    use weir_core::obs::Sticky;

    use super::*;

    #[test]
    fn flows_arrive_as_they_were() {
        let address: SocketAddr = "[::1]:53".parse().unwrap();
        let flow = Passed {
            client: "10.0.0.1:4000".parse().unwrap(),
            local: "fd00::1".parse().unwrap(),
            door: 1,
            member: 2,
            socket: 0,
            used: Mono::from_nanos(u64::MAX),
            begun: Mono::from_nanos(3),
            moved: Moved { from_client: 1, to_member: 2, from_member: 3, to_client: 4 },
            packets: Packets { received: 8, sent: 9 },
            sticky: Sticky::Miss,
            facts: Facts { branched: true, told: false, answered: true, binds: false },
            ids: vec![7, u64::MAX],
        };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let parcel = Batch {
            doors: vec![None, Some(Seat { address, shard: 3, at: 1 })],
            members: vec![(Id::from_u128(5), address)],
            sockets: vec![(true, socket.into())],
            flows: vec![flow],
        };
        let (message, rights) = Flows::of(&parcel);
        assert_eq!(rights.len(), 1);
        let text = serde_json::to_string(&message).unwrap();
        let read = || serde_json::from_str::<Flows>(&text).unwrap();
        assert!(read().parcel(Vec::new()).is_none(), "a socket is missing");
        let rights = rights.iter().map(|socket| socket.try_clone_to_owned().unwrap()).collect();
        let back = read().parcel(rights).unwrap();
        assert_eq!((back.doors, back.members), (parcel.doors.clone(), parcel.members.clone()));
        assert_eq!((back.flows, back.sockets[0].0), (parcel.flows.clone(), true));
    }
}
