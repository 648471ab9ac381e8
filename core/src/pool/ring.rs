//! Consistent hashing: a ring of points, many a member; a key belongs to the member of the next
//! point. Independent of the order of the members, of the process and of the shard; a member that
//! goes takes only its own share with it (C24).

use std::net::IpAddr;

/// Points a member: its share of the keys then varies by about 4 %.
const POINTS: u64 = 512;
/// Points that are passed over before the search goes another way.
const STEPS: usize = 64;

/// The ring over a list of members, built once by control and shared by all shards. Members that
/// are down stay in it; a look-up passes over them, so that they get their keys back when they
/// return. About 8 KiB a member.
#[derive(Debug)]
pub struct Ring {
    /// What each member is hashed by, in the order of the list.
    keys: Vec<u128>,
    /// Sorted by place; the number is the position in the list.
    points: Vec<(u64, u32)>,
}

/// Equal members make equal rings.
impl PartialEq for Ring {
    fn eq(&self, other: &Ring) -> bool {
        self.keys == other.keys
    }
}

impl Eq for Ring {}

impl Ring {
    /// The ring over members, each told by a key that stays the same over restarts (its id).
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = u128>) -> Ring {
        let keys: Vec<u128> = keys.into_iter().collect();
        let mut points: Vec<(u64, u32)> = (0u32..)
            .zip(&keys)
            .flat_map(|(at, &key)| (0..POINTS).map(move |point| (place(key, point), at)))
            .collect();
        points.sort_unstable_by_key(|&(place, at)| (place, keys.get(at as usize).copied()));
        Ring { keys, points }
    }

    /// Is it the ring over these members, in this order?
    pub fn is_over(&self, keys: impl Iterator<Item = u128>) -> bool {
        self.keys.iter().copied().eq(keys)
    }

    /// The position of the member that `hash` belongs to, among those that `may` allows.
    /// O(log members); `None` when none is allowed.
    pub fn pick(&self, hash: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.points.partition_point(|&(place, _)| place < hash);
        let (before, after) = self.points.split_at(first);
        let near = after.iter().chain(before).take(STEPS).map(|&(_, at)| at as usize);
        near.into_iter().find(|&at| may(at)).or_else(|| self.farther(hash, may))
    }

    /// Where most members are down: the allowed one that hashes highest together with the key.
    /// O(members), minimal movement as well.
    fn farther(&self, hash: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let allowed = self.keys.iter().enumerate().filter(|&(at, _)| may(at));
        allowed.max_by_key(|&(_, &key)| (place(key, hash), key)).map(|(at, _)| at)
    }
}

/// Where a member's point lies.
fn place(key: u128, point: u64) -> u64 {
    let (high, low) = ((key >> 64) as u64, key as u64);
    mix(mix(mix(high) ^ low) ^ point)
}

/// The hash of a client's address; an IPv4-mapped one counts as IPv4.
#[must_use]
pub fn hash_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(ip) => hash_bytes(&ip.octets()),
        IpAddr::V6(ip) => hash_bytes(&ip.octets()),
    }
}

/// The hash of any bytes: the same on every shard and in every version.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| chunk.iter().fold(0, |word, &b| (word << 8) | u64::from(b));
    bytes.chunks(8).fold(mix(bytes.len() as u64), |hash, chunk| mix(hash ^ word(chunk)))
}

/// Spreads the bits of a number over all 64 (the finaliser of SplitMix64, one to one).
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn keys(n: u128) -> Vec<u128> {
        (0..n).map(|i| 0x1234_5678_9abc_def0_0f0e_0d0c_0b0a_0908 ^ (i << 61) ^ i).collect()
    }

    /// 10,000 client addresses.
    fn clients() -> Vec<u64> {
        (0..10_000u32).map(|n| hash_address(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)))).collect()
    }

    /// R5.9-1: the same address comes to the same member on every shard, whatever the order of the
    /// members is, and each member gets its share.
    #[test]
    fn ten_thousand_addresses_map_alike_and_evenly() {
        let keys = keys(10);
        let backwards: Vec<u128> = keys.iter().rev().copied().collect();
        let (one, two) = (Ring::new(keys.clone()), Ring::new(backwards));
        let mut shares = [0; 10];
        for client in clients() {
            let at = one.pick(client, |_| true).unwrap();
            assert_eq!(9 - at, two.pick(client, |_| true).unwrap());
            shares[at] += 1;
        }
        assert!(shares.iter().all(|share| (800..=1_200).contains(share)), "{shares:?}");
    }

    /// R5.9-2, C24: of ten members one goes down: only its own addresses move; they come back.
    #[test]
    fn only_the_share_of_a_lost_member_moves() {
        let all = keys(10);
        let ring = Ring::new(all.clone());
        let without = Ring::new(all.iter().copied().filter(|&key| key != all[3]));
        let mut moved = 0;
        for client in clients() {
            let before = ring.pick(client, |_| true).unwrap();
            let down = ring.pick(client, |at| at != 3).unwrap();
            moved += usize::from(before != down);
            assert!(before == 3 || before == down, "an address of member {before} moved");
            // Removed or down: the others divide the share in the same way.
            let removed = without.pick(client, |_| true).unwrap();
            assert_eq!(if removed >= 3 { removed + 1 } else { removed }, down);
        }
        assert!((800..=1_200).contains(&moved), "{moved}");
    }

    #[test]
    fn addresses_hash_by_what_they_are() {
        let hash = |text: &str| hash_address(text.parse().unwrap());
        assert_eq!(hash("::ffff:1.2.3.4"), hash("1.2.3.4"));
        assert_ne!(hash("1.2.3.4"), hash("1.2.3.5"));
        assert_ne!(hash("::1"), hash("0.0.0.1"));
        // Written down: a new version that hashes otherwise would move every client.
        assert_eq!(hash("192.0.2.1"), 7_789_979_956_630_210_661);
    }

    #[test]
    fn with_most_members_down_the_rest_is_found() {
        let ring = Ring::new(keys(500));
        for client in clients().into_iter().take(500) {
            assert_eq!(ring.pick(client, |at| at == 77), Some(77));
            assert_eq!(ring.pick(client, |_| false), None);
        }
        assert_eq!(Ring::new([]).pick(1, |_| true), None);
    }

    proptest! {
        /// Any set of members, any one of them lost: nobody else's keys move, and they come back.
        #[test]
        fn movement_is_minimal(
            members in prop::collection::btree_set(any::<u128>(), 2..20),
            lost: prop::sample::Index,
            hashes in prop::collection::vec(any::<u64>(), 50),
        ) {
            let members: Vec<u128> = members.into_iter().collect();
            let lost = lost.index(members.len());
            let ring = Ring::new(members);
            for hash in hashes {
                let before = ring.pick(hash, |_| true).unwrap();
                let after = ring.pick(hash, |at| at != lost).unwrap();
                prop_assert!(after != lost);
                prop_assert!(before == lost || before == after);
            }
        }
    }
}
