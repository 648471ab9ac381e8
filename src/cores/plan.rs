//! Pure: which shards there are, where they run and whom they serve.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use weir_core::model::{Config, CoreChoice, Listener, PortRange, Smt};

use super::{Machine, list};
use crate::here::{Trouble, Unfit};

/// Where each shard runs, and which of them serve a balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The core of each shard, ascending.
    pub cores: Vec<usize>,
    /// The shards that serve each balancer, in the order of the configuration.
    serving: Vec<Vec<usize>>,
}

impl Plan {
    /// The plan for a process that starts.
    ///
    /// # Errors
    /// All that is wrong with the choice of cores on this machine, each with its cure.
    pub fn new(config: &Config, machine: &Machine) -> Result<Plan, Unfit> {
        let mut problems = Vec::new();
        let cores = shard_cores(config, machine, &mut problems);
        if let Some(core) = config.runtime.control_core {
            problems.extend(machine.problem(core, "runtime.control_core"));
        }
        let cure = |cores: &str| format!("take it from [runtime] cores, which has {cores}");
        let serving = serving(config, &cores, &cure, &mut problems);
        Unfit::none_of(problems)?;
        Ok(Plan { cores, serving })
    }

    /// One shard that serves everybody.
    pub fn single(core: usize, balancers: usize) -> Plan {
        Plan { cores: vec![core], serving: vec![vec![0]; balancers] }
    }

    /// The plan for another configuration of the process that runs: the shards stay, whom they
    /// serve may change. Doesn't look at [`Runtime`](weir_core::model::Runtime)'s cores.
    ///
    /// # Errors
    /// A balancer's core that carries no shard, or a balancer that is left without one.
    pub fn follow(&self, config: &Config) -> Result<Plan, Unfit> {
        let mut problems = Vec::new();
        let cure = |cores: &str| {
            format!(
                "this process runs on {cores} and stays there; choose among these, or restart it"
            )
        };
        let serving = serving(config, &self.cores, &cure, &mut problems);
        Unfit::none_of(problems)?;
        Ok(Plan { cores: self.cores.clone(), serving })
    }

    /// The shards that serve a balancer, ascending.
    pub fn shards_of(&self, balancer: usize) -> Vec<usize> {
        self.serving.get(balancer).cloned().unwrap_or_default()
    }

    /// A line for each shard: its core, node, and the listeners that it serves.
    pub fn describe(&self, config: &Config, machine: &Machine) -> String {
        let mut text = String::new();
        for (shard, &core) in self.cores.iter().enumerate() {
            let sibling = self.cores.iter().find(|&&other| machine.are_siblings(core, other));
            let sibling = sibling.map(|s| format!(" (one physical core with {s})"));
            let serves = |balancer: usize| {
                self.serving.get(balancer).is_some_and(|shards| shards.contains(&shard))
            };
            let listeners = config.listeners.iter().filter(|l| serves(l.balancer));
            let names: Vec<String> = listeners
                .map(|l| format!("{} ({} {})", l.name, l.protocol.name(), ports(l)))
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "shard {shard}: core {core}, node {}{}: {}",
                machine.node(core),
                sibling.unwrap_or_default(),
                if names.is_empty() { "no listener".to_owned() } else { names.join(", ") }
            );
        }
        let control =
            config.runtime.control_core.map_or("any core".into(), |c| format!("core {c}"));
        let _ = write!(text, "control thread: {control}");
        text
    }
}

/// `port 80`, `ports 3000-3005, 4000`.
fn ports(listener: &Listener) -> String {
    let range = |range: &PortRange| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    };
    match listener.port_ranges.as_slice() {
        [] => format!("port {}", listener.protocol_port),
        ranges => format!("ports {}", ranges.iter().map(range).collect::<Vec<_>>().join(", ")),
    }
}

/// The cores that carry a shard, ascending.
fn shard_cores(config: &Config, machine: &Machine, problems: &mut Vec<Trouble>) -> Vec<usize> {
    let runtime = &config.runtime;
    let cores = match &runtime.cores {
        CoreChoice::List(list) => {
            let bad = list.iter().filter_map(|&core| machine.problem(core, "runtime.cores"));
            problems.extend(bad);
            list.clone()
        }
        CoreChoice::Auto => {
            let mut cores: Vec<usize> = machine.allowed.iter().copied().collect();
            if let Some(node) = runtime.numa_node {
                cores.retain(|&core| machine.node(core) == node);
                if cores.is_empty() {
                    problems.push(no_core_on(node, machine));
                }
            }
            if runtime.smt == Smt::OnePerCore {
                cores = one_per_core(&cores, machine);
            }
            cores
        }
    };
    if cores.is_empty() && problems.is_empty() {
        problems.push(Trouble::new(
            "runtime.cores",
            "no core is left for a shard",
            "check the CPU affinity of this process (taskset -p)",
        ));
    }
    cores
}

