//! Pure: the report as one page that needs nothing else: no script, no file beside it, charts as
//! inline SVG, light and dark. Called by `commands`.

use std::fmt::Write;

use crate::chart::{self, Axis, Line, Range, escape};
use crate::hist::{Bucket, Point, Summary};
use crate::live::Second;
use crate::record::ErrorClass;
use crate::report::Report;
use crate::units;

const STYLE: &str = include_str!("report.css");

/// Points of a line over time at most.
const POINTS: usize = 240;

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let url = escape(&self.url);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>{url} under load</title><style>{STYLE}</style></head><body>\n\
             <h1>{url}</h1><p class=\"job\">{}</p>\n",
            escape(&self.job())
        );
        for note in &self.notes {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(note));
        }
        out.push_str(&self.figures());
        self.section(&mut out, "Latency by percentile", self.percentile_chart());
        self.section(&mut out, "Phases", self.phases());
        self.section(&mut out, "Requests a second", self.rate_chart());
        self.section(&mut out, "Latency over time", self.time_chart());
        self.section(&mut out, "Distribution of total latency", self.distribution_bars());
        self.section(&mut out, "Members", self.members());
        self.section(&mut out, "Datagrams", self.datagram_words().map(|words| paragraph(&words)));
        self.section(
            &mut out,
            "Drill",
            self.drill.as_ref().map(|drill| format!("<pre>{}</pre>", escape(&drill.to_text()))),
        );
        self.section(&mut out, "The balancer's own view", self.balancer_table());
        self.section(&mut out, "Processors and memory", self.processors());
        self.section(&mut out, "Errors", self.error_table());
        let _ = writeln!(
            out,
            "<p class=\"hint\">loadgen {}, seed {}, begun {} on {} (Linux {}, {}): \
             <code>{}</code>. Times count from {}.</p></body></html>",
            escape(&self.version),
            self.seed,
            escape(&self.setting.started),
            escape(&self.setting.host),
            escape(&self.setting.kernel),
            escape(&self.setting.processor),
            escape(&self.setting.command.join(" ")),
            match self.rate.asked {
                Some(_) => "when each request was due",
                None => "when each request began",
            }
        );
        out
    }

    fn section(&self, out: &mut String, title: &str, body: Option<String>) {
        if let Some(body) = body {
            let _ = writeln!(out, "<h2>{title}</h2>\n{body}");
        }
    }

    fn figures(&self) -> String {
        let mut out = "<div class=\"figures\">".to_string();
        let mut figure = |name: &str, value: String| {
            let _ = write!(out, "<div><b>{}</b>{name}</div>", escape(&value));
        };
        figure("requests a second", units::rate(self.rate.achieved));
        figure("requests", units::count(self.requests));
        figure("errors", units::count(self.errors.total));
        if let Some(total) = self.latency.total {
            figure("p50", units::seconds(total.p50));
            figure("p99", units::seconds(total.p99));
            figure("p99.9", units::seconds(total.p999));
        }
        if let Some(each) = self.cpu.and_then(|cpu| cpu.us_per_request) {
            figure("target's CPU a request", units::seconds(each / 1e6));
        }
        out + "</div>\n"
    }

    fn percentile_chart(&self) -> Option<String> {
        let total = [("total", &self.percentiles[..])];
        percentiles(&total)
    }

    /// Each phase from its median to its longest.
    fn phases(&self) -> Option<String> {
        let table = self.phase_table()?;
        let named = self.latency.named().into_iter();
        let rows = named.filter_map(|(name, phase)| Some((phase_name(name), phase?)));
        // What nothing was measured of has no place on a logarithmic axis.
        let rows: Vec<Range> = rows
            .filter(|(_, phase)| phase.max > 0.0)
            .map(|(name, phase)| Range {
                words: format!(
                    "p50 {}, p99 {}, max {}",
                    units::seconds(phase.p50),
                    units::seconds(phase.p99),
                    units::seconds(phase.max)
                ),
                name,
                points: [phase.p50, phase.p99, phase.max],
            })
            .collect();
        Some(chart::ranges(&rows, units::seconds) + &table)
    }

    fn phase_table(&self) -> Option<String> {
        let rows = self
            .latency
            .named()
            .into_iter()
            .filter_map(|(name, phase)| Some(row(&phase_name(name), &phase?)));
        let rows: String = rows.collect();
        (!rows.is_empty()).then(|| phase_rows("phase", &rows))
    }

    fn over_time(&self, value: impl Fn(&[Second]) -> Option<f64>) -> Vec<(f64, f64)> {
        let together = self.timeline.len().div_ceil(POINTS).max(1);
        let chunks = self.timeline.chunks(together);
        chunks.filter_map(|part| Some((part.last()?.at, value(part)?))).collect()
    }

    fn time_axis(&self) -> Axis {
        // Seconds end a little late; the axis needn't show that.
        let end = self.timeline.last().map_or(1.0, |second| (second.at * 10.0).floor() / 10.0);
        Axis::linear(end, "seconds", |value| format!("{value}"))
    }

    fn rate_chart(&self) -> Option<String> {
        let rate = |count: fn(&Second) -> u64| {
            self.over_time(|part| {
                let time: f64 = part.iter().map(|second| second.length).sum();
                Some(part.iter().map(count).sum::<u64>() as f64 / time.max(1e-9))
            })
        };
        let (requests, errors) = (rate(|second| second.requests), rate(|second| second.errors));
        if requests.len() < 2 {
            return None;
        }
        let top = requests.iter().map(|point| point.1).fold(0.0, f64::max);
        let y = Axis::linear(top, "a second", units::rate);
        let lines =
            [Line { name: "requests", points: requests }, Line { name: "errors", points: errors }];
        Some(chart::lines(&self.time_axis(), &y, &lines, |at, value| {
            format!("{} a second at {at:.0} s", units::rate(value))
        }))
    }

    fn time_chart(&self) -> Option<String> {
        let worst = |of: fn(&Second) -> Option<f64>| {
            self.over_time(|part| part.iter().filter_map(of).reduce(f64::max))
        };
        let (p50, p99) = (worst(|second| second.p50), worst(|second| second.p99));
        if p50.len() < 2 {
            return None;
        }
        let low = p50.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = p99.iter().map(|point| point.1).fold(0.0, f64::max);
        let y = Axis::logarithmic(low, high, "latency", units::seconds);
        let lines = [Line { name: "p50", points: p50 }, Line { name: "p99", points: p99 }];
        Some(chart::lines(&self.time_axis(), &y, &lines, |at, value| {
            format!("{} at {at:.0} s", units::seconds(value))
        }))
    }

    fn distribution_bars(&self) -> Option<String> {
        let unanswered = self.latency.total.map_or(0, |total| total.unanswered);
        let all = self.distribution.iter().map(|bucket| bucket.count).sum::<u64>() + unanswered;
        let words = |bucket: &Bucket| format!("up to {}", units::seconds(bucket.up_to));
        let rows = self.distribution.iter().map(|bucket| (words(bucket), bucket.count));
        let rows = rows.chain([("no answer".to_string(), unanswered)]);
        let row = |(name, count)| (name, count as f64, units::share(count, all));
        let rows: Vec<_> = rows.filter(|&(_, count)| count > 0).map(row).collect();
        (!rows.is_empty()).then(|| chart::bars(&rows))
    }

    /// As the text has it.
    fn processors(&self) -> Option<String> {
        let mut text = String::new();
        self.write_cpu(&mut text).ok()?;
        (!text.is_empty()).then(|| format!("<pre>{}</pre>", escape(text.trim_matches('\n'))))
    }

    /// How many answers each gave, and how long they took.
    fn members(&self) -> Option<String> {
        let mut out = self.member_bars()?;
        let told = self.members.iter().filter_map(|member| Some((member, member.total?)));
        let rows: String = told.clone().map(|(member, total)| row(&member.name, &total)).collect();
        let curves = told.map(|(member, _)| (member.name.as_str(), &member.percentiles[..]));
        let curves: Vec<_> = curves.take(chart::COLOURS.len()).collect();
        out.extend(percentiles(&curves));
        if !rows.is_empty() {
            out.push_str(&phase_rows("member", &rows));
        }
        Some(out)
    }

    fn member_bars(&self) -> Option<String> {
        let rows = self.members.iter().map(|member| {
            let share = member.share * 100.0;
            let words = format!("{share:.2} %, {} answers", units::count(member.answers));
            (member.name.clone(), member.answers as f64, words)
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return None;
        }
        let mut out = chart::bars(&rows);
        if let Some(shares) = &self.shares {
            let _ = write!(out, "<p>{}</p>", escape(&shares.words()));
        }
        if self.stickiness_violations > 0 {
            let n = units::count(self.stickiness_violations);
            let _ = write!(out, "<p>{n} answers came from another member than the one before.</p>");
        }
        Some(out)
    }

    fn balancer_table(&self) -> Option<String> {
        let rows = self.balancer.as_ref()?.rows();
        let rows = rows.into_iter().map(|(name, value)| {
            format!("<tr><td>{}</td><td>{}</td></tr>", escape(&name), escape(&value))
        });
        Some(format!("<table>{}</table>", rows.collect::<String>()))
    }

    fn error_table(&self) -> Option<String> {
        let rows = ErrorClass::ALL.into_iter().filter(|&class| self.errors.of(class) > 0);
        let rows = rows.map(|class| {
            let cause = self.error_causes.get(class.key()).map_or("", String::as_str);
            let n = units::count(self.errors.of(class));
            format!("<tr><td>{class}</td><td>{n}</td><td>{}</td></tr>", escape(cause))
        });
        let rows: String = rows.collect();
        (!rows.is_empty()).then(|| {
            format!("<table><tr><th>kind</th><th>count</th><th>first cause</th></tr>{rows}</table>")
        })
    }
}

