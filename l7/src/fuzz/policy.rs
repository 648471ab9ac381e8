//! Target: forwarding policies over any request.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use weir_core::control::Limits;
use weir_core::model::{
    self, Action, Compare, FixedResponse, Handle, Policy, RedirectUrl, Rule, RuleKind,
};
use weir_core::policy::{Action as Done, RequestView, Resolve, Router, normal};

use super::{Outcome, promise};
use crate::message::{Field, Request};
use crate::policy::{Own, asked_url, view};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// All policies together, and each alone.
static TABLES: LazyLock<(Router, Vec<Router>)> = LazyLock::new(|| {
    let policies = policies();
    let alone = policies.iter().map(|policy| Router::new([policy], &Nothing)).collect();
    (Router::new(&policies, &Nothing), alone)
});

/// There are no pools.
struct Nothing;

impl Resolve for Nothing {
    fn pool(&self, _: usize) -> Option<Handle> {
        None
    }

    fn port(&self, _: usize) -> u16 {
        8443
    }
}

/// Policies of every kind, none of which holds for every request.
fn policies() -> Vec<Policy> {
    use Compare::{EqualTo, Regex, StartsWith};
    use RuleKind::{Cookie, Header, HostName, Method, Path, QueryString, SourceIp};
    let rule = |kind, compare, value: &str, invert| Rule {
        kind,
        compare,
        values: vec![value.to_owned()],
        invert,
    };
    let host = |value| rule(HostName, EqualTo, value, false);
    let path = |compare, value| rule(Path, compare, value, false);
    let beta = || rule(QueryString("beta".to_owned()), EqualTo, "1", false);
    let lists = [
        vec![host("*.shop.t"), path(StartsWith, "/api")],
        vec![host("a.shop.t"), path(StartsWith, "/api/")],
        vec![host("a.shop.t"), path(StartsWith, "/api/v1/")],
        vec![host("shop.t"), path(EqualTo, "/api/y%2Fz")],
        vec![host("*.a.shop.t")],
        vec![host("::1"), path(Regex, r"\.(png|jpg)$")],
        vec![path(Regex, "^/(api|old)/"), rule(Method, EqualTo, "GET", true)],
        vec![path(StartsWith, "/old")],
        vec![path(EqualTo, "/"), rule(Header("x-team".to_owned()), StartsWith, "re", false)],
        vec![path(EqualTo, "/"), rule(Cookie("lane".to_owned()), Regex, "^(slow|fast)$", false)],
        vec![beta(), rule(SourceIp, EqualTo, "192.0.2.0/24", false)],
        vec![beta(), rule(HostName, EqualTo, "w", true)],
    ];
    let policy = |(at, rules): (usize, Vec<Rule>)| {
        let action = match at % 3 {
            0 => Action::Fixed(FixedResponse::default()),
            1 => Action::Listener(0),
            _ => Action::Url(RedirectUrl { path: "/new${path}".into(), ..RedirectUrl::default() }),
        };
        let id = model::Id::from_u128(at as u128 + 1);
        Policy { id, name: at.to_string(), listener: 0, priority: None, rules, action }
    };
    lists.into_iter().enumerate().map(policy).collect()
}

/// The policy that a request head at the start of the input meets.
///
/// # Errors
/// It must be one that would be met alone, and there is one as soon as any would. The normal forms
/// are their own normal forms. Another way of writing host and path leads to the same policy. What
/// a redirect says holds only what a URL may hold.
pub fn policy_match(data: &[u8]) -> Outcome {
    let mut fields: Vec<Field> = Vec::new();
    let parsed = Request::parse(data, &Limits::default(), &mut fields);
    let Ok(Some(request)) = parsed else { return Ok(false) };
    let (mut host, mut path) = (Vec::new(), Vec::new());
    let view = view(&request, SOURCE, &mut host, &mut path);
    check_normal(request.path_and_query().0, &view)?;
    let (all, alone) = &*TABLES;
    let mut buffer = Vec::new();
    let met = all.find(&view, &mut buffer);
    let possible: Vec<u128> = (alone.iter().filter_map(|router| router.find(&view, &mut buffer)))
        .map(|policy| policy.id.as_u128())
        .collect();
    let fits = match met {
        Some(policy) => possible.contains(&policy.id.as_u128()),
        None => possible.is_empty(),
    };
    promise(fits, "not the policy of one that matches", data)?;
    check_disguise(&request, &view, met.map(|policy| policy.id))?;
    for policy in all.policies() {
        if let Done::Redirect(redirect) = &policy.action {
            check_redirect(Own::redirect(redirect, &asked_url(&request, false)).ok())?;
        }
    }
    Ok(true)
}

fn check_normal(raw: &[u8], view: &RequestView<'_>) -> Result<(), String> {
    let mut segments = view.path.split(|&byte| byte == b'/');
    promise(view.path.first() != Some(&b'/') || !segments.any(is_dots), "dots left", view.path)?;
    let lower = !view.host.iter().any(u8::is_ascii_uppercase);
    promise(lower, "host not in lower case", view.host)?;
    let mut buffer = Vec::new();
    let again = normal::path(view.path, &mut buffer);
    // A percent sign that encodes nothing may come to stand before two digits.
    promise(has_stray_percent(raw) || again == view.path, "not its own normal form", view.path)
}

fn has_stray_percent(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'%').skip(1).any(|rest| !is_encoding(rest))
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

fn is_encoding(rest: &[u8]) -> bool {
    matches!(rest, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// Writes host and path of the request in another way.
fn check_disguise(
    request: &Request<'_>,
    view: &RequestView<'_>,
    met: Option<model::Id>,
) -> Result<(), String> {
    let raw = request.path_and_query().0;
    if raw.first() != Some(&b'/') || has_stray_percent(raw) {
        return Ok(());
    }
    let mut other = b"/zz/%2e./%2E".to_vec();
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let unreserved = first.is_ascii_alphanumeric() || b"-._~".contains(first);
        if *first == b'%' {
            // What stands behind belongs to it.
            let (kept, behind) = tail.split_at(tail.len().min(2));
            other.push(b'%');
            other.extend_from_slice(kept);
            rest = behind;
        } else if unreserved {
            other.extend_from_slice(format!("%{first:02x}").as_bytes());
        } else {
            other.push(*first);
        }
    }
    let loud: Vec<u8> = view.host.iter().map(u8::to_ascii_uppercase).collect();
    let (mut host, mut path, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    // Of two dots at a host's end only the last one is taken off: it is no name, with one or none.
    let literal = view.host.contains(&b':') || view.host.last() == Some(&b'.');
    let view = RequestView {
        host: if literal { view.host } else { normal::host(&loud, &mut host) },
        path: normal::path(&other, &mut path),
        ..*view
    };
    let (all, _) = &*TABLES;
    let found = all.find(&view, &mut buffer).map(|policy| policy.id);
    promise(found == met, "a disguise meets another policy", &other)
}

fn check_redirect(own: Option<Own>) -> Result<(), String> {
    let Some(own) = own else { return Ok(()) };
    let page = own.finish(true, |_| {});
    let lines = page.split(|&byte| byte == b'\n').collect::<Vec<_>>();
    let url = lines.get(1).and_then(|line| line.strip_prefix(b"Location: ".as_slice()));
    let sound = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let url = url.and_then(|url| url.strip_suffix(b"\r")).ok_or("no Location")?;
    promise(url.iter().all(|&byte| sound(byte)), "no URL", url)?;
    promise(lines.len() == 5, "a line too many", &page)
}
