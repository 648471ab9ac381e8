//! Certificates of a running `weir serve`: replaced while it runs, chosen by name, told about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::os::unix::fs::symlink;
use std::path::Path;

use process::certs::{Ca, Leaf, replace};
use process::{Member, Server, config, run, until, weir};

const NOT_AFTER: &str = "weir_certificate_not_after_timestamp_seconds{certificate=\"site\"}";
const STALE: &str = "weir_certificate_stale{certificate=\"site\"}";

/// A listener `secure` with the certificate `site` of this folder, beside the usual one.
fn with_tls(member: &Member, folder: &Path) -> String {
    let more = format!(
        r#"
[[listener]]
name = "secure"
loadbalancer = "front"
protocol = "HTTPS"
protocol_port = 0
default_pool = "app"
default_certificate = "site"
[[certificate]]
name = "site"
certificate = "{0}/site.pem"
private_key = "{0}/site.key"
"#,
        folder.display()
    );
    config("[0, 1]", 5, 0, &[(member.addr, 1)]) + &more
}

fn is_shown(server: &Server, leaf: &Leaf) -> bool {
    server.metric(NOT_AFTER) == leaf.not_after as f64
}

/// R12.4-1: files that change take effect without a reload; a pair is taken when both have come,
/// and what can't be used leaves the one before in place and is told once.
#[test]
fn files_that_change_take_effect_and_broken_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, member) = (Ca::new("ca"), Member::start("m"));
    let leaves: Vec<Leaf> = (1..=4).map(|n| ca.leaf(&["www.example.com"], n)).collect();
    let [certificate, key] = leaves[0].write(folder.path(), "site");
    let mut server = Server::start(&with_tls(&member, folder.path()));
    assert!(is_shown(&server, &leaves[0]), "{}", server.metrics());
    leaves[1].write(folder.path(), "site");
    until("the second one", || is_shown(&server, &leaves[1]));
    server.line_with("certificate site serial 01 → 02");
    // One file alone: nothing changes until the other one has come.
    replace(&certificate, &leaves[2].pem);
    let told = server.line_with("certificate site: stays as it was");
    assert!(told.contains("is not the key of"), "{told}");
    until("the metric", || server.metric(STALE) == 1.0);
    assert!(is_shown(&server, &leaves[1]));
    replace(&key, &leaves[2].key);
    server.line_with("certificate site: its files are in order again");
    until("the third one", || is_shown(&server, &leaves[2]));
    until("the metric", || server.metric(STALE) == 0.0);
    replace(&certificate, "nonsense");
    let told = server.line_with("certificate site: stays as it was");
    assert!(told.contains("holds no certificate"), "{told}");
    // The same trouble again is no news.
    replace(&certificate, "nonsense!");
    std::fs::remove_file(&key).unwrap();
    let told = server.line_with("certificate site: stays as it was");
    assert!(told.contains("site.key can't be read"), "{told}");
    // A reload of such files changes nothing either.
    let (code, _, err) = server.reload(&with_tls(&member, folder.path()));
    assert!(code == Some(1) && err.contains("holds no certificate"), "{err}");
    assert!(is_shown(&server, &leaves[2]));
    leaves[3].write(folder.path(), "site");
    until("the fourth one", || is_shown(&server, &leaves[3]));
}

/// R12.4-1: links that lead elsewhere, as certbot and Kubernetes replace certificates.
#[test]
fn links_that_lead_elsewhere_take_effect() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (ca, member) = (Ca::new("ca"), Member::start("m"));
    let leaves: Vec<Leaf> = (1..=3).map(|n| ca.leaf(&["www.example.com"], n)).collect();
    for (leaf, version) in leaves.iter().zip(["..1", "..2", "..3"]) {
        std::fs::create_dir(at.join(version)).unwrap();
        leaf.write(&at.join(version), "site");
    }
    symlink("..1", at.join("..data")).unwrap();
    for file in ["site.pem", "site.key"] {
        symlink(Path::new("..data").join(file), at.join(file)).unwrap();
    }
    let server = Server::start(&with_tls(&member, at));
    assert!(is_shown(&server, &leaves[0]));
    for (leaf, version) in leaves.iter().zip(["..1", "..2", "..3"]).skip(1) {
        symlink(version, at.join("..new")).unwrap();
        std::fs::rename(at.join("..new"), at.join("..data")).unwrap();
        until("the next one", || is_shown(&server, leaf));
    }
}

/// R12.4-1: a reload takes over what changed, says so, and warns of what will soon end.
#[test]
fn a_reload_says_what_changed() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (ca, member) = (Ca::new("ca"), Member::start("m"));
    let leaves = [ca.leaf(&["www.example.com"], 1), old(&ca, 2)];
    for (leaf, folder) in leaves.iter().zip(&folders) {
        leaf.write(folder.path(), "site");
    }
    let server = Server::start(&with_tls(&member, folders[0].path()));
    let (code, out, err) = server.reload(&with_tls(&member, folders[1].path()));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("listener secure: certificate site serial 01 → 02"), "{out}{err}");
    assert!((out.clone() + &err).contains("has expired 1 day ago"), "{out}{err}");
    assert!(is_shown(&server, &leaves[1]));
    // The files of the new configuration are the ones that are watched.
    let third = ca.leaf(&["www.example.com"], 3);
    third.write(folders[1].path(), "site");
    until("the third one", || is_shown(&server, &third));
    let text = with_tls(&member, folders[1].path());
    let (_, out, _) = server.reload(&text);
    assert!(!out.contains("certificate"), "{out}");
}

fn old(ca: &Ca, serial: u64) -> Leaf {
    let end = weir_core::time::clock::wall() - std::time::Duration::from_secs(100_000);
    ca.leaf_of(&["www.example.com"], serial, end, &rcgen::PKCS_ECDSA_P256_SHA256)
}

/// R12.3-1, R12.3-5: `weir check` names the place, the cause and the cure.
#[test]
fn check_names_place_cause_and_cure() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, member) = (Ca::new("ca"), Member::start("m"));
    let leaf = ca.leaf(&["www.example.com"], 1);
    leaf.write(folder.path(), "site");
    let other = ca.leaf(&["www.example.com"], 2);
    let file = process::File::new(&with_tls(&member, folder.path()));
    let check = || run(weir().args(["check", "--config"]).arg(&file.path));
    assert_eq!(check().0, Some(0));
    replace(&folder.path().join("site.key"), &other.key);
    let (code, _, err) = check();
    assert_eq!(code, Some(1));
    let place = format!("{}:", file.path.display());
    assert!(err.starts_with(&place), "{err}");
    assert!(err.contains("certificate[0].private_key: "), "{err}");
    assert!(err.contains("is not the key of \"CN=rcgen self signed cert\""), "{err}");
    assert!(err.contains("help: name the key that the certificate was requested with"), "{err}");
    // On a TCP listener: both cures.
    file.write(&with_tls(&member, folder.path()).replace("\"HTTPS\"", "\"TCP\""));
    let (code, _, err) = check();
    assert_eq!(code, Some(1));
    let both = "make an HTTPS listener for it, or install it on the members";
    assert!(err.contains("listener[1].default_certificate") && err.contains(both), "{err}");
}
