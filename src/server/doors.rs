//! The listening sockets of the process: which are open on which shards, and what has to change for
//! another state. New sockets are bound before anything else changes, so that an address that can't
//! be had leaves everything as it was; those that join sockets that serve listen last of all
//! ([`Moves::listen`]), since closing them again would cut the clients that they were given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Result;
use weir_core::control::{Listener, State};
use weir_core::model::{Handle, Id};
use weir_core::net::{self, Joining, Place, Transport, Wanted};
use weir_core::time::clock::Mono;

use super::seats::Seats;
use crate::shard::DoorChange;
use crate::upgrade::flows::Parcel;
use crate::upgrade::heir::Group;

/// Listening sockets that another process has handed over.
pub type Stock = BTreeMap<Place, Group>;

/// How long the sockets of a closed door may take to serve their queues: many times
/// [`crate::shard::QUIET`].
const CLOSING: Duration = Duration::from_secs(10);

/// The open doors, by what they are bound to.
#[derive(Debug, Default)]
pub struct Doors {
    open: BTreeMap<Place, Door>,
    /// The port that a listener on a free port was given.
    ports: HashMap<Handle, u16>,
    /// Addresses that were left out since the host has no IPv6.
    absent: BTreeSet<SocketAddr>,
    /// When an address was closed: for a while its sockets still serve their queues.
    closed: BTreeMap<Place, Mono>,
    shards: usize,
    backlog: u32,
}

#[derive(Clone, Debug)]
struct Door {
    listener: Handle,
    shards: BTreeSet<usize>,
}

/// A set of changes, with its new sockets bound already. Dropping it closes them again.
#[derive(Debug)]
pub struct Moves {
    next: Doors,
    changes: Vec<Vec<DoorChange>>,
    joining: Vec<(Handle, Vec<usize>, Joining)>,
    /// UDP sockets that were handed over.
    seats: Seats,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A new address that a listener wants.
struct Wish {
    listener: Handle,
    id: Id,
    name: String,
    transport: Transport,
    addresses: Vec<SocketAddr>,
    shards: BTreeSet<usize>,
}

impl Doors {
    /// No doors yet, on `shards` shards; accept queues of `backlog`.
    pub fn new(shards: usize, backlog: u32) -> Doors {
        Doors { shards, backlog, ..Doors::default() }
    }

    /// The bound addresses of a listener, ascending.
    pub fn of(&self, listener: Handle) -> impl Iterator<Item = SocketAddr> {
        let mine = move |(_, door): &(&Place, &Door)| door.listener == listener;
        self.open.iter().filter(mine).map(|(place, _)| place.address)
    }

    /// The listener that serves by a place.
    pub fn listener(&self, place: Place) -> Option<Handle> {
        self.open.get(&place).map(|door| door.listener)
    }

    /// All open doors.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.open.keys().copied()
    }

    /// The listeners that were given a free port, by their doors.
    pub fn with_free_port(&self) -> impl Iterator<Item = (Place, Handle)> {
        let given = |(_, door): &(&Place, &Door)| self.ports.contains_key(&door.listener);
        self.open.iter().filter(given).map(|(place, door)| (*place, door.listener))
    }

    /// Binds what `state` wants beyond what is open, and what of it isn't in the `stock`. Sockets
    /// that join others take clients only after [`Moves::listen`].
    ///
    /// # Errors
    /// The first address that can't be had, with owner and cure; nothing has changed then.
    pub fn plan(&self, state: &State, now: Mono, stock: &mut Stock) -> Result<Moves> {
        let is_closing = |when: Mono| now.since(when) < CLOSING;
        let mut moves = Moves {
            next: Doors {
                open: BTreeMap::new(),
                ports: HashMap::new(),
                absent: self.absent.clone(),
                closed: self.closed.clone(),
                ..*self
            },
            changes: (0..self.shards).map(|_| Vec::new()).collect(),
            joining: Vec::new(),
            seats: Seats::default(),
            warnings: Vec::new(),
        };
        moves.next.closed.retain(|_, when| is_closing(*when));
        let mut wishes = Vec::new();
        for (handle, listener) in state.listeners() {
            self.keep(handle, listener, &mut moves, &mut wishes)?;
        }
        for wish in &mut wishes {
            take_over(wish, stock, &mut moves)?;
        }
        for wish in &mut wishes {
            self.join(wish, &mut moves, stock)?;
        }
        wishes.retain(|wish| !wish.addresses.is_empty());
        self.bind(&wishes, &mut moves)?;
        for (&place, door) in &self.open {
            if !moves.next.open.contains_key(&place) {
                moves.next.closed.insert(place, now);
                for &shard in &door.shards {
                    moves.tell(shard, DoorChange::Close { place });
                }
            }
        }
        Ok(moves)
    }

