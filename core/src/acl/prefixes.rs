//! Sets of networks of both families, made for look-ups: the union of the networks as sorted
//! ranges that don't touch, one binary search a look-up. Built once by control, shared by all
//! shards.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Addresses, as the union of networks. IPv4-mapped IPv6 addresses and networks (`::ffff:0:0/96`
/// and longer) count as IPv4; a shorter IPv6 network holds no IPv4 address. 8 bytes an IPv4
/// network, 32 an IPv6 one, at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Ranges in ascending order, ends included. Starts and ends lie apart, so that the search touches
/// starts only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges<T> {
    starts: Box<[T]>,
    ends: Box<[T]>,
}

impl PrefixSet {
    /// The union of `networks`, in any order, repeated or overlapping.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> PrefixSet {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match canonical(network) {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        let v4 = Ranges::union(v4, |end| end.checked_add(1));
        PrefixSet { v4, v6: Ranges::union(v6, |end| end.checked_add(1)) }
    }

    /// Is this address in one of the networks? O(log networks).
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(ip) => self.v4.contains(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.contains(ip.to_bits()),
        }
    }

    /// Holds no address at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.starts.is_empty() && self.v6.starts.is_empty()
    }
}

/// A network inside `::ffff:0:0/96` as the IPv4 network that it stands for.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    match mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()) {
        Some(v4) => IpNet::V4(v4),
        None => network,
    }
}

impl<T: Copy + Ord> Ranges<T> {
    fn union(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Ranges<T> {
        ranges.sort_unstable();
        let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match joined.last_mut() {
                // Overlaps, or begins right behind; behind the last address there is nothing.
                Some(last) if after(last.1).is_none_or(|next| start <= next) => {
                    last.1 = last.1.max(end);
                }
                _ => joined.push((start, end)),
            }
        }
        let (starts, ends): (Vec<T>, Vec<T>) = joined.into_iter().unzip();
        Ranges { starts: starts.into(), ends: ends.into() }
    }

    #[inline]
    fn contains(&self, address: T) -> bool {
        let behind = self.starts.partition_point(|start| *start <= address);
        let last = behind.checked_sub(1).and_then(|at| self.ends.get(at));
        last.is_some_and(|end| address <= *end)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::Ipv6Net;
    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> PrefixSet {
        PrefixSet::new(networks.iter().map(|text| text.parse().unwrap()))
    }

    fn holds(set: &PrefixSet, address: &str) -> bool {
        set.contains(address.parse().unwrap())
    }

    #[test]
    fn edges_of_networks() {
        let some = set(&["10.0.0.0/8", "192.168.1.7/32", "2001:db8::/32", "::1/128"]);
        for inside in
            ["10.0.0.0", "10.255.255.255", "192.168.1.7", "2001:db8::", "2001:db8:ffff::1", "::1"]
        {
            assert!(holds(&some, inside), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.168.1.6", "192.168.1.8", "::", "::2"] {
            assert!(!holds(&some, outside), "{outside}");
        }
        assert!(!holds(&some, "2001:db9::") && !holds(&some, "2001:db7:ffff::"));
        assert!(set(&[]).is_empty() && !holds(&set(&[]), "0.0.0.0"));
    }

    #[test]
    fn the_whole_of_a_family() {
        let all4 = set(&["0.0.0.0/0", "10.0.0.0/8"]);
        assert!(holds(&all4, "0.0.0.0") && holds(&all4, "255.255.255.255") && !holds(&all4, "::"));
        let all6 = set(&["::/0", "ffff::/16"]);
        assert!(holds(&all6, "::") && holds(&all6, "ffff::ffff") && !holds(&all6, "10.0.0.1"));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let plain = set(&["10.0.0.0/8"]);
        assert!(holds(&plain, "::ffff:10.1.2.3") && !holds(&plain, "::ffff:11.1.2.3"));
        let mapped = set(&["::ffff:10.0.0.0/104"]);
        assert_eq!(mapped, plain);
        assert!(!holds(&set(&["::/0"]), "::ffff:10.1.2.3"));
    }

    #[test]
    fn neighbours_are_joined() {
        let halves = set(&["10.128.0.0/9", "10.0.0.0/9", "10.3.0.0/16"]);
        assert_eq!(halves, set(&["10.0.0.0/8"]));
    }

    /// 100,000 prefixes are one search of 17 steps.
    #[test]
    fn a_hundred_thousand_networks() {
        let network = |n: u32| IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(n << 9), 24).unwrap());
        let many = PrefixSet::new((0..100_000).rev().map(network));
        assert_eq!(many.v4.starts.len(), 100_000);
        for n in (0..100_000u32).step_by(997) {
            assert!(many.contains(Ipv4Addr::from_bits((n << 9) + 255).into()));
            assert!(!many.contains(Ipv4Addr::from_bits((n << 9) + 256).into()));
        }
    }

    fn networks() -> impl Strategy<Value = IpNet> {
        // Few bits vary, so that networks overlap and touch.
        let v4 = (0u32..64, 26u8..=32).prop_map(|(low, length)| {
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0000 | low), length).unwrap())
        });
        let v6 = (0u128..64, 122u8..=128).prop_map(|(low, length)| {
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits((0xfd << 120) | low), length).unwrap())
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        /// The set says what asking each network says.
        #[test]
        fn as_each_network_says(list in prop::collection::vec(networks(), 0..12)) {
            let set = PrefixSet::new(list.iter().copied());
            for low in 0..80u32 {
                let v4 = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | low));
                let v6 = IpAddr::V6(Ipv6Addr::from_bits((0xfd << 120) | u128::from(low)));
                for address in [v4, v6] {
                    let slow = list.iter().any(|network| network.contains(&address));
                    prop_assert_eq!(set.contains(address), slow);
                }
            }
        }
    }
}
