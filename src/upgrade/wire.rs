//! What two processes of an upgrade say to each other: messages in JSON with descriptors beside
//! them, over a Unix socket. Fields that a version doesn't know are passed over; what changes the
//! meaning of the rest gets another [`PROTOCOL`] number, which is refused in words. Knows nothing
//! of what becomes of it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::flows::Flows;
use serde::{Deserialize, Serialize};
use weir_core::control::{Bound, MemberName, Verdict};
use weir_core::model::Id;
use weir_core::net::sys::{MAX_RIGHTS, recv_rights, send_rights};
use weir_core::net::{Place, Transport};
use weir_core::time::clock::Mono;
use weir_health::{Ejection, Past};

/// The version of the messages.
pub const PROTOCOL: u32 = 2;
/// Longest message, in bytes: the bindings of one pool, or a part of the flows of one listener.
const MAX_MESSAGE: u32 = 64 * 1024 * 1024;
/// Descriptors beside one message: a million is the most that Linux lets a process have by default.
const MAX_DESCRIPTORS: u32 = 1 << 20;

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// First of all: what the new process needs to get ready. Descriptors: standard error, the
    /// admin listener if there is one, those of the doors in their order.
    Manifest(Box<Manifest>),
    /// The new process could serve now.
    Prepared {
        /// The UDP doors whose flows it would go on with, each with its listener's id.
        flows_of: Vec<(SocketAddr, String)>,
    },
    /// The bindings of a pool.
    Bindings(Bindings),
    /// Flows of a listener. Descriptors: the sockets that carry them, in their order.
    Flows(Flows),
    /// All has been said: serve.
    Go {
        /// The health of members, as it is now.
        health: Vec<Health>,
        /// What else their checks have come to.
        past: Vec<Checked>,
        /// Members that are left out, or were lately.
        ejections: Vec<Ejected>,
    },
    /// The new process serves.
    Serving {
        /// The doors that it has taken over.
        taken: Vec<Door>,
    },
}

impl Message {
    /// What a text says. Of messages that may be long the kind is known by how they begin, so that
    /// their values go where they belong at once; else serde makes a tree of them all before it
    /// looks for the kind.
    fn read(text: &[u8]) -> serde_json::Result<Message> {
        if text.starts_with(br#"{"kind":"flows","#) {
            return serde_json::from_slice(text).map(Message::Flows);
        }
        if text.starts_with(br#"{"kind":"bindings","#) {
            return serde_json::from_slice(text).map(Message::Bindings);
        }
        serde_json::from_slice(text)
    }
}

/// What the new process needs to get ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// [`PROTOCOL`] of who hands over.
    pub protocol: u32,
    /// Which sockets there are.
    pub doors: Vec<Doors>,
    /// What the file says of the admin listener that is handed over.
    pub admin: Option<SocketAddr>,
    /// What cookies of sticky pools are made with.
    pub secret: [u8; 16],
    /// Session ticket keys: context, and keys.
    pub tickets: Vec<(Vec<u8>, Vec<u8>)>,
    /// The health of members.
    pub health: Vec<Health>,
}

/// What a listening socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Datagrams.
    pub udp: bool,
    /// Its address.
    pub address: SocketAddr,
}

/// The sockets of one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Doors {
    /// Which place.
    pub door: Door,
    /// Its listener's id, where the file asks for any free port.
    pub free_port_of: Option<String>,
    /// The shard of each socket, in their order.
    pub shards: Vec<usize>,
}

/// A member's health.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    pool: String,
    member: String,
    address: SocketAddr,
    up: bool,
}

/// See [`MemberName`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Name {
    pool: String,
    member: String,
    address: SocketAddr,
}

/// A member that is left out, or was lately; `until` in nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ejected {
    name: Name,
    row: u32,
    out: bool,
    until: u64,
}

/// What a member's checks have come to; see [`Past`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checked {
    name: Name,
    known: bool,
    against: u32,
}

