//! Socket calls that are no ring operations: options, addresses, FIN, TCP_INFO. Thin wrappers; each
//! takes a descriptor that its caller keeps open.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

use socket2::SockAddr;

use crate::model::TcpKeepalive;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets one socket option to a plain C value.
pub(super) fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for `len` bytes for the length of the call.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), len) })
}

/// The error that the kernel has noted of a socket (SO_ERROR), as one; it is forgotten then.
pub(super) fn take_error(fd: RawFd) -> io::Result<()> {
    let mut code: libc::c_int = 0;
    let mut len = size_of_val(&code) as libc::socklen_t;
    let place = (&raw mut code).cast();
    // SAFETY: `place` has room for `len` bytes.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, place, &raw mut len) })?;
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Switches TCP keep-alive on with these times; sockets that a listening socket accepts inherit it.
pub(super) fn set_keepalive(fd: RawFd, times: TcpKeepalive) -> io::Result<()> {
    let seconds =
        |time: Duration| libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
    let count = libc::c_int::try_from(times.count).unwrap_or(libc::c_int::MAX);
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &seconds(times.idle))?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &seconds(times.interval))?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, &count)?;
    let on: libc::c_int = 1;
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &on)
}

/// Has a UDP socket tell each datagram's local address, and errors with the peer that they are
/// about, if `errors`.
pub(super) fn set_datagram_options(fd: RawFd, v6: bool, errors: bool) -> io::Result<()> {
    let (level, address, error) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_RECVERR)
    };
    set_option(fd, level, address, &1)?;
    set_option(fd, level, error, &libc::c_int::from(errors))
}

/// Lets a socket, not bound yet, have an address that is not this host's. Needs CAP_NET_ADMIN or
/// CAP_NET_RAW.
pub(super) fn set_transparent(fd: RawFd, v6: bool) -> io::Result<()> {
    let (level, name) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
        false => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    };
    let on: libc::c_int = 1;
    set_option(fd, level, name, &on)
}

pub(super) fn shutdown_write(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::shutdown(fd, libc::SHUT_WR) })
}

/// The next close sends RST instead of FIN.
pub(super) fn reset_on_close(fd: RawFd) -> io::Result<()> {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &now)
}

type NameCall =
    unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn address(fd: RawFd, call: NameCall) -> io::Result<SocketAddr> {
    // SAFETY: `try_init` gives storage and length that fit together; the call fills both.
    let ((), address) =
        unsafe { SockAddr::try_init(|storage, len| check(call(fd, storage.cast(), len))) }?;
    address.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))
}

pub(super) fn peer_addr(fd: RawFd) -> io::Result<SocketAddr> {
    address(fd, libc::getpeername)
}

pub(super) fn local_addr(fd: RawFd) -> io::Result<SocketAddr> {
    address(fd, libc::getsockname)
}

/// What the kernel measures on a connection (`tcp(7)`, TCP_INFO).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The kernel's state number (1 = ESTABLISHED, 8 = CLOSE_WAIT).
    pub state: u8,
    /// Smoothed round-trip time, in microseconds.
    pub rtt_us: u32,
    /// Its variance, in microseconds.
    pub rttvar_us: u32,
    /// Segments that were sent again.
    pub total_retrans: u32,
    /// Bytes that the peer has acknowledged.
    pub bytes_acked: u64,
    /// Segments that have come, those without data included; wraps around.
    pub segments_in: u32,
    /// Segments that were sent and that it has not.
    pub unacked: u32,
}

pub(super) fn tcp_info(fd: RawFd) -> io::Result<TcpInfo> {
    let mut raw = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let place = raw.as_mut_ptr().cast();
    // SAFETY: `place` has room for `len` bytes.
    check(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut len) })?;
    // SAFETY: all-zero is a valid tcp_info, and the kernel has overwritten the part it knows.
    let raw = unsafe { raw.assume_init() };
    let (bytes_acked, segments_in) = newer_info(fd).unwrap_or_default();
    Ok(TcpInfo {
        state: raw.tcpi_state,
        rtt_us: raw.tcpi_rtt,
        rttvar_us: raw.tcpi_rttvar,
        total_retrans: raw.tcpi_total_retrans,
        unacked: raw.tcpi_unacked,
        bytes_acked,
        segments_in,
    })
}

/// Datagrams that came and were dropped because the receive buffer was full (SO_MEMINFO, since
/// 4.12).
pub(super) fn datagrams_missed(fd: RawFd) -> io::Result<u64> {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut raw = [0u32; DROPS + 1];
    let mut len = size_of_val(&raw) as libc::socklen_t;
    let place = raw.as_mut_ptr().cast();
    // SAFETY: `place` has room for `len` bytes; any bytes make valid numbers.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, place, &raw mut len)
    })?;
    Ok(raw[DROPS].into())
}

/// What a log line says of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSummary {
    /// Smoothed round-trip time, in microseconds.
    pub rtt_us: u32,
    /// Segments that have come, those without data included; wraps around.
    pub segments_in: u32,
    /// Segments that were sent, the same; those sent again count.
    pub segments_out: u32,
}