fn no_core_on(node: usize, machine: &Machine) -> Trouble {
    let nodes: BTreeSet<usize> = machine.allowed.iter().map(|&core| machine.node(core)).collect();
    let what = format!("this process may use no core of node {node}");
    let cure = format!("choose a node that it may use cores of: node {}", list::render(&nodes));
    Trouble::new("runtime.numa_node", what, cure)
}

/// The first thread of each physical core.
fn one_per_core(cores: &[usize], machine: &Machine) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for &core in cores {
        if !kept.iter().any(|&other| machine.are_siblings(core, other)) {
            kept.push(core);
        }
    }
    kept
}

/// R5.11-1, R5.11-2: cores that balancers name serve only those; the others share the rest.
/// `cure` says from which cores a balancer may take its own.
fn serving(
    config: &Config,
    cores: &[usize],
    cure: &dyn Fn(&str) -> String,
    problems: &mut Vec<Trouble>,
) -> Vec<Vec<usize>> {
    let shard_on: BTreeMap<usize, usize> =
        cores.iter().enumerate().map(|(shard, &core)| (core, shard)).collect();
    let named: BTreeSet<usize> =
        config.balancers.iter().flat_map(|b| b.cores.iter().flatten()).copied().collect();
    let rest: Vec<usize> =
        shard_on.iter().filter(|(core, _)| !named.contains(core)).map(|(_, s)| *s).collect();
    let mut all = Vec::with_capacity(config.balancers.len());
    for (index, balancer) in config.balancers.iter().enumerate() {
        let (name, key) = (&balancer.name, format!("loadbalancer[{index}].cores"));
        let shards = match &balancer.cores {
            None => rest.clone(),
            Some(own) => {
                for core in own.iter().filter(|core| !shard_on.contains_key(core)) {
                    let what = format!("{name}: core {core} carries no shard");
                    let cure = cure(&list::render(&cores.iter().copied().collect()));
                    problems.push(Trouble::new(key.clone(), what, cure));
                }
                own.iter().filter_map(|core| shard_on.get(core)).copied().collect()
            }
        };
        let used = config.listeners.iter().any(|listener| listener.balancer == index);
        if shards.is_empty() && used && problems.is_empty() {
            problems.push(Trouble::new(
                key,
                format!("{name}: no core is left for it: other balancers name all of them"),
                "leave one of [runtime] cores to those without cores of their own",
            ));
        }
        all.push(shards);
    }
    all
}

#[cfg(test)]
mod tests {
    use weir_core::model::{Balancer, Runtime};

    use super::*;

    /// Eight threads: n and n + 4 are one core; even cores are on node 0. 6 and 7 are closed.
    fn machine() -> Machine {
        Machine {
            possible: (0..10).collect(),
            online: (0..8).collect(),
            allowed: (0..6).collect(),
            physical: (0..8).map(|core| (core, (0, core % 4))).collect(),
            nodes: (0..8).map(|core| (core, core % 2)).collect(),
        }
    }

    fn config(runtime: Runtime, balancers: &[Option<&[usize]>]) -> Config {
        let balancer = |(n, cores): (usize, &Option<&[usize]>)| Balancer {
            name: format!("b{n}"),
            cores: cores.map(<[usize]>::to_vec),
            ..Balancer::default()
        };
        let listener =
            |balancer| Listener { name: format!("l{balancer}"), balancer, ..Listener::default() };
        Config {
            runtime,
            balancers: balancers.iter().enumerate().map(balancer).collect(),
            listeners: (0..balancers.len()).map(listener).collect(),
            ..Config::default()
        }
    }

    fn auto() -> Runtime {
        Runtime::default()
    }

    fn cores(runtime: Runtime) -> Vec<usize> {
        Plan::new(&config(runtime, &[None]), &machine()).unwrap().cores
    }

    fn failure(config: &Config) -> String {
        Plan::new(config, &machine()).unwrap_err().to_string()
    }

    #[test]
    fn auto_is_thinned_by_smt_and_node() {
        assert_eq!(cores(auto()), [0, 1, 2, 3, 4, 5]);
        assert_eq!(cores(Runtime { smt: Smt::OnePerCore, ..auto() }), [0, 1, 2, 3]);
        assert_eq!(cores(Runtime { numa_node: Some(1), ..auto() }), [1, 3, 5]);
        let both = Runtime { smt: Smt::OnePerCore, numa_node: Some(0), ..auto() };
        assert_eq!(cores(both), [0, 2]);
        let list = CoreChoice::List(vec![1, 5]);
        assert_eq!(cores(Runtime { cores: list, smt: Smt::OnePerCore, ..auto() }), [1, 5]);
    }