/// Bindings of a pool; see [`Bound`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bindings {
    pool: String,
    quic: bool,
    members: Vec<(String, SocketAddr)>,
    sessions: Vec<(u64, u32, u32)>,
}

impl From<Place> for Door {
    fn from(place: Place) -> Door {
        Door { udp: place.transport == Transport::Udp, address: place.address }
    }
}

impl From<Door> for Place {
    fn from(door: Door) -> Place {
        let transport = if door.udp { Transport::Udp } else { Transport::Tcp };
        Place { transport, address: door.address }
    }
}

impl From<&Verdict> for Health {
    fn from(verdict: &Verdict) -> Health {
        let Verdict { pool, member, address, up } = *verdict;
        Health { pool: pool.to_string(), member: member.to_string(), address, up }
    }
}

impl Health {
    /// What it says; `None` when its ids are none.
    pub fn verdict(&self) -> Option<Verdict> {
        let (pool, member) = (self.pool.parse().ok()?, self.member.parse().ok()?);
        Some(Verdict { pool, member, address: self.address, up: self.up })
    }
}

impl From<&MemberName> for Name {
    fn from(name: &MemberName) -> Name {
        let MemberName { pool, member, address } = *name;
        Name { pool: pool.to_string(), member: member.to_string(), address }
    }
}

impl Name {
    fn member(&self) -> Option<MemberName> {
        let (pool, member) = (self.pool.parse().ok()?, self.member.parse().ok()?);
        Some(MemberName { pool, member, address: self.address })
    }
}

impl From<&(MemberName, Ejection)> for Ejected {
    fn from((name, ejection): &(MemberName, Ejection)) -> Ejected {
        let Ejection { row, out, until } = *ejection;
        Ejected { name: name.into(), row, out, until: until.nanos() }
    }
}

impl Ejected {
    /// What it says; `None` when its ids are none.
    pub fn ejection(&self) -> Option<(MemberName, Ejection)> {
        let (row, out, until) = (self.row, self.out, Mono::from_nanos(self.until));
        Some((self.name.member()?, Ejection { row, out, until }))
    }
}

impl From<&(MemberName, Past)> for Checked {
    fn from((name, past): &(MemberName, Past)) -> Checked {
        let Past { known, against } = *past;
        Checked { name: name.into(), known, against }
    }
}

impl Checked {
    /// What it says; `None` when its ids are none.
    pub fn past(&self) -> Option<(MemberName, Past)> {
        let Checked { known, against, .. } = *self;
        Some((self.name.member()?, Past { known, against }))
    }
}

impl From<&Bound> for Bindings {
    fn from(bound: &Bound) -> Bindings {
        let member = |(id, address): &(Id, SocketAddr)| (id.to_string(), *address);
        Bindings {
            pool: bound.pool.to_string(),
            quic: bound.quic,
            members: bound.members.iter().map(member).collect(),
            sessions: bound.sessions.clone(),
        }
    }
}

impl Bindings {
    /// What they say; `None` when their ids are none.
    pub fn bound(self) -> Option<Bound> {
        let member = |(id, address): (String, SocketAddr)| Some((id.parse().ok()?, address));
        Some(Bound {
            pool: self.pool.parse().ok()?,
            quic: self.quic,
            members: self.members.into_iter().map(member).collect::<Option<_>>()?,
            sessions: self.sessions,
        })
    }
}

