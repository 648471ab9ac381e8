#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! Files as they come: included, missing, unreadable, truncated, binary, huge, many.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use weir_core::config::{Failure, Loaded, load, parse};
use weir_core::time::clock;

/// A folder with files of these names and texts.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn loaded(folder: &TempDir) -> Loaded {
    load(&folder.path().join("weir.toml")).unwrap_or_else(|failure| panic!("{failure}"))
}

fn refused(folder: &TempDir) -> Failure {
    load(&folder.path().join("weir.toml")).expect_err("the files are wrong, yet they were taken")
}

/// `(file, line, key)` of every error, files without their folder.
fn places(folder: &TempDir, failure: &Failure) -> Vec<(String, usize, String)> {
    failure
        .problems()
        .iter()
        .map(|problem| {
            let file = Path::new(&problem.file).strip_prefix(folder.path()).unwrap();
            (file.display().to_string(), problem.line, problem.key.clone())
        })
        .collect()
}

fn place(file: &str, line: usize, key: &str) -> (String, usize, String) {
    (file.to_owned(), line, key.to_owned())
}

const LISTENER: &str =
    "[[listener]]\nname='web'\nprotocol='HTTP'\nprotocol_port=80\ndefault_pool='app'\n";
const POOL: &str = "[[pool]]\nname='app'\nprotocol='HTTP'\nmembers=[{address='10.0.0.1',\
    protocol_port=1}]\n";

#[test]
fn included_files_are_one_name_space() {
    let folder = folder(&[
        ("weir.toml", &format!("include = ['conf.d/*.toml', 'extra/pools.toml']\n{LISTENER}")),
        ("conf.d/b.toml", "version = 1\n[admin]\nlisten='127.0.0.1:0'\n"),
        ("conf.d/a.toml", "include = '../extra/more.toml'\n[log]\nlevel='debug'\n"),
        ("conf.d/.hidden.toml", "nonsense"),
        ("conf.d/readme.txt", "nonsense"),
        ("extra/more.toml", "[runtime]\nbacklog = 7\n"),
        ("extra/pools.toml", POOL),
    ]);
    let loaded = loaded(&folder);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.listeners[0].default_pool, Some(0));
    assert_eq!((loaded.config.runtime.backlog, loaded.config.admin.is_some()), (7, true));
    let files: Vec<_> = loaded
        .files
        .iter()
        .map(|file| file.canonicalize().unwrap())
        .map(|file| file.strip_prefix(folder.path().canonicalize().unwrap()).unwrap().to_owned())
        .collect();
    let expected =
        ["weir.toml", "conf.d/a.toml", "extra/more.toml", "conf.d/b.toml", "extra/pools.toml"];
    assert_eq!(files, expected.map(PathBuf::from));
}

#[test]
fn errors_name_the_file_and_the_second_place() {
    let folder = folder(&[
        ("weir.toml", &format!("include = ['b.toml', 'c.toml']\n[log]\n{LISTENER}{POOL}")),
        ("b.toml", &format!("[log]\nlevel='x'\n{POOL}")),
        (
            "c.toml",
            "[[listener]]\nname='x'\nprotocol='HTTP'\nprotocol_port=80\ndefault_pool='ap'\n",
        ),
    ]);
    let failure = refused(&folder);
    let expected = [
        place("b.toml", 1, "log"),
        place("b.toml", 2, "log.level"),
        place("b.toml", 4, "pool[0].name"),
        place("c.toml", 4, "listener[0].protocol_port"),
        place("c.toml", 5, "listener[0].default_pool"),
    ];
    assert_eq!(places(&folder, &failure), expected, "{failure}");
    let text = failure.to_string();
    let main = folder.path().join("weir.toml").display().to_string();
    assert!(text.contains(&format!("the first one: {main}:2:1")), "{text}");
    assert!(text.contains(&format!("the earlier one: {main}:9:6")), "{text}");
    assert!(text.contains(&format!("bound here: {main}:6:15")), "{text}");
    assert!(text.contains("b.toml:2:7") && text.contains("level='x'"), "{text}");
}

#[test]
fn includes_that_cannot_be_read_are_errors_in_their_place() {
    let folder = folder(&[
        (
            "weir.toml",
            "include = [\n  'none.toml',\n  'sub',\n  'latin.toml',\n  7,\n  'a/**/b',\n]\n\
            [[listener]]\nname='l'\nprotocol='HTTP'\nprotocol_port=0\ndefault_pool='far'\n",
        ),
        ("sub/x", ""),
    ]);
    fs::write(folder.path().join("latin.toml"), b"version = 1\n# caf\xe9\n").unwrap();
    let failure = refused(&folder);
    let found = places(&folder, &failure);
    let expected = [
        place("latin.toml", 2, ""),
        place("weir.toml", 2, "include[0]"),
        place("weir.toml", 3, "include[1]"),
        place("weir.toml", 5, "include[3]"),
        place("weir.toml", 6, "include[4]"),
    ];
    assert_eq!(found, expected, "{failure}");
    assert!(failure.problems()[0].message.contains("is not UTF-8"));
    // What nobody defines may stand in a file that was not read.
    assert!(!failure.to_string().contains("far"), "{failure}");
}

