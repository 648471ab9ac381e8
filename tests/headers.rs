//! What members learn of clients, end to end: X-Forwarded-For and the headers beside it, request
//! ids, and whose word counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::collections::HashSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use process::certs::{Ca, replace};
use process::mirror::mirror;
use process::{Client, LIMIT, Member, Server, address_after, config, run};
use socket2::{Domain, SockAddr, Socket, Type};

/// A listener on both loopbacks with further keys, in front of these members.
fn text(members: &[SocketAddr], keys: &str) -> String {
    let members: Vec<(SocketAddr, u8)> = members.iter().map(|&address| (address, 1)).collect();
    config("[0]", 5, 0, &members)
        .replace("vip_address = \"127.0.0.1\"", "vip_address = [\"127.0.0.1\", \"::1\"]")
        .replace("default_pool = \"app\"\n", &format!("default_pool = \"app\"\n{keys}\n"))
}

fn client(from: &str, to: SocketAddr) -> Client {
    let from: IpAddr = from.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0))).unwrap();
    socket.connect_timeout(&SockAddr::from(to), LIMIT).unwrap();
    Client::over(socket.into())
}

/// Has these header fields sent; what came back: the head that the member got, or its name.
fn ask(client: &mut Client, fields: &str) -> String {
    client.send("/", fields);
    client.answer().unwrap().body
}

/// The values of a header, in their order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// R9.1-2, R9.1-3, R9.1-4: each mode, changed while the program runs.
#[test]
fn each_mode_of_forwarded_for() {
    let member = mirror();
    let server = Server::start(&text(&[member], ""));
    let mut client = client("127.0.0.1", server.web);
    let sent = "X-Forwarded-For: 9.9.9.9\r\n";
    let xff = |head: &str| values(head, "X-Forwarded-For").join("|");
    assert_eq!(xff(&ask(&mut client, "")), "127.0.0.1");
    assert_eq!(xff(&ask(&mut client, sent)), "9.9.9.9, 127.0.0.1");
    for (mode, alone, behind) in [
        ("replace", "127.0.0.1", "127.0.0.1"),
        ("remove", "", ""),
        ("preserve", "", "9.9.9.9"),
        ("append", "127.0.0.1", "9.9.9.9, 127.0.0.1"),
    ] {
        let keys = format!("insert_headers = {{ X-Forwarded-For-Processing-Mode = \"{mode}\" }}");
        let (code, out, err) = server.reload(&text(&[member], &keys));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("insert_headers changed") || mode == "append", "{out}");
        assert_eq!(xff(&ask(&mut client, "")), alone, "{mode}");
        assert_eq!(xff(&ask(&mut client, sent)), behind, "{mode}");
    }
}

/// R9.1-4: all headers over IPv6, and none that the client forged.
#[test]
fn inserted_headers_cannot_be_forged() {
    let names = [
        "X-Forwarded-ELB-IP",
        "X-Forwarded-ELB-ID",
        "X-Forwarded-Port",
        "X-Forwarded-For-Port",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "X-Request-ID",
    ];
    let switches: Vec<String> = names.iter().map(|name| format!("{name} = true")).collect();
    let keys = format!("insert_headers = {{ {} }}", switches.join(", "));
    let server = Server::start(&text(&[mirror()], &keys));
    let v6 = SocketAddr::new("::1".parse().unwrap(), server.web.port());
    let stream = TcpStream::connect_timeout(&v6, LIMIT).unwrap();
    let (own_port, port) = (stream.local_addr().unwrap().port(), v6.port().to_string());
    let forged: String = names.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let head = ask(&mut Client::over(stream), &forged);
    assert!(!head.contains("forged"), "{head}");
    for (name, value) in [
        ("X-Forwarded-For", "::1"),
        ("X-Forwarded-ELB-IP", "::1"),
        ("X-Forwarded-Port", &port),
        ("X-Forwarded-For-Port", &own_port.to_string()),
        ("X-Forwarded-Host", "test"),
        ("X-Forwarded-Proto", "http"),
        ("X-Real-IP", "::1"),
    ] {
        assert_eq!(values(&head, name), [value], "{name}");
    }
    assert_eq!(values(&head, "X-Forwarded-ELB-ID")[0].len(), 36, "{head}");
    assert_eq!(values(&head, "X-Request-ID")[0].len(), 32, "{head}");
}

const OF_TLS: [&str; 10] = [
    "X-Forwarded-TLS-Certificate-ID",
    "X-Forwarded-TLS-Protocol",
    "X-Forwarded-TLS-Cipher",
    "X-Forwarded-Clientcert",
    "X-Forwarded-Clientcert-Subject",
    "X-Forwarded-Clientcert-Issuer",
    "X-Forwarded-Clientcert-Serial",
    "X-Forwarded-Clientcert-Fingerprint",
    "X-Forwarded-Clientcert-Verify",
    "X-Forwarded-Clientcert-End",
];

fn openssl(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(Command::new("openssl").args(args).current_dir(folder));
    assert_eq!(code, Some(0), "{args:?}: {err}");
    out
}