/// One side's end.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// Over this socket.
    pub fn over(socket: UnixStream) -> Channel {
        Channel(socket)
    }

    /// The same channel once more: for who waits while another one speaks.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Channel> {
        self.0.try_clone().map(Channel)
    }

    /// From now on each step of sending and receiving takes at most so long.
    ///
    /// # Errors
    /// Never, with a time above zero.
    pub fn set_limit(&self, limit: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(limit))?;
        self.0.set_write_timeout(Some(limit))
    }

    /// Sends a message with descriptors, which stay open here.
    ///
    /// # Errors
    /// The other side is gone, or takes nothing for too long; the message is too long.
    pub fn send(&mut self, message: &impl Serialize, rights: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let too_long = || io::Error::other("the message is too long");
        let length = u32::try_from(text.len()).ok().filter(|length| *length <= MAX_MESSAGE);
        let count = u32::try_from(rights.len()).ok().filter(|count| *count <= MAX_DESCRIPTORS);
        let (length, count) = length.zip(count).ok_or_else(too_long)?;
        self.0.write_all(&[length.to_le_bytes(), count.to_le_bytes()].concat())?;
        self.0.write_all(&text)?;
        rights.chunks(MAX_RIGHTS).try_for_each(|some| send_rights(self.0.as_fd(), some))
    }

    /// The next message, with its descriptors.
    ///
    /// # Errors
    /// The other side is gone, says nothing for too long, or what it says is not understood.
    pub fn recv(&mut self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let (mut length, mut count) = ([0; 4], [0; 4]);
        self.0.read_exact(&mut length)?;
        self.0.read_exact(&mut count)?;
        let (length, count) = (u32::from_le_bytes(length), u32::from_le_bytes(count));
        if length > MAX_MESSAGE || count > MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no hand-over"));
        }
        let mut text = Vec::new();
        (&self.0).take(u64::from(length)).read_to_end(&mut text)?;
        if text.len() < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rights = Vec::new();
        while rights.len() < count as usize {
            rights.extend(recv_rights(self.0.as_fd())?);
        }
        Ok((Message::read(&text)?, rights))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Channel::over(one), Channel::over(other));
        let file = std::fs::File::open("/dev/null").unwrap();
        let many = vec![file.as_fd(); MAX_RIGHTS + 7];
        let address = "[::1]:80".parse().unwrap();
        let doors = vec![Doors {
            door: Door { udp: true, address },
            free_port_of: None,
            shards: vec![0, 1],
        }];
        let manifest = Manifest { protocol: 7, doors, ..Manifest::default() };
        one.send(&Message::Manifest(Box::new(manifest)), &many).unwrap();
        one.send(&Message::Go { health: Vec::new(), past: Vec::new(), ejections: Vec::new() }, &[])
            .unwrap();
        let (message, rights) = other.recv().unwrap();
        assert_eq!(rights.len(), many.len());
        let Message::Manifest(manifest) = message else { panic!("{message:?}") };
        assert_eq!((manifest.protocol, manifest.doors[0].door.udp), (7, true));
        assert!(matches!(other.recv().unwrap(), (Message::Go { .. }, rights) if rights.is_empty()));
        drop(one);
        let gone = other.recv().unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// What comes from a program that is no Weir is refused, and takes no memory.
    #[test]
    fn noise_is_no_message() {
        for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], b"\x02\0\0\0\0\0\0\0no"] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(noise).unwrap();
            drop(one);
            assert!(Channel::over(other).recv().is_err(), "{noise:?}");
        }
    }

    /// However its fields are ordered, a message says the same.
    #[test]
    fn the_kind_may_stand_anywhere() {
        let fields = r#""pool":"p","quic":true,"members":[["m","[::1]:80"]],"sessions":[[1,0,9]]"#;
        for text in [
            format!(r#"{{"kind":"bindings",{fields}}}"#),
            format!(r#"{{{fields},"kind":"bindings"}}"#),
            format!(r#"{{ "kind": "bindings", {fields} }}"#),
        ] {
            let Message::Bindings(read) = Message::read(text.as_bytes()).unwrap() else { panic!() };
            assert!(read.quic && read.sessions == [(1, 0, 9)] && read.members.len() == 1);
            // What is sent begins as a reader hopes for.
            let sent = serde_json::to_vec(&Message::Bindings(read)).unwrap();
            assert!(sent.starts_with(br#"{"kind":"bindings","#));
        }
        let flows = br#"{"kind":"flows","doors":[],"members":[],"alone":[],"flows":[]}"#;
        let read = Message::read(flows).unwrap();
        assert!(matches!(read, Message::Flows(_)));
        assert_eq!(serde_json::to_vec(&read).unwrap(), flows);
    }
}
