//! Version 1: a line of text, `PROXY TCP4 192.0.2.1 192.0.2.2 4711 80` and CR LF.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Flaw, Header};

/// What a line begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// Bytes of the longest line, its end included (section 2.1 of the protocol).
const MAX_LINE: usize = 107;

/// Reads a line; the signature has been checked as far as it is there.
pub(super) fn parse(data: &[u8]) -> Result<Option<Header>, Flaw> {
    let within = data.get(..data.len().min(MAX_LINE)).unwrap_or_default();
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return if data.len() < MAX_LINE { Ok(None) } else { Err(Flaw::Line) };
    };
    let line = within.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Flaw::Line)?;
    let line = line.strip_prefix(SIGNATURE).ok_or(Flaw::Line)?;
    let text = std::str::from_utf8(line).map_err(|_| Flaw::Line)?;
    Ok(Some(Header { len: end + 1, source: source(text).ok_or(Flaw::Line)? }))
}

/// Behind the signature; `None` outside of an `Option` is a flaw.
#[allow(clippy::option_option, reason = "malformed, and no address, are two things")]
fn source(text: &str) -> Option<Option<SocketAddr>> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever stands behind it is to be ignored.
        return Some(None);
    }
    let [source, target, source_port, target_port] =
        [words.next()?, words.next()?, words.next()?, words.next()?];
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _) = (address(source)?, address(target)?);
    let (source_port, _) = (port(source_port)?, port(target_port)?);
    words.next().is_none().then_some(Some(SocketAddr::new(source, source_port)))
}

/// 0–65535 without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let short = text == "0" || !text.starts_with('0');
    (plain && short).then(|| text.parse().ok())?
}
