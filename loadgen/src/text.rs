//! Pure: the report as people read it: aligned columns, units, a distribution and a line of what
//! each second did. Called by `commands` and by `weir demo` through [`Report::to_text`].

use std::fmt::Write;

use crate::hist::Summary;
use crate::live::{Second, Snapshot};
use crate::record::ErrorClass;
use crate::report::Report;
use crate::units;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of the longest bar.
const BAR_WIDTH: usize = 40;
/// Columns of the line of seconds.
const SPARK_WIDTH: usize = 60;
/// Members that are listed.
const MEMBER_ROWS: usize = 32;
/// Rows of the distribution below this share of all (and beyond the tenth) are put into their
/// neighbour.
const LEAST_SHARE: f64 = 0.000_05;

impl Report {
    /// The whole report as text, several lines, no colours.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing into a String can't fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{}  {}", self.url, self.job())?;
        writeln!(out)?;
        self.write_totals(out)?;
        writeln!(out)?;
        self.write_latency(out)?;
        self.write_members(out)?;
        self.write_distribution(out)?;
        self.write_seconds(out)?;
        self.write_cpu(out)?;
        self.write_balancer(out)?;
        if let Some(drill) = &self.drill {
            write!(out, "\n{}", drill.to_text())?;
        }
        for note in &self.notes {
            writeln!(out, "\n! {note}")?;
        }
        Ok(())
    }

    pub(crate) fn job(&self) -> String {
        let reuse = match self.requests_per_connection {
            None => "kept alive".to_string(),
            Some(1) => "one request each".to_string(),
            Some(n) => format!("{} requests each", units::count(n)),
        };
        let streams = match self.streams {
            None => String::new(),
            Some(1) => ", HTTP/2".to_string(),
            Some(n) => format!(", HTTP/2 with {n} streams each"),
        };
        let plural = if self.connections == 1 { "" } else { "s" };
        let connections = units::count(self.connections as u64);
        let pace = match (self.rate.ramp, self.rate.asked) {
            (Some([from, to]), _) => {
                format!(", {} to {} requests/s asked", units::count(from), units::count(to))
            }
            (None, None) => String::new(),
            (None, Some(rate)) => format!(", {} requests/s asked", units::count(rate)),
        };
        let cores = match self.cores.as_slice() {
            [] => String::new(),
            [core] => format!(", core {core}"),
            cores => format!(", {} cores", cores.len()),
        };
        let time = units::seconds(self.duration);
        format!("{connections} connection{plural}{streams}, {reuse}{pace}{cores}, {time} measured")
    }

    fn write_totals(&self, out: &mut String) -> std::fmt::Result {
        let per_second = |n: f64| if self.duration > 0.0 { n / self.duration } else { 0.0 };
        let rate = units::rate(self.rate.achieved);
        writeln!(out, "  requests     {:>14}  {rate:>12} /s", units::count(self.requests))?;
        let received = units::bytes(per_second(self.bytes.received as f64));
        writeln!(
            out,
            "  received     {:>14}  {received:>12}/s",
            units::bytes(self.bytes.received as f64)
        )?;
        let sent = units::bytes(per_second(self.bytes.sent as f64));
        writeln!(out, "  sent         {:>14}  {sent:>12}/s", units::bytes(self.bytes.sent as f64))?;
        let opened = units::count(self.connections_opened);
        writeln!(out, "  connections  {opened:>14}  opened")?;
        for agreed in &self.tls {
            let count = units::count(agreed.connections);
            writeln!(out, "    TLS        {count:>14}  {}, {}", agreed.version, agreed.cipher)?;
        }
        if self.tls_resumed > 0 {
            let resumed = units::count(self.tls_resumed);
            writeln!(out, "    resumed    {resumed:>14}  TLS sessions")?;
        }
        let share = units::share(self.errors.total, self.requests);
        writeln!(out, "  errors       {:>14}  {share:>12}", units::count(self.errors.total))?;
        for class in ErrorClass::ALL {
            let n = self.errors.of(class);
            if n > 0 {
                let cause = self.error_causes.get(class.key()).map_or("", String::as_str);
                writeln!(out, "    {:<13}{:>12}  {cause}", words(class), units::count(n))?;
            }
        }
        if self.statuses.keys().any(|status| !(200..300).contains(status)) {
            let list = self.statuses.iter().map(|(s, &n)| format!("{s} × {}", units::count(n)));
            writeln!(out, "  statuses     {}", list.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }

    fn write_latency(&self, out: &mut String) -> std::fmt::Result {
        let heads = ["p50", "p90", "p99", "p99.9", "max", "mean"];
        write!(out, "  latency    ")?;
        heads.iter().try_for_each(|head| write!(out, " {head:>9}"))?;
        writeln!(out)?;
        let total = if self.rate.asked.is_some() { "total, due" } else { "total" };
        for (name, phase) in [
            ("connect", self.latency.connect),
            ("TLS", self.latency.tls),
            ("sent", self.latency.sent),
            ("first byte", self.latency.first_byte),
            ("body", self.latency.body),
            (total, self.latency.total),
            ("uncorrected", self.latency.service),
        ] {
            if let Some(phase) = phase {
                writeln!(out, "  {name:<11}{}", columns(&phase))?;
            }
        }
        Ok(())
    }

    pub(crate) fn datagram_words(&self) -> Option<String> {
        let datagrams = self.datagrams?;
        let strange = match datagrams.strange {
            0 => String::new(),
            strange => format!(", {} of nobody here", units::count(strange)),
        };
        Some(format!(
            "{} sent, {} lost ({}), {} out of order, {} doubled, {} late{strange}",
            units::count(datagrams.sent),
            units::count(self.errors.timeout),
            units::share(self.errors.timeout, datagrams.sent),
            units::count(datagrams.reordered),
            units::count(datagrams.doubled),
            units::count(datagrams.late),
        ))
    }

    fn write_members(&self, out: &mut String) -> std::fmt::Result {
        if let Some(datagrams) = self.datagram_words() {
            writeln!(out, "\n  datagrams    {datagrams}")?;
        }
        // A single one says nothing.
        if self.members.len() < 2 && self.shares.is_none() {
            return Ok(());
        }
        writeln!(
            out,
            "\n  member                        answers     share       mean       p50       p99"
        )?;
        for member in self.members.iter().take(MEMBER_ROWS) {
            let point = |of: fn(&Summary) -> f64| {
                member.total.map_or_else(|| "–".to_string(), |total| units::seconds(of(&total)))
            };
            writeln!(
                out,
                "  {:<25}{:>12} {:>8.2} % {:>10} {:>9} {:>9}",
                member.name,
                units::count(member.answers),
                member.share * 100.0,
                units::seconds(member.mean),
                point(|total| total.p50),
                point(|total| total.p99)
            )?;
        }
        if let Some(shares) = &self.shares {
            writeln!(out, "  {}", shares.words())?;
        }
        if self.stickiness_violations > 0 {
            let n = units::count(self.stickiness_violations);
            writeln!(out, "  {n} answers came from another member than the client's one before")?;
        }
        Ok(())
    }

    fn write_distribution(&self, out: &mut String) -> std::fmt::Result {
        let unanswered = self.latency.total.map_or(0, |total| total.unanswered);
        let counts = self.distribution.iter().map(|bucket| bucket.count).chain([unanswered]);
        let (all, most) = (counts.clone().sum::<u64>(), counts.max().unwrap_or(0));
        if all == unanswered {
            return Ok(());
        }
        writeln!(out, "\n  total latency up to")?;
        let least = (all as f64 * LEAST_SHARE) as u64;
        let none = (unanswered > 0).then_some((f64::INFINITY, unanswered));
        let rows = self.distribution.iter().map(|bucket| (bucket.up_to, bucket.count));
        for (up_to, count) in rows.filter(|&(_, count)| count > least).chain(none) {
            let bar = bar(count as f64 * BAR_WIDTH as f64 / most as f64);
            let share = units::share(count, all);
            writeln!(out, "  {:>9}  {bar:<BAR_WIDTH$} {share:>8}", units::seconds(up_to))?;
        }
        Ok(())
    }

    fn write_seconds(&self, out: &mut String) -> std::fmt::Result {
        // One bar says nothing.
        if self.timeline.len() < 2 {
            return Ok(());
        }
        let rates = squeeze(&self.timeline);
        let low = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rates.iter().copied().fold(0.0, f64::max);
        writeln!(
            out,
            "\n  requests a second over time, {}–{}",
            units::rate(low),
            units::rate(high)
        )?;
        writeln!(out, "  {}", spark(&rates))
    }

    fn write_balancer(&self, out: &mut String) -> std::fmt::Result {
        let Some(view) = &self.balancer else { return Ok(()) };
        writeln!(out, "\n  the balancer's own view")?;
        let mut rows = view.rows().into_iter();
        rows.try_for_each(|(name, value)| writeln!(out, "    {name:<30} {value}"))
    }

    pub(crate) fn write_cpu(&self, out: &mut String) -> std::fmt::Result {
        if self.cpu.is_none() && self.loadgen_cpu.is_none() && self.members_cpu.is_none() {
            return Ok(());
        }
        writeln!(out)?;
        if let Some(cpu) = self.cpu {
            let busy = cpu.seconds / cpu.over.max(1e-9);
            write!(
                out,
                "  target's CPU   {} a request, {busy:.2} cores",
                each(cpu.us_per_request)
            )?;
            match cpu.rss {
                Some(rss) => writeln!(out, ", {} resident", units::bytes(rss as f64))?,
                None => writeln!(out)?,
            }
        }
        if let Some(own) = self.loadgen_cpu {
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            write!(
                out,
                "  loadgen's CPU  {} a request, {} of its cores",
                each(own.us_per_request),
                percent(own.busy)
            )?;
            if own.waited >= 0.005 {
                write!(out, ", up to {} waited for one", percent(own.waited))?;
            }
            match own.polled > 0.0 {
                true => writeln!(out, ", and {} polled", percent(own.polled))?,
                false => writeln!(out)?,
            }
        }
        if let Some(own) = self.members_cpu {
            let (each, busy) = (each(own.us_per_request), own.busiest * 100.0);
            writeln!(out, "  members' CPU   {each} a request, the busiest core {busy:.0} % taken")?;
        }
        Ok(())
    }
}

fn each(micros: Option<f64>) -> String {
    micros.map_or_else(|| "–".to_string(), |us| units::seconds(us / 1e6))
}

fn words(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Connect => "connect",
        ErrorClass::Timeout => "timeout",
        ErrorClass::Reset => "reset, closed",
        ErrorClass::BadResponse => "bad response",
        ErrorClass::Tls => "TLS handshake",
        ErrorClass::Status => "status",
        ErrorClass::Check => "wrong answer",
    }
}

