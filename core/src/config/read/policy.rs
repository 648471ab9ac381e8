//! Reads `[[l7policy]]`.

use std::collections::HashMap;

use toml::de::DeValue;

use super::Head;
use crate::config::bounds::{MAX_REDIRECT_POOLS, MAX_RULES, MAX_TEXT};
use crate::config::problem::{Findings, Placed, quoted};
use crate::config::reader::{Table, describe, put};
use crate::config::values::{self, Fault, fault};
use crate::model::{Compare, FixedResponse, RedirectUrl, Rule, RuleKind};
use crate::policy::{Pattern, is_template};

/// A `[[l7policy]]` as written.
#[derive(Debug)]
pub(in crate::config) struct PolicyText<'t, 'i> {
    pub head: Head<'t, 'i>,
    pub listener: Option<Placed<String>>,
    pub priority: Option<Placed<u16>>,
    /// The sound ones.
    pub rules: Vec<Rule>,
    /// Was every rule sound?
    pub rules_whole: bool,
    /// `None` where it is missing or wrong.
    pub action: Option<ActionText>,
}

/// An action, with names where the model has indices.
#[derive(Debug)]
pub(in crate::config) enum ActionText {
    Pools(Vec<(Placed<String>, u8)>),
    Listener(Placed<String>),
    Url(RedirectUrl),
    Fixed(FixedResponse),
}

/// The keys of each action; of the first, one of the two.
const ACTION_KEYS: [(&str, &[&str]); 4] = [
    ("REDIRECT_TO_POOL", &["redirect_pool", "redirect_pools"]),
    ("REDIRECT_TO_LISTENER", &["redirect_listener"]),
    ("REDIRECT_TO_URL", &["redirect_url_config"]),
    ("FIXED_RESPONSE", &["fixed_response_config"]),
];

impl<'t, 'i> PolicyText<'t, 'i> {
    pub(super) fn read(table: &Table<'t, 'i>, findings: &mut Findings) -> Self {
        let head = Head::read(table, findings);
        let priority = table.number("priority", findings);
        let priority = priority.map(|value| Placed { value, span: table.span_of("priority") });
        let before = findings.errors();
        let rules = rules(table, findings);
        PolicyText {
            head,
            listener: table.reference("listener", findings),
            priority,
            rules_whole: findings.errors() == before,
            rules,
            action: action(table, findings),
        }
    }
}

fn rules(policy: &Table<'_, '_>, findings: &mut Findings) -> Vec<Rule> {
    let tables = policy.tables("rules", findings);
    if tables.len() > MAX_RULES {
        let what = format!("has {} conditions, at most {MAX_RULES}", tables.len());
        policy.error("rules", what, findings).help("split the policy, or use several values");
    }
    let mut seen = HashMap::new();
    let mut rules = Vec::with_capacity(tables.len());
    for table in &tables {
        let Some(rule) = rule(table, findings) else { continue };
        let once = matches!(
            rule.kind,
            RuleKind::HostName | RuleKind::Path | RuleKind::Method | RuleKind::SourceIp
        );
        if let Some(earlier) = seen.insert(rule.kind.name(), table.span).filter(|_| once) {
            let what = format!("a second {} condition", rule.kind.name());
            findings
                .error(table.span, table.path.clone(), what)
                .row("R10.5-3")
                .related(earlier, "the first one")
                .help("give the first one several values: any of them matches");
        }
        rules.push(rule);
    }
    rules
}

