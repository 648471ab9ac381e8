//! Are the source addresses that a file names this host's, and do they have ports enough? Owns the
//! questions and the words about those that are not; asked at the start, by a reload and by
//! `weir check`.

use std::io;
use std::net::{IpAddr, UdpSocket};

use weir_core::control::{Listener, Pool, State};
use weir_core::model::{Config, Handle};
use weir_core::net::source;

use crate::here::{Trouble, Unfit};

/// The ports that the kernel gives to connections of ours: first and last.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Looks whether sockets can be bound to every source address.
///
/// # Errors
/// Those that can't, each with the key that names it, the cause and the cure (R7.4-1).
pub fn check_sources(config: &Config) -> Result<(), Unfit> {
    let key = "source_addresses";
    let of_runtime = format!("runtime.{key}");
    let runtime = config.runtime.source_addresses.iter().map(|ip| (*ip, of_runtime.clone()));
    let balancers = config.balancers.iter().enumerate().flat_map(|(index, balancer)| {
        let addresses = balancer.source_addresses.iter();
        addresses.map(move |ip| (*ip, format!("loadbalancer[{index}].{key}")))
    });
    let refused = |(ip, key): (IpAddr, String)| {
        let error = UdpSocket::bind((ip, 0)).err().filter(is_about_it)?;
        let what = format!("connections to members can't come from {ip}: {error}");
        let cure = "give this host the address (ip address add), or take it out of the list";
        Some(Trouble::new(key, what, cure))
    };
    Unfit::none_of(runtime.chain(balancers).filter_map(refused).collect())
}

/// A warning for each pool of `state` to whose members this host can't open as many connections at
/// a time as `most`, the `[runtime] max_connections` of its file, lets clients have, for want of
/// ports (R7.15-1). None where `most` is 0: the file sets no such limit.
pub fn scarce_ports(state: &State, most: u64) -> Vec<String> {
    let range = std::fs::read_to_string(PORT_RANGE).ok();
    let Some(ports) = range.and_then(|range| count_ports(&range)) else { return Vec::new() };
    let pools = state.pools().filter(|(handle, pool)| !sees_clients(state, *handle, pool));
    pools.filter_map(|(_, pool)| shortage(pool, most, ports)).collect()
}

/// How many ports a range has, as the kernel writes it.
fn count_ports(range: &str) -> Option<u64> {
    let mut ends = range.split_whitespace().map(|end| end.parse::<u64>().ok());
    let (first, last) = (ends.next()??, ends.next()??);
    Some(last.checked_sub(first)? + 1)
}

/// Do members of this pool see the clients' own addresses, whose ports are not ours?
fn sees_clients(state: &State, handle: Handle, pool: &Pool) -> bool {
    let keeps = |listener: &Listener| {
        pool.members.iter().any(|member| listener.passthrough.keeps_client(member.address.ip()))
    };
    state.listeners().any(|(_, listener)| listener.pool == Some(handle) && keeps(listener))
}

fn shortage(pool: &Pool, most: u64, ports: u64) -> Option<String> {
    let towards = |ip| source::in_turn(&pool.sources, ip, 0).count() as u64;
    let each = pool.members.iter().map(|member| towards(member.address.ip()));
    let room = each.fold(0_u64, |sum, sources| sum.saturating_add(sources.saturating_mul(ports)));
    (pool.attached && room > 0 && room < most).then(|| {
        format!(
            "pool {}: source addresses × ports allow {room} connections to its members at a time \
             ({ports} ports an address and member), and [runtime] max_connections is {most}: name \
             more source_addresses, or widen net.ipv4.ip_local_port_range",
            pool.name
        )
    })
}

/// A host that has no descriptor or port left just now says nothing about the address.
fn is_about_it(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRINUSE)
    )
}

#[cfg(test)]
mod tests {
    use weir_core::model::{self, Balancer, Handles, Runtime};

    use super::*;

    /// R7.15-1: a family has its own addresses; a limit that fits, or none, is nothing to tell of.
    #[test]
    fn too_few_ports_are_told() {
        let member = |at: &str| model::Member {
            address: at.parse().unwrap(),
            id: model::Id::nil(),
            name: String::new(),
            weight: 1,
        };
        let pool = model::Pool {
            name: "app".to_owned(),
            members: vec![member("10.0.0.1:80"), member("[fd00::1]:80")],
            ..model::Pool::default()
        };
        let listener = model::Listener { default_pool: Some(0), ..model::Listener::default() };
        let sources = ["10.0.0.8", "10.0.0.9"].map(|ip| ip.parse().unwrap()).to_vec();
        let config = Config {
            runtime: Runtime { source_addresses: sources, ..Runtime::default() },
            balancers: vec![Balancer::default()],
            listeners: vec![listener],
            pools: vec![pool],
            ..Config::default()
        };
        let state = State::default().next(&config, &|_| vec![0], &mut Handles::default());
        let (handle, pool) = state.pools().next().unwrap();
        assert!(!sees_clients(&state, handle, pool));
        // Two addresses towards one member; towards the other one the kernel chooses.
        assert_eq!((shortage(pool, 300, 100), shortage(pool, 0, 100)), (None, None));
        let told = shortage(pool, 301, 100).unwrap();
        for words in ["pool app", "300 connections", "max_connections is 301", "source_addresses"] {
            assert!(told.contains(words), "{told}");
        }
        let ranges = ["32768\t60999\n", "5 4", "x", ""].map(count_ports);
        assert_eq!(ranges, [Some(28_232), None, None, None]);
    }

    /// R7.4-1: place, cause and cure of each; addresses of this host are taken.
    #[test]
    fn addresses_of_other_hosts_are_named() {
        let list = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
        let runtime =
            Runtime { source_addresses: list(&["127.0.0.1", "192.0.2.1"]), ..Runtime::default() };
        let balancer = Balancer {
            name: "front".to_owned(),
            source_addresses: list(&["2001:db8::1", "127.9.9.9"]),
            ..Balancer::default()
        };
        let mut config = Config { runtime, balancers: vec![balancer], ..Config::default() };
        let error = check_sources(&config).unwrap_err().to_string();
        for words in [
            "runtime.source_addresses: connections to members can't come from 192.0.2.1: ",
            "loadbalancer[0].source_addresses: connections to members can't come from 2001:db8::1",
            "ip address add",
        ] {
            assert!(error.contains(words), "{error}");
        }
        assert!(!error.contains("127."), "{error}");
        config.runtime.source_addresses.truncate(1);
        config.balancers[0].source_addresses.remove(0);
        check_sources(&config).unwrap();
    }
}
