//! Clocks and the timer wheel. Pure but for `clock`, the program's only reader of the real time.

pub mod clock;
pub mod wheel;
