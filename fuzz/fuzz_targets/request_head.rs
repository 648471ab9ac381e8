//! Long runs of `weir_l7::fuzz::request_head`; see README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_l7::fuzz::request_head(data).map(drop).unwrap());