    /// The addresses as they are bound: a free port is the one that was given.
    fn bound(&self, handle: Handle, listener: &Listener) -> Vec<SocketAddr> {
        let given = self.ports.get(&handle).copied();
        let real = |address: &SocketAddr| match (address.port(), given) {
            (0, Some(port)) => SocketAddr::new(address.ip(), port),
            _ => *address,
        };
        listener.bind.iter().map(real).collect()
    }

    /// Keeps the doors of a listener that are open; wishes for the others.
    fn keep(
        &self,
        handle: Handle,
        listener: &Listener,
        moves: &mut Moves,
        wishes: &mut Vec<Wish>,
    ) -> Result<()> {
        if let Some(&port) = self.ports.get(&handle) {
            moves.next.ports.insert(handle, port);
        }
        let shards: BTreeSet<usize> = listener.shards.iter().copied().collect();
        let transport = transport(listener);
        let mut missing = Vec::new();
        for address in self.bound(handle, listener) {
            let place = Place { transport, address };
            match self.open.get(&place) {
                Some(door) => {
                    self.move_door(place, door, handle, listener, &shards, moves)?;
                }
                None if self.is_absent(address, listener) => {}
                None => missing.push(address),
            }
        }
        if !missing.is_empty() && !shards.is_empty() {
            let name = listener.name.clone();
            let (id, listener, addresses) = (listener.id, handle, missing);
            wishes.push(Wish { listener, id, name, transport, addresses, shards });
        }
        Ok(())
    }

    /// Was it left out, and may it be? A listener that names no IPv4 address beside it is told
    /// what is wrong with it.
    fn is_absent(&self, address: SocketAddr, listener: &Listener) -> bool {
        let is_any_v4 = |other: &SocketAddr| other.is_ipv4() && other.ip().is_unspecified();
        self.absent.contains(&address) && listener.bind.iter().any(is_any_v4)
    }

    /// A door that is open: its listener or its shards may be others now.
    fn move_door(
        &self,
        place: Place,
        door: &Door,
        handle: Handle,
        listener: &Listener,
        shards: &BTreeSet<usize>,
        moves: &mut Moves,
    ) -> Result<()> {
        let mut shards = shards.clone();
        if place.transport == Transport::Udp {
            // Another socket in the group would move clients: it stays with those that it has. If
            // none of them is wanted any more, its flows end anyway.
            let kept = &shards & &door.shards;
            if !kept.is_empty() && kept != shards {
                moves.warnings.push(format!(
                    "listener `{}`: UDP port {} keeps the sockets that it has, on {} of {} shards; \
                     all of them serve it after a restart",
                    listener.name,
                    place.address,
                    kept.len(),
                    shards.len()
                ));
                shards = kept;
            }
        }
        if shards.is_empty() {
            return Ok(()); // closed, as what nobody wants
        }
        let joining: Vec<usize> = shards.difference(&door.shards).copied().collect();
        let sockets = net::bind_join(&listener.name, place, joining.len())?;
        moves.joining.push((handle, joining, sockets));
        for &shard in door.shards.difference(&shards) {
            moves.tell(shard, DoorChange::Close { place });
        }
        if door.listener != handle {
            for &shard in door.shards.intersection(&shards) {
                moves.tell(shard, DoorChange::Assign { place, listener: handle });
            }
        }
        moves.next.open.insert(place, Door { listener: handle, shards });
        Ok(())
    }

