//! Signals as readable events, on a shard or on an ordinary thread.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::readable;

/// Signals taken over from their default actions.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks `signals` (libc's numbers) in this thread and those it will start, and takes them
    /// over. Call it in `main`, before there are other threads. (std's `Command` unblocks them in
    /// children.)
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal; else the kernel's.
    pub fn block(signals: &[i32]) -> io::Result<Signals> {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `sigemptyset` initialises the set.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for &signal in signals {
            // SAFETY: the set is initialised; a bad number is refused with -1.
            if unsafe { libc::sigaddset(set.as_mut_ptr(), signal) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let none = std::ptr::null_mut();
        // SAFETY: the set is initialised; the old mask is not wanted.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), none) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: the set is initialised.
        let fd =
            unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and is ours alone.
        Ok(Signals { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal's number; on a shard.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn next(&self) -> io::Result<i32> {
        loop {
            readable::readable(self.fd.as_fd()).await?;
            if let Some(signal) = self.take()? {
                return Ok(signal);
            }
        }
    }

    /// The next signal's number, on an ordinary thread; blocks it for at most `limit` (`None` = for
    /// ever). `Ok(None)` when the time is over.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<Option<i32>> {
        let millis = limit.map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, millis) };
        match ready {
            ..0 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                error => Err(error),
            },
            0 => Ok(None),
            _ => self.take(),
        }
    }

    fn take(&self) -> io::Result<Option<i32>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has room for `size` bytes.
        let got = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if got < 0 {
            return match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            };
        }
        // SAFETY: all-zero is valid, and the kernel has filled it in.
        let info = unsafe { info.assume_init() };
        Ok(i32::try_from(info.ssi_signo).ok())
    }
}
