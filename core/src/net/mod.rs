//! Socket helpers that are no part of the ring.
