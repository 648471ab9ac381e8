//! What chooses the member for a request: one of the algorithms, with its state.

use std::sync::Arc;

use super::least::Least;
use super::wrr::Wrr;
use super::{Load, Ring};
use crate::model::Algorithm;

/// A member that may be chosen.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Stays the same as long as it is the same member.
    pub key: u64,
    /// Effective weight, in any unit; 0 = never chosen.
    pub weight: u32,
    /// What it has to do, on all shards together.
    pub load: Arc<Load>,
}

/// What a choice may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Hash of what the algorithm goes by: of the client's address for SOURCE_IP.
    pub hash: u64,
    /// Positions that were tried already and are not to be chosen again.
    pub tried: &'a [usize],
}

/// Chooses members. One a shard and pool.
#[derive(Debug)]
pub struct Picker {
    members: Vec<Candidate>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    RoundRobin(Wrr),
    Least(Least),
    Hash(Arc<Ring>),
}

impl Picker {
    /// A picker without members. `seed` decides where it begins; give each shard its own. For
    /// SOURCE_IP and QUIC_CID `ring` has to stand over the very list that [`Picker::set`] gets.
    #[must_use]
    pub fn new(algorithm: Algorithm, seed: u64, ring: Option<Arc<Ring>>) -> Picker {
        let way = match algorithm {
            Algorithm::RoundRobin => Way::RoundRobin(Wrr::new(seed)),
            Algorithm::LeastConnections => Way::Least(Least::new(seed)),
            Algorithm::SourceIp | Algorithm::QuicCid => {
                Way::Hash(ring.unwrap_or_else(|| Arc::new(Ring::new([]))))
            }
        };
        Picker { members: Vec::new(), way }
    }

    /// The algorithm is another one from the next choice on (R5.12-1); the same one keeps its
    /// place. Members have to be set again.
    pub fn change(&mut self, algorithm: Algorithm, seed: u64, ring: Option<Arc<Ring>>) {
        let same = matches!(
            (&self.way, algorithm),
            (Way::RoundRobin(_), Algorithm::RoundRobin)
                | (Way::Least(_), Algorithm::LeastConnections)
        );
        if !same {
            *self = Picker::new(algorithm, seed, ring);
        }
    }

    /// Chooses among these from now on. Who stays keeps its place in the order.
    pub fn set(&mut self, members: Vec<Candidate>) {
        self.members = members;
        if let Way::RoundRobin(turns) = &mut self.way {
            turns.set(self.members.iter().map(|member| (member.key, member.weight)));
        }
    }

    /// The position of the member for a request; its load has been raised, and the caller lowers it
    /// when the request is over. `None` when nobody is left to choose (C18).
    ///
    /// Costs O(members); O(1) for round robin with equal weights, O(log members) for hashes.
    #[inline]
    pub fn pick(&mut self, ask: Ask<'_>) -> Option<usize> {
        let Picker { members, way } = self;
        let may = |at: usize| ask.tried.is_empty() || !ask.tried.contains(&at);
        let at = match way {
            Way::RoundRobin(turns) => turns.pick(may)?,
            Way::Least(least) => return least.pick(members, may),
            Way::Hash(ring) => ring.pick(ask.hash, |at| {
                members.get(at).is_some_and(|member| member.weight > 0) && may(at)
            })?,
        };
        members.get(at)?.load.rise();
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash_address;
    use super::*;

    fn members(weights: &[u32]) -> Vec<Candidate> {
        let member = |(key, &weight)| Candidate { key, weight, load: Arc::default() };
        (0..).zip(weights).map(member).collect()
    }

    fn hashed(n: u64) -> Ask<'static> {
        let address = std::net::Ipv4Addr::from(0x0a01_0000 + n as u32);
        Ask { hash: hash_address(address.into()), tried: &[] }
    }

    fn all_algorithms(n: usize) -> Vec<Picker> {
        let ring = Arc::new(Ring::new((0..n as u128).map(|i| i << 64)));
        [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::SourceIp]
            .map(|algorithm| Picker::new(algorithm, 1, Some(Arc::clone(&ring))))
            .into()
    }

    /// R2.1-4, R7.14-4: weight 0 gets nothing under any algorithm, and who was tried isn't tried
    /// again.
    #[test]
    fn weight_0_and_what_was_tried_are_left_out() {
        for mut picker in all_algorithms(4) {
            picker.set(members(&[1, 0, 1, 1]));
            for n in 0..100 {
                let ask = Ask { tried: &[3], ..hashed(n) };
                let at = picker.pick(ask).unwrap();
                assert!(at == 0 || at == 2, "{picker:?}");
            }
            assert_eq!(picker.pick(Ask { tried: &[0, 2, 3], ..hashed(1) }), None);
            picker.set(members(&[0, 0, 0, 0]));
            assert_eq!(picker.pick(hashed(1)), None);
        }
    }

    /// The load is kept under every algorithm, so that least connections can take over.
    #[test]
    fn the_load_is_counted_under_every_algorithm() {
        for mut picker in all_algorithms(2) {
            let list = members(&[1, 1]);
            picker.set(list.clone());
            for n in 0..10 {
                picker.pick(hashed(n));
            }
            assert_eq!(list.iter().map(|m| m.load.get()).sum::<u32>(), 10);
        }
    }

    /// R5.9-1: shards with different seeds map an address alike; the weight plays no part but 0.
    #[test]
    fn source_ip_is_the_same_on_every_shard() {
        let ring = Arc::new(Ring::new((0..10u128).map(|i| i * 0x1111_2222_3333)));
        let make = |seed| Picker::new(Algorithm::SourceIp, seed, Some(Arc::clone(&ring)));
        let (mut one, mut two) = (make(1), make(99));
        one.set(members(&[1; 10]));
        two.set(members(&[7; 10]));
        for n in 0..10_000 {
            assert_eq!(one.pick(hashed(n)), two.pick(hashed(n)));
        }
    }

    /// R5.12-1: another algorithm works from the next choice on; the same one keeps its place.
    #[test]
    fn the_algorithm_changes_in_place() {
        let mut picker = Picker::new(Algorithm::RoundRobin, 0, None);
        let list = members(&[1, 1, 1]);
        picker.set(list.clone());
        let first = picker.pick(Ask::default()).unwrap();
        picker.change(Algorithm::RoundRobin, 0, None);
        picker.set(list.clone());
        assert_eq!(picker.pick(Ask::default()), Some((first + 1) % 3));
        list[first].load.fall();
        list[(first + 1) % 3].load.fall();
        list[0].load.rise();
        picker.change(Algorithm::LeastConnections, 0, None);
        picker.set(list);
        assert_ne!(picker.pick(Ask::default()), Some(0));
    }
}
