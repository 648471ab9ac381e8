//! The binary as a user meets it: output, JSON, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "common/certs.rs"]
mod certs;
#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/running.rs"]
mod running;
#[path = "common/server.rs"]
mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use command::{command, loadgen, text};
use common::until;
use running::{Running, origin, signal};
use socket2::{Domain, Socket, Type};
use weir_loadgen::{OriginSpec, OriginTls, Origins};

#[test]
fn a_run_prints_a_report() {
    let (origins, url) = origin();
    let out = loadgen(&[&url, "--connections", "4", "--requests", "200", "--warmup", "0s"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report = text(&out.stdout);
    for part in ["4 connections, kept alive", "requests", "200", "p99.9", "errors", "total"] {
        assert!(report.contains(part), "{part} in\n{report}");
    }
    assert_eq!(origins.requests(0), 200);
}

#[test]
fn json_goes_to_stdout_or_a_file() {
    let (_origins, url) = origin();
    let me = std::process::id().to_string();
    let args = [&url, "--requests", "50", "--warmup", "0s", "--seed", "7", "--pid", &me, "--json"];
    let out = loadgen(&[&args[..], &["-"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&json["requests"], &json["seed"]), (&50.into(), &7.into()));
    let setting = &json["setting"];
    let command: Vec<_> = setting["command"].as_array().unwrap().iter().skip(1).collect();
    assert_eq!(command, [&args[..], &["-"]].concat());
    assert!(setting["started"].as_str().unwrap().ends_with('Z'), "{setting}");
    for key in ["host", "kernel"] {
        assert!(!setting[key].as_str().unwrap().is_empty(), "{setting}");
    }
    assert_eq!((&setting["timeout"], &setting["in_flight"]), (&10.0.into(), &1.into()));
    for key in ["p50", "p90", "p99", "p999", "max", "mean"] {
        assert!(json["latency"]["total"][key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(json["cpu"]["us_per_request"].is_f64() && json["cpu"]["rss"].is_u64());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.json");
    std::fs::write(&file, "x".repeat(100_000)).unwrap();
    let out = loadgen(&[&args[..], &[file.to_str().unwrap()]].concat());
    assert!(text(&out.stdout).contains("requests"), "the text still goes to stdout");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(json["schema"], "weir-loadgen/1");
}

#[test]
fn reports_in_other_forms() {
    let (_origins, url) = origin();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (json, csv, html) = (path("r.json"), path("r.csv"), path("r.html"));
    let out = loadgen(&[
        &url,
        "--duration",
        "1s",
        "--warmup",
        "0s",
        "--json",
        &json,
        "--csv",
        &csv,
        "--html",
        &html,
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("p99"), "a plain line a second where there is no terminal");
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert!(read(&csv).contains("latency,total,p99,"));
    let page = read(&html);
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"));
    let told: serde_json::Value = serde_json::from_str(&read(&json)).unwrap();
    assert!(told["percentiles"].as_array().unwrap().len() > 10);
    assert_eq!(told["members"][0]["name"], "a");
    assert!(told["limits"]["somaxconn"].as_u64().unwrap() > 0);
    let quiet = loadgen(&[&url, "--duration", "1s", "--warmup", "0s", "-q"]);
    assert!(quiet.stderr.is_empty());

    let out = loadgen(&["compare", &json, &json]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("too few seconds"));
    // Who gates on it is told that nothing can be said; of errors something can.
    let gate = |b: &str| loadgen(&["compare", &json, b, "--fail-if-worse", "5"]);
    let out = gate(&json);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out.stdout));
    assert!(text(&out.stderr).contains("too short"), "{}", text(&out.stderr));
    let mut failed = told.clone();
    failed["errors"]["total"] = failed["requests"].clone();
    let wrong = path("wrong.json");
    std::fs::write(&wrong, failed.to_string()).unwrap();
    assert_eq!(gate(&wrong).status.code(), Some(3), "{}", text(&gate(&wrong).stdout));
    let out = loadgen(&["compare", &json, &csv]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("--json"));
}

#[test]
fn what_the_balancer_cannot_tell_is_exit_4() {
    let (_origins, url) = origin();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    let out = loadgen(&[&url, "--admin", &admin]);
    assert_eq!(out.status.code(), Some(4));
    let told = text(&out.stderr);
    assert!(told.contains("[admin]") && told.contains("--wait 10s"), "{told}");
    let out = loadgen(&[&url, "--access-log", "/no/such/log"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(text(&out.stderr).contains("[access_log]"));
}

/// Runs a line of sh in a network namespace of its own, loopback up; loadgen's JSON report.
fn isolated(script: &str) -> serde_json::Value {
    let (code, json) = isolated_code(script);
    assert_eq!(code, Some(0), "{json}");
    json
}

/// The same, and its exit code.
fn isolated_code(script: &str) -> (Option<i32>, serde_json::Value) {
    let owner = std::fs::metadata("/proc/self").map(|meta| meta.uid()).unwrap();
    let mut command = Command::new("unshare");
    command.args(if owner == 0 { &["--net"][..] } else { &["--net", "--user", "--map-root-user"] });
    let script = format!("ip link set lo up && {script}");
    let out = command.args(["sh", "-c", &script]).output().unwrap();
    let json = serde_json::from_slice(&out.stdout);
    (out.status.code(), json.unwrap_or_else(|error| panic!("{error}: {}", text(&out.stderr))))
}

/// R4.5-3: twenty client ports for forty connections, in a network namespace of their own.
#[test]
fn running_out_of_client_ports_is_named() {
    let json = isolated(&format!(
        "echo 50000 50019 > /proc/sys/net/ipv4/ip_local_port_range && \
         exec {} http://127.0.0.1:9000/ --serve 127.0.0.1:9000 --connections 40 --duration 1s \
         --warmup 0s --json -",
        assert_cmd::cargo::cargo_bin!("loadgen").display()
    ));
    assert_eq!(json["limits"]["ports"], serde_json::json!([50000, 50019]));
    assert!(json["limits"]["out_of_ports"].as_u64().unwrap() >= 20, "{}", json["limits"]);
    let notes = json["notes"].to_string();
    assert!(notes.contains("EADDRNOTAVAIL") && notes.contains("has 20 ports"), "{notes}");
}

/// R4.5-3: the same of connections that are held; two of our addresses have twice as many ports.
#[test]
fn idle_connections_without_ports_fail() {
    let folder = tempfile::tempdir().unwrap();
    let held = |source: &str| {
        isolated_code(&format!(
            "cd {} && echo 50000 50019 > /proc/sys/net/ipv4/ip_local_port_range || exit 99; \
             {loadgen} serve --listen 127.0.0.1:9000 > ready & \
             timeout 30 sh -c 'until grep -q ready ready; do sleep 0.02; done'; \
             {loadgen} idle http://127.0.0.1:9000/ -c 40 --hold 100ms --json - {source}; \
             code=$?; kill $!; exit $code",
            folder.path().display(),
            loadgen = assert_cmd::cargo::cargo_bin!("loadgen").display()
        ))
    };
    let (code, json) = held("");
    assert_eq!((code, &json["held"]), (Some(3), &20.into()), "{json}");
    assert_eq!(json["limits"]["out_of_ports"], 20);
    let notes = json["notes"].to_string();
    for part in ["only 20 of 40", "EADDRNOTAVAIL", "has 20 ports", "--source"] {
        assert!(notes.contains(part), "{part} in {notes}");
    }
    let (code, json) = held("--fail-if 'held<20'");
    assert_eq!((code, &json["held"]), (Some(0), &20.into()), "{json}");
    let (code, json) = held("--source 127.0.0.1,127.0.0.2");
    assert_eq!((code, &json["held"]), (Some(0), &40.into()), "{json}");
}

/// R4.5-4: a connection whose first SYN is dropped waits a second; the report counts and says it.
#[test]
fn syns_that_were_sent_again_are_named() {
    let json = isolated(&format!(
        "nft 'add table ip t' && \
         nft 'add chain ip t in {{ type filter hook input priority 0; }}' && \
         nft 'add rule ip t in tcp dport 9000 tcp flags & (syn|ack) == syn \
              limit rate 1/day burst 3 packets drop' && \
         exec {} http://127.0.0.1:9000/ --serve 127.0.0.1:9000 --connections 8 --requests 20 \
         --close --warmup 0s --json -",
        assert_cmd::cargo::cargo_bin!("loadgen").display()
    ));
    let count = |key: &str| json["limits"][key].as_u64().unwrap();
    // There is nobody else in this namespace.
    let (own, all) = (count("own_syn_retransmits"), count("syn_retransmits"));
    assert!(own >= 3 && own <= all, "{}", json["limits"]);
    assert_eq!((&json["answers"], &json["limits"]["listen_drops"]), (&20.into(), &0.into()));
    assert!(json["latency"]["connect"]["max"].as_f64().unwrap() >= 0.9, "{}", json["latency"]);
    let notes = json["notes"].to_string();
    assert!(
        notes.contains("SYNs of loadgen's connections") && notes.contains("packet filters"),
        "{notes}"
    );
}

#[test]
fn fail_if_decides_the_exit_code() {
    let (_origins, url) = origin();
    let run = |condition: &str| {
        loadgen(&[&url, "--requests", "20", "--warmup", "0s", "--fail-if", condition])
    };
    assert_eq!(run("errors>0").status.code(), Some(0));
    let out = run("requests>=20");
    assert_eq!(out.status.code(), Some(3));
    assert!(text(&out.stderr).contains("failed: requests>=20 holds, it was 20"));
    assert!(text(&out.stdout).contains("requests"), "the report is there all the same");
    // R4.3-5: all answers are of "a".
    let weights = ["--requests", "20", "--warmup", "0s", "--expect-weights", "a=1,b=1"];
    let shares = |condition| loadgen(&[&[url.as_str()], &weights[..], &[condition]].concat());
    let out = shares("--fail-if=shares<1%");
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("do NOT agree"));
    assert_eq!(shares("--fail-if=shares.off>60%").status.code(), Some(0));
}

#[test]
fn an_untestable_target_is_exit_4() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", port.local_addr().unwrap());
    drop(port);
    let out = loadgen(&[&url, "--duration", "600s"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(
        text(&out.stderr).contains("refused")
            && text(&out.stderr).contains("is the target running")
    );
    assert!(out.stdout.is_empty());
    let out = loadgen(&["idle", &url, "--connections", "3"]);
    assert_eq!(out.status.code(), Some(4));
}

/// A port of ours that refuses connections until it listens.
fn silent() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Answers one request after another, each on a connection of its own and by its number.
fn answer_each(listener: &TcpListener, mut answer: impl FnMut(usize) -> String) {
    for number in 0.. {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        let _ = stream.write_all(answer(number).as_bytes());
    }
}

/// A balancer that is starting: its admin listener answers with errors first, and its port refuses
/// for longer than that.
#[test]
fn a_target_that_starts_is_waited_for() {
    let (port, target) = silent();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", admin.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut port = Some(port);
        answer_each(&admin, |number| match number {
            0 => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into(),
            _ => {
                if number == 2 {
                    let port = port.take().unwrap();
                    port.listen(16).unwrap();
                    std::thread::spawn(move || {
                        let listener = TcpListener::from(port);
                        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        answer_each(&listener, |_| ok.into());
                    });
                }
                "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\nweir_requests 1\n\n\n".into()
            }
        });
    });
    let target = format!("http://{target}/");
    let run = [&target, "--admin", &url, "--close", "-c", "1", "-n", "5", "--warmup", "0s"];
    let out = loadgen(&[&run[..], &["--wait", "30s"]].concat());
    let told = text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{told}");
    assert!(told.contains("waiting for at most 30s") && told.contains("with 503"), "{told}");
    assert_eq!(told.matches("waiting").count(), 1, "{told}");
}

#[test]
fn waiting_has_an_end() {
    let (_port, target) = silent();
    let url = format!("http://{target}/");
    let out = loadgen(&[&url, "--wait", "300ms", "-q"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(text(&out.stderr).contains("is the target running"), "{}", text(&out.stderr));
    // And ends when it is told to.
    let mut knee = command();
    knee.args(["knee", &url, "--slo", "p99<5ms", "--wait", "600s"]).stderr(Stdio::piped());
    let mut child = Running(knee.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("waiting for at most 600s"), "{line}");
    signal(&child.0, "INT");
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
}

/// A wrong certificate, somebody who speaks no TLS, or no HTTP, and somebody who says nothing.
#[test]
fn who_can_not_be_tested_is_told_by_his_fault() {
    let files = certs::Files::new(&["other.example"]);
    let (certificate, private_key) = (files.chain.clone(), files.key.clone());
    let tls = Some(OriginTls { certificate, private_key });
    let secure = Origins::start(None, vec![OriginSpec { tls, ..OriginSpec::new("a") }]).unwrap();
    let other = server::scripted(b"220 mail.example ready\r\n", 99, false);
    let plain = Origins::start(None, vec![OriginSpec::new("b")]).unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ca = files.ca.to_str().unwrap();
    let limits = ["--timeout", "2s", "--duration", "3s", "--warmup", "0s", "-c", "2"];
    for (scheme, addr, flags, part) in [
        ("https", secure.addrs()[0], &["--ca", ca][..], "another name"),
        ("https", plain.addrs()[0], &["--ca", ca], "speaks no TLS there: plain HTTP came"),
        ("http", other.addr, &[], "not HTTP/1"),
        ("http", silent.local_addr().unwrap(), &[], "within the time limit"),
    ] {
        let url = format!("{scheme}://{addr}/");
        let out = loadgen(&[&[url.as_str()], flags, &limits[..]].concat());
        assert_eq!(out.status.code(), Some(4), "{}{}", text(&out.stdout), text(&out.stderr));
        let said = text(&out.stderr);
        assert!(said.contains(part) && said.contains(&addr.to_string()), "{part} in {said}");
        assert!(out.stdout.is_empty(), "{}", text(&out.stdout));
    }
}

/// No former report is left where none came; a command line that is refused touches nothing.
#[test]
fn no_report_leaves_no_former_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", port.local_addr().unwrap());
    drop(port);
    let (json, html) = (path("r.json"), path("r.html"));
    for file in [&json, &html] {
        std::fs::write(file, "former").unwrap();
    }
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let out = loadgen(&[&[url.as_str(), "--fail-if", "lost>0"], &files[..]].concat());
    assert_eq!(out.status.code(), Some(2));
    assert!(json.exists() && html.exists());
    let out = loadgen(&[&[url.as_str()], &files[..]].concat());
    assert_eq!(out.status.code(), Some(4));
    assert!(!json.exists() && !html.exists());
}

/// R4.5-4: a member whose accept queue holds two connections, and that is stopped until somebody
/// was turned away.
#[test]
fn a_full_accept_queue_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (code, json) = isolated_code(&format!(
        "cd {} && echo 1 > /proc/sys/net/core/somaxconn || exit 99; \
         overflows() {{ awk '/^TcpExt:/ {{ if (n) exit !($n > 0); \
             for (i = 1; i <= NF; i++) if ($i == \"ListenOverflows\") n = i }}' \
             /proc/net/netstat; }}; \
         {loadgen} serve --listen 127.0.0.1:9000 > ready & server=$!; \
         timeout 30 sh -c 'until grep -q ready ready; do sleep 0.02; done'; kill -STOP $server; \
         {loadgen} http://127.0.0.1:9000/ -c 8 -n 40 --warmup 0s --json r.json -q > /dev/null & \
         n=0; until overflows || [ $n -gt 1500 ]; do n=$((n + 1)); sleep 0.02; done; \
         kill -CONT $server; wait $!; code=$?; kill $server; cat r.json; exit $code",
        folder.path().display(),
        loadgen = assert_cmd::cargo::cargo_bin!("loadgen").display()
    ));
    assert_eq!((code, &json["answers"]), (Some(0), &40.into()), "{json}");
    assert!(json["limits"]["listen_overflows"].as_u64().unwrap() > 0, "{}", json["limits"]);
    let notes = json["notes"].to_string();
    for part in ["ListenOverflows", "net.core.somaxconn (now 1)", "dropped some"] {
        assert!(notes.contains(part), "{part} in {notes}");
    }
}

/// Members that run beside the load can do what those of `loadgen serve` can.
#[test]
fn members_beside_the_load_speak_and_fail() {
    let files = certs::Files::new(&["127.0.0.1"]);
    let path = |path: &std::path::Path| path.to_str().unwrap().to_string();
    let (chain, key, ca) = (path(&files.chain), path(&files.key), path(&files.ca));
    let with = |scheme: &str, flags: &[&str]| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap().to_string();
        drop(free);
        let url = format!("{scheme}://{addr}");
        let load = [&url, "--serve", &addr, "-c", "2", "-n", "40", "--warmup", "0s", "--json", "-"];
        let out = loadgen(&[&load[..], flags].concat());
        assert_eq!(out.status.code(), Some(0), "{flags:?}: {}", text(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    let tls = ["--serve-certificate", &chain, "--serve-private-key", &key, "--ca", &ca];
    let json = with("https", &[&tls[..], &["--serve-http2", "--http2"]].concat());
    assert_eq!((&json["answers"], &json["streams"]), (&40.into(), &1.into()), "{json}");
    let json = with("tcp", &["--serve-speaks", "echo"]);
    assert_eq!((&json["answers"], &json["errors"]["total"]), (&40.into(), &0.into()), "{json}");
    let json = with("http", &["--serve-reset-rate", "0.5", "--serve-status", "404"]);
    assert!(json["errors"]["reset"].as_u64().unwrap() > 5, "{json}");
    assert_eq!(json["errors"]["status"], json["statuses"]["404"]);
    let json = with("http", &["--serve-body-size", "4k", "--serve-bytes-per-second", "20k"]);
    assert!(json["latency"]["body"]["p50"].as_f64().unwrap() > 0.09, "{}", json["latency"]);
}

#[test]
fn bad_command_lines_are_exit_2() {
    for args in [
        &[][..],
        &["--nonsense"],
        &["tcp://127.0.0.1:1", "--http2"],
        &["http://127.0.0.1:1/", "--html", "-", "--json", "-"],
        &["https://127.0.0.1:1/", "--ca", "/no/such/file"],
        &["http://127.0.0.1:1/", "--fail-if", "p99>20"],
        &["http://127.0.0.1:1/", "--json", "/no/such/folder/x.json"],
        // What would be taken and have no effect.
        &["tcp://127.0.0.1:1", "--expect-body", "x"],
        &["tcp://127.0.0.1:1", "--expect-status", "200"],
        &["tcp://127.0.0.1:1", "--expect-weights", "a=1"],
        &["tcp://127.0.0.1:1", "-X", "PUT"],
        &["http://127.0.0.1:1/", "--insecure"],
        &["http://127.0.0.1:1/", "--size", "1M"],
        &["http://127.0.0.1:1/", "http://127.0.0.1:1/b", "--templates", "Cargo.toml"],
        // What could never hold.
        &["http://127.0.0.1:1/", "--fail-if", "lost>=0"],
        &["http://127.0.0.1:1/", "--fail-if", "tls.p99>1ns"],
        &["knee", "http://127.0.0.1:1/", "--slo", "lost<1"],
        &["knee", "--slo", "p99<5ms"],
        &["knee", "http://127.0.0.1:1/"],
        &["knee", "http://127.0.0.1:1/", "--slo", "p99<5ms", "--rate", "5"],
        &["knee", "http://127.0.0.1:1/", "--slo", "p99<5ms", "--csv", "x"],
        &["sweep"],
        &["drill", "reload"],
        &["drill", "reload", "http://127.0.0.1:1/", "--rate", "5"],
        &["drill", "kill-member", "http://127.0.0.1:1/", "--rate", "5"],
        &["http://127.0.0.1:1/", "--rounds", "5"],
        &["udp://127.0.0.1:1", "--wait", "1s"],
        &["sweep", "http://127.0.0.1:1/", "--slo", "p99<5ms", "--config", "x", "--wait", "1s"],
        &["compare", "/no/such/a.json", "b.json"],
        &["idle", "http://127.0.0.1:1/"],
        &["idle", "http://127.0.0.1:1/", "-c", "1", "--fail-if", "p99>1ms"],
        &["idle", "http://127.0.0.1:1/", "-c", "1", "--fail-if", "memory>1k"],
        &["serve", "--status", "99"],
    ] {
        let out = loadgen(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", text(&out.stderr));
        assert!(!out.stderr.is_empty() && out.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn the_help_of_a_job_has_its_flags() {
    let out = loadgen(&["--help"]);
    assert_eq!(out.status.code(), Some(0));
    for flag in [
        "--rate",
        "--requests-per-connection",
        "--fail-if",
        "--warmup",
        "idle",
        "serve",
        // Headings, examples, what can be judged.
        "Connections:",
        "Members of our own:",
        "Examples:",
        "shares.off",
        "lateness",
    ] {
        assert!(text(&out.stdout).contains(flag), "{flag}");
    }
    // What a job refuses is not in its help.
    let help = |job: &str| text(&loadgen(&[job, "--help"]).stdout);
    for (job, flags) in [
        ("knee", &["--rate", "--requests ", "--csv", "--html", "--direct", "--fail-if"][..]),
        ("sweep", &["--rate", "--requests ", "--csv", "--html", "--direct", "--fail-if", "--pid"]),
        ("drill", &["--direct", "--rounds", "--requests "]),
    ] {
        let help = help(job);
        assert!(help.contains("--connections"), "{help}");
        for flag in flags {
            assert!(!help.contains(flag), "{job} {flag}");
        }
    }
}

/// R4.5-1: members that a balancer can be measured in front of.
#[test]
fn serve_announces_itself_and_ends_on_a_signal() {
    let mut command = command();
    command.args(["serve", "--name", "m", "--body-size", "10"]).stdout(Stdio::piped());
    let mut child = Running(command.spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let addr: SocketAddr = line.strip_prefix("m ready on ").unwrap().trim().parse().unwrap();
    let url = format!("http://{addr}/");
    let load = loadgen(&[&url, "--connections", "3", "--requests", "30", "--warmup", "0s"]);
    assert_eq!(load.status.code(), Some(0), "{}", text(&load.stderr));
    signal(&child.0, "TERM");
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "m answered 30 requests on 3 connections\n");
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn an_interrupt_ends_holding_with_a_report() {
    let (origins, url) = origin();
    let idle = |url: &str| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("loadgen"));
        command.args([
            "idle",
            url,
            "-c",
            "5",
            "--hold",
            "600s",
            "--timeout",
            "600s",
            "--json",
            "-",
        ]);
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let mut child = idle(&url);
    until("held connections", || origins.requests(0) == 5);
    signal(&child.0, "INT");
    let mut out = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["stopped_early"], &json["held"]), (&true.into(), &5.into()), "{out}");
    assert!(json["hold"].as_f64().unwrap() < 600.0);
    // Nobody answers there: there is nothing to tell, but that it was stopped.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = idle(&format!("http://{}/", silent.local_addr().unwrap()));
    silent.accept().unwrap();
    signal(&child.0, "INT");
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("stopped"), "{said}");
}

#[test]
fn an_interrupt_gives_a_partial_report() {
    let (origins, url) = origin();
    let mut command = command();
    command.args([&url, "--duration", "600s", "--warmup", "0s", "--json", "-"]);
    let mut child = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    until("load", || origins.requests(0) > 200);
    signal(&child.0, "INT");
    let mut out = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["stopped_early"], true);
    assert!(json["requests"].as_u64().unwrap() > 0);
}

/// Who has heard nothing when it is interrupted tells that, too.
#[test]
fn an_interrupt_of_a_silent_target_gives_a_report() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let direct = ["--direct", url.as_str(), "--rounds", "3"];
    for more in [&[][..], &direct] {
        let mut command = command();
        command.args([&url, "--connections", "2", "--duration", "600s", "--warmup", "0s", "-q"]);
        let mut child = Running(command.args(more).stdout(Stdio::piped()).spawn().unwrap());
        // The window has begun when the first request is there.
        let (mut conn, _) = silent.accept().unwrap();
        conn.read_exact(&mut [0; 16]).unwrap();
        signal(&child.0, "INT");
        let mut out = String::new();
        child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(130), "{out}");
        assert!(out.contains("stopped early"), "{out}");
        let part = if more.is_empty() { "requests" } else { "as far as it came" };
        assert!(out.contains(part), "{out}");
        // The other connection of this one.
        drop(silent.accept().unwrap());
    }
}

/// The soft limit of open files is raised to the hard one, and what members of `--serve` need is
/// reckoned with.
#[test]
fn open_files_of_both_ends_are_counted() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = port.local_addr().unwrap().to_string();
    drop(port);
    let url = format!("http://{addr}/");
    let run = |limit: &str| {
        let program = assert_cmd::cargo::cargo_bin!("loadgen");
        let script = format!("{limit}; exec \"$0\" \"$@\"");
        let args = [&url, "--serve", &addr, "-n", "900", "--connections", "300", "-q"];
        Command::new("sh").arg("-c").arg(script).arg(program).args(args).output().unwrap()
    };
    let out = run("ulimit -Sn 200");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(!text(&out.stdout).contains("EMFILE"), "{}", text(&out.stdout));
    let out = run("ulimit -n 500");
    assert_eq!(out.status.code(), Some(4), "{}", text(&out.stdout));
    let told = text(&out.stderr);
    assert!(told.contains("both ends") && told.contains("need 664 open files"), "{told}");
}
