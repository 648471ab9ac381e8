//! Pure: what the balancer itself says of the requests, beside what loadgen saw: its metrics, its
//! access log, its Server-Timing field. Put together by `engine`, shown by `text` and `html`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access_log::LogView;
use crate::admin::AdminView;
use crate::hist::Summary;
use crate::prometheus::Estimate;
use crate::units;

/// The balancer's own view; what nobody asked for is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BalancerView {
    /// Its metrics over the measured window (`--admin`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admin: Option<AdminView>,
    /// Its lines about our requests (`--access-log`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log: Option<LogView>,
    /// By Server-Timing, each request's way to a connection to the member.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timing_connect: Option<Summary>,
    /// The same until the head of the member's answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timing_header: Option<Summary>,
}

impl BalancerView {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == BalancerView::default()
    }

    /// Names and values for people.
    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_string(), value));
        if let Some(admin) = &self.admin {
            row("requests, by its metrics", units::count(admin.requests));
            for (name, estimate) in [
                ("request time", admin.request),
                ("connect to member", admin.upstream_connect),
                ("member's header", admin.upstream_header),
                ("member's answer", admin.upstream_response),
            ] {
                estimate.into_iter().for_each(|estimate| row(name, bounded(&estimate)));
            }
            if let Some(cost) = admin.forwarding {
                row("forwarding alone, mean", units::seconds(cost.max(0.0)));
            }
            if let Some(each) = admin.cpu_us_per_request {
                row("its CPU a request", units::seconds(each / 1e6));
            }
            if let Some(busiest) = admin.busiest() {
                let skew = admin.skew.map_or_else(String::new, |skew| format!(", skew {skew:.2}"));
                row("busiest of its shards", format!("{:.0} %{skew}", busiest * 100.0));
            }
            if let Some(sleeps) = admin.sleeps_per_request {
                row("sleeps a request", format!("{sleeps:.2}"));
            }
            if admin.retries > 0 {
                row("retries", units::count(admin.retries));
            }
            for (name, by) in [
                ("refused connections", &admin.refused_by),
                ("dropped datagrams", &admin.dropped_datagrams_by),
            ] {
                if !by.is_empty() {
                    row(name, listed(by));
                }
            }
        }
        if let Some(log) = &self.log {
            let (joined, asked) = (units::count(log.joined), units::count(log.asked));
            row("found in its log", format!("{joined} of {asked}"));
            for (name, summary) in [
                ("network and queues", log.network),
                ("request time", log.request_time),
                ("connect to member", log.upstream_connect_time),
                ("member's header", log.upstream_header_time),
                ("member's answer", log.upstream_response_time),
                ("forwarding alone", log.proxy_time),
            ] {
                summary.into_iter().for_each(|summary| row(name, known(&summary)));
            }
        }
        for (name, summary) in [
            ("Server-Timing connect", self.timing_connect),
            ("Server-Timing header", self.timing_header),
        ] {
            summary.into_iter().for_each(|summary| row(name, known(&summary)));
        }
        rows
    }

    /// What the reader should know.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(admin) = &self.admin
            && !admin.refused_by.is_empty()
        {
            notes.push(format!(
                "the balancer refused connections ({}): what it was set to take (connection, cps, \
                 connections_per_source, ipgroup) was less than this load. A limit a second also \
                 refuses what comes in bursts above it, though the mean is below",
                listed(&admin.refused_by)
            ));
        }
        if let Some(log) = &self.log
            && log.joined * 100 < log.asked * 99
        {
            notes.push(format!(
                "{} of {} requests were found in {}: the listener must log as \"json\" and trust \
                 this client's X-Request-ID (trusted_proxies)",
                units::count(log.joined),
                units::count(log.asked),
                log.path.display()
            ));
        }
        notes
    }
}

fn listed(by: &BTreeMap<String, u64>) -> String {
    let each = |(reason, &count): (&String, &u64)| format!("{reason} {}", units::count(count));
    by.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn known(summary: &Summary) -> String {
    let [p50, p99, max] = [summary.p50, summary.p99, summary.max].map(units::seconds);
    format!("p50 {p50}, p99 {p99}, max {max}, mean {}", units::seconds(summary.mean))
}

fn bounded(estimate: &Estimate) -> String {
    let [p50, p99] = [estimate.p50, estimate.p99].map(units::seconds);
    format!("mean {}, p50 ≤ {p50}, p99 ≤ {p99}", units::seconds(estimate.mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shown() {
        let mut view = BalancerView::default();
        assert!(view.is_empty() && view.rows().is_empty());
        view.admin = Some(AdminView {
            requests: 10,
            forwarding: Some(0.001),
            cpu_us_per_request: Some(12.0),
            ..AdminView::default()
        });
        view.log = Some(LogView {
            path: "log".into(),
            asked: 10,
            joined: 2,
            request_time: None,
            upstream_connect_time: None,
            upstream_header_time: None,
            upstream_response_time: None,
            proxy_time: None,
            network: None,
        });
        let text = view.rows().iter().map(|(a, b)| format!("{a}={b};")).collect::<String>();
        assert!(text.contains("forwarding alone, mean=1.00 ms;"), "{text}");
        assert!(text.contains("found in its log=2 of 10;"));
        assert!(view.notes()[0].contains("trusted_proxies"));
    }
}
