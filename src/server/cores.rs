//! Pure: which cores carry a shard. Compares the configured choice with what exists, what is
//! online and what this process may use; reads nothing itself but in [`Machine::read`].

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context, Result, bail};
use weir_core::model::CoreChoice;
use weir_core::net::sys;

/// The cores of this machine, as this process sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Could ever exist.
    pub possible: BTreeSet<usize>,
    /// Switched on.
    pub online: BTreeSet<usize>,
    /// Online and open to this process (taskset, cpuset, CPUAffinity).
    pub allowed: BTreeSet<usize>,
}

impl Machine {
    /// Asks the kernel.
    ///
    /// # Errors
    /// Where the affinity cannot be read (seccomp).
    pub fn read() -> Result<Machine> {
        let allowed: BTreeSet<usize> = sys::allowed_cores()
            .context("cannot read which cores this process may use (sched_getaffinity)")?
            .into_iter()
            .collect();
        let list = |name: &str| -> io::Result<BTreeSet<usize>> {
            let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/{name}"))?;
            parse_list(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        };
        // Without /sys (some containers) the allowed cores are all that is known.
        let or_allowed = |name| list(name).unwrap_or_else(|_| allowed.clone());
        Ok(Machine { possible: or_allowed("possible"), online: or_allowed("online"), allowed })
    }
}

/// The cores for the shards, ascending; never empty.
///
/// # Errors
/// A core that does not exist, is switched off, or is closed to this process; each with its cure.
pub fn resolve(choice: &CoreChoice, machine: &Machine) -> Result<Vec<usize>> {
    let wanted = match choice {
        CoreChoice::Auto => machine.allowed.iter().copied().collect(),
        CoreChoice::List(list) => list.clone(),
    };
    if wanted.is_empty() {
        bail!("no core is left for a shard; check the CPU affinity of this process (taskset -p)");
    }
    let problems: Vec<String> = wanted.iter().filter_map(|&c| problem(c, machine)).collect();
    if !problems.is_empty() {
        bail!("[runtime] cores: {}", problems.join("; "));
    }
    Ok(wanted)
}

fn problem(core: usize, machine: &Machine) -> Option<String> {
    let Machine { possible, online, allowed } = machine;
    if allowed.contains(&core) {
        None
    } else if !possible.contains(&core) && !online.contains(&core) {
        Some(format!("core {core} does not exist: this machine has {}", render(possible)))
    } else if !online.contains(&core) {
        Some(format!(
            "core {core} is switched off; switch it on (echo 1 > \
             /sys/devices/system/cpu/cpu{core}/online) or choose among {}",
            render(online)
        ))
    } else {
        Some(format!(
            "core {core} is closed to this process, which may use {}; widen its affinity \
             (taskset, the container's cpuset, CPUAffinity= or AllowedCPUs= in the systemd \
             unit) or choose another core",
            render(allowed)
        ))
    }
}

/// `0-1,4`, as the kernel prints it; `None` when it is something else.
fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cores = BTreeSet::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        cores.extend(low.parse::<usize>().ok()?..=high.parse().ok()?);
    }
    Some(cores)
}

/// `cores 0-1,4`.
fn render(cores: &BTreeSet<usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let run = |&(a, b): &(usize, usize)| {
        if a == b { a.to_string() } else { format!("{a}-{b}") }
    };
    let list = runs.iter().map(run).collect::<Vec<_>>().join(",");
    if cores.len() == 1 { format!("core {list} only") } else { format!("cores {list}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight cores, of which 6 and 7 are off and 4 and 5 closed to us.
    fn machine() -> Machine {
        let set = |text| parse_list(text).unwrap();
        Machine { possible: set("0-7"), online: set("0-5"), allowed: set("0-3") }
    }

    fn failure(list: &[usize]) -> String {
        resolve(&CoreChoice::List(list.to_vec()), &machine()).unwrap_err().to_string()
    }

    #[test]
    fn auto_takes_what_is_allowed() {
        assert_eq!(resolve(&CoreChoice::Auto, &machine()).unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_list_is_taken_as_it_is() {
        let choice = CoreChoice::List(vec![1, 3]);
        assert_eq!(resolve(&choice, &machine()).unwrap(), [1, 3]);
    }

    #[test]
    fn each_kind_of_mistake_has_its_own_words() {
        assert!(failure(&[9]).contains("core 9 does not exist: this machine has cores 0-7"));
        assert!(failure(&[6]).contains("core 6 is switched off"));
        assert!(
            failure(&[5]).contains("core 5 is closed to this process, which may use cores 0-3")
        );
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let text = failure(&[0, 5, 6, 9]);
        assert!(text.contains("core 5") && text.contains("core 6") && text.contains("core 9"));
        assert!(!text.contains("core 0 "), "{text}");
    }

    #[test]
    fn nothing_allowed_is_an_error() {
        assert!(resolve(&CoreChoice::Auto, &Machine::default()).is_err());
    }

    #[test]
    fn lists_are_read_and_printed() {
        let cores = parse_list("0-1,4,6-7\n").unwrap();
        assert_eq!(render(&cores), "cores 0-1,4,6-7");
        assert_eq!(render(&parse_list("2").unwrap()), "core 2 only");
        assert_eq!(parse_list("a-b"), None);
        assert_eq!(parse_list(""), Some(BTreeSet::new()));
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(!machine.allowed.is_empty());
        assert!(machine.allowed.is_subset(&machine.online));
        assert!(machine.online.is_subset(&machine.possible));
    }
}
