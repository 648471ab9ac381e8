//! HTTPS listeners as openssl, curl and Python see them: which certificate is shown, and how one
//! is replaced. `rows.toml` names these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use process::certs::{Ca, Leaf, replace};
use process::{Member, Server, address_after, config, count, run, until, weir};
use weir_core::time::clock;

/// A folder with a CA's certificate, a member, and what an HTTPS listener needs.
struct Place {
    folder: tempfile::TempDir,
    ca: Ca,
    member: Member,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            ca: Ca::new("Test CA"),
            member: Member::start("member"),
        };
        replace(&place.file("ca.pem"), &place.ca.pem);
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server with a listener `secure`; `lines` are its own, `certificates` those of the file.
    fn serve(&self, lines: &str, certificates: &[(&str, &Leaf, &str)]) -> Https {
        let text = config("[0, 1]", 5, 0, &[(self.member.addr, 1)]);
        self.serve_as(text, lines, certificates)
    }

    /// The same beside the listener of `text`.
    fn serve_as(
        &self,
        mut text: String,
        lines: &str,
        certificates: &[(&str, &Leaf, &str)],
    ) -> Https {
        text += "[[listener]]\nname = \"secure\"\nloadbalancer = \"front\"\nprotocol = \"HTTPS\"\n\
                 protocol_port = 0\ndefault_pool = \"app\"\n";
        text += lines;
        for (name, leaf, more) in certificates {
            let [certificate, key] = leaf.write(self.folder.path(), name);
            text += &format!(
                "\n[[certificate]]\nname = \"{name}\"\ncertificate = {certificate:?}\n\
                 private_key = {key:?}\n{more}\n"
            );
        }
        let server = Server::start(&text);
        let addr = address_after(&server.ready, "secure https://");
        Https { server, addr }
    }
}

struct Https {
    server: Server,
    addr: SocketAddr,
}

impl Https {
    /// What openssl says about a handshake; stdout and stderr.
    fn handshake(&self, args: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &self.addr.to_string(), "-showcerts"]).args(args);
        let (_, out, err) = run(command.stdin(Stdio::null()));
        out + &err
    }

    /// The serial number of the certificate that is shown to who asks for `name`.
    fn serial(&self, name: Option<&str>) -> String {
        let with = |name| self.handshake(&["-servername", name]);
        let out = name.map_or_else(|| self.handshake(&["-noservername"]), with);
        serial(&out)
    }

    /// `curl` to that name; exit code and body.
    fn curl(&self, name: &str, args: &[&str]) -> (Option<i32>, String, String) {
        let port = self.addr.port();
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "20", "--resolve"])
            .arg(format!("{name}:{port}:127.0.0.1"));
        run(command.args(args).arg(format!("https://{name}:{port}/")))
    }
}

