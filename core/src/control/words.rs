//! The difference between two states in words, for the answer of a reload.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::net::SocketAddr;

use super::{Access, Listener, Member, Pool, State};
use crate::model::{Handle, Monitor};

impl State {
    /// What is different in `to`, a line each: listeners, then pools and their members. Health is
    /// left out; empty = nothing is.
    #[must_use]
    pub fn describe(&self, to: &State) -> Vec<String> {
        let mut lines = Vec::new();
        let mut fields = Vec::new();
        field(&mut fields, "tcp_keepalive", &self.keepalive(), &to.keepalive());
        changed(&mut lines, "runtime", &fields);
        self.describe_listeners(to, &mut lines);
        self.describe_pools(to, &mut lines);
        lines
    }

    fn describe_listeners(&self, to: &State, lines: &mut Vec<String>) {
        let mut gone: BTreeMap<&str, &Listener> = (self.listeners())
            .filter(|(handle, _)| to.listener(*handle).is_none())
            .map(|(_, listener)| (listener.name.as_str(), listener.as_ref()))
            .collect();
        let old: HashMap<Handle, &Listener> =
            self.listeners().map(|(handle, listener)| (handle, listener.as_ref())).collect();
        for (handle, now) in to.listeners() {
            let name = &now.name;
            if let Some(was) = old.get(&handle) {
                let fields = self.listener_fields(was, to, now);
                changed(lines, &format!("listener {name}"), &fields);
            } else if let Some(was) = gone.remove(name.as_str()) {
                lines.push(format!(
                    "listener {name}: {} {} became {} {}; such a change makes a new listener, the \
                     old one is removed",
                    was.protocol.name(),
                    addresses(&was.bind),
                    now.protocol.name(),
                    addresses(&now.bind)
                ));
            } else {
                let (protocol, bind) = (now.protocol.name(), addresses(&now.bind));
                lines.push(format!("listener {name}: added, {protocol} {bind}"));
            }
        }
        lines.extend(gone.keys().map(|name| format!("listener {name}: removed")));
    }

    fn listener_fields(&self, was: &Listener, to: &State, now: &Listener) -> Vec<String> {
        let mut fields = Vec::new();
        let pool = |state: &State, handle: Option<Handle>| {
            handle.and_then(|handle| state.pool(handle)).map_or("none".into(), |p| p.name.clone())
        };
        field(&mut fields, "name", &was.name, &now.name);
        if was.pool != now.pool {
            field(&mut fields, "default_pool", &pool(self, was.pool), &pool(to, now.pool));
        }
        let (a, b) = (&was.timeouts, &now.timeouts);
        field(&mut fields, "keepalive_timeout", &a.keepalive, &b.keepalive);
        field(&mut fields, "client_timeout", &a.client, &b.client);
        field(&mut fields, "member_timeout", &a.member, &b.member);
        field(&mut fields, "connect_timeout", &a.connect, &b.connect);
        let (a, b) = (&was.limits, &now.limits);
        field(&mut fields, "max_header_bytes", &a.head, &b.head);
        field(&mut fields, "max_headers", &a.fields, &b.fields);
        field(&mut fields, "max_uri_bytes", &a.uri, &b.uri);
        let file = |bytes| if bytes == u64::MAX { 0 } else { bytes };
        field(&mut fields, "max_body_bytes", &file(a.body), &file(b.body));
        field(&mut fields, "attempts", &was.retry.attempts, &now.retry.attempts);
        let (a, b) = (&was.retry.non_idempotent, &now.retry.non_idempotent);
        field(&mut fields, "retry_non_idempotent", a, b);
        field(&mut fields, "tunnel_timeout", &was.tunnel.timeout, &now.tunnel.timeout);
        let (a, b) = (&was.tunnel.protocols, &now.tunnel.protocols);
        field(&mut fields, "upgrade_protocols", a, b);
        if was.passthrough != now.passthrough {
            fields.push("transparent_client_ip_enable changed".into());
        }
        field(&mut fields, "shards", &was.shards, &now.shards);
        access_fields(&mut fields, &was.access, &now.access);
        let (a, b) = (&was.log, &now.log);
        field(&mut fields, "access_log", &a.access, &b.access);
        field(&mut fields, "server_timing", &a.server_timing, &b.server_timing);
        fields.extend(was.routes.describe(&now.routes));
        let (a, b) = (&was.headers, &now.headers);
        if (a.forwarded_for, a.insert) != (b.forwarded_for, b.insert) {
            fields.push("insert_headers changed".into());
        }
        if a.trusted != b.trusted {
            fields.push("trusted_proxies changed".into());
        }
        if let (Some(was), Some(now)) = (&was.tls, &now.tls) {
            fields.extend(was.describe(now));
        }
        fields
    }

