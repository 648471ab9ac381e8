//! The drills: a running `weir serve` under a mixed load, to which things happen. Each drill says
//! what clients may lose by it; the table of all of them is printed at the end. Every day each runs
//! once and short; `tests/soak --minutes 30 drills` repeats them with full counts and holds memory
//! and descriptors against those after the first round.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../process/mod.rs"]
mod process;

mod happenings;
mod limits;
mod load;
mod members;
mod site;
mod table;
mod upgrades;
mod witness;

use std::time::Duration;

use weir_core::time::clock;

use process::count;
use site::Site;
use table::Table;

/// Resident memory may grow by so much after the first round, which has touched everything: what
/// the allocator keeps varies by a few MiB.
const GROWTH_KIB: u64 = 6 * 1024;
/// Descriptors may differ by so many: fewer than one that stays in each of five rounds.
const MORE_DESCRIPTORS: usize = 3;

/// More rounds at most for drills that could not be judged: the machine stood still.
const MORE_ROUNDS: usize = 2;

/// How long the drills are repeated: `WEIR_DRILL_MINUTES`, which `tests/soak --minutes N` sets.
fn minutes() -> u64 {
    let given = std::env::var("WEIR_DRILL_MINUTES");
    given.map_or(count(0, 30), |text| text.parse().expect("WEIR_DRILL_MINUTES is whole minutes"))
}

/// Of all that is random; `WEIR_DRILL_SEED` gives another one.
fn seed() -> u64 {
    let given = std::env::var("WEIR_DRILL_SEED");
    given.map_or(7, |text| text.parse().expect("WEIR_DRILL_SEED is a number"))
}

type Drill = fn(&mut Site, &mut Table);

/// One round, in this order.
const DRILLS: [(&str, Drill); 12] = [
    ("killed", members::killed),
    ("sessions_killed", members::sessions_killed),
    ("moods", members::moods),
    ("reloads", happenings::reloads),
    ("certificates", happenings::certificates),
    ("listeners", happenings::listeners),
    ("weights", happenings::weights),
    ("drained", happenings::drained),
    ("upgrades", |site, table| upgrades::upgrades(site.roll(1 << 32), table)),
    ("full_disk", limits::full_disk),
    ("stalled_log", limits::stalled_log),
    ("descriptors", limits::descriptors),
];

/// All of them, or those that `WEIR_DRILL_ONLY` names, by commas.
fn chosen() -> Vec<Drill> {
    let Ok(names) = std::env::var("WEIR_DRILL_ONLY") else {
        return DRILLS.map(|(_, drill)| drill).into();
    };
    let named = |name: &&str| names.split(',').any(|one| one == *name);
    let known = |name: &str| DRILLS.iter().any(|(one, _)| *one == name);
    assert!(
        names.split(',').all(known),
        "WEIR_DRILL_ONLY knows {:?}",
        DRILLS.map(|(name, _)| name)
    );
    DRILLS.iter().filter(|(name, _)| named(name)).map(|(_, drill)| *drill).collect()
}

/// R4.4-5, R3.8-1, R6.3-2, R7.14-1, R7.14-4, R12.4-1: what is broken costs what it must, and no
/// more, whatever protocol the clients speak; nothing piles up.
#[test]
fn drills_under_mixed_load() {
    weir_core::net::sys::raise_nofile().unwrap();
    let start = clock::mono();
    let mut site = Site::start(seed());
    let (mut table, drills) = (Table::default(), chosen());
    println!("seed {}, {} minutes, {}", seed(), minutes(), load::described());
    let (mut first, mut more) = (None, 0..MORE_ROUNDS);
    loop {
        drills.iter().for_each(|drill| drill(&mut site, &mut table));
        let now = site.size();
        let first = first.get_or_insert(now);
        println!("after {:?}: {now}", clock::mono().since(start));
        assert!(now.descriptors <= first.descriptors + MORE_DESCRIPTORS, "{first} → {now}");
        assert!(now.resident <= first.resident + GROWTH_KIB, "{first} → {now}");
        let over = clock::mono().since(start) >= Duration::from_secs(60 * minutes());
        if over && !(table.is_open() && more.next().is_some()) {
            break;
        }
    }
    println!("\n{table}");
    let wrong = table.wrong();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!table.is_open(), "some drills could not be judged: use a machine that is less busy");
    assert_eq!(site.server.sum("weir_ring_task_panics_total"), 0.0);
}
