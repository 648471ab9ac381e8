//! The bytes that recvmsg and sendmsg speak in: socket addresses, control messages, and the head of
//! a multishot receive. Pure; reads what the kernel wrote without trusting any length in it.
//!
//! Layouts: `ip(7)`, `ipv6(7)`, `cmsg(3)`, and `struct io_uring_recvmsg_out` of the kernel's
//! `io_uring.h`. All numbers are in the machine's order, but for ports and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for a socket address (28 bytes for IPv6), rounded up so that what follows is aligned.
pub(super) const NAME_ROOM: usize = 32;
/// Room for the control messages of a datagram: one with the local address, 40 bytes at most.
pub(super) const CONTROL_ROOM: usize = 64;
/// Bytes of `struct io_uring_recvmsg_out`.
const OUT_BYTES: usize = 16;
/// Where the datagram begins in the buffer of a multishot receive.
pub(super) const DATA_AT: usize = OUT_BYTES + NAME_ROOM + CONTROL_ROOM;
/// Bytes of a control message before its data.
const CONTROL_HEAD: usize = 16;
/// Control messages begin at multiples of this.
const CONTROL_ALIGN: usize = 8;

/// What comes with a datagram or with an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    /// The address that the datagram was sent to.
    pub(super) local: Option<IpAddr>,
    /// The kernel's error number, from the error queue.
    pub(super) errno: Option<i32>,
}

/// The parts of a multishot receive's buffer, as far as the kernel filled it.
#[derive(Debug)]
pub(super) struct Parts<'b> {
    pub(super) name: &'b [u8],
    pub(super) control: &'b [u8],
    pub(super) flags: i32,
}

/// Takes a multishot receive's buffer apart; `None` when it is too short to hold the head.
pub(super) fn parts(buffer: &[u8]) -> Option<Parts<'_>> {
    let name_len = u32_at(buffer, 0)? as usize;
    let control_len = u32_at(buffer, 4)? as usize;
    let flags = u32_at(buffer, 12)?.cast_signed();
    let name = buffer.get(OUT_BYTES..OUT_BYTES + NAME_ROOM)?;
    let control = buffer.get(OUT_BYTES + NAME_ROOM..DATA_AT)?;
    Some(Parts {
        name: &name[..name_len.min(NAME_ROOM)],
        control: &control[..control_len.min(CONTROL_ROOM)],
        flags,
    })
}

/// Reads a socket address; `None` for any other family.
pub(super) fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(array(name, 0)?));
    let port = u16::from_be_bytes(array(name, 2)?);
    match family {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(array::<4>(name, 4)?);
            Some(SocketAddr::from((ip, port)))
        }
        libc::AF_INET6 => {
            let flow = u32_at(name, 4)?;
            let ip = Ipv6Addr::from(array::<16>(name, 8)?);
            Some(SocketAddrV6::new(ip, port, flow, u32_at(name, 24)?).into())
        }
        _ => None,
    }
}

/// Writes a socket address; returns how many bytes of `room` it takes.
pub(super) fn write_name(addr: SocketAddr, room: &mut [u8; NAME_ROOM]) -> usize {
    room.fill(0);
    room[2..4].copy_from_slice(&addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(addr) => {
            room[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            room[4..8].copy_from_slice(&addr.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(addr) => {
            room[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            room[4..8].copy_from_slice(&addr.flowinfo().to_ne_bytes());
            room[8..24].copy_from_slice(&addr.ip().octets());
            room[24..28].copy_from_slice(&addr.scope_id().to_ne_bytes());
            size_of::<libc::sockaddr_in6>()
        }
    }
}

/// Reads the control messages that are ours; the others are passed over.
pub(super) fn read_control(mut area: &[u8]) -> Control {
    let mut control = Control::default();
    while let Some((len, level, kind)) = control_head(area) {
        let data = area.get(CONTROL_HEAD..len).unwrap_or_default();
        match (level, kind) {
            // struct in_pktinfo: interface, our address for the answer, destination.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                control.local = array::<4>(data, 4).map(|ip| Ipv4Addr::from(ip).into());
            }
            // struct in6_pktinfo: destination, interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                control.local = array::<16>(data, 0).map(|ip| Ipv6Addr::from(ip).into());
            }
            // struct sock_extended_err begins with the error number.
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                control.errno = u32_at(data, 0).map(u32::cast_signed);
            }
            _ => {}
        }
        area = area.get(len.next_multiple_of(CONTROL_ALIGN)..).unwrap_or_default();
    }
    control
}

/// Length, level and type of the first control message.
fn control_head(area: &[u8]) -> Option<(usize, i32, i32)> {
    let len = usize::from_ne_bytes(array(area, 0)?);
    let level = i32::from_ne_bytes(array(area, 8)?);
    let kind = i32::from_ne_bytes(array(area, 12)?);
    (CONTROL_HEAD..=area.len()).contains(&len).then_some((len, level, kind))
}

/// Writes the control message that makes `from` a datagram's source; returns how many bytes of
/// `room` it takes.
pub(super) fn write_source(from: IpAddr, room: &mut [u8; CONTROL_ROOM]) -> usize {
    room.fill(0);
    let (level, kind, at, len) = match from {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, 4, size_of::<libc::in_pktinfo>()),
        IpAddr::V6(_) => {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 0, size_of::<libc::in6_pktinfo>())
        }
    };
    let len = CONTROL_HEAD + len;
    room[..8].copy_from_slice(&len.to_ne_bytes());
    room[8..12].copy_from_slice(&level.to_ne_bytes());
    room[12..16].copy_from_slice(&kind.to_ne_bytes());
    let at = CONTROL_HEAD + at;
    match from {
        IpAddr::V4(ip) => room[at..at + 4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => room[at..at + 16].copy_from_slice(&ip.octets()),
    }
    len.next_multiple_of(CONTROL_ALIGN)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in ["127.9.9.9:53", "[::1]:1", "[fe80::1%7]:65535"] {
            let addr: SocketAddr = text.parse().unwrap();
            let mut room = [0xff; NAME_ROOM];
            let len = write_name(addr, &mut room);
            assert_eq!(read_name(&room[..len]), Some(addr));
            assert_eq!(read_name(&room[..7]), None, "too short");
        }
        assert_eq!(read_name(&[0; NAME_ROOM]), None, "no family");
    }

    #[test]
    fn the_source_is_written_as_the_kernel_tells_a_local_address() {
        for text in ["127.9.9.9", "fd00::9"] {
            let ip: IpAddr = text.parse().unwrap();
            let mut room = [0; CONTROL_ROOM];
            let len = write_source(ip, &mut room);
            assert_eq!(read_control(&room[..len]).local, Some(ip));
        }
    }

    #[test]
    fn lengths_that_lie_are_not_followed() {
        let mut room = [0; CONTROL_ROOM];
        write_source("127.0.0.1".parse().unwrap(), &mut room);
        for lie in [0, 1, 15, 16, 17, 65, usize::MAX] {
            room[..8].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(read_control(&room), Control::default(), "{lie}");
        }
        assert!(parts(&[0xff; DATA_AT - 1]).is_none());
        let lying = parts(&[0xff; DATA_AT]).map(|parts| (parts.name.len(), parts.control.len()));
        assert_eq!(lying, Some((NAME_ROOM, CONTROL_ROOM)));
    }
}
