#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! What bad configuration files are told: every mistake, its place, its rule and its cure.

use weir_core::config::{Failure, Problem, parse};

fn failure(text: &str) -> Failure {
    parse(text, "web.toml").expect_err("the text is wrong, yet it was taken")
}

/// `(line, column, key, row)` of every error.
fn places(failure: &Failure) -> Vec<(usize, usize, &str, Option<&str>)> {
    failure
        .problems()
        .iter()
        .map(|problem| (problem.line, problem.column, problem.key.as_str(), problem.row))
        .collect()
}

/// The only error of a text.
fn only(text: &str) -> Problem {
    let failure = failure(text);
    assert_eq!(failure.problems().len(), 1, "{failure}");
    failure.problems()[0].clone()
}

/// A valid file with room for a line in each section.
fn file(root: &str, listener: &str, pool: &str, member: &str) -> String {
    format!(
        "{root}\n[[listener]]\nname = 'web'\nprotocol = 'HTTP'\nprotocol_port = 80\n\
         default_pool = 'app'\n{listener}\n[[pool]]\nname = 'app'\nprotocol = 'HTTP'\n{pool}\n\
         [[pool.members]]\naddress = '127.0.0.1'\nprotocol_port = 1\n{member}\n"
    )
}

const BROKEN: &str = r#"version = 2
colour = "red"

[runtime]
cores = "3-1"
backlog = "many"
shutdwon_timeout = 5

[admin]
listen = "localhost:9180"

[[loadbalancer]]
name = "front"
flavor = "shared"
vip_address = ["127.0.0.1", "::1"]

[[listener]]
name = "web"
loadbalancer = "frnt"
protocol = "HTTPS"
protocol_port = 65536
default_pool = "ap"
keepalive_timeout = 4001
client_timeout = 0

[[listener]]
name = "web"
loadbalancer = "front"
protocol = "http"
protocol_port = 8080

[[listener]]
name = "web2"
loadbalancer = "front"
protocol = "HTTP"
protocol_port = 8080
member_timeout = 301

[[pool]]
name = "app"
protocol = "HTTP"
lb_algorithm = "LEAST_CONECTIONS"
weight = 3
members = [
  { name = "a", address = "example.com", protocol_port = 0, weight = 101 },
  { name = "b", address = "127.0.0.1", protocol_port = 9001 },
  { name = "b", address = "127.0.0.1", protocol_port = 9001 },
  { name = "c", address = "::1", protocol_port = 9001 },
  { name = "d", protocol_port = 9001 },
  7,
]

[log]
level = "debgu"
levle = "debug"
"#;

#[test]
fn every_mistake_of_a_file_is_reported_at_its_place() {
    // R3.17-1, R6.7-4, R6.7-5, R6.7-6, R6.7-10, R6.8-5, R12.1-1, R2.1-1, R2.1-4
    let expected = [
        (1, 11, "version", None),
        (2, 1, "colour", None),
        (5, 9, "runtime.cores", None),
        (6, 11, "runtime.backlog", None),
        (7, 1, "runtime.shutdwon_timeout", None),
        (10, 10, "admin.listen", None),
        (15, 29, "loadbalancer[0].vip_address", Some("R3.17-1")),
        (17, 1, "listener[0].default_certificate", Some("R12.1-1")),
        (19, 16, "listener[0].loadbalancer", None),
        (21, 17, "listener[0].protocol_port", Some("R2.1-1")),
        (22, 16, "listener[0].default_pool", None),
        (23, 21, "listener[0].keepalive_timeout", Some("R6.7-4")),
        (24, 18, "listener[0].client_timeout", Some("R6.7-5")),
        (27, 8, "listener[1].name", None),
        (29, 12, "listener[1].protocol", Some("R6.8-5")),
        (36, 17, "listener[2].protocol_port", Some("R2.1-1")),
        (37, 18, "listener[2].member_timeout", Some("R6.7-6")),
        (42, 16, "pool[0].lb_algorithm", Some("R4.3-5")),
        (43, 1, "pool[0].weight", None),
        (45, 27, "pool[0].members[0].address", None),
        (45, 58, "pool[0].members[0].protocol_port", Some("R3.10-1")),
        (45, 70, "pool[0].members[0].weight", Some("R2.1-4")),
        (47, 12, "pool[0].members[2].name", None),
        (47, 27, "pool[0].members[2].address", None),
        (48, 27, "pool[0].members[3].address", Some("R3.17-1")),
        (49, 3, "pool[0].members[4].address", None),
        (50, 3, "pool[0].members[5]", None),
        (54, 9, "log.level", None),
        (55, 1, "log.levle", None),
    ];
    let failure = failure(BROKEN);
    assert_eq!(places(&failure), expected, "{failure}");
    assert!(failure.problems().iter().all(|problem| problem.help.is_some()), "{failure}");
}