    /// Binds the addresses that nobody has here.
    fn bind(&self, wishes: &[Wish], moves: &mut Moves) -> Result<()> {
        let wanted = |wish: &Wish| Wanted {
            listener: wish.name.clone(),
            transport: wish.transport,
            addresses: wish.addresses.clone(),
            shards: wish.shards.len(),
        };
        let wanted: Vec<Wanted> = wishes.iter().map(wanted).collect();
        let bound = net::bind_all(&wanted, self.backlog)?;
        moves.warnings.extend(bound.warnings);
        let addresses: BTreeSet<SocketAddr> =
            bound.groups.iter().map(|group| group.place.address).collect();
        for wish in wishes.iter().filter(|wish| !wish.has_any_port()) {
            let absent = wish.addresses.iter().filter(|address| !addresses.contains(*address));
            moves.next.absent.extend(absent);
        }
        for group in bound.groups {
            let Some(wish) = wishes.get(group.wanted) else { continue };
            if wish.has_any_port() {
                moves.next.ports.insert(wish.listener, group.place.address.port());
            }
            moves.open(wish, group.place, group.sockets);
        }
        Ok(())
    }

    /// Takes those addresses out of a wish that we hold, in part or still: they can't be tested for
    /// others, so their sockets join.
    fn join(&self, wish: &mut Wish, moves: &mut Moves, stock: &Stock) -> Result<()> {
        let is_ours = |&address: &SocketAddr| self.is_ours(wish.place(address), moves, stock);
        let (ours, new): (Vec<_>, Vec<_>) = wish.addresses.iter().copied().partition(is_ours);
        wish.addresses = new;
        for address in ours {
            let place = wish.place(address);
            let sockets = net::bind_join(&wish.name, place, wish.shards.len())?;
            let shards = wish.shards.iter().copied().collect();
            moves.joining.push((wish.listener, shards, sockets));
            moves.next.open.insert(place, wish.door());
        }
        Ok(())
    }

    /// Is this address, or one that overlaps with it, open here, closing, or handed over?
    fn is_ours(&self, place: Place, moves: &Moves, stock: &Stock) -> bool {
        let address = place.address;
        let overlaps = |other: &Place| {
            let (transport, other) = (other.transport, other.address);
            transport == place.transport
                && other.port() == address.port()
                && other.is_ipv4() == address.is_ipv4()
                && (other.ip() == address.ip()
                    || other.ip().is_unspecified()
                    || address.ip().is_unspecified())
        };
        let ours = self.open.keys().chain(moves.next.closed.keys()).chain(stock.keys());
        address.port() != 0 && ours.chain(moves.next.open.keys()).any(overlaps)
    }
}

impl Moves {
    /// Takes the changes as done. Returns the doors from now on, and what each shard has to do.
    pub fn accept(self) -> (Doors, Vec<Vec<DoorChange>>) {
        (self.next, self.changes)
    }

    /// Deals sockets that were handed over to the shards that serve their listener: TCP ones in
    /// turn, so a shard may get several, where there are fewer shards now. UDP sockets that one
    /// shard had stay together, since their flows share upstream sockets. Where there are more
    /// shards, new TCP sockets join; UDP ones don't: that would move clients to other sockets.
    fn deal(&mut self, wish: &Wish, place: Place, group: Group) -> Result<()> {
        let listener = wish.listener;
        let mut idle = wish.shards.clone();
        for (turn, (former, socket)) in group.sockets.into_iter().enumerate() {
            let shard = match place.transport {
                Transport::Tcp => wish.shard_in_turn(turn),
                Transport::Udp if wish.shards.contains(&former) => Some(former),
                Transport::Udp => wish.shard_in_turn(former),
            };
            let Some(shard) = shard else { continue };
            idle.remove(&shard);
            if place.transport == Transport::Udp {
                self.seats.note(place.address, former, shard);
            }
            self.tell(shard, DoorChange::Open { place, listener, socket });
        }
        let mut door = wish.door();
        match place.transport {
            Transport::Tcp if !idle.is_empty() => {
                let sockets = net::bind_join(&wish.name, place, idle.len())?;
                self.joining.push((listener, idle.into_iter().collect(), sockets));
            }
            Transport::Tcp => {}
            Transport::Udp => door.shards.retain(|shard| !idle.contains(shard)),
        }
        self.next.open.insert(place, door);
        Ok(())
    }

