#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! Keys, sections and values that the format names and this version can't honour yet: each is
//! refused by name, with its place; none is ignored.

use weir_core::config::parse;

const RUNTIME: &str = "[runtime]\n";
const LISTENER: &str = "[[listener]]\nname='web'\nprotocol='HTTP'\nprotocol_port=80\n";
const POOL: &str = "[[pool]]\nname='app'\nprotocol='HTTP'\n";
const BALANCER: &str = "[[loadbalancer]]\nname='front'\n";

/// Lines of keys that come later, below the section that they stand in. The values are those of
/// the format's own sample, mostly the defaults: they are refused all the same.
const KEYS: &[(&str, &str, &[&str])] = &[
    ("", "", &["include = []", "include = [\"conf.d/*.toml\"]"]),
    (
        RUNTIME,
        "runtime.",
        &[
            "smt = \"all\"",
            "control_core = \"none\"",
            "numa_node = \"any\"",
            "spin = \"0us\"",
            "max_connections = 0",
            "source_addresses = []",
            "tcp_keepalive = { idle = 60, interval = 10, count = 6 }",
        ],
    ),
    (
        BALANCER,
        "loadbalancer[0].",
        &[
            "spec = [\"network\", \"application\"]",
            "network = []",
            "ip_target_enable = true",
            "passthrough_fallback = \"error\"",
            "source_addresses = []",
            "cores = \"0-1\"",
        ],
    ),
    (
        LISTENER,
        "listener[0].",
        &[
            "port_ranges = [\"3000-3010\"]",
            "tunnel_timeout = 60",
            "enable_member_retry = true",
            "max_attempts = 3",
            "retry_non_idempotent = false",
            "max_header_bytes = 65536",
            "max_headers = 1000",
            "max_uri_bytes = 16384",
            "max_body_bytes = 10737418240",
            "connection = 0",
            "cps = 0",
            "connections_per_source = 0",
            "trusted_proxies = []",
            "insert_headers = { \"X-Forwarded-Port\" = true, \"X-Real-IP\" = true }",
            "ipgroup = { name = [\"office\"], type = \"white\", enable = true }",
            "server_timing = false",
            "proxy_protocol = { accept = false, from = [] }",
            "transparent_client_ip_enable = false",
            "access_log = true",
            "default_certificate = \"site\"",
            "sni_certificates = [\"shop\", \"wild\"]",
            "client_ca = \"corp-ca\"",
            "sni_match_algo = \"wildcard\"",
            "tls_ciphers_policy = \"tls-1-2-fs-with-1-3\"",
            "tls_handshake_timeout = 10",
            "ssl_early_data_enable = false",
            "ticket_keys = \"\"",
            "http2_enable = true",
        ],
    ),
    (
        POOL,
        "pool[0].",
        &[
            "quic_cid_hash_strategy = { len = 3, offset = 1 }",
            "slow_start = { enable = false, duration = 30 }",
            "session_persistence = { type = \"HTTP_COOKIE\", persistence_timeout = 20 }",
            "connection_drain = { enable = false, timeout = 300 }",
            "pool_health = { minimum_healthy_member_count = 0 }",
            "outlier_detection = { enable = false, consecutive_failures = 5 }",
            "member_max_connections = 0",
            "queue_timeout = \"1s\"",
            "proxy_protocol = \"none\"",
            "tls = { verify = false, ca = \"\", server_name = \"\" }",
        ],
    ),
];

/// Sections that come later, with all keys that they will have, and the key that the error names.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("", "[log]\npath = \"-\"\nlevel = \"info\"\nformat = \"text\"", "log"),
    (
        "",
        "[compat]\npool_per_policy = \"single\"\npolicy_conflict = \"sticky\"\n\
         l7_ipv6_members = false",
        "compat",
    ),
    ("", "[access_log]\npath = \"/var/log/weir/access.log\"\nformat = \"elb\"", "access_log"),
    ("", "[connection_log]\npath = \"/var/log/weir/connection.log\"", "connection_log"),
    (
        POOL,
        "[pool.healthmonitor]\ntype = \"HTTP\"\ndelay = 5\ntimeout = 3\nmax_retries = 3\n\
         max_retries_down = 3\nurl_path = \"/\"\nhttp_method = \"GET\"\nexpected_codes = \"200\"\n\
         domain_name = \"\"\nmonitor_port = 0",
        "pool[0].healthmonitor",
    ),
    (
        "",
        "[[l7policy]]\nname = \"api\"\nlistener = \"web\"\npriority = 10\nrules = []\n\
         action = \"REDIRECT_TO_POOL\"\nredirect_pool = \"api\"\nredirect_pools = []\n\
         redirect_listener = \"secure\"\nredirect_url_config = {}\nfixed_response_config = {}",
        "l7policy[0]",
    ),
    (
        "",
        "[[certificate]]\nname = \"site\"\ntype = \"server\"\ncertificate = \"site.pem\"\n\
         private_key = \"site.key\"\ndomain = \"\"\nocsp_response = \"\"",
        "certificate[0]",
    ),
    ("", "[[ipgroup]]\nname = \"office\"\nip_list = [\"10.0.0.0/8\"]", "ipgroup[0]"),
];

