//! Tests of PROXY headers: both versions, whole, cut and wrong.

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_PROXY_HEADER;

fn read(data: &[u8]) -> Result<Option<(usize, Option<String>)>, Flaw> {
    let header = parse(data)?;
    Ok(header.map(|header| (header.len, header.source.map(|source| source.to_string()))))
}

/// A header of version 2.
fn block(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut out = v2::SIGNATURE.to_vec();
    out.extend_from_slice(&[command, family]);
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
    out
}

const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 0, 80];

/// A header with TLVs behind IPv4 addresses, the last one a checksum, right or not.
fn with_checksum(values: &[u8], right: bool) -> Vec<u8> {
    let body = [&V4[..], values, &[3, 0, 4, 0, 0, 0, 0]].concat();
    let mut out = block(0x21, 0x11, &body);
    let sum = v2::crc32c(out.iter()).wrapping_add(u32::from(!right));
    let at = out.len() - 4;
    out[at..].copy_from_slice(&sum.to_be_bytes());
    out
}

#[test]
fn lines() {
    for (line, source) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n", Some("192.0.2.1:4711")),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Some("255.255.255.255:65535"),
        ),
        ("PROXY TCP6 2001:db8::1 ::1 0 80\r\n", Some("[2001:db8::1]:0")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 7 80\r\n", Some("192.0.2.1:7")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    ] {
        let expected = Ok(Some((line.len(), source.map(str::to_owned))));
        assert_eq!(read(line.as_bytes()), expected, "{line}");
        assert_eq!(read(format!("{line}GET / HTTP/1.1\r\n").as_bytes()), expected, "{line}");
    }
}

#[test]
fn lines_that_are_wrong() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 4711 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 04711 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +471 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 80\r\n",
        "PROXY TCP4 ::1 ::2 1 80\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 80\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 80\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 80\r\n",
        "PROXY TCP4\t192.0.2.1 192.0.2.2 1 80\r\n",
    ] {
        assert_eq!(read(line.as_bytes()), Err(Flaw::Line), "{line}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!((long.len(), read(long.as_bytes())), (107, Ok(Some((107, None)))));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(read(longer.as_bytes()), Err(Flaw::Line));
    for other in ["GET / HTTP/1.1\r\n", "PROXX", "proxy TCP4", "\r\nGET", "\0"] {
        assert_eq!(read(other.as_bytes()), Err(Flaw::Absent), "{other}");
    }
}

#[test]
fn blocks() {
    let source = Some("192.0.2.1:4711".to_owned());
    let plain = block(0x21, 0x11, &V4);
    assert_eq!(read(&plain), Ok(Some((28, source.clone()))));
    assert_eq!(read(&block(0x21, 0x12, &V4)), Ok(Some((28, source.clone()))));
    let mut v6 = [0; 36];
    (v6[0], v6[1], v6[15], v6[33]) = (0x20, 0x01, 7, 9);
    assert_eq!(read(&block(0x21, 0x21, &v6)), Ok(Some((52, Some("[2001::7]:9".to_owned())))));
    // Who speaks for itself, or for somebody without an address of IP.
    for (command, family, body) in [
        (0x20, 0x00, &[][..]),
        (0x20, 0x11, &V4),
        (0x20, 0xff, b"anything"),
        (0x21, 0x00, b""),
        (0x21, 0x00, b"anything"),
        (0x21, 0x31, &[7; 216]),
    ] {
        assert_eq!(read(&block(command, family, body)), Ok(Some((16 + body.len(), None))));
    }
    // TLVs are skipped: an unknown one, an empty one, one of the reserved range.
    let values = [&V4[..], &[0xe0, 0, 2, 1, 2], &[4, 0, 0], &[0xff, 0, 1, 9]].concat();
    assert_eq!(read(&block(0x21, 0x11, &values)), Ok(Some((40, source))));
}

#[test]
fn blocks_that_are_wrong() {
    for (command, family, body, flaw) in [
        (0x22, 0x11, &V4[..], Flaw::Unknown),
        (0x11, 0x11, &V4, Flaw::Unknown),
        (0x21, 0x13, &V4, Flaw::Unknown),
        (0x21, 0x41, &V4, Flaw::Unknown),
        (0x21, 0x11, &V4[..11], Flaw::Length),
        (0x21, 0x21, &V4, Flaw::Length),
        (0x21, 0x31, &V4, Flaw::Length),
        (0x21, 0x11, &[&V4[..], &[1, 0]].concat(), Flaw::Length),
        (0x21, 0x11, &[&V4[..], &[1, 0, 1]].concat(), Flaw::Length),
        (0x21, 0x11, &[&V4[..], &[3, 0, 3, 0, 0, 0]].concat(), Flaw::Length),
        (0x21, 0x11, &[&V4[..], &[1, 0xff, 0xff, 0]].concat(), Flaw::Length),
        (0x21, 0x00, &[0; MAX_PROXY_HEADER - 15], Flaw::Length),
    ] {
        assert_eq!(read(&block(command, family, body)), Err(flaw), "{body:?}");
    }
    assert!(read(&block(0x21, 0x00, &[0; MAX_PROXY_HEADER - 16])).is_ok());
}

#[test]
fn checksums() {
    assert_eq!(v2::crc32c(b"123456789".iter()), 0xe306_9283);
    for values in [&[][..], &[0xea, 0, 3, 1, 2, 3]] {
        assert!(matches!(read(&with_checksum(values, true)), Ok(Some(_))));
        assert_eq!(read(&with_checksum(values, false)), Err(Flaw::Checksum));
    }
}

/// However a header is cut, it is incomplete and never something else.
#[test]
fn parts_are_incomplete() {
    let line = b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n".to_vec();
    for whole in [line, block(0x21, 0x11, &V4), with_checksum(&[0xea, 0, 1, 1], true)] {
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]), Ok(None), "{len} of {whole:?}");
        }
        assert!(matches!(read(&whole), Ok(Some(_))));
    }
}

proptest! {
    /// Any damage to a header with a checksum is found, or changes nothing that is used.
    #[test]
    fn damage_is_found(at in 28usize..41, bit in 0u8..8) {
        let mut damaged = with_checksum(&[0xea, 0, 3, 1, 2, 3], true);
        prop_assert_eq!(damaged.len(), 41);
        damaged[at] ^= 1 << bit;
        // A damaged type of the checksum itself is a value that nobody knows.
        prop_assert!(read(&damaged).is_err() || at == 34);
    }

    #[test]
    fn no_bytes_are_too_strange(bytes: Vec<u8>) {
        let _ = parse(&bytes);
        let _ = parse(&[v2::SIGNATURE, &bytes].concat());
        let _ = parse(&[v1::SIGNATURE, &bytes].concat());
    }
}
