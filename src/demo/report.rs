//! Pure: the demo's report for people. Owns words and layout; measures nothing.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Width of the longest bar, in characters.
const BAR: f64 = 36.0;

/// Everything that the report tells.
#[derive(Clone, Debug)]
pub struct Story {
    /// Where the balancer ran and where clients and members did.
    pub cores: Cores,
    /// Client connections, all kept alive.
    pub connections: usize,
    /// The phase with all members up.
    pub even: Phase,
    /// What each member got in that phase.
    pub shares: Vec<Share>,
    /// The phase in which one member goes down.
    pub outage: Outage,
}

/// Cores of the two sides; equal on a machine with one.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The balancer's.
    pub balancer: usize,
    /// Clients' and members'.
    pub clients: usize,
}

/// A stretch of load.
#[derive(Clone, Debug)]
pub struct Phase {
    /// How long.
    pub time: Duration,
    /// What came back.
    pub counts: Counts,
    /// p50, p90, p99, p99.9 and the maximum of the answer times; `None` where so many requests were
    /// not answered.
    pub latency: [Option<Duration>; 5],
    /// CPU time of the balancer's thread; `None` where /proc does not tell.
    pub cpu: Option<Duration>,
}

/// What clients got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whole answers, whatever their status.
    pub answers: u64,
    /// Those among them that were not 2xx.
    pub refused: u64,
    /// Requests without a whole answer.
    pub lost: u64,
}

impl Counts {
    /// What came between `earlier` and now.
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            answers: self.answers.saturating_sub(earlier.answers),
            refused: self.refused.saturating_sub(earlier.refused),
            lost: self.lost.saturating_sub(earlier.lost),
        }
    }

    fn bad(self) -> u64 {
        self.refused + self.lost
    }
}

/// A member's part of the even phase.
#[derive(Clone, Debug)]
pub struct Share {
    /// Its name.
    pub name: &'static str,
    /// Its weight.
    pub weight: u8,
    /// How long it thinks about each answer.
    pub delay: Duration,
    /// Requests that it saw.
    pub requests: u64,
}

/// The second phase.
#[derive(Clone, Debug)]
pub struct Outage {
    /// Who went down.
    pub member: &'static str,
    /// How long it was down.
    pub down: Duration,
    /// Before, while it was down, and after it came back.
    pub counts: [Counts; 3],
    /// True when the returned member got requests again.
    pub back: bool,
    /// How long the health checks took to find it down, and up again; `None` = they did not.
    pub found: [Option<Duration>; 2],
}

impl Display for Story {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        self.speed(f)?;
        self.distribution(f)?;
        self.outage(f)
    }
}

impl Story {
    fn heading(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Cores { balancer, clients } = self.cores;
        writeln!(f, "\nWeir in front of {} members, on loopback\n", self.shares.len())?;
        write!(f, "  {} connections for {}; ", self.connections, seconds(self.even.time))?;
        if balancer == clients {
            writeln!(f, "balancer, clients and members share core {balancer},")?;
            writeln!(f, "  the only one: the rate below is that of all three together")
        } else {
            writeln!(f, "balancer on core {balancer}, clients and members on core {clients}")
        }
    }

    fn speed(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Phase { time, counts, latency, cpu } = &self.even;
        let rate = per_second(counts.answers, *time);
        writeln!(f, "\n  Throughput  {} requests/s", number(rate))?;
        match counts.bad() {
            0 => writeln!(f, "              {} answers, all good", number(counts.answers))?,
            bad => writeln!(
                f,
                "              {} answers, {} of them not 2xx, and {} requests lost ({bad} bad)",
                number(counts.answers),
                number(counts.refused),
                number(counts.lost)
            )?,
        }
        let names = ["p50", "p90", "p99", "p99.9", "max"];
        let told = |t: &Option<Duration>| t.map_or_else(|| "no answer".to_owned(), short);
        let times: Vec<String> =
            names.iter().zip(latency).map(|(name, t)| format!("{name} {}", told(t))).collect();
        writeln!(f, "  Latency     {}", times.join("   "))?;
        match cpu {
            Some(cpu) if counts.answers > 0 => writeln!(
                f,
                "  Balancer    {:.1} µs of CPU a request, {:.0} % of core {}",
                cpu.as_secs_f64() * 1e6 / counts.answers as f64,
                percent(cpu.as_secs_f64(), time.as_secs_f64()),
                self.cores.balancer
            ),
            _ => writeln!(f, "  Balancer    its CPU time cannot be read here"),
        }
    }

