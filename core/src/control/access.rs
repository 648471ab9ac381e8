//! Access control of a listener: its list and its limits, built once from the groups it names.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::Listener;
use crate::acl::{Caps, List, PrefixSet};
use crate::model::{self, Config};

/// Who may connect to a listener, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// White or black list; `None` = everyone may connect.
    pub list: Option<List>,
    /// Limits of connections.
    pub caps: Caps,
    /// Connections begin with a PROXY header, and these peers may send one; `None` = they don't.
    pub proxies: Option<Arc<PrefixSet>>,
}

/// Builds the sets of a state: each once, whoever uses it, and the former one where it is the same.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// Those of the state before.
    former: Vec<Arc<PrefixSet>>,
    /// By the groups that they are the union of.
    of_groups: HashMap<Vec<usize>, Arc<PrefixSet>>,
}

impl Sets {
    /// For the state that follows one with these listeners.
    pub(super) fn after<'a>(listeners: impl Iterator<Item = &'a Arc<Listener>>) -> Sets {
        let mut former: Vec<Arc<PrefixSet>> = Vec::new();
        let of = |listener: &'a Arc<Listener>| {
            let list = listener.access.list.as_ref().map(|list| &list.set);
            list.into_iter().chain(&listener.headers.trusted).chain(&listener.access.proxies)
        };
        for set in listeners.flat_map(of) {
            if !former.iter().any(|other| Arc::ptr_eq(other, set)) {
                former.push(Arc::clone(set));
            }
        }
        Sets { former, of_groups: HashMap::new() }
    }

    /// The union of networks; the very same set as before if there was an equal one.
    pub(super) fn make(&self, networks: impl IntoIterator<Item = IpNet>) -> Arc<PrefixSet> {
        let set = PrefixSet::new(networks);
        let same = self.former.iter().find(|former| ***former == set);
        same.map_or_else(|| Arc::new(set), Arc::clone)
    }

    fn union(&mut self, groups: &[usize], config: &Config) -> Arc<PrefixSet> {
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        groups.dedup();
        if let Some(set) = self.of_groups.get(&groups) {
            return Arc::clone(set);
        }
        let lists = groups.iter().filter_map(|&group| config.ipgroups.get(group));
        let networks = lists.flat_map(|group| group.entries.iter().map(|entry| entry.network));
        let set = self.make(networks);
        self.of_groups.insert(groups, Arc::clone(&set));
        set
    }

    pub(super) fn access(&mut self, listener: &model::Listener, config: &Config) -> Access {
        let control = listener.ipgroup.as_ref().filter(|control| control.enable);
        let list = control
            .map(|control| List { kind: control.kind, set: self.union(&control.groups, config) });
        let caps = Caps {
            connections: listener.connection,
            rate: listener.cps,
            per_source: listener.connections_per_source,
        };
        let proxy = &listener.proxy_protocol;
        let proxies = proxy.accept.then(|| self.make(proxy.from.iter().copied()));
        Access { list, caps, proxies }
    }
}