#[test]
fn a_problem_begins_with_a_line_that_tools_can_read() {
    let text = file("", "member_timeout = 301", "", "");
    let expected = "\
web.toml:7:18: listener[0].member_timeout: 301 is out of range: 1 to 300 s [R6.7-6]
  --> web.toml:7:18
  |
7 | member_timeout = 301
  |                  ^^^
  help: write a whole number from 1 to 300, bounds included

1 error";
    assert_eq!(failure(&text).to_string(), expected);
}

#[test]
fn a_second_place_is_shown_where_two_clash() {
    let text = file("", "[[listener]]\nname='b'\nprotocol='HTTP'\nprotocol_port=80", "", "");
    let problem = only(&text);
    assert_eq!((problem.line, problem.row), (10, Some("R2.1-1")));
    assert!(problem.to_string().contains("-- bound here"), "{problem}");
}

#[test]
fn typing_slips_get_a_suggestion() {
    let cases = [
        (file("", "member_timout = 5", "", ""), "did you mean `member_timeout`?"),
        (file("", "Client-Timeout = 5", "", ""), "did you mean `client_timeout`?"),
        (file("[runtme]", "", "", ""), "did you mean `runtime`?"),
        (file("", "", "", "wieght = 5"), "did you mean `weight`?"),
        (file("", "", "weight = 5", ""), "`weight` is a key of [[pool.members]], not of [[pool]]"),
        (file("", "colour = 5", "", ""), "docs/configuration.md lists the keys of [[listener]]"),
        (file("", "", "lb_algorithm = 'ROUNDROBIN'", ""), "did you mean \"ROUND_ROBIN\"?"),
        (
            file("", "", "lb_algorithm = 'RANDOM'", ""),
            "write one of \"ROUND_ROBIN\", \"LEAST_CONNECTIONS\", \"SOURCE_IP\", \"QUIC_CID\"",
        ),
    ];
    for (text, help) in cases {
        assert_eq!(only(&text).help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn references_name_what_there_is() {
    let text = file("", "", "", "").replace("default_pool = 'app'", "default_pool = 'apq'");
    assert_eq!(only(&text).help.as_deref(), Some("did you mean \"app\"?"));
    let text = file("", "", "", "").replace("default_pool = 'app'", "default_pool = 'nowhere'");
    assert_eq!(only(&text).help.as_deref(), Some("the file has \"app\""));
    let text = file("", "loadbalancer = 'front'", "", "");
    assert_eq!(
        only(&text).help.as_deref(),
        Some("the file has no [[loadbalancer]]: add one of that name")
    );
    let text = file("", "default_certificate = 'x'", "", "")
        .replace("'HTTP'\nprotocol_port", "'HTTPS'\nprotocol_port");
    assert!(only(&text).help.unwrap().contains("weir gencert server NAME"));
}

#[test]
fn a_listener_must_say_its_balancer_where_there_are_any() {
    let problem = only(&file("[[loadbalancer]]\nname = 'front'", "", "", ""));
    assert_eq!(problem.key, "listener[0].loadbalancer");
    assert_eq!((problem.line, problem.column), (3, 1));
    assert!(problem.message.contains("missing") && problem.help.unwrap().contains("\"front\""));
}

#[test]
fn required_keys_are_asked_for() {
    let failure = failure("[[loadbalancer]]\n[[listener]]\n[[pool]]\n[[pool.members]]\n");
    let keys: Vec<_> = failure.problems().iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "loadbalancer[0].name",
        "listener[0].loadbalancer",
        "listener[0].name",
        "listener[0].protocol",
        "listener[0].protocol_port",
        "pool[0].name",
        "pool[0].protocol",
        "pool[0].members[0].address",
        "pool[0].members[0].protocol_port",
    ];
    assert_eq!(keys, expected, "{failure}");
}

#[test]
fn sections_of_the_wrong_kind_are_reported_and_read_on() {
    let single = failure("[listener]\nname = 7\nprotocol = 'HTTP'\nprotocol_port = 80\n");
    let expected = [(1, 2, "listener", None), (2, 8, "listener[0].name", None)];
    assert_eq!(places(&single), expected, "{single}");
    let repeated = failure("[[runtime]]\nbacklog = 0\n");
    let expected = [(1, 3, "runtime", None), (2, 11, "runtime[0].backlog", None)];
    assert_eq!(places(&repeated), expected, "{repeated}");
    let scalars = failure("pool = 1\nruntime = true\nlistener = ['a']\n");
    let keys: Vec<_> = scalars.problems().iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["pool", "runtime", "listener[0]"], "{scalars}");
}

#[test]
fn syntax_errors_have_a_place() {
    let failure = failure("[runtime]\nbacklog = = 5\nrun_dir = \"x\n");
    assert_eq!((failure.problems()[0].line, failure.problems()[0].key.as_str()), (2, "TOML"));
    assert!(failure.problems().len() >= 2, "{failure}");
}

#[test]
fn a_key_that_stands_twice_hides_nothing() {
    let failure = failure(&file("", "member_timeout = 5\nmember_timeout = 6", "", "weight = 101"));
    let expected = [(8, 1, "TOML", None), (16, 10, "pool[0].members[0].weight", Some("R2.1-4"))];
    assert_eq!(places(&failure), expected, "{failure}");
}

#[test]
fn addresses_that_overlap_are_refused() {
    // R2.1-1
    let two = |first: &str, second: &str| {
        format!(
            "[[loadbalancer]]\nname='a'\nvip_address={first}\n\
             [[loadbalancer]]\nname='b'\nvip_address={second}\n\
             [[listener]]\nname='x'\nloadbalancer='a'\nprotocol='HTTP'\nprotocol_port=80\n\
             [[listener]]\nname='y'\nloadbalancer='b'\nprotocol='HTTP'\nprotocol_port=80\n"
        )
    };
    let clashes = [
        ("'127.0.0.1'", "'127.0.0.1'"),
        ("'0.0.0.0'", "'127.0.0.1'"),
        ("'127.0.0.1'", "'0.0.0.0'"),
        ("['127.0.0.1', '::1']", "'::'"),
        ("'::1'", "'0:0::1'"),
    ];
    for (first, second) in clashes {
        let problem = only(&two(first, second));
        assert_eq!((problem.line, problem.row), (16, Some("R2.1-1")), "{first} {second}");
    }
    for (first, second) in [("'127.0.0.1'", "'127.0.0.2'"), ("'0.0.0.0'", "'::'")] {
        assert!(parse(&two(first, second), "f").is_ok(), "{first} {second}");
    }
    let admin = file("[admin]\nlisten = '127.0.0.1:80'", "", "", "");
    assert_eq!(only(&admin).key, "listener[0].protocol_port");
}

#[test]
fn free_ports_never_clash() {
    let listener =
        |name| format!("[[listener]]\nname='{name}'\nprotocol='HTTP'\nprotocol_port=0\n");
    let text = listener("a") + &listener("b");
    assert_eq!(parse(&text, "f").unwrap().config.listeners.len(), 2);
}

#[test]
fn ids_and_vips_are_not_used_twice() {
    let id = "id = '01234567-89ab-cdef-0123-456789abcdef'";
    let problem = only(&file("", id, "", id));
    assert_eq!((problem.line, problem.key.as_str()), (15, "pool[0].members[0].id"));
    let vips = "[[loadbalancer]]\nname='a'\nvip_address=['127.0.0.1', '127.0.0.1']\n";
    assert_eq!(only(vips).column, 27);
    let none = "[[loadbalancer]]\nname='a'\nvip_address=[]\n";
    assert!(only(none).message.contains("empty"));
}

#[test]
fn wrong_types_of_every_scalar_are_named() {
    for value in ["'5'", "5.5", "true", "1979-05-27", "[1]", "{ a = 1 }"] {
        let problem = only(&file("", &format!("member_timeout = {value}"), "", ""));
        assert!(problem.message.contains("is not a whole number"), "{problem}");
        assert_eq!((problem.line, problem.column), (7, 18), "{problem}");
    }
    for value in ["-1", "99999999999999999999999999", "9223372036854775807"] {
        let problem = only(&file("", &format!("member_timeout = {value}"), "", ""));
        assert!(problem.message.contains("out of range"), "{problem}");
    }
    for text in ["name = 5", "name = ''", "address = 5", "id = 'x'", "weight = 'x'"] {
        let key = text.split(' ').next().unwrap();
        let member = format!("[[pool]]\nname='p'\nprotocol='HTTP'\nmembers=[{{{text}}}]");
        let failure = failure(&member);
        let path = format!("pool[0].members[0].{key}");
        let found = failure.problems().iter().find(|problem| problem.key == path);
        assert_eq!(found.map(|problem| problem.column), Some(14 + key.len()), "{failure}");
    }
}

#[test]
fn cores_take_three_forms_and_no_other() {
    for good in ["'auto'", "'0-3,8'", "[0, 2]", "'1023'"] {
        assert!(parse(&format!("[runtime]\ncores = {good}"), "f").is_ok(), "{good}");
    }
    let bad = ["'all'", "''", "'3-1'", "[]", "[0, 0]", "[1024]", "'0,0'", "4", "true", "'1024'"];
    for bad in bad {
        let problem = only(&format!("[runtime]\ncores = {bad}"));
        assert_eq!((problem.line, problem.column), (2, 9), "{bad}");
    }
    let problem = only("[runtime]\ncores = [0, -1]");
    assert_eq!((problem.key.as_str(), problem.column), ("runtime.cores[1]", 13));
}

#[test]
fn a_broken_file_with_crlf_and_a_byte_order_mark_has_the_same_places() {
    let windows = format!("\u{feff}{}", BROKEN.replace('\n', "\r\n"));
    assert_eq!(places(&failure(&windows)), places(&failure(BROKEN)));
}

#[test]
fn nothing_from_the_file_reaches_the_terminal_raw() {
    let failure = failure("\"a\\u001b[2Jb\" = 1\n[[listener]]\nname = \"\\u001b]0;x\"\n");
    assert!(!failure.to_string().contains('\u{1b}'), "{failure}");
}

/// R6.6-1: what would be read by nobody once it is a tunnel is no protocol to upgrade to.
#[test]
fn some_protocols_are_never_upgraded_to() {
    for bad in ["h2c", "H2C", "h2", "HTTP/2.0", "tls/1.2", "two words", "", "a/", "a/b/c"] {
        let problem = only(&file("", &format!("upgrade_protocols = ['x', '{bad}']"), "", ""));
        assert_eq!(problem.key, "listener[0].upgrade_protocols[1]", "{bad}");
    }
    let many = vec!["'a'"; 17].join(", ");
    let problem = only(&file("", &format!("upgrade_protocols = [{many}]"), "", ""));
    assert!(problem.message.contains("17 protocols"), "{problem}");
    for good in ["[]", "'websocket'", "['websocket', 'imap/4']"] {
        assert!(parse(&file("", &format!("upgrade_protocols = {good}"), "", ""), "f").is_ok());
    }
}

/// What only TLS tells can't be inserted where nobody speaks it.
#[test]
fn headers_of_tls_need_https() {
    let with = |value: &str| file("", &format!("insert_headers = {{ {value} }}"), "", "");
    for header in ["X-Forwarded-TLS-Protocol", "x-forwarded-clientcert-subject"] {
        assert!(parse(&with(&format!("{header} = false")), "f").is_ok());
        let problem = only(&with(&format!("{header} = true")));
        assert!(problem.message.contains("HTTPS listeners"), "{problem}");
        assert_eq!(problem.key, format!("listener[0].insert_headers.{header}"));
    }
}

/// Nobody could tell replayed 0-RTT data, so that it can't be switched on; off may be written.
#[test]
fn early_data_is_refused() {
    let with = |value| {
        let text = file("", &format!("ssl_early_data_enable = {value}"), "", "");
        let certificate = "[[certificate]]\nname='s'\ncertificate='s.pem'\nprivate_key='s.key'\n";
        text.replace("protocol = 'HTTP'\nprotocol_port", "protocol = 'HTTPS'\nprotocol_port")
            .replace("default_pool = 'app'\n", "default_pool = 'app'\ndefault_certificate = 's'\n")
            + certificate
    };
    assert!(parse(&with(false), "f").is_ok());
    let problem = only(&with(true));
    assert_eq!(problem.key, "listener[0].ssl_early_data_enable");
    assert!(problem.message.contains("not supported") && problem.help.is_some(), "{problem}");
}

/// What a key is called elsewhere is suggested by its end, before a key of another section.
#[test]
fn half_a_key_is_completed() {
    for (wrong, right) in [("port = 80", "protocol_port"), ("pool = 'app'", "default_pool")] {
        let help = only(&file("", wrong, "", "")).help.unwrap();
        assert_eq!(help, format!("did you mean `{right}`?"));
    }
    let help = only(&file("", "", "", "port = 80")).help.unwrap();
    assert_eq!(help, "did you mean `protocol_port`?");
}

/// A list in both forms, and a section that stands twice, want different cures.
#[test]
fn a_list_in_two_forms_is_not_a_forgotten_bracket() {
    let both = file("", "", "members = [{ address = '127.0.0.1', protocol_port = 2 }]", "");
    let problem = &failure(&both).problems()[0].clone();
    assert_eq!((problem.key.as_str(), problem.message.as_str()), ("TOML", "duplicate key"));
    assert!(problem.help.as_ref().unwrap().contains("move all of it to one"), "{problem}");
    let twice = failure("[log]\nlevel = 'info'\n[log]\n").problems()[0].clone();
    assert!(twice.help.as_ref().unwrap().contains("begins with [[name]]"), "{twice}");
}

/// R2.1-1: both addresses are named, and who binds the other one.
#[test]
fn a_clash_names_both_addresses_and_the_holder() {
    let admin = only(&file("[admin]\nlisten = '127.0.0.1:80'", "", "", ""));
    let words = "0.0.0.0:80 overlaps 127.0.0.1:80, which the admin listener binds";
    assert_eq!((admin.message.as_str(), admin.row), (words, Some("R2.1-1")));
    let balancers = "[[loadbalancer]]\nname = 'one'\nvip_address = '127.0.0.1'\n\
                     [[loadbalancer]]\nname = 'all'\nvip_address = '0.0.0.0'\n";
    let other = |of: &str| {
        format!(
            "loadbalancer = 'one'\n[[listener]]\nname = 'other'\nprotocol = 'HTTP'\n\
             protocol_port = 80\ndefault_pool = 'app'\nloadbalancer = '{of}'\n"
        )
    };
    let message = |of: &str| only(&file(balancers, &other(of), "", "")).message;
    assert_eq!(message("all"), "0.0.0.0:80 overlaps 127.0.0.1:80, which listener \"web\" binds");
    assert_eq!(message("one"), "127.0.0.1:80 is bound by listener \"web\" already");
}
