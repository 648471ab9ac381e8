//! Reads `healthmonitor`.

use std::time::Duration;

use crate::config::problem::Findings;
use crate::config::reader::{Table, put};
use crate::config::values;
use crate::model::{Codes, Monitor, MonitorKind, MonitorMethod};

/// A `healthmonitor` as written.
#[derive(Debug)]
pub(in crate::config) struct MonitorText<'t, 'i> {
    pub table: Table<'t, 'i>,
    /// `TCP`, `UDP_CONNECT`, `HTTP`, `HTTPS` or `GRPC`; `None` where it is missing or wrong.
    pub word: Option<&'static str>,
    /// Its codes are those of the file, or stand-ins that `rules` exchanges for the flavour's.
    pub object: Monitor,
    /// Were codes given?
    pub has_codes: bool,
}

impl<'t, 'i> MonitorText<'t, 'i> {
    pub(super) fn read(table: &Table<'t, 'i>, findings: &mut Findings) -> Self {
        let word = table.choice("type", findings);
        let default = if word == Some("UDP_CONNECT") { 10 } else { 3 };
        let rise = table.number("max_retries", findings).unwrap_or(3);
        let mut object = Monitor {
            kind: kind(table, word, findings),
            delay: table.seconds("delay", findings).unwrap_or(Duration::from_secs(5)),
            timeout: table.seconds("timeout", findings).unwrap_or(Duration::from_secs(default)),
            rise,
            fall: table.number("max_retries_down", findings).unwrap_or(rise),
            port: None,
        };
        let port = table.number::<u16>("monitor_port", findings);
        put(&mut object.port, port.map(|port| (port != 0).then_some(port)));
        warn(table, word, &object, findings);
        MonitorText { word, has_codes: table.has("expected_codes"), object, table: table.clone() }
    }
}

/// The kind with all its settings; those that it hasn't are read all the same, for their mistakes.
fn kind(table: &Table<'_, '_>, word: Option<&'static str>, findings: &mut Findings) -> MonitorKind {
    let (low, high, default) = if word == Some("GRPC") { (0, 99, 0) } else { (100, 599, 200) };
    let codes = table.text("expected_codes", findings, |text| values::codes(text, low, high));
    let codes = codes.unwrap_or(Codes::one(default));
    let path = table.text("url_path", findings, values::url_path).unwrap_or("/".to_owned());
    let host = table.text("domain_name", findings, values::or_empty(values::host));
    let host = host.flatten().unwrap_or_default();
    let method = match table.choice("http_method", findings) {
        Some("HEAD") => MonitorMethod::Head,
        Some("POST") => MonitorMethod::Post,
        _ => MonitorMethod::Get,
    };
    match word {
        Some("UDP_CONNECT") => MonitorKind::UdpConnect,
        Some("HTTP") => MonitorKind::Http { method, path, host, codes },
        Some("HTTPS") => MonitorKind::Https { method, path, host, codes },
        Some("GRPC") => {
            // `/` is the default of the key: the server as a whole.
            let path = path.trim_start_matches('/').to_owned();
            MonitorKind::Grpc { path, host, codes }
        }
        _ => MonitorKind::Tcp,
    }
}

fn warn(
    table: &Table<'_, '_>,
    word: Option<&'static str>,
    object: &Monitor,
    findings: &mut Findings,
) {
    let Some(word) = word else { return };
    if word == "UDP_CONNECT" && object.timeout < Duration::from_secs(2) {
        let what = "is short for UDP: late ICMP replies make members come and go";
        findings
            .warning(table.span_of("timeout"), table.at("timeout"), what)
            .row("R8.4-5")
            .help("give it 2 s or more");
    }
    for key in ["url_path", "http_method", "expected_codes", "domain_name"] {
        let serves = crate::config::keys::find("pool.healthmonitor", key)
            .is_some_and(|row| row.serves(word));
        if table.has(key) && !serves {
            let what = format!("means nothing to a {word} check");
            findings
                .warning(table.key_span(key), table.at(key), what)
                .help("take it out, or change the type");
        }
    }
}
