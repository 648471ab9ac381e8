//! Looks at the server's process and its gauges from outside.

use crate::process::Server;

/// Resident bytes that the server may use under any load: "under 64 MiB".
pub const RESIDENT_MOST: u64 = 64 << 20;

/// The most memory that the process has had resident, in bytes.
pub fn resident_peak(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Open descriptors of the process.
pub fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// The sum of a gauge over its labels.
pub fn sum(server: &Server, name: &str) -> f64 {
    let text = server.metrics();
    let series = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
