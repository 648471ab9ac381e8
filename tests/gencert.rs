//! `weir gencert`: what it makes is what openssl takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use process::{run, weir};

fn gencert(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    run(weir().arg("gencert").args(args).current_dir(folder))
}

fn openssl(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(Command::new("openssl").args(args).current_dir(folder));
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    out
}

fn text(folder: &Path, file: &str) -> String {
    openssl(folder, &["x509", "-in", file, "-noout", "-text"])
}

/// R12.1-2: a CA, a server and a client certificate; keys are their owner's alone.
#[test]
fn a_ca_issues_for_servers_and_clients() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let names = ["server", "localhost", "127.0.0.1", "::1", "*.Bücher.example"];
    let (code, out, err) = gencert(at, &names);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("certificate = \"certs/localhost.pem\""), "{out}");
    assert_eq!(gencert(at, &["client", "alice", "--days", "3"]).0, Some(0));
    for file in ["ca.key", "localhost.key", "alice.key"] {
        let mode = at.join("certs").join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    for (purpose, file) in [("sslserver", "localhost"), ("sslclient", "alice")] {
        let file = format!("certs/{file}.pem");
        openssl(at, &["verify", "-purpose", purpose, "-CAfile", "certs/ca.pem", &file]);
    }
    let server = text(at, "certs/localhost.pem");
    let names = "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, \
                 DNS:*.xn--bcher-kva.example";
    assert!(server.contains(names), "{server}");
    openssl(at, &["x509", "-in", "certs/alice.pem", "-noout", "-checkend", "200000"]);
    let ends = ["x509", "-in", "certs/alice.pem", "-noout", "-checkend", "260000"];
    assert_eq!(run(Command::new("openssl").args(ends).current_dir(at)).0, Some(1));
    // What it makes can be served as it is.
    let file = "[[certificate]]\nname='a'\ncertificate='certs/localhost.pem'\n\
                private_key='certs/localhost.key'\n[[certificate]]\nname='b'\ntype='client'\n\
                certificate='certs/ca.pem'\n[[listener]]\nname='l'\nprotocol='HTTPS'\n\
                protocol_port=0\ndefault_certificate='a'\ndefault_pool='p'\n[[pool]]\nname='p'\n\
                protocol='HTTP'\n";
    std::fs::write(at.join("weir.toml"), file).unwrap();
    let (code, _, err) = run(weir().args(["check", "--config", "weir.toml"]).current_dir(at));
    assert_eq!((code, err.contains("R12.3")), (Some(0), false), "{err}");
}

#[test]
fn nothing_is_overwritten_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert_eq!(gencert(at, &["ca", "--dir", "x"]).0, Some(0));
    assert_eq!(gencert(at, &["server", "a.example", "--dir", "x"]).0, Some(0));
    let read = |file: &str| std::fs::read(at.join("x").join(file)).unwrap();
    let (ca, leaf) = (read("ca.pem"), read("a.example.pem"));
    for again in [&["ca", "--dir", "x"][..], &["server", "a.example", "--dir", "x"]] {
        let (code, out, err) = gencert(at, again);
        assert_eq!(code, Some(1));
        // What to write into the file is told again.
        assert_eq!(
            out.contains("certificate = \"x/a.example.pem\""),
            again[0] == "server",
            "{out}"
        );
        assert!(err.contains("is there already; --force overwrites it"), "{err}");
    }
    assert_eq!((read("ca.pem"), read("a.example.pem")), (ca.clone(), leaf.clone()));
    assert_eq!(gencert(at, &["server", "a.example", "--dir", "x", "--force"]).0, Some(0));
    assert_eq!(read("ca.pem"), ca, "the CA stays");
    assert_ne!(read("a.example.pem"), leaf);
    openssl(at, &["verify", "-CAfile", "x/ca.pem", "x/a.example.pem"]);
    assert_eq!(gencert(at, &["ca", "--dir", "x", "--force"]).0, Some(0));
    assert_ne!(read("ca.pem"), ca);
}

#[test]
fn what_can_not_be_made_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (args, code, told) in [
        (&["server", "a b"][..], 1, "is no host name"),
        (&["client", "ca"], 1, "choose another name"),
        (&["client", ""], 1, "can't be empty"),
        (&["server"], 2, "required"),
        (&["server", "a", "--days", "0"], 2, "0 is not in 1..="),
        (&["server", "a", "--dir", "/proc/none"], 1, "/proc/none"),
    ] {
        let (found, _, err) = gencert(at, args);
        assert!(found == Some(code) && err.contains(told), "{args:?}: {found:?} {err}");
    }
    std::fs::create_dir(at.join("certs")).unwrap();
    std::fs::write(at.join("certs/ca.pem"), "x").unwrap();
    let (code, _, err) = gencert(at, &["server", "a"]);
    assert!(code == Some(1) && err.contains("the CA: certs/ca.key"), "{err}");
    assert!(!at.join("certs/a.key").exists());
}
