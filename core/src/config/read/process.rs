//! Reads what belongs to the whole process: `[runtime]`, `[log]`, `[compat]`, `[admin]` and the
//! default access log.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use crate::config::bounds::{MAX_CORE, MAX_NODE};
use crate::config::keys::Key;
use crate::config::problem::{Findings, Placed};
use crate::config::reader::{Found, Table, describe, put, read_integer};
use crate::config::values;
use crate::model::{
    AccessLog, AccessLogFormat, Admin, Compat, CoreChoice, Log, LogFormat, LogLevel, Runtime, Smt,
};

pub(super) fn runtime(table: &Table<'_, '_>, findings: &mut Findings) -> Runtime {
    let mut runtime = Runtime::default();
    put(&mut runtime.cores, cores(table, findings));
    if table.choice("smt", findings) == Some("one-per-core") {
        runtime.smt = Smt::OnePerCore;
    }
    let core = MAX_CORE as u64;
    put(&mut runtime.control_core, number_or(table, "control_core", "none", core, findings));
    put(&mut runtime.numa_node, number_or(table, "numa_node", "any", MAX_NODE, findings));
    put(&mut runtime.spin, table.duration("spin", findings));
    put(&mut runtime.backlog, table.number("backlog", findings));
    put(&mut runtime.max_connections, table.number("max_connections", findings));
    put(&mut runtime.max_skew_percent, table.number("max_skew_percent", findings));
    put(&mut runtime.source_addresses, addresses(table, "source_addresses", findings));
    if let Some(table) = table.table("tcp_keepalive", findings) {
        put(&mut runtime.tcp_keepalive.idle, table.seconds("idle", findings));
        put(&mut runtime.tcp_keepalive.interval, table.seconds("interval", findings));
        put(&mut runtime.tcp_keepalive.count, table.number("count", findings));
    }
    put(&mut runtime.shutdown_timeout, table.seconds("shutdown_timeout", findings));
    put(&mut runtime.run_dir, table.text("run_dir", findings, values::absolute_path));
    runtime
}

/// For all addresses the kernel would choose, as it does without any.
fn own_address(text: &str) -> Result<IpAddr, values::Fault> {
    values::one_address(text, "name addresses of this host, or none for the kernel to choose")
}

/// Addresses of this host, one of a kind.
pub(super) fn addresses(
    table: &Table<'_, '_>,
    name: &str,
    findings: &mut Findings,
) -> Option<Vec<IpAddr>> {
    let list = table.texts(name, findings, own_address)?;
    let mut seen = std::collections::HashSet::new();
    for placed in &list {
        if !seen.insert(placed.value) {
            let what = format!("\"{}\" stands here twice", placed.value);
            findings.error(placed.span, table.at(name), what).help("name each address once");
        }
    }
    Some(list.into_iter().map(|placed| placed.value).collect())
}

/// A number, or a word that stands for none.
fn number_or(
    table: &Table<'_, '_>,
    name: &str,
    word: &str,
    high: u64,
    findings: &mut Findings,
) -> Option<Option<usize>> {
    table.special(name, findings, |row, value, findings| {
        match value.get_ref() {
            DeValue::String(text) if text == word => return Some(None),
            DeValue::Integer(number) => {
                let number = read_integer(number).filter(|number| *number <= high);
                if let Some(number) = number.and_then(|number| usize::try_from(number).ok()) {
                    return Some(Some(number));
                }
            }
            _ => {}
        }
        let help = format!("write \"{word}\", or a number without quotes");
        let wanted = format!("\"{word}\" or a number from 0 to {high}");
        table.wrong_type(row, value, &wanted, findings).help(help);
        None
    })
}

/// `cores` is a string or a list of numbers.
pub(super) fn cores(table: &Table<'_, '_>, findings: &mut Findings) -> Option<CoreChoice> {
    table.special("cores", findings, |row, value, findings| {
        let path = table.at("cores");
        match value.get_ref() {
            DeValue::Array(_) => core_list(table, row, value, findings),
            DeValue::String(_) => {
                table.element(row, path, value, findings, values::cores).map(|placed| placed.value)
            }
            _ => {
                let help = "write \"auto\", \"0-3,8\" or [0, 2]";
                table.wrong_type(row, value, "a string or a list of numbers", findings).help(help);
                None
            }
        }
    })
}

fn core_list(
    table: &Table<'_, '_>,
    row: &'static Key,
    value: Found<'_, '_>,
    findings: &mut Findings,
) -> Option<CoreChoice> {
    let list = value.get_ref().as_array()?;
    let path = table.at(row.name);
    let mut cores = Vec::with_capacity(list.len());
    for (index, element) in list.iter().enumerate() {
        let number = element.get_ref().as_integer().and_then(read_integer);
        match number.and_then(|number| usize::try_from(number).ok()) {
            Some(core) => cores.push(core),
            None => {
                let what = format!("{} is not a core's number", describe(element));
                findings
                    .error(table.place(element.span()), format!("{path}[{index}]"), what)
                    .help("write whole numbers from 0, such as [0, 2]");
            }
        }
    }
    if cores.len() < list.len() {
        return None;
    }
    match values::core_list(cores) {
        Ok(choice) => Some(choice),
        Err(fault) => {
            let what = format!("the list {}", fault.what);
            findings.error(table.place(value.span()), path, what).help(fault.cure);
            None
        }
    }
}

pub(super) fn log(table: &Table<'_, '_>, findings: &mut Findings) -> Log {
    let mut log = Log::default();
    put(&mut log.target, table.text("path", findings, values::log_target));
    let level = table.choice("level", findings).map(|word| match word {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    });
    put(&mut log.level, level);
    if table.choice("format", findings) == Some("json") {
        log.format = LogFormat::Json;
    }
    log
}

pub(super) fn compat(table: &Table<'_, '_>, findings: &mut Findings) -> Compat {
    Compat {
        shared_pools: table.choice("pool_per_policy", findings) == Some("shared"),
        policies_recover: table.choice("policy_conflict", findings) == Some("recover"),
        l7_ipv6_members: table.flag("l7_ipv6_members", findings).unwrap_or_default(),
    }
}

pub(super) fn admin(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Placed<SocketAddr>> {
    if !table.has("listen") {
        return Some(Placed { value: Admin::default().listen, span: table.span });
    }
    table.placed("listen", findings, values::socket_address)
}

pub(super) fn access_log(table: &Table<'_, '_>, findings: &mut Findings) -> Option<AccessLog> {
    let target = table.text("path", findings, values::log_target);
    let format = match table.choice("format", findings) {
        Some("json") => AccessLogFormat::Json,
        _ => AccessLogFormat::Elb,
    };
    Some(AccessLog { target: target?, format })
}
