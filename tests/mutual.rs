//! Client certificates and resumed sessions of a running `weir serve`, by openssl: on two shards,
//! across reloads, and on two processes with the same file of ticket keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use process::certs::{Ca, replace};
use process::{Member, Server, address_after, config, until};
use tempfile::TempDir;
use weir_core::time::clock;

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// The files of a server with a listener that asks for no certificate and one that asks.
struct Files {
    folder: TempDir,
    member: Member,
}

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for name in ["one", "two"] {
            let ca = Ca::new(name);
            std::fs::write(at.join(format!("{name}.pem")), &ca.pem).unwrap();
            ca.leaf(&["client.example.com"], 7).write(at, &format!("of-{name}"));
            if name == "one" {
                let end = clock::wall() - Duration::from_secs(3_600);
                let old = ca.leaf_of(&["client"], 8, end, &rcgen::PKCS_ECDSA_P256_SHA256);
                old.write(at, "old");
            }
        }
        Ca::new("servers").leaf(&["www.example.com"], 1).write(at, "site");
        Files { folder, member: Member::start("m") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificates of `client_ca` ("one" or "two") are asked for.
    fn text(&self, client_ca: &str, settings: &str) -> String {
        let path = self.folder.path().display();
        let listener = |name: &str, more: &str| {
            format!(
                "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\n\
                 protocol = \"HTTPS\"\nprotocol_port = 0\ndefault_pool = \"app\"\n\
                 default_certificate = \"site\"\n{more}\n{settings}\n"
            )
        };
        let bundle = |name: &str| {
            format!(
                "[[certificate]]\nname = \"{name}\"\ntype = \"client\"\n\
                 certificate = \"{path}/{name}.pem\"\n"
            )
        };
        config("[0, 1]", 5, 0, &[(self.member.addr, 1)])
            + &listener("open", "")
            + &listener("mutual", &format!("client_ca = \"{client_ca}\""))
            + &bundle("one")
            + &bundle("two")
            + &format!(
                "[[certificate]]\nname = \"site\"\ncertificate = \"{path}/site.pem\"\n\
                 private_key = \"{path}/site.key\"\n"
            )
    }

    /// A client that shows the certificate of that name, if any.
    fn client(&self, version: &'static str, shows: &str, sessions: &str) -> Client<'_> {
        let _none = std::fs::remove_file(self.path(sessions));
        Client { files: self, version, shows: shows.to_owned(), session: self.path(sessions) }
    }
}

/// A client that keeps one session.
struct Client<'a> {
    files: &'a Files,
    version: &'static str,
    shows: String,
    session: PathBuf,
}

