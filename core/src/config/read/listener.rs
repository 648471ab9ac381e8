//! Reads `[[listener]]`.

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::{Head, process};
use crate::config::bounds::{MAX_PORT_RANGES, MAX_SNI, MAX_UPGRADES};
use crate::config::problem::{Findings, Placed};
use crate::config::reader::{Table, describe, put};
use crate::config::suggest::nearest;
use crate::config::values;
use crate::model::{
    AccessControl, AccessKind, CipherPolicy, InsertHeader, Listener, ListenerLog, ListenerTls,
    PortRange, Protocol, RefusedPolicy, SniMatch,
};

/// Headers that `insert_headers` can set.
const HEADERS: [&str; 12] = [
    "X-Forwarded-ELB-IP",
    "X-Forwarded-ELB-ID",
    "X-Forwarded-Port",
    "X-Forwarded-For-Port",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-Request-ID",
    "X-Forwarded-TLS-Certificate-ID",
    "X-Forwarded-TLS-Protocol",
    "X-Forwarded-TLS-Cipher",
    "X-Forwarded-Clientcert",
];
/// Parts of the client's certificate: `X-Forwarded-Clientcert-…`.
const CERTIFICATE_HEADERS: [&str; 6] = [
    "X-Forwarded-Clientcert-Subject",
    "X-Forwarded-Clientcert-Issuer",
    "X-Forwarded-Clientcert-Serial",
    "X-Forwarded-Clientcert-Fingerprint",
    "X-Forwarded-Clientcert-Verify",
    "X-Forwarded-Clientcert-End",
];
/// The one that takes a mode.
const MODE: &str = "X-Forwarded-For-Processing-Mode";

/// A `[[listener]]` as written.
#[derive(Debug)]
pub(in crate::config) struct ListenerText<'t, 'i> {
    pub head: Head<'t, 'i>,
    pub loadbalancer: Option<Placed<String>>,
    /// `None` where it is missing or wrong.
    pub protocol: Option<Protocol>,
    pub default_pool: Option<Placed<String>>,
    pub ipgroups: Vec<Placed<String>>,
    pub default_certificate: Option<Placed<String>>,
    pub sni_certificates: Vec<Placed<String>>,
    pub client_ca: Option<Placed<String>>,
    /// Was `sni_match_algo` given?
    pub sni_match_algo: Option<SniMatch>,
    pub transparent: Option<bool>,
    /// Is `protocol_port` a port that can be bound?
    pub port_known: bool,
    pub object: Listener,
}

impl<'t, 'i> ListenerText<'t, 'i> {
    pub(super) fn read(table: &Table<'t, 'i>, folder: &Path, findings: &mut Findings) -> Self {
        let head = Head::read(table, findings);
        let protocol = table.choice("protocol", findings).map(protocol);
        if let Some(protocol) = protocol {
            table.check_protocol(protocol.name(), "listener", findings);
        }
        let mut object =
            Listener { protocol: protocol.unwrap_or(Protocol::Http), ..Listener::default() };
        let port_known = ports(table, &mut object, findings);
        timeouts(table, protocol, &mut object, findings);
        limits(table, &mut object, findings);
        let ipgroups = headers_and_access(table, protocol, &mut object, findings);
        put(&mut object.access_log, access_log(table, protocol, findings));
        let sni_match_algo = table.choice("sni_match_algo", findings).map(|word| match word {
            "longest_suffix" => SniMatch::LongestSuffix,
            _ => SniMatch::Wildcard,
        });
        let tls = tls(table, folder, findings);
        object.tls = (protocol == Some(Protocol::Https)).then_some(tls);
        ListenerText {
            loadbalancer: table.reference("loadbalancer", findings),
            default_pool: table.reference("default_pool", findings),
            ipgroups,
            default_certificate: table.reference("default_certificate", findings),
            sni_certificates: sni_certificates(table, findings),
            client_ca: table.reference("client_ca", findings),
            sni_match_algo,
            transparent: table.flag("transparent_client_ip_enable", findings),
            port_known,
            protocol,
            object,
            head,
        }
    }
}

fn protocol(word: &str) -> Protocol {
    match word {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "HTTPS" => Protocol::Https,
        _ => Protocol::Http,
    }
}

