//! Certificates that the configuration names: reads their files, so that what is wrong with them is
//! found with all other mistakes and not by the first handshake, and puts places to what `cert`
//! says about them. Called for configurations that come from files.

use super::problem::Findings;
use super::read::Document;
use crate::cert::{self, Store};
use crate::time::clock;

/// Reads all certificates and reports what is the matter with them, at the keys that it is about.
pub(super) fn check(document: &Document<'_, '_>, findings: &mut Findings) -> Store {
    let now = clock::wall();
    let mut list = Vec::with_capacity(document.certificates.len());
    for text in &document.certificates {
        // What is wrong with the keys has been told; there may be nothing to read.
        if !text.is_sound {
            list.push(None);
            continue;
        }
        let table = &text.head.table;
        let reading = cert::read(&text.object, now);
        for note in reading.errors {
            let key = note.part.key();
            let finding = findings.error(table.span_of(key), table.at(key), note.what);
            finding.row(note.row).help(note.cure);
        }
        for note in reading.warnings {
            let key = note.part.key();
            let finding = findings.warning(table.span_of(key), table.at(key), note.what);
            finding.row(note.row).help(note.cure);
        }
        list.push(reading.material);
    }
    Store(list)
}
