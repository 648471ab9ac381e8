//! The spanned document: what a file says, every value typed and with its place.
//!
//! Owns which keys each section has and how single values are read. Doesn't compare objects with
//! each other and applies no rule that needs two of them: `resolve` does, with this as its input.
//! A field is `None` when it is absent or was wrong; what was wrong has been reported here.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::Findings;
use super::reader::{Table, describe, read_integer};
use super::values::{self, Fault, fault};
use crate::model::{CoreChoice, Flavor, Id};

/// Everything that a file says.
#[derive(Debug)]
pub(super) struct Document {
    pub runtime: RuntimeText,
    /// `None` without an `[admin]`.
    pub admin: Option<Spanned<SocketAddr>>,
    pub balancers: Vec<BalancerText>,
    pub listeners: Vec<ListenerText>,
    pub pools: Vec<PoolText>,
}

/// `[runtime]` as written.
#[derive(Debug)]
pub(super) struct RuntimeText {
    pub cores: Option<CoreChoice>,
    pub backlog: Option<u64>,
    pub shutdown_timeout: Option<u64>,
    pub run_dir: Option<PathBuf>,
}

/// What all objects have.
#[derive(Debug)]
pub(super) struct Head {
    /// Path such as `listener[1]`.
    pub path: String,
    /// Where the object begins.
    pub span: Range<usize>,
    pub id: Option<Spanned<Id>>,
    pub name: Option<Spanned<String>>,
}

/// A `[[loadbalancer]]` as written.
#[derive(Debug)]
pub(super) struct BalancerText {
    pub head: Head,
    pub flavor: Option<Spanned<Flavor>>,
    pub vip_address: Option<Vec<Spanned<IpAddr>>>,
}

/// A `[[listener]]` as written.
#[derive(Debug)]
pub(super) struct ListenerText {
    pub head: Head,
    pub loadbalancer: Option<Spanned<String>>,
    /// Is there a key `loadbalancer`, right or wrong?
    pub names_balancer: bool,
    pub protocol_port: Option<Spanned<u64>>,
    pub default_pool: Option<Spanned<String>>,
    /// Is there a key `default_pool`, right or wrong?
    pub names_pool: bool,
    pub keepalive_timeout: Option<Spanned<u64>>,
    pub client_timeout: Option<Spanned<u64>>,
    pub member_timeout: Option<Spanned<u64>>,
    pub connect_timeout: Option<Spanned<u64>>,
}

/// A `[[pool]]` as written.
#[derive(Debug)]
pub(super) struct PoolText {
    pub head: Head,
    pub members: Vec<MemberText>,
}

/// A member as written.
#[derive(Debug)]
pub(super) struct MemberText {
    pub head: Head,
    pub address: Option<Spanned<IpAddr>>,
    pub protocol_port: Option<Spanned<u64>>,
    pub weight: Option<Spanned<u64>>,
}

impl Document {
    /// Reads the whole document and reports every mistake that a single value can have.
    pub(super) fn read(entries: &DeTable<'_>, findings: &mut Findings) -> Self {
        let root = Table::root(entries);
        root.check_keys(findings);
        root.number("version", findings);
        let empty = DeTable::new();
        let runtime = root.tables("runtime", findings).into_iter().next();
        let runtime = runtime.unwrap_or_else(|| Table::absent("runtime", &empty));
        let admin = root.tables("admin", findings);
        Self {
            runtime: read_runtime(&runtime, findings),
            admin: admin.first().and_then(|table| read_admin(table, findings)),
            balancers: read_each(root.tables("loadbalancer", findings), findings, read_balancer),
            listeners: read_each(root.tables("listener", findings), findings, read_listener),
            pools: read_each(root.tables("pool", findings), findings, read_pool),
        }
    }
}

fn read_each<'t, 'i, T>(
    tables: Vec<Table<'t, 'i>>,
    findings: &mut Findings,
    read: impl Fn(&Table<'t, 'i>, &mut Findings) -> T,
) -> Vec<T> {
    let mut objects = Vec::with_capacity(tables.len());
    for table in &tables {
        table.check_keys(findings);
        objects.push(read(table, findings));
    }
    objects
}

fn read_runtime(table: &Table<'_, '_>, findings: &mut Findings) -> RuntimeText {
    table.check_keys(findings);
    RuntimeText {
        cores: read_cores(table, findings),
        backlog: table.number("backlog", findings).map(Spanned::into_inner),
        shutdown_timeout: table.number("shutdown_timeout", findings).map(Spanned::into_inner),
        run_dir: table.text("run_dir", findings, absolute_path).map(Spanned::into_inner),
    }
}