    /// Every mistake at once, with its place and cure.
    #[test]
    fn all_mistakes_come_at_once() {
        let list = CoreChoice::List(vec![0, 7, 12]);
        let runtime = Runtime { cores: list, control_core: Some(99), ..auto() };
        let text = failure(&config(runtime, &[Some(&[3])]));
        for part in [
            "runtime.cores: core 7 is closed",
            "runtime.cores: core 12 does not exist",
            "runtime.control_core: core 99 does not exist",
            "loadbalancer[0].cores: b0: core 3 carries no shard",
            "  help: choose among cores 0-5",
        ] {
            assert!(text.contains(part), "no {part} in: {text}");
        }
        let text = failure(&config(Runtime { numa_node: Some(4), ..auto() }, &[None]));
        assert!(text.contains("no core of node 4") && text.contains("node 0-1"), "{text}");
        assert!(Plan::new(&config(auto(), &[None]), &Machine::default()).is_err());
    }

    /// R5.11-2: a balancer's own cores serve it alone; R5.11-1: the others share the rest.
    #[test]
    fn exclusive_cores_serve_their_balancers_alone() {
        let some = config(auto(), &[Some(&[0, 1]), None, Some(&[1, 2]), None]);
        let plan = Plan::new(&some, &machine()).unwrap();
        assert_eq!(plan.shards_of(0), [0, 1]);
        assert_eq!(plan.shards_of(2), [1, 2]);
        assert_eq!(plan.shards_of(1), [3, 4, 5]);
        assert_eq!(plan.shards_of(3), [3, 4, 5]);
        let none_left = config(auto(), &[Some(&[0, 1, 2, 3, 4, 5]), None]);
        assert!(failure(&none_left).contains("b1: no core is left"));
    }

    /// A reload moves balancers among the shards that run.
    #[test]
    fn a_plan_follows_another_file() {
        let plan = Plan::new(&config(auto(), &[None, None]), &machine()).unwrap();
        let moved = plan.follow(&config(auto(), &[Some(&[5]), None])).unwrap();
        assert_eq!(moved.shards_of(0), [5]);
        assert_eq!(moved.shards_of(1), [0, 1, 2, 3, 4]);
        let list = CoreChoice::List(vec![0, 1]);
        let small = config(Runtime { cores: list, ..auto() }, &[None]);
        let small = Plan::new(&small, &machine()).unwrap();
        let text = small.follow(&config(auto(), &[Some(&[5])])).unwrap_err().to_string();
        assert!(text.contains("core 5 carries no shard") && text.contains("0-1"), "{text}");
    }

    /// The files for larger machines fit those that they are written for; with two sockets nobody
    /// is served on the other one.
    #[test]
    fn the_pinning_examples_fit_their_machines() {
        let all = [("4-cores", 4, 4), ("16-cores", 16, 15), ("64-cores", 64, 60)];
        for (name, count, shards) in all {
            let cores: BTreeSet<usize> = (0..count).collect();
            let nodes = cores.iter().map(|&core| (core, core / 32)).collect();
            let machine = Machine {
                possible: cores.clone(),
                online: cores.clone(),
                allowed: cores,
                nodes,
                ..Machine::default()
            };
            let path = format!("{}/examples/pinning/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let config = weir_core::config::load(path.as_ref()).unwrap().config;
            let plan = Plan::new(&config, &machine).unwrap();
            assert_eq!(plan.cores.len(), shards, "{name}");
            for balancer in 0..config.balancers.len() {
                let nodes = plan.shards_of(balancer).into_iter();
                let nodes: BTreeSet<_> = nodes.map(|at| machine.node(plan.cores[at])).collect();
                assert_eq!(nodes.len(), 1, "{name}: balancer {balancer} is on {nodes:?}");
            }
        }
    }

    #[test]
    fn a_listener_with_ranges_shows_them() {
        let range = |first, last| PortRange { first, last };
        let mut config = config(auto(), &[None]);
        config.listeners[0].port_ranges = vec![range(3000, 3005), range(4000, 4000)];
        let plan = Plan::new(&config, &machine()).unwrap();
        let text = plan.describe(&config, &machine());
        assert!(text.contains("l0 (HTTP ports 3000-3005, 4000)"), "{text}");
    }

    #[test]
    fn the_plan_is_told_shard_by_shard() {
        let list = CoreChoice::List(vec![0, 1, 4]);
        let runtime = Runtime { cores: list, control_core: Some(2), ..auto() };
        let config = config(runtime, &[Some(&[4]), None]);
        let text = Plan::new(&config, &machine()).unwrap().describe(&config, &machine());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "shard 0: core 0, node 0 (one physical core with 4): l1 (HTTP port 0)",
                "shard 1: core 1, node 1: l1 (HTTP port 0)",
                "shard 2: core 4, node 0 (one physical core with 0): l0 (HTTP port 0)",
                "control thread: core 2",
            ]
        );
    }
}