/// The serial number of the first certificate in a text.
fn serial(text: &str) -> String {
    let (Some(start), Some(end)) = (text.find("-----BEGIN C"), text.find("-----END C")) else {
        panic!("no certificate: {text}")
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{}-----END CERTIFICATE-----\n", &text[start..end])).unwrap();
    let mut command = Command::new("openssl");
    let (_, out, _) = run(command.args(["x509", "-noout", "-serial", "-in"]).arg(file.path()));
    out.trim().trim_start_matches("serial=").to_owned()
}

/// R6.2-1, R12.2-1, R12.2-4: each name gets its certificate, any other name the default one.
#[test]
fn names_get_their_certificates() {
    let place = Place::new();
    let site = place.ca.leaf(&["site.example"], 1);
    let shop = place.ca.leaf(&["shop.example.com"], 2);
    let wild = place.ca.leaf(&["*.example.com"], 3);
    let deep = place.ca.leaf(&["*.good.example.com"], 4);
    for (mode, deeper) in [("wildcard", "01"), ("longest_suffix", "03")] {
        let lines = format!(
            "default_certificate = \"site\"\nsni_certificates = [\"shop\", \"wild\", \"deep\"]\n\
             sni_match_algo = \"{mode}\"\n"
        );
        let all =
            [("site", &site, ""), ("shop", &shop, ""), ("wild", &wild, ""), ("deep", &deep, "")];
        let https = place.serve(&lines, &all);
        for (name, serial) in [
            (Some("shop.example.com"), "02"),
            (Some("SHOP.Example.com"), "02"),
            (Some("abc.example.com"), "03"),
            (Some("sport.example.com"), "03"),
            (Some("good.example.com"), "03"),
            (Some("mycalc.good.example.com"), "04"),
            (Some("mycalc.bad.example.com"), deeper),
            (Some("example.com"), "01"),
            (Some("other.example"), "01"),
            (None, "01"),
        ] {
            assert_eq!(https.serial(name), serial, "{mode}: {name:?}");
        }
        let ca = place.file("ca.pem");
        for name in ["site.example", "shop.example.com", "abc.example.com"] {
            let (code, body, err) = https.curl(name, &["--cacert", ca.to_str().unwrap()]);
            assert_eq!((code, body.as_str()), (Some(0), "member"), "{name}: {err}");
        }
        let (code, _, err) = https.curl("other.example", &["--cacert", ca.to_str().unwrap()]);
        assert!(code == Some(60) && err.contains("other.example"), "{err}");
    }
}

/// R6.2-1: names outside ASCII; RSA beside ECDSA, by what the client can do.
#[test]
fn domains_and_kinds_of_keys() {
    let place = Place::new();
    let end = clock::wall() + Duration::from_secs(90 * 86_400);
    let name = "xn--bcher-kva.example";
    let ecdsa = place.ca.leaf(&[name], 1);
    let rsa = place.ca.leaf_of(&[name], 2, end, &rcgen::PKCS_RSA_SHA256);
    let lines = "default_certificate = \"ecdsa\"\nsni_certificates = [\"rsa\"]\n";
    let domain = "domain = \"Bücher.example\"";
    let https = place.serve(lines, &[("ecdsa", &ecdsa, domain), ("rsa", &rsa, domain)]);
    for (more, wanted) in [
        (&[][..], "01"),
        (&["-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"], "02"),
        (&["-sigalgs", "ECDSA+SHA256"], "01"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "02"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "01"),
    ] {
        let out = https.handshake(&[&["-servername", name], more].concat());
        assert_eq!(serial(&out), wanted, "{more:?}");
    }
}

/// An OCSP response is stapled, and a new one when the file is replaced.
#[test]
fn ocsp_responses_are_stapled() {
    let place = Place::new();
    let site = place.ca.leaf(&["site.example"], 1);
    site.write(place.folder.path(), "site");
    replace(&place.file("ca.key"), &place.ca.key);
    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        command.args(args.split(' ')).current_dir(place.folder.path());
        let (code, _, err) = run(&mut command);
        assert_eq!(code, Some(0), "{args}: {err}");
    };
    replace(&place.file("index"), "V\t400101000000Z\t\t01\tunknown\t/CN=x\n");
    openssl("ocsp -issuer ca.pem -cert site.pem -reqout request");
    let by = "-index index -rsigner ca.pem -rkey ca.key -CA ca.pem -reqin request";
    openssl(&format!("ocsp {by} -respout site.ocsp -ndays 7"));
    let response = format!("ocsp_response = {:?}", place.file("site.ocsp"));
    let https = place.serve("default_certificate = \"site\"\n", &[("site", &site, &response)]);
    let status = |version| https.handshake(&["-status", version]);
    for version in ["-tls1_3", "-tls1_2"] {
        let out = status(version);
        assert!(out.contains("Cert Status: good"), "{out}");
    }
    let revoked = "R\t400101000000Z\t260101000000Z\t01\tunknown\t/CN=x\n";
    replace(&place.file("index"), revoked);
    openssl(&format!("ocsp {by} -respout next -ndays 7"));
    std::fs::rename(place.file("next"), place.file("site.ocsp")).unwrap();
    until("the new response", || status("-tls1_3").contains("Cert Status: revoked"));
    std::fs::write(place.file("site.ocsp"), "nonsense").unwrap();
    until("none", || status("-tls1_3").contains("OCSP response: no response sent"));
}

