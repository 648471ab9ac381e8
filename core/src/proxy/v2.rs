//! Version 2: a block of bytes with a length, addresses, and further values (TLVs), of which only
//! the checksum means something to us.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Flaw, Header};
use crate::limits::MAX_PROXY_HEADER;

/// What a block begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before the addresses: signature, version and command, family and protocol, length.
const FIXED: usize = 16;
/// Type of the TLV that holds a CRC32c of the whole header.
const CHECKSUM: u8 = 0x03;

/// Reads a block; the signature has been checked as far as it is there.
pub(super) fn parse(data: &[u8]) -> Result<Option<Header>, Flaw> {
    // What is certainly wrong is told before the rest has come.
    let local = match data.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Flaw::Unknown),
    };
    let Some(&family) = data.get(13) else { return Ok(None) };
    let Some(&[high, low]) = data.get(14..FIXED) else { return Ok(None) };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let addresses = match family {
        // Of a proxy that speaks for itself, family and addresses are to be ignored.
        _ if local => 0,
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(Flaw::Unknown),
    };
    if len > MAX_PROXY_HEADER || len < FIXED + addresses {
        return Err(Flaw::Length);
    }
    let Some(block) = data.get(..len) else { return Ok(None) };
    if addresses > 0 {
        check_values(block, FIXED + addresses)?;
    }
    Ok(Some(Header { len, source: source(block, addresses) }))
}

fn source(block: &[u8], addresses: usize) -> Option<SocketAddr> {
    let field = |at: usize, len: usize| block.get(FIXED + at..FIXED + at + len);
    let port = |at| Some(u16::from_be_bytes(field(at, 2)?.try_into().ok()?));
    match addresses {
        12 => {
            let ip: [u8; 4] = field(0, 4)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(ip).into(), port(8)?))
        }
        36 => {
            let ip: [u8; 16] = field(0, 16)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv6Addr::from(ip).into(), port(32)?))
        }
        _ => None,
    }
}

/// The TLVs of a whole header that was read well, without its checksum: what a proxy may pass on.
/// Empty for version 1, and for headers without addresses.
#[must_use]
pub fn values(header: &[u8]) -> Vec<u8> {
    let addresses = match header.get(13) {
        _ if !header.starts_with(SIGNATURE) || header.get(12) != Some(&0x21) => return Vec::new(),
        Some(0x11 | 0x12) => 12,
        Some(0x21 | 0x22) => 36,
        _ => return Vec::new(),
    };
    let mut rest = header.get(FIXED + addresses..).unwrap_or_default();
    let mut out = Vec::with_capacity(rest.len());
    while let Some(&[kind, high, low]) = rest.get(..3) {
        let len = 3 + usize::from(u16::from_be_bytes([high, low]));
        let Some(value) = rest.get(..len) else { break };
        if kind != CHECKSUM {
            out.extend_from_slice(value);
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    out
}

/// Walks the TLVs from `at` to the end, which they must fill, and checks the checksum if there is
/// one.
fn check_values(block: &[u8], mut at: usize) -> Result<(), Flaw> {
    while at < block.len() {
        let Some(&[kind, high, low]) = block.get(at..at + 3) else { return Err(Flaw::Length) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let bytes = block.get(value.clone()).ok_or(Flaw::Length)?;
        if kind == CHECKSUM {
            let wanted: [u8; 4] = bytes.try_into().map_err(|_| Flaw::Length)?;
            let (before, rest) = block.split_at(value.start);
            let behind = rest.get(4..).unwrap_or_default();
            let whole = before.iter().chain(&[0; 4]).chain(behind);
            if crc32c(whole) != u32::from_be_bytes(wanted) {
                return Err(Flaw::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// The remainder of each byte (Castagnoli's polynomial, bits reversed).
const REMAINDERS: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut rest, mut bit) = (byte as u32, 0);
        while bit < 8 {
            rest = if rest & 1 == 1 { rest >> 1 ^ 0x82f6_3b78 } else { rest >> 1 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

/// CRC32c (RFC 3720, appendix B.4).
pub(super) fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |rest, byte| {
        let remainder = REMAINDERS.get(usize::from(rest as u8 ^ byte)).copied().unwrap_or_default();
        rest >> 8 ^ remainder
    })
}
