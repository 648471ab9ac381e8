//! Session stickiness by cookies: R2.2-5, R2.2-6, R6.1-3, R6.7-12, R11.1-1, R11.2-2, R11.3-2,
//! R11.4-3, C5, C13.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use support::{Answer, Client, Member, Shard, config, eventually, listener, ok};
use weir_core::model::{Persistence, PersistenceKind};
use weir_core::obs::Sticky;
use weir_core::time::clock;

const MINUTES: Duration = Duration::from_secs(20 * 60);
const SECOND: Duration = Duration::from_secs(1);

/// A member that answers with its name; `/login?v` sets the cookie `sid` to v, `/end` is a
/// connection's last.
fn named(name: &'static str) -> Member {
    Member::start(move |mut conn, _| {
        while let Some(request) = conn.request() {
            let set = request.line().split_once("/login?").map(|(_, value)| value);
            let set = set.map_or(String::new(), |v| format!("Set-Cookie: sid={v}; Path=/\r\n"));
            let len = name.len();
            conn.send(format!("HTTP/1.1 200 OK\r\n{set}Content-Length: {len}\r\n\r\n{name}"));
            if request.line().ends_with("/end") {
                break;
            }
        }
    })
}

fn sticky(kind: PersistenceKind, timeout: Duration, members: &[&Member]) -> Shard {
    let mut settings = listener();
    settings.member_timeout = SECOND;
    let members: Vec<_> = members.iter().map(|member| (member.address, 1)).collect();
    let mut config = config(settings, &members);
    let cookie_name = String::new();
    config.pools[0].persistence = Some(Persistence { kind, timeout, cookie_name });
    Shard::start(config)
}

fn by_balancer(members: &[&Member]) -> Shard {
    sticky(PersistenceKind::HttpCookie, MINUTES, members)
}

fn by_application(members: &[&Member]) -> Shard {
    sticky(PersistenceKind::AppCookie("sid".into()), MINUTES, members)
}

fn ask(client: &mut Client, path: &str, cookie: &str) -> Answer {
    let cookie =
        if cookie.is_empty() { String::new() } else { format!("Cookie: x=1; {cookie}\r\n") };
    client.send(format!("GET {path} HTTP/1.1\r\nHost: web\r\n{cookie}\r\n"));
    client.answer()
}

/// `name=value` of the cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    answer.field("Set-Cookie").unwrap().split(';').next().unwrap().to_owned()
}

fn counted(shard: &Shard) -> [u64; 4] {
    let count = |what| shard.counters().sticky.get(what);
    [Sticky::None, Sticky::New, Sticky::Hit, Sticky::Miss].map(count)
}

/// R2.2-5, R11.4-3, R11.1-1: who sends the cookie stays, whoever doesn't is chosen for anew, also
/// on one connection; each answer renews it.
#[test]
fn the_balancers_cookie_holds() {
    let (a, b) = (named("a"), named("b"));
    let shard = by_balancer(&[&a, &b]);
    let mut client = shard.client();
    let first = ask(&mut client, "/", "");
    let set = first.field("Set-Cookie").unwrap();
    assert!(set.starts_with("LBSTICKY=") && !set.contains("127.0.0.1"), "{set}");
    assert!(set.ends_with("; Path=/; Max-Age=1200; HttpOnly; SameSite=Lax"), "{set}");
    for _ in 0..10 {
        let answer = ask(&mut client, "/", &cookie(&first));
        assert_eq!(answer.text(), first.text());
        assert!(cookie(&answer).starts_with("LBSTICKY="));
        assert_eq!(shard.client().conn.stream().peer_addr().unwrap(), shard.address);
    }
    assert_eq!(counted(&shard), [0, 1, 10, 0]);
    // Without it the weights decide (R6.1-3).
    let mut seen: Vec<String> = (0..4).map(|_| ask(&mut client, "/", "").text().into()).collect();
    seen.sort();
    assert_eq!(seen, ["a", "a", "b", "b"]);
}

/// R2.2-5: what was altered, or made up, gets a fresh choice and a good cookie.
#[test]
fn an_altered_cookie_is_not_believed() {
    let (a, b) = (named("a"), named("b"));
    let shard = by_balancer(&[&a, &b]);
    let mut client = shard.client();
    let good = cookie(&ask(&mut client, "/", ""));
    let mut altered = good.clone().into_bytes();
    let last = altered.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    let altered = String::from_utf8(altered).unwrap();
    for bad in [altered.as_str(), "LBSTICKY=", "LBSTICKY=127.0.0.1:80", "LBSTICKY=1\u{e9}"] {
        let mut seen: Vec<String> = Vec::new();
        for _ in 0..4 {
            let answer = ask(&mut client, "/", bad);
            assert_ne!(cookie(&answer), bad);
            seen.push(answer.text().into());
        }
        seen.sort();
        assert_eq!(seen, ["a", "a", "b", "b"], "{bad}");
    }
    assert_eq!(counted(&shard), [0, 1, 0, 16]);
    // The first one that is good counts.
    let both = format!("{altered}; {good}");
    let one = ask(&mut client, "/", &good).text().to_owned();
    assert!((0..4).all(|_| ask(&mut client, "/", &both).text() == one));
}

