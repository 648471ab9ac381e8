//! Binding listening sockets, one a shard and address, without joining anybody by accident.
//!
//! Two sockets with SO_REUSEPORT share a port silently, also across processes. So the first socket
//! of each address binds *and listens* without it, which the kernel grants to one socket only;
//! then it gets the option and the sockets of the other shards join it. All addresses are bound
//! before any listens, so that a busy port is found before a client could connect to another one.
//! Owns no policy on what to bind; the server calls it at its start and at reloads.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::owner::{self, Owner};

/// What is spoken over a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Streams. The sockets listen, and hand TCP_NODELAY on to what they accept.
    Tcp,
    /// Datagrams. A bound socket has its part of them from the first moment.
    Udp,
}

/// What a listening socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// What it speaks: the same port of both is two places.
    pub transport: Transport,
    /// Its address.
    pub address: SocketAddr,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => self.address.fmt(f),
            Transport::Udp => write!(f, "{} (UDP)", self.address),
        }
    }
}

/// Tries to find one port that is free on all addresses of a listener with port 0.
const PORT_TRIES: usize = 16;

/// A listener's wish. Addresses with port 0 all get the same one, which is free on all of them.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The listener's name, for messages.
    pub listener: String,
    /// What is spoken there.
    pub transport: Transport,
    /// What to bind; never empty.
    pub addresses: Vec<SocketAddr>,
    /// Sockets on each of them, one a shard; at least one.
    pub shards: usize,
}

/// The listening sockets of one address, one a shard, in shard order.
#[derive(Debug)]
pub struct Group {
    /// Index into the list of [`Wanted`].
    pub wanted: usize,
    /// What they are bound to, with its real port.
    pub place: Place,
    /// Blocking, close-on-exec, ready for clients.
    pub sockets: Vec<OwnedFd>,
}

/// What [`bind_all`] made.
#[derive(Debug)]
pub struct Bound {
    /// In the order of each wish's addresses.
    pub groups: Vec<Group>,
    /// Addresses left out, each with its reason.
    pub warnings: Vec<String>,
}

/// Sockets that are to serve beside others of this process, and take no client yet.
#[derive(Debug)]
pub struct Joining {
    /// The listener's name, for messages.
    pub listener: String,
    /// What they are bound to.
    pub place: Place,
    sockets: Vec<Socket>,
}

/// An address that could not be bound; `Display` names listener, address, cause and cure.
#[derive(Debug)]
pub struct BindError {
    /// The listener's name.
    pub listener: String,
    /// What was refused.
    pub place: Place,
    /// The kernel's answer.
    pub source: io::Error,
    /// Who holds the port, where that could be found out.
    pub owner: Option<Owner>,
}

/// Binds and listens on every address of `wanted`. Free ports are taken last, so that none of them
/// is one that another wish names.
///
/// # Errors
/// The first address that cannot be had; every socket made so far is closed again.
pub fn bind_all(wanted: &[Wanted], backlog: u32) -> Result<Bound, BindError> {
    let mut warnings = Vec::new();
    let mut reserved = Vec::new();
    let (free, named): (Vec<_>, Vec<_>) =
        wanted.iter().enumerate().partition(|(_, wish)| wish.any_port());
    for (index, wish) in named.into_iter().chain(free) {
        for (place, socket) in reserve_wish(wish, &mut warnings)? {
            reserved.push((index, wish, place, socket));
        }
    }
    let mut groups = Vec::new();
    for (index, wish, place, socket) in reserved {
        let sockets = open_group(place, socket, wish.shards, backlog)
            .map_err(|e| error(&wish.listener, place, e))?;
        groups.push(Group { wanted: index, place, sockets });
    }
    Ok(Bound { groups, warnings })
}

/// Binds `shards` sockets to an address that this process holds already, or holds in part (0.0.0.0
/// and one address of it). The kernel gives them connections only when they listen: until then they
/// can be dropped without cutting anybody. UDP sockets are bound only then: that alone moves
/// clients.
///
/// # Errors
/// As [`bind_all`].
pub fn bind_join(listener: &str, place: Place, shards: usize) -> Result<Joining, BindError> {
    let make = |_| match place.transport {
        Transport::Tcp => join(place),
        Transport::Udp => new_member(place),
    };
    let sockets = (0..shards).map(make).collect::<io::Result<_>>();
    let sockets = sockets.map_err(|e| error(listener, place, e))?;
    Ok(Joining { listener: listener.to_owned(), place, sockets })
}

