//! Are the source addresses that a file names this host's? Owns the question and the words about
//! those that are not; asked at the start, by a reload and by `weir check`.

use std::io;
use std::net::{IpAddr, UdpSocket};

use anyhow::{Result, bail};
use weir_core::model::Config;

/// Looks whether sockets can be bound to every source address.
///
/// # Errors
/// Those that can't, each with the key that names it, the cause and the cure (R7.4-1).
pub fn check_sources(config: &Config) -> Result<()> {
    let runtime = config.runtime.source_addresses.iter().map(|ip| (*ip, "[runtime]".to_owned()));
    let balancers = config.balancers.iter().flat_map(|balancer| {
        let place = format!("[[loadbalancer]] {}", balancer.name);
        balancer.source_addresses.iter().map(move |ip| (*ip, place.clone()))
    });
    let refused = |(ip, place): (IpAddr, String)| {
        let error = UdpSocket::bind((ip, 0)).err().filter(is_about_it)?;
        Some(format!("{ip} ({place} source_addresses): {error}"))
    };
    let wrong: Vec<String> = runtime.chain(balancers).filter_map(refused).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "connections to members can't come from {}. Give this host the address (ip address add), \
         or take it out of the list",
        wrong.join("; ")
    )
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
    use weir_core::model::{Balancer, Runtime};

    use super::*;

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
            "192.0.2.1 ([runtime] source_addresses): ",
            "2001:db8::1 ([[loadbalancer]] front source_addresses): ",
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
