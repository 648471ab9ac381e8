//! System calls that neither the standard library nor socket2 offers: descriptor limits, the set of
//! allowed cores, descriptors for other processes. Owns every `unsafe` block of `core::net`; knows
//! no policy.
#![allow(unsafe_code, reason = "each block calls one libc function and says why it is sound")]

mod rights;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

pub use rights::{MAX_RIGHTS, recv_rights, replace_stderr, send_rights, take_stdin};

/// A pair of resource limits; `u64::MAX` means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds now.
    pub soft: u64,
    /// How far an unprivileged process may raise `soft`.
    pub hard: u64,
}

/// RLIMIT_NOFILE: how many descriptors this process may hold.
///
/// # Errors
/// Only where the kernel forbids the call (seccomp).
pub fn nofile() -> io::Result<Limit> {
    limit(libc::RLIMIT_NOFILE)
}

/// RLIMIT_MEMLOCK: bytes of memory that this process may lock.
///
/// # Errors
/// Only where the kernel forbids the call (seccomp).
pub fn memlock() -> io::Result<Limit> {
    limit(libc::RLIMIT_MEMLOCK)
}

/// Raises the soft descriptor limit to the hard one and says what holds then.
///
/// # Errors
/// Only where the kernel forbids the call (seccomp); the old limit then stays.
pub fn raise_nofile() -> io::Result<Limit> {
    let old = nofile()?;
    if old.soft >= old.hard {
        return Ok(old);
    }
    let new = libc::rlimit { rlim_cur: old.hard, rlim_max: old.hard };
    // SAFETY: `new` is a valid rlimit that outlives the call; the kernel only reads it.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const new) } {
        0 => Ok(Limit { soft: old.hard, hard: old.hard }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn limit(which: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `value` is a valid, writable rlimit that outlives the call.
    match unsafe { libc::getrlimit(which, &raw mut value) } {
        0 => Ok(Limit { soft: value.rlim_cur, hard: value.rlim_max }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// May this process use addresses that are not this host's (IP_TRANSPARENT)? `false`: it lacks both
/// CAP_NET_ADMIN and CAP_NET_RAW in the user namespace of its network.
///
/// # Errors
/// No socket could be had.
pub fn may_be_transparent() -> io::Result<bool> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    match socket.set_ip_transparent_v4(true) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}

/// May this process, as the user that it acts for, make files in this folder, or write this file?
///
/// # Errors
/// It may not, or there is none; the kernel's words.
pub fn may_write(path: &Path) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let wanted = if path.is_dir() { libc::W_OK | libc::X_OK } else { libc::W_OK };
    // SAFETY: `text` is a string with its end that outlives the call.
    let asked = unsafe { libc::faccessat(libc::AT_FDCWD, text.as_ptr(), wanted, libc::AT_EACCESS) };
    if asked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The process at the other end of a connection to a Unix socket: the one that listened there.
///
/// # Errors
/// It is no such connection.
pub fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of_val(&peer)).unwrap_or_default();
    // SAFETY: pointer and length describe `peer`, which the kernel fills at most to its end.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    match u32::try_from(peer.pid) {
        Ok(pid) if asked == 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that a pipe takes whole, or not at all, without waiting (PIPE_BUF).
pub const PIPE_BYTES: usize = libc::PIPE_BUF;

/// Would a write of [`PIPE_BYTES`] end at once? Files always take them; a pipe, socket or terminal
/// whose reader has stalled does not.
pub fn takes_bytes(fd: BorrowedFd<'_>) -> bool {
    takes_bytes_within(fd, Duration::ZERO)
}

/// Does that become so within `limit` (cut off to milliseconds)? The thread waits meanwhile; a
/// signal ends the wait early.
pub fn takes_bytes_within(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let millis = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid pollfd that outlives the call.
    let found = unsafe { libc::poll(&raw mut asked, 1, millis) };
    // What can't be asked is written to.
    found > 0 || (found < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted)
}

/// Words of the core mask: room for 8,192 cores, the most that Linux can be built for.
const MASK_WORDS: usize = 8_192 / WORD_BITS;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// The cores that this thread may run on (taskset, cpuset, systemd's CPUAffinity), ascending.
///
/// # Errors
/// Only where the kernel forbids the call (seccomp).
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let mut mask: [libc::c_ulong; MASK_WORDS] = [0; MASK_WORDS];
    // SAFETY: the pointer and the length in bytes describe `mask`, which the kernel fills at most
    // to its end; c_ulong has the layout of the words inside cpu_set_t.
    let done = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let bits = |(word, value): (usize, &libc::c_ulong)| {
        let value = *value;
        (0..WORD_BITS).filter(move |bit| value >> bit & 1 == 1).map(move |b| word * WORD_BITS + b)
    };
    Ok(mask.iter().enumerate().flat_map(bits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_ordered() {
        let files = nofile().unwrap();
        assert!(files.soft > 0 && files.soft <= files.hard);
        assert!(memlock().unwrap().hard > 0);
        let raised = raise_nofile().unwrap();
        assert_eq!(raised.soft, files.hard);
        assert_eq!(nofile().unwrap(), raised);
    }

    #[test]
    fn the_allowed_cores_are_those_of_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
        let mut expected = Vec::new();
        for part in list.trim().split(',') {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            expected.extend(low.parse::<usize>().unwrap()..=high.parse().unwrap());
        }
        assert_eq!(allowed_cores().unwrap(), expected);
    }
}