impl Joining {
    /// Has all of them take clients.
    ///
    /// # Errors
    /// The kernel is out of memory.
    pub fn listen(self, backlog: u32) -> Result<Vec<OwnedFd>, BindError> {
        let Joining { listener, place, sockets } = self;
        let listen = |socket: Socket| {
            let done = match place.transport {
                Transport::Tcp => socket.listen(backlog_arg(backlog)),
                Transport::Udp => socket.bind(&SockAddr::from(place.address)),
            };
            done.map_err(|e| error(&listener, place, e))?;
            Ok(socket.into())
        };
        sockets.into_iter().map(listen).collect()
    }
}

/// Would this host let `listener` have `place`, were its port free? Asks whether the address is
/// this host's and, for a port that needs a right, whether this process has it. Who holds the port
/// is not asked, and nothing listens or takes a datagram meanwhile.
///
/// # Errors
/// It would not. A host that has no descriptor or memory left just now says nothing about that.
pub fn could_bind(listener: &str, place: Place) -> Result<(), BindError> {
    // The right is the same for TCP and UDP; a UDP socket would take datagrams.
    let ask = |port| {
        let address = SocketAddr::new(place.address.ip(), port);
        reserve(Place { transport: Transport::Tcp, address }).map(drop)
    };
    let port = place.address.port();
    let needs_right = port != 0 && first_free_port().is_some_and(|first| port < first);
    let asked = ask(0).and_then(|()| if needs_right { ask(port) } else { Ok(()) });
    asked.or_else(|e| match e.raw_os_error() {
        Some(libc::EADDRINUSE | libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            Ok(())
        }
        _ => Err(BindError { listener: listener.to_owned(), place, source: e, owner: None }),
    })
}

/// Binds and listens on one address for one thread, never shared (the admin listener).
///
/// # Errors
/// As [`bind_all`].
pub fn bind_exclusive(
    listener: &str,
    addr: SocketAddr,
    backlog: u32,
) -> Result<(SocketAddr, std::net::TcpListener), BindError> {
    let place = Place { transport: Transport::Tcp, address: addr };
    let open = || {
        let (place, socket) = reserve(place)?;
        socket.listen(backlog_arg(backlog))?;
        Ok((place.address, socket.into()))
    };
    open().map_err(|e| error(listener, place, e))
}

/// One bound, not yet listening socket for each address of a wish.
fn reserve_wish(
    wish: &Wanted,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Place, Socket)>, BindError> {
    let mut tries = 1;
    loop {
        match reserve_once(wish, warnings) {
            // The port that the first address was given is taken on another one: take a new port.
            Err(e) if in_use(&e.source) && wish.any_port() && tries < PORT_TRIES => tries += 1,
            other => return other,
        }
    }
}

fn reserve_once(
    wish: &Wanted,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Place, Socket)>, BindError> {
    let mut made: Vec<(Place, Socket)> = Vec::new();
    for &addr in &wish.addresses {
        let port = match (addr.port(), made.first()) {
            (0, Some((first, _))) => first.address.port(),
            (port, _) => port,
        };
        let addr = SocketAddr::new(addr.ip(), port);
        let place = Place { transport: wish.transport, address: addr };
        match reserve(place) {
            Ok(socket) => made.push(socket),
            Err(e) if wish.may_skip(addr, &e) => warnings.push(format!(
                "listener `{}`: this host has no IPv6, so [::]:{port} is left out; \
                 to silence this, take `::` out of vip_address",
                wish.listener
            )),
            Err(e) => return Err(error(&wish.listener, place, e)),
        }
    }
    Ok(made)
}

impl Wanted {
    fn any_port(&self) -> bool {
        self.addresses.first().is_some_and(|a| a.port() == 0)
    }

    /// `::` beside 0.0.0.0 is the default "everywhere" and may be missing on a host without IPv6.
    fn may_skip(&self, addr: SocketAddr, error: &io::Error) -> bool {
        let any = |v6: bool| move |a: &SocketAddr| a.ip().is_unspecified() && a.is_ipv6() == v6;
        error.raw_os_error() == Some(libc::EAFNOSUPPORT)
            && any(true)(&addr)
            && self.addresses.iter().any(any(false))
    }
}

/// Binds without SO_REUSEPORT: fails while anybody listens there.
fn reserve(place: Place) -> io::Result<(Place, Socket)> {
    let socket = new_socket(place)?;
    socket.bind(&SockAddr::from(place.address))?;
    let address = socket.local_addr()?.as_socket().unwrap_or(place.address);
    Ok((Place { address, ..place }, socket))
}