/// Reads port and ranges; false when they can't be compared with those of others.
fn ports(table: &Table<'_, '_>, object: &mut Listener, findings: &mut Findings) -> bool {
    let port = table.number("protocol_port", findings);
    put(&mut object.protocol_port, port);
    let ranges = table.texts("port_ranges", findings, values::port_range).unwrap_or_default();
    let has_ranges = table.has("port_ranges") && !ranges.is_empty();
    if has_ranges && table.has("protocol_port") {
        table
            .error("port_ranges", "stands beside protocol_port", findings)
            .help("keep one of the two keys");
    } else if !has_ranges && !table.has("protocol_port") {
        let doc = "port that clients connect to; 0 = any free one";
        table.missing("protocol_port", doc, findings).row("R2.1-1");
    }
    if ranges.len() > MAX_PORT_RANGES {
        let what = format!("has {} ranges, at most {MAX_PORT_RANGES}", ranges.len());
        table.error("port_ranges", what, findings).help("join some, or make a second listener");
    }
    let mut sorted: Vec<&Placed<PortRange>> = ranges.iter().collect();
    sorted.sort_by_key(|range| range.value.first);
    for (one, next) in sorted.iter().zip(sorted.iter().skip(1)) {
        if next.value.first <= one.value.last {
            findings
                .error(next.span, table.at("port_ranges"), "overlaps another range")
                .related(one.span, "the other one")
                .help("join them into one range");
        }
    }
    object.port_ranges =
        ranges.into_iter().take(MAX_PORT_RANGES).map(|range| range.value).collect();
    port.is_some() != has_ranges
}

/// The timeouts of table 6-3.
fn timeouts(
    table: &Table<'_, '_>,
    protocol: Option<Protocol>,
    object: &mut Listener,
    findings: &mut Findings,
) {
    let layer4 = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
    let low = if layer4 { 10 } else { 0 };
    if layer4 {
        object.keepalive_timeout = Duration::from_secs(300);
    }
    let idle = table.number_in("keepalive_timeout", (low, 4000), " s", findings);
    put(&mut object.keepalive_timeout, idle.map(Duration::from_secs));
    put(&mut object.client_timeout, table.seconds("client_timeout", findings));
    put(&mut object.member_timeout, table.seconds("member_timeout", findings));
    put(&mut object.connect_timeout, table.seconds("connect_timeout", findings));
    object.tunnel_timeout = table.seconds("tunnel_timeout", findings);
    put(&mut object.upgrade_protocols, upgrade_protocols(table, findings));
}

