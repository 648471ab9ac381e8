#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! Forwarding policies, certificates and groups of addresses as a file may have them. What is not
//! supported yet is refused; those refusals are left aside here.

use weir_core::config::{Problem, parse};

/// Errors other than "not supported yet".
fn wrong(text: &str) -> Vec<Problem> {
    match parse(text, "f") {
        Ok(_) => Vec::new(),
        Err(failure) => failure
            .into_iter()
            .filter(|problem| !problem.message.contains("is not supported yet"))
            .cloned()
            .collect(),
    }
}

fn only(text: &str) -> Problem {
    let mut problems = wrong(text);
    assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
    problems.remove(0)
}

fn right(text: &str) {
    let problems = wrong(text);
    assert!(problems.is_empty(), "{text}\n{problems:#?}");
}

/// Listeners `web` (HTTP), `other` (HTTP), `secure` (HTTPS), `raw` (TCP); pools `p` (a default
/// pool), `a` to `f`, `s` (TCP).
fn base() -> String {
    let mut text =
        "[[certificate]]\nname='site'\ncertificate='c.pem'\nprivate_key='c.key'\n".to_owned();
    for (name, protocol, extra) in [
        ("web", "HTTP", "default_pool='p'"),
        ("other", "HTTP", ""),
        ("secure", "HTTPS", "default_certificate='site'"),
        ("raw", "TCP", ""),
    ] {
        text += &format!(
            "[[listener]]\nname='{name}'\nprotocol='{protocol}'\nprotocol_port=0\n{extra}\n"
        );
    }
    for name in ["p", "a", "b", "c", "d", "e", "f"] {
        text += &format!("[[pool]]\nname='{name}'\nprotocol='HTTP'\n");
    }
    text + "[[pool]]\nname='s'\nprotocol='TCP'\n"
}

fn policy(name: &str, lines: &str) -> String {
    format!("[[l7policy]]\nname='{name}'\n{lines}\n")
}

fn with(policies: &[String]) -> String {
    base() + &policies.concat()
}

/// To a pool, for a path.
fn to_pool(name: &str, listener: &str, path: &str, pool: &str) -> String {
    policy(
        name,
        &format!(
            "listener='{listener}'\naction='REDIRECT_TO_POOL'\nredirect_pool='{pool}'\n\
         rules=[{{type='PATH',value='{path}'}}]"
        ),
    )
}

/// R10.5-1, R10.5-2: one policy a pool, and no default pool, unless [compat] says otherwise.
#[test]
fn a_pool_serves_one_policy() {
    let shared = "[compat]\npool_per_policy='shared'\n";
    right(&with(&[to_pool("x", "web", "/x", "a"), to_pool("y", "web", "/y", "b")]));
    let twice = with(&[to_pool("x", "web", "/x", "a"), to_pool("y", "other", "/y", "a")]);
    let problem = only(&twice);
    assert_eq!((problem.key.as_str(), problem.row), ("l7policy[1].redirect_pool", Some("R10.5-1")));
    right(&(twice + shared));
    let default = with(&[to_pool("x", "other", "/x", "p")]);
    assert_eq!(only(&default).row, Some("R10.5-2"));
    right(&(default + shared));
}

/// R10.3-1 (C30): a file with two policies alike is refused, in whatever order they are written.
#[test]
fn twins_are_refused() {
    let rules = |rules: &str, pool: &str| {
        policy(
            pool,
            &format!(
                "listener='web'\naction='REDIRECT_TO_POOL'\nredirect_pool='{pool}'\nrules=[{rules}]"
            ),
        )
    };
    let host = "{type='HOST_NAME',value=['b.example','A.example']}";
    let turned = "{type='HOST_NAME',value=['a.example','b.example']}";
    let path = "{type='PATH',value='/x'}";
    let one = rules(&format!("{host},{path}"), "a");
    let problem = only(&with(&[one.clone(), rules(&format!("{path},{turned}"), "b")]));
    assert_eq!((problem.key.as_str(), problem.row), ("l7policy[1]", Some("R10.3-1")));
    right(&with(&[one.clone(), rules(path, "b")]));
    let inverted = "{type='PATH',value='/x',invert=true}";
    right(&with(&[one, rules(&format!("{inverted},{turned}"), "b")]));
    assert_eq!(only(&with(&[rules("", "a"), rules("", "b")])).row, Some("R10.3-1"));
}

/// R10.4-1, R6.8-3: the listener is of Layer 7, the pool goes with it.
#[test]
fn policies_stand_on_layer_7() {
    assert_eq!(only(&with(&[to_pool("x", "raw", "/", "a")])).row, Some("R10.4-1"));
    assert_eq!(only(&with(&[to_pool("x", "web", "/", "s")])).row, Some("R6.8-3"));
    assert!(only(&with(&[to_pool("x", "wbe", "/", "a")])).help.unwrap().contains("\"web\""));
    assert!(only(&with(&[to_pool("x", "web", "/", "zz")])).message.contains("no [[pool]]"));
}