/// Certificates and keys that can't be read are mistakes like all others, where they are named.
#[test]
fn certificates_that_cannot_be_read_are_errors_in_their_place() {
    let text = "[[certificate]]\nname='a'\ncertificate='a.pem'\nprivate_key='none.key'\n\
                [[certificate]]\nname='b'\ntype='client'\ncertificate='sub'\n\
                [[certificate]]\nname='c'\ncertificate='a.pem'\nprivate_key='a.pem'\n";
    let folder = folder(&[("weir.toml", text), ("a.pem", ""), ("sub/x", "")]);
    let failure = refused(&folder);
    let unread = failure.problems().iter().filter(|p| p.message.contains("can't be read"));
    let lines: Vec<usize> = unread.map(|p| p.line).collect();
    assert_eq!(lines, [4, 8], "{failure}");
    assert!(failure.to_string().contains("it is no plain file"), "{failure}");
}

#[test]
fn a_pattern_without_a_match_is_a_warning() {
    let folder = folder(&[("weir.toml", &format!("include = ['no.d/*.toml']\n{LISTENER}{POOL}"))]);
    let loaded = loaded(&folder);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert_eq!((loaded.warnings[0].line, loaded.warnings[0].key.as_str()), (1, "include[0]"));
}

#[test]
fn files_that_include_each_other_are_refused() {
    let folder = folder(&[
        ("weir.toml", "include = ['a.toml']\n"),
        ("a.toml", "include = ['b.toml']\n"),
        ("b.toml", "\ninclude = ['./a.toml']\n"),
    ]);
    let failure = refused(&folder);
    assert_eq!(places(&folder, &failure), [place("b.toml", 2, "include[0]")], "{failure}");
    assert!(failure.to_string().contains("would never end"));
    let itself = self::folder(&[("weir.toml", "include = ['weir.toml']\n")]);
    assert!(refused(&itself).to_string().contains("would never end"));
    // A pattern over the own folder finds the file itself, which is no mistake.
    let own = self::folder(&[
        ("weir.toml", &format!("include = ['*.toml', 'pool.toml']\n{LISTENER}")),
        ("pool.toml", POOL),
    ]);
    assert_eq!(loaded(&own).files.len(), 2);
}

#[test]
fn depth_and_size_are_bounded() {
    let chain: Vec<(String, String)> = (0..20)
        .map(|n| (format!("{n}.toml"), format!("include = ['{}.toml']\n", n + 1)))
        .chain([("20.toml".to_owned(), String::new())])
        .chain([("weir.toml".to_owned(), "include = ['0.toml']\n".to_owned())])
        .collect();
    let files: Vec<_> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let deep = folder(&files);
    assert!(refused(&deep).to_string().contains("more than 8 deep"));
    let large = folder(&[("weir.toml", "include = ['a.toml', 'b.toml']\n")]);
    for name in ["a.toml", "b.toml"] {
        fs::write(large.path().join(name), "#".repeat(9 * 1024 * 1024)).unwrap();
    }
    let failure = refused(&large);
    assert_eq!(places(&large, &failure), [place("weir.toml", 1, "include[1]")]);
    assert!(failure.to_string().contains("larger than 16 MiB"), "{failure}");
}

/// A syntax error hides the rest of its own file and nothing of others.
#[test]
fn a_syntax_error_hides_its_own_file_only() {
    let folder = folder(&[
        ("weir.toml", &format!("include = 'b.toml'\n{LISTENER}member_timeout = 301\n")),
        ("b.toml", "[[pool]\nname='app'\n"),
    ]);
    let failure = refused(&folder);
    let found = places(&folder, &failure);
    assert!(found.contains(&place("weir.toml", 7, "listener[0].member_timeout")), "{failure}");
    assert!(found.iter().all(|(file, _, key)| file != "b.toml" || key == "TOML"), "{failure}");
    assert!(!failure.to_string().contains("no [[pool]]"), "{failure}");
}

#[test]
fn a_text_without_a_file_includes_nothing() {
    let failure = parse("include = ['*.toml']\n", "f").unwrap_err();
    assert_eq!(failure.problems()[0].key, "include");
    assert!(parse("include = []\n", "f").is_ok());
}

