//! Reads `/proc`: processor time and memory of the target, of our own threads, and our limits.
//! Keeps no state. Called by `engine`, `shard`, `idle` and `cli`.

use std::fs;
use std::io;
use std::time::Duration;

/// Ticks a second in `/proc/PID/stat`: USER_HZ, 100 on every machine that Weir runs on.
const USER_HZ: u64 = 100;

/// Processor time that a process has used, user and system, all threads, ended ones included.
/// Steps of 10 ms.
///
/// # Errors
/// There is no such process, it has ended (even if its parent has not asked after it yet), or
/// `/proc` isn't mounted.
pub fn process_cpu(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    if has_ended(&text) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has ended"));
    }
    stat_ticks(&text).map(ticks).ok_or_else(|| odd("stat"))
}

/// Resident memory of a process in bytes: the sum over its mappings where we may read it (exact),
/// else VmRSS.
///
/// # Errors
/// There is no such process.
pub fn resident(pid: u32) -> io::Result<u64> {
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        && let Some(bytes) = kilobytes(&text, "Rss:")
    {
        return Ok(bytes);
    }
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kilobytes(&text, "VmRSS:").ok_or_else(|| odd("status"))
}

/// Processor time that the calling thread has used, to the nanosecond; `None` where the kernel
/// doesn't tell.
pub fn thread_cpu() -> Option<Duration> {
    schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// Processor time of those threads of our process whose name starts with `prefix`; `None` when
/// there is none.
pub fn own_threads_cpu(prefix: &str) -> Option<Duration> {
    let mut sum = None;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread that ends in between is passed over.
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        if read("comm").is_some_and(|name| name.starts_with(prefix))
            && let Some(time) = read("schedstat").as_deref().and_then(schedstat)
        {
            sum = Some(sum.unwrap_or_default() + time);
        }
    }
    sum
}

/// The cores that this process may run on; empty where the kernel doesn't tell.
pub fn allowed_cores() -> Vec<usize> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| crate::units::parse_cores(list.trim()).ok()).unwrap_or_default()
}

/// How many files this process may open (the soft limit); `None` where the kernel doesn't tell.
pub fn descriptor_limit() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / USER_HZ)
}

/// Is it a zombie, or dead?
fn has_ended(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, after)| after.split_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// utime + stime. The name in parentheses may itself hold spaces and parentheses.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

fn odd(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/…/{file} reads strangely"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_trap() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 25 17 3 4 20 0 1 0 9 10 11";
        assert_eq!(stat_ticks(stat).map(ticks), Some(Duration::from_millis(420)));
        assert_eq!(stat_ticks("42 (x"), None);
        assert_eq!(stat_ticks("42 (x) S 1"), None);
    }

    #[test]
    fn a_process_that_ended_has_no_figure() {
        use std::process::{Command, Stdio};

        use weir_core::time::clock::mono;

        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        process_cpu(child.id()).unwrap();
        drop(child.stdin.take());
        // Nobody asks after it before the end of the test: it stays a zombie.
        let limit = mono().plus(Duration::from_secs(20));
        while process_cpu(child.id()).is_ok() {
            assert!(mono() < limit, "cat still runs");
            std::thread::yield_now();
        }
        let error = process_cpu(child.id()).unwrap_err();
        assert_eq!(error.to_string(), "it has ended");
        child.wait().unwrap();
    }

    #[test]
    fn sizes_are_in_bytes() {
        assert_eq!(kilobytes("A: 1 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kilobytes("VmRSS: x kB", "VmRSS:"), None);
    }

    #[test]
    fn our_own_process_can_be_read() {
        let me = std::process::id();
        assert!(resident(me).unwrap() > 100_000);
        process_cpu(me).unwrap();
        assert!(thread_cpu().is_some());
        assert!(!allowed_cores().is_empty());
        assert!(descriptor_limit().unwrap() > 3);
        assert!(process_cpu(u32::MAX).is_err());
        assert_eq!(own_threads_cpu("no thread is called so"), None);
    }

    #[test]
    fn threads_are_found_by_name() {
        let (ready, wait) = std::sync::mpsc::channel::<()>();
        let (seen, told) = std::sync::mpsc::channel();
        let worker = std::thread::Builder::new().name("lg-cpu-test-1".into()).spawn(move || {
            seen.send(thread_cpu()).unwrap();
            let _ = wait.recv();
        });
        assert!(told.recv().unwrap().is_some());
        assert!(own_threads_cpu("lg-cpu-test").is_some());
        drop(ready);
        worker.unwrap().join().unwrap();
    }
}
