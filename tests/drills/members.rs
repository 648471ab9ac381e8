//! Drills in which members die, fall silent or break off.

use std::time::Duration;

use weir_core::time::clock;

use crate::process::moody::Mood;
use crate::process::{count, pass_time, until};
use crate::site::{HTTP, Site, TCP, UDP, WEBSOCKET};
use crate::table::{Cost, Table};

/// From a kill to the revival, and from there to the next kill.
const HALF: Duration = Duration::from_secs(1);
/// The checks find a failure within a second and its timeout; the rest is for busy machines.
const FOUND: f64 = 8.0;

/// R4.4-5: one of the members of HTTP is killed every 2 s and revived 1 s later: no GET fails.
pub fn killed(site: &mut Site, table: &mut Table) {
    let times = count(3, 30);
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            let one = HTTP[site.roll(2) as usize];
            deeds.push(clock::mono());
            site.origins.kill(one).unwrap();
            pass_time(HALF);
            site.origins.revive(one).unwrap();
            pass_time(HALF);
        }
    });
    table.add("HTTP member killed and revived every 2 s", times, Cost::NOTHING, &seen);
}

/// Members of what lasts are killed: who was there is cut, all others notice nothing.
pub fn sessions_killed(site: &mut Site, table: &mut Table) {
    let times = count(1, 5);
    let seen = site.under_load(|site, deeds| {
        for _ in 0..times {
            let at = site.roll(2) as usize;
            deeds.push(clock::mono());
            for one in [WEBSOCKET[at], TCP[at], UDP[at]] {
                site.origins.kill(one).unwrap();
            }
            until_up(site, [WEBSOCKET[at], TCP[at], UDP[at]], false);
            pass_time(HALF);
            for one in [WEBSOCKET[at], TCP[at], UDP[at]] {
                site.origins.revive(one).unwrap();
            }
            until_up(site, [WEBSOCKET[at], TCP[at], UDP[at]], true);
        }
    });
    let cost = Cost::of(&["WebSocket", "TCP", "UDP"], 60, FOUND);
    table.add("member with sessions and flows killed", times, cost, &seen);
}

/// Waits until the checks say so of members of the three pools.
fn until_up(site: &Site, members: [usize; 3], up: bool) {
    let pools = ["ws", "tcp", "udp"];
    let wanted = f64::from(u8::from(up));
    for (pool, member) in pools.iter().zip(members) {
        let series = format!("weir_member_up{{pool=\"{pool}\",member=\"m{member}\"}}");
        until("the checks to see it", || site.server.metric(&series) == wanted);
    }
}

/// One of three members of HTTP is bad for a while, to requests and checks alike.
pub fn moods(site: &mut Site, table: &mut Table) {
    site.wish.moody = true;
    site.reload();
    let http = ["keep-alive", "new", "HTTPS", "HTTP/2"];
    // The checks ask for a status, which comes: what breaks off behind it is lost for as long.
    let late = Mood::Late(Duration::from_millis(300));
    let body = Mood::ResetInBody;
    let all = [
        ("stalled member", Mood::Mute, false, Cost::NOTHING),
        ("member resets within the body", body, false, Cost::of(&http, 40, FOUND)),
        ("the same, outlier_detection on", body, true, Cost::of(&http, 20, FOUND)),
        ("member answers 300 ms late", late, false, Cost::NOTHING),
        ("member resets before its answer", Mood::ResetAtOnce, false, Cost::NOTHING),
        ("member resets within the head", Mood::ResetInHead, false, Cost::of(&http, 40, FOUND)),
    ];
    for (drill, mood, outliers, cost) in all.into_iter().take(count(3, usize::MAX)) {
        site.wish.outliers = outliers;
        site.reload();
        let times = count(1, 3);
        let seen = site.under_load(|site, deeds| {
            for _ in 0..times {
                deeds.push(clock::mono());
                site.moody.turn(mood);
                pass_time(count(2, 4) * HALF);
                site.moody.turn(Mood::Good);
                pass_time(count(1, 2) * HALF);
            }
        });
        table.add(drill, times, cost, &seen);
    }
    (site.wish.moody, site.wish.outliers) = (false, false);
    site.reload();
}
