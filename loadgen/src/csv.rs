//! Pure: the report as CSV (RFC 4180): one figure a row, so that any table program can pick what it
//! wants. Columns: section, name, key, value. Called by `commands`.

use std::fmt::Write;

use crate::hist::Summary;
use crate::record::ErrorClass;
use crate::report::Report;

impl Report {
    /// The report as CSV; times are seconds.
    pub fn to_csv(&self) -> String {
        let mut out = Rows("section,name,key,value\r\n".to_string());
        out.row("run", "url", "", &self.url);
        out.row("run", "mode", "", &self.mode);
        for (key, value) in [
            ("connections", self.connections as f64),
            ("duration", self.duration),
            ("requests", self.requests as f64),
            ("answers", self.answers as f64),
            ("rate", self.rate.achieved),
            ("connections_opened", self.connections_opened as f64),
            ("bytes_sent", self.bytes.sent as f64),
            ("bytes_received", self.bytes.received as f64),
            ("stickiness_violations", self.stickiness_violations as f64),
        ] {
            out.row("run", key, "", &value.to_string());
        }
        out.row("errors", "total", "", &self.errors.total.to_string());
        for class in ErrorClass::ALL {
            out.row("errors", class.key(), "", &self.errors.of(class).to_string());
        }
        for (status, count) in &self.statuses {
            out.row("status", &status.to_string(), "", &count.to_string());
        }
        for (name, phase) in self.latency.named() {
            phase.into_iter().for_each(|phase| out.summary(name, &phase));
        }
        for point in &self.percentiles {
            out.row("percentile", "total", &point.share.to_string(), &point.time.to_string());
        }
        for member in &self.members {
            out.row("member", &member.name, "answers", &member.answers.to_string());
            out.row("member", &member.name, "share", &member.share.to_string());
            out.row("member", &member.name, "mean", &member.mean.to_string());
        }
        for second in &self.timeline {
            let at = format!("{:.3}", second.at);
            out.row("second", &at, "requests", &second.requests.to_string());
            out.row("second", &at, "errors", &second.errors.to_string());
            for (key, time) in [("p50", second.p50), ("p99", second.p99)] {
                time.into_iter().for_each(|time| out.row("second", &at, key, &time.to_string()));
            }
        }
        out.0
    }
}

struct Rows(String);

impl Rows {
    fn row(&mut self, section: &str, name: &str, key: &str, value: &str) {
        let [section, name, key, value] = [section, name, key, value].map(field);
        // Writing into a String can't fail.
        let _ = write!(self.0, "{section},{name},{key},{value}\r\n");
    }

    fn summary(&mut self, name: &str, phase: &Summary) {
        for (key, value) in [
            ("count", phase.count as f64),
            ("min", phase.min),
            ("mean", phase.mean),
            ("stddev", phase.stddev),
            ("p50", phase.p50),
            ("p75", phase.p75),
            ("p90", phase.p90),
            ("p95", phase.p95),
            ("p99", phase.p99),
            ("p999", phase.p999),
            ("p9999", phase.p9999),
            ("max", phase.max),
        ] {
            self.row("latency", name, key, &value.to_string());
        }
    }
}

/// Quoted where it has to be.
fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::report::tests::sample;

    #[test]
    fn rows_and_quotes() {
        let mut report = sample();
        report.url = "http://h/?a,\"b\"".to_string();
        let text = report.to_csv();
        for row in [
            "section,name,key,value\r\n",
            "run,url,,\"http://h/?a,\"\"b\"\"\"\r\n",
            "run,requests,,2000\r\n",
            "errors,reset,,2\r\n",
            "latency,total,count,1998\r\n",
        ] {
            assert!(text.contains(row), "{row} in {text}");
        }
        assert!(text.lines().all(|line| line.split(',').count() >= 4));
    }
}
