//! Pure: addresses as text and back, without allocation.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// An address as text. An IPv4-mapped one is written as IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressText {
    /// The longest is an IPv6 address that ends in the form of IPv4.
    bytes: [u8; 46],
    len: u8,
}

impl AddressText {
    pub(crate) fn new(address: IpAddr) -> AddressText {
        let mut text = AddressText { bytes: [0; 46], len: 0 };
        // Cannot fail: every address fits.
        let _ = write!(text, "{}", address.to_canonical());
        text
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Write for AddressText {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let start = usize::from(self.len);
        let room = self.bytes.get_mut(start..start + s.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len += s.len() as u8;
        Ok(())
    }
}

/// The address of one element of X-Forwarded-For: alone, or with a port as some proxies write it.
pub(super) fn parse_hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let alone = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    alone.or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_text() {
        for (address, text) in [
            ("1.2.3.4", "1.2.3.4"),
            ("255.255.255.255", "255.255.255.255"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("::1", "::1"),
            ("1111:2222:3333:4444:5555:6666:7777:8888", "1111:2222:3333:4444:5555:6666:7777:8888"),
        ] {
            let peer = AddressText::new(address.parse().unwrap());
            assert_eq!(peer.as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn hops_as_proxies_write_them() {
        for (hop, address) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1:4711", Some("10.0.0.1")),
            ("::1", Some("::1")),
            ("[::1]", Some("::1")),
            ("[::1]:80", Some("::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("unknown", None),
            ("10.0.0", None),
            ("10.0.0.1.5", None),
            ("010.0.0.1", None),
            ("", None),
            ("[10.0.0.1", None),
        ] {
            let address = address.map(|text| text.parse().unwrap());
            assert_eq!(parse_hop(hop.as_bytes()), address, "{hop}");
        }
    }
}
