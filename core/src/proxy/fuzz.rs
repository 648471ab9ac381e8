//! Fuzz target: PROXY headers. Called by `tests/fuzz.rs` and by cargo-fuzz.

use std::net::SocketAddr;

use super::{Header, parse};
use crate::limits::MAX_PROXY_HEADER;

/// The header at the start of the input, if one is there. `true`: accepted.
///
/// # Errors
/// What is accepted must end within the input and the bound, be incomplete at every shorter length,
/// and not depend on what follows; whom it names must read the same when written anew.
pub fn proxy_header(data: &[u8]) -> Result<bool, String> {
    let promise = |holds: bool, what: &str| match holds {
        true => Ok(()),
        false => Err(format!("{what}: {}", data.escape_ascii())),
    };
    let Ok(Some(header)) = parse(data) else { return Ok(false) };
    promise(header.len <= data.len().min(MAX_PROXY_HEADER), "longer than it may be")?;
    let alone = data.get(..header.len).unwrap_or_default();
    promise(parse(alone) == Ok(Some(header)), "depends on what follows")?;
    for len in 0..header.len {
        let part = alone.get(..len).unwrap_or_default();
        promise(parse(part) == Ok(None), "judged before its end")?;
    }
    if let Some(source) = header.source {
        promise(source.ip() == source.ip().to_canonical(), "an address of IPv4 as IPv6")?;
        for again in [line(source), block(source)] {
            let whole = Header { len: again.len(), source: Some(source) };
            promise(parse(&again) == Ok(Some(whole)), "written again it means something else")?;
        }
    }
    Ok(true)
}

/// Version 1 for this source.
fn line(source: SocketAddr) -> Vec<u8> {
    let (family, target) = if source.is_ipv4() { ("TCP4", "0.0.0.0") } else { ("TCP6", "::") };
    format!("PROXY {family} {} {target} {} 0\r\n", source.ip(), source.port()).into_bytes()
}

/// Version 2 for this source.
fn block(source: SocketAddr) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match source {
        SocketAddr::V4(v4) => {
            out.extend_from_slice(b"\x11\0\x0c");
            out.extend_from_slice(&v4.ip().octets());
            out.extend_from_slice(&[0; 4]);
        }
        SocketAddr::V6(v6) => {
            out.extend_from_slice(b"\x21\0\x24");
            out.extend_from_slice(&v6.ip().octets());
            out.extend_from_slice(&[0; 16]);
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out
}
