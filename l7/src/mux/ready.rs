//! Which streams of a connection have to be looked at. One task polls all of them; so each has a
//! waker that remembers which one it is for and then wakes the task. Its parts are shared only
//! because wakers have to be; all of it stays on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};

use crate::limits::H2_STREAMS;

const WORDS: usize = (H2_STREAMS as usize).div_ceil(64);

/// A set of places.
pub(super) type Places = [u64; WORDS];

/// The places of a connection that were woken.
#[derive(Debug)]
pub(super) struct Ready {
    places: [AtomicU64; WORDS],
    task: Waker,
}

/// Wakes one place.
struct Place {
    ready: Arc<Ready>,
    place: usize,
}

impl Ready {
    /// Nothing is ready; `task` polls what will be.
    pub(super) fn new(task: Waker) -> Arc<Ready> {
        Arc::new(Ready { places: [const { AtomicU64::new(0) }; WORDS], task })
    }

    /// The waker of a place.
    pub(super) fn waker(self: &Arc<Ready>, place: usize) -> Waker {
        Waker::from(Arc::new(Place { ready: Arc::clone(self), place }))
    }

    /// A place has to be looked at, by the task that is running.
    #[inline]
    pub(super) fn mark(&self, place: usize) {
        if let Some(word) = self.places.get(place / 64) {
            word.fetch_or(1 << (place % 64), Ordering::Relaxed);
        }
    }

    /// All of these have to.
    pub(super) fn mark_all(&self, places: Places) {
        for (word, more) in self.places.iter().zip(places) {
            if more != 0 {
                word.fetch_or(more, Ordering::Relaxed);
            }
        }
    }

    /// Takes those that have to be looked at.
    #[inline]
    pub(super) fn take(&self) -> Places {
        let mut places = [0; WORDS];
        for (place, word) in places.iter_mut().zip(&self.places) {
            if word.load(Ordering::Relaxed) != 0 {
                *place = word.swap(0, Ordering::Relaxed);
            }
        }
        places
    }

    /// Is there none?
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// The task is to be polled once more.
    pub(super) fn wake(&self) {
        self.task.wake_by_ref();
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.mark(self.place);
        self.ready.task.wake_by_ref();
    }
}

/// The places of a set, from the lowest.
pub(super) fn each(places: Places) -> impl Iterator<Item = usize> {
    places.into_iter().enumerate().flat_map(|(at, mut word)| {
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros() as usize;
            (word != 0).then(|| {
                word &= word - 1;
                at * 64 + bit
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_remembered_once() {
        let ready = Ready::new(Waker::noop().clone());
        assert!(ready.is_empty());
        let wakers = [0, 5, 63, 64, 127].map(|place| ready.waker(place));
        wakers.iter().for_each(Waker::wake_by_ref);
        wakers.into_iter().rev().for_each(Waker::wake);
        ready.mark_all([1 << 7, 0]);
        ready.mark(H2_STREAMS as usize);
        assert_eq!(each(ready.take()).collect::<Vec<_>>(), [0, 5, 7, 63, 64, 127]);
        assert!(ready.is_empty() && each(ready.take()).next().is_none());
    }
}