/// Listens exclusively with `first`, then lets the sockets of the other shards join.
fn open_group(
    place: Place,
    first: Socket,
    shards: usize,
    backlog: u32,
) -> io::Result<Vec<OwnedFd>> {
    let backlog = backlog_arg(backlog);
    let listens = place.transport == Transport::Tcp;
    if listens {
        first.listen(backlog)?;
    }
    // Also on a single socket: another shard may join at a reload.
    first.set_reuse_port(true)?;
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..shards {
        let socket = join(place)?;
        if listens {
            socket.listen(backlog)?;
        }
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn join(place: Place) -> io::Result<Socket> {
    let socket = new_member(place)?;
    socket.bind(&SockAddr::from(place.address))?;
    Ok(socket)
}

/// A socket that may be bound beside others.
fn new_member(place: Place) -> io::Result<Socket> {
    let socket = new_socket(place)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

/// TCP: SO_REUSEADDR is set, or connections of an earlier run that linger in TIME_WAIT would keep
/// the port busy for a minute. On a UDP socket it would let anybody who sets it take our datagrams.
fn new_socket(place: Place) -> io::Result<Socket> {
    let domain = Domain::for_address(place.address);
    let socket = match place.transport {
        Transport::Tcp => {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_tcp_nodelay(true)?;
            socket
        }
        Transport::Udp => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
    };
    if place.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn backlog_arg(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

fn in_use(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::AddrInUse
}

fn error(listener: &str, place: Place, source: io::Error) -> BindError {
    let owner = if in_use(&source) { owner::of(place) } else { None };
    BindError { listener: listener.to_owned(), place, source, owner }
}

impl std::error::Error for BindError {}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { listener, place, source, owner } = self;
        let addr = place.address;
        write!(f, "listener `{listener}`: cannot listen on {place}: ")?;
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => in_use_text(f, *place, owner.as_ref()),
            Some(libc::EACCES | libc::EPERM) => denied_text(f, addr.port()),
            Some(libc::EADDRNOTAVAIL) => write!(
                f,
                "no interface of this host has the address {}. Correct vip_address, or add the \
                 address (ip address add), or, where another host may hold it at the moment \
                 (keepalived), set {}",
                addr.ip(),
                nonlocal_sysctl(addr.ip())
            ),
            Some(libc::EAFNOSUPPORT) => write!(
                f,
                "this host has no IPv6. Take the address out of vip_address, or enable IPv6 \
                 (remove ipv6.disable=1 from the kernel's command line)"
            ),
            Some(libc::EMFILE | libc::ENFILE) => write!(
                f,
                "no descriptor is left. Raise the limit (LimitNOFILE= in the systemd unit, \
                 ulimit -n, fs.file-max)"
            ),
            _ => write!(f, "{source}"),
        }
    }
}

fn in_use_text(f: &mut fmt::Formatter<'_>, place: Place, owner: Option<&Owner>) -> fmt::Result {
    let port = place.address.port();
    let kind = match place.transport {
        Transport::Tcp => 't',
        Transport::Udp => 'u',
    };
    match owner {
        Some(o) if o.pid == std::process::id() => write!(
            f,
            "another listener of this configuration already holds port {port} on the same \
             address. Give one of them another protocol_port or vip_address"
        ),
        Some(o) => {
            write!(f, "port {port} is in use by {o}. Stop that process, or choose another port")
        }
        None => write!(
            f,
            "port {port} is in use by a process that could not be found out. \
             See who it is (as root: ss -l{kind}np 'sport = :{port}'), stop it, or choose another \
             port"
        ),
    }
}

fn denied_text(f: &mut fmt::Formatter<'_>, port: u16) -> fmt::Result {
    match first_free_port() {
        Some(start) if port < start => write!(
            f,
            "ports below {start} need the capability CAP_NET_BIND_SERVICE, which this process \
             lacks. Grant it (AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or \
             setcap cap_net_bind_service=+ep on the program), or lower \
             net.ipv4.ip_unprivileged_port_start to {port}"
        ),
        _ => write!(
            f,
            "permission denied. A security module (SELinux, AppArmor, seccomp) forbids it; \
             its log says which rule"
        ),
    }
}

/// The first port that needs no right; `None` where the kernel doesn't say.
fn first_free_port() -> Option<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    text.trim().parse().ok()
}

fn nonlocal_sysctl(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "net.ipv4.ip_nonlocal_bind=1" } else { "net.ipv6.ip_nonlocal_bind=1" }
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
