//! Handles: what parts of a running process call an object by.

/// Names a listener, pool or member as long as the process lives; never used twice. Unlike an
/// [`Id`](super::Id) it survives a change of name, and it is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(u64);

impl Handle {
    /// The number in it, for keys of other tables.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Gives out handles. One a process.
#[derive(Debug, Default)]
pub struct Handles {
    given: u64,
}

impl Handles {
    /// A handle that was never given out before.
    pub fn fresh(&mut self) -> Handle {
        self.given += 1;
        Handle(self.given)
    }
}
