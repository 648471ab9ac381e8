//! Balancing algorithms.