    fn distribution(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let all: u64 = self.shares.iter().map(|s| s.requests).sum();
        let weights: u32 = self.shares.iter().map(|s| u32::from(s.weight)).sum();
        writeln!(f, "\n  Where the requests went (weight decides, not speed)\n")?;
        for share in &self.shares {
            let got = percent(share.requests as f64, all as f64);
            let due = percent(f64::from(share.weight), f64::from(weights));
            writeln!(
                f,
                "    {:<7} weight {}, thinks {:<7} {:>10} = {got:>5.2} % (due {due:>5.2} %)  {}",
                share.name,
                share.weight,
                short(share.delay),
                number(share.requests),
                bar(got)
            )?;
        }
        Ok(())
    }

    fn outage(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Outage { member, down, counts: [before, during, after], back, found } = &self.outage;
        let name = member;
        writeln!(
            f,
            "\n  Then `{name}` was killed under load, and revived after {}",
            seconds(*down)
        )?;
        let noticed = if during.bad() == 0 {
            format!("nothing: {} answers, all good", number(during.answers))
        } else {
            let share = percent(during.bad() as f64, (during.answers + during.lost) as f64);
            format!(
                "{} answers 502 and {} lost requests in {}, {share:.1} % of that time's",
                number(during.refused),
                number(during.lost),
                seconds(*down)
            )
        };
        writeln!(f, "\n    What clients noticed  {noticed}")?;
        writeln!(f, "    Before that           {}", plain(*before))?;
        writeln!(f, "    After its return      {}", plain(*after))?;
        let returned = if *back { "yes, requests reach it again" } else { "no" };
        writeln!(f, "    Back in service       {returned}")?;
        let [down, up] = found.map(|time| match time {
            Some(time) => format!("after {}", short(time)),
            None => "not in that time".to_owned(),
        });
        writeln!(f, "    Health checks         found it down {down}, and up again {up}")?;
        writeln!(
            f,
            "\n    What the dead member had not begun to answer went to another one, and once the\
             \n    checks had found it down nobody asked it any more."
        )
    }
}

fn plain(counts: Counts) -> String {
    match counts.bad() {
        0 => format!("{} answers, all good", number(counts.answers)),
        bad => format!("{} answers, {} bad", number(counts.answers), number(bad)),
    }
}

fn per_second(n: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (n as f64 / seconds).round() as u64 } else { 0 }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 0.0 }
}

fn bar(percent: f64) -> String {
    "█".repeat((percent / 100.0 * 2.0 * BAR).round().clamp(0.0, BAR) as usize)
}

/// `1,234,567`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// `850 µs`, `1.25 ms`, `12.5 ms`, `1.2 s`.
fn short(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1e3),
        _ => seconds(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> Story {
        let us = Duration::from_micros;
        let counts = Counts { answers: 60_000, refused: 0, lost: 0 };
        let share = |name, weight, requests| Share { name, weight, delay: us(200), requests };
        Story {
            cores: Cores { balancer: 0, clients: 1 },
            connections: 64,
            even: Phase {
                time: Duration::from_secs(2),
                counts,
                latency: [850, 1_250, 12_500, 90_000, 1_200_000].map(|n| Some(us(n))),
                cpu: Some(Duration::from_millis(1_200)),
            },
            shares: vec![share("a", 1, 10_000), share("b", 2, 20_000), share("c", 3, 30_000)],
            outage: Outage {
                member: "b",
                down: Duration::from_millis(1_500),
                counts: [counts, Counts { answers: 30_000, refused: 9_998, lost: 2 }, counts],
                back: true,
                found: [Some(us(840_000)), None],
            },
        }
    }

    #[test]
    fn figures_are_told() {
        let text = story().to_string();
        for words in [
            "30,000 requests/s",
            "60,000 answers, all good",
            "p50 850 µs   p90 1.25 ms   p99 12.5 ms   p99.9 90.0 ms   max 1.2 s",
            "20.0 µs of CPU a request, 60 % of core 0",
            "10,000 = 16.67 % (due 16.67 %)",
            "9,998 answers 502 and 2 lost requests in 1.5 s, 33.3 % of that time's",
            "yes, requests reach it again",
            "found it down after 840.0 ms, and up again not in that time",
        ] {
            assert!(text.contains(words), "no `{words}` in:{text}");
        }
    }

    #[test]
    fn an_outage_without_a_trace_is_told_as_such() {
        let mut story = story();
        story.outage.counts[1] = Counts { answers: 5, ..Counts::default() };
        let text = story.to_string();
        assert!(text.contains("nothing: 5 answers, all good"), "{text}");
    }

    #[test]
    fn one_core_is_admitted() {
        let mut story = story();
        story.cores.clients = 0;
        assert!(story.to_string().contains("share core 0"));
    }

    #[test]
    fn nothing_divides_by_zero() {
        let mut story = story();
        story.even = Phase {
            time: Duration::ZERO,
            counts: Counts::default(),
            latency: [None; 5],
            cpu: Some(Duration::ZERO),
        };
        story.shares.iter_mut().for_each(|s| s.requests = 0);
        let text = story.to_string();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 999, 1_000, 1_234_567].map(number);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
    }
}
