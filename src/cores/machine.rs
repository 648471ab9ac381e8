//! What the system has: its hardware threads ("cores" in the configuration), which of them share a
//! physical core or a memory node, and which this process may use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use weir_core::net::sys;

use super::list;
use crate::here::Trouble;

/// Where the kernel tells about the system.
const SYSTEM: &str = "/sys/devices/system";

/// The cores of a machine, as this process sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Could ever exist.
    pub possible: BTreeSet<usize>,
    /// Switched on.
    pub online: BTreeSet<usize>,
    /// Online and open to this process (taskset, cpuset, CPUAffinity).
    pub allowed: BTreeSet<usize>,
    /// Package and number of the physical core that a core is a thread of; missing = its own.
    pub physical: BTreeMap<usize, (usize, usize)>,
    /// Memory node of a core; missing = 0.
    pub nodes: BTreeMap<usize, usize>,
}

impl Machine {
    /// Asks the kernel.
    ///
    /// # Errors
    /// Where the affinity cannot be read (seccomp).
    pub fn read() -> Result<Machine> {
        let allowed = sys::allowed_cores()
            .context("cannot read which cores this process may use (sched_getaffinity)")?
            .into_iter()
            .collect();
        Ok(Machine::read_from(Path::new(SYSTEM), allowed))
    }

    /// Reads a folder that is built like the kernel's. What is not there (containers without /sys)
    /// is taken from the allowed cores: all exist, each a core of its own, on one node.
    fn read_from(system: &Path, allowed: BTreeSet<usize>) -> Machine {
        let text = |path: &str| std::fs::read_to_string(system.join(path)).ok();
        let cores = |path: &str| text(path).and_then(|text| list::parse(&text));
        let number = |path: &str| text(path).and_then(|text| text.trim().parse::<usize>().ok());
        let online = cores("cpu/online").unwrap_or_else(|| allowed.clone());
        let physical = |&core: &usize| {
            let part = |name| number(&format!("cpu/cpu{core}/topology/{name}"));
            Some((core, (part("physical_package_id")?, part("core_id")?)))
        };
        let mut nodes = BTreeMap::new();
        for node in cores("node/online").unwrap_or_default() {
            let on_node = cores(&format!("node/node{node}/cpulist")).unwrap_or_default();
            nodes.extend(on_node.into_iter().map(|core| (core, node)));
        }
        Machine {
            possible: cores("cpu/possible").unwrap_or_else(|| allowed.clone()),
            physical: online.iter().filter_map(physical).collect(),
            online,
            allowed,
            nodes,
        }
    }

    /// The memory node of a core.
    pub fn node(&self, core: usize) -> usize {
        self.nodes.get(&core).copied().unwrap_or(0)
    }

    /// Are these two threads of one physical core?
    pub fn are_siblings(&self, a: usize, b: usize) -> bool {
        a != b && self.physical.contains_key(&a) && self.physical.get(&a) == self.physical.get(&b)
    }

    /// Why a core that `key` names can't be used; `None` = it can.
    pub fn problem(&self, core: usize, key: &str) -> Option<Trouble> {
        let Machine { possible, online, allowed, .. } = self;
        if allowed.contains(&core) {
            return None;
        }
        let (what, cure) = if !possible.contains(&core) && !online.contains(&core) {
            let there = named(possible);
            let what = format!("core {core} does not exist: this machine has {there}");
            (what, format!("choose among {}", named(allowed)))
        } else if !online.contains(&core) {
            let cure = format!(
                "switch it on (echo 1 > /sys/devices/system/cpu/cpu{core}/online) or choose among \
                 {}",
                named(online)
            );
            (format!("core {core} is switched off"), cure)
        } else {
            let may = named(allowed);
            let what = format!("core {core} is closed to this process, which may use {may}");
            let cure = "widen its affinity (taskset, the container's cpuset, CPUAffinity= or \
                        AllowedCPUs= in the systemd unit) or choose another core";
            (what, cure.to_owned())
        };
        Some(Trouble::new(key, what, cure))
    }
}

/// `cores 0-1,4`.
fn named(cores: &BTreeSet<usize>) -> String {
    let list = list::render(cores);
    if cores.len() == 1 { format!("core {list} only") } else { format!("cores {list}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of two cores with two threads each; core 6 is off.
    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("cpu/possible", "0-7\n");
        write("cpu/online", "0-5,7\n");
        for core in [0, 1, 2, 3, 4, 5, 7] {
            write(&format!("cpu/cpu{core}/topology/core_id"), &format!("{}\n", core % 2));
            let package = usize::from(core % 4 >= 2);
            write(&format!("cpu/cpu{core}/topology/physical_package_id"), &package.to_string());
        }
        write("node/online", "0-1\n");
        write("node/node0/cpulist", "0-1,4-5\n");
        write("node/node1/cpulist", "2-3,6-7\n");
        folder
    }

    #[test]
    fn a_system_is_read() {
        let machine = Machine::read_from(tree().path(), BTreeSet::from([0, 1, 2, 4]));
        assert_eq!(machine.possible.len(), 8);
        assert_eq!(machine.node(5), 0);
        assert_eq!(machine.node(7), 1);
        assert!(machine.are_siblings(0, 4) && machine.are_siblings(3, 7));
        assert!(!machine.are_siblings(0, 1) && !machine.are_siblings(0, 2));
        assert!(!machine.are_siblings(0, 0));
    }

    #[test]
    fn each_kind_of_mistake_has_its_own_words() {
        let machine = Machine::read_from(tree().path(), BTreeSet::from([0, 1, 2, 3]));
        assert!(machine.problem(1, "key").is_none());
        let problem = |core| machine.problem(core, "key").unwrap().to_string();
        assert!(problem(9).contains("core 9 does not exist: this machine has cores 0-7"));
        assert!(problem(6).contains("core 6 is switched off"));
        assert!(problem(5).contains("closed to this process, which may use cores 0-3"));
    }

    #[test]
    fn without_a_system_folder_the_allowed_cores_are_all() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::read_from(folder.path(), BTreeSet::from([1, 3]));
        assert_eq!(machine.online, BTreeSet::from([1, 3]));
        assert_eq!(machine.node(3), 0);
        assert!(!machine.are_siblings(1, 3));
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(!machine.allowed.is_empty());
        assert!(machine.allowed.is_subset(&machine.online));
        assert!(machine.online.is_subset(&machine.possible));
    }
}
