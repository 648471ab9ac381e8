//! Forwarding policies through the whole program: a file with policies, clients that meet them, and
//! what a reload changes on open connections. The finer cases are in the tests of `weir-l7` and
//! `weir-core`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use process::certs::Ca;
use process::{Client, Member, RUN_DIR, Server, run, weir};

/// A file with a listener, pools of one member each, and policies.
fn file(default: &str, pools: &[(&str, SocketAddr)], policies: &str) -> String {
    let mut text = format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 5\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n\
         [[listener]]\nname = \"web\"\nloadbalancer = \"front\"\nprotocol = \"HTTP\"\n\
         protocol_port = 0\n{default}\n"
    );
    for (name, address) in pools {
        write!(
            text,
            "[[pool]]\nname = \"{name}\"\nprotocol = \"HTTP\"\n\
             members = [{{ address = \"{}\", protocol_port = {} }}]\n",
            address.ip(),
            address.port()
        )
        .unwrap();
    }
    text + policies
}

fn policy(name: &str, rules: &str, action: &str) -> String {
    format!("[[l7policy]]\nname = \"{name}\"\nlistener = \"web\"\nrules = [{rules}]\n{action}\n")
}

fn to(pool: &str) -> String {
    format!("action = \"REDIRECT_TO_POOL\"\nredirect_pool = \"{pool}\"")
}

fn path(value: &str) -> String {
    format!("{{ type = \"PATH\", compare_type = \"STARTS_WITH\", value = \"{value}\" }}")
}

/// The head and body of the answer to a request for `path` at `host`.
fn ask(client: &mut Client, host: &str, path: &str) -> (String, String) {
    client.raw(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let answer = client.answer().unwrap();
    (answer.head, answer.body)
}

/// R10.5-3, R2.3-404: two pools by host and path, a fixed answer and a redirect of Weir's own, 404
/// where nothing matches; the metrics count the latter for the listener alone.
#[test]
fn a_file_with_policies_is_followed() {
    let (shop, api) = (Member::start("shop"), Member::start("api"));
    let host = "{ type = \"HOST_NAME\", value = [\"shop.test\", \"*.shop.test\"] }";
    let policies = [
        policy("shop", host, &to("shop")),
        policy("api", &format!("{host}, {}", path("/api/")), &to("api")),
        policy(
            "closed",
            &path("/closed"),
            "priority = 1\naction = \"FIXED_RESPONSE\"\n\
             fixed_response_config = { status_code = 503, message_body = \"closed\" }",
        ),
        policy(
            "moved",
            &path("/old"),
            "priority = 2\naction = \"REDIRECT_TO_URL\"\nredirect_url_config = \
             { protocol = \"https\", port = \"8443\", path = \"/new${path}\", status_code = 308 }",
        ),
    ];
    let pools = [("shop", shop.addr), ("api", api.addr)];
    let server = Server::start(&file("", &pools, &policies.concat()));
    let mut client = Client::connect(server.web);
    assert_eq!(ask(&mut client, "shop.test", "/").1, "shop");
    assert_eq!(ask(&mut client, "EU.shop.test.", "/x/../api/1").1, "api");
    assert_eq!(ask(&mut client, "eu.shop.test", "/apis").1, "shop");
    let (head, body) = ask(&mut client, "shop.test", "/closed");
    assert!(head.starts_with("HTTP/1.1 503 ") && body == "closed", "{head}");
    let (head, _) = ask(&mut client, "shop.test", "/old?q=1");
    assert!(head.starts_with("HTTP/1.1 308 "), "{head}");
    assert!(head.contains("\r\nLocation: https://shop.test:8443/new/old?q=1\r\n"), "{head}");
    let (head, _) = ask(&mut client, "else.test", "/");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!((shop.requests.load(Relaxed), api.requests.load(Relaxed)), (2, 1));
    let metrics = server.metrics();
    for code in [308, 404, 503] {
        let lines = metrics.lines().filter(|line| line.contains(&format!("code=\"{code}\"")));
        let lines: Vec<_> = lines.filter(|line| !line.ends_with(" 0")).collect();
        // Of the listener, and as an answer of Weir's own; no member has it.
        let names: Vec<_> = lines.iter().filter_map(|line| line.split('{').next()).collect();
        assert_eq!(names, ["weir_responses_total", "weir_local_responses_total"]);
        assert!(lines.iter().all(|line| line.contains("listener=\"web\"")), "{lines:?}");
    }
}

/// A reload of policies holds from the next request on, also on an open connection, and its answer
/// names them; one that would put two policies into conflict is refused whole (C30, R10.3-1).
#[test]
fn policies_change_under_an_open_connection() {
    let (a, b) = (Member::start("a"), Member::start("b"));
    let pools = [("a", a.addr), ("b", b.addr)];
    let text = |policies: &str| file("default_pool = \"a\"", &pools, policies);
    let server = Server::start(&text(""));
    let mut client = Client::connect(server.web);
    assert_eq!(ask(&mut client, "w", "/b/1").1, "a");
    let to_b = policy("to-b", &path("/b/"), &to("b"));
    let (code, out, err) = server.reload(&text(&to_b));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("policy to-b added"), "{out}");
    assert_eq!(ask(&mut client, "w", "/b/1").1, "b");
    assert_eq!(ask(&mut client, "w", "/").1, "a");
    let fixed = "action = \"FIXED_RESPONSE\"\nfixed_response_config = { status_code = 410 }";
    let twin = to_b.clone() + &policy("twin", &path("/b/"), fixed);
    let (code, _, err) = server.reload(&text(&twin));
    assert_eq!(code, Some(1));
    assert!(err.contains("R10.3-1") && err.contains("same conditions"), "{err}");
    assert_eq!(ask(&mut client, "w", "/b/1").1, "b");
    let (code, out, err) = server.reload(&text(&policy("to-b", &path("/b/"), fixed)));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("policy to-b changed"), "{out}");
    assert!(ask(&mut client, "w", "/b/1").0.starts_with("HTTP/1.1 410 "));
    let (code, out, _) = server.reload(&text(""));
    assert!(code == Some(0) && out.contains("policy to-b removed"), "{out}");
    assert_eq!(ask(&mut client, "w", "/b/1").1, "a");
}