fn assert_refused(prelude: &str, line: &str, key: &str) {
    let failure = parse(&format!("{prelude}{line}\n"), "f").expect_err(line);
    assert_eq!(failure.problems().len(), 1, "{line}: {failure}");
    let problem = &failure.problems()[0];
    assert_eq!(problem.key, key, "{failure}");
    assert!(problem.message.contains("not supported yet"), "{failure}");
    assert_eq!((problem.line, problem.column), (1 + prelude.lines().count(), 1), "{failure}");
    assert!(problem.help.is_some(), "{failure}");
}

#[test]
fn keys_that_come_later_are_refused_by_name() {
    for (prelude, path, lines) in KEYS {
        for line in *lines {
            let key = line.split(' ').next().unwrap();
            assert_refused(prelude, line, &format!("{path}{key}"));
        }
    }
}

#[test]
fn sections_that_come_later_are_refused_by_name() {
    for (prelude, lines, key) in SECTIONS {
        assert_refused(prelude, lines, key);
    }
}

#[test]
fn a_section_that_comes_later_is_refused_in_any_form() {
    for (line, column) in [("healthmonitor = { type = \"TCP\" }", 17), ("healthmonitor = 1", 1)] {
        let failure = parse(&format!("{POOL}{line}\n"), "f").unwrap_err();
        let problem = &failure.problems()[0];
        assert_eq!((problem.line, problem.column), (4, column), "{failure}");
        assert!(problem.message.contains("not supported yet"), "{failure}");
    }
}

#[test]
fn each_section_that_repeats_is_refused_each_time() {
    let text = "[[l7policy]]\nname='a'\n[[l7policy]]\nnmae='b'\n[[l7policy]]\n";
    let failure = parse(text, "f").unwrap_err();
    let found: Vec<_> = failure.problems().iter().map(|p| (p.line, p.key.as_str())).collect();
    let expected =
        [(1, "l7policy[0]"), (3, "l7policy[1]"), (4, "l7policy[1].nmae"), (5, "l7policy[2]")];
    assert_eq!(found, expected);
    assert_eq!(failure.problems()[2].help.as_deref(), Some("did you mean `name`?"));
}

#[test]
fn values_that_come_later_are_refused_by_name() {
    // R6.8-1, R6.8-2, R6.8-4, R6.8-6
    let listeners = ["TCP", "UDP", "HTTPS"].map(|word| {
        (LISTENER.replace("'HTTP'", &format!("'{word}'")), "listener[0].protocol", word, 3)
    });
    let pools = ["TCP", "UDP", "QUIC", "HTTPS", "GRPC"]
        .map(|word| (POOL.replace("'HTTP'", &format!("'{word}'")), "pool[0].protocol", word, 3));
    let algorithms = ["LEAST_CONNECTIONS", "SOURCE_IP", "QUIC_CID"]
        .map(|word| (format!("{POOL}lb_algorithm='{word}'"), "pool[0].lb_algorithm", word, 4));
    for (text, key, word, line) in listeners.into_iter().chain(pools).chain(algorithms) {
        let failure = parse(&text, "f").unwrap_err();
        assert_eq!(failure.problems().len(), 1, "{failure}");
        let problem = &failure.problems()[0];
        assert_eq!((problem.key.as_str(), problem.line), (key, line), "{failure}");
        assert_eq!(problem.message, format!("\"{word}\" is not supported yet"));
        assert!(problem.row.is_some() && problem.help.is_some(), "{failure}");
    }
}