/// R12.4-2, R12.3-3: an expired certificate is served; who insists gets through.
#[test]
fn an_expired_certificate_is_served() {
    let place = Place::new();
    let end = clock::wall() - Duration::from_secs(86_400 + 3_600);
    let old = place.ca.leaf_of(&["site.example"], 1, end, &rcgen::PKCS_ECDSA_P256_SHA256);
    let https = place.serve("default_certificate = \"site\"\n", &[("site", &old, "")]);
    assert!(https.server.log.iter().any(|line| line.contains("has expired 1 day ago")));
    let ca = place.file("ca.pem");
    let (code, _, err) = https.curl("site.example", &["--cacert", ca.to_str().unwrap()]);
    assert!(code == Some(60) && err.contains("expired"), "{err}");
    let (code, body, err) = https.curl("site.example", &["-k"]);
    assert_eq!((code, body.as_str()), (Some(0), "member"), "{err}");
    let series = "weir_certificate_not_after_timestamp_seconds{certificate=\"site\"}";
    assert_eq!(https.server.metric(series), old.not_after as f64);
}

/// R10.1-2, R12.3-8 (cure b): TLS ends at the balancer, the member gets clear HTTP.
#[test]
fn members_get_clear_http() {
    let place = Place::new();
    let site = place.ca.leaf(&["site.example"], 1);
    let https = place.serve("default_certificate = \"site\"\n", &[("site", &site, "")]);
    let ca = place.file("ca.pem");
    let (code, body, err) = https.curl("site.example", &["--cacert", ca.to_str().unwrap()]);
    // The member understands nothing else.
    assert_eq!((code, body.as_str()), (Some(0), "member"), "{err}");
}

/// Clients on Python's ssl, until they are stopped.
struct Load(Child);