#[test]
fn priorities_are_unique_in_a_listener() {
    let at = |name: &str, listener: &str, priority: u32| {
        to_pool(name, listener, &format!("/{name}"), name) + &format!("priority={priority}\n")
    };
    right(&with(&[at("a", "web", 1), at("b", "other", 1), at("c", "web", 10_000)]));
    let problem = only(&with(&[at("a", "web", 7), at("b", "web", 7)]));
    assert_eq!(problem.key, "l7policy[1].priority");
    assert!(only(&with(&[at("a", "web", 0)])).message.contains("1 to 10000"));
    assert!(only(&with(&[at("a", "web", 10_001)])).message.contains("out of range"));
}

/// R10.5-3: conditions, their number and their values.
#[test]
fn conditions_are_checked() {
    let rules = |rules: &str| {
        with(&[policy(
            "x",
            &format!(
                "listener='web'\naction='REDIRECT_TO_POOL'\nredirect_pool='a'\nrules=[{rules}]"
            ),
        )])
    };
    let header = |n: usize| format!("{{type='HEADER',key='X-{n}',value='v'}},");
    right(&rules(&(0..10).map(header).collect::<String>()));
    assert!(only(&rules(&(0..11).map(header).collect::<String>())).message.contains("at most 10"));
    for kind in ["HOST_NAME", "PATH", "METHOD", "SOURCE_IP"] {
        let value = match kind {
            "METHOD" => "GET",
            "SOURCE_IP" => "10.0.0.0/8",
            "PATH" => "/a",
            _ => "*.example.com",
        };
        let one = format!("{{type='{kind}',value='{value}'}}");
        right(&rules(&one));
        assert_eq!(only(&rules(&format!("{one},{one}"))).row, Some("R10.5-3"), "{kind}");
    }
    right(&rules("{type='COOKIE',key='a',value='1'},{type='COOKIE',key='a',value='2'}"));
    right(&rules("{type='PATH',compare_type='REGEX',value='^/[a-z]+$'}"));
    for bad in [
        "{type='PATH',value='a'}",
        "{type='PATH',value='/a?b=1'}",
        "{type='PATH',compare_type='STARTS_WITH',value='/a#b'}",
        "{type='PATH',value=[]}",
        "{type='PATH',key='x',value='/'}",
        "{type='HEADER',value='v'}",
        "{type='HEADER',key='a b',value='v'}",
        "{type='HOST_NAME',compare_type='REGEX',value='a'}",
        "{type='HOST_NAME',value='http://a'}",
        "{type='METHOD',value='get'}",
        "{type='SOURCE_IP',value='home'}",
        "{type='SOURCE_IP',value='10.0.0.1/8'}",
        "{type='PORT',value='1'}",
        "{type='PATH'}",
        "{type='PATH',value='/',invert=1}",
        "{type='PATH',value='/',vlaue='/'}",
        "{type='PATH',compare_type='REGEX',value='(/'}",
        "{type='HEADER',key='a',compare_type='REGEX',value='[ab]*a[ab]{20}'}",
    ] {
        let problem = only(&rules(bad));
        assert!(problem.key.starts_with("l7policy[0].rules[0]"), "{bad}: {problem}");
    }
    let many: Vec<_> = (0..11).map(|n| format!("'/{n}'")).collect();
    right(&rules(&format!("{{type='PATH',value=[{}]}}", many[..10].join(","))));
    assert!(
        only(&rules(&format!("{{type='PATH',value=[{}]}}", many.join(",")))).key.ends_with("value")
    );
}

