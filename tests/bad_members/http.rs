//! Members of HTTP pools.

use std::net::SocketAddr;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use weir_core::time::clock;

use crate::process::alive::Alive;
use crate::process::moody::{BlackHole, Mood, Moody};
use crate::process::{Answer, Client, Member, count, sum};
use crate::{Plan, address, lines};

/// What a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    Whole,
    /// Weir's own page.
    Page(u16),
    /// A head of 200, and less body than that announced.
    Cut,
}

use Sees::{Cut, Page, Whole};

/// One habit: what a client of it sees alone and beside a good member, and the log's reason.
struct Habit {
    name: &'static str,
    /// `None`: the address answers no SYN.
    mood: Option<Mood>,
    alone: Sees,
    /// A GET is asked of the next member.
    retried: bool,
    reason: Option<&'static str>,
    /// An answer takes so long at least.
    least: Duration,
}

/// `member_timeout` and `connect_timeout` of these tests.
const LIMITS: &str = "member_timeout = 2\nconnect_timeout = 1";
const SILENT: Duration = Duration::from_secs(2);
const NOW: Duration = Duration::ZERO;

fn habits() -> Vec<Habit> {
    let habit = |name, mood, alone, retried, reason: &'static str, least| {
        let reason = (!reason.is_empty()).then_some(reason);
        Habit { name, mood: Some(mood), alone, retried, reason, least }
    };
    let (silent, reset) = ("member did not answer in time", "member reset the connection");
    let (closed, bad) = ("member closed the connection", "malformed answer from the member");
    // R2.3-504b, R6.7-6: gaps are limited, not the whole.
    let byte = count(Duration::from_millis(100), Duration::from_secs(1));
    let mut all = vec![
        habit("mute", Mood::Mute, Page(504), true, silent, SILENT),
        habit("mute-head", Mood::MuteInHead, Page(504), true, silent, SILENT),
        habit("mute-body", Mood::MuteInBody, Cut, false, silent, SILENT),
        habit("drip", Mood::Drip(byte), Whole, false, "", byte * 40),
        habit("endless", Mood::EndlessHead, Page(502), false, bad, NOW),
        habit("reset", Mood::ResetAtOnce, Page(502), true, reset, NOW),
        habit("reset-head", Mood::ResetInHead, Page(502), false, reset, NOW),
        habit("reset-body", Mood::ResetInBody, Cut, false, reset, NOW),
        habit("close-body", Mood::CloseInBody, Cut, false, closed, NOW),
        habit("close-chunks", Mood::CloseInChunks, Cut, false, closed, NOW),
        habit("ssh", Mood::Ssh, Page(502), false, bad, NOW),
        habit("h2", Mood::Http2, Page(502), false, bad, NOW),
        habit("tls", Mood::TlsAlert, Page(502), false, bad, NOW),
    ];
    all.push(Habit {
        name: "black-hole",
        mood: None,
        alone: Page(504),
        retried: true,
        reason: Some("connecting to the member timed out"),
        least: Duration::from_secs(1),
    });
    all
}

/// Requests at a time to each listener.
fn clients() -> usize {
    count(4, 50)
}

/// One GET on a connection of its own; what came of it, and how long that took.
fn ask(web: SocketAddr) -> (Sees, Duration) {
    let start = clock::mono();
    let mut client = Client::connect(web);
    client.send("/", "");
    let sees = match client.answer() {
        Ok(Answer { status: 200, body, .. }) if body == "good" => Whole,
        // An answer in chunks: the helper reads to the end of the connection.
        Ok(Answer { status: 200, body, .. }) => {
            assert!(!body.ends_with("0\r\n\r\n"), "it looks whole: {body:?}");
            Cut
        }
        Ok(answer) => Page(answer.status),
        Err(_) => Cut,
    };
    (sees, clock::mono().since(start))
}

