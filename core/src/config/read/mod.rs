//! The document: what the files say, every value typed and with its place.
//!
//! Reads each section into its model object, defaults where nothing is written, and keeps beside it
//! what only `rules` can judge: names of other objects, and the table with its places. Compares no
//! objects with each other. A field is absent or at its default where a value was wrong; what was
//! wrong has been reported here.

mod balancer;
mod certificate;
mod listener;
mod monitor;
mod policy;
mod pool;
mod process;

use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeTable;

pub(super) use balancer::BalancerText;
pub(super) use certificate::{CertificateText, IpGroupText};
pub(super) use listener::ListenerText;
pub(super) use monitor::MonitorText;
pub(super) use policy::{ActionText, PolicyText};
pub(super) use pool::{MemberText, PoolText};

use super::problem::{Findings, Placed, Span};
use super::reader::Table;
use super::values;
use crate::model::{AccessLog, Compat, Id, Log, LogTarget, Runtime};

/// One file, parsed.
#[derive(Debug)]
pub(super) struct Root<'t, 'i> {
    pub entries: &'t DeTable<'i>,
    /// Its number, in the order of reading.
    pub file: usize,
    /// The folder that relative paths in it start from.
    pub folder: &'t Path,
}

/// Everything that the files say.
#[derive(Debug, Default)]
pub(super) struct Document<'t, 'i> {
    pub runtime: Runtime,
    pub log: Log,
    pub compat: Compat,
    /// `None` without an `[admin]`.
    pub admin: Option<Placed<SocketAddr>>,
    pub access_log: Option<AccessLog>,
    pub connection_log: Option<LogTarget>,
    /// The sections that stand once.
    pub singles: Vec<Table<'t, 'i>>,
    pub balancers: Vec<BalancerText<'t, 'i>>,
    pub listeners: Vec<ListenerText<'t, 'i>>,
    pub pools: Vec<PoolText<'t, 'i>>,
    pub policies: Vec<PolicyText<'t, 'i>>,
    pub certificates: Vec<CertificateText<'t, 'i>>,
    pub ipgroups: Vec<IpGroupText<'t, 'i>>,
}

/// What all objects have.
#[derive(Debug)]
pub(super) struct Head<'t, 'i> {
    pub table: Table<'t, 'i>,
    pub id: Option<Placed<Id>>,
    pub name: Option<Placed<String>>,
}

impl<'t, 'i> Head<'t, 'i> {
    fn read(table: &Table<'t, 'i>, findings: &mut Findings) -> Self {
        Head {
            table: table.clone(),
            id: table.placed("id", findings, values::id),
            name: table.placed("name", findings, values::name),
        }
    }

    /// The name; empty where it is missing or wrong.
    pub(super) fn name(&self) -> &str {
        self.name.as_ref().map_or("", |name| &name.value)
    }
}

impl<'t, 'i> Document<'t, 'i> {
    /// Reads all files and reports every mistake that a single object can have.
    pub(super) fn read(roots: &[Root<'t, 'i>], findings: &mut Findings) -> Self {
        let mut document = Document::default();
        let mut single = Single::default();
        for root in roots {
            let table = Table::root(root.entries, root.file);
            table.check_keys(findings);
            table.number::<u64>("version", findings);
            document.read_process(&table, &mut single, findings);
            document.read_objects(&table, root.folder, findings);
        }
        document
    }

    fn read_process(&mut self, root: &Table<'t, 'i>, single: &mut Single, findings: &mut Findings) {
        if let Some(table) = single.table(root, "runtime", findings) {
            self.singles.push(table.clone());
            self.runtime = process::runtime(&table, findings);
        }
        if let Some(table) = single.table(root, "log", findings) {
            self.singles.push(table.clone());
            self.log = process::log(&table, findings);
        }
        if let Some(table) = single.table(root, "compat", findings) {
            self.compat = process::compat(&table, findings);
        }
        if let Some(table) = single.table(root, "admin", findings) {
            self.singles.push(table.clone());
            self.admin = process::admin(&table, findings);
        }
        if let Some(table) = single.table(root, "access_log", findings) {
            self.singles.push(table.clone());
            self.access_log = process::access_log(&table, findings);
        }
        if let Some(table) = single.table(root, "connection_log", findings) {
            self.singles.push(table.clone());
            self.connection_log = table.text("path", findings, values::log_target);
        }
    }

    fn read_objects(&mut self, root: &Table<'t, 'i>, folder: &Path, findings: &mut Findings) {
        for table in root.tables("loadbalancer", findings) {
            self.balancers.push(BalancerText::read(&table, findings));
        }
        for table in root.tables("listener", findings) {
            self.listeners.push(ListenerText::read(&table, folder, findings));
        }
        for table in root.tables("pool", findings) {
            self.pools.push(PoolText::read(&table, findings));
        }
        for table in root.tables("l7policy", findings) {
            self.policies.push(PolicyText::read(&table, findings));
        }
        for table in root.tables("certificate", findings) {
            self.certificates.push(CertificateText::read(&table, folder, findings));
        }
        for table in root.tables("ipgroup", findings) {
            self.ipgroups.push(IpGroupText::read(&table, findings));
        }
    }
}

/// Sections that may stand once over all files, with the place of the first.
#[derive(Debug, Default)]
struct Single {
    seen: Vec<(&'static str, Span)>,
}

impl Single {
    /// The section of a file, `None` if there is none. One that stands in an earlier file too is
    /// reported, and read all the same.
    fn table<'t, 'i>(
        &mut self,
        root: &Table<'t, 'i>,
        name: &'static str,
        findings: &mut Findings,
    ) -> Option<Table<'t, 'i>> {
        let table = root.tables(name, findings).into_iter().next()?;
        match self.seen.iter().find(|(seen, _)| *seen == name) {
            Some((_, first)) => {
                findings
                    .error(table.span, name, format!("[{name}] stands in two files"))
                    .related(*first, "the first one")
                    .help("keep one of them");
            }
            None => self.seen.push((name, table.span)),
        }
        Some(table)
    }
}
