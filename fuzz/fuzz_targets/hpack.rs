//! Long runs of `weir_l7::fuzz::hpack`; see README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_l7::fuzz::hpack(data).map(drop).unwrap());
