//! How long a probe still waits. Only time in which the prober could look counts: while its thread
//! has no core, or is kept busy, members may have answered long ago, and those that could not be
//! asked in time are not to blame. Owns that reckoning; what is waited for is the probes' business.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use weir_core::rt::{self, Elapsed};
use weir_core::time::clock::Mono;

/// A limit is measured in so many steps. Only while the end of one goes by is it noticed that
/// nobody looks; each is one more timer for a member that says nothing.
const STEPS: u32 = 8;
/// The wheel's own accuracy, and turns of usual length: they count as any other time.
const USUAL: Duration = Duration::from_millis(20);

/// What is left of one probe's time, over all that it does.
///
/// A limit of 2 s is over after 2 s. If the prober comes late to one of its steps by more than
/// [`USUAL`], the time by which it was late doesn't count, but at most the step as a whole, and
/// only in [`STEPS`] steps, which are as long as the limit itself: so a probe ends on a machine
/// that never has a core for it, too.
#[derive(Debug)]
pub(crate) struct Patience {
    reckoning: Reckoning,
    /// When the present step began.
    began: Mono,
}

/// The pure part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reckoning {
    full: Duration,
    left: Duration,
    /// In so many steps time may still go uncounted.
    spare: u32,
    /// The present step's length.
    step: Duration,
}

impl Patience {
    /// Begins now.
    pub(crate) fn new(limit: Duration) -> Patience {
        Patience { reckoning: Reckoning::new(limit), began: rt::now() }
    }

    /// Ends when it is over.
    pub(crate) async fn run_out(&mut self) {
        loop {
            let now = rt::now();
            let took = now.since(self.began);
            let step = self.reckoning.step;
            if took < step {
                rt::sleep(step.saturating_sub(took)).await;
                continue;
            }
            self.reckoning.pass(took);
            self.began = now;
            if self.reckoning.left.is_zero() {
                return;
            }
        }
    }

    /// Waits for `future`. What has come is looked at before the time is.
    ///
    /// # Errors
    /// [`Elapsed`] when it is over first; `future` is dropped then.
    pub(crate) async fn wait<F: Future>(&mut self, future: F) -> Result<F::Output, Elapsed> {
        let (mut future, mut over) = (pin!(future), pin!(self.run_out()));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => over.as_mut().poll(cx).map(|()| Err(Elapsed)),
        })
        .await
    }
}

impl Reckoning {
    fn new(limit: Duration) -> Reckoning {
        Reckoning { full: limit, left: limit, spare: STEPS, step: limit / STEPS }
    }

    /// A step has ended; from its beginning it `took` so long.
    fn pass(&mut self, took: Duration) {
        let late = took.saturating_sub(self.step);
        let counts = if late <= USUAL {
            took
        } else {
            let given = if self.spare > 0 { late.min(self.step) } else { Duration::ZERO };
            self.spare = self.spare.saturating_sub(1);
            self.step - given
        };
        self.left = self.left.saturating_sub(counts);
        self.step = (self.full / STEPS).min(self.left);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    const STEP: Duration = Duration::from_millis(250);

    /// So many steps that took so long each.
    fn pass(reckoning: &mut Reckoning, steps: u32, took: Duration) {
        (0..steps).for_each(|_| reckoning.pass(took));
    }

    #[test]
    fn time_in_which_nobody_could_look_does_not_count() {
        let mut one = Reckoning::new(LIMIT);
        pass(&mut one, 3, STEP);
        assert_eq!(one.left, STEP * 5);
        // The machine stands still for longer than all that is left.
        one.pass(STEP * 24);
        assert_eq!(one.left, STEP * 5);
        // Late by a part of a step.
        one.pass(STEP + STEP / 5);
        assert_eq!(one.left, STEP * 4 + STEP / 5);
        // A little late, as timers are.
        one.pass(STEP + USUAL);
        assert_eq!(one.left, STEP * 3 + STEP / 5 - USUAL);
    }

    #[test]
    fn it_ends_on_a_machine_that_is_always_late() {
        let mut one = Reckoning::new(LIMIT);
        pass(&mut one, STEPS, STEP * 10);
        assert_eq!((one.left, one.spare), (LIMIT, 0));
        pass(&mut one, STEPS, STEP * 10);
        assert_eq!(one.left, Duration::ZERO);
    }

    proptest! {
        /// Whatever the delays: who is in time has exactly the limit, nobody has less, and at most
        /// two limits pass in steps.
        #[test]
        fn nobody_has_less(
            millis in 80u64..50_000,
            late in prop::collection::vec(prop_oneof![Just(0u64), 0u64..10_000], 1..40),
        ) {
            let limit = Duration::from_millis(millis);
            let mut reckoning = Reckoning::new(limit);
            let (mut real, mut in_time, mut excess) = (Duration::ZERO, true, Duration::ZERO);
            for late in late.into_iter().cycle().take(40).map(Duration::from_millis) {
                if reckoning.left.is_zero() {
                    break;
                }
                let took = reckoning.step + late;
                in_time &= late.is_zero();
                real += took;
                excess += late;
                reckoning.pass(took);
            }
            prop_assert!(reckoning.left.is_zero(), "{reckoning:?}");
            prop_assert!(real >= limit);
            prop_assert!(real <= limit * 2 + excess);
            prop_assert!(!in_time || real == limit);
        }
    }
}
