//! Long runs of `weir_core::proxy::proxy_header`; see README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_core::proxy::proxy_header(data).map(drop).unwrap());