/// R2.2-6, C5: after its time a cookie binds no more; the connection goes on.
#[test]
fn a_binding_ends() {
    let (a, b) = (named("a"), named("b"));
    for kind in [PersistenceKind::HttpCookie, PersistenceKind::AppCookie("LBSTICKY".into())] {
        let shard = sticky(kind.clone(), 2 * SECOND, &[&a, &b]);
        let mut client = shard.client();
        let start = clock::mono();
        let first = match kind {
            PersistenceKind::HttpCookie => cookie(&ask(&mut client, "/", "")),
            _ => "LBSTICKY=abcd".to_owned(),
        };
        let bound = ask(&mut client, "/", &first).text().to_owned();
        let before = counted(&shard);
        let late = |shard: &Shard| counted(shard)[1] > before[1] || counted(shard)[3] > before[3];
        if kind == PersistenceKind::HttpCookie {
            // The first value, not a renewed one.
            eventually("it has ended", || {
                ask(&mut client, "/", &first);
                late(&shard)
            });
        } else {
            // Each use would renew it, so that it must rest.
            eventually("time has passed", || clock::mono().since(start) > 4 * SECOND);
            assert_eq!(ask(&mut client, "/", &first).text(), bound, "first choices are alike");
            assert!(late(&shard));
        }
        assert!(clock::mono().since(start) >= SECOND);
        assert_eq!(shard.counters().connections.get(), 1);
    }
}

/// R11.2-2, C13: the bound member can't be connected to: another one answers, and is bound.
#[test]
fn a_lost_member_is_replaced() {
    for shard_of in [by_balancer, by_application] {
        let (a, b) = (named("a"), named("b"));
        let shard = shard_of(&[&a, &b]);
        let mut client = shard.client();
        let mut session = "sid=abcd".to_owned();
        let first = ask(&mut client, "/", &session);
        if first.field("Set-Cookie").is_some() {
            session = cookie(&first);
        }
        let (lost, kept) = if first.text() == "a" { (a, b) } else { (b, a) };
        drop(lost);
        // What is left of its connections ends with the next requests on them.
        let mut ends = |session: &str| {
            let answer = ask(&mut client, "/end", session);
            let set = answer.field("Set-Cookie").map(|_| cookie(&answer));
            (answer.text().to_owned(), set)
        };
        eventually("it moves", || {
            let (name, set) = ends(&session);
            session = set.unwrap_or_else(|| session.clone());
            name != first.text()
        });
        let before = counted(&shard);
        assert!(before[3] >= 1, "{before:?}");
        assert!((0..5).all(|_| ends(&session).0 != first.text()));
        assert_eq!(counted(&shard)[2], before[2] + 5);
        drop(kept);
    }
}

/// R6.7-12: with stickiness a silent member is a 504 at once, and nobody else is asked.
#[test]
fn silence_of_the_bound_member_is_a_504() {
    let mute = Member::start(|mut conn, _| {
        conn.request();
        conn.send(ok("mute"));
        conn.request();
        let _ = conn.rest();
    });
    let shard = by_balancer(&[&mute]);
    let session = cookie(&ask(&mut shard.client(), "/", ""));
    drop(shard);
    // The same secret and ids, so that the cookie still holds (restart); now there are two.
    let good = named("good");
    let shard = by_balancer(&[&mute, &good]);
    let mut client = shard.client();
    assert_eq!(ask(&mut client, "/", &session).text(), "mute");
    let start = clock::mono();
    assert_eq!(ask(&mut client, "/", &session).status, 504);
    assert!(clock::mono().since(start) >= SECOND);
    assert_eq!((good.accepted(), shard.member(0).retries.get()), (0, 0));
}

/// R11.3-2: a value that no member ever set pins as well; another value may go elsewhere.
#[test]
fn a_value_seen_first_from_the_client_pins() {
    let (a, b) = (named("a"), named("b"));
    let shard = by_application(&[&a, &b]);
    let mut members = std::collections::BTreeSet::new();
    for value in 0..20 {
        let session = format!("sid=abcd{value}");
        let first = ask(&mut shard.client(), "/", &session).text().to_owned();
        let mut client = shard.client();
        assert!((0..20).all(|_| ask(&mut client, "/", &session).text() == first));
        members.insert(first);
    }
    assert_eq!(members.len(), 2);
    assert_eq!(counted(&shard), [0, 20, 400, 0]);
    let mut client = shard.client();
    assert!(ask(&mut client, "/", "").field("Set-Cookie").is_none());
    assert_eq!(counted(&shard)[0], 1);
}

/// What a member sets is bound to that member, wherever the value alone would have gone.
#[test]
fn a_value_that_a_member_sets_is_bound_to_it() {
    let (a, b) = (named("a"), named("b"));
    let shard = by_application(&[&a, &b]);
    let mut client = shard.client();
    for value in 0..20 {
        let answer = ask(&mut client, &format!("/login?{value}"), "");
        assert_eq!(answer.field("Set-Cookie").unwrap(), format!("sid={value}; Path=/"));
        let session = format!("sid={value}");
        assert!((0..3).all(|_| ask(&mut client, "/", &session).text() == answer.text()));
    }
    assert_eq!(counted(&shard), [0, 20, 60, 0]);
}
