//! The bounds of configuration files, each with its reason. All inclusive.

/// Bytes of a configuration, all its files together. A file of that size holds some hundred
/// thousand members; what is larger is a wrong path (a log, a device), and must not fill the
/// memory.
pub(super) const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Files of one configuration; a glob over a wrong folder must not open everything in it.
pub(super) const MAX_FILES: usize = 1_000;
/// Includes inside includes; deeper ones are a mistake, not a structure.
pub(super) const MAX_INCLUDE_DEPTH: usize = 8;
/// Problems of one kind (errors, warnings) that are kept; the rest is counted. A file that is not
/// a configuration at all has a mistake in every line.
pub(super) const MAX_PROBLEMS: usize = 1_000;
/// Bytes of a line that is quoted in a report; problems in longer lines show no excerpt.
pub(super) const MAX_EXCERPT_LINE: usize = 400;
/// Characters of a value or key that a message quotes.
pub(super) const MAX_QUOTED_CHARS: usize = 60;
/// Names among which a misspelt reference is looked for; a search through more would be slow and
/// its answer a guess.
pub(super) const MAX_SUGGESTED: usize = 200;
/// Characters of an object's name, as in the ELB's API.
pub(super) const MAX_NAME_CHARS: usize = 255;
/// Highest core number: the kernel's `CPU_SETSIZE` less one.
pub(super) const MAX_CORE: usize = 1_023;
/// Highest NUMA node: the kernel's `MAX_NUMNODES` less one.
pub(super) const MAX_NODE: u64 = 1_023;
/// Longest accept queue: `listen(2)` and `net.core.somaxconn` hold it in 16 bits.
pub(super) const MAX_BACKLOG: u64 = 65_535;
/// Seconds that a stopping process may wait.
pub(super) const MAX_SHUTDOWN_TIMEOUT: u64 = 3_600;
/// Connections that a limit may name, the ELB's own bound.
pub(super) const MAX_CONNECTIONS: u64 = 1_000_000;
/// Addresses of a balancer: each listener opens a socket on each of them and on every shard.
pub(super) const MAX_VIPS: usize = 64;
/// Port ranges of a listener (interface section 2).
pub(super) const MAX_PORT_RANGES: usize = 10;
/// SNI certificates of a listener (interface section 2).
pub(super) const MAX_SNI: usize = 50;
/// Protocols that a listener's clients may switch to; each is compared with every upgrade.
pub(super) const MAX_UPGRADES: usize = 16;
/// Conditions of a policy, and values of one condition (interface section 2).
pub(super) const MAX_RULES: usize = 10;
/// Weighted pools of a policy (interface section 2).
pub(super) const MAX_REDIRECT_POOLS: usize = 5;
/// Characters of a rule's value or key, of a header's or cookie's name, of a URL's part.
pub(super) const MAX_TEXT: usize = 1_024;