/// R5.5-2: an HTTP listener sends everybody to an HTTPS listener;
/// curl gets there with the path and query as they were.
#[test]
fn an_http_listener_leads_to_an_https_listener() {
    let (member, folder) = (Member::start("member"), tempfile::tempdir().unwrap());
    let ca = Ca::new("ca");
    let [certificate, key] = ca.leaf(&["site.test"], 1).write(folder.path(), "site");
    std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
    // Nobody else listens on this address, so that the port stays free.
    let vip = "127.0.55.2";
    let port = std::net::TcpListener::bind((vip, 0)).unwrap().local_addr().unwrap().port();
    let secure = format!(
        "[[certificate]]\nname = \"site\"\ncertificate = {certificate:?}\n\
         private_key = {key:?}\n[[listener]]\nname = \"secure\"\nloadbalancer = \"front\"\n\
         protocol = \"HTTPS\"\nprotocol_port = {port}\ndefault_certificate = \"site\"\n\
         default_pool = \"app\"\n"
    );
    let all =
        policy("all", "", "action = \"REDIRECT_TO_LISTENER\"\nredirect_listener = \"secure\"");
    let text = file("", &[("app", member.addr)], &(secure + &all))
        .replace("vip_address = \"127.0.0.1\"", &format!("vip_address = \"{vip}\""));
    let server = Server::start(&text);
    let web = server.web.port();
    let mut command = Command::new("curl");
    command.args(["-sS", "-L", "--max-time", "20", "--cacert", "ca.pem"]);
    for port in [web, port] {
        command.arg("--resolve").arg(format!("site.test:{port}:{vip}"));
    }
    command.args(["-w", " %{num_redirects} %{http_code} %{url_effective}"]);
    command.arg(format!("http://site.test:{web}/a%20b/../c?x=1&y")).arg("--path-as-is");
    let (code, out, err) = run(command.current_dir(folder.path()));
    assert_eq!(code, Some(0), "{err}");
    let wanted = format!("member 1 200 https://site.test:{port}/a%20b/../c?x=1&y");
    assert_eq!(out, wanted);
    let mut client = Client::connect(server.web);
    let (head, _) = ask(&mut client, "site.test", "/x");
    assert!(head.starts_with("HTTP/1.1 301 "), "{head}");
    let location = format!("\r\nLocation: https://site.test:{port}/x\r\n");
    assert!(head.contains(&location), "{head}");
    assert_eq!(member.requests.load(Relaxed), 1);
}

/// R10.5-3: `weir check` names what is wrong with an expression, with its place.
#[test]
fn check_reads_expressions() {
    let rules = "{ type = \"PATH\", compare_type = \"REGEX\", value = \"^/(a\" }";
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let text = file("", &[("a", nobody)], &policy("x", rules, &to("a")));
    let file = process::File::new(&text);
    let (code, _, err) = run(weir().args(["check", "--config"]).arg(&file.path));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("is no regular expression: unclosed group"), "{err}");
}
