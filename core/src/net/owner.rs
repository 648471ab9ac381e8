//! Who holds a port: reads `/proc/net/tcp*` or `udp*` and the descriptors under `/proc`. Best
//! effort, for error messages only: without the right to look into other processes the answer is
//! `None`.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Place, Transport};

/// The kernel's number for a listening socket in `/proc/net/tcp`.
const LISTEN: u8 = 0x0A;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its process id, as seen from our pid namespace.
    pub pid: u32,
    /// Its name (`comm`, at most 15 bytes).
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// One line of `/proc/net/tcp` or `tcp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    state: u8,
    inode: u64,
}

/// The process whose socket keeps `addr` busy: a listening one first, then any other.
pub fn of(place: Place) -> Option<Owner> {
    let addr = place.address;
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let tables = match place.transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let tables = tables.map(read);
    let rows = || tables.iter().flat_map(|t| t.lines()).filter_map(parse_row);
    let clashing = |row: &Row| clashes(row.local, addr) && row.inode != 0;
    let listening = rows().find(|row| clashing(row) && row.state == LISTEN);
    owner_of(listening.or_else(|| rows().find(clashing))?.inode)
}

/// True when sockets of these two addresses cannot both listen.
fn clashes(held: SocketAddr, wanted: SocketAddr) -> bool {
    let same = held.ip().to_canonical() == wanted.ip().to_canonical();
    let any = |ip: IpAddr| ip.is_unspecified();
    held.port() == wanted.port() && (same || any(held.ip()) || any(wanted.ip()))
}

/// `  0: 0100007F:1F90 00000000:0000 0A …  uid timeout inode …`; `None` for the heading.
fn parse_row(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace();
    let local = parse_addr(fields.nth(1)?)?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Row { local, state, inode })
}

/// The kernel prints each 32-bit word of an address as a number of the machine's byte order.
fn parse_addr(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = if ip.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    } else {
        let mut octets = [0; 16];
        for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&word(at)?);
        }
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Some(SocketAddr::new(ip, port))
}

/// The first process with a descriptor on socket `inode`.
fn owner_of(inode: u64) -> Option<Owner> {
    let wanted = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pid = pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flat_map(Iterator::flatten)
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Owner { pid, name: name.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                    1000        0 12345 1 0000000000000000 100 0 0 10 0";
        let row = parse_row(line).unwrap();
        let local = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(row, Row { local, state: LISTEN, inode: 12345 });
        let six = "00000000000000000000000001000000:0050";
        assert_eq!(parse_addr(six).unwrap(), "[::1]:80".parse().unwrap());
        for bad in ["", "sl local_address rem_address st", "0: zz:1 a b c d e f g h"] {
            assert_eq!(parse_row(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_the_same_port_and_address_clash() {
        let at = |s: &str| s.parse::<SocketAddr>().unwrap();
        assert!(clashes(at("0.0.0.0:80"), at("127.0.0.1:80")));
        assert!(clashes(at("127.0.0.1:80"), at("0.0.0.0:80")));
        assert!(clashes(at("[::ffff:127.0.0.1]:80"), at("127.0.0.1:80")));
        assert!(!clashes(at("127.0.0.1:80"), at("127.0.0.1:81")));
        assert!(!clashes(at("127.0.0.1:80"), at("127.0.0.2:80")));
    }

    #[test]
    fn our_own_listener_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner =
            of(Place { transport: Transport::Tcp, address: socket.local_addr().unwrap() }).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert!(!owner.name.is_empty());
    }
}
