//! Pure: Prometheus' text format 0.0.4. HELP and TYPE once a family, label values escaped.

use std::fmt::Write;

use super::names::{Kind, Metric};

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
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
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
        let out = &mut self.text.0;
        out.push_str(self.metric.name);
        for (at, (label, value)) in self.metric.labels.iter().zip(values).enumerate() {
            out.push(if at == 0 { '{' } else { ',' });
            out.push_str(label);
            out.push_str("=\"");
            escape(out, value);
            out.push('"');
        }
        if !values.is_empty() {
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
    use super::super::names::{BUILD_INFO, RESPONSES, SHARDS};
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
    fn label_values_are_escaped() {
        let mut text = Text::default();
        text.family(&BUILD_INFO).sample(&["a\"b", "c\\d", "e\nf", "é", ""], 1);
        let line = text.into_string();
        let line = line.lines().last().unwrap();
        assert!(line.contains(r#"version="a\"b",commit="c\\d",rustc="e\nf",target="é""#), "{line}");
    }
}