/// R2.3-502b, R2.3-502c, R2.3-504a, R2.3-504b: every bad habit at once, each with clients of its
/// own: what they see, what the log and the metrics say, and that nothing is left behind.
#[test]
fn each_bad_habit_is_told_and_leaves_nothing() {
    let (habits, good, hole) = (habits(), Member::start("good"), BlackHole::new());
    let members: Vec<Option<Moody>> = habits.iter().map(|h| h.mood.map(Moody::start)).collect();
    let mut plan = Plan::new();
    for (habit, member) in habits.iter().zip(&members) {
        let bad = member.as_ref().map_or(hole.addr, |member| member.addr);
        plan.pair(habit.name, ["HTTP", "HTTP"], [LIMITS, ""], &[bad]);
        let both = format!("{}-both", habit.name);
        plan.pair(&both, ["HTTP", "HTTP"], [LIMITS, ""], &[bad, good.addr]);
    }
    let server = plan.start();
    let before = Alive::at_rest(&server);
    let at = |name: &str| address(&server, name, "http");
    let places: Vec<[SocketAddr; 2]> =
        habits.iter().map(|h| [at(h.name), at(&format!("{}-both", h.name))]).collect();
    let seen: Vec<[Vec<_>; 2]> = std::thread::scope(|scope| {
        let asked = |web| (0..clients()).map(|_| scope.spawn(move || ask(web))).collect();
        let threads: Vec<[Vec<_>; 2]> = places.iter().map(|pair| pair.map(asked)).collect();
        let all = |threads: Vec<ScopedJoinHandle<'_, _>>| {
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        };
        threads.into_iter().map(|pair| pair.map(all)).collect()
    });
    for (habit, [alone, both]) in habits.iter().zip(&seen) {
        for (sees, took) in alone {
            assert_eq!(*sees, habit.alone, "{}", habit.name);
            assert!(*took >= habit.least, "{}: {took:?}", habit.name);
        }
        let well = both.iter().filter(|(sees, _)| *sees == Whole).count();
        // Round robin: every other client begins at the good member.
        let least = if habit.retried { clients() } else { clients() / 2 };
        assert!(well >= least, "{}: {well} of {} beside a good member", habit.name, clients());
    }
    habits.iter().for_each(|habit| assert_told(&server, habit));
    assert_eq!(Alive::at_rest(&server), before);
    assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
}

/// The log's lines and the metrics of a habit.
fn assert_told(server: &crate::process::Server, habit: &Habit) {
    let name = habit.name;
    let (status, upstream) = match habit.alone {
        Page(status) => (status, status),
        Whole | Cut => (200, 200),
    };
    for line in lines(server, name, clients()) {
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["upstream_status"], serde_json::json!([upstream]), "{line}");
        assert_eq!(line["attempts"], 1, "{line}");
        assert_eq!(line["error_reason"].as_str(), habit.reason, "{line}");
    }
    let attempts = |line: &serde_json::Value| line["attempts"].as_u64().unwrap();
    let both = lines(server, &format!("{name}-both"), clients());
    let again = both.iter().filter(|line| attempts(line) == 2).count();
    let counts: Vec<u64> = both.iter().map(attempts).collect();
    assert_eq!(again > 0, habit.retried, "{name}: attempts {counts:?}");
    let metrics = server.metrics();
    let of = |family: &str, labels: &str| {
        let series = format!("{family}{{pool=\"{name}{labels}");
        metrics.lines().filter_map(|l| l.strip_prefix(&series)).map(number).sum::<f64>()
    };
    let all = clients() as f64;
    let failed = if habit.mood.is_none() { all } else { 0.0 };
    assert_eq!(of("weir_member_connect_failures_total", "\""), failed, "{name}");
    assert_eq!(of("weir_member_retries_total", "-both\""), again as f64, "{name}");
    let code = format!("code=\"{status}\"");
    let told: f64 = metrics
        .lines()
        .filter(|l| l.starts_with(&format!("weir_responses_total{{listener=\"{name}\"")))
        .filter(|l| l.contains(&code))
        .map(number)
        .sum();
    assert_eq!(told, all, "{name}");
    assert_eq!(sum(&metrics, "weir_local_responses_total"), 0.0, "a member was asked each time");
}

/// The value of a series' line.
fn number(line: &str) -> f64 {
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}
