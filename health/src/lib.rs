//! Health checking. Owns nothing yet: rise and fall states, schedule and probes come with the
//! configuration issue.
#![forbid(unsafe_code)]