/// R5.5-2 among others: each action has what it needs and nothing else.
#[test]
fn actions_are_checked() {
    let act = |lines: &str| with(&[policy("x", &format!("listener='web'\n{lines}"))]);
    let pools = |n: usize| {
        let list: Vec<_> = ["a", "b", "c", "d", "e", "f"][..n]
            .iter()
            .map(|name| format!("{{pool='{name}',weight={n}}}"))
            .collect();
        format!("action='REDIRECT_TO_POOL'\nredirect_pools=[{}]", list.join(","))
    };
    for good in [
        pools(1),
        pools(5),
        "action='REDIRECT_TO_LISTENER'\nredirect_listener='secure'".to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={protocol='https',port='443'}".to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={path='/new${path}',status_code=308}"
            .to_owned(),
        "action='FIXED_RESPONSE'\nfixed_response_config={status_code=503,message_body='x'}"
            .to_owned(),
    ] {
        right(&act(&good));
    }
    for bad in [
        pools(6),
        pools(0),
        "action='REDIRECT_TO_POOL'".to_owned(),
        "action='REDIRECT_TO_POOL'\nredirect_pool='a'\nredirect_pools=[{pool='b'}]".to_owned(),
        "action='REDIRECT_TO_POOL'\nredirect_pools=[{pool='a'},{pool='a'}]".to_owned(),
        "action='REDIRECT_TO_POOL'\nredirect_pools=[{pool='a',weight=0}]".to_owned(),
        "action='REDIRECT_TO_POOL'\nredirect_pools=[{pool='a',weight=101}]".to_owned(),
        "action='REDIRECT_TO_POOL'\nredirect_pool='a'\nredirect_listener='secure'".to_owned(),
        "action='REDIRECT_TO_LISTENER'\nredirect_listener='other'".to_owned(),
        "action='REDIRECT_TO_LISTENER'\nredirect_listener='raw'".to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={}".to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={port='0'}".to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={protocol='ftp'}".to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={host='a b'}".to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={path='/${paht}'}".to_owned(),
        "action='FIXED_RESPONSE'\nfixed_response_config={status_code=204,message_body='x'}"
            .to_owned(),
        "action='REDIRECT_TO_URL'\nredirect_url_config={host='a',status_code=200}".to_owned(),
        "action='FIXED_RESPONSE'\nfixed_response_config={status_code=302}".to_owned(),
        "action='FIXED_RESPONSE'\nfixed_response_config={status_code='503'}".to_owned(),
        "action='FIXED_RESPONSE'\nfixed_response_config={message_body='x'}".to_owned(),
        "action='FIXED_RESPONSE'\nfixed_response_config={status_code=200,content_type='a/b'}"
            .to_owned(),
        format!(
            "action='FIXED_RESPONSE'\nfixed_response_config={{status_code=200,message_body='{}'}}",
            "x".repeat(1025)
        ),
        "action='DENY'".to_owned(),
        String::new(),
    ] {
        let problem = only(&act(&bad));
        assert!(problem.key.starts_with("l7policy[0]."), "{bad}: {problem}");
        assert!(problem.help.is_some());
    }
    let elsewhere = act("action='REDIRECT_TO_LISTENER'\nredirect_listener='raw'");
    assert_eq!(only(&elsewhere).row, Some("R5.5-2"));
}

#[test]
fn certificates_have_keys_and_bundles_have_none() {
    let text = |lines: &str| format!("[[certificate]]\nname='x'\n{lines}\n");
    right(&text("certificate='a.pem'\nprivate_key='a.key'\ndomain='a.example,*.b.example'"));
    right(&text("type='client'\ncertificate='''-----BEGIN CERTIFICATE-----\nA\n'''"));
    assert!(only(&text("certificate='a.pem'")).key.ends_with("private_key"));
    let ca = text("type='client'\ncertificate='a'\nprivate_key='b'");
    assert!(only(&ca).message.contains("no key here"));
    assert!(only(&text("certificate=''\nprivate_key='k'")).message.contains("is empty"));
    assert!(only(&text("certificate='a'\nprivate_key='k'\ndomain='a b'")).key.ends_with("domain"));
    let secret = text("certificate='a'\nprivate_key='x -----BEGIN PRIVATE KEY----- hush'");
    assert!(!only(&secret).message.contains("hush"));
}

#[test]
fn groups_have_entries_once() {
    let text = |list: &str| format!("[[ipgroup]]\nname='g'\nip_list={list}\n");
    right(&text("[]"));
    right(&text("['10.0.0.0/8', '10.0.0.1', {ip='2001:db8::/32',description='lab'}]"));
    assert!(only(&text("['10.0.0.1', {ip='10.0.0.1/32'}]")).message.contains("twice"));
    assert!(only(&text("'10.0.0.1'")).message.contains("is not a list"));
    assert!(only(&text("[7]")).message.contains("not an entry"));
    assert!(only(&text("['example.com']")).message.contains("is a name"));
    assert!(only(&text("[{description='x'}]")).key.ends_with("ip_list[0].ip"));
    let used = |name: &str| {
        text("['10.0.0.1']")
            + &format!(
                "[[listener]]\nname='l'\nprotocol='HTTP'\nprotocol_port=0\n\
                 ipgroup={{name={name}}}\n"
            )
    };
    right(&used("['g']"));
    assert!(only(&used("['h']")).message.contains("no [[ipgroup]]"));
    assert!(only(&used("[]")).message.contains("empty"));
    assert_eq!(only(&used("[7]")).key, "listener[0].ipgroup.name[0]");
}
