//! Reads `[[pool]]` with its members.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Head, MonitorText};
use crate::config::problem::{Findings, Placed};
use crate::config::reader::{Table, put};
use crate::config::values;
use crate::model::{
    Algorithm, CidSlice, Member, MemberTls, Persistence, PersistenceKind, Pool, PoolProtocol,
    ProxyHeader, SlowStart, derive_id,
};

/// A `[[pool]]` as written.
#[derive(Debug)]
pub(in crate::config) struct PoolText<'t, 'i> {
    pub head: Head<'t, 'i>,
    /// `None` where it is missing or wrong.
    pub protocol: Option<PoolProtocol>,
    /// `None` where it is wrong.
    pub algorithm: Option<Algorithm>,
    pub ca: Option<Placed<String>>,
    pub monitor: Option<MonitorText<'t, 'i>>,
    pub members: Vec<MemberText<'t, 'i>>,
    /// Without members and checks.
    pub object: Pool,
}

/// A member as written.
#[derive(Debug)]
pub(in crate::config) struct MemberText<'t, 'i> {
    pub head: Head<'t, 'i>,
    pub address: Option<Placed<IpAddr>>,
    pub port: Option<u16>,
    pub object: Member,
}

impl<'t, 'i> PoolText<'t, 'i> {
    pub(super) fn read(table: &Table<'t, 'i>, findings: &mut Findings) -> Self {
        let head = Head::read(table, findings);
        let name = head.name().to_owned();
        let protocol = table.choice("protocol", findings).map(protocol);
        if let Some(protocol) = protocol {
            table.check_protocol(protocol.name(), "pool", findings);
        }
        let id = head.id.as_ref().map(|id| id.value);
        let mut object = Pool {
            id: id.unwrap_or_else(|| derive_id("pool", "", &name)),
            protocol: protocol.unwrap_or(PoolProtocol::Http),
            ..Pool::default()
        };
        object.cid_slice = cid_slice(table, findings);
        let algorithm = algorithm(table, findings);
        put(&mut object.algorithm, algorithm);
        object.persistence = persistence(table, protocol, findings);
        flows(table, &mut object, findings);
        let ca = limits_and_tls(table, &mut object, findings);
        let mut members = Vec::new();
        for table in table.tables("members", findings) {
            members.push(MemberText::read(&table, &name, findings));
        }
        let monitor = table.tables("healthmonitor", findings).into_iter().next();
        let monitor = monitor.map(|table| MonitorText::read(&table, findings));
        object.name = name;
        PoolText { head, protocol, algorithm, ca, monitor, members, object }
    }
}

fn protocol(word: &str) -> PoolProtocol {
    match word {
        "TCP" => PoolProtocol::Tcp,
        "UDP" => PoolProtocol::Udp,
        "QUIC" => PoolProtocol::Quic,
        "HTTPS" => PoolProtocol::Https,
        "GRPC" => PoolProtocol::Grpc,
        _ => PoolProtocol::Http,
    }
}

/// What of a connection id tells a connection.
fn cid_slice(table: &Table<'_, '_>, findings: &mut Findings) -> CidSlice {
    let mut slice = CidSlice::default();
    if let Some(table) = table.table("quic_cid_hash_strategy", findings) {
        put(&mut slice.len, table.number("len", findings));
        put(&mut slice.offset, table.number("offset", findings));
        let CidSlice { len, offset } = slice;
        if len + offset > 20 {
            let what = format!("{len} bytes at {offset} end beyond the 20 of a connection id");
            let help = "make len and offset 20 or less together";
            findings.error(table.span, table.path.clone(), what).row("R6.8-6").help(help);
        }
    }
    slice
}

