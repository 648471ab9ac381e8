//! Pure: the form "elb": the ELB's 37 fields, one space between them, `-` for what there is not;
//! values of several attempts are joined by `, ` inside the quotes of their field.

use std::io::Write;
use std::time::Duration;

use weir_core::tls::Facts;

use super::stamp::append_seconds;
use super::{Attempt, Record, TARGET_BYTES, TEXT_BYTES, WORD_BYTES, escape};
use crate::message::append_decimal;

/// Decimals of times.
const DIGITS: usize = 3;

/// Appends the line without its line break.
pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    head(record, out);
    upstream(record, out);
    texts(record, out);
    objects(record, out);
    rest(record, out);
}

/// `msec` to `request_time`.
fn head(record: &Record<'_>, out: &mut Vec<u8>) {
    append_seconds(out, record.wall, DIGITS);
    word(out, record.log.topic.as_bytes());
    out.extend_from_slice(b" [");
    out.extend_from_slice(record.stamp);
    out.extend_from_slice(b"] elb_01 ");
    client(out, record);
    number(out, u64::from(record.status));
    asked(record, out);
    number(out, record.request_length);
    number(out, record.bytes_sent);
    number(out, record.body_bytes_sent);
    out.push(b' ');
    append_seconds(out, record.request_time, DIGITS);
}

/// `upstream_status` to `upstream_addr`.
fn upstream(record: &Record<'_>, out: &mut Vec<u8>) {
    each(record, out, |out, attempt| match attempt.status {
        Some(status) => append_decimal(out, u64::from(status)),
        None => out.push(b'-'),
    });
    each(record, out, |out, attempt| time(out, attempt.connect_time()));
    each(record, out, |out, attempt| time(out, attempt.header_time()));
    each(record, out, |out, attempt| time(out, attempt.response_time()));
    each(record, out, address);
}

/// `http_user_agent` to `http_x_forwarded_for`.
fn texts(record: &Record<'_>, out: &mut Vec<u8>) {
    quoted(out, record.user_agent);
    quoted(out, record.referer);
    quoted(out, record.forwarded_for);
}

/// `lb_name` to `upstream_addr_priv`. There is no public address (`eip`) yet.
fn objects(record: &Record<'_>, out: &mut Vec<u8>) {
    word(out, record.log.balancer.as_bytes());
    out.extend_from_slice(b" listener_");
    out.extend_from_slice(record.log.listener.as_bytes());
    word(out, record.log.listener.as_bytes());
    word(out, record.pool.map(|pool| pool.label()).as_deref().unwrap_or_default().as_bytes());
    each(record, out, |out, attempt| out.extend_from_slice(attempt.member.label().as_bytes()));
    out.extend_from_slice(b" default -");
    each(record, out, address);
}

/// `certificate_id` to `pool_usr_name`. There are no self-defined headers.
fn rest(record: &Record<'_>, out: &mut Vec<u8>) {
    tls(out, record.tls);
    match record.rtt_us {
        Some(us) => number(out, u64::from(us)),
        None => out.extend_from_slice(b" -"),
    }
    out.extend_from_slice(b" -");
    number(out, record.header_length);
    word(out, record.action.as_bytes());
    reason(out, record.reason);
    quoted(out, record.pool.map(|pool| pool.name()).as_deref().unwrap_or_default().as_bytes());
}

/// `certificate_id` to `sni_domain_name`.
fn tls(out: &mut Vec<u8>, facts: Option<&Facts>) {
    let Some(facts) = facts else { return out.extend_from_slice(b" - - - -") };
    match facts.certificate {
        Some(id) => {
            // A Vec takes all that is written; no other memory is asked for.
            let _never = write!(out, " {id}");
        }
        None => out.extend_from_slice(b" -"),
    }
    word(out, facts.protocol().as_bytes());
    word(out, facts.cipher().as_bytes());
    out.push(b' ');
    let name = facts.server_name.as_deref().unwrap_or("-");
    escape::text(out, name.as_bytes(), WORD_BYTES);
}

/// An IPv6 address stands in brackets, as everywhere beside a port.
fn client(out: &mut Vec<u8>, record: &Record<'_>) {
    let brackets: [&[u8]; 2] =
        if record.client.contains(&b':') { [b"[", b"]"] } else { [b"", b""] };
    out.extend_from_slice(brackets[0]);
    out.extend_from_slice(record.client);
    out.extend_from_slice(brackets[1]);
    out.push(b':');
    append_decimal(out, u64::from(record.port));
}

fn asked(record: &Record<'_>, out: &mut Vec<u8>) {
    let Some(asked) = record.asked else { return out.extend_from_slice(b" \"-\"") };
    out.extend_from_slice(b" \"");
    escape::text(out, asked.method, WORD_BYTES);
    out.push(b' ');
    out.extend_from_slice(record.scheme().as_bytes());
    out.extend_from_slice(b"://");
    escape::text(out, if asked.host.is_empty() { b"-" } else { asked.host }, WORD_BYTES);
    escape::text(out, asked.target, TARGET_BYTES);
    out.push(b' ');
    escape::text(out, asked.protocol, WORD_BYTES);
    out.push(b'"');
}

/// A space, a quote, a value an attempt or `-`, a quote.
fn each(record: &Record<'_>, out: &mut Vec<u8>, mut value: impl FnMut(&mut Vec<u8>, &Attempt)) {
    out.extend_from_slice(b" \"");
    for (at, attempt) in record.attempts.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        value(out, attempt);
    }
    out.extend_from_slice(if record.attempts.is_empty() { b"-\"" } else { b"\"" });
}

fn address(out: &mut Vec<u8>, attempt: &Attempt) {
    out.extend_from_slice(attempt.member.host.as_bytes());
}

fn time(out: &mut Vec<u8>, time: Option<Duration>) {
    match time {
        Some(time) => append_seconds(out, time, DIGITS),
        None => out.push(b'-'),
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.push(b' ');
    append_decimal(out, number);
}

/// Text of our own without spaces.
fn word(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(if word.is_empty() { b"-" } else { word });
}

/// The reason as one word, since its field has no quotes.
fn reason(out: &mut Vec<u8>, reason: &str) {
    out.push(b' ');
    if reason.is_empty() {
        out.push(b'-');
    }
    out.extend(reason.bytes().map(|b| if b == b' ' { b'_' } else { b }));
}

fn quoted(out: &mut Vec<u8>, raw: &[u8]) {
    out.extend_from_slice(b" \"");
    escape::text(out, if raw.is_empty() { b"-" } else { raw }, TEXT_BYTES);
    out.push(b'"');
}
