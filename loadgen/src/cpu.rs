//! Reads `/proc`: processor time and memory of the target, of our own threads, and our limits.
//! Keeps no state. Called by `engine`, `shard`, `idle` and `cli`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use weir_core::net::sys;

/// Ticks a second in `/proc/PID/stat`: USER_HZ, 100 on every machine that Weir runs on.
const USER_HZ: u64 = 100;

/// A process that is watched. Once it has ended, its number may go to another one, which is told
/// from it by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: u32,
    /// Ticks since the machine started.
    start: u64,
}

impl Process {
    /// The one that has this number now.
    ///
    /// # Errors
    /// There is none, it has ended (even if its parent has not asked after it yet), or `/proc`
    /// isn't mounted.
    pub fn find(pid: u32) -> io::Result<Process> {
        let (start, _) = running(pid)?;
        Ok(Process { pid, start })
    }

    /// Its number.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Processor time that it has used, user and system, all threads, ended ones included. Steps of
    /// 10 ms.
    ///
    /// # Errors
    /// It has ended; another one may have its number.
    pub fn cpu(self) -> io::Result<Duration> {
        let (start, used) = running(self.pid)?;
        if start == self.start { Ok(used) } else { Err(ended("another process has its number")) }
    }

    /// Its resident memory in bytes: the sum over its mappings where we may read it (exact), else
    /// VmRSS.
    ///
    /// # Errors
    /// As [`Process::cpu`].
    pub fn resident(self) -> io::Result<u64> {
        let bytes = resident(self.pid)?;
        // Afterwards: who has the number now has had it when its memory was read.
        self.cpu().map(|_| bytes)
    }
}

/// When it started, and the processor time that it has used.
fn running(pid: u32) -> io::Result<(u64, Duration)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    if has_ended(&text) {
        return Err(ended("it has ended"));
    }
    stat(&text).map(|(start, used)| (start, ticks(used))).ok_or_else(|| odd("stat"))
}

fn ended(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// Resident memory of whatever process has this number.
fn resident(pid: u32) -> io::Result<u64> {
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        && let Some(bytes) = kilobytes(&text, "Rss:")
    {
        return Ok(bytes);
    }
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kilobytes(&text, "VmRSS:").ok_or_else(|| odd("status"))
}

/// How a thread, or several, passed their time; only differences mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// On a core.
    pub ran: Duration,
    /// Ready to run, while something else had the core.
    pub waited: Duration,
}

impl Ran {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Ran) -> Ran {
        Ran {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// How the calling thread has passed its time, to the nanosecond; `None` where the kernel doesn't
/// tell.
pub fn thread_cpu() -> Option<Ran> {
    schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// The threads of our process whose name starts with `prefix`, by their numbers.
pub fn own_threads(prefix: &str) -> BTreeMap<String, Ran> {
    let mut found = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        // A thread that ends in between is passed over.
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        if read("comm").is_some_and(|name| name.starts_with(prefix))
            && let Some(ran) = read("schedstat").as_deref().and_then(schedstat)
        {
            found.insert(task.file_name().to_string_lossy().into_owned(), ran);
        }
    }
    found
}

/// Processor time of those threads together; `None` when there is none.
pub fn own_threads_cpu(prefix: &str) -> Option<Duration> {
    let threads = own_threads(prefix);
    (!threads.is_empty()).then(|| threads.values().map(|thread| thread.ran).sum())
}

/// The cores that this process may run on; empty where the kernel doesn't tell.
pub fn allowed_cores() -> Vec<usize> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| crate::units::parse_cores(list.trim()).ok()).unwrap_or_default()
}

/// How many files this process may open, once its soft limit is raised to the hard one, which this
/// does; `None` where the kernel doesn't tell.
pub fn most_descriptors() -> Option<u64> {
    sys::raise_nofile().or_else(|_| sys::nofile()).ok().map(|limit| limit.soft)
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / USER_HZ)
}

/// Is it a zombie, or dead?
fn has_ended(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, after)| after.split_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// starttime, and utime + stime, in ticks. The name in parentheses may itself hold spaces and
/// parentheses.
fn stat(stat: &str) -> Option<(u64, u64)> {
    let (_, after) = stat.rsplit_once(')')?;
    // The third field of proc_pid_stat(5) is the first one here.
    let mut fields = after.split_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start = fields.nth(22 - 16)?.parse().ok()?;
    Some((start, user.checked_add(system)?))
}

/// Nanoseconds on a core, and ready without one (Documentation/scheduler/sched-stats.rst).
fn schedstat(text: &str) -> Option<Ran> {
    let mut times = text.split_whitespace().map_while(|word| word.parse().ok());
    let mut next = || times.next().map(Duration::from_nanos);
    Some(Ran { ran: next()?, waited: next()? })
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
    fn times_of_threads() {
        let ran =
            |text: &str| schedstat(text).map(|ran| (ran.ran.as_nanos(), ran.waited.as_nanos()));
        assert_eq!((ran("12 34 5\n"), ran("12"), ran("x 1")), (Some((12, 34)), None, None));
    }

    #[test]
    fn a_name_with_parentheses_is_no_trap() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 25 17 3 4 20 0 1 0 9 10 11";
        let (start, used) = super::stat(stat).unwrap();
        assert_eq!((start, ticks(used)), (9, Duration::from_millis(420)));
        assert_eq!(super::stat("42 (x"), None);
        assert_eq!(super::stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_process_that_ended_has_no_figure() {
        use std::process::{Command, Stdio};

        use weir_core::time::clock::mono;

        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let watched = Process::find(child.id()).unwrap();
        watched.cpu().unwrap();
        drop(child.stdin.take());
        // Nobody asks after it before the end of the test: it stays a zombie.
        let limit = mono().plus(Duration::from_secs(20));
        while watched.cpu().is_ok() {
            assert!(mono() < limit, "cat still runs");
            std::thread::yield_now();
        }
        assert_eq!(watched.cpu().unwrap_err().to_string(), "it has ended");
        assert!(watched.resident().is_err() && Process::find(child.id()).is_err());
        child.wait().unwrap();
    }

    #[test]
    fn a_number_that_went_to_another_process_has_no_figure() {
        let me = Process::find(std::process::id()).unwrap();
        let former = Process { start: me.start - 1, ..me };
        assert!(me.cpu().is_ok() && me.resident().is_ok());
        for error in [former.cpu().map(drop).unwrap_err(), former.resident().map(drop).unwrap_err()]
        {
            assert!(error.to_string().contains("another process"), "{error}");
        }
    }

    #[test]
    fn sizes_are_in_bytes() {
        assert_eq!(kilobytes("A: 1 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kilobytes("VmRSS: x kB", "VmRSS:"), None);
    }

    #[test]
    fn our_own_process_can_be_read() {
        let me = std::process::id();
        let process = Process::find(me).unwrap();
        assert!(process.resident().unwrap() > 100_000);
        process.cpu().unwrap();
        assert!(thread_cpu().is_some());
        assert!(!allowed_cores().is_empty());
        assert!(most_descriptors().unwrap() > 3);
        assert!(Process::find(u32::MAX).is_err());
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