fn upgrade_protocols(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Vec<String>> {
    let list = table.texts("upgrade_protocols", findings, values::upgrade_protocol)?;
    if list.len() > MAX_UPGRADES {
        let what = format!("names {} protocols, at most {MAX_UPGRADES}", list.len());
        let help = "keep those that your members speak";
        table.error("upgrade_protocols", what, findings).help(help);
    }
    Some(list.into_iter().map(|placed| placed.value).collect())
}

fn limits(table: &Table<'_, '_>, object: &mut Listener, findings: &mut Findings) {
    put(&mut object.enable_member_retry, table.flag("enable_member_retry", findings));
    put(&mut object.max_attempts, table.number("max_attempts", findings));
    put(&mut object.retry_non_idempotent, table.flag("retry_non_idempotent", findings));
    put(&mut object.max_header_bytes, table.number("max_header_bytes", findings));
    put(&mut object.max_headers, table.number("max_headers", findings));
    put(&mut object.max_uri_bytes, table.number("max_uri_bytes", findings));
    put(&mut object.max_body_bytes, table.number("max_body_bytes", findings));
    put(&mut object.connection, table.number("connection", findings));
    put(&mut object.cps, table.number("cps", findings));
    put(&mut object.connections_per_source, table.number("connections_per_source", findings));
}

/// Reads what concerns the client's address and the headers; returns the groups' names.
fn headers_and_access(
    table: &Table<'_, '_>,
    protocol: Option<Protocol>,
    object: &mut Listener,
    findings: &mut Findings,
) -> Vec<Placed<String>> {
    put(&mut object.trusted_proxies, table.networks("trusted_proxies", findings));
    put(&mut object.insert_headers, insert_headers(table, protocol, findings));
    put(&mut object.server_timing, table.flag("server_timing", findings));
    if let Some(table) = table.table("proxy_protocol", findings) {
        put(&mut object.proxy_protocol.accept, table.flag("accept", findings));
        put(&mut object.proxy_protocol.from, table.networks("from", findings));
    }
    let Some(table) = table.table("ipgroup", findings) else { return Vec::new() };
    let names = table.texts("name", findings, values::name).unwrap_or_default();
    let kind = match table.choice("type", findings) {
        Some("black") => AccessKind::Black,
        _ => AccessKind::White,
    };
    let enable = table.flag("enable", findings).unwrap_or(true);
    object.ipgroup = Some(AccessControl { groups: Vec::new(), kind, enable });
    if table.raw("name").and_then(|value| value.get_ref().as_array()).is_some_and(|l| l.is_empty())
    {
        table.error("name", "is an empty list", findings).help("name at least one group");
    }
    names
}

/// `insert_headers`: the user's own keys, each a header with what becomes of it.
fn insert_headers(
    table: &Table<'_, '_>,
    protocol: Option<Protocol>,
    findings: &mut Findings,
) -> Option<Vec<(String, InsertHeader)>> {
    table.special("insert_headers", findings, |row, value, findings| {
        let DeValue::Table(entries) = value.get_ref() else {
            let help = "write insert_headers = { \"X-Real-IP\" = true }";
            table.wrong_type(row, value, "a table", findings).help(help);
            return None;
        };
        let before = findings.errors();
        let known = || HEADERS.into_iter().chain(CERTIFICATE_HEADERS).chain([MODE]);
        let mut list = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let path = format!("{}.{}", table.at(row.name), super::super::problem::shown(name));
            let Some(header) = known().find(|header| header.eq_ignore_ascii_case(name)) else {
                let near = nearest(name, known());
                let help = near.map_or_else(
                    || "take it out".to_owned(),
                    |near| format!("did you mean \"{near}\"?"),
                );
                findings.error(table.place(key.span()), path, "unknown header").help(help);
                continue;
            };
            match (header == MODE, value.get_ref()) {
                (false, DeValue::Boolean(true))
                    if is_of_tls(header) && protocol == Some(Protocol::Http) =>
                {
                    let what = "is known of HTTPS listeners' clients only";
                    let help = "take it out, or write false";
                    findings.error(table.place(value.span()), path, what).help(help);
                }
                (false, DeValue::Boolean(set)) => {
                    list.push((header.to_owned(), InsertHeader::Set(*set)));
                }
                (true, DeValue::String(mode)) if mode == "append" => {
                    list.push((header.to_owned(), InsertHeader::Append));
                }
                (true, DeValue::String(mode)) if mode == "replace" => {
                    list.push((header.to_owned(), InsertHeader::Replace));
                }
                (true, DeValue::String(mode)) if mode == "remove" => {
                    list.push((header.to_owned(), InsertHeader::Remove));
                }
                (true, DeValue::String(mode)) if mode == "preserve" => {
                    list.push((header.to_owned(), InsertHeader::Preserve));
                }
                (is_mode, _) => {
                    let help = match is_mode {
                        true => "write \"append\", \"replace\", \"remove\" or \"preserve\"",
                        false => "write true or false",
                    };
                    let what = format!("{} is not a value of it", describe(value));
                    findings.error(table.place(value.span()), path, what).help(help);
                }
            }
        }
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list.dedup_by(|a, b| a.0 == b.0);
        (findings.errors() == before).then_some(list)
    })
}

/// A header that needs TLS to have a value.
fn is_of_tls(header: &str) -> bool {
    header.starts_with("X-Forwarded-TLS-") || header.starts_with("X-Forwarded-Clientcert")
}

