#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! What valid configuration files become: the model, its defaults, bounds, ids and warnings.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_core::config::{Loaded, Severity, load, parse, reference_markdown};
use weir_core::model::{CoreChoice, Flavor, Listener};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn parsed(text: &str) -> Loaded {
    parse(text, "f").unwrap_or_else(|failure| panic!("{failure}"))
}

fn with_listener(line: &str) -> String {
    format!("[[listener]]\nname='web'\nprotocol='HTTP'\nprotocol_port=80\n{line}\n")
}

fn with_member(line: &str) -> String {
    format!(
        "[[pool]]\nname='app'\nprotocol='HTTP'\n\
         [[pool.members]]\naddress='127.0.0.1'\nprotocol_port=9001\n{line}\n"
    )
}

#[test]
fn the_examples_are_valid_and_without_warnings() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(repository("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let loaded = load(&path).unwrap_or_else(|failure| panic!("{failure}"));
            // Whoever checks the project out may read its examples' keys, which are no secret.
            let open = "can be read by every user of this host";
            let mut warnings = loaded.warnings.iter();
            assert!(warnings.all(|one| one.message.ends_with(open)), "{:?}", loaded.warnings);
            seen.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    for name in ["minimal.toml", "reference.toml", "dedicated.toml", "shared.toml"] {
        assert!(seen.iter().any(|file| file == name), "{name} is missing in {seen:?}");
    }
}

#[test]
fn the_reference_example_has_every_key() {
    let text = std::fs::read_to_string(repository("examples/reference.toml")).unwrap();
    let mut keys = 0;
    for row in reference_markdown().lines().filter_map(|line| line.strip_prefix("| `")) {
        let key = row.split('`').next().unwrap();
        assert!(text.contains(&format!("{key} = ")), "{key} is missing in reference.toml");
        keys += 1;
    }
    assert!(keys >= 150, "the reference page lists only {keys} keys");
}

/// What stands behind `#-` in the reference example is right but for not being supported.
#[test]
fn the_reference_example_is_right_in_its_other_lines_too() {
    let text = std::fs::read_to_string(repository("examples/reference.toml")).unwrap();
    let whole: String = text
        .lines()
        .map(|line| match line.strip_prefix("#- ") {
            Some(rest) => {
                assert!(rest.contains("# not supported yet"), "{line}");
                format!("{rest}\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    let failure = parse(&whole, "f").unwrap_err();
    for problem in &failure {
        assert!(problem.message.contains("is not supported yet"), "{problem}");
    }
    assert!(!failure.problems().is_empty(), "{failure}");
}

#[test]
fn the_reference_example_states_the_defaults() {
    let reference = load(&repository("examples/reference.toml")).unwrap().config;
    let plain = parsed(&with_listener("")).config;
    assert_eq!(reference.runtime, plain.runtime);
    let (a, b) = (&reference.listeners[0], &plain.listeners[0]);
    assert_eq!(a.keepalive_timeout, b.keepalive_timeout);
    assert_eq!(a.client_timeout, b.client_timeout);
    assert_eq!(a.member_timeout, b.member_timeout);
    assert_eq!(a.connect_timeout, b.connect_timeout);
    let caps = |l: &Listener| (l.connection, l.cps, l.connections_per_source);
    assert_eq!(caps(a), caps(b));
    assert_eq!(reference.balancers[0].vip_address, plain.balancers[0].vip_address);
    assert_eq!(reference.admin, parsed("[admin]").config.admin);
}

#[test]
fn the_committed_reference_page_is_the_generated_one() {
    let path = repository("docs/configuration.md");
    let page = reference_markdown();
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/configuration.md is stale: run this test with WEIR_BLESS=1");
}

#[test]
fn defaults_are_those_of_the_requirements() {
    // R6.7-4, R6.7-5, R6.7-6, R6.7-7
    let Loaded { config, .. } = parsed(&(with_listener("") + &with_member("")));
    let seconds = Duration::from_secs;
    let listener = &config.listeners[0];
    assert_eq!(listener.keepalive_timeout, seconds(60));
    assert_eq!(listener.client_timeout, seconds(60));
    assert_eq!(listener.member_timeout, seconds(60));
    assert_eq!(listener.connect_timeout, seconds(5));
    assert_eq!((listener.tunnel_timeout, listener.default_pool), (None, None));
    assert_eq!(listener.upgrade_protocols, ["websocket"]);
    assert_eq!(config.runtime.cores, CoreChoice::Auto);
    assert_eq!(config.runtime.backlog, 4096);
    assert_eq!(config.runtime.shutdown_timeout, seconds(30));
    assert_eq!(config.runtime.run_dir, Path::new("/run/weir"));
    assert_eq!(config.admin, None);
    let balancer = &config.balancers[listener.balancer];
    assert_eq!((balancer.name.as_str(), balancer.flavor), ("default", Flavor::Dedicated));
    let any: Vec<IpAddr> = vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
    assert_eq!(balancer.vip_address, any);
    let member = &config.pools[0].members[0];
    assert_eq!((member.weight, member.name.as_str()), (1, "127.0.0.1:9001"));
    assert_eq!(parsed("[admin]").config.admin.unwrap().listen.to_string(), "127.0.0.1:9180");
}

/// A file that gives one key a value.
fn file_with(section: &str, key: &str, value: u64) -> String {
    let line = format!("{key} = {value}");
    match (section, key) {
        ("runtime", _) => format!("[runtime]\n{line}\n"),
        ("listener", "protocol_port") => with_listener("").replace("protocol_port=80", &line),
        ("listener", _) => with_listener(&line),
        (_, "protocol_port") => with_member("").replace("protocol_port=9001", &line),
        _ => with_member(&line),
    }
}

#[test]
fn bounds_are_inclusive() {
    // R6.7-10, R6.7-4, R6.7-5, R6.7-6, R6.7-7, R2.1-4
    let cases = [
        ("listener", "keepalive_timeout", 0, 4000),
        ("listener", "client_timeout", 1, 300),
        ("listener", "member_timeout", 1, 300),
        ("listener", "connect_timeout", 1, 60),
        ("listener", "tunnel_timeout", 1, 86_400),
        ("listener", "protocol_port", 0, 65535),
        ("member", "protocol_port", 1, 65535),
        ("member", "weight", 0, 100),
        ("runtime", "backlog", 1, 65535),
        ("runtime", "shutdown_timeout", 0, 3600),
    ];
    for (section, key, low, high) in cases {
        for good in [low, high] {
            let text = file_with(section, key, good);
            assert!(parse(&text, "f").is_ok(), "{key} = {good} was refused");
        }
        for bad in [u64::checked_sub(low, 1), Some(high + 1)].into_iter().flatten() {
            let failure = parse(&file_with(section, key, bad), "f").expect_err(key);
            assert_eq!(failure.problems().len(), 1, "{failure}");
            assert!(failure.problems()[0].key.ends_with(key), "{failure}");
        }
    }
    let config = parsed(&with_listener("keepalive_timeout=0\nmember_timeout=300")).config;
    assert_eq!(config.listeners[0].keepalive_timeout, Duration::ZERO);
    assert_eq!(config.listeners[0].member_timeout, Duration::from_secs(300));
}

#[test]
fn ids_follow_from_kind_balancer_and_name_and_from_nothing_else() {
    let text = with_listener("default_pool='app'") + &with_member("name='a'");
    let (one, two) = (parsed(&text).config, parsed(&text).config);
    assert_eq!(one, two);
    // A timeout, a comment, another object and another order change no id.
    let other = parsed(&format!(
        "# other\n{}{}[[listener]]\nname='more'\nprotocol='HTTP'\nprotocol_port=81\n",
        with_member("name='a'\nweight=7"),
        with_listener("member_timeout=5"),
    ));
    assert_eq!(other.config.listeners[0].id, one.listeners[0].id);
    assert_eq!(other.config.pools[0].id, one.pools[0].id);
    assert_eq!(other.config.pools[0].members[0].id, one.pools[0].members[0].id);
    let ids = [
        one.balancers[0].id,
        one.listeners[0].id,
        one.pools[0].id,
        one.pools[0].members[0].id,
        other.config.listeners[1].id,
    ];
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id), "{id} twice");
    }
    let given = "01234567-89ab-cdef-0123-456789abcdef";
    let config = parsed(&with_listener(&format!("id='{given}'"))).config;
    assert_eq!(config.listeners[0].id.to_string(), given);
    let moved = format!("[[loadbalancer]]\nname='x'\n{}", with_listener("loadbalancer='x'"));
    assert_ne!(parsed(&moved).config.listeners[0].id, one.listeners[0].id);
}

#[test]
fn ipv6_addresses_are_taken_where_the_flavour_allows() {
    // R3.17-1, R3.17-2
    let text = |flavor: &str| {
        format!("[[loadbalancer]]\nname='x'\nflavor='{flavor}'\nvip_address='2001:db8::1'\n")
    };
    let config = parsed(&text("dedicated")).config;
    assert_eq!(config.balancers[0].vip_address, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
    let failure = parse(&text("shared"), "f").unwrap_err();
    assert_eq!(failure.problems()[0].row, Some("R3.17-1"));
    let admin = parsed("[admin]\nlisten='[::1]:0'").config.admin.unwrap();
    assert_eq!(admin.listen.to_string(), "[::1]:0");
    let shared = parsed("[[loadbalancer]]\nname='x'\nflavor='shared'\n").config;
    assert_eq!(shared.balancers[0].vip_address, ["0.0.0.0".parse::<IpAddr>().unwrap()]);
}

#[test]
fn members_are_tables_or_a_list() {
    // R3.10-1
    let tables = "[[pool]]\nname='p'\nprotocol='HTTP'\n\
        [[pool.members]]\nname='a'\naddress='127.0.0.1'\nprotocol_port=1\nweight=2\n\
        [[pool.members]]\nname='b'\naddress='127.0.0.1'\nprotocol_port=2\n";
    let list = "[[pool]]\nname='p'\nprotocol='HTTP'\nmembers=[\
        {name='a',address='127.0.0.1',protocol_port=1,weight=2},\
        {name='b',address='127.0.0.1',protocol_port=2}]\n";
    assert_eq!(parsed(tables).config, parsed(list).config);
    assert_eq!(parsed(list).config.pools[0].members.len(), 2);
}

#[test]
fn warnings_are_given_and_do_not_refuse() {
    let text = with_listener("loadbalancer='front'")
        + &with_member("weight=0")
        + "[[pool]]\nname='empty'\nprotocol='HTTP'\n\
           [[loadbalancer]]\nname='idle'\n[[loadbalancer]]\nname='front'\n";
    let loaded = parsed(&text);
    let found: Vec<_> =
        loaded.warnings.iter().map(|w| (w.line, w.key.as_str(), w.row.unwrap_or("-"))).collect();
    let expected = [
        (1, "listener[0].default_pool", "R2.3-404"),
        (6, "pool[0]", "-"),
        (6, "pool[0].members", "C18"),
        (12, "pool[0].members[0].weight", "R2.1-4"),
        (13, "pool[1]", "-"),
        (13, "pool[1].members", "C18"),
        (16, "loadbalancer[0]", "-"),
    ];
    assert_eq!(found, expected, "{:?}", loaded.warnings);
    assert!(loaded.warnings.iter().all(|warning| warning.severity == Severity::Warning));
    assert_eq!(
        loaded.warnings[0].headline(),
        "f:1:1: warning: listener[0].default_pool: no pool: requests are answered with 404 \
         [R2.3-404]"
    );
    assert!(parsed("").warnings[0].message.contains("nothing is served"));
}

/// Metrics that others can read are no mistake, but seldom meant.
#[test]
fn an_open_admin_listener_is_warned_of() {
    let warned = |listen: &str| {
        let text = with_listener("default_pool='app'") + &with_member("");
        let text = text + &format!("[admin]\nlisten='{listen}'\n");
        parsed(&text).warnings.iter().map(|w| w.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(warned("0.0.0.0:9180"), ["admin.listen"]);
    assert_eq!(warned("[::]:0"), ["admin.listen"]);
    assert!(warned("127.0.0.1:9180").is_empty() && warned("[::1]:9180").is_empty());
}

/// A member that is the listener would be asked for ever more; another one on its port is fine.
#[test]
fn a_member_that_is_its_listener_is_warned_of() {
    let warned = |vip: &str, address: &str, port: u16| {
        let text = format!(
            "[[loadbalancer]]\nname='b'\nvip_address='{vip}'\n[[listener]]\nname='web'\n\
             protocol='HTTP'\nprotocol_port=8080\nloadbalancer='b'\ndefault_pool='p'\n\
             [[pool]]\nname='p'\nprotocol='HTTP'\n\
             members=[{{address='{address}',protocol_port={port}}}]\n"
        );
        let warnings = parsed(&text).warnings;
        warnings.iter().map(|w| (w.key.clone(), w.message.clone())).collect::<Vec<_>>()
    };
    for (vip, address) in
        [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("10.0.0.1", "10.0.0.1")]
    {
        let told = warned(vip, address, 8080);
        assert_eq!(told.len(), 1, "{vip}: {told:?}");
        assert_eq!(told[0].0, "pool[0].members[0].address");
        assert!(told[0].1.contains("is the listener \"web\" itself"), "{told:?}");
    }
    assert_eq!(warned("0.0.0.0", "127.0.0.1", 8081), []);
    assert_eq!(warned("0.0.0.0", "10.0.0.1", 8080), []);
    assert_eq!(warned("127.0.0.1", "127.0.0.2", 8080), []);
    assert_eq!(warned("::", "127.0.0.1", 8080), []);
}

/// R3.17-3: at Layer 4 nobody of a family gets anywhere that no member has; `::` is bound unless
/// the balancer says its addresses.
#[test]
fn members_of_the_other_family_are_warned_of() {
    let warned = |protocol: &str, members: &str| {
        let text = format!(
            "[[listener]]\nname='l'\nprotocol='{protocol}'\nprotocol_port=80\ndefault_pool='p'\n\
             [[pool]]\nname='p'\nprotocol='{protocol}'\nmembers=[{members}]\n"
        );
        let warnings = parsed(&text).warnings;
        let ours = warnings.iter().filter(|w| w.row == Some("R3.17-3"));
        ours.map(|w| (w.key.clone(), w.message.clone())).collect::<Vec<_>>()
    };
    let v4 = "{address='10.0.0.1',protocol_port=1}";
    let v6 = "{address='fd00::1',protocol_port=1}";
    for protocol in ["TCP", "UDP"] {
        for (members, lost) in [(v4, "IPv6"), (v6, "IPv4")] {
            let told = warned(protocol, members);
            assert_eq!((told.len(), told[0].0.as_str()), (1, "listener[0].default_pool"));
            assert!(told[0].1.starts_with(&format!("clients of {lost} reach nobody")), "{told:?}");
        }
        assert!(warned(protocol, &format!("{v4},{v6}")).is_empty());
        assert!(warned(protocol, "").is_empty(), "an empty pool has its own warning");
    }
    assert!(warned("HTTP", v4).is_empty());
}

/// A list or a set of proxies that lets nobody in is said, since it looks like an outage.
#[test]
fn doors_that_are_shut_are_warned_of() {
    let warned = |keys: &str| {
        let text = with_listener(&format!("default_pool='app'\n{keys}"));
        let text = text + &with_member("") + "[[ipgroup]]\nname='none'\nip_list=[]\n";
        parsed(&text).warnings.iter().map(|w| w.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(warned("proxy_protocol={accept=true}"), ["listener[0].proxy_protocol.from"]);
    assert_eq!(warned("ipgroup={name=['none']}"), ["listener[0].ipgroup"]);
    for open in [
        "proxy_protocol={accept=true,from=['10.0.0.0/8']}",
        "ipgroup={name=['none'],enable=false}",
        "ipgroup={name=['none'],type='black'}",
    ] {
        assert!(warned(open).is_empty(), "{open}");
    }
}

#[test]
fn byte_order_marks_and_crlf_change_nothing() {
    let text = with_listener("default_pool='app'") + &with_member("");
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(parsed(&windows).config, parsed(&text).config);
}

#[test]
fn files_that_cannot_be_read_get_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let failure = load(path).unwrap_err();
        assert_eq!(failure.problems().len(), 1, "{failure}");
        let problem = failure.problems()[0].clone();
        let place = (problem.line, problem.column);
        let start = match place {
            (0, 0) => path.display().to_string(),
            (line, column) => format!("{}:{line}:{column}", path.display()),
        };
        assert!(problem.headline().starts_with(&format!("{start}: ")), "{problem}");
        assert!(problem.help.is_some());
        (place, problem.message)
    };
    let whole = |path: &Path, words: &str| {
        let (place, message) = refused(path);
        assert!(place == (0, 0) && message.contains(words), "{message}");
    };
    whole(&folder.path().join("none.toml"), "can't be read");
    whole(folder.path(), "not a regular file");
    // A pipe would keep whoever opens it waiting for a writer.
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    whole(&pipe, "not a regular file");
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"version = 1\n# caf\xe9\n").unwrap();
    assert_eq!(refused(&latin), ((2, 6), "this is not UTF-8 text".to_owned()));
    let huge = folder.path().join("huge.toml");
    std::fs::File::create(&huge).unwrap().set_len(1 << 32).unwrap();
    whole(&huge, "larger than 16 MiB");
    whole(Path::new("/dev/zero"), "not a regular file");
}
