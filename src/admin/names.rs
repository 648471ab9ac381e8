//! Every metric's name, type and meaning. The only place where they are spelt; `docs/metrics.md`
//! lists the same, and a test compares. Names stay once published.

/// Type of a metric in Prometheus' text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of observed values by bucket, with their sum.
    Histogram,
}

impl Kind {
    /// The word in the format.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric family.
#[derive(Debug)]
pub struct Metric {
    /// In Prometheus style: base units, `_total` on counters.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One line for people.
    pub help: &'static str,
    /// Its labels, in the order of printing.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, kind: Kind::$kind, help: $help, labels: &$labels };
        )*
        /// All of them, in the order of printing.
        #[cfg(test)]
        pub const ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    BUILD_INFO Gauge "weir_build_info" ["version", "commit", "rustc", "target", "profile"],
        "What this program was built from; always 1.";
    SHARDS Gauge "weir_shards" [],
        "Shards, one core each.";
    DRAINING Gauge "weir_draining" [],
        "1 from SIGTERM on, else 0.";
    CONFIG_VERSION Gauge "weir_config_version" [],
        "Version of the desired state; each reload and each change of a member's health adds one.";
    CONFIG_EFFECTIVE Gauge "weir_config_effective_version" [],
        "The version that is in effect on every shard.";
    CERTIFICATE_NOT_AFTER Gauge "weir_certificate_not_after_timestamp_seconds" ["certificate"],
        "When a certificate expires (of a CA bundle the first one), in seconds since 1970.";
    CERTIFICATE_STALE Gauge "weir_certificate_stale" ["certificate"],
        "1 while a certificate's files can't be used and the one before is shown, else 0.";

    CONNECTIONS Counter "weir_connections_total" ["listener"],
        "Client connections accepted.";
    REFUSED Counter "weir_refused_connections_total" ["listener", "reason"],
        "Client connections closed by RST before anything else: access control and limits.";
    ACTIVE_CONNECTIONS Gauge "weir_active_connections" ["listener"],
        "Client connections open now.";
    REQUESTS Counter "weir_requests_total" ["listener"],
        "Requests answered, with whatever status.";
    RESPONSES Counter "weir_responses_total" ["listener", "code"],
        "Answers to clients by status code, those made by Weir itself included.";
    RECEIVED_BYTES Counter "weir_received_bytes_total" ["listener"],
        "Bytes received from clients.";
    SENT_BYTES Counter "weir_sent_bytes_total" ["listener"],
        "Bytes sent to clients.";
    STICKY_REQUESTS Counter "weir_sticky_requests_total" ["listener", "result"],
        "Answered requests by what stickiness did: hit, miss, new, none.";
    SILENT_CLOSES Counter "weir_silent_closes_total" ["listener"],
        "Client connections closed without a complete request.";
    HTTP2_FAULTS Counter "weir_http2_faults_total" ["listener", "kind"],
        "HTTP/2 connections that were ended for what the client did: flood, or protocol.";
    ACTIVE_TUNNELS Gauge "weir_active_tunnels" ["listener"],
        "Client connections that are tunnels now, after a 101; their bytes count as all others.";

    TLS_HANDSHAKES Counter "weir_tls_handshakes_total" ["listener", "kind", "version"],
        "TLS handshakes that went well: full or resumed.";
    TLS_FAILURES Counter "weir_tls_handshake_failures_total" ["listener", "reason"],
        "TLS handshakes that failed: docs/tls.md lists the reasons.";
    TLS_SECONDS Histogram "weir_tls_handshake_seconds" ["listener"],
        "From a connection's beginning until its handshake was done, of those that went well.";

    ENDED Counter "weir_ended_connections_total" ["listener", "how"],
        "TCP connections and UDP flows that have ended, by how: docs/tcp.md lists the words.";

    DATAGRAMS_RECEIVED Counter "weir_datagrams_received_total" ["listener"],
        "Datagrams received from clients of a UDP listener.";
    DATAGRAMS_SENT Counter "weir_datagrams_sent_total" ["listener"],
        "Datagrams sent to clients of a UDP listener.";
    DATAGRAMS_DROPPED Counter "weir_datagrams_dropped_total" ["listener", "why"],
        "Datagrams of a UDP listener that were not forwarded, by why: docs/udp.md lists the words.";

