#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! Keys, sections and values that the format names and this version can't honour yet: a default
//! written out is taken, anything else is refused by name, once, with its place; none is ignored.

use weir_core::config::parse;

const LISTENER: &str = "[[listener]]\nname='web'\nprotocol='HTTP'\nprotocol_port=80\n";
const POOL: &str = "[[pool]]\nname='app'\nprotocol='HTTP'\n";

/// Below a section: the default of a key, then a value that is not supported yet, the key that the
/// error names and the part that brings it.
type Lines = &'static [(&'static str, &'static str, &'static str)];

const KEYS: &[(&str, &str, Lines)] = &[
    (
        LISTENER,
        "listener[0].",
        &[
            ("server_timing = true", "", ""),
            ("access_log = { path = '-' }", "", ""),
            ("access_log = { path = '/x', format = 'json' }", "", ""),
        ],
    ),
    (
        POOL,
        "pool[0].",
        &[
            ("pool_health = { minimum_healthy_member_count = 1 }", "", ""),
            ("outlier_detection = { enable = true, consecutive_failures = 1 }", "", ""),
            ("member_max_connections = 0", "member_max_connections = 7", "member limits"),
            ("queue_timeout = '1000ms'", "queue_timeout = '2s'", "member limits"),
            ("proxy_protocol = 'none'", "proxy_protocol = 'v1'", "the PROXY protocol"),
            ("healthmonitor = { type = 'TCP' }", "", ""),
            ("healthmonitor = { type = 'HTTP', http_method = 'POST' }", "", ""),
            ("slow_start = { enable = true, duration = 1200 }", "", ""),
            ("connection_drain = { enable = true, timeout = 10 }", "", ""),
            ("lb_algorithm = 'LEAST_CONNECTIONS'", "", ""),
            ("lb_algorithm = 'SOURCE_IP'", "", ""),
            // What another protocol has may still say its default.
            ("quic_cid_hash_strategy = { len = 3, offset = 1 }", "", ""),
            ("tls = { verify = false, ca = '', server_name = '' }", "", ""),
        ],
    ),
];

#[test]
fn a_default_written_out_is_taken_and_anything_else_is_refused_by_name() {
    for (prelude, path, lines) in KEYS {
        for (default, other, part) in *lines {
            let text = format!("{prelude}{default}\n");
            assert!(parse(&text, "f").is_ok(), "{default}: {}", parse(&text, "f").unwrap_err());
            if other.is_empty() {
                continue;
            }
            let failure = parse(&format!("{prelude}{other}\n"), "f").expect_err(other);
            assert_eq!(failure.problems().len(), 1, "{other}: {failure}");
            let problem = &failure.problems()[0];
            let key = other.split(' ').next().unwrap();
            assert_eq!(problem.key, format!("{path}{key}"), "{failure}");
            let ending = format!("is not supported yet: it comes with {part}");
            assert!(problem.message.ends_with(&ending), "{failure}");
            assert_eq!(problem.line, 1 + prelude.lines().count(), "{failure}");
            assert!(problem.help.is_some(), "{failure}");
        }
    }
}

#[test]
fn a_wrong_value_of_a_later_key_is_wrong_and_nothing_else() {
    for line in ["connection = -1", "cps = -1", "server_timing = 1", "trusted_proxies = ['x']"] {
        let failure = parse(&format!("{LISTENER}{line}\n"), "f").unwrap_err();
        assert_eq!(failure.problems().len(), 1, "{failure}");
        assert!(!failure.to_string().contains("not supported"), "{failure}");
    }
}

#[test]
fn each_section_that_repeats_is_checked_inside() {
    let text = "[[certificate]]\nname='a'\ncertificate='a'\nprivate_key='b'\ncolour='x'\n\
                [[certificate]]\nnmae='b'\ncertificate=1\nprivate_key='b'\n";
    let failure = parse(text, "f").unwrap_err();
    let found: Vec<_> = failure.problems().iter().map(|p| (p.line, p.key.as_str())).collect();
    let expected = [
        (5, "certificate[0].colour"),
        (6, "certificate[1].name"),
        (7, "certificate[1].nmae"),
        (8, "certificate[1].certificate"),
    ];
    assert_eq!(found, expected);
    assert_eq!(failure.problems()[2].help.as_deref(), Some("did you mean `name`?"));
}