/// A certificate of `ca` for a client whose name has everything that needs care.
fn odd_client(folder: &Path, ca: &Ca) {
    std::fs::write(folder.join("ca.pem"), &ca.pem).unwrap();
    replace(&folder.join("ca.key"), &ca.key);
    std::fs::write(folder.join("extensions"), "basicConstraints=CA:FALSE\n").unwrap();
    let subject = "/C=DE/O=Bücher, \"Söhne\" \\+ <Co>/OU=#1+UID=a;b\\\\/CN= alice ";
    let curve = "ec_paramgen_curve:P-256";
    let asks = ["req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-utf8", "-subj"];
    openssl(folder, &[&asks[..], &[subject, "-keyout", "odd.key", "-out", "odd.csr"]].concat());
    let issues = "x509 -req -in odd.csr -CA ca.pem -CAkey ca.key -set_serial 0xabc -days 33 \
                  -extfile extensions -out odd.pem";
    openssl(folder, &issues.split_whitespace().collect::<Vec<_>>());
}

/// An HTTPS listener whose members learn all that TLS tells.
struct Told {
    server: Server,
    folder: tempfile::TempDir,
}

impl Told {
    fn start(client_ca: &str) -> Told {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let ca = Ca::new("Test CA");
        odd_client(folder.path(), &ca);
        ca.leaf(&["localhost"], 1).write(folder.path(), "site");
        let switches = OF_TLS.map(|name| format!("{name} = true")).join(", ");
        let more = format!(
            "[[listener]]\nname = \"secure\"\nloadbalancer = \"front\"\nprotocol = \"HTTPS\"\n\
             protocol_port = 0\ndefault_pool = \"app\"\ndefault_certificate = \"site\"\n\
             insert_headers = {{ {switches} }}\n{client_ca}\n[[certificate]]\nname = \"site\"\n\
             certificate = \"{at}/site.pem\"\nprivate_key = \"{at}/site.key\"\n\
             [[certificate]]\nname = \"clients\"\ntype = \"client\"\n\
             certificate = \"{at}/ca.pem\"\n"
        );
        let server = Server::start(&(text(&[mirror()], "") + &more));
        Told { server, folder }
    }

    /// The head that the member gets of a client that sends forged headers: the same over both
    /// versions of HTTP, and twice each, since it asks twice on its connection.
    fn head(&self, args: &[&str]) -> String {
        let fields = |head: &str| {
            let inserted = head.lines().filter(|line| line.starts_with("X-Forwarded-"));
            inserted.map(str::to_owned).collect::<Vec<_>>()
        };
        let (one, two) = (self.head_by("1.1", args), self.head_by("2", args));
        assert_eq!(fields(&one), fields(&two));
        one
    }

    fn head_by(&self, http: &str, args: &[&str]) -> String {
        let port = address_after(&self.server.ready, "secure https://").port();
        let url = format!("https://localhost:{port}/");
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert", "ca.pem", "--resolve"]);
        command.arg(format!("localhost:{port}:127.0.0.1")).args(args);
        command.args([&format!("--http{http}"), "-w", "%{http_version}\n"]);
        for name in OF_TLS {
            command.args(["-H", &format!("{name}: forged")]);
            command.args(["-H", &format!("{}: forged", name.replace('-', "_").to_lowercase())]);
        }
        command.args([&url, &url]).current_dir(self.folder.path());
        let (code, out, err) = run(&mut command);
        assert_eq!(code, Some(0), "{err}");
        let (first, second) = out.split_at(out.len() / 2);
        assert_eq!(first, second);
        let first = first.strip_suffix(&format!("{http}\n")).expect(http);
        assert!(!out.contains("forged"), "{out}");
        first.to_owned()
    }
}

/// R9.1-4: what TLS tells of the connection, of a client that need not show a certificate.
#[test]
fn what_tls_tells_of_a_connection() {
    let told = Told::start("");
    for (version, args) in [("TLSv1.2", ["--tls-max", "1.2"]), ("TLSv1.3", ["--tlsv1.3", "-s"])] {
        let head = told.head(&args);
        let only = |name: &str| match values(&head, name)[..] {
            [value] => value.to_owned(),
            ref values => panic!("{name}: {values:?}"),
        };
        assert_eq!(only("X-Forwarded-TLS-Protocol"), version);
        assert!(only("X-Forwarded-TLS-Cipher").contains("AES"), "{head}");
        assert_eq!(only("X-Forwarded-TLS-Certificate-ID").len(), 36);
        assert_eq!(only("X-Forwarded-Clientcert-Verify"), "NONE");
        assert_eq!(head.matches("X-Forwarded-Clientcert").count(), 1, "{head}");
    }
}