    FORWARDED Counter "weir_forwarded_requests_total" ["listener"],
        "Requests for which a member was asked, whatever came of it.";
    LOCAL_RESPONSES Counter "weir_local_responses_total" ["listener", "code"],
        "Requests for which no member was asked, by the status code of Weir's own answer.";
    RESPONSE_CLASSES Counter "weir_response_classes_total" ["listener", "class"],
        "Answers to clients by class of status code (499 counts as 4xx).";
    REQUEST_SECONDS Histogram "weir_request_seconds" ["listener"],
        "From a request's first byte until its answer was handed to the kernel.";
    UPSTREAM_CONNECT_SECONDS Histogram "weir_upstream_connect_seconds" ["listener"],
        "Time until an attempt had a connection to its member; 0 when one was reused.";
    UPSTREAM_HEADER_SECONDS Histogram "weir_upstream_header_seconds" ["listener"],
        "Time from an attempt's beginning until the head of the member's answer was there.";
    UPSTREAM_RESPONSE_SECONDS Histogram "weir_upstream_response_seconds" ["listener"],
        "Time from an attempt's beginning until the member's answer was there, or it failed.";
    UPSTREAM_RT Gauge "weir_upstream_rt_average_milliseconds" ["listener"],
        "Mean of the upstream response times of about the last minute (the ELB's backend RT).";

    LOG_LINES Counter "weir_access_log_lines_total" ["log"],
        "Lines written to an access log.";
    LOG_DROPPED Counter "weir_access_log_dropped_lines_total" ["log"],
        "Lines that no access log has, since its target was slow, full or stalled.";

    MEMBER_CONNECTIONS Counter "weir_member_connections_total" ["pool", "member"],
        "Connections opened to the member.";
    MEMBER_ACTIVE_CONNECTIONS Gauge "weir_member_active_connections" ["pool", "member"],
        "Connections to the member that exist now, idle ones included.";
    MEMBER_IDLE_CONNECTIONS Gauge "weir_member_idle_connections" ["pool", "member"],
        "Idle connections to the member, kept for the next request.";
    MEMBER_CONNECT_FAILURES Counter "weir_member_connect_failures_total" ["pool", "member"],
        "Connections to the member that could not be opened.";
    MEMBER_TLS_HANDSHAKES Counter "weir_member_tls_handshakes_total" ["pool", "member", "kind"],
        "TLS handshakes with the member: full, or resumed from an earlier session.";
    MEMBER_TLS_FAILURES Counter "weir_member_tls_handshake_failures_total" ["pool", "member"],
        "TLS handshakes with the member that failed or took too long; among the connect failures.";
    MEMBER_REQUESTS Counter "weir_member_requests_total" ["pool", "member"],
        "Requests given to the member.";
    MEMBER_RESPONSES Counter "weir_member_responses_total" ["pool", "member", "code"],
        "Answers of the member by status code.";
    MEMBER_RECEIVED_BYTES Counter "weir_member_received_bytes_total" ["pool", "member"],
        "Bytes received from the member.";
    MEMBER_SENT_BYTES Counter "weir_member_sent_bytes_total" ["pool", "member"],
        "Bytes sent to the member.";
    MEMBER_REUSE_RETRIES Counter "weir_member_reuse_retries_total" ["pool", "member"],
        "Requests sent once more since a kept connection failed before the answer's first byte.";
    MEMBER_RETRIES Counter "weir_member_retries_total" ["pool", "member"],
        "Attempts that failed at the member, after which the request went to another one.";
    MEMBER_RESPONSE_SECONDS Counter "weir_member_response_seconds_total" ["pool", "member"],
        "Time that the member's answers took; over weir_member_responses_total it is the mean.";
    MEMBER_RESPONSE_CLASSES Counter "weir_member_response_classes_total"
        ["pool", "member", "class"],
        "Answers of the member by class of status code.";
    MEMBER_CHANGES Counter "weir_member_state_changes_total" ["pool", "member"],
        "How often the checks found the member down, or up again after that.";
    ABNORMAL_MEMBERS Gauge "weir_abnormal_members" ["pool"],
        "Members of a checked pool that are down.";
    NORMAL_MEMBERS Gauge "weir_normal_members" ["pool"],
        "Members of a checked pool that are up.";
    MEMBER_UP Gauge "weir_member_up" ["pool", "member"],
        "1 while the member's health checks find it up, else 0; absent without checks.";
    SERVES_ALL Gauge "weir_pool_serves_all" ["pool"],
        "1 while all members get traffic since too few are well (pool_health), else 0.";
    EJECTED Gauge "weir_member_ejected" ["pool", "member"],
        "1 while the member is left out by outlier_detection, else 0; absent without it.";
    EJECTIONS Counter "weir_member_ejections_total" ["pool", "member"],
        "How often the member was left out by outlier_detection.";
    CHECK_FAILURE Gauge "weir_member_check_failure"
        ["pool", "member", "reason", "cause", "expected", "actual"],
        "1 while the member's last check failed, with why; absent while it goes well.";

