//! Pure: the report as CSV (RFC 4180): one figure a row, so that any table program can pick what it
//! wants. Columns: section, name, key, value. What has no rows of its own here is taken from the
//! JSON as it is, so that nothing is left out. Called by `commands`.

use std::fmt::Write;

use serde_json::Value;

use crate::hist::Summary;
use crate::record::ErrorClass;
use crate::report::Report;

/// Keys of the JSON whose rows are written here by other names.
const WRITTEN: [&str; 16] = [
    "url",
    "mode",
    "connections",
    "duration",
    "requests",
    "answers",
    "connections_opened",
    "bytes",
    "stickiness_violations",
    "errors",
    "statuses",
    "latency",
    "histograms",
    "percentiles",
    "members",
    "timeline",
];

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
        for (name, words) in &self.histograms {
            for (nanos, count) in words.split(' ').filter_map(|slot| slot.split_once(':')) {
                let seconds = nanos.parse().map_or(f64::NAN, |nanos: f64| nanos / 1e9);
                out.row("histogram", name, &seconds.to_string(), count);
            }
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
            out.row("second", &at, "length", &second.length.to_string());
            out.row("second", &at, "received", &second.received.to_string());
            out.row("second", &at, "open", &second.open.to_string());
            for (key, time) in [("p50", second.p50), ("p99", second.p99)] {
                time.into_iter().for_each(|time| out.row("second", &at, key, &time.to_string()));
            }
        }
        out.rest(self);
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

    /// All that the JSON says besides; what is absent there has no row.
    fn rest(&mut self, report: &Report) {
        let Ok(Value::Object(all)) = serde_json::to_value(report) else { return };
        for (key, value) in all.iter().filter(|(key, _)| !WRITTEN.contains(&key.as_str())) {
            match plain(value) {
                Some(text) => self.row("run", key, "", &text),
                None => self.parts(key, &[], value),
            }
        }
    }

    /// Each plain value within `value`: the first step to it is the name, the others the key.
    fn parts(&mut self, section: &str, path: &[String], value: &Value) {
        if let Some(text) = plain(value) {
            let (name, key) = path
                .split_first()
                .map_or((String::new(), String::new()), |(a, b)| (a.clone(), b.join(".")));
            return self.row(section, &name, &key, &text);
        }
        let inner: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(list) => (0..).map(|n: usize| n.to_string()).zip(list).collect(),
            _ => return,
        };
        for (step, value) in inner {
            self.parts(section, &[path, &[step]].concat(), value);
        }
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

/// A value that holds no other one.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
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
    use std::time::Duration;

    use super::*;
    use crate::drill::{Course, DrillView};
    use crate::record::{Datagrams, Slice};
    use crate::report::tests::sample;
    use crate::shares::Shares;

    /// What a drill, datagrams, shares, processors and limits say stands there as in the JSON.
    #[test]
    fn nothing_is_left_out() {
        let mut report = sample();
        let slices = [Slice { good: 1, bad: 2, stalled: false }];
        let window = Duration::from_secs(1);
        let course = Course { slices: &slices, window, rate: 100, never: 0 };
        report.drill = Some(DrillView::new("reload", Duration::ZERO, course));
        report.datagrams = Some(Datagrams { sent: 17, ..Datagrams::default() });
        report.shares = Shares::test(&[("a".to_string(), 1)], &report.members);
        (report.rate.asked, report.rate.reached) = (Some(5), Some(false));
        report.notes = vec!["one, two".to_string()];
        let text = report.to_csv();
        let total = report.histograms["total"].split(':').nth(1).unwrap();
        for row in [
            "drill,kind,,reload\r\n",
            "datagrams,sent,,17\r\n",
            "shares,agree,,false\r\n",
            "rate,reached,,false\r\n",
            "cpu,seconds,,0.4\r\n",
            "loadgen_cpu,busy,,0.25\r\n",
            "limits,out_of_ports,,",
            "run,unfinished,,4\r\n",
            "notes,0,,\"one, two\"\r\n",
            "distribution,0,up_to,",
        ] {
            assert!(text.contains(row), "{row} in {text}");
        }
        assert!(text.contains(&format!(",{total}\r\n")), "{total}");
        // Every key of the JSON with a value is a section, or the name of a row of one.
        let Ok(Value::Object(all)) = serde_json::to_value(&report) else { panic!("no object") };
        for key in
            all.iter().filter(|(key, value)| !WRITTEN.contains(&key.as_str()) && !empty(value))
        {
            let key = key.0;
            let told = [format!("\r\n{key},"), format!("\r\nrun,{key},")];
            assert!(told.iter().any(|told| text.contains(told)), "{key}");
        }
    }

    fn empty(value: &Value) -> bool {
        value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
    }

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
