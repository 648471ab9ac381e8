//! Drills in which nothing is broken: reloads, new certificates, listeners that come and go, and
//! members that are taken out. None of them may cost anything.

use std::time::Duration;

use weir_core::time::clock;

use crate::process::{Client, count, get, pass_time, until};
use crate::site::{DRAIN, HTTP, Site, TCP, UDP, WEBSOCKET};
use crate::table::{Cost, Table};

/// R3.8-1, R5.12-1, R7.14-1: random files, one after another.
pub fn reloads(site: &mut Site, table: &mut Table) {
    let times = count(40, 1_000);
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            for pair in [HTTP, WEBSOCKET, TCP, UDP] {
                for place in pair {
                    site.wish.weights[place] = site.roll(4) as u8;
                }
                site.wish.weights[pair[site.roll(2) as usize]] = 1 + site.roll(9) as u8;
            }
            site.wish.stir = site.roll(1_000);
            site.wish.side = site.roll(2) == 0;
            site.wish.moody = site.roll(2) == 0;
            deeds.push(clock::mono());
            site.reload();
        }
    });
    table.add("reload", times, Cost::NOTHING, &seen);
    site.wish.weights.fill(1);
    (site.wish.side, site.wish.moody) = (false, false);
    site.reload();
}

/// R12.4-1: the certificate's files are replaced; handshakes go on all the time.
pub fn certificates(site: &mut Site, table: &mut Table) {
    let times = count(4, 50);
    let shown = "weir_certificate_not_after_timestamp_seconds{certificate=\"site\"}";
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            let serial = 2 + site.roll(80_000);
            let leaf = site.ca.leaf(&["www.example.com"], serial);
            deeds.push(clock::mono());
            leaf.write(site.folder.path(), "site");
            until("the new certificate", || site.server.metric(shown) == leaf.not_after as f64);
            pass_time(Duration::from_millis(200));
        }
    });
    table.add("certificate replaced", times, Cost::NOTHING, &seen);
}

/// R6.3-2: a listener is added and removed; who was connected to it is served on.
pub fn listeners(site: &mut Site, table: &mut Table) {
    let times = count(4, 50);
    let mut lost = Vec::new();
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            site.wish.side = true;
            deeds.push(clock::mono());
            site.reload();
            let mut kept = Client::connect(site.side);
            kept.send("/", "");
            let first = kept.answer().map(|answer| answer.status).ok();
            let fresh = get(site.side, "/").status;
            site.wish.side = false;
            deeds.push(clock::mono());
            site.reload();
            let after = kept.try_send("/").and_then(|()| kept.answer());
            let after = after.map(|answer| answer.status).ok();
            if (first, fresh, after) != (Some(200), 200, Some(200)) {
                lost.push(format!("{first:?}, {fresh}, {after:?}"));
            }
        }
    });
    lost.iter().for_each(|what| table.fault("listener added and removed", what));
    table.add("listener added and removed", times, Cost::NOTHING, &seen);
}

/// R2.1-4, R7.14-4: members are drained by weight 0 and come back: none of what they have is cut,
/// and no new request goes to them meanwhile.
pub fn weights(site: &mut Site, table: &mut Table) {
    let times = count(2, 20);
    let mut stray = Vec::new();
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            let at = site.roll(2) as usize;
            for pair in [HTTP, WEBSOCKET, TCP, UDP] {
                site.wish.weights[pair[at]] = 0;
            }
            deeds.push(clock::mono());
            site.reload();
            let series =
                format!("weir_member_requests_total{{pool=\"app\",member=\"m{}\"}}", HTTP[at]);
            let before = site.server.metric(&series);
            pass_time(Duration::from_secs(1));
            let after = site.server.metric(&series);
            if after > before {
                stray.push(format!("{} requests went to weight 0", after - before));
            }
            site.wish.weights.fill(1);
            deeds.push(clock::mono());
            site.reload();
            until("requests at the member again", || site.server.metric(&series) > after);
        }
    });
    stray.iter().for_each(|what| table.fault("weight to 0 and back", what));
    table.add("weight to 0 and back", times, Cost::NOTHING, &seen);
}

/// R7.14-4: with `connection_drain` sessions and flows of a member of weight 0 run on for so long,
/// and no longer: then what they have under way may be lost, and only that.
pub fn drained(site: &mut Site, table: &mut Table) {
    const DRILL: &str = "weight to 0 with connection_drain";
    let times = count(1, 3);
    site.wish.drain = true;
    site.reload();
    let ended = |site: &Site, listener: &str| {
        let series = "weir_ended_connections_total";
        site.server.counted(&format!("{series}{{listener=\"{listener}\",how=\"drained\"}}"))
    };
    let members = |at: usize| [("tcp", TCP[at]), ("udp", UDP[at])];
    let held = |site: &Site, (pool, member): (&str, usize)| {
        let series = "weir_member_active_connections";
        site.server.metric(&format!("{series}{{pool=\"{pool}\",member=\"m{member}\"}}"))
    };
    // Flows of the loads before would be taken for those of this one, which may all be elsewhere.
    until("flows of the loads before to end", || {
        (0..2).flat_map(members).all(|one| held(site, one) == 0.0)
    });
    let mut early = false;
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            // What was drained once is at the other one and stays there.
            let mut at = site.roll(2) as usize;
            until("sessions and flows", || {
                at = 1 - at;
                members(at).iter().all(|one| held(site, *one) > 0.0)
            });
            let before = ["stream", "flows"].map(|listener| ended(site, listener));
            (site.wish.weights[TCP[at]], site.wish.weights[UDP[at]]) = (0, 0);
            let start = clock::mono();
            deeds.push(start);
            site.reload();
            until("drained ones to end", || {
                let now = ["stream", "flows"].map(|listener| ended(site, listener));
                early |= clock::mono().since(start) < DRAIN && now != before;
                now.iter().zip(before).all(|(now, before)| *now > before)
            });
            until("none to be left", || members(at).iter().all(|one| held(site, *one) == 0.0));
            site.wish.weights.fill(1);
            deeds.push(clock::mono());
            site.reload();
        }
    });
    if early {
        table.fault(DRILL, "some ended before the time was over");
    }
    table.add(DRILL, times, Cost::of(&["TCP", "UDP"], 10, 2.0 * DRAIN.as_secs_f64()), &seen);
    site.wish.drain = false;
    site.reload();
}
