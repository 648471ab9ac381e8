//! Long runs of `weir_l7::fuzz::cookies`; see README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_l7::fuzz::cookies(data).map(drop).unwrap());
