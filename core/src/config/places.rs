//! Where the keys stand of which only the machine can tell whether they can be had: cores,
//! addresses, ports, paths. Owns the list of those keys and their places; looks at no machine.
//! Filled once a file is sound, asked by who starts or checks it.

use std::collections::BTreeMap;

use super::problem::{Source, Span, locate};
use super::read::Document;
use super::reader::Table;

/// Places of keys inside the files, by their path, such as `listener[1].protocol_port`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, String>);

/// Keys of sections that stand once.
const SINGLE: [(&str, &[&str]); 5] = [
    ("runtime", &["cores", "numa_node", "control_core", "run_dir", "source_addresses"]),
    ("log", &["path"]),
    ("admin", &["listen"]),
    ("access_log", &["path"]),
    ("connection_log", &["path"]),
];
/// Keys of a balancer.
const BALANCER: [&str; 4] = ["vip_address", "cores", "source_addresses", "passthrough_fallback"];
/// Keys of a listener.
const LISTENER: [&str; 3] = ["protocol_port", "port_ranges", "access_log"];

impl Places {
    /// `FILE:LINE:COLUMN` of a key, else of the section that it could stand in; `None` where the
    /// file has neither.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<&str> {
        let section = key.rsplit_once('.').map(|(section, _)| section);
        let found = self.0.get(key).or_else(|| self.0.get(section?));
        found.map(String::as_str)
    }

    /// Looks them up in the text.
    pub(super) fn found(spans: Vec<(String, Span)>, sources: &[Source<'_>]) -> Places {
        Places(locate(spans, sources).into_iter().collect())
    }
}

/// The keys that a file has, with their places.
pub(super) fn collect(document: &Document<'_, '_>) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    for table in &document.singles {
        let keys = SINGLE.iter().find(|(name, _)| *name == table.path);
        note(table, keys.map_or(&[], |(_, keys)| keys), &mut spans);
    }
    for text in &document.balancers {
        note(&text.head.table, &BALANCER, &mut spans);
    }
    for text in &document.listeners {
        note(&text.head.table, &LISTENER, &mut spans);
    }
    spans
}

fn note(table: &Table<'_, '_>, keys: &[&str], spans: &mut Vec<(String, Span)>) {
    spans.push((table.path.clone(), table.span));
    let there = keys.iter().filter(|key| table.has(key));
    spans.extend(there.map(|key| (table.at(key), table.span_of(key))));
}