/// R9.1-4: the client's certificate as openssl prints it, at the first handshake and of a resumed
/// session; and whole.
#[test]
fn what_tls_tells_of_a_client() {
    let told = Told::start("client_ca = \"clients\"");
    let folder = told.folder.path();
    let asks = "x509 -in odd.pem -noout -subject -issuer -serial -enddate -fingerprint -sha256 \
                -nameopt RFC2253";
    let printed = openssl(folder, &asks.split_whitespace().collect::<Vec<_>>());
    let printed = |key: &str| {
        let value = printed.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{printed}")).to_owned()
    };
    let fingerprint = printed("sha256 Fingerprint").replace(':', "").to_lowercase();
    assert_eq!(printed("serial"), "0ABC");
    let subject = printed("subject");
    assert!(subject.contains("OU=#1") || subject.contains("OU=\\#1"), "{subject}");
    let pem = std::fs::read_to_string(folder.join("odd.pem")).unwrap();
    let check = |head: &str| {
        for (name, value) in [
            ("-Subject", printed("subject")),
            ("-Issuer", printed("issuer")),
            ("-Serial", printed("serial")),
            ("-End", printed("notAfter")),
            ("-Fingerprint", fingerprint.clone()),
            ("-Verify", "SUCCESS".to_owned()),
        ] {
            assert_eq!(values(head, &format!("X-Forwarded-Clientcert{name}")), [value], "{name}");
        }
        let [shown] = values(head, "X-Forwarded-Clientcert")[..] else { panic!("{head}") };
        assert!(!shown.contains(['+', '/', '=', ' ']), "{shown}");
        let mut plain = shown.to_owned();
        for (code, text) in [("%0A", "\n"), ("%20", " "), ("%2B", "+"), ("%2F", "/"), ("%3D", "=")]
        {
            plain = plain.replace(code, text);
        }
        assert_eq!(plain, pem);
    };
    for version in [["--tls-max", "1.2"], ["--tlsv1.3", "-s"]] {
        check(&told.head(&[&version[..], &["--cert", "odd.pem", "--key", "odd.key"]].concat()));
    }
    let at = address_after(&told.server.ready, "secure https://");
    for version in ["-tls1_2", "-tls1_3"] {
        for (session, is_resumed) in [("-sess_out", false), ("-sess_in", true)] {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-ign_eof", version, "-connect", &at.to_string(), session]);
            command.args(["session", "-cert", "odd.pem", "-key", "odd.key"]).current_dir(folder);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            child.stdin.take().unwrap().write_all(request).unwrap();
            let out = child.wait_with_output().unwrap();
            let out = String::from_utf8_lossy(&out.stdout).into_owned();
            assert_eq!(out.contains("Reused, TLS"), is_resumed, "{out}");
            check(out.split_once("GET / HTTP/1.1\r\n").unwrap().1);
        }
    }
}

/// Request ids: one a request, over connections and restarts; kept from a trusted proxy alone.
#[test]
fn request_ids() {
    let member = mirror();
    let keys = "insert_headers = { X-Request-ID = true }\ntrusted_proxies = [\"127.0.0.2\"]";
    let id = |head: &str| values(head, "X-Request-ID").join("|");
    let mut seen = HashSet::new();
    for _start in 0..2 {
        let server = Server::start(&text(&[member], keys));
        for _connection in 0..3 {
            let mut client = client("127.0.0.1", server.web);
            for _request in 0..5 {
                let id = id(&ask(&mut client, "X-Request-ID: mine\r\n"));
                assert!(id.len() == 32 && seen.insert(id.clone()), "{id}");
            }
        }
        let mut proxy = client("127.0.0.2", server.web);
        assert_eq!(id(&ask(&mut proxy, "X-Request-ID: 7b0a-4e58\r\n")), "7b0a-4e58");
        assert_eq!(id(&ask(&mut proxy, "X-Request-ID: a b\r\n")).len(), 32);
        assert_eq!(id(&ask(&mut proxy, "")).len(), 32);
    }
}

/// R9.1-4: the address that a trusted proxy names decides the member; what others claim doesn't.
#[test]
fn the_source_is_whom_a_trusted_proxy_names() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let keys = "trusted_proxies = [\"127.0.0.2\", \"127.1.0.0/16\"]";
    let text = text(&[a.addr, b.addr], keys).replace("ROUND_ROBIN", "SOURCE_IP");
    let server = Server::start(&text);
    let answers = |from: &str, tail: &str| -> Vec<String> {
        let mut client = client(from, server.web);
        let field = |n| format!("X-Forwarded-For: 6.6.6.6, 192.0.2.{n}{tail}\r\n");
        (0..24).map(|n| ask(&mut client, &field(n))).collect()
    };
    let by_proxy = answers("127.0.0.2", "");
    assert!(by_proxy.iter().any(|name| name == "a") && by_proxy.iter().any(|name| name == "b"));
    assert_eq!(by_proxy, answers("127.0.0.2", ""), "the same client, the same member");
    assert_eq!(by_proxy, answers("127.1.2.3", ", 127.0.0.2"), "over two proxies");
    let stranger = answers("127.0.0.1", "");
    assert!(stranger.iter().all(|name| *name == stranger[0]), "{stranger:?}");
}