impl Load {
    fn start(https: &Https, place: &Place) -> Load {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/https_load.py");
        let (host, port) = (https.addr.ip().to_string(), https.addr.port().to_string());
        let mut command = Command::new("python3");
        command.arg(script).args([&host, &port]).arg(place.file("ca.pem")).arg("site.example");
        Load(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// What came of it.
    fn stop(mut self) -> serde_json::Value {
        drop(self.0.stdin.take());
        let mut text = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut text).unwrap();
        assert!(self.0.wait().unwrap().success());
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_reaped = self.0.wait();
    }
}

/// R12.4-1: a certificate that is swapped again and again under load fails no request; open
/// connections go on, new ones get the new one.
#[test]
fn swaps_under_load_fail_nothing() {
    let place = Place::new();
    let first = place.ca.leaf(&["site.example"], 0x100);
    let https = place.serve("default_certificate = \"site\"\n", &[("site", &first, "")]);
    let load = Load::start(&https, &place);
    let swaps = count(20, 500);
    let series = "weir_certificate_not_after_timestamp_seconds{certificate=\"site\"}";
    for n in 1..=swaps {
        let leaf = place.ca.leaf(&["site.example"], 0x100 + n);
        leaf.write(place.folder.path(), "site");
        until("the new certificate", || https.server.metric(series) == leaf.not_after as f64);
        let requests = https.server.sum("weir_requests_total");
        until("some requests", || https.server.sum("weir_requests_total") > requests + 5.0);
        if n % 10 == 0 {
            assert_eq!(https.serial(Some("site.example")), leaf.serial);
        }
    }
    let found = load.stop();
    assert_eq!(found["failures"].as_array().unwrap().len(), 0, "{found}");
    assert!(found["requests"].as_u64().unwrap() > 5 * swaps, "{found}");
    let serials = found["serials"].as_array().unwrap().len() as u64;
    assert!(serials > swaps / 2, "new connections got {serials} of {swaps} certificates");
    println!(
        "{swaps} swaps: {} requests, {} connections, {serials} serial numbers, no failure",
        found["requests"], found["connections"]
    );
}

/// A member that speaks TLS, by openssl.
fn tls_member(place: &Place, leaf: &Leaf, args: &[&str]) -> (Ended, SocketAddr) {
    let [certificate, key] = leaf.write(place.folder.path(), "member");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"]).arg(certificate);
    command.arg("-key").arg(key).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut member = Ended(command.stderr(Stdio::null()).spawn().unwrap());
    let mut told = BufReader::new(member.0.stdout.take().unwrap()).lines();
    let addr = told.find_map(|line| line.unwrap().strip_prefix("ACCEPT ")?.parse().ok());
    (member, addr.unwrap())
}

/// R12.3-8, cure (a): a TCP listener passes TLS through, clients see the member's certificate.
#[test]
fn a_tcp_listener_passes_tls_through() {
    let place = Place::new();
    let (_member, addr) = tls_member(&place, &place.ca.leaf(&["site.example"], 0x77), &[]);
    let text = config("[0]", 5, 0, &[(addr, 1)]).replace("\"HTTP\"", "\"TCP\"");
    let server = Server::start(&text);
    let https = Https { addr: address_after(&server.ready, "web tcp://"), server };
    assert_eq!(https.serial(Some("site.example")), "77");
    let ca = place.file("ca.pem");
    let (code, body, err) = https.curl("site.example", &["--cacert", ca.to_str().unwrap()]);
    assert!(code == Some(0) && body.contains("s_server"), "{body} {err}");
}

/// R12.3-6: on a shared balancer the member of an HTTPS listener gets clear HTTP; one that expects
/// TLS can't answer.
#[test]
fn members_of_a_shared_balancer_can_not_expect_tls() {
    let place = Place::new();
    let site = place.ca.leaf(&["site.example"], 1);
    let (_member, addr) = tls_member(&place, &site, &[]);
    let shared = "name = \"front\"\nflavor = \"shared\"\n";
    let text = config("[0]", 5, 0, &[(addr, 1)]).replace("name = \"front\"\n", shared);
    let https = place.serve_as(text, "default_certificate = \"site\"\n", &[("site", &site, "")]);
    let ca = place.file("ca.pem");
    let args = ["--cacert", ca.to_str().unwrap(), "-o", "/dev/null", "-w", "%{http_code}"];
    let (code, status, err) = https.curl("site.example", &args);
    assert_eq!((code, status.as_str()), (Some(0), "502"), "{err}");
}

/// R10.1-3: clients are asked for certificates by the balancer alone, which has none for members.
#[test]
fn members_are_shown_no_certificate() {
    let place = Place::new();
    let (site, client) = (place.ca.leaf(&["site.example"], 1), place.ca.leaf(&["alice"], 2));
    let [certificate, key] = client.write(place.folder.path(), "alice");
    let ca = place.file("ca.pem");
    let bundle =
        format!("[[certificate]]\nname = \"clients\"\ntype = \"client\"\ncertificate = {ca:?}\n");
    let lines = "default_certificate = \"site\"\nclient_ca = \"clients\"\n";
    let answer = |member: SocketAddr| {
        let pool = "[[pool]]\nname = \"app\"\nprotocol = \"HTTP\"";
        let text = config("[0]", 5, 0, &[(member, 1)]);
        let front = text.find("[[listener]]").unwrap()..text.find("[[pool]]").unwrap();
        let text = text.replace(&text[front], "").replace(pool, &pool.replace("HTTP", "HTTPS"));
        let https = place.serve_as(text, lines, &[("site", &site, &bundle)]);
        let mut args = vec!["--cacert", ca.to_str().unwrap(), "-o", "/dev/null", "-w"];
        args.push("%{http_code}");
        let (code, _, err) = https.curl("site.example", &args);
        assert!(code != Some(0) && err.contains("alert"), "{code:?} {err}");
        args.extend(["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()]);
        let (code, status, err) = https.curl("site.example", &args);
        assert_eq!(code, Some(0), "{err}");
        status
    };
    let (_member, addr) = tls_member(&place, &site, &[]);
    assert_eq!(answer(addr), "200");
    let asks = ["-Verify", "1", "-verify_return_error", "-CAfile", ca.to_str().unwrap()];
    let (_member, addr) = tls_member(&place, &site, &asks);
    assert_eq!(answer(addr), "502");
}

/// Keys are logged for who starts Weir with --tls-key-log, whatever SSLKEYLOGFILE says: those of
/// clients and of members, as both know them.
#[test]
fn keys_are_logged_when_asked_for_alone() {
    let place = Place::new();
    let site = place.ca.leaf(&["site.example"], 1);
    let [certificate, key] = site.write(place.folder.path(), "site");
    let path = |name: &str| place.file(name).to_str().unwrap().to_owned();
    let (_member, addr) = tls_member(&place, &site, &["-keylogfile", &path("member.keys")]);
    let text = config("[0]", 5, 0, &[(addr, 1)])
        .replace("default_pool", "default_certificate = \"site\"\ndefault_pool")
        .replace("\"HTTP\"", "\"HTTPS\"")
        + &format!(
            "[[certificate]]\nname = \"site\"\ncertificate = {certificate:?}\n\
             private_key = {key:?}\n"
        );
    let start = |args: &[&str]| {
        let server = Server::start_with(&text, |command| {
            command.env("SSLKEYLOGFILE", path("environment.keys")).args(args);
        });
        let addr = address_after(&server.ready, "web https://");
        Https { server, addr }
    };
    // What each side knows that the log does not.
    let missing = |log: &str, side: &str| {
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let known = std::fs::read_to_string(path(side)).unwrap();
        let known: Vec<&str> = known.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(!known.is_empty(), "{side}");
        known.iter().filter(|line| !log.lines().any(|logged| logged == **line)).count()
    };
    let ask = |https: &Https| {
        for version in ["-tls1_2", "-tls1_3"] {
            https.handshake(&[version, "-keylogfile", &path("client.keys")]);
        }
        let (code, body, err) = https.curl("site.example", &["-k"]);
        assert!(code == Some(0) && body.contains("s_server"), "{body} {err}");
    };
    let log = path("all.keys");
    let https = start(&["--tls-key-log", &log]);
    assert!(https.server.log.iter().any(|line| line.contains("keys of all TLS sessions go to")));
    ask(&https);
    assert_eq!((missing(&log, "client.keys"), missing(&log, "member.keys")), (0, 0));
    let logged = std::fs::read_to_string(&log).unwrap();
    for label in ["CLIENT_RANDOM ", "CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "] {
        assert!(logged.contains(label), "{logged}");
    }
    // A log that others may read is none.
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o640)).unwrap();
    let mut command = weir();
    command.args(["serve", "--tls-key-log", &log, "--config"]).arg(&https.server.file.path);
    let (code, _, err) = run(&mut command);
    assert!(code == Some(1) && err.contains("chmod 600"), "{err}");
    // Without the flag there is none.
    std::fs::remove_file(&log).unwrap();
    ask(&start(&[]));
    assert!(missing(&log, "client.keys") > 0);
    assert!(!place.file("all.keys").exists() && !place.file("environment.keys").exists());
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_reaped = self.0.wait();
    }
}