#[test]
fn empty_truncated_and_binary_files_are_answered() {
    let empty = folder(&[("weir.toml", "")]);
    assert!(loaded(&empty).warnings[0].message.contains("nothing is served"));
    let whole = format!("{LISTENER}{POOL}");
    let mut refusals = 0;
    for length in 0..whole.len() {
        let failure = parse(&whole[..length], "f").err();
        refusals += usize::from(failure.is_some());
    }
    assert!(refusals > whole.len() / 2, "{refusals} of {}", whole.len());
    let truncated = folder(&[("weir.toml", &whole[..whole.len() - 4])]);
    assert_eq!(refused(&truncated).problems()[0].key, "TOML");
    let binary = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    fs::write(binary.path().join("weir.toml"), bytes).unwrap();
    assert!(refused(&binary).to_string().contains("is not UTF-8"));
    let zeros = folder(&[("weir.toml", &"\0".repeat(1_000))]);
    assert_eq!(refused(&zeros).problems()[0].key, "TOML");
}

/// One mistake is told once, however often the parser stumbles over it.
#[test]
fn brackets_that_nobody_closed_are_one_error() {
    let deep = format!("version = 1\nx = {}\n", "[".repeat(1_000));
    let failure = refused(&folder(&[("weir.toml", &deep)]));
    assert!(failure.problems().len() <= 2, "{failure}");
}

#[test]
fn a_huge_file_is_refused_unread() {
    let folder = folder(&[("weir.toml", "include = 'huge.toml'\n")]);
    let huge = fs::File::create(folder.path().join("huge.toml")).unwrap();
    huge.set_len(50 * 1024 * 1024).unwrap();
    let failure = load(&folder.path().join("huge.toml")).unwrap_err();
    assert!(failure.problems()[0].message.contains("larger than 16 MiB"), "{failure}");
    let failure = refused(&folder);
    assert_eq!(places(&folder, &failure), [place("weir.toml", 1, "include[0]")], "{failure}");
}

/// R2.1-1, R2.1-4, R3.17-1, R6.1-M4, R6.7-4, R6.8-3, R8.1-15 and five of the format's own.
#[test]
fn twelve_mistakes_are_twelve_errors() {
    let text = "\
version = 1
[runtime]
backlog = 0
colour = 'red'
[[loadbalancer]]
name = 's'
flavor = 'shared'
vip_address = '::1'
[[listener]]
name = 'web'
loadbalancer = 's'
protocol = 'HTTP'
protocol_port = 80
default_pool = 'app'
keepalive_timeout = 4001
[[listener]]
name = 'two'
loadbalancer = 's'
protocol = 'HTTP'
protocol_port = 80
default_pool = 'streams'
[[pool]]
name = 'app'
protocol = 'HTTP'
lb_algorithm = 'LEAST_CONECTIONS'
members = [
  { address = 'db.example', protocol_port = 1 },
  { address = '10.0.0.1', protocol_port = 1, weight = 101 },
  { address = '10.0.0.2' },
]
healthmonitor = { type = 'HTTP', url_path = 'http://a/b' }
[[pool]]
name = 'streams'
protocol = 'TCP'
lb_algorithm = 'LEAST_CONNECTIONS'
session_persistence = { type = 'SOURCE_IP' }
";
    let failure = parse(text, "f").unwrap_err();
    let wrong: Vec<_> = failure
        .into_iter()
        .filter(|problem| !problem.message.contains("is not supported yet"))
        .map(|problem| (problem.line, problem.row.unwrap_or("-")))
        .collect();
    let expected = [
        (3, "-"),
        (4, "-"),
        (8, "R3.17-1"),
        (15, "R6.7-4"),
        (20, "R2.1-1"),
        (21, "R6.8-3"),
        (25, "R4.3-5"),
        (27, "-"),
        (28, "R2.1-4"),
        (29, "R3.10-1"),
        (31, "R8.1-15"),
        (36, "R6.1-M4"),
    ];
    assert_eq!(wrong, expected, "{failure}");
    assert!(failure.into_iter().all(|problem| problem.help.is_some()), "{failure}");
}

/// A configuration of the size that a large installation has.
fn large(listeners: usize, members: usize) -> String {
    let mut text = String::new();
    let each = members / listeners;
    for n in 0..listeners {
        text += &format!(
            "[[listener]]\nname='l{n}'\nprotocol='HTTP'\nprotocol_port={}\ndefault_pool='p{n}'\n\
             [[pool]]\nname='p{n}'\nprotocol='HTTP'\n\
             healthmonitor={{type='HTTP',url_path='/up'}}\n",
            n + 1
        );
        for member in 0..each {
            let [_, a, b, c] = u32::try_from(n * each + member).unwrap().to_be_bytes();
            text += &format!(
                "[[pool.members]]\nname='m{member}'\naddress='10.{a}.{b}.{c}'\nprotocol_port=80\n"
            );
        }
    }
    text
}

