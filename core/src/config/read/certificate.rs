//! Reads `[[certificate]]` and `[[ipgroup]]`.

use std::collections::HashMap;
use std::path::Path;

use ipnet::IpNet;
use toml::de::DeValue;

use super::Head;
use crate::cert;
use crate::config::bounds::MAX_NAME_CHARS;
use crate::config::problem::{Findings, Placed};
use crate::config::reader::{Table, describe};
use crate::config::values::{self, Fault, fault};
use crate::model::{Certificate, CertificateKind, IpGroup, IpGroupEntry, Pem, derive_id};

/// A `[[certificate]]` as written.
#[derive(Debug)]
pub(in crate::config) struct CertificateText<'t, 'i> {
    pub head: Head<'t, 'i>,
    pub object: Certificate,
    /// All of its keys are right as far as one can see without reading what they name.
    pub is_sound: bool,
}

impl<'t, 'i> CertificateText<'t, 'i> {
    pub(super) fn read(table: &Table<'t, 'i>, folder: &Path, findings: &mut Findings) -> Self {
        let before = findings.errors();
        let head = Head::read(table, findings);
        let kind = match table.choice("type", findings) {
            Some("client") => CertificateKind::Client,
            _ => CertificateKind::Server,
        };
        let certificate = table.text("certificate", findings, |text| pem(text, folder));
        let private_key = table.text("private_key", findings, |text| pem(text, folder));
        match (kind, table.has("private_key")) {
            (CertificateKind::Server, false) => {
                table.missing("private_key", "the key of a server certificate", findings);
            }
            (CertificateKind::Client, true) => {
                findings
                    .error(table.key_span("private_key"), table.at("private_key"), {
                        "a CA bundle has no key here"
                    })
                    .help("take it out: the key of a CA does not belong on this host");
            }
            _ => {}
        }
        let certificate_given = certificate.is_some();
        let response = table.text("ocsp_response", findings, values::or_empty(values::file));
        let name = head.name().to_owned();
        let id = head.id.as_ref().map(|id| id.value);
        let object = Certificate {
            id: id.unwrap_or_else(|| derive_id("certificate", "", &name)),
            name,
            kind,
            certificate: certificate.unwrap_or(Pem::Text(String::new())),
            private_key,
            domain: table.text("domain", findings, domains).unwrap_or_default(),
            ocsp_response: response.flatten().map(|path| folder.join(path)),
        };
        let is_sound = certificate_given && findings.errors() == before;
        CertificateText { head, object, is_sound }
    }
}

/// PEM text, or a path from the file that it stands in.
fn pem(text: &str, folder: &Path) -> Result<Pem, Fault> {
    if text.trim_start().starts_with("-----BEGIN") {
        return Ok(Pem::Text(text.to_owned()));
    }
    if text.contains("-----BEGIN") || text.contains('\n') {
        return fault("has something before the PEM text", "begin it with -----BEGIN");
    }
    values::file(text).map(|path| Pem::File(folder.join(path)))
}

fn domains(text: &str) -> Result<Vec<String>, Fault> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let name = |name: &str| match cert::ascii(name.trim()) {
        Some(name) => values::host_pattern(&name),
        None => values::host_pattern(name.trim()),
    };
    text.split(',').map(name).collect()
}

/// An `[[ipgroup]]` as written.
#[derive(Debug)]
pub(in crate::config) struct IpGroupText<'t, 'i> {
    pub head: Head<'t, 'i>,
    pub object: IpGroup,
}

impl<'t, 'i> IpGroupText<'t, 'i> {
    pub(super) fn read(table: &Table<'t, 'i>, findings: &mut Findings) -> Self {
        let head = Head::read(table, findings);
        let entries = entries(table, findings).unwrap_or_default();
        let mut seen = HashMap::new();
        for entry in &entries {
            if let Some(earlier) = seen.insert(entry.value.network, entry.span) {
                let what = format!("{} stands here twice", entry.value.network);
                findings
                    .error(entry.span, table.at("ip_list"), what)
                    .related(earlier, "the first one")
                    .help("take one out");
            }
        }
        let name = head.name().to_owned();
        let id = head.id.as_ref().map(|id| id.value);
        let object = IpGroup {
            id: id.unwrap_or_else(|| derive_id("ipgroup", "", &name)),
            name,
            entries: entries.into_iter().map(|entry| entry.value).collect(),
        };
        IpGroupText { head, object }
    }
}

/// The entries: strings, or tables with a note.
fn entries(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Vec<Placed<IpGroupEntry>>> {
    table.special("ip_list", findings, |row, value, findings| {
        let Some(list) = value.get_ref().as_array() else {
            let help = "write a list: ip_list = [\"10.0.0.0/8\"]";
            table.wrong_type(row, value, "a list", findings).help(help);
            return None;
        };
        let mut entries = Vec::with_capacity(list.len());
        for (index, element) in list.iter().enumerate() {
            let path = format!("{}[{index}]", table.at(row.name));
            let entry = |network: IpNet, description: String| Placed {
                value: IpGroupEntry { network: network.trunc(), description },
                span: table.place(element.span()),
            };
            match element.get_ref() {
                DeValue::String(_) => {
                    let network = table.element(row, path, element, findings, values::network);
                    entries.extend(network.map(|found| entry(found.value, String::new())));
                }
                DeValue::Table(_) => {
                    let Some(table) = table.element_table(row, path, element) else { continue };
                    table.check_keys(findings);
                    let network = table.text("ip", findings, values::network);
                    let note = table.text("description", findings, note).unwrap_or_default();
                    entries.extend(network.map(|network| entry(network, note)));
                }
                _ => {
                    let what = format!("{} is not an entry", describe(element));
                    let help =
                        "write \"10.0.0.0/8\" or { ip = \"10.0.0.0/8\", description = \"…\" }";
                    findings.error(table.place(element.span()), path, what).help(help);
                }
            }
        }
        Some(entries)
    })
}

fn note(text: &str) -> Result<String, Fault> {
    match text.chars().count() > MAX_NAME_CHARS || text.chars().any(char::is_control) {
        true => fault("is too long or has control characters", "write at most 255 characters"),
        false => Ok(text.to_owned()),
    }
}