    fn describe_pools(&self, to: &State, lines: &mut Vec<String>) {
        let old: HashMap<Handle, &Pool> = self.pools().map(|(h, p)| (h, p.as_ref())).collect();
        for (handle, now) in to.pools() {
            let name = &now.name;
            match old.get(&handle) {
                Some(was) => {
                    changed(lines, &format!("pool {name}"), &pool_fields(was, now));
                    describe_members(was, now, lines);
                }
                None => lines.push(format!("pool {name}: added, {} members", now.members.len())),
            }
        }
        let gone = self.pools().filter(|(handle, _)| to.pool(*handle).is_none());
        lines.extend(gone.map(|(_, pool)| format!("pool {}: removed", pool.name)));
    }
}

fn access_fields(fields: &mut Vec<String>, was: &Access, now: &Access) {
    field(fields, "connection", &was.caps.connections, &now.caps.connections);
    field(fields, "cps", &was.caps.rate, &now.caps.rate);
    field(fields, "connections_per_source", &was.caps.per_source, &now.caps.per_source);
    // Lists may be long: that they changed is enough.
    if was.list != now.list {
        fields.push("ipgroup changed".into());
    }
    if was.proxies != now.proxies {
        fields.push("proxy_protocol changed".into());
    }
}

fn pool_fields(was: &Pool, now: &Pool) -> Vec<String> {
    let mut fields = Vec::new();
    field(&mut fields, "name", &was.name, &now.name);
    field(&mut fields, "lb_algorithm", &was.algorithm.name(), &now.algorithm.name());
    let slice = |pool: &Pool| pool.connections.as_ref().map(|known| known.slice);
    field(&mut fields, "quic_cid_hash_strategy", &slice(was), &slice(now));
    field(&mut fields, "slow_start", &was.slow_start, &now.slow_start);
    field(&mut fields, "session_persistence", &was.persistence, &now.persistence);
    field(&mut fields, "connection_drain", &was.drain, &now.drain);
    let (a, b) = (&was.minimum_healthy, &now.minimum_healthy);
    field(&mut fields, "pool_health.minimum_healthy_member_count", a, b);
    if was.outliers != now.outliers {
        fields.push("outlier_detection changed".into());
    }
    field(&mut fields, "proxy_protocol", &was.proxy_header, &now.proxy_header);
    if was.trust != now.trust {
        fields.push("tls changed".into());
    }
    monitor_fields(&mut fields, was.monitor.as_deref(), now.monitor.as_deref());
    fields
}

fn monitor_fields(fields: &mut Vec<String>, was: Option<&Monitor>, now: Option<&Monitor>) {
    match (was, now) {
        (None, Some(_)) => fields.push("healthmonitor added".into()),
        (Some(_), None) => fields.push("healthmonitor removed".into()),
        (Some(was), Some(now)) => {
            field(fields, "healthmonitor.type", &was.kind, &now.kind);
            field(fields, "healthmonitor.delay", &was.delay, &now.delay);
            field(fields, "healthmonitor.timeout", &was.timeout, &now.timeout);
            field(fields, "healthmonitor.max_retries", &was.rise, &now.rise);
            field(fields, "healthmonitor.max_retries_down", &was.fall, &now.fall);
            field(fields, "healthmonitor.monitor_port", &was.port, &now.port);
        }
        (None, None) => {}
    }
}

fn describe_members(was: &Pool, now: &Pool, lines: &mut Vec<String>) {
    let name = &now.name;
    let old: HashMap<Handle, &Member> = was.members.iter().map(|m| (m.handle, m)).collect();
    let new: HashMap<Handle, &Member> = now.members.iter().map(|m| (m.handle, m)).collect();
    for member in &now.members {
        let mut fields = Vec::new();
        match old.get(&member.handle) {
            Some(former) => {
                field(&mut fields, "name", &former.name, &member.name);
                field(&mut fields, "weight", &former.weight, &member.weight);
                changed(lines, &format!("pool {name}: member {}", member.name), &fields);
            }
            None => lines.push(format!(
                "pool {name}: member {} added, {} weight {}",
                member.name, member.address, member.weight
            )),
        }
    }
    let gone = was.members.iter().filter(|member| !new.contains_key(&member.handle));
    lines.extend(gone.map(|member| format!("pool {name}: member {} removed", member.name)));
}

fn changed(lines: &mut Vec<String>, what: &str, fields: &[String]) {
    if !fields.is_empty() {
        lines.push(format!("{what}: {}", fields.join(", ")));
    }
}

fn field<T: Debug + PartialEq>(fields: &mut Vec<String>, name: &str, was: &T, now: &T) {
    if was != now {
        fields.push(format!("{name} {was:?} → {now:?}"));
    }
}

fn addresses(bind: &[SocketAddr]) -> String {
    bind.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
