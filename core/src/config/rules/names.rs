//! Who is called what: names and ids that stand twice, and names of nobody.

use std::collections::HashMap;

use crate::config::bounds::MAX_SUGGESTED;
use crate::config::problem::{Findings, Placed, Span, quoted};
use crate::config::read::{Document, Head};
use crate::config::suggest::nearest;
use crate::model::Id;

/// Indices into the lists of the model, by name.
pub(super) struct Names {
    pub balancers: Index,
    pub listeners: Index,
    pub pools: Index,
    pub certificates: Index,
    pub ipgroups: Index,
    /// Has the file a `[[loadbalancer]]`?
    pub explicit_balancers: bool,
}

/// The names of one kind.
pub(super) struct Index {
    kind: &'static str,
    by_name: HashMap<String, usize>,
    /// The first of the file, for hints.
    first: Vec<String>,
}

impl Names {
    /// Indexes the document and reports names that stand twice.
    pub(super) fn of(document: &Document<'_, '_>, findings: &mut Findings) -> Self {
        let policies = document.policies.iter().map(|text| &text.head);
        Index::of("l7policy", policies, findings);
        let balancers = document.balancers.iter().map(|text| &text.head);
        let listeners = document.listeners.iter().map(|text| &text.head);
        let pools = document.pools.iter().map(|text| &text.head);
        let certificates = document.certificates.iter().map(|text| &text.head);
        let ipgroups = document.ipgroups.iter().map(|text| &text.head);
        Names {
            balancers: Index::of("loadbalancer", balancers, findings),
            listeners: Index::of("listener", listeners, findings),
            pools: Index::of("pool", pools, findings),
            certificates: Index::of("certificate", certificates, findings),
            ipgroups: Index::of("ipgroup", ipgroups, findings),
            explicit_balancers: !document.balancers.is_empty(),
        }
    }
}

impl Index {
    /// Indexes objects of one kind and reports names that stand twice.
    pub(super) fn of<'a, 't: 'a, 'i: 't + 'a>(
        kind: &'static str,
        heads: impl Iterator<Item = &'a Head<'t, 'i>>,
        findings: &mut Findings,
    ) -> Self {
        let mut places: HashMap<&str, Span> = HashMap::new();
        let mut index = Index { kind, by_name: HashMap::new(), first: Vec::new() };
        for (at, head) in heads.enumerate() {
            let Some(name) = &head.name else { continue };
            if let Some(earlier) = places.get(name.value.as_str()) {
                let what = format!("{} is the name of an earlier one", quoted(&name.value));
                findings
                    .error(name.span, head.table.at("name"), what)
                    .related(*earlier, "the earlier one")
                    .help("give each its own name");
                continue;
            }
            places.insert(&name.value, name.span);
            index.by_name.insert(name.value.clone(), at);
            if index.first.len() < MAX_SUGGESTED {
                index.first.push(name.value.clone());
            }
        }
        index
    }

    /// The index of the object of that name; reports it if there is none.
    pub(super) fn find(
        &self,
        wanted: &Placed<String>,
        path: impl FnOnce() -> String,
        findings: &mut Findings,
    ) -> Option<usize> {
        if let Some(index) = self.by_name.get(&wanted.value) {
            return Some(*index);
        }
        if findings.incomplete {
            return None; // it may stand in the file that could not be read
        }
        if findings.is_full() {
            findings.error(wanted.span, "", "no object of that name");
            return None;
        }
        let near = nearest(&wanted.value, self.first.iter().map(String::as_str));
        let help =
            near.map_or_else(|| self.known(), |near| format!("did you mean {}?", quoted(near)));
        let what = format!("no [[{}]] is named {}", self.kind, quoted(&wanted.value));
        findings.error(wanted.span, path(), what).help(help);
        None
    }

    /// The names that a reference may take, as many as a line bears.
    pub(super) fn known(&self) -> String {
        const SHOWN: usize = 5;
        let list: Vec<_> = self.first.iter().take(SHOWN).map(|name| quoted(name)).collect();
        match (list.is_empty(), self.first.len() > SHOWN) {
            (true, _) if self.kind == "certificate" => {
                "the file has no [[certificate]]: add one; for trying things out `weir gencert \
                 server NAME` makes the files, and prints the section"
                    .to_owned()
            }
            (true, _) => format!("the file has no [[{}]]: add one of that name", self.kind),
            (false, false) => format!("the file has {}", list.join(", ")),
            (false, true) => format!("the file has {}, …", list.join(", ")),
        }
    }
}

/// Ids that the file gives must differ from each other.
pub(super) fn check_ids(document: &Document<'_, '_>, findings: &mut Findings) {
    let heads = document
        .balancers
        .iter()
        .map(|text| &text.head)
        .chain(document.listeners.iter().map(|text| &text.head))
        .chain(document.pools.iter().map(|text| &text.head))
        .chain(document.pools.iter().flat_map(|pool| &pool.members).map(|text| &text.head))
        .chain(document.policies.iter().map(|text| &text.head))
        .chain(document.certificates.iter().map(|text| &text.head))
        .chain(document.ipgroups.iter().map(|text| &text.head));
    let mut seen: HashMap<Id, Span> = HashMap::new();
    for head in heads {
        let Some(id) = &head.id else { continue };
        if let Some(earlier) = seen.get(&id.value) {
            findings
                .error(id.span, head.table.at("id"), format!("\"{}\" is used twice", id.value))
                .related(*earlier, "the other one")
                .help("give each object an id of its own, or leave it out");
        } else {
            seen.insert(id.value, id.span);
        }
    }
}