impl Client<'_> {
    /// One request: was the session resumed? Or what the client was told.
    fn ask(&self, at: SocketAddr) -> Result<bool, String> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", self.version, "-connect", &at.to_string()]);
        command.arg("-sess_out").arg(&self.session);
        if self.session.exists() {
            command.arg("-sess_in").arg(&self.session);
        }
        if !self.shows.is_empty() {
            let file = |kind: &str| self.files.path(&format!("{}.{kind}", self.shows));
            command.arg("-cert").arg(file("pem")).arg("-key").arg(file("key"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n";
        // Who is refused may be gone already.
        let _refused = child.stdin.take().unwrap().write_all(request);
        let out = child.wait_with_output().unwrap();
        let (told, errors) =
            (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        match told.contains("HTTP/1.1 200") {
            true => Ok(told.contains("Reused, TLS")),
            false => Err(errors.into_owned()),
        }
    }

    fn is_refused(&self, at: SocketAddr, alert: &str) {
        let told = self.ask(at).expect_err("nobody may be let in");
        assert!(told.contains(alert), "{told}");
    }
}

fn at(server: &Server, listener: &str) -> SocketAddr {
    address_after(&server.ready, &format!("{listener} https://"))
}

fn count(server: &Server, listener: &str, kind: &str) -> f64 {
    ["TLSv1.2", "TLSv1.3"]
        .map(|version| {
            let labels = format!("listener=\"{listener}\",kind=\"{kind}\",version=\"{version}\"");
            server.metric(&format!("weir_tls_handshakes_total{{{labels}}}"))
        })
        .iter()
        .sum()
}

/// Certificates that were missing, those of another CA, and those whose time is over. Counted when
/// the connection is closed.
fn failures(server: &Server) -> [f64; 3] {
    ["certificate_missing", "certificate_unknown", "certificate_expired"].map(|reason| {
        let labels = format!("listener=\"mutual\",reason=\"{reason}\"");
        server.counted(&format!("weir_tls_handshake_failures_total{{{labels}}}"))
    })
}

/// R12.1-1: no certificate is asked for without `client_ca`; with it a client without one
/// is refused, one of the CA is let in, one of another CA or one that has expired is refused; each
/// with its alert and counter, and its reason in the log.
#[test]
fn client_certificates_are_verified() {
    let files = Files::new();
    let text = files.text("one", "") + "[log]\nlevel = \"debug\"\n";
    let mut server = Server::start(&text);
    let (open, mutual) = (at(&server, "open"), at(&server, "mutual"));
    for version in VERSIONS {
        assert_eq!(files.client(version, "", "s").ask(open), Ok(false));
        assert_eq!(files.client(version, "of-one", "s").ask(mutual), Ok(false));
        files.client(version, "", "s").is_refused(mutual, "alert certificate required");
        files.client(version, "of-two", "s").is_refused(mutual, "alert unknown ca");
        files.client(version, "old", "s").is_refused(mutual, "alert certificate expired");
        for reason in ["no certificate was shown", "an unknown issuer", "expired"] {
            let line = server.line_with("no handshake");
            assert!(line.contains(reason) && line.contains("client=127.0.0.1:"), "{line}");
        }
    }
    until("the counts", || failures(&server) == [2.0, 2.0, 2.0]);
    assert_eq!((count(&server, "mutual", "full"), count(&server, "open", "full")), (2.0, 2.0));
}

/// Sessions are resumed on both shards and after a reload that changes neither listener nor CA; the
/// counters agree with what the client says.
#[test]
fn sessions_outlive_reloads_and_know_no_shard() {
    let files = Files::new();
    let server = Server::start(&files.text("one", ""));
    for version in VERSIONS {
        let clients = [("open", ""), ("mutual", "of-one")];
        let clients = clients.map(|(name, shows)| (name, files.client(version, shows, name)));
        for (name, client) in &clients {
            let at = at(&server, name);
            assert_eq!(client.ask(at), Ok(false));
            let before = count(&server, name, "resumed");
            for _ in 0..8 {
                assert_eq!(client.ask(at), Ok(true), "{version} {name}");
            }
            assert_eq!(count(&server, name, "resumed"), before + 8.0);
        }
        let tuned = match version {
            "-tls1_2" => "tls_handshake_timeout = 9",
            _ => "tls_handshake_timeout = 8",
        };
        let (code, _, err) = server.reload(&files.text("one", tuned));
        assert_eq!(code, Some(0), "{err}");
        for (name, client) in &clients {
            assert_eq!(client.ask(at(&server, name)), Ok(true), "{version} {name}");
        }
    }
}

/// A ticket of a listener without client certificates, of another CA, or of the CA before a reload
/// opens nothing where a certificate is asked for.
#[test]
fn sessions_do_not_get_round_a_ca() {
    let files = Files::new();
    for version in VERSIONS {
        let server = Server::start(&files.text("one", ""));
        let (open, mutual) = (at(&server, "open"), at(&server, "mutual"));
        let nobody = files.client(version, "", "nobody");
        assert_eq!((nobody.ask(open), nobody.ask(open)), (Ok(false), Ok(true)));
        nobody.is_refused(mutual, "alert");

        let known = files.client(version, "of-one", "known");
        assert_eq!((known.ask(mutual), known.ask(mutual)), (Ok(false), Ok(true)));
        let (code, out, err) = server.reload(&files.text("two", ""));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("client_ca changed"), "{out}");
        known.is_refused(mutual, "alert unknown ca");
        assert_eq!(count(&server, "mutual", "resumed"), 1.0);
        until("the counts", || failures(&server) == [1.0, 1.0, 0.0]);
    }
}

/// Two processes with the same `ticket_keys` resume each other's sessions; a file that changes is
/// read again, a broken one is not taken.
#[test]
fn processes_share_ticket_keys() {
    let files = Files::new();
    let keys = files.path("keys");
    let line = |digit: char| digit.to_string().repeat(96) + "\n";
    replace(&keys, &line('a'));
    let settings = format!("ticket_keys = \"{}\"", keys.display());
    let text = files.text("one", &settings);
    let mut servers = [Server::start(&text), Server::start(&text)];
    let clients = VERSIONS.map(|version| files.client(version, "of-one", version));
    for client in &clients {
        assert_eq!(client.ask(at(&servers[0], "mutual")), Ok(false));
        assert_eq!(client.ask(at(&servers[1], "mutual")), Ok(true));
        // Another listener is another context.
        let nobody = files.client(client.version, "", "nobody");
        assert_eq!(nobody.ask(at(&servers[0], "open")), Ok(false));
        nobody.is_refused(at(&servers[1], "mutual"), "alert");
    }
    change(&mut servers[1], &keys, &(line('b') + &line('a')), "ticket_keys changed");
    for client in &clients {
        assert_eq!(client.ask(at(&servers[1], "mutual")), Ok(true));
    }
    change(&mut servers[1], &keys, "nonsense\n", "the keys stay as they were");
    for client in &clients {
        assert_eq!(client.ask(at(&servers[1], "mutual")), Ok(true));
    }
    change(&mut servers[1], &keys, &line('c'), "ticket_keys changed");
    for client in &clients {
        assert_eq!(client.ask(at(&servers[1], "mutual")), Ok(false));
    }
}

fn change(server: &mut Server, keys: &Path, text: &str, told: &str) {
    replace(keys, text);
    server.line_with(told);
}
