//! Turns a spanned document into the validated model.
//!
//! Owns every rule that needs more than one value: names, references, ids, addresses used twice,
//! members named twice; and the warnings. `config::parse` calls it once and keeps the model only
//! if nothing was reported, so the stand-ins for wrong values never leave this module.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::document::{
    BalancerText, Document, Head, ListenerText, MemberText, PoolText, RuntimeText,
};
use super::problem::{Findings, quoted};
use super::suggest::nearest;
use crate::model::{
    Admin, Balancer, Config, CoreChoice, DEFAULT_BALANCER, Flavor, Id, Listener, Member, Pool,
    Runtime, derive_id,
};

/// Checks the document as a whole and builds the model. The result is meaningless if `findings`
/// has errors.
pub(super) fn resolve(document: Document, findings: &mut Findings) -> Config {
    let explicit_balancers = !document.balancers.is_empty();
    let names = Names {
        balancers: names_of(document.balancers.iter().map(|text| &text.head), findings),
        pools: names_of(document.pools.iter().map(|text| &text.head), findings),
        explicit_balancers,
    };
    names_of(document.listeners.iter().map(|text| &text.head), findings);
    let balancers = match explicit_balancers {
        true => document.balancers.iter().map(|text| balancer(text, findings)).collect(),
        false => vec![Balancer::default()],
    };
    let listeners: Vec<_> = document
        .listeners
        .iter()
        .map(|text| listener(text, &names, &balancers, findings))
        .collect();
    let pools: Vec<_> = document.pools.iter().map(|text| pool(text, findings)).collect();

    check_ids(&document, findings);
    check_sockets(&document, &listeners, &balancers, findings);
    warn_idle(&document, &listeners, findings);
    let admin = document.admin.map(|listen| Admin { listen: listen.into_inner() });
    let runtime = runtime(document.runtime);
    Config { runtime, admin, balancers, listeners, pools, ..Config::default() }
}

/// Who is called what, for references. The values are indices into the lists of the model.
struct Names {
    balancers: HashMap<String, usize>,
    pools: HashMap<String, usize>,
    explicit_balancers: bool,
}

