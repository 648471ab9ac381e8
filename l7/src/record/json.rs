//! Pure: the form "json": one object a line, the ELB's names, upstream fields as arrays, numbers as
//! numbers, `null` for what there is not, times in seconds with six decimals; and what the ELB does
//! not have.

use std::io::Write;
use std::time::Duration;

use weir_core::tls::Facts;

use super::stamp::append_seconds;
use super::{Attempt, Record, TARGET_BYTES, TEXT_BYTES, WORD_BYTES, escape};
use crate::message::append_decimal;

/// Decimals of times.
const DIGITS: usize = 6;

/// An object in the making.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// Appends the line without its line break.
pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut object = Object { out, empty: true };
    object.head(record);
    object.upstream(record);
    object.objects(record);
    object.rest(record);
    object.extra(record);
    out.push(b'}');
}

impl Object<'_> {
    fn head(&mut self, record: &Record<'_>) {
        self.time("msec", Some(record.wall));
        self.text("access_log_topic_id", record.log.topic.as_bytes());
        self.text("time_iso8601", record.stamp);
        self.text("log_ver", b"elb_01");
        self.text("remote_addr", record.client);
        self.number("remote_port", u64::from(record.port));
        self.number("status", u64::from(record.status));
        let asked = record.asked.unwrap_or_default();
        self.long_text("method", asked.method, WORD_BYTES);
        self.text("scheme", record.asked.map_or("", |_| record.scheme()).as_bytes());
        self.long_text("host", asked.host, WORD_BYTES);
        self.long_text("uri", asked.target, TARGET_BYTES);
        self.long_text("protocol", asked.protocol, WORD_BYTES);
        self.number("request_length", record.request_length);
        self.number("bytes_sent", record.bytes_sent);
        self.number("body_bytes_sent", record.body_bytes_sent);
        self.time("request_time", Some(record.request_time));
    }

    fn upstream(&mut self, record: &Record<'_>) {
        self.each("upstream_status", record, |out, attempt| match attempt.status {
            Some(status) => append_decimal(out, u64::from(status)),
            None => out.extend_from_slice(b"null"),
        });
        self.each("upstream_connect_time", record, |out, attempt| {
            time(out, attempt.connect_time())
        });
        self.each("upstream_header_time", record, |out, attempt| time(out, attempt.header_time()));
        self.each("upstream_response_time", record, |out, attempt| {
            time(out, attempt.response_time())
        });
        self.each("upstream_addr", record, address);
        self.text("http_user_agent", record.user_agent);
        self.text("http_referer", record.referer);
        self.text("http_x_forwarded_for", record.forwarded_for);
    }

    fn objects(&mut self, record: &Record<'_>) {
        let log = record.log;
        self.text("lb_name", log.balancer.as_bytes());
        self.key("listener_name");
        self.out.extend_from_slice(b"\"listener_");
        self.out.extend_from_slice(log.listener.as_bytes());
        self.out.push(b'"');
        self.text("listener_id", log.listener.as_bytes());
        let pool = record.pool;
        self.text("pool_name", pool.map(|p| p.label()).as_deref().unwrap_or_default().as_bytes());
        self.each("member_name", record, |out, attempt| {
            string(out, attempt.member.label().as_bytes(), TEXT_BYTES);
        });
        self.text("tenant_id", b"default");
        self.nothing("eip_address");
        self.nothing("eip_port");
        self.each("upstream_addr_priv", record, address);
    }

    fn rest(&mut self, record: &Record<'_>) {
        match record.tls.and_then(|facts| facts.certificate) {
            Some(id) => {
                self.key("certificate_id");
                // A Vec takes all that is written; no other memory is asked for.
                let _never = write!(self.out, "\"{id}\"");
            }
            None => self.nothing("certificate_id"),
        }
        self.text("ssl_protocol", record.tls.map_or("", Facts::protocol).as_bytes());
        self.text("ssl_cipher", record.tls.map_or("", Facts::cipher).as_bytes());
        let name = record.tls.and_then(|facts| facts.server_name.as_deref());
        self.long_text("sni_domain_name", name.unwrap_or_default().as_bytes(), WORD_BYTES);
        match record.rtt_us {
            Some(us) => self.number("tcpinfo_rtt", u64::from(us)),
            None => self.nothing("tcpinfo_rtt"),
        }
        self.nothing("self_defined_header");
        self.number("request_header_length", record.header_length);
        self.text("actions_executed", record.action.as_bytes());
        self.text("error_reason", record.reason.as_bytes());
        let pool = record.pool;
        self.text(
            "pool_usr_name",
            pool.map(|p| p.name()).as_deref().unwrap_or_default().as_bytes(),
        );
    }

    /// What the ELB does not have.
    fn extra(&mut self, record: &Record<'_>) {
        self.text("lb_usr_name", record.log.balancer_name.as_bytes());
        self.text("listener_usr_name", record.log.listener_name.as_bytes());
        self.each("member_usr_name", record, |out, attempt| {
            string(out, attempt.member.name().as_bytes(), TEXT_BYTES);
        });
        self.long_text("request_id", record.request_id, WORD_BYTES);
        // A connection's first request tells it.
        let first = record.tls.filter(|_| record.connection_requests == 1);
        self.time("tls_handshake_time", first.map(|facts| facts.took));
        self.time("proxy_time", Some(record.proxy_time));
        self.number("shard", record.log.shard as u64);
        self.number("connection_requests", record.connection_requests);
        self.text("sticky", record.sticky.name().as_bytes());
        self.number("attempts", record.attempts.len() as u64);
    }

    fn key(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn nothing(&mut self, name: &str) {
        self.key(name);
        self.out.extend_from_slice(b"null");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.key(name);
        append_decimal(self.out, number);
    }

    fn time(&mut self, name: &str, value: Option<Duration>) {
        self.key(name);
        time(self.out, value);
    }

    fn text(&mut self, name: &str, raw: &[u8]) {
        self.long_text(name, raw, TEXT_BYTES);
    }

    /// A text; `null` for an empty one.
    fn long_text(&mut self, name: &str, raw: &[u8], limit: usize) {
        if raw.is_empty() {
            return self.nothing(name);
        }
        self.key(name);
        string(self.out, raw, limit);
    }

    fn each(
        &mut self,
        name: &str,
        record: &Record<'_>,
        mut value: impl FnMut(&mut Vec<u8>, &Attempt),
    ) {
        self.key(name);
        self.out.push(b'[');
        for (at, attempt) in record.attempts.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            value(self.out, attempt);
        }
        self.out.push(b']');
    }
}

fn address(out: &mut Vec<u8>, attempt: &Attempt) {
    string(out, attempt.member.host.as_bytes(), TEXT_BYTES);
}

fn string(out: &mut Vec<u8>, raw: &[u8], limit: usize) {
    out.push(b'"');
    escape::json(out, raw, limit);
    out.push(b'"');
}

fn time(out: &mut Vec<u8>, time: Option<Duration>) {
    match time {
        Some(time) => append_seconds(out, time, DIGITS),
        None => out.extend_from_slice(b"null"),
    }
}
