//! The tables of the format, in the order in which the reference lists them.

use super::Stage::Now;
use super::{Section, Stage};

const fn one(name: &'static str, stage: Stage, doc: &'static str) -> Section {
    Section { name, repeats: false, stage, doc }
}

const fn many(name: &'static str, stage: Stage, doc: &'static str) -> Section {
    Section { name, repeats: true, stage, doc }
}

/// Every table of the format.
#[rustfmt::skip] // one line a section
pub(in crate::config) const SECTIONS: &[Section] = &[
    one("", Now, "Keys that stand above the first section."),
    one("runtime", Now, "The core-pinning part: which cores carry a shard, and what belongs to \
        the process."),
    one("runtime.tcp_keepalive", Now, "TCP keep-alive probes."),
    one("log", Now, "The program's own messages."),
    one("compat", Now, "Where the ELB is stricter than users like; the defaults are the ELB's."),
    one("admin", Now, "The admin listener, which serves `/metrics` and `/healthz`; absent = none."),
    one("access_log", Now, "Default access log of all HTTP and HTTPS \
        listeners; absent = off."),
    one("connection_log", Now, "Log of TCP and UDP connections, always JSON; \
        absent = off."),
    many("loadbalancer", Now, "A load balancer. Without one, listeners belong to `default`: \
        dedicated, on `0.0.0.0` and `::`."),
    many("listener", Now, "What clients connect to: a protocol and a port on the balancer's \
        addresses."),
    one("listener.ipgroup", Now, "Access control by client address."),
    one("listener.proxy_protocol", Now, "The PROXY protocol from clients."),
    one("listener.access_log", Now, "An access log of the listener's own."),
    many("pool", Now, "A group of members and the way to choose among them."),
    one("pool.quic_cid_hash_strategy", Now, "Which bytes of a QUIC connection id are hashed; \
        together at most 20."),
    one("pool.slow_start", Now, "Gives a member that joins or comes back its share gradually."),
    one("pool.session_persistence", Now, "Sends a session always to the same member; ROUND_ROBIN \
        only."),
    one("pool.connection_drain", Now, "What happens to flows of a removed or weight-0 member."),
    one("pool.pool_health", Now, "What happens when too few members are healthy."),
    one("pool.outlier_detection", Now, "Leaves members out that fail requests."),
    one("pool.tls", Now, "TLS towards members."),
    many("pool.members", Now, "The members of a pool: `[[pool.members]]` tables, or \
        `members = [{ … }, …]`."),
    one("pool.healthmonitor", Now, "Health checks: `[pool.healthmonitor]` below a `[[pool]]`, or \
        `healthmonitor = { … }`; absent = no checks, every member counts as up."),
    many("l7policy", Now, "A forwarding policy of an HTTP or HTTPS listener. [policies.md]\
        (policies.md) has the order in which policies are tried, and examples."),
    many("l7policy.rules", Now, "A condition; all of a policy's must hold."),
    many("l7policy.redirect_pools", Now, "One of several pools that share the requests."),
    one("l7policy.redirect_url_config", Now, "The URL that clients are sent to; `${…}` stands for \
        that part of the request's."),
    one("l7policy.fixed_response_config", Now, "An answer of Weir's own."),
    many("certificate", Now, "A server certificate, or a CA bundle for mutual TLS."),
    many("ipgroup", Now, "A list of client addresses for access control."),
    many("ipgroup.ip_list", Now, "An entry with a note; a bare string is one without."),
];