/// 1,000 listeners and 10,000 members: the figure is for a release build; the bound here is wide
/// enough for a debug build on a busy machine, and catches what grows with the square.
#[test]
fn a_large_installation_is_checked_quickly() {
    let folder = folder(&[("weir.toml", &large(1_000, 10_000))]);
    let start = clock::mono();
    let loaded = loaded(&folder);
    let took = clock::mono().since(start);
    println!("1,000 listeners and 10,000 members: {took:?}");
    assert_eq!(loaded.config.listeners.len(), 1_000);
    assert_eq!(loaded.config.pools.iter().map(|pool| pool.members.len()).sum::<usize>(), 10_000);
    assert!(took.as_secs() < 20, "{took:?}");
}

/// The same when every line of it is wrong.
#[test]
fn a_large_broken_installation_is_checked_quickly() {
    let text = large(1_000, 10_000)
        .replace("default_pool='p", "default_pool='x")
        .replace("protocol_port=80\n[", "protocol_port=0\n[")
        .replace("name='m", "nmae='m");
    let start = clock::mono();
    let failure = parse(&text, "f").unwrap_err();
    let took = clock::mono().since(start);
    println!("the same with {} errors: {took:?}", failure.problems().len() + failure.more());
    assert!(failure.problems().len() + failure.more() > 20_000);
    assert!(took.as_secs() < 60, "{took:?}");
}

/// A certificate for these names with its key, as a `[[certificate]]` with its text.
fn certificate(name: &str, names: &[&str], rsa: bool) -> String {
    let kind = if rsa { &rcgen::PKCS_RSA_SHA256 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
    let key = rcgen::KeyPair::generate_for(kind).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let pem = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
    format!(
        "[[certificate]]\nname='{name}'\ncertificate='''{pem}'''\nprivate_key='''{}'''\n",
        key.serialize_pem()
    )
}

/// R6.2-1, R12.3-2: what no client will ever get is told, where it is named.
#[test]
fn certificates_that_others_hide_are_warned_of() {
    let listener = "[[listener]]\nname='s'\nprotocol='HTTPS'\nprotocol_port=0\ndefault_pool='app'\n\
                    default_certificate='a'\nsni_certificates=['b', 'c', 'd']\n";
    let all = certificate("a", &["a.example", "b.example"], false)
        + &certificate("b", &["b.example"], false)
        + &certificate("c", &["b.example"], true)
        + &certificate("d", &["127.0.0.1"], false)
        + &certificate("e", &["e.example"], false);
    let folder = folder(&[("weir.toml", &format!("{listener}{POOL}{all}"))]);
    let loaded = loaded(&folder);
    let told = loaded.warnings.iter().map(|one| (one.line, one.column, one.message.as_str()));
    let told: Vec<_> = told.collect();
    let others = "is never shown: others before it have its names and the same kind of key";
    let (hidden, last) = told.split_at(2);
    assert_eq!(hidden, [(7, 19, others), (7, 29, "is never shown: it has no names")]);
    assert!(matches!(last, [(_, 1, "no listener shows this certificate")]), "{last:?}");
    let keys: Vec<_> = loaded.warnings.iter().map(|one| one.key.as_str()).collect();
    let sni = "listener[0].sni_certificates";
    assert_eq!(keys, [sni, sni, "certificate[4]"]);
    assert!(loaded.certificates.identity(3).is_some());
}

/// R12.3-5: what `cert` says stands at the key that it is about.
#[test]
fn mistakes_of_certificates_have_places() {
    let good = certificate("a", &["a.example"], false);
    let other = certificate("b", &["a.example"], false);
    let key = other.split_once("private_key=").unwrap().1;
    let text = format!("{}private_key={key}", good.split_once("private_key=").unwrap().0);
    let folder = folder(&[("weir.toml", &text)]);
    let failure = refused(&folder);
    assert_eq!(failure.problems().len(), 1, "{failure}");
    let problem = &failure.problems()[0];
    assert_eq!(
        (problem.key.as_str(), problem.row),
        ("certificate[0].private_key", Some("R12.3-5"))
    );
    assert!(problem.line > 3 && problem.column == 13, "{failure}");
    assert!(problem.message.starts_with("the text is not the key of"), "{failure}");
}
