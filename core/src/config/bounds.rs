//! The bounds of configuration files, each with its reason. All inclusive.

/// Bytes of a configuration file. A file of that size holds some hundred thousand members; what
/// is larger is a wrong path (a log, a device), and must not fill the memory.
pub(super) const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Problems of one kind (errors, warnings) that are kept; the rest is counted. A file that is not
/// a configuration at all has a mistake in every line.
pub(super) const MAX_PROBLEMS: usize = 1_000;
/// Bytes of a line that is quoted in a report; problems in longer lines show no excerpt.
pub(super) const MAX_EXCERPT_LINE: usize = 400;
/// Characters of a value or key that a message quotes.
pub(super) const MAX_QUOTED_CHARS: usize = 60;
/// Characters of an object's name, as in the ELB's API.
pub(super) const MAX_NAME_CHARS: usize = 255;
/// Highest core number: the kernel's `CPU_SETSIZE` less one.
pub(super) const MAX_CORE: usize = 1_023;
/// Longest accept queue: `listen(2)` and `net.core.somaxconn` hold it in 16 bits.
pub(super) const MAX_BACKLOG: u64 = 65_535;
/// Seconds that a stopping process may wait.
pub(super) const MAX_SHUTDOWN_TIMEOUT: u64 = 3_600;