/// R12.1-2: what `weir gencert` makes is all that mutual TLS takes, as docs/tls.md shows it.
#[test]
fn certificates_of_gencert_are_served() {
    let place = Place::new();
    let gencert = |args: &[&str]| {
        let mut command = weir();
        command.arg("gencert").args(args).current_dir(place.folder.path());
        assert_eq!(run(&mut command).0, Some(0), "{args:?}");
    };
    gencert(&["server", "localhost", "127.0.0.1"]);
    gencert(&["client", "alice"]);
    gencert(&["client", "mallory", "--dir", "other"]);
    let read = |name: &str| std::fs::read_to_string(place.file(name)).unwrap();
    let made = Leaf {
        pem: read("certs/localhost.pem"),
        key: read("certs/localhost.key"),
        serial: String::new(),
        not_after: 0,
    };
    let path = |name: &str| place.file(name).to_str().unwrap().to_owned();
    let ca = path("certs/ca.pem");
    let https = place.serve("default_certificate = \"a\"\n", &[("a", &made, "")]);
    for name in ["localhost", "127.0.0.1"] {
        let (code, body, err) = https.curl(name, &["--cacert", &ca]);
        assert_eq!((code, body.as_str()), (Some(0), "member"), "{name}: {err}");
    }
    let lines = "default_certificate = \"a\"\nclient_ca = \"clients\"\n";
    let bundle = "[[certificate]]\nname = \"clients\"\ntype = \"client\"\n";
    let bundle = format!("{bundle}certificate = {ca:?}\n");
    let https = place.serve(lines, &[("a", &made, &bundle)]);
    let with = |name: &str| {
        let (certificate, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        https.curl("localhost", &["--cacert", &ca, "--cert", &certificate, "--key", &key])
    };
    let (code, body, err) = with("certs/alice");
    assert_eq!((code, body.as_str()), (Some(0), "member"), "{err}");
    for (code, body, err) in [with("other/mallory"), https.curl("localhost", &["--cacert", &ca])] {
        assert!(code != Some(0) && body.is_empty() && err.contains("alert"), "{code:?} {err}");
    }
}
