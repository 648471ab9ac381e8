//! The balancer's own view of the measured window: its metrics before and after it. Reads Weir's
//! admin listener. Called by `engine`, on the coordinator's thread.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::time::clock::mono;

use crate::limits;
use crate::prometheus::{Estimate, Scrape};
use crate::response::ResponseReader;
use crate::target::{Scheme, Target};

/// What Weir says of the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminView {
    /// Requests that it answered, on all listeners.
    pub requests: u64,
    /// Its processor time, seconds.
    pub cpu: Option<f64>,
    /// The same for each of its requests, µs.
    pub cpu_us_per_request: Option<f64>,
    /// From a request's first byte until its answer was handed to the kernel.
    pub request: Option<Estimate>,
    /// Until an attempt had a connection to its member.
    pub upstream_connect: Option<Estimate>,
    /// Until the head of the member's answer was there.
    pub upstream_header: Option<Estimate>,
    /// Until the member's answer was there.
    pub upstream_response: Option<Estimate>,
    /// Mean of `request` less mean of `upstream_response`: what forwarding itself costs (R4.1-9).
    pub forwarding: Option<f64>,
    /// Accepted connections that were refused.
    pub refused_connections: u64,
    /// The same by reason: the balancer's limits, and access control.
    #[serde(default)]
    pub refused_by: BTreeMap<String, u64>,
    /// Datagrams that it did not forward, by reason.
    #[serde(default)]
    pub dropped_datagrams_by: BTreeMap<String, u64>,
    /// Requests that went to another member after one had failed.
    pub retries: u64,
    /// How busy each of its shards was: the share of the window in which it neither slept nor
    /// polled, 0–1, by the shard's number.
    #[serde(default)]
    pub busy: BTreeMap<String, f64>,
    /// Requests of the busiest shard over the mean of all; 1 = even.
    #[serde(default)]
    pub skew: Option<f64>,
    /// How often a shard went to sleep, for each request.
    #[serde(default)]
    pub sleeps_per_request: Option<f64>,
}

impl AdminView {
    /// What happened between two readings.
    pub fn between(before: &Scrape, after: &Scrape) -> AdminView {
        let grown = |name: &str| {
            after.sum(name).map(|value| (value - before.sum(name).unwrap_or(0.0)).max(0.0))
        };
        let counted = |name: &str| grown(name).unwrap_or(0.0).round() as u64;
        let by = |name: &str, label: &str| {
            let was = before.sums_by(name, label);
            let grown = |(value, sum): (String, f64)| {
                let count = (sum - was.get(&value).unwrap_or(&0.0)).round();
                (count >= 1.0).then_some((value, count as u64))
            };
            after.sums_by(name, label).into_iter().filter_map(grown).collect()
        };
        let shards = |name: &str| -> BTreeMap<String, f64> {
            let was = before.sums_by(name, "shard");
            let grown = |(shard, sum): (String, f64)| {
                let more = (sum - was.get(&shard).unwrap_or(&0.0)).max(0.0);
                (shard, more)
            };
            after.sums_by(name, "shard").into_iter().map(grown).collect()
        };
        let window = after.seconds_since(before);
        let polled = shards("weir_shard_spin_seconds_total");
        let rested = shards("weir_shard_sleep_seconds_total").into_iter();
        let busy = rested.filter(|_| window > 0.0).map(|(shard, slept)| {
            let rested = slept + polled.get(&shard).unwrap_or(&0.0);
            (shard, (1.0 - rested / window).clamp(0.0, 1.0))
        });
        let times = |name: &str| after.histogram(name).since(&before.histogram(name)).estimate();
        let requests = counted("weir_requests_total");
        let cpu = grown("process_cpu_seconds_total");
        let request = times("weir_request_seconds");
        let response = times("weir_upstream_response_seconds");
        AdminView {
            requests,
            cpu,
            cpu_us_per_request: cpu
                .filter(|_| requests > 0)
                .map(|seconds| seconds * 1e6 / requests as f64),
            request,
            upstream_connect: times("weir_upstream_connect_seconds"),
            upstream_header: times("weir_upstream_header_seconds"),
            upstream_response: response,
            forwarding: request.zip(response).map(|(all, member)| all.mean - member.mean),
            refused_connections: counted("weir_refused_connections_total"),
            refused_by: by("weir_refused_connections_total", "reason"),
            dropped_datagrams_by: by("weir_datagrams_dropped_total", "why"),
            retries: counted("weir_member_retries_total"),
            busy: busy.collect(),
            skew: skew(shards("weir_shard_requests_total").values().copied()),
            sleeps_per_request: grown("weir_ring_sleeps_total")
                .filter(|_| requests > 0)
                .map(|sleeps| sleeps / requests as f64),
        }
    }

    /// How busy the busiest shard was, 0–1; `None` where nobody says.
    pub fn busiest(&self) -> Option<f64> {
        self.busy.values().copied().reduce(f64::max)
    }
}

/// The largest over the mean; `None` when there is nothing.
fn skew(counts: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let (sum, shards) = (counts.clone().sum::<f64>(), counts.clone().count());
    let most = counts.reduce(f64::max)?;
    (sum > 0.0).then(|| most * shards as f64 / sum)
}

/// Reads all metrics once.
///
/// # Errors
/// A message with cause and cure.
pub fn scrape(admin: &Target) -> Result<Scrape, String> {
    fetch(admin).map_err(|why| {
        format!(
            "--admin {}: {why}; it is the address of [admin] in Weir's file, and for a Weir that \
            is just starting there is --wait 10s",
            admin.url
        )
    })
}