    /// The UDP doors that were handed over, each with its listener.
    pub fn handed_over(&self) -> impl Iterator<Item = (SocketAddr, Handle)> {
        let listener = |address| Some((address, self.next.listener(udp_place(address))?));
        self.seats.addresses().into_iter().filter_map(listener)
    }

    /// Has flows that came by doors which were handed over go on where these are now.
    pub fn adopt(&mut self, parcels: Vec<Parcel>) {
        let listener_at = |address| self.next.listener(udp_place(address));
        for ((shard, listener), parcels) in self.seats.deal(parcels, listener_at) {
            self.tell(shard, DoorChange::Adopt { listener, parcels });
        }
    }

    fn tell(&mut self, shard: usize, change: DoorChange) {
        if let Some(changes) = self.changes.get_mut(shard) {
            changes.push(change);
        }
    }

    fn open(&mut self, wish: &Wish, place: Place, sockets: Vec<OwnedFd>) {
        for (&shard, socket) in wish.shards.iter().zip(sockets) {
            self.tell(shard, DoorChange::Open { place, listener: wish.listener, socket });
        }
        self.next.open.insert(place, wish.door());
    }

    /// Has the sockets that join others take clients: the last thing that may fail, and hardly can.
    /// From now on they have to be served.
    ///
    /// # Errors
    /// The kernel is out of memory.
    pub fn listen(&mut self) -> Result<()> {
        let backlog = self.next.backlog;
        for (listener, shards, joining) in std::mem::take(&mut self.joining) {
            let place = joining.place;
            for (shard, socket) in shards.into_iter().zip(joining.listen(backlog)?) {
                self.tell(shard, DoorChange::Open { place, listener, socket });
            }
        }
        Ok(())
    }
}

impl Wish {
    fn has_any_port(&self) -> bool {
        self.addresses.iter().all(|address| address.port() == 0)
    }

    fn place(&self, address: SocketAddr) -> Place {
        Place { transport: self.transport, address }
    }

    fn door(&self) -> Door {
        Door { listener: self.listener, shards: self.shards.clone() }
    }

    /// One of its shards, as the turns go round; `None` when it has none.
    fn shard_in_turn(&self, turn: usize) -> Option<usize> {
        self.shards.iter().copied().cycle().nth(turn)
    }
}

/// Takes those addresses out of a wish whose sockets were handed over.
fn take_over(wish: &mut Wish, stock: &mut Stock, moves: &mut Moves) -> Result<()> {
    let id = wish.id.to_string();
    for address in std::mem::take(&mut wish.addresses) {
        let is_it = |(place, group): &(&Place, &Group)| {
            place.transport == wish.transport
                && match address.port() {
                    0 => {
                        let is_its = group.free_port_of.as_ref() == Some(&id);
                        is_its && place.address.ip() == address.ip()
                    }
                    _ => place.address == address,
                }
        };
        let found = stock.iter().find(is_it).map(|(place, _)| *place);
        let Some((place, group)) = found.and_then(|place| stock.remove_entry(&place)) else {
            wish.addresses.push(address);
            continue;
        };
        if address.port() == 0 {
            moves.next.ports.insert(wish.listener, place.address.port());
        }
        moves.deal(wish, place, group)?;
    }
    // Its other addresses get the port that it has.
    if let Some(&port) = moves.next.ports.get(&wish.listener) {
        let free = wish.addresses.iter_mut().filter(|address| address.port() == 0);
        free.for_each(|address| address.set_port(port));
    }
    Ok(())
}

/// An address of a UDP listener.
fn udp_place(address: SocketAddr) -> Place {
    Place { transport: Transport::Udp, address }
}

