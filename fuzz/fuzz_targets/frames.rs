//! Long runs of `weir_l7::fuzz::frames`; see README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_l7::fuzz::frames(data).map(drop).unwrap());