    HEALTH_PROBES Counter "weir_health_probes_total" [],
        "Health probes that had an outcome.";
    HEALTH_FAILURES Counter "weir_health_probe_failures_total" ["reason"],
        "Health probes that failed, by reason: docs/health.md lists the codes.";
    HEALTH_VOID Counter "weir_health_probes_void_total" [],
        "Health probes that this host could not make (descriptors, ports, memory); no verdict.";

    SHARD_REQUESTS Counter "weir_shard_requests_total" ["shard"],
        "Requests answered by the shard, all listeners together.";
    SHARD_SLEEP Counter "weir_shard_sleep_seconds_total" ["shard"],
        "Time that the shard had nothing to do and slept.";
    SHARD_SPIN Counter "weir_shard_spin_seconds_total" ["shard"],
        "Time that the shard had nothing to do and polled, as the key `spin` has it.";
    SHARD_BUSY Gauge "weir_shard_busy_ratio" ["shard"],
        "Part of about the last minute that the shard had work, 0 to 1.";
    SHARD_SKEW Gauge "weir_shard_skew" [],
        "Requests of the busiest shard over the mean of all, about the last minute; 1 = even.";
    SHARD_CONNECTIONS Gauge "weir_shard_active_connections" ["shard"],
        "Client connections open on the shard, flows of UDP left out.";
    SHARD_CONNECTION_SKEW Gauge "weir_shard_connection_skew" [],
        "Open client connections of the busiest shard over the mean of all; 1 = even.";
    SHARD_HANDED_OVER Counter "weir_shard_handed_over_connections_total" ["shard"],
        "Connections that the shard accepted and handed over to another (max_skew_percent).";

    RING_TURNS Counter "weir_ring_turns_total" ["shard"],
        "Turns of the shard's loop.";
    RING_ENTERS Counter "weir_ring_enters_total" ["shard"],
        "System calls into the ring, each for many operations.";
    RING_SLEEPS Counter "weir_ring_sleeps_total" ["shard"],
        "Turns in which the shard had nothing to do and slept in the kernel.";
    RING_SUBMISSIONS Counter "weir_ring_submissions_total" ["shard"],
        "Operations given to the ring.";
    RING_COMPLETIONS Counter "weir_ring_completions_total" ["shard"],
        "Completions taken from the ring.";
    RING_NO_BUFFERS Counter "weir_ring_no_buffers_total" ["shard"],
        "Receives that found no buffer (ENOBUFS) and were armed again.";
    RING_CQ_OVERFLOWS Counter "weir_ring_cq_overflows_total" ["shard"],
        "Times the completion queue was full.";
    RING_ACCEPT_FAILURES Counter "weir_ring_accept_failures_total" ["shard"],
        "Accepts that failed, most often for lack of descriptors (EMFILE).";
    RING_NO_PORTS Counter "weir_ring_no_ports_total" ["shard"],
        "Connects and UDP sockets that found no source port or address left (EADDRNOTAVAIL).";
    RING_NO_DESCRIPTORS Counter "weir_ring_no_descriptors_total" ["shard"],
        "Sockets towards members that found no descriptor (EMFILE).";
    RING_DATAGRAMS_DROPPED Counter "weir_ring_datagrams_dropped_total" ["shard"],
        "Datagrams that were dropped instead of sent: the socket was full, or the kernel refused.";
    RING_SPLICED_BYTES Counter "weir_ring_spliced_bytes_total" ["shard"],
        "Bytes of TCP, tunnels and HTTP answers that went through pipes, uncopied.";
    RING_TASK_PANICS Counter "weir_ring_task_panics_total" ["shard"],
        "Connections ended by a panic; every one is a bug.";
    RING_TASKS Gauge "weir_ring_tasks" ["shard"],
        "Tasks alive on the shard.";
    RING_STREAMS Gauge "weir_ring_streams" ["shard"],
        "TCP streams alive on the shard, both sides.";
    RING_OPERATIONS Gauge "weir_ring_operations" ["shard"],
        "Operations in flight.";
    RING_LEASES Gauge "weir_ring_leases" ["shard"],
        "Receive buffers on loan.";