/// `cores` is a string or a list of numbers.
fn read_cores(table: &Table<'_, '_>, findings: &mut Findings) -> Option<CoreChoice> {
    let row = keys::find("runtime", "cores")?;
    let value = table.value("cores", findings)?;
    let path = table.at("cores");
    let DeValue::Array(list) = value.get_ref() else {
        return match value.get_ref() {
            DeValue::String(_) => {
                table.text_of(row, path, value, findings, values::cores).map(Spanned::into_inner)
            }
            _ => {
                let help = "write \"auto\", \"0-3,8\" or [0, 2]";
                table.wrong_type(row, value, "a string or a list of numbers", findings).help(help);
                None
            }
        };
    };
    let mut cores = Vec::with_capacity(list.len());
    for (index, element) in list.iter().enumerate() {
        let number = element.get_ref().as_integer().and_then(read_integer);
        match number.and_then(|number| usize::try_from(number).ok()) {
            Some(core) => cores.push(core),
            None => {
                let what = format!("{} is not a core's number", describe(element));
                findings
                    .error(element.span(), format!("{path}[{index}]"), what)
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
            findings.error(value.span(), path, format!("the list {}", fault.what)).help(fault.cure);
            None
        }
    }
}

fn absolute_path(text: &str) -> Result<PathBuf, Fault> {
    if text.contains('\0') {
        return fault("has a NUL in it", "write a path");
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return fault("is not an absolute path", "write the path from the root");
    }
    Ok(path)
}

fn read_admin(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Spanned<SocketAddr>> {
    table.check_keys(findings);
    if table.value("listen", findings).is_none() {
        return Some(Spanned::new(table.span.clone(), super::DEFAULT_ADMIN));
    }
    table.text("listen", findings, values::socket_address)
}

fn read_head(table: &Table<'_, '_>, findings: &mut Findings) -> Head {
    Head {
        path: table.path.clone(),
        span: table.span.clone(),
        id: table.text("id", findings, values::id),
        name: table.text("name", findings, values::name),
    }
}

fn read_balancer(table: &Table<'_, '_>, findings: &mut Findings) -> BalancerText {
    let flavor = table.choice("flavor", findings).map(|word| {
        let flavor = if *word.get_ref() == "shared" { Flavor::Shared } else { Flavor::Dedicated };
        Spanned::new(word.span(), flavor)
    });
    BalancerText {
        head: read_head(table, findings),
        flavor,
        vip_address: table.texts("vip_address", findings, values::address),
    }
}

fn read_listener(table: &Table<'_, '_>, findings: &mut Findings) -> ListenerText {
    table.choice("protocol", findings);
    ListenerText {
        head: read_head(table, findings),
        loadbalancer: table.text("loadbalancer", findings, values::name),
        names_balancer: table.value("loadbalancer", findings).is_some(),
        protocol_port: table.number("protocol_port", findings),
        default_pool: table.text("default_pool", findings, values::name),
        names_pool: table.value("default_pool", findings).is_some(),
        keepalive_timeout: table.number("keepalive_timeout", findings),
        client_timeout: table.number("client_timeout", findings),
        member_timeout: table.number("member_timeout", findings),
        connect_timeout: table.number("connect_timeout", findings),
    }
}

fn read_pool(table: &Table<'_, '_>, findings: &mut Findings) -> PoolText {
    table.choice("protocol", findings);
    table.choice("lb_algorithm", findings);
    PoolText {
        head: read_head(table, findings),
        members: read_each(table.tables("members", findings), findings, read_member),
    }
}

fn read_member(table: &Table<'_, '_>, findings: &mut Findings) -> MemberText {
    MemberText {
        head: read_head(table, findings),
        address: table.text("address", findings, member_address),
        protocol_port: table.number("protocol_port", findings),
        weight: table.number("weight", findings),
    }
}

/// A member of an HTTP pool is one host, reached over IPv4 whatever the client came over (R3.17-4).
fn member_address(text: &str) -> Result<IpAddr, Fault> {
    let address = values::address(text)?;
    if address.is_unspecified() {
        return fault("stands for all addresses", "write the member's own address");
    }
    if address.is_ipv6() {
        return Err(Fault {
            what: "is an IPv6 address, which an HTTP pool doesn't take".to_owned(),
            cure: "give its IPv4 address; [compat] l7_ipv6_members is not supported yet".to_owned(),
            row: Some("R3.17-4"),
        });
    }
    Ok(address)
}