fn paragraph(words: &str) -> String {
    format!("<p>{}</p>", escape(words))
}

/// A table of latencies; `rows` are those of [`row`].
fn phase_rows(what: &str, rows: &str) -> String {
    format!(
        "<table><tr><th>{what}</th><th>count</th><th>mean</th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>max</th></tr>{rows}</table>"
    )
}

/// A phase's name for people.
fn phase_name(name: &str) -> String {
    if name == "service" { "uncorrected".to_string() } else { name.replace('_', " ") }
}

/// Lines of latency by share of requests; nothing where no line has two points.
fn percentiles(curves: &[(&str, &[Point])]) -> Option<String> {
    let told = |curve: &[Point]| -> Vec<Point> {
        curve.iter().filter(|point| point.share < 1.0).copied().collect()
    };
    let curves: Vec<(&str, Vec<Point>)> =
        curves.iter().map(|&(name, curve)| (name, told(curve))).collect();
    let all = || curves.iter().flat_map(|(_, curve)| curve);
    let low = all().map(|point| point.time).reduce(f64::min)?;
    let high = all().map(|point| point.time).reduce(f64::max)?;
    let most = all().map(|point| point.share).reduce(f64::max)?;
    // The rarest share that can be told apart stands at the right end.
    let rare = |share: f64| 1.0 / (1.0 - share).max(1e-9);
    let x = Axis::logarithmic(1.0, rare(most), "share of requests", |value| {
        match value.log10().round() as i32 {
            0 => "0 %".to_string(),
            1 => "90 %".to_string(),
            2 => "99 %".to_string(),
            nines => format!("99.{} %", "9".repeat(nines.max(3) as usize - 2)),
        }
    });
    let y = Axis::logarithmic(low, high, "latency", units::seconds);
    let lines: Vec<Line<'_>> = curves
        .iter()
        .map(|(name, curve)| Line {
            name,
            points: curve.iter().map(|point| (rare(point.share), point.time)).collect(),
        })
        .collect();
    Some(chart::lines(&x, &y, &lines, |x, y| {
        format!("{:.5} % took at most {}", (1.0 - 1.0 / x) * 100.0, units::seconds(y))
    }))
}

