//! The error queue of a UDP socket (IP_RECVERR): which peer an ICMP error, or one of the kernel's
//! own, was about. Read by a plain system call, since errors are rare and must be fetched at once:
//! a socket with unread errors counts as ready all the time.

use std::io;
use std::os::fd::RawFd;

use super::Refusal;
use super::wire::{self, NAME_ROOM};

/// Room for an error's control messages: the error with the address of who reported it, and the
/// local address.
const CONTROL_ROOM: usize = 256;

/// Takes the next error that the kernel holds; `None` when there is none (left).
pub(super) fn next(fd: RawFd) -> Option<Refusal> {
    loop {
        // One that names no peer or no reason helps nobody.
        if let Ok(refusal) = read(fd)? {
            return Some(refusal);
        }
    }
}

/// An entry of the queue without peer or reason.
struct Unreadable;

fn read(fd: RawFd) -> Option<Result<Refusal, Unreadable>> {
    let mut name = [0u64; NAME_ROOM / 8];
    let mut control = [0u64; CONTROL_ROOM / 8];
    // SAFETY: all-zero bytes are a valid msghdr: null pointers, zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = NAME_ROOM as libc::socklen_t;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_ROOM;
    // SAFETY: the header points at the two areas above with their lengths; both outlive the call.
    let got =
        unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if got < 0 {
        return match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => Some(Err(Unreadable)),
            _ => None,
        };
    }
    let name_bytes = bytes(&name);
    let name_len = (header.msg_namelen as usize).min(NAME_ROOM);
    let control_bytes = bytes(&control);
    let control_len = header.msg_controllen.min(CONTROL_ROOM);
    let errno = wire::read_control(control_bytes.get(..control_len)?).errno;
    let refusal = wire::read_name(name_bytes.get(..name_len)?)
        .zip(errno)
        .map(|(peer, code)| Refusal { peer, error: io::Error::from_raw_os_error(code).kind() });
    Some(refusal.ok_or(Unreadable))
}

fn bytes(words: &[u64]) -> &[u8] {
    // SAFETY: the same memory; a u64 is eight initialised bytes, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}