/// `None` where the word is wrong.
fn algorithm(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Algorithm> {
    if !table.has("lb_algorithm") {
        return Some(Algorithm::RoundRobin);
    }
    table.choice("lb_algorithm", findings).map(|word| match word {
        "LEAST_CONNECTIONS" => Algorithm::LeastConnections,
        "SOURCE_IP" => Algorithm::SourceIp,
        "QUIC_CID" => Algorithm::QuicCid,
        _ => Algorithm::RoundRobin,
    })
}

/// `session_persistence`; `None` also where its type or its pool's protocol is unknown.
fn persistence(
    pool: &Table<'_, '_>,
    protocol: Option<PoolProtocol>,
    findings: &mut Findings,
) -> Option<Persistence> {
    let table = pool.table("session_persistence", findings)?;
    let layer7 = protocol.is_none_or(PoolProtocol::is_l7);
    let word = match table.has("type") {
        true => table.choice("type", findings),
        false => Some(if layer7 { "HTTP_COOKIE" } else { "SOURCE_IP" }), // R6.1-2
    };
    let high = if layer7 { 1440 } else { 60 };
    let minutes = table.number_in("persistence_timeout", (1, high), " min", findings).unwrap_or(20);
    let cookie = table.text("cookie_name", findings, values::or_empty(values::token));
    let cookie_name = cookie.flatten().unwrap_or_default();
    if word == Some("SOURCE_IP") && !cookie_name.is_empty() {
        let what = "is for cookies, not for SOURCE_IP";
        table.error("cookie_name", what, findings).row("R11.4-3").help("take it out");
    }
    if word == Some("APP_COOKIE") && cookie_name.is_empty() {
        let doc = "name of the cookie that members set";
        table.missing("cookie_name", doc, findings).row("R11.4-3");
    }
    let kind = match word? {
        "SOURCE_IP" => PersistenceKind::SourceIp,
        "APP_COOKIE" => PersistenceKind::AppCookie(cookie_name.clone()),
        _ => PersistenceKind::HttpCookie,
    };
    protocol?;
    let cookie_name = if kind == PersistenceKind::HttpCookie { cookie_name } else { String::new() };
    Some(Persistence { kind, timeout: Duration::from_mins(minutes), cookie_name })
}

/// What happens to flows when members come and go.
fn flows(table: &Table<'_, '_>, object: &mut Pool, findings: &mut Findings) {
    if let Some(table) = table.table("slow_start", findings) {
        let duration = table.seconds("duration", findings).unwrap_or(Duration::from_secs(30));
        let enable = table.flag("enable", findings) == Some(true);
        object.slow_start = enable.then_some(SlowStart { duration });
    }
    if let Some(table) = table.table("connection_drain", findings) {
        put(&mut object.drain.enable, table.flag("enable", findings));
        put(&mut object.drain.timeout, table.seconds("timeout", findings));
    }
    if let Some(table) = table.table("pool_health", findings) {
        let least = table.number("minimum_healthy_member_count", findings);
        put(&mut object.minimum_healthy_member_count, least);
    }
    if let Some(table) = table.table("outlier_detection", findings) {
        let outlier = &mut object.outlier_detection;
        put(&mut outlier.enable, table.flag("enable", findings));
        put(&mut outlier.consecutive_failures, table.number("consecutive_failures", findings));
        put(&mut outlier.base_ejection, table.duration("base_ejection", findings));
        put(&mut outlier.max_ejected_percent, table.number("max_ejected_percent", findings));
    }
}

/// Reads the rest; returns the name of the CA bundle.
fn limits_and_tls(
    table: &Table<'_, '_>,
    object: &mut Pool,
    findings: &mut Findings,
) -> Option<Placed<String>> {
    put(&mut object.member_max_connections, table.number("member_max_connections", findings));
    put(&mut object.queue_timeout, table.duration("queue_timeout", findings));
    object.proxy_protocol = match table.choice("proxy_protocol", findings) {
        Some("v1") => ProxyHeader::V1,
        Some("v2") => ProxyHeader::V2,
        _ => ProxyHeader::None,
    };
    object.tls = (object.protocol == PoolProtocol::Https).then(MemberTls::default);
    let table = table.table("tls", findings)?;
    let mut tls = MemberTls::default();
    put(&mut tls.verify, table.flag("verify", findings));
    let server_name = table.text("server_name", findings, values::or_empty(values::host));
    tls.server_name = server_name.flatten().unwrap_or_default();
    object.tls = matches!(object.protocol, PoolProtocol::Https | PoolProtocol::Grpc).then_some(tls);
    let ca = table.placed("ca", findings, values::or_empty(values::name))?;
    ca.value.map(|value| Placed { value, span: ca.span })
}

impl<'t, 'i> MemberText<'t, 'i> {
    fn read(table: &Table<'t, 'i>, pool: &str, findings: &mut Findings) -> Self {
        let head = Head::read(table, findings);
        let address = table.placed("address", findings, member_address);
        let port = table.number("protocol_port", findings);
        let ip = address.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ip| ip.value);
        let socket = SocketAddr::new(ip, port.unwrap_or(0));
        let name = match &head.name {
            Some(name) => name.value.clone(),
            None => socket.to_string(),
        };
        let id = head.id.as_ref().map(|id| id.value);
        let object = Member {
            id: id.unwrap_or_else(|| derive_id("member", "", &format!("{pool}\n{name}"))),
            name,
            address: socket,
            weight: table.number("weight", findings).unwrap_or(1),
        };
        MemberText { head, address, port, object }
    }
}

/// A member is one host.
fn member_address(text: &str) -> Result<IpAddr, values::Fault> {
    values::one_address(text, "write the member's own address")
}
