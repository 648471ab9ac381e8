#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! Whatever stands in a file, the reader answers with a model or with problems inside the file; it
//! never panics, and every model that it gives keeps the model's promises.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use weir_core::config::parse;

/// The reference example with its lines for later, so that every section is reached.
static WHOLE: LazyLock<String> =
    LazyLock::new(|| include_str!("../../examples/reference.toml").replace("\n#- ", "\n"));

/// Pieces that a mutation may drop in: those that the reader treats specially.
const PIECES: &[&str] = &[
    "=",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "\"",
    "'",
    "\n",
    "\r\n",
    ".",
    ",",
    "#",
    "-",
    "0",
    "é",
    "\u{feff}",
    "\u{0}",
    "\u{1b}",
    "'''",
    "\"\"\"",
    "true",
    "nan",
    "1979-05-27",
    "0x",
    "[[pool]]\n",
    "[[pool.members]]\n",
    "[listener]\n",
    "[log]\n",
    "members = 1\n",
    "name = 'web'\n",
    "::",
    "99999999999999999999",
    "\\u0000",
    "a.b.c = 1\n",
    "[listener.x]\n",
    "[[l7policy]]\n",
    "[[certificate]]\n",
    "[[ipgroup]]\n",
    "[[loadbalancer]]\n",
    "[pool.healthmonitor]\n",
    "flavor = 'shared'\n",
    "protocol = 'UDP'\n",
    "protocol = 'TCP'\n",
    "include = ['*']\n",
    "rules = [{}]\n",
    "ip_list = [{}]\n",
    "port_ranges = ['1-65535']\n",
    "cores = [0]\n",
    "access_log = {}\n",
    "redirect_pools = [{}]\n",
    "= []\n",
    "= {}\n",
    "= false\n",
    "= ''\n",
];

/// Every problem lies inside the text, in order, and can be shown without harm.
fn check(text: &str) {
    match parse(text, "f") {
        Ok(loaded) => {
            let config = loaded.config;
            assert!(!config.balancers.is_empty());
            for listener in &config.listeners {
                assert!(listener.balancer < config.balancers.len());
                assert!(listener.default_pool.is_none_or(|pool| pool < config.pools.len()));
                assert!((1..=300).contains(&listener.member_timeout.as_secs()));
            }
            for member in config.pools.iter().flat_map(|pool| &pool.members) {
                assert!(member.address.port() > 0 && member.weight <= 100);
            }
        }
        Err(failure) => {
            let lines = text.split('\n').count();
            let mut last = (0, 0);
            assert!(!failure.problems().is_empty());
            for problem in &failure {
                assert!((1..=lines).contains(&problem.line), "{problem}");
                assert!(problem.column >= 1 && (problem.line, problem.column) >= last);
                last = (problem.line, problem.column);
            }
            let harmful = |char: char| char.is_control() && !matches!(char, '\n' | '\t');
            assert!(!failure.to_string().contains(harmful), "{failure}");
        }
    }
}

fn settings() -> ProptestConfig {
    ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_pieces_never_panic(
        pieces in proptest::collection::vec(select(PIECES), 0..60),
    ) {
        check(&pieces.concat());
    }

    #[test]
    fn mutations_of_a_valid_file_never_panic(
        cuts in proptest::collection::vec((any::<Index>(), 0_usize..12, select(PIECES)), 1..6),
    ) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, length, piece) in cuts {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, piece.chars());
        }
        check(&text.into_iter().collect::<String>());
    }

    #[test]
    fn lines_in_any_order_never_panic(
        lines in proptest::collection::vec(any::<Index>(), 0..40),
    ) {
        let all: Vec<&str> = WHOLE.lines().collect();
        let text: Vec<&str> = lines.iter().map(|line| *line.get(&all)).collect();
        check(&text.join("\n"));
    }
}

#[test]
fn deep_and_long_files_are_answered() {
    const MANY: usize = 100_000;
    check(&"[".repeat(MANY));
    check(&format!("a = {}", "[".repeat(MANY)));
    check(&format!("a = {}", "{a=".repeat(MANY)));
    check(&"a.".repeat(MANY));
    check(&format!("{}a = 1", "a.".repeat(MANY)));
    check(&format!("[{}a]", "a.".repeat(MANY)));
    check(&"x".repeat(MANY));
    check(&"x = 1\n".repeat(20_000));
    check(&(0..10_000).map(|n| format!("k{n} = 1\n")).collect::<String>());
    check(&"[[pool]]\n".repeat(20_000));
    check(&"[[listener]]\nprotocol_port = 80\n".repeat(10_000));
    check(&"[[listener]]\nprotocol='TCP'\nport_ranges=['1-9','20-65535']\n".repeat(10_000));
    check(&"[[l7policy]]\nname='a'\nlistener='b'\npriority=1\n".repeat(10_000));
    let twins = "[[l7policy]]\nname='a'\nlistener='l'\npriority=1\n".repeat(10_000);
    check(&format!("[[listener]]\nname='l'\nprotocol='HTTP'\nprotocol_port=1\n{twins}"));
    check(&(0..10_000).map(|n| format!("[[ipgroup]]\nname='g{n}'\n")).collect::<String>());
    let networks = "'10.0.0.0/8',".repeat(20_000);
    check(&format!("[[ipgroup]]\nname='g'\nip_list=[{networks}]\n"));
    let references: String = (0..10_000)
        .map(|n| format!("[[listener]]\nname='l{n}'\ndefault_pool='x{n}'\nprotocol='HTTP'\n"))
        .chain((0..10_000).map(|n| format!("[[pool]]\nname='p{n}'\nprotocol='HTTP'\n")))
        .collect();
    check(&references);
}

#[test]
fn a_large_valid_file_is_read() {
    let mut text = "[[pool]]\nname='p'\nprotocol='HTTP'\nmembers=[\n".to_owned();
    for n in 0..20_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        text += &format!("{{address='10.{a}.{b}.{c}', protocol_port=80}},\n");
    }
    text += "]\n";
    let loaded = parse(&text, "f").unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(loaded.config.pools[0].members.len(), 20_000);
}

#[test]
fn a_text_over_the_limit_is_refused_unread() {
    let failure = parse(&"#".repeat(16 * 1024 * 1024 + 1), "f").unwrap_err();
    assert!(failure.problems()[0].message.contains("larger than 16 MiB"));
    assert!(parse(&"#".repeat(16 * 1024 * 1024), "f").is_ok());
}
