//! Writing headers, for members that want to know whom a connection is for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::v2;

/// Which header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// A block of bytes, which can carry further values.
    V2,
    /// The same of a datagram.
    Datagram,
}

/// Appends the header of a connection or datagram from `source` to `target`. `values` are TLVs for
/// version 2, whole ones. Of two families both addresses are written as IPv6.
pub fn write(
    version: Version,
    source: SocketAddr,
    target: SocketAddr,
    values: &[u8],
    out: &mut Vec<u8>,
) {
    let (from, to) = match (source.ip(), target.ip()) {
        (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) => (from, to),
        (from, to) => (wide(from).into(), wide(to).into()),
    };
    match version {
        Version::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let (out_of, into) = (source.port(), target.port());
            // A line is written once a connection.
            let line = format!("PROXY {family} {from} {to} {out_of} {into}\r\n");
            out.extend_from_slice(line.as_bytes());
        }
        Version::V2 | Version::Datagram => {
            let transport = if version == Version::Datagram { 2 } else { 1 };
            out.extend_from_slice(v2::SIGNATURE);
            let (family, addresses) = if from.is_ipv4() { (0x10, 12) } else { (0x20, 36) };
            out.extend_from_slice(&[0x21, family | transport]);
            let len = u16::try_from(addresses + values.len()).unwrap_or(addresses as u16);
            out.extend_from_slice(&len.to_be_bytes());
            for ip in [from, to] {
                match ip {
                    IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&target.port().to_be_bytes());
            if usize::from(len) > addresses {
                out.extend_from_slice(values);
            }
        }
    }
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse, values};
    use super::*;

    /// R9.1-16: what is written is read as the same.
    #[test]
    fn what_is_written_can_be_read() {
        let tlvs = [0xea, 0, 3, 1, 2, 3, 4, 0, 0];
        for (source, target) in [
            ("192.0.2.1:4711", "192.0.2.2:80"),
            ("[2001:db8::1]:4711", "[2001:db8::2]:80"),
            ("192.0.2.1:1", "[2001:db8::2]:80"),
            ("[2001:db8::2]:80", "192.0.2.1:1"),
        ] {
            let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
            for version in [Version::V1, Version::V2, Version::Datagram] {
                let mut out = Vec::new();
                write(version, source, target, &tlvs, &mut out);
                let header = parse(&out).unwrap().unwrap();
                assert_eq!((header.len, header.source), (out.len(), Some(source)));
                let carried = if version == Version::V1 { &[][..] } else { &tlvs };
                assert_eq!(values(&out), carried);
            }
        }
        let mut line = Vec::new();
        let [source, target] = ["192.0.2.1:4711", "192.0.2.2:80"].map(|text| text.parse().unwrap());
        write(Version::V1, source, target, &[], &mut line);
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n");
    }

    /// A checksum is of the header that it came in: it is not passed on.
    #[test]
    fn checksums_stay_behind() {
        let [source, target] = ["192.0.2.1:4711", "192.0.2.2:80"].map(|text| text.parse().unwrap());
        let mut out = Vec::new();
        let tlvs = [1, 0, 1, 9, 3, 0, 4, 1, 2, 3, 4, 2, 0, 1, 8];
        write(Version::V2, source, target, &tlvs, &mut out);
        assert_eq!(values(&out), [1, 0, 1, 9, 2, 0, 1, 8]);
        assert_eq!(values(b"PROXY UNKNOWN\r\n"), [0; 0]);
        assert_eq!(values(&out[..20]), [0; 0]);
    }
}