fn columns(phase: &Summary) -> String {
    let points = [phase.p50, phase.p90, phase.p99, phase.p999, phase.max, phase.mean];
    points.map(|point| format!(" {:>9}", units::seconds(point))).concat()
}

/// A bar of `width` columns, in eighths; at least a hair.
fn bar(width: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = ((width * 8.0).round() as usize).max(1);
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// Requests a second, several seconds to a column where there are many.
fn squeeze(seconds: &[Second]) -> Vec<f64> {
    let together = seconds.len().div_ceil(SPARK_WIDTH).max(1);
    let rate = |part: &[Second]| {
        let time: f64 = part.iter().map(|second| second.length).sum();
        part.iter().map(|second| second.requests as f64).sum::<f64>() / time.max(1e-9)
    };
    seconds.chunks(together).map(rate).collect()
}

fn spark(values: &[f64]) -> String {
    let top = values.iter().copied().fold(0.0, f64::max);
    let level = |value: f64| match top > 0.0 {
        true => ((value / top * 7.0).round() as usize).min(7),
        false => 0,
    };
    values.iter().map(|&value| BARS[level(value)]).collect()
}

/// One line of progress: `  3 s   123,456 /s   p50 1.2 ms   p99 3.4 ms   0 errors`.
pub(crate) fn progress(second: &Second, errors_so_far: u64) -> String {
    let latency = |value: Option<f64>| value.map_or_else(|| "–".to_string(), units::seconds);
    let rate = units::rate(second.requests as f64 / second.length.max(1e-9));
    let at = match second.at {
        at if at <= 0.0 => "warm-up".to_string(),
        at => format!("{at:.0} s"),
    };
    format!(
        "{at:>8} {rate:>12} /s   p50 {:>8}   p99 {:>8}   {} open   {} errors",
        latency(second.p50),
        latency(second.p99),
        units::count(second.open),
        units::count(errors_so_far),
    )
}

/// The same for a terminal: several lines, none longer than 79 columns. `label` names the run,
/// `share` how much of it is over, `rates` the requests of the last seconds.
pub(crate) fn screen(
    label: &str,
    share: f64,
    second: &Second,
    so_far: &Snapshot,
    rates: &[f64],
) -> Vec<String> {
    let done = (share.clamp(0.0, 1.0) * SCREEN_BAR as f64).round() as usize;
    let bar = format!("{}{}", "█".repeat(done), "░".repeat(SCREEN_BAR - done));
    let at = match second.at {
        at if at <= 0.0 => "warm-up".to_string(),
        at => format!("{at:.0} s"),
    };
    let latency = |value: Option<f64>| value.map_or_else(|| "–".to_string(), units::seconds);
    let rate = units::rate(second.requests as f64 / second.length.max(1e-9));
    let errors = so_far.error_count();
    let kinds = ErrorClass::ALL.into_iter().filter(|&class| so_far.errors_of(class) > 0);
    let kinds = kinds.map(|class| format!("{class} {}", units::count(so_far.errors_of(class))));
    let label = label.chars().take(30).collect::<String>();
    let lines = [
        format!("  {bar} {at:>8}  {label}"),
        format!("  rate     {rate:>12} /s   {}", spark(rates)),
        format!("  requests {:>12}      {} open", units::count(so_far.requests()), second.open),
        format!("  latency  p50 {}, p99 {}", latency(second.p50), latency(second.p99)),
        format!(
            "  errors   {:>12}      {}",
            units::count(errors),
            kinds.collect::<Vec<_>>().join(", ")
        ),
    ];
    lines.into_iter().map(|line| line.chars().take(79).collect()).collect()
}

/// Columns of the screen's bar.
const SCREEN_BAR: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn the_text_has_all_parts_aligned() {
        let mut report = sample();
        let second = |at: f64, requests| Second {
            at,
            length: 1.0,
            requests,
            errors: 0,
            received: 0,
            open: 2,
            p50: Some(0.002),
            p99: None,
        };
        report.timeline = vec![second(1.0, 500), second(2.0, 1500)];
        let text = report.to_text();
        for part in [
            "2 connections, kept alive, 2.00 s measured",
            "2,000",
            "1,000 /s",
            "reset, closed",
            "first byte",
            "2.00 ms",
            "500–1,500",
            "▃█",
            "target's CPU   200 µs a request, 0.20 cores, 4.00 KiB resident",
            "99.9 %",
            "no answer  ▏",
            "0.10 %",
            "! ",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let width = |head: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(head));
            line.map(|line| line.chars().count()).unwrap()
        };
        assert_eq!(width("latency"), width("first byte"));
        assert_eq!(width("latency"), width("total"));
        let line = progress(&report.timeline[0], 3);
        assert!(
            line.contains("1 s") && line.contains("500 /s") && line.contains("3 errors"),
            "{line}"
        );
    }

    #[test]
    fn a_screen_fits_every_terminal() {
        let second = Second {
            at: 5.0,
            length: 1.0,
            requests: 1000,
            errors: 2,
            received: 0,
            open: 7,
            p50: Some(0.002),
            p99: None,
        };
        let mut so_far = Snapshot::default();
        so_far.answers = 4321;
        so_far.errors = [1_000_000_000; ErrorClass::COUNT];
        let lines = screen(&"long ".repeat(30), 0.5, &second, &so_far, &[1.0, 2.0]);
        assert!(lines.iter().all(|line| line.chars().count() < 80), "{lines:?}");
        let text = lines.join("\n");
        for part in ["███░░", "5 s", "1,000 /s", "▅█", "7 open", "p50 2.00 ms, p99 –", "connect 1,"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn an_empty_report_is_no_trap() {
        let mut report = sample();
        report.distribution.clear();
        report.duration = 0.0;
        report.requests = 0;
        report.latency = Default::default();
        assert!(report.to_text().contains("requests"));
        assert_eq!(spark(&[0.0, 0.0]), "▁▁");
        assert_eq!(bar(0.0), "▏");
        assert_eq!(squeeze(&[]), Vec::<f64>::new());
    }
}
