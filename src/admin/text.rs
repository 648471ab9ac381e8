//! Pure: Prometheus' text format 0.0.4. HELP and TYPE once a family, label values escaped.

use std::fmt::Write;

use weir_core::obs::Distribution;

use super::names::Metric;

/// The text that grows family by family.
#[derive(Debug, Default)]
pub struct Text(String);

/// The family that samples are added to.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut Text,
    metric: &'static Metric,
}

impl Text {
    /// Starts a family; each metric once.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        let kind = metric.kind.name();
        let Metric { name, help, .. } = metric;
        // Writing to a string cannot fail; here and below.
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: self, metric }
    }

    /// A family with a single sample and no label.
    pub fn single(&mut self, metric: &'static Metric, value: impl std::fmt::Display) {
        self.family(metric).sample(&[], value);
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample; `values` stand in the order of the metric's labels.
    pub fn sample(&mut self, values: &[&str], value: impl std::fmt::Display) {
        debug_assert_eq!(values.len(), self.metric.labels.len());
        self.line("", values, None, value);
    }

    /// Adds the samples of a histogram with these bounds in microseconds; the text has seconds.
    pub fn histogram(&mut self, values: &[&str], all: &Distribution, bounds_us: &[u64]) {
        for (bound, at_most) in bounds_us.iter().zip(all.at_most) {
            let bound = (*bound as f64 / 1e6).to_string();
            self.line("_bucket", values, Some(&bound), at_most);
        }
        self.line("_bucket", values, Some("+Inf"), all.count);
        self.line("_sum", values, None, all.sum_us as f64 / 1e6);
        self.line("_count", values, None, all.count);
    }

    /// One line; `bound` is the label `le` of a bucket.
    fn line(
        &mut self,
        suffix: &str,
        values: &[&str],
        bound: Option<&str>,
        value: impl std::fmt::Display,
    ) {
        let out = &mut self.text.0;
        out.push_str(self.metric.name);
        out.push_str(suffix);
        let labels = self.metric.labels.iter().copied().zip(values.iter().copied());
        let mut open = '{';
        for (label, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            out.push(std::mem::replace(&mut open, ','));
            out.push_str(label);
            out.push_str("=\"");
            escape(out, value);
            out.push('"');
        }
        if open == ',' {
            out.push('}');
        }
        let _infallible = writeln!(out, " {value}");
    }
}

fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{BUILD_INFO, REQUEST_SECONDS, RESPONSES, SHARDS};
    use super::*;

    #[test]
    fn families_and_samples() {
        let mut text = Text::default();
        text.single(&SHARDS, 2);
        let mut family = text.family(&RESPONSES);
        family.sample(&["web", "200"], 7);
        family.sample(&["api", "502"], 1);
        let expected = "# HELP weir_shards Shards, one core each.\n\
                        # TYPE weir_shards gauge\n\
                        weir_shards 2\n\
                        # HELP weir_responses_total Answers to clients by status code, those made \
                        by Weir itself included.\n\
                        # TYPE weir_responses_total counter\n\
                        weir_responses_total{listener=\"web\",code=\"200\"} 7\n\
                        weir_responses_total{listener=\"api\",code=\"502\"} 1\n";
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn histograms_have_buckets_sum_and_count() {
        let mut text = Text::default();
        let mut all = Distribution { count: 7, sum_us: 1_500_000, ..Distribution::default() };
        all.at_most = [3; weir_core::obs::BOUNDS_US.len()];
        text.family(&REQUEST_SECONDS).histogram(&["web"], &all, &[500, 2_500_000]);
        let text = text.into_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let expected = [
            "# TYPE weir_request_seconds histogram",
            r#"weir_request_seconds_bucket{listener="web",le="0.0005"} 3"#,
            r#"weir_request_seconds_bucket{listener="web",le="2.5"} 3"#,
            r#"weir_request_seconds_bucket{listener="web",le="+Inf"} 7"#,
            r#"weir_request_seconds_sum{listener="web"} 1.5"#,
            r#"weir_request_seconds_count{listener="web"} 7"#,
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = Text::default();
        text.family(&BUILD_INFO).sample(&["a\"b", "c\\d", "e\nf", "é", ""], 1);
        let line = text.into_string();
        let line = line.lines().last().unwrap();
        assert!(line.contains(r#"version="a\"b",commit="c\\d",rustc="e\nf",target="é""#), "{line}");
    }
}
