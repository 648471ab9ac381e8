//! What becomes of a member's requests on one shard: failures in a row, of which control is told
//! when there are too many (`outlier_detection`). Each shard counts for itself; who is left out is
//! control's decision.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::limits::SUSPECT_PAUSE_MS;
use crate::model::Handle;
use crate::time::clock::Mono;

/// A member that has failed too often in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its pool.
    pub pool: Handle,
    /// The member.
    pub member: Handle,
    /// How often in a row by now, on the shard that tells.
    pub failures: u32,
}

/// Tells of a suspect.
type Tell = Box<dyn Fn(Suspect)>;

/// Whom a shard tells of suspects.
#[derive(Default)]
pub(super) struct Ear(RefCell<Option<Tell>>);

impl Ear {
    pub(super) fn set(&self, tell: Tell) {
        self.0.replace(Some(tell));
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ear")
    }
}

/// The outcomes of one member.
#[derive(Debug)]
pub(super) struct Outcomes {
    pool: Handle,
    member: Handle,
    /// Failures in a row that are too many; 0 = nobody wants to know.
    limit: Cell<u32>,
    row: Cell<u32>,
    told: Cell<Option<Mono>>,
    ear: Rc<Ear>,
}

impl Outcomes {
    pub(super) fn new(pool: Handle, member: Handle, ear: Rc<Ear>) -> Outcomes {
        let (limit, row, told) = (Cell::new(0), Cell::new(0), Cell::new(None));
        Outcomes { pool, member, limit, row, told, ear }
    }

    /// So many failures in a row are too many from now on; 0 = any number will do.
    pub(super) fn set_limit(&self, limit: u32) {
        if self.limit.replace(limit) == 0 {
            self.forget();
        }
    }

    /// Nothing has failed yet.
    #[inline]
    pub(super) fn forget(&self) {
        self.row.set(0);
        self.told.set(None);
    }

    #[cold]
    pub(super) fn failed(&self, now: Mono) {
        let limit = self.limit.get();
        let row = self.row.get().saturating_add(1);
        self.row.set(row);
        let pause = Duration::from_millis(SUSPECT_PAUSE_MS);
        let told = self.told.get().is_some_and(|told| now.since(told) < pause);
        if limit == 0 || row < limit || told {
            return;
        }
        self.told.set(Some(now));
        if let Some(tell) = &*self.ear.0.borrow() {
            tell(Suspect { pool: self.pool, member: self.member, failures: row });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Handles;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(1).plus(Duration::from_millis(millis))
    }

    /// Told once there are too many, again only after a pause, and not after a success.
    #[test]
    fn rows_of_failures_are_told() {
        let mut handles = Handles::default();
        let (pool, member) = (handles.fresh(), handles.fresh());
        let (ear, told) = (Rc::new(Ear::default()), Rc::new(RefCell::new(Vec::new())));
        let outcomes = Outcomes::new(pool, member, Rc::clone(&ear));
        outcomes.failed(at(0));
        outcomes.set_limit(3);
        let list = Rc::clone(&told);
        ear.set(Box::new(move |suspect| list.borrow_mut().push(suspect.failures)));
        [0, 1].into_iter().for_each(|time| outcomes.failed(at(time)));
        outcomes.forget();
        [2, 3].into_iter().for_each(|time| outcomes.failed(at(time)));
        assert!(told.borrow().is_empty(), "what failed while nobody asked does not count");
        [4, 5, 6, 3_000, 3_001].into_iter().for_each(|time| outcomes.failed(at(time)));
        assert_eq!(*told.borrow(), [3, 6]);
        outcomes.set_limit(0);
        outcomes.failed(at(9_000));
        assert_eq!(told.borrow().len(), 2);
    }
}
