//! Reads `[[loadbalancer]]`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::Head;
use super::process::{addresses, cores};
use crate::config::bounds::MAX_VIPS;
use crate::config::problem::{Findings, Placed};
use crate::config::reader::{Table, put};
use crate::config::values;
use crate::model::{Balancer, CoreChoice, Fallback, Flavor, Spec, derive_id};

/// A `[[loadbalancer]]` as written.
#[derive(Debug)]
pub(in crate::config) struct BalancerText<'t, 'i> {
    pub head: Head<'t, 'i>,
    /// The addresses that the file gives.
    pub vips: Vec<Placed<IpAddr>>,
    pub object: Balancer,
}

impl<'t, 'i> BalancerText<'t, 'i> {
    pub(super) fn read(table: &Table<'t, 'i>, findings: &mut Findings) -> Self {
        let head = Head::read(table, findings);
        let name = head.name().to_owned();
        let id = head.id.as_ref().map(|id| id.value);
        let mut object = Balancer {
            id: id.unwrap_or_else(|| derive_id("loadbalancer", "", &name)),
            name,
            ..Balancer::default()
        };
        if table.choice("flavor", findings) == Some("shared") {
            object.flavor = Flavor::Shared;
            object.vip_address = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        }
        put(&mut object.spec, spec(table, findings));
        let vips = vips(table, findings);
        if !vips.is_empty() {
            object.vip_address = vips.iter().map(|vip| vip.value).collect();
        }
        put(&mut object.network, table.networks("network", findings));
        put(&mut object.ip_target_enable, table.flag("ip_target_enable", findings));
        object.passthrough_fallback = match table.choice("passthrough_fallback", findings) {
            Some("proxy_protocol") => Fallback::ProxyProtocol,
            Some("none") => Fallback::None,
            _ => Fallback::Error,
        };
        put(&mut object.source_addresses, addresses(table, "source_addresses", findings));
        object.cores = match cores(table, findings) {
            Some(CoreChoice::List(list)) => Some(list),
            Some(CoreChoice::Auto) => {
                table
                    .error("cores", "\"auto\" names no core of this balancer's own", findings)
                    .row("R5.11-2")
                    .help("name cores, such as \"0-1\", or leave the key out");
                None
            }
            None => None,
        };
        BalancerText { head, vips, object }
    }
}

fn spec(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Spec> {
    let before = findings.errors();
    let words = table.texts("spec", findings, |text| match text {
        "network" | "application" => Ok(text == "network"),
        _ => values::fault("is no kind of listener", "write \"network\", \"application\" or both"),
    })?;
    if findings.errors() > before {
        return None;
    }
    if words.is_empty() {
        table
            .error("spec", "is an empty list", findings)
            .row("R6.9-1")
            .help("write \"network\", \"application\" or both");
    }
    Some(Spec {
        network: words.iter().any(|word| word.value),
        application: words.iter().any(|word| !word.value),
    })
}

fn vips(table: &Table<'_, '_>, findings: &mut Findings) -> Vec<Placed<IpAddr>> {
    const KEY: &str = "vip_address";
    let before = findings.errors();
    let Some(vips) = table.texts(KEY, findings, values::address) else { return Vec::new() };
    if vips.is_empty() && findings.errors() == before {
        let help = "name at least one, or leave the key out";
        table.error(KEY, "is an empty list", findings).row("R3.17-2").help(help);
    }
    if vips.len() > MAX_VIPS {
        let what = format!("has {} addresses, at most {MAX_VIPS}", vips.len());
        table.error(KEY, what, findings).help("make a second balancer for the others");
    }
    let mut seen = HashMap::new();
    for vip in &vips {
        if let Some(earlier) = seen.insert(vip.value, vip.span) {
            findings
                .error(vip.span, table.at(KEY), format!("\"{}\" stands here twice", vip.value))
                .related(earlier, "the first one")
                .help("name each address once");
        }
    }
    vips
}
