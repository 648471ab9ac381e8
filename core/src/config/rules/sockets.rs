//! No two listening sockets, the admin's included, may overlap: the kernel would either refuse the
//! second or spread connections over both.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::listeners::Resolved;
use crate::config::problem::{Findings, Span, quoted};
use crate::config::read::Document;
use crate::model::{Balancer, Protocol};

/// Ports of one address that somebody binds.
struct Socket {
    address: IpAddr,
    first: u16,
    last: u16,
    /// 0 is the admin listener, n + 1 the listener n.
    owner: usize,
}

/// The socket among those seen so far whose ports reach farthest.
#[derive(Clone, Copy)]
struct Reach {
    last: u16,
    owner: usize,
    address: IpAddr,
}

/// What is bound so far, in the order of first ports.
#[derive(Default)]
struct Taken {
    by_address: HashMap<IpAddr, Reach>,
    /// On any address, and on the address that stands for all.
    any: Option<Reach>,
    all: Option<Reach>,
}

impl Taken {
    /// Takes the ports; returns who has one of them already, and on which address. Every address
    /// of a family is contained in its unspecified one.
    fn take(&mut self, socket: &Socket) -> Option<(usize, IpAddr)> {
        let unspecified = socket.address.is_unspecified();
        let on_address = self.by_address.get(&socket.address).copied();
        let rivals = match unspecified {
            true => [self.any, None],
            false => [on_address, self.all],
        };
        let rival = rivals.into_iter().flatten().find(|reach| reach.last >= socket.first);
        let Socket { address, last, owner, .. } = *socket;
        let mine = Reach { last, owner, address };
        let farther = |old: Option<Reach>| match old {
            Some(old) if old.last >= mine.last => old,
            _ => mine,
        };
        self.by_address.insert(socket.address, farther(on_address));
        self.any = Some(farther(self.any));
        if unspecified {
            self.all = Some(farther(self.all));
        }
        rival.filter(|reach| reach.owner != owner).map(|reach| (reach.owner, reach.address))
    }
}

/// Reports each listener that binds what an earlier one, or the admin listener, binds.
pub(super) fn check(
    document: &Document<'_, '_>,
    listeners: &[Resolved],
    balancers: &[Balancer],
    findings: &mut Findings,
) {
    let mut sockets = collect(document, listeners, balancers);
    let mut clashes: HashMap<usize, (SocketAddr, usize, SocketAddr)> = HashMap::new();
    for list in &mut sockets {
        list.sort_by_key(|socket| (socket.first, socket.owner));
        let mut families: [Taken; 2] = Default::default();
        for socket in list.iter() {
            let Some(taken) = families.get_mut(usize::from(socket.address.is_ipv6())) else {
                continue;
            };
            let Some((rival, address)) = taken.take(socket) else { continue };
            // They come by their first ports, so this one is a port of both.
            let ours = (socket.owner, SocketAddr::new(socket.address, socket.first));
            let theirs = (rival, SocketAddr::new(address, socket.first));
            let (earlier, later) =
                if rival < socket.owner { (theirs, ours) } else { (ours, theirs) };
            clashes.entry(later.0).or_insert((later.1, earlier.0, earlier.1));
        }
    }
    for (later, (wanted, earlier, held)) in clashes {
        let Some((span, path)) = place_of(document, later) else { continue };
        let other = place_of(document, earlier).map_or(span, |(span, _)| span);
        let holder = match earlier.checked_sub(1).and_then(|index| document.listeners.get(index)) {
            Some(text) => format!("listener {}", quoted(text.head.name())),
            None => "the admin listener".to_owned(),
        };
        let what = match wanted == held {
            true => format!("{wanted} is bound by {holder} already"),
            false => format!("{wanted} overlaps {held}, which {holder} binds"),
        };
        findings
            .error(span, path, what)
            .row("R2.1-1")
            .related(other, "bound here")
            .help("give one of them another port, or its balancer another vip_address");
    }
}

/// The sockets of TCP and those of UDP.
fn collect(
    document: &Document<'_, '_>,
    listeners: &[Resolved],
    balancers: &[Balancer],
) -> [Vec<Socket>; 2] {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    if let Some(listen) = document.admin.as_ref().map(|listen| listen.value)
        && listen.port() != 0
    {
        let port = listen.port();
        tcp.push(Socket { address: listen.ip(), first: port, last: port, owner: 0 });
    }
    for (index, (text, listener)) in document.listeners.iter().zip(listeners).enumerate() {
        let Some(balancer) = listener.balancer.and_then(|index| balancers.get(index)) else {
            continue;
        };
        if !text.port_known {
            continue; // wrong, and reported
        }
        let port = listener.object.protocol_port;
        let mut ranges: Vec<(u16, u16)> =
            listener.object.port_ranges.iter().map(|range| (range.first, range.last)).collect();
        if ranges.is_empty() && port != 0 {
            ranges.push((port, port)); // 0 is a free port, which can't be taken
        }
        let list = if text.protocol == Some(Protocol::Udp) { &mut udp } else { &mut tcp };
        for address in &balancer.vip_address {
            let socket =
                |&(first, last)| Socket { address: *address, first, last, owner: index + 1 };
            list.extend(ranges.iter().map(socket));
        }
    }
    [tcp, udp]
}

/// Where an owner says its ports.
fn place_of(document: &Document<'_, '_>, owner: usize) -> Option<(Span, String)> {
    let Some(index) = owner.checked_sub(1) else {
        return document.admin.as_ref().map(|listen| (listen.span, "admin.listen".to_owned()));
    };
    let table = &document.listeners.get(index)?.head.table;
    let key = if table.has("port_ranges") { "port_ranges" } else { "protocol_port" };
    Some((table.span_of(key), table.at(key)))
}
