//! How many receive buffers of a group are published to the kernel. Pure: told what a turn took, it
//! answers how many the next one gets.

use crate::limits::{BufferShape, DEMAND_TURNS};

/// The size of a group's published set: what one turn takes at its busiest, in powers of two.
///
/// The kernel uses published buffers in the order in which they were published, so it goes round
/// through all of them: the fewer there are, the sooner each is used again, while it is still in
/// the processor's cache. With too few, receives end for want of one (ENOBUFS) and come a turn
/// later.
#[derive(Debug)]
pub(super) struct Demand {
    target: u16,
    least: u16,
    most: u16,
    /// Published when the turn began.
    given: u16,
    /// A receive found none in this turn.
    short: bool,
    /// The most that one of the last `turns` has taken.
    busiest: u16,
    /// Turns since the last look that have taken any.
    turns: u16,
}

impl Demand {
    /// Begins with as many as `shape` publishes first, which is also the least.
    pub(super) fn new(shape: &BufferShape) -> Demand {
        let least = shape.published_first;
        Demand {
            target: least,
            least,
            most: shape.published_most,
            given: 0,
            short: false,
            busiest: 0,
            turns: 0,
        }
    }

    /// The kernel found no buffer.
    pub(super) fn ran_out(&mut self) {
        self.short = true;
    }

    /// A turn is over, and `left` of its buffers are still published: how many are to be from now
    /// on. A shortage doubles that, once however many receives met it. Half is enough when it was
    /// for each of [`DEMAND_TURNS`] turns.
    pub(super) fn target(&mut self, left: u16) -> u16 {
        let taken = self.given.saturating_sub(left);
        if self.short {
            self.target = self.target.saturating_mul(2).min(self.most);
            self.look_anew();
        } else if taken > 0 {
            self.busiest = self.busiest.max(taken);
            self.turns += 1;
            if self.turns >= DEMAND_TURNS {
                if self.busiest <= self.target / 2 {
                    self.target = (self.target / 2).max(self.least);
                }
                self.look_anew();
            }
        }
        self.target
    }

    /// So many are published now.
    pub(super) fn given(&mut self, published: u16) {
        self.given = published;
    }

    fn look_anew(&mut self) {
        (self.short, self.busiest, self.turns) = (false, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand() -> Demand {
        Demand::new(&BufferShape {
            size: 65_536,
            total: 512,
            published_first: 4,
            published_most: 256,
        })
    }

    /// A turn that takes `taken` of what is published, and is short when it wants more.
    fn turn(demand: &mut Demand, wanted: u16) -> u16 {
        let given = demand.given;
        for _ in given..wanted {
            demand.ran_out();
        }
        let target = demand.target(given.saturating_sub(wanted));
        demand.given(target.max(given.saturating_sub(wanted)));
        target
    }

    #[test]
    fn a_turn_that_is_short_many_times_doubles_the_set_once() {
        let mut demand = demand();
        turn(&mut demand, 0);
        let sizes: Vec<u16> = (0..4).map(|_| turn(&mut demand, 16)).collect();
        assert_eq!(sizes, [8, 16, 16, 16]);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut demand = demand();
        for _ in 0..20 {
            turn(&mut demand, u16::MAX);
        }
        assert_eq!(demand.target, 256);
        for _ in 0..20 * u32::from(DEMAND_TURNS) {
            turn(&mut demand, 1);
        }
        assert_eq!(demand.target, 4);
    }

    #[test]
    fn one_busy_turn_in_so_many_keeps_the_set() {
        let mut demand = demand();
        for _ in 0..3 {
            turn(&mut demand, 32);
        }
        let sizes = (0..10 * u32::from(DEMAND_TURNS))
            .map(|n| turn(&mut demand, if n % u32::from(DEMAND_TURNS) == 0 { 17 } else { 1 }));
        assert!(sizes.into_iter().all(|size| size == 32));
    }

    #[test]
    fn turns_without_arrivals_change_nothing() {
        let mut demand = demand();
        for _ in 0..3 {
            turn(&mut demand, 32);
        }
        for _ in 0..2 * u32::from(DEMAND_TURNS) {
            assert_eq!(turn(&mut demand, 0), 32);
        }
    }
}