/// In one call, of which the kernel copies no further than what is asked for.
pub(super) fn tcp_summary(fd: RawFd) -> io::Result<TcpSummary> {
    const RTT: usize = std::mem::offset_of!(libc::tcp_info, tcpi_rtt) / size_of::<u32>();
    // Behind the part of the struct that libc declares: `tcpi_segs_out` at byte 136 and
    // `tcpi_segs_in` at byte 140 (both since 4.2).
    let mut raw = [0u32; 36];
    let mut len = size_of_val(&raw) as libc::socklen_t;
    let place = raw.as_mut_ptr().cast();
    // SAFETY: `place` has room for `len` bytes; any bytes make valid numbers.
    check(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut len) })?;
    Ok(TcpSummary { rtt_us: raw[RTT], segments_out: raw[34], segments_in: raw[35] })
}

/// Two figures behind the part of the struct that libc declares: `tcpi_bytes_acked` at byte 120
/// (since 4.1) and `tcpi_segs_in` at byte 140 (since 4.2).
fn newer_info(fd: RawFd) -> io::Result<(u64, u32)> {
    let mut raw = [0u64; 32];
    let mut len = size_of_val(&raw) as libc::socklen_t;
    let place = raw.as_mut_ptr().cast();
    // SAFETY: `place` has room for `len` bytes; any bytes make valid numbers.
    check(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut len) })?;
    let [.., a, b, c, d] = raw[17].to_ne_bytes();
    Ok((raw[15], u32::from_ne_bytes([a, b, c, d])))
}

/// Makes a listening socket drop the SYNs of new connections (they are sent again later, and meet a
/// closed port then), while handshakes under way still complete.
pub(super) fn drop_new_syns(fd: RawFd) -> io::Result<()> {
    // Classic BPF; the data starts with the TCP header, whose byte 13 holds the flags.
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_ANY: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const SYN: u32 = 0x02;
    let filter = [
        libc::sock_filter { code: LOAD_BYTE, jt: 0, jf: 0, k: 13 },
        libc::sock_filter { code: JUMP_IF_ANY, jt: 0, jf: 1, k: SYN },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: u32::MAX },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Undoes [`drop_new_syns`], by whatever process; no error where nobody has done that.
pub(super) fn take_new_syns(fd: RawFd) -> io::Result<()> {
    // The kernel wants a number, and does not look at it.
    let number: libc::c_int = 0;
    match set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &number) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// Takes one completed connection without waiting; `None` when there is none.
pub(super) fn accept_now(fd: RawFd) -> io::Result<Option<RawFd>> {
    let flags = libc::SOCK_CLOEXEC;
    // A listening socket of ours is non-blocking, so this never waits.
    // SAFETY: null address and length mean that no address is wanted.
    let got = unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if got >= 0 {
        return Ok(Some(got));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error => Err(error),
    }
}

/// Whether calls on this socket wait.
pub(super) fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    // All other flags of a socket's file are off.
    let flags = if on { libc::O_NONBLOCK } else { 0 };
    // SAFETY: takes numbers only.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) })
}

/// The two ends, to read and to write, of a pipe that never waits, and its room: about so many
/// bytes, or fewer where this user has too many large ones (pipe(7), pipe-user-pages-soft).
pub(super) fn pipe(bytes: usize) -> io::Result<((RawFd, RawFd), usize)> {
    let mut ends = [-1; 2];
    // SAFETY: the array has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    let room = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: takes numbers only. A refusal leaves the size that it has.
    unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, room) };
    // SAFETY: as above.
    let room = unsafe { libc::fcntl(ends[1], libc::F_GETPIPE_SZ) };
    Ok(((ends[0], ends[1]), usize::try_from(room).unwrap_or_default()))
}

/// Moves at most `most` bytes from a socket into a pipe or back; the number of the error instead.
/// That a peer is gone is told by an error alone: Rust's start of a program ignores SIGPIPE.
pub(super) fn splice(from: RawFd, to: RawFd, most: usize) -> Result<usize, i32> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let none = std::ptr::null_mut();
    // SAFETY: null offsets mean that neither side has one.
    told(unsafe { libc::splice(from, none, to, none, most, flags) })
}

/// Receives a piece, of at most `most` bytes, without waiting, and puts it into an empty pipe; as
/// `splice` tells.
pub(super) fn copy_into_pipe(socket: RawFd, pipe: RawFd, most: usize) -> Result<usize, i32> {
    // A write of so many bytes goes into an empty pipe as a whole, whatever its size (pipe(7)).
    let mut piece = [0u8; libc::PIPE_BUF];
    let place = piece.as_mut_ptr().cast();
    // SAFETY: `place` has room for as many bytes as are asked for.
    let came =
        told(unsafe { libc::recv(socket, place, most.min(piece.len()), libc::MSG_DONTWAIT) })?;
    if came == 0 {
        return Ok(0);
    }
    // SAFETY: the first `came` bytes of the array are valid.
    told(unsafe { libc::write(pipe, piece.as_ptr().cast(), came) })
}

/// Whether bytes have arrived that nobody has received; also when the kernel doesn't say.
pub(super) fn has_unread(socket: RawFd) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is what FIONREAD writes to.
    let asked = unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut bytes) };
    asked < 0 || bytes > 0
}

/// A count of bytes, or the number of the error.
fn told(result: isize) -> Result<usize, i32> {
    usize::try_from(result)
        .map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

pub(super) fn close(fd: RawFd) {
    // SAFETY: the caller owns the descriptor and has given up using it.
    unsafe { libc::close(fd) };
}