    RESIDENT_MEMORY Gauge "process_resident_memory_bytes" [],
        "Resident memory of the process.";
    OPEN_FDS Gauge "process_open_fds" [],
        "Descriptors open now.";
    MAX_FDS Gauge "process_max_fds" [],
        "Limit of open descriptors.";
    CPU_SECONDS Counter "process_cpu_seconds_total" [],
        "User and system time of all threads.";
    START_TIME Gauge "process_start_time_seconds" [],
        "Start of the process, seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter);
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(metric.name.bytes().all(fits), "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'));
        }
    }

    /// The page's tables hold exactly these names, types and labels.
    #[test]
    fn the_page_lists_the_same() {
        let page = include_str!("../../docs/metrics.md");
        let rows: BTreeSet<&str> = page.lines().filter(|l| l.starts_with("| `")).collect();
        let expected: BTreeSet<String> = ALL.iter().map(|m| row(m)).collect();
        let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        assert_eq!(rows, expected);
    }

    /// R14.3-7: every metric of the ELB has its line, and what it names exists.
    #[test]
    fn the_page_has_the_metrics_of_the_elb() {
        const ELB: [&str; 32] = [
            "m1_cps",
            "m2_act_conn",
            "m3_inact_conn",
            "m4_ncps",
            "m5_in_pps",
            "m6_out_pps",
            "m7_in_Bps",
            "m8_out_Bps",
            "m9_abnormal_servers",
            "ma_normal_servers",
            "mb_l7_qps",
            "mc_l7_http_2xx",
            "md_l7_http_3xx",
            "me_l7_http_4xx",
            "mf_l7_http_5xx",
            "m10_l7_http_other_status",
            "m11_l7_http_404",
            "m12_l7_http_499",
            "m13_l7_http_502",
            "m14_l7_rt",
            "m15_l7_upstream_4xx",
            "m16_l7_upstream_5xx",
            "m17_l7_upstream_rt",
            "m1a_l7_upstream_rt_max",
            "m1b_l7_upstream_rt_min",
            "m1c_l7_rt_max",
            "m1d_l7_rt_min",
            "m1e_server_rps",
            "m1f_lvs_rps",
            "m21_client_rps",
            "m22_in_bandwidth",
            "m23_out_bandwidth",
        ];
        let page = include_str!("../../docs/metrics.md");
        for name in ELB {
            let start = format!("| {name} | ");
            assert_eq!(page.lines().filter(|l| l.starts_with(&start)).count(), 1, "{name}");
        }
        let named = page.split('`').skip(1).step_by(2).filter(|word| word.starts_with("weir_"));
        for word in named {
            assert!(ALL.iter().any(|metric| metric.name == word), "{word} is no metric");
        }
    }

    fn row(metric: &Metric) -> String {
        let kind = metric.kind.name();
        let labels = if metric.labels.is_empty() {
            "–".to_owned()
        } else {
            metric.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ")
        };
        format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
    }
}