/// Indexes objects of one kind by name and reports names that stand twice.
fn names_of<'a>(
    heads: impl Iterator<Item = &'a Head>,
    findings: &mut Findings,
) -> HashMap<String, usize> {
    let mut first: HashMap<&str, (usize, &'a Spanned<String>)> = HashMap::new();
    for (index, head) in heads.enumerate() {
        let Some(name) = &head.name else { continue };
        if let Some((_, other)) = first.get(name.get_ref().as_str()) {
            let what = format!("{} is the name of an earlier one", quoted(name.get_ref()));
            findings
                .error(name.span(), format!("{}.name", head.path), what)
                .related(other.span(), "the earlier one")
                .help("give each its own name");
        } else {
            first.insert(name.get_ref(), (index, name));
        }
    }
    first.into_iter().map(|(name, (index, _))| (name.to_owned(), index)).collect()
}

fn runtime(text: RuntimeText) -> Runtime {
    Runtime {
        cores: text.cores.unwrap_or(CoreChoice::Auto),
        backlog: text.backlog.and_then(|backlog| u32::try_from(backlog).ok()).unwrap_or(0),
        shutdown_timeout: Duration::from_secs(text.shutdown_timeout.unwrap_or(0)),
        run_dir: text.run_dir.unwrap_or_else(|| PathBuf::from(super::DEFAULT_RUN_DIR)),
        ..Runtime::default()
    }
}

/// Every address of the host; a shared balancer has IPv4 alone (R3.17-1).
fn every_address(flavor: Flavor) -> Vec<IpAddr> {
    let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    match flavor {
        Flavor::Shared => vec![v4],
        Flavor::Dedicated => vec![v4, IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    }
}

fn balancer(text: &BalancerText, findings: &mut Findings) -> Balancer {
    let flavor = text.flavor.as_ref().map_or(Flavor::Dedicated, |flavor| *flavor.get_ref());
    let mut seen: HashMap<IpAddr, Range<usize>> = HashMap::new();
    for vip in text.vip_address.iter().flatten() {
        let path = format!("{}.vip_address", text.head.path);
        let address = *vip.get_ref();
        if flavor == Flavor::Shared && address.is_ipv6() {
            let what = format!("\"{address}\" is an IPv6 address on a shared balancer");
            findings
                .error(vip.span(), path.clone(), what)
                .row("R3.17-1")
                .help("take it out, or make the balancer dedicated");
        }
        if let Some(earlier) = seen.insert(address, vip.span()) {
            findings
                .error(vip.span(), path, format!("\"{address}\" stands here twice"))
                .related(earlier, "the first one")
                .help("name each address once");
        }
    }
    let addresses = text.vip_address.as_ref();
    let name = name_of(&text.head);
    Balancer {
        id: id_of(&text.head, "loadbalancer", "", &name),
        vip_address: addresses.map_or_else(
            || every_address(flavor),
            |list| list.iter().map(|vip| *vip.get_ref()).collect(),
        ),
        name,
        flavor,
        ..Balancer::default()
    }
}

fn listener(
    text: &ListenerText,
    names: &Names,
    balancers: &[Balancer],
    findings: &mut Findings,
) -> Listener {
    let balancer = balancer_of(text, names, findings);
    let default_pool = pool_of(text, names, findings);
    let name = name_of(&text.head);
    let balancer_name = balancers.get(balancer).map_or("", |balancer| &balancer.name);
    let seconds = |value: &Option<Spanned<u64>>| {
        Duration::from_secs(value.as_ref().map_or(0, |value| *value.get_ref()))
    };
    Listener {
        id: id_of(&text.head, "listener", balancer_name, &name),
        name,
        balancer,
        protocol_port: port_of(&text.protocol_port),
        default_pool,
        keepalive_timeout: seconds(&text.keepalive_timeout),
        client_timeout: seconds(&text.client_timeout),
        member_timeout: seconds(&text.member_timeout),
        connect_timeout: seconds(&text.connect_timeout),
        ..Listener::default()
    }
}

/// The index of a listener's balancer. Without any `[[loadbalancer]]` it may be left out, or say
/// "default".
fn balancer_of(text: &ListenerText, names: &Names, findings: &mut Findings) -> usize {
    let path = format!("{}.loadbalancer", text.head.path);
    let Some(wanted) = &text.loadbalancer else {
        if names.explicit_balancers && !text.names_balancer {
            findings
                .error(text.head.span.clone(), path, "is missing")
                .help(format!("add `loadbalancer = …`: {}", known(&names.balancers)));
        }
        return 0;
    };
    if !names.explicit_balancers && wanted.get_ref() == DEFAULT_BALANCER {
        return 0;
    }
    reference("loadbalancer", wanted, path, &names.balancers, findings).unwrap_or(0)
}

fn pool_of(text: &ListenerText, names: &Names, findings: &mut Findings) -> Option<usize> {
    let path = format!("{}.default_pool", text.head.path);
    let Some(wanted) = &text.default_pool else {
        if !text.names_pool {
            findings
                .warning(text.head.span.clone(), path, "no pool: requests are answered with 404")
                .row("R2.3-404");
        }
        return None;
    };
    reference("pool", wanted, path, &names.pools, findings)
}

fn reference(
    kind: &str,
    wanted: &Spanned<String>,
    path: String,
    names: &HashMap<String, usize>,
    findings: &mut Findings,
) -> Option<usize> {
    if let Some(index) = names.get(wanted.get_ref()) {
        return Some(*index);
    }
    let near = nearest(wanted.get_ref(), names.keys().map(String::as_str));
    let help = near.map_or_else(|| known(names), |near| format!("did you mean {}?", quoted(near)));
    let what = format!("no [[{kind}]] is named {}", quoted(wanted.get_ref()));
    findings.error(wanted.span(), path, what).help(help);
    None
}

/// The names that a reference may take, as many as a line bears.
fn known(names: &HashMap<String, usize>) -> String {
    const SHOWN: usize = 5;
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort_by_key(|(_, index)| **index);
    let list: Vec<_> = sorted.iter().take(SHOWN).map(|(name, _)| quoted(name)).collect();
    match (list.is_empty(), names.len() > SHOWN) {
        (true, _) => "the file defines none".to_owned(),
        (false, false) => format!("the file has {}", list.join(", ")),
        (false, true) => format!("the file has {}, …", list.join(", ")),
    }
}

fn pool(text: &PoolText, findings: &mut Findings) -> Pool {
    names_of(text.members.iter().map(|member| &member.head), findings);
    let name = name_of(&text.head);
    let mut seen: HashMap<SocketAddr, Range<usize>> = HashMap::new();
    for member in &text.members {
        let (Some(address), Some(_)) = (&member.address, &member.protocol_port) else { continue };
        let socket = SocketAddr::new(*address.get_ref(), port_of(&member.protocol_port));
        if let Some(earlier) = seen.get(&socket) {
            findings
                .error(address.span(), format!("{}.address", member.head.path), {
                    format!("{socket} is a member of this pool already")
                })
                .related(earlier.clone(), "the earlier one")
                .help("take one out; for a larger share give the other a larger weight");
        } else {
            seen.insert(socket, address.span());
        }
    }
    warn_members(text, findings);
    Pool {
        id: id_of(&text.head, "pool", "", &name),
        members: text.members.iter().map(|member| member_of(member, &name)).collect(),
        name,
        ..Pool::default()
    }
}

fn member_of(text: &MemberText, pool: &str) -> Member {
    let ip = text.address.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ip| *ip.get_ref());
    let address = SocketAddr::new(ip, port_of(&text.protocol_port));
    let name = match &text.head.name {
        Some(name) => name.get_ref().clone(),
        None => address.to_string(),
    };
    let weight = text.weight.as_ref().and_then(|weight| u8::try_from(*weight.get_ref()).ok());
    Member {
        id: id_of(&text.head, "member", "", &format!("{pool}\n{name}")),
        name,
        address,
        weight: weight.unwrap_or(1),
    }
}

fn warn_members(text: &PoolText, findings: &mut Findings) {
    let head = &text.head;
    let is_zero = |weight: &Spanned<u64>| *weight.get_ref() == 0;
    let zero = || text.members.iter().filter(|member| member.weight.as_ref().is_some_and(is_zero));
    if text.members.is_empty() {
        findings
            .warning(head.span.clone(), format!("{}.members", head.path), {
                "no member: requests are answered with 502"
            })
            .row("C18");
    } else if zero().count() == text.members.len() {
        findings
            .warning(head.span.clone(), format!("{}.members", head.path), {
                "every weight is 0: no member gets traffic, requests are answered with 503"
            })
            .row("C18");
    }
    for member in zero() {
        let span = member.weight.as_ref().map_or(member.head.span.clone(), Spanned::span);
        findings
            .warning(span, format!("{}.weight", member.head.path), {
                "weight 0: the member gets no traffic"
            })
            .row("R2.1-4");
    }
}

/// Ids that the file gives must differ from each other.
fn check_ids(document: &Document, findings: &mut Findings) {
    let balancers = document.balancers.iter().map(|text| &text.head);
    let listeners = document.listeners.iter().map(|text| &text.head);
    let pools = document.pools.iter().map(|text| &text.head);
    let members = document.pools.iter().flat_map(|pool| &pool.members).map(|text| &text.head);
    let mut seen: HashMap<Id, Range<usize>> = HashMap::new();
    for head in balancers.chain(listeners).chain(pools).chain(members) {
        let Some(id) = &head.id else { continue };
        if let Some(earlier) = seen.get(id.get_ref()) {
            findings
                .error(id.span(), format!("{}.id", head.path), format!("{id} is used twice"))
                .related(earlier.clone(), "the other one")
                .help("give each object an id of its own, or leave it out");
        } else {
            seen.insert(*id.get_ref(), id.span());
        }
    }
}

/// Addresses taken on one port.
#[derive(Default)]
struct Taken {
    by_address: HashMap<IpAddr, Range<usize>>,
    v4: Option<Range<usize>>,
    v6: Option<Range<usize>>,
}

impl Taken {
    /// Takes the address; if it, or one that contains it or that it contains, was taken before,
    /// returns where. Every address of a family is contained in its unspecified one.
    fn take(&mut self, address: IpAddr, span: &Range<usize>) -> Option<Range<usize>> {
        let unspecified = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let any = if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let earlier = match address.is_unspecified() {
            true => any.clone(),
            false => self.by_address.get(&address).or(self.by_address.get(&unspecified)).cloned(),
        };
        any.get_or_insert_with(|| span.clone());
        self.by_address.entry(address).or_insert_with(|| span.clone());
        earlier
    }
}

/// No two listening sockets, the admin's included, may overlap: the kernel would either refuse the
/// second or spread connections over both.
fn check_sockets(
    document: &Document,
    listeners: &[Listener],
    balancers: &[Balancer],
    findings: &mut Findings,
) {
    let mut ports: HashMap<u16, Taken> = HashMap::new();
    if let Some(listen) = document.admin.as_ref().filter(|listen| listen.get_ref().port() != 0) {
        let taken = ports.entry(listen.get_ref().port()).or_default();
        taken.take(listen.get_ref().ip(), &listen.span());
    }
    for (text, listener) in document.listeners.iter().zip(listeners) {
        let Some(port) = text.protocol_port.as_ref().filter(|port| *port.get_ref() != 0) else {
            continue; // 0 is a free port, which can't be taken
        };
        let taken = ports.entry(listener.protocol_port).or_default();
        let addresses = balancers.get(listener.balancer).map(|balancer| &balancer.vip_address);
        for address in addresses.into_iter().flatten() {
            let Some(earlier) = taken.take(*address, &port.span()) else { continue };
            let socket = SocketAddr::new(*address, listener.protocol_port);
            findings
                .error(port.span(), format!("{}.protocol_port", text.head.path), {
                    format!("{socket} is bound by another listener already")
                })
                .row("R2.1-1")
                .related(earlier, "bound here")
                .help("give one of them another port, or its balancer another vip_address");
            break; // one report a listener, however many addresses its balancer has
        }
    }
}

/// Warns of objects that nothing uses.
fn warn_idle(document: &Document, listeners: &[Listener], findings: &mut Findings) {
    if listeners.is_empty() {
        findings.warning(0..0, "listener", "the file has no [[listener]]: nothing is served");
    }
    let pools: HashSet<usize> = listeners.iter().filter_map(|text| text.default_pool).collect();
    for (index, pool) in document.pools.iter().enumerate() {
        if !pools.contains(&index) {
            findings.warning(pool.head.span.clone(), pool.head.path.clone(), {
                "no listener uses this pool"
            });
        }
    }
    let balancers: HashSet<usize> = listeners.iter().map(|text| text.balancer).collect();
    for (index, balancer) in document.balancers.iter().enumerate() {
        if !balancers.contains(&index) {
            findings.warning(balancer.head.span.clone(), balancer.head.path.clone(), {
                "no listener belongs to this balancer"
            });
        }
    }
}

fn name_of(head: &Head) -> String {
    head.name.as_ref().map(|name| name.get_ref().clone()).unwrap_or_default()
}

fn id_of(head: &Head, kind: &str, balancer: &str, name: &str) -> Id {
    head.id.as_ref().map_or_else(|| derive_id(kind, balancer, name), |id| *id.get_ref())
}

fn port_of(port: &Option<Spanned<u64>>) -> u16 {
    port.as_ref().and_then(|port| u16::try_from(*port.get_ref()).ok()).unwrap_or(0)
}
