//! A cell for a value that is taken out and put back: what `Cell<Option<T>>` is, with a `Debug` for
//! values that cannot be copied.

use std::cell::Cell;
use std::fmt;

/// Room for one `T`, or nothing.
pub(super) struct Place<T>(Cell<Option<T>>);

impl<T> Place<T> {
    pub(super) fn holding(value: T) -> Place<T> {
        Place(Cell::new(Some(value)))
    }

    /// Takes the value out.
    pub(super) fn take(&self) -> Option<T> {
        self.0.take()
    }

    /// Puts `value` in; what was there is dropped.
    pub(super) fn put(&self, value: T) {
        self.0.set(Some(value));
    }

    pub(super) fn is_empty(&self) -> bool {
        let value = self.0.take();
        let empty = value.is_none();
        self.0.set(value);
        empty
    }
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Place(Cell::new(None))
    }
}

impl<T> fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Place(empty)" } else { "Place(full)" })
    }
}
