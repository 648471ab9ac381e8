//! Which balancer runs on which cores (R5.11-1, R5.11-2), as far as lists alone tell; whether a
//! core exists is asked by who places the shards.

use std::collections::BTreeSet;

use crate::config::problem::Findings;
use crate::config::read::Document;
use crate::model::CoreChoice;

/// Cores that a balancer names serve only those that name them; all others share the rest of
/// `[runtime] cores`. With `auto` the rest is known only on the machine.
pub(super) fn check(document: &Document<'_, '_>, findings: &mut Findings) {
    let CoreChoice::List(all) = &document.runtime.cores else { return };
    let mut rest: BTreeSet<usize> = all.iter().copied().collect();
    for balancer in &document.balancers {
        let table = &balancer.head.table;
        for core in balancer.object.cores.iter().flatten() {
            rest.remove(core);
        }
        let stranger =
            balancer.object.cores.iter().flatten().find(|core| all.binary_search(core).is_err());
        if let Some(core) = stranger {
            table
                .error("cores", format!("core {core} is not in [runtime] cores"), findings)
                .row("R5.11-2")
                .help("add it there, or take it out here");
        }
    }
    if !rest.is_empty() {
        return;
    }
    for balancer in document.balancers.iter().filter(|text| text.object.cores.is_none()) {
        let table = &balancer.head.table;
        let what = "no core is left: other balancers name all of [runtime] cores";
        findings
            .error(table.span, table.at("cores"), what)
            .row("R5.11-2")
            .help("leave them a core, or name cores here too");
    }
}