fn rule(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Rule> {
    let word = table.choice("type", findings);
    let compare = match table.choice("compare_type", findings) {
        Some("STARTS_WITH") => Compare::StartsWith,
        Some("REGEX") => Compare::Regex,
        _ => Compare::EqualTo,
    };
    let key = table.text("key", findings, values::plain);
    let invert = table.flag("invert", findings).unwrap_or_default();
    let kind = word.and_then(|word| rule_kind(table, word, key, findings));
    let exact = matches!(word, Some("HOST_NAME" | "METHOD" | "SOURCE_IP"));
    if exact && compare != Compare::EqualTo {
        let what = format!("{} takes EQUAL_TO only", word.unwrap_or_default());
        table.error("compare_type", what, findings).row("R10.5-3").help("write EQUAL_TO");
    }
    let parse = |text: &str| rule_value(word, compare, text);
    let list = table.texts("value", findings, parse)?;
    if !(1..=MAX_RULES).contains(&list.len()) {
        let sound = table.raw("value").and_then(|value| value.get_ref().as_array());
        if sound.is_none_or(|all| all.len() == list.len()) {
            let what = format!("has {} values: 1 to {MAX_RULES}", list.len());
            table.error("value", what, findings).row("R10.5-3").help("split the policy");
        }
    }
    let mut values: Vec<String> = list.into_iter().map(|placed| placed.value).collect();
    values.sort_unstable();
    values.dedup();
    Some(Rule { kind: kind?, compare, values, invert })
}

fn rule_kind(
    table: &Table<'_, '_>,
    word: &'static str,
    key: Option<String>,
    findings: &mut Findings,
) -> Option<RuleKind> {
    let keyed = matches!(word, "HEADER" | "QUERY_STRING" | "COOKIE");
    if keyed && !table.has("key") {
        table.missing("key", &format!("the name of the {word}"), findings).row("R10.5-3");
    }
    if !keyed && table.has("key") {
        let what = format!("{word} has no key");
        table.error("key", what, findings).row("R10.5-3").help("take it out");
    }
    match word {
        "HOST_NAME" => Some(RuleKind::HostName),
        "PATH" => Some(RuleKind::Path),
        "METHOD" => Some(RuleKind::Method),
        "SOURCE_IP" => Some(RuleKind::SourceIp),
        "QUERY_STRING" => key.map(RuleKind::QueryString),
        _ => {
            let key = key?;
            if let Err(fault) = values::token(&key) {
                let what = format!("{} {}", quoted(&key), fault.what);
                table.error("key", what, findings).row("R10.5-3").help(fault.cure);
                return None;
            }
            Some(match word {
                "HEADER" => RuleKind::Header(key.to_ascii_lowercase()),
                _ => RuleKind::Cookie(key),
            })
        }
    }
}

fn rule_value(word: Option<&str>, compare: Compare, text: &str) -> Result<String, Fault> {
    match word {
        Some("PATH" | "HEADER" | "QUERY_STRING" | "COOKIE") if compare == Compare::Regex => {
            let text = values::plain(text)?;
            match Pattern::new(&text) {
                Ok(_) => Ok(text),
                Err(why) => fault(why, "write an expression of the crate regex, for bytes"),
            }
        }
        Some("HOST_NAME") => values::host_pattern(text),
        Some("SOURCE_IP") => values::network(text).map(|network| network.trunc().to_string()),
        Some("METHOD") => {
            let upper = text.to_ascii_uppercase();
            match values::token(text) {
                Ok(token) if token == upper => Ok(token),
                Ok(_) => fault("is not in capitals", format!("write \"{upper}\"")),
                Err(fault) => Err(fault),
            }
        }
        Some("PATH") if !text.starts_with('/') => {
            fault("is not an absolute path", format!("write \"/{text}\""))
        }
        Some("PATH") if text.contains(['?', '#']) => {
            fault("is more than a path", "end it there; QUERY_STRING looks at the query")
        }
        _ => values::plain(text),
    }
}

fn action(table: &Table<'_, '_>, findings: &mut Findings) -> Option<ActionText> {
    let word = table.choice("action", findings);
    let one = table.reference("redirect_pool", findings);
    let several = redirect_pools(table, findings);
    let listener = table.reference("redirect_listener", findings);
    let url = table.table("redirect_url_config", findings);
    let url = url.map(|table| redirect_url(&table, findings));
    let fixed = table.table("fixed_response_config", findings);
    let fixed = fixed.map(|table| fixed_response(&table, findings));
    let word = word?;
    for (action, keys) in ACTION_KEYS {
        let given = keys.iter().filter(|key| table.has(key)).count();
        if action != word {
            for key in keys.iter().filter(|key| table.has(key)) {
                findings
                    .error(table.key_span(key), table.at(key), {
                        format!("is for {action}, not for {word}")
                    })
                    .help("take it out, or change the action");
            }
        } else if given == 0 {
            table.missing(keys.first()?, &format!("what {word} needs"), findings);
        } else if given > 1 {
            table
                .error("redirect_pools", "stands beside redirect_pool", findings)
                .help("keep one of the two keys");
        }
    }
    match word {
        "REDIRECT_TO_POOL" => match one {
            Some(name) => Some(ActionText::Pools(vec![(name, 1)])),
            None => several.map(ActionText::Pools),
        },
        "REDIRECT_TO_LISTENER" => listener.map(ActionText::Listener),
        "REDIRECT_TO_URL" => url.map(ActionText::Url),
        _ => fixed.map(ActionText::Fixed),
    }
}

fn redirect_pools(
    policy: &Table<'_, '_>,
    findings: &mut Findings,
) -> Option<Vec<(Placed<String>, u8)>> {
    const KEY: &str = "redirect_pools";
    if !policy.has(KEY) {
        return None;
    }
    let tables = policy.tables(KEY, findings);
    if !(1..=MAX_REDIRECT_POOLS).contains(&tables.len()) {
        let what = format!("has {} pools: 1 to {MAX_REDIRECT_POOLS}", tables.len());
        policy.error(KEY, what, findings).row("R10.5-1").help("join or drop some");
    }
    let mut pools = Vec::with_capacity(tables.len());
    for table in &tables {
        let weight = table.number("weight", findings).unwrap_or(1);
        let name = table.reference("pool", findings);
        pools.extend(name.map(|name| (name, weight)));
    }
    if !pools.is_empty() && pools.iter().all(|(_, weight)| *weight == 0) {
        let what = "every weight is 0: no pool gets traffic";
        policy.error(KEY, what, findings).help("give one of them a weight");
    }
    Some(pools)
}

fn redirect_url(table: &Table<'_, '_>, findings: &mut Findings) -> RedirectUrl {
    let mut url = RedirectUrl::default();
    let before = findings.errors();
    put(
        &mut url.protocol,
        table.text("protocol", findings, |text| match text {
            "http" | "https" | "${protocol}" => Ok(text.to_owned()),
            _ => fault("is no scheme", "write http, https or ${protocol}"),
        }),
    );
    put(
        &mut url.host,
        table.text("host", findings, |text| {
            let sample = text.replace("${host}", "host");
            values::host(&sample).map(|_| text.to_owned())
        }),
    );
    put(
        &mut url.port,
        table.text("port", findings, |text| {
            let port = text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
            match port.is_some() || text == "${port}" {
                true => Ok(text.to_owned()),
                false => fault("is no port", "write \"443\" or \"${port}\""),
            }
        }),
    );
    put(
        &mut url.path,
        table.text("path", findings, |text| {
            match text.starts_with('/') || text.starts_with("${path}") {
                true => template(text),
                false => fault("is not an absolute path", format!("write \"/{text}\"")),
            }
        }),
    );
    let query = table.text("query", findings, values::or_empty(template));
    put(&mut url.query, query.map(Option::unwrap_or_default));
    let code = |code: u64| matches!(code, 301 | 302 | 303 | 307 | 308);
    put(&mut url.status_code, status(table, "301, 302, 303, 307 or 308", code, findings));
    let plain = RedirectUrl { status_code: url.status_code, ..RedirectUrl::default() };
    if url == plain && findings.errors() == before {
        findings
            .error(table.span, table.path.clone(), "sends clients where they came from")
            .help("change at least one part of the URL");
    }
    url
}

fn template(text: &str) -> Result<String, Fault> {
    match is_template(text) {
        true => values::plain(text),
        false => fault(
            "has a ${ that begins no variable",
            "write ${protocol}, ${host}, ${port}, ${path} or ${query}",
        ),
    }
}

fn fixed_response(table: &Table<'_, '_>, findings: &mut Findings) -> FixedResponse {
    let mut fixed = FixedResponse::default();
    let code = |code: u64| matches!(code, 200..=299 | 400..=599);
    put(&mut fixed.status_code, status(table, "200 to 299 or 400 to 599", code, findings));
    let content_type = table.choice("content_type", findings);
    put(&mut fixed.content_type, content_type.map(str::to_owned));
    put(
        &mut fixed.message_body,
        table.text("message_body", findings, |text| match text.chars().count() > MAX_TEXT {
            true => fault(format!("is longer than {MAX_TEXT} characters"), "shorten it"),
            false => Ok(text.to_owned()),
        }),
    );
    if matches!(fixed.status_code, 204 | 205) && !fixed.message_body.is_empty() {
        let what = format!("stands beside status {}, which has no body", fixed.status_code);
        table.error("message_body", what, findings).help("take it out, or write 200");
    }
    fixed
}

fn status(
    table: &Table<'_, '_>,
    wanted: &str,
    good: impl Fn(u64) -> bool,
    findings: &mut Findings,
) -> Option<u16> {
    table.special("status_code", findings, |row, value, findings| {
        let number = match value.get_ref() {
            DeValue::Integer(number) => crate::config::reader::read_integer(number),
            _ => None,
        };
        let code = number.filter(|number| good(*number)).and_then(|code| u16::try_from(code).ok());
        if code.is_none() {
            let what = format!("{} is not {wanted}", describe(value));
            let help = format!("write one of {wanted}, without quotes");
            table.error(row.name, what, findings).help(help);
        }
        code
    })
}
