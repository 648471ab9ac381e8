//! Descriptors that go from one process to another over a Unix socket (SCM_RIGHTS), and standard
//! streams that are exchanged. Owns no protocol; the hand-over of a binary upgrade calls it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors that one message carries at most (the kernel's SCM_MAX_FD).
pub const MAX_RIGHTS: usize = 253;
/// Room for a control message with so many, in the words that its alignment asks for.
const CONTROL_WORDS: usize = (MAX_RIGHTS * size_of::<RawFd>()).div_ceil(8) + 4;

/// Sends one byte with these descriptors, at most [`MAX_RIGHTS`], over a Unix stream socket. They
/// stay open here.
///
/// # Errors
/// The kernel's; `InvalidInput` for too many.
pub fn send_rights(socket: BorrowedFd<'_>, rights: &[BorrowedFd<'_>]) -> io::Result<()> {
    if rights.len() > MAX_RIGHTS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let numbers: Vec<RawFd> = rights.iter().map(AsRawFd::as_raw_fd).collect();
    let bytes = size_of_val(numbers.as_slice());
    let mut control = [0u64; CONTROL_WORDS];
    let mut byte = 0u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut message = message(&mut part, &mut control);
    // SAFETY: pure arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes as u32) } as _;
    // SAFETY: the control buffer has room for a header and MAX_RIGHTS descriptors, is aligned for
    // headers, and `numbers` has `bytes` bytes.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes as u32) as _;
        let data = libc::CMSG_DATA(header);
        std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), data, bytes);
    }
    again(|| {
        // SAFETY: all that `message` points to outlives the call.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) }
    })?;
    Ok(())
}

/// Receives what [`send_rights`] has sent: the descriptors, close-on-exec.
///
/// # Errors
/// The kernel's; `UnexpectedEof` when the other side is gone, `InvalidData` when not all of them
/// could be taken (RLIMIT_NOFILE).
pub fn recv_rights(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut byte = 0u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut message = message(&mut part, &mut control);
    let flags = libc::MSG_CMSG_CLOEXEC;
    let got = again(|| {
        // SAFETY: all that `message` points to outlives the call.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) }
    })?;
    let mut rights = Vec::new();
    // SAFETY: the kernel has filled the control buffer with whole headers, and msg_controllen says
    // how far; each descriptor in it is new and nobody else's.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let is_rights = (*header).cmsg_type == libc::SCM_RIGHTS;
            if (*header).cmsg_level == libc::SOL_SOCKET && is_rights {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for at in 0..bytes / size_of::<RawFd>() {
                    rights.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    match got {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if message.msg_flags & libc::MSG_CTRUNC != 0 => {
            let what = "descriptors were cut off: is RLIMIT_NOFILE reached?";
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
        _ => Ok(rights),
    }
}

fn message(part: &mut libc::iovec, control: &mut [u64; CONTROL_WORDS]) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr: null pointers with no lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(control) as _;
    message
}

/// Does it again while signals interrupt it.
fn again(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Takes standard input over, and leaves /dev/null in its place.
///
/// # Errors
/// The kernel's; standard input stays then.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let nothing = File::open("/dev/null")?;
    // SAFETY: duplicates a descriptor; a closed one is refused.
    let own = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_DUPFD_CLOEXEC, 3) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let own = unsafe { OwnedFd::from_raw_fd(own) };
    replace(&nothing, libc::STDIN_FILENO)?;
    Ok(own)
}

/// From now on standard error goes to `next`.
///
/// # Errors
/// The kernel's; it stays as it is then.
pub fn replace_stderr(next: &OwnedFd) -> io::Result<()> {
    replace(next, libc::STDERR_FILENO)
}

fn replace(next: &impl AsRawFd, stream: RawFd) -> io::Result<()> {
    // SAFETY: both are descriptors; the standard stream is nobody's to close.
    match unsafe { libc::dup2(next.as_raw_fd(), stream) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn rights_arrive_as_the_same_files() {
        let (one, other) = UnixStream::pair().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let many = vec![socket.as_fd(); MAX_RIGHTS];
        send_rights(one.as_fd(), &many).unwrap();
        send_rights(one.as_fd(), &many[..1]).unwrap();
        let rights = recv_rights(other.as_fd()).unwrap();
        assert_eq!(rights.len(), MAX_RIGHTS);
        let last = recv_rights(other.as_fd()).unwrap().pop().unwrap();
        let same = std::net::UdpSocket::from(last).local_addr().unwrap();
        assert_eq!(same, socket.local_addr().unwrap());
        let too_many = vec![socket.as_fd(); MAX_RIGHTS + 1];
        assert!(send_rights(one.as_fd(), &too_many).is_err());
        drop(one);
        let error = recv_rights(other.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
