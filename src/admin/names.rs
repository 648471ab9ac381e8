//! Every metric's name, type and meaning. The only place where they are spelt; `docs/metrics.md`
//! lists the same, and a test compares. Names stay once published.

/// Type of a metric in Prometheus' text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A metric family.
#[derive(Debug)]
pub struct Metric {
    /// In Prometheus style: base units, `_total` on counters.
    pub name: &'static str,
    /// Counter or gauge.
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
    SILENT_CLOSES Counter "weir_silent_closes_total" ["listener"],
        "Client connections closed without a complete request.";
    ACTIVE_TUNNELS Gauge "weir_active_tunnels" ["listener"],
        "Client connections that are tunnels now, after a 101; their bytes count as all others.";

    MEMBER_CONNECTIONS Counter "weir_member_connections_total" ["pool", "member"],
        "Connections opened to the member.";
    MEMBER_ACTIVE_CONNECTIONS Gauge "weir_member_active_connections" ["pool", "member"],
        "Connections to the member that exist now, idle ones included.";
    MEMBER_IDLE_CONNECTIONS Gauge "weir_member_idle_connections" ["pool", "member"],
        "Idle connections to the member, kept for the next request.";
    MEMBER_CONNECT_FAILURES Counter "weir_member_connect_failures_total" ["pool", "member"],
        "Connections to the member that could not be opened.";
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
    MEMBER_UP Gauge "weir_member_up" ["pool", "member"],
        "1 while the member's health checks find it up, else 0; absent without checks.";

    HEALTH_PROBES Counter "weir_health_probes_total" [],
        "Health probes that had an outcome.";
    HEALTH_FAILURES Counter "weir_health_probe_failures_total" [],
        "Health probes that failed; the log has the reasons of changes.";
    HEALTH_VOID Counter "weir_health_probes_void_total" [],
        "Health probes that this host could not make (descriptors, ports, memory); no verdict.";

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
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
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

    fn row(metric: &Metric) -> String {
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        let labels = if metric.labels.is_empty() {
            "–".to_owned()
        } else {
            metric.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ")
        };
        format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
    }
}