/// What its sockets speak.
fn transport(listener: &Listener) -> Transport {
    if listener.protocol.is_udp() { Transport::Udp } else { Transport::Tcp }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, RawFd};

    use weir_core::model::{self, Balancer, Config, Handles};

    use super::*;

    /// Two sockets of 127.0.0.1, handed over by shards 0 and 1.
    fn handed_over(transport: Transport, free_port_of: Option<String>) -> (Stock, SocketAddr) {
        handed_over_by(2, transport, free_port_of)
    }

    /// A socket of 127.0.0.1 from each of so many shards.
    fn handed_over_by(
        shards: usize,
        transport: Transport,
        free_port_of: Option<String>,
    ) -> (Stock, SocketAddr) {
        let wanted = Wanted {
            listener: "web".into(),
            transport,
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            shards,
        };
        let group = net::bind_all(&[wanted], 8).unwrap().groups.pop().unwrap();
        let sockets = (0..).zip(group.sockets).collect();
        let place = group.place;
        (Stock::from([(place, Group { free_port_of, sockets })]), place.address)
    }

    fn opened(moves: &mut Moves) -> Vec<usize> {
        moves.listen().unwrap();
        let is_open = |change: &&DoorChange| matches!(change, DoorChange::Open { .. });
        moves.changes.iter().map(|changes| changes.iter().filter(is_open).count()).collect()
    }

    /// The very sockets are used again, by however many shards there are now.
    #[test]
    fn sockets_that_were_handed_over_are_dealt_out() {
        let now = Mono::from_nanos(0);
        for (transport, shards, expected) in [
            (Transport::Tcp, 1, vec![2]),
            (Transport::Tcp, 2, vec![1, 1]),
            (Transport::Tcp, 3, vec![1, 1, 1]),
            (Transport::Udp, 1, vec![2]),
            (Transport::Udp, 3, vec![1, 1, 0]),
        ] {
            let (mut stock, address) = handed_over(transport, None);
            let udp = transport == Transport::Udp;
            let state = state_of(&["127.0.0.1"], address.port(), udp, shards);
            let mut moves = Doors::new(shards, 8).plan(&state, now, &mut stock).unwrap();
            assert_eq!(opened(&mut moves), expected, "{transport:?}, {shards} shards");
            assert!(stock.is_empty());
            // A reload keeps to what there is.
            let doors = moves.accept().0;
            let mut moves = doors.plan(&state, now, &mut Stock::new()).unwrap();
            assert_eq!(opened(&mut moves), vec![0; shards]);
        }
    }

    /// UDP sockets of one shard stay those of one over any number of upgrades: a shard's flows
    /// share upstream sockets, and those by other shards' doors would end.
    #[test]
    fn udp_sockets_of_one_shard_go_to_one_shard() {
        let now = Mono::from_nanos(0);
        let (mut stock, address) = handed_over_by(4, Transport::Udp, None);
        let place = udp_place(address);
        for shards in [&[0, 1][..], &[0, 1], &[0, 1, 2], &[1, 2], &[2], &[0, 1]] {
            let state = state_on(&["127.0.0.1"], address.port(), true, shards);
            let former: Vec<(usize, RawFd)> = stock[&place]
                .sockets
                .iter()
                .map(|(shard, socket)| (*shard, socket.as_raw_fd()))
                .collect();
            let moves = Doors::new(3, 8).plan(&state, now, &mut stock).unwrap();
            let (_, changes) = moves.accept();
            let mut sockets = Vec::new();
            for (shard, changes) in changes.into_iter().enumerate() {
                for change in changes {
                    if let DoorChange::Open { socket, .. } = change {
                        sockets.push((shard, socket));
                    }
                }
            }
            assert_eq!(sockets.len(), 4, "to {shards:?}");
            let mut homes: HashMap<usize, usize> = HashMap::new();
            for (shard, socket) in &sockets {
                assert!(shards.contains(shard));
                let is_it = |(_, fd): &&(usize, RawFd)| *fd == socket.as_raw_fd();
                let was = former.iter().find(is_it).unwrap().0;
                assert_eq!(homes.entry(was).or_insert(*shard), shard, "of {was}, to {shards:?}");
                assert!(*shard == was || !shards.contains(&was), "{was} has it still");
            }
            stock = Stock::from([(place, Group { free_port_of: None, sockets })]);
        }
    }

    /// A socket that joins others gets no client before it is told to, so that a change that is
    /// given up cuts nobody.
    #[test]
    fn sockets_that_join_take_clients_last_of_all() {
        let now = Mono::from_nanos(0);
        let (mut stock, address) = handed_over(Transport::Tcp, None);
        let state = state_of(&["127.0.0.1"], address.port(), false, 3);
        let mut moves = Doors::new(3, 8).plan(&state, now, &mut stock).unwrap();
        assert_eq!(moves.joining.len(), 1);
        let change = |moves: &Moves| moves.changes.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(change(&moves), [1, 1, 0]);
        moves.listen().unwrap();
        assert_eq!(change(&moves), [1, 1, 1]);
    }

    /// A UDP listener keeps its sockets as long as one of them serves it; with other shards
    /// altogether it gets others.
    #[test]
    fn a_udp_listener_moves_to_other_shards() {
        let now = Mono::from_nanos(0);
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let on = |shards: &[usize]| state_on(&["127.0.0.1"], port, true, shards);
        let mut moves = Doors::new(2, 8).plan(&on(&[0]), now, &mut Stock::new()).unwrap();
        assert_eq!(opened(&mut moves), [1, 0]);
        let doors = moves.accept().0;
        let mut moves = doors.plan(&on(&[1]), now, &mut Stock::new()).unwrap();
        assert_eq!(opened(&mut moves), [0, 1]);
        assert!(moves.changes[0].iter().any(|c| matches!(c, DoorChange::Close { .. })));
        let doors = moves.accept().0;
        let mut moves = doors.plan(&on(&[0, 1]), now, &mut Stock::new()).unwrap();
        assert_eq!(opened(&mut moves), [0, 0]);
        assert!(moves.warnings[0].contains("on 1 of 2 shards"), "{:?}", moves.warnings);
    }

    /// A free port is known by its listener; its other addresses get the same one.
    #[test]
    fn a_free_port_stays_the_same() {
        let state = state(&["127.0.0.1", "127.0.0.2"], 0);
        let id = state.listeners().next().unwrap().1.id.to_string();
        let (mut stock, address) = handed_over(Transport::Tcp, Some(id));
        let moves = Doors::new(1, 8).plan(&state, Mono::from_nanos(0), &mut stock).unwrap();
        let open: Vec<SocketAddr> = moves.next.places().map(|place| place.address).collect();
        assert_eq!(open, [address, SocketAddr::from(([127, 0, 0, 2], address.port()))]);
        let (mut stock, _) = handed_over(Transport::Tcp, Some("another".into()));
        Doors::new(1, 8).plan(&state, Mono::from_nanos(0), &mut stock).unwrap();
        assert_eq!(stock.len(), 1, "it belongs to another listener");
    }

    fn state(addresses: &[&str], port: u16) -> State {
        state_of(addresses, port, false, 1)
    }

    fn state_of(addresses: &[&str], port: u16, udp: bool, shards: usize) -> State {
        state_on(addresses, port, udp, &(0..shards).collect::<Vec<_>>())
    }

    fn state_on(addresses: &[&str], port: u16, udp: bool, shards: &[usize]) -> State {
        let vip_address = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let protocol = if udp { model::Protocol::Udp } else { model::Protocol::Http };
        let listener =
            model::Listener { protocol, protocol_port: port, ..model::Listener::default() };
        let config = Config {
            balancers: vec![Balancer { vip_address, ..Balancer::default() }],
            listeners: vec![listener],
            ..Config::default()
        };
        let of = |_| shards.to_vec();
        State::default().next(&config, &of, &mut Handles::default())
    }

    /// A host may have got IPv6 since the start; and who wants nothing but an IPv6 address must
    /// hear why it can't be had.
    #[test]
    fn an_address_that_was_left_out_is_asked_for_when_it_stands_alone() {
        let free = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
        let absent = Doors { absent: [free].into(), ..Doors::new(1, 8) };
        let now = Mono::from_nanos(0);
        let moves = absent.plan(&state(&["::1"], free.port()), now, &mut Stock::new()).unwrap();
        let open = moves.next.open.keys().map(|place| place.address);
        assert_eq!(open.collect::<Vec<_>>(), [free]);
    }
}
