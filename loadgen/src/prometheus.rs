//! Pure: reads Prometheus' text format as far as Weir's metrics need it: counters, and histograms
//! of which two scrapes are held against each other. Used by `admin`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_core::time::clock::Mono;

/// One reading of all metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    samples: Vec<Sample>,
    at: Mono,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    /// As they stand in the text.
    labels: String,
    value: f64,
}

impl Scrape {
    /// Reads a text; lines that are none of the format are passed over.
    pub fn parse(text: &str) -> Scrape {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        Scrape { samples: lines.filter_map(sample).collect(), at: Mono::default() }
    }

    /// The same with the time at which it was taken.
    #[must_use]
    pub fn taken(self, at: Mono) -> Scrape {
        Scrape { at, ..self }
    }

    /// Seconds from `earlier` to this one; zero where nobody has said when they were taken.
    pub fn seconds_since(&self, earlier: &Scrape) -> f64 {
        self.at.since(earlier.at).as_secs_f64()
    }

    /// Whether some metric's name begins so.
    pub fn has_any(&self, prefix: &str) -> bool {
        self.samples.iter().any(|sample| sample.name.starts_with(prefix))
    }

    /// Sum of all series of a metric; `None` when there are none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let values = self.samples.iter().filter(|sample| sample.name == name);
        values.map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// Sums of a metric by the values of one of its labels.
    pub fn sums_by(&self, name: &str, by: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name) {
            let value = label(&sample.labels, by).unwrap_or_default();
            *sums.entry(value.to_string()).or_default() += sample.value;
        }
        sums
    }

    /// A histogram, summed over all its series.
    pub fn histogram(&self, name: &str) -> Buckets {
        let bucket = format!("{name}_bucket");
        let mut steps: Vec<(f64, f64)> = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.name == bucket) {
            let Some(bound) = label(&sample.labels, "le").and_then(number) else { continue };
            match steps.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => steps.push((bound, sample.value)),
            }
        }
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        let of = |part: &str| self.sum(&format!("{name}_{part}")).unwrap_or(0.0);
        Buckets { steps, sum: of("sum"), count: of("count") }
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (head, value) = match line.split_once('}') {
        // A value, and perhaps a time behind it.
        Some((head, rest)) => (head, rest.split_whitespace().next()?),
        None => {
            let mut words = line.split_whitespace();
            (words.next()?, words.next()?)
        }
    };
    let (name, labels) = head.split_once('{').unwrap_or((head, ""));
    Some(Sample { name: name.to_string(), labels: labels.to_string(), value: number(value)? })
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        text => text.parse().ok(),
    }
}

/// The value of a label; names of listeners hold no quotes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name}=\"");
    let at = labels.find(&start)? + start.len();
    labels[at..].split('"').next()
}

/// A histogram as Prometheus has it: how many were at most so long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    steps: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

/// What buckets tell of a time, seconds. Percentiles are those of the buckets' upper bounds: the
/// true ones are not above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// How many.
    pub count: u64,
    /// Arithmetic mean; exact.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 % took no longer.
    pub p90: f64,
    /// 99 % took no longer.
    pub p99: f64,
}

impl Buckets {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Buckets) -> Buckets {
        let before = |bound: f64| {
            earlier.steps.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count)
        };
        let steps = self.steps.iter().map(|&(bound, count)| (bound, count - before(bound)));
        Buckets {
            steps: steps.collect(),
            sum: self.sum - earlier.sum,
            count: self.count - earlier.count,
        }
    }

    /// Its figures; `None` when nothing was counted.
    pub fn estimate(&self) -> Option<Estimate> {
        (self.count >= 1.0).then(|| Estimate {
            count: self.count.round() as u64,
            mean: self.sum / self.count,
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
        })
    }

    /// The bound of the bucket in which it lies; beyond the last finite one that.
    fn quantile(&self, share: f64) -> f64 {
        let rank = self.count * share;
        let mut finite = self.steps.iter().filter(|(bound, _)| bound.is_finite());
        let found = finite.clone().find(|(_, count)| *count >= rank);
        found.or(finite.next_back()).map_or(0.0, |&(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP x y
weir_requests_total{listener="a"} 10
weir_requests_total{listener="b"} 5 1700000000
process_cpu_seconds_total 1.5
t_seconds_bucket{listener="a",le="0.01"} 50
t_seconds_bucket{listener="a",le="0.02"} 100
t_seconds_bucket{listener="a",le="+Inf"} 100
t_seconds_sum{listener="a"} 1
t_seconds_count{listener="a"} 100
odd line
{}"#;

    #[test]
    fn counters_and_histograms() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.sum("weir_requests_total"), Some(15.0));
        assert_eq!(scrape.sum("process_cpu_seconds_total"), Some(1.5));
        assert_eq!(scrape.sum("nothing"), None);
        let told = scrape.histogram("t_seconds").estimate().unwrap();
        assert_eq!(told.count, 100);
        for (got, want) in [(told.mean, 0.01), (told.p50, 0.01), (told.p90, 0.02)] {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
    }

    #[test]
    fn two_readings_make_a_difference() {
        let later =
            TEXT.replace("\"} 100", "\"} 150").replace("_sum{listener=\"a\"} 1", "_sum{x=\"\"} 2");
        let (before, after) = (Scrape::parse(TEXT), Scrape::parse(&later));
        let between = after.histogram("t_seconds").since(&before.histogram("t_seconds"));
        let told = between.estimate().unwrap();
        assert_eq!(told.count, 50);
        assert!((told.mean - 0.02).abs() < 1e-9 && (0.01..=0.02).contains(&told.p50));
        let nothing = before.histogram("t_seconds").since(&before.histogram("t_seconds"));
        assert_eq!(nothing.estimate(), None);
        assert_eq!(Buckets::default().estimate(), None);
    }
}