fn fetch(admin: &Target) -> Result<Scrape, String> {
    if admin.scheme != Scheme::Http {
        return Err("metrics are read by http alone".to_string());
    }
    let path = if admin.path == "/" { "/metrics" } else { admin.path.as_str() };
    let told = |error: std::io::Error| error.to_string();
    let mut stream =
        TcpStream::connect_timeout(&admin.resolve()?, limits::SCRAPE_LIMIT).map_err(told)?;
    stream.set_read_timeout(Some(limits::SCRAPE_LIMIT)).map_err(told)?;
    let at = mono();
    let host = &admin.authority;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told)?;
    let mut reader = ResponseReader::default();
    let (mut text, mut piece) = (Vec::new(), vec![0; limits::SEND_PIECE]);
    loop {
        let taken = match stream.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            taken => taken.map_err(told)?,
        };
        let fed = reader.feed_to(&piece[..taken], |part| text.extend_from_slice(part))?;
        if fed.done || taken == 0 {
            break;
        }
        if text.len() as u64 > limits::MAX_SCRAPE {
            return Err("the answer is too long".to_string());
        }
    }
    match reader.head().map(|head| head.status) {
        Some(200) => {
            let scrape = Scrape::parse(&String::from_utf8_lossy(&text)).taken(at);
            let ours = scrape.has_any("weir_");
            ours.then_some(scrape).ok_or_else(|| format!("{path} there has no metrics of Weir"))
        }
        Some(status) => Err(format!("{path} was answered with {status}")),
        None => Err("the answer broke off".to_string()),
    }
}

/// Waits a little on a plain thread.
pub(crate) fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

#[cfg(test)]
mod tests {
    use weir_core::time::clock::Mono;

    use super::*;
    use crate::origin::{OriginSpec, Origins};

    /// R4.1-9: request time less the member's.
    #[test]
    fn the_cost_of_forwarding() {
        let text = |n: u64, request: f64, member: f64| {
            let histogram = |name: &str, sum: f64| {
                format!("{name}_bucket{{le=\"+Inf\"}} {n}\n{name}_sum {sum}\n{name}_count {n}\n")
            };
            let times = histogram("weir_request_seconds", request)
                + &histogram("weir_upstream_response_seconds", member);
            format!(
                "weir_requests_total {n}\nprocess_cpu_seconds_total {}\n{times}",
                n as f64 / 1e5
            )
        };
        let view = AdminView::between(
            &Scrape::parse(&text(100, 1.0, 0.5)),
            &Scrape::parse(&text(200, 2.5, 1.0)),
        );
        assert_eq!((view.requests, view.retries), (100, 0));
        assert!((view.forwarding.unwrap() - 0.01).abs() < 1e-9);
        assert!((view.cpu_us_per_request.unwrap() - 10.0).abs() < 1e-6);
    }

    /// R4.5-2: by reason, and only what came in between.
    #[test]
    fn what_limits_refused() {
        let text = |n: u64| {
            let series = |reason: &str, n: u64| {
                format!(
                    "weir_refused_connections_total{{listener=\"a\",reason=\"{reason}\"}} {n}\n"
                )
            };
            series("cps_limit", 5 + n) + &series("acl_denied", 7)
        };
        let view = AdminView::between(&Scrape::parse(&text(0)), &Scrape::parse(&text(3)));
        assert_eq!(view.refused_connections, 3);
        assert_eq!(view.refused_by, BTreeMap::from([("cps_limit".to_string(), 3)]));
        assert!(view.dropped_datagrams_by.is_empty());
    }

    /// One shard slept half of the time, the other hardly.
    #[test]
    fn how_busy_the_shards_were() {
        let text = |slept: [f64; 2], requests: [u64; 2], sleeps: u64| {
            let mut text = format!(
                "weir_requests_total {}\nweir_ring_sleeps_total{{shard=\"0\"}} {sleeps}\n",
                requests[0] + requests[1]
            );
            for (shard, (slept, requests)) in slept.into_iter().zip(requests).enumerate() {
                text += &format!("weir_shard_sleep_seconds_total{{shard=\"{shard}\"}} {slept}\n");
                text += &format!("weir_shard_requests_total{{shard=\"{shard}\"}} {requests}\n");
            }
            text + "weir_shard_spin_seconds_total{shard=\"1\"} 0.1\n"
        };
        let taken = |text: &str, seconds: u64| {
            Scrape::parse(text).taken(Mono::from_nanos(seconds * 1_000_000_000))
        };
        let before = taken(&text([7.0, 7.0], [100, 100], 50), 5);
        let later = text([8.0, 7.1], [110, 130], 70).replace("} 0.1\n", "} 0.3\n");
        let view = AdminView::between(&before, &taken(&later, 7));
        let busy: Vec<f64> = view.busy.values().map(|busy| (busy * 100.0).round()).collect();
        assert_eq!(busy, [50.0, 85.0]);
        assert_eq!((view.skew, view.sleeps_per_request), (Some(1.5), Some(0.5)));
        assert!((view.busiest().unwrap() - 0.85).abs() < 1e-9);
        let nothing = AdminView::between(&before, &before);
        assert_eq!(
            (nothing.busiest(), nothing.skew, nothing.sleeps_per_request),
            (None, None, None)
        );
    }

    #[test]
    fn who_does_not_answer_is_told() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = port.local_addr().unwrap();
        drop(port);
        let why = scrape(&Target::from(addr)).unwrap_err();
        assert!(why.contains("--admin") && why.contains("refused"), "{why}");
        let why = scrape(&Target::parse("https://127.0.0.1:1").unwrap()).unwrap_err();
        assert!(why.contains("http alone"));
        // Somebody else's answer is not zero requests.
        let origins = Origins::start(None, vec![OriginSpec::new("a")]).unwrap();
        let why = scrape(&Target::from(origins.addrs()[0])).unwrap_err();
        assert!(why.contains("no metrics of Weir"), "{why}");
    }
}