/// `access_log`: a boolean, or a log of the listener's own.
fn access_log(
    table: &Table<'_, '_>,
    protocol: Option<Protocol>,
    findings: &mut Findings,
) -> Option<ListenerLog> {
    let value = table.raw("access_log")?;
    if let Some(protocol) = protocol.filter(|protocol| !protocol.is_l7())
        && value.get_ref().as_bool() == Some(true)
    {
        let what = format!("a {} listener has no access log", protocol.name());
        let help = "take it out; [connection_log] is for TCP and UDP listeners";
        table.error("access_log", what, findings).row("R13.1-3").help(help);
    }
    match value.get_ref() {
        DeValue::Boolean(true) => Some(ListenerLog::Shared),
        DeValue::Boolean(false) => Some(ListenerLog::Off),
        DeValue::Table(_) => {
            let own = table.special("access_log", findings, |_, _, findings| {
                let tables = table.tables("access_log", findings);
                process::access_log(tables.first()?, findings)
            });
            own.map(ListenerLog::Own)
        }
        _ => {
            let what = format!("{} is not a log", describe(value));
            let help = "write true, false or { path = \"…\", format = \"elb\" }";
            table.error("access_log", what, findings).row("R13.1-3").help(help);
            None
        }
    }
}

fn tls(table: &Table<'_, '_>, folder: &Path, findings: &mut Findings) -> ListenerTls {
    let mut tls = ListenerTls::default();
    put(&mut tls.ciphers_policy, ciphers_policy(table, findings).map(str::to_owned));
    put(&mut tls.handshake_timeout, table.seconds("tls_handshake_timeout", findings));
    no_early_data(table, findings);
    let keys = table.text("ticket_keys", findings, values::or_empty(values::file));
    put(&mut tls.ticket_keys, keys.map(|path| path.map(|path| folder.join(path))));
    put(&mut tls.http2, table.flag("http2_enable", findings));
    tls
}

/// Whether early data is a replay only somebody knows who remembers each session that is resumed;
/// ours are resumed by tickets on every shard and node (RFC 8446, 8).
fn no_early_data(table: &Table<'_, '_>, findings: &mut Findings) {
    const KEY: &str = "ssl_early_data_enable";
    if table.flag(KEY, findings) == Some(true) {
        let what = "is not supported: nobody could tell that 0-RTT data is sent again by others";
        let help = "take it out; resumed sessions cost one round trip (docs/tls.md#sessions)";
        table.error(KEY, what, findings).help(help);
    }
}

/// A policy whose versions can be served; of what it lists beyond that a warning tells.
fn ciphers_policy(table: &Table<'_, '_>, findings: &mut Findings) -> Option<&'static str> {
    const KEY: &str = "tls_ciphers_policy";
    let written = table.raw(KEY)?.get_ref().as_str();
    if let Some(refused) = written.and_then(RefusedPolicy::find) {
        let RefusedPolicy { name, promises, nearest } = refused;
        let what = format!("\"{name}\" promises {promises}, which Weir does not speak");
        let help = format!("the nearest one is \"{nearest}\"; `docs/tls.md` lists all");
        table.error(KEY, what, findings).help(help);
        return None;
    }
    let name = table.choice(KEY, findings)?;
    let left_out: Vec<_> = CipherPolicy::find(name)?.left_out().collect();
    if !left_out.is_empty() {
        let what = format!("without {}", left_out.join(", "));
        let help = "clients that know nothing else can't connect; those suites lack forward \
            secrecy or an AEAD that Weir has";
        findings.warning(table.span_of(KEY), table.at(KEY), what).help(help);
    }
    Some(name)
}

fn sni_certificates(table: &Table<'_, '_>, findings: &mut Findings) -> Vec<Placed<String>> {
    let list = table.texts("sni_certificates", findings, values::name).unwrap_or_default();
    if list.len() > MAX_SNI {
        let what = format!("names {} certificates, at most {MAX_SNI}", list.len());
        let help = "use wildcard certificates, or a second listener";
        table.error("sni_certificates", what, findings).row("R6.2-1").help(help);
    }
    let mut seen = std::collections::HashMap::new();
    for name in &list {
        if let Some(earlier) = seen.insert(&name.value, name.span) {
            findings
                .error(name.span, table.at("sni_certificates"), "stands here twice")
                .row("R6.2-1")
                .related(earlier, "the first one")
                .help("name each certificate once");
        }
    }
    list
}