fn row(name: &str, phase: &Summary) -> String {
    let times = [phase.mean, phase.p50, phase.p90, phase.p99, phase.p999, phase.max];
    let cells = times.map(|time| format!("<td>{}</td>", units::seconds(time))).concat();
    let name = escape(name);
    format!("<tr><td>{name}</td><td>{}</td>{cells}</tr>", units::count(phase.count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Datagrams;
    use crate::report::Member;
    use crate::report::tests::sample;

    #[test]
    fn the_page_stands_alone_and_escapes() {
        let mut report = sample();
        report.url = "http://h/<script>alert(1)</script>".to_string();
        report.members = vec![Member {
            name: "<i>".into(),
            answers: 5,
            share: 1.0,
            mean: 0.001,
            total: report.latency.total,
            percentiles: report.percentiles.clone(),
        }];
        report.datagrams = Some(Datagrams { sent: 17, ..Datagrams::default() });
        let second = |at: f64| Second {
            at,
            length: 1.0,
            requests: 100,
            errors: 1,
            received: 0,
            open: 2,
            p50: Some(0.002),
            p99: Some(0.009),
        };
        report.timeline = (1..=500).map(|n| second(f64::from(n))).collect();
        let page = report.to_html();
        assert!(!page.contains("<script") && !page.contains("<i>"));
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        for part in [
            "Latency by percentile",
            "Phases",
            "Requests a second",
            "Members",
            "reset",
            // A chart of the phases, and one of each member's latencies.
            "<title>first byte: p50 1.00 ms, p99 1.00 ms, max no answer</title>",
            "&lt;i&gt;: 90.00000 % took at most 2.00 ms",
            "17 sent",
            "loadgen&#39;s CPU",
            "resident",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.matches("<circle").count() < 1500, "long runs are drawn with fewer points");
    }

    #[test]
    fn an_empty_report_is_no_trap() {
        let mut report = sample();
        report.latency = Default::default();
        (report.percentiles, report.distribution) = (Vec::new(), Vec::new());
        assert!(report.to_html().ends_with("</html>\n"));
    }
}
