//! Long runs of `weir_l4::quic::quic_datagram`; see README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_l4::quic::quic_datagram(data).map(drop).unwrap());
