//! Health checks by gRPC.

use std::net::SocketAddr;

use crate::peers::{Member, Pool, Site};
use crate::process::{self, Server, until};

fn check(more: &str) -> String {
    format!(
        "healthmonitor = {{ type = \"GRPC\", delay = 1, timeout = 2, max_retries = 1, {more} }}\n"
    )
}

/// 1, 0, or nothing where the member isn't checked.
fn up(server: &Server, pool: &str) -> Option<bool> {
    let text = server.metrics();
    let series = format!("weir_member_up{{pool=\"{pool}\",");
    let line = text.lines().find(|line| line.starts_with(&series))?;
    Some(line.ends_with(" 1"))
}

/// R8.9-4: a service is asked for by the path; what it says counts, and so does the status of a
/// call where the file lists it. Who has no health service, or no HTTP/2, is down; in clear text or
/// inside TLS. So is who shows a certificate that is not trusted, or has expired.
#[test]
fn services_say_whether_they_serve() {
    let site = Site::new();
    let secure = |name: &str| {
        let files = ["pem", "key"].map(|kind| site.path(&format!("{name}.{kind}")));
        Member::start(name, &["--tls", files[0].to_str().unwrap(), files[1].to_str().unwrap()])
    };
    let plain = Member::start("plain", &[]);
    let (tls, expired) = (secure("app"), secure("expired"));
    let without = Member::start("without", &["--no-health"]);
    let http1 = process::Member::start("http1");
    let cases: [(&str, SocketAddr, &str, Result<(), &str>); 17] = [
        ("whole", plain.address, "", Ok(())),
        ("service", plain.address, "url_path = \"/shop.Cart\"", Ok(())),
        ("asleep", plain.address, "url_path = \"/asleep\"", Err("not_serving")),
        ("unknown", plain.address, "url_path = \"/unknown\"", Err("unexpected_status")),
        ("listed", plain.address, "url_path = \"/unknown\", expected_codes = \"0,5\"", Ok(())),
        ("zero", plain.address, "url_path = \"/asleep\", expected_codes = \"1-3\"", {
            Err("unexpected_status")
        }),
        ("none", without.address, "", Err("unexpected_status")),
        ("twelve", without.address, "expected_codes = \"12\"", Ok(())),
        ("http1", http1.addr, "", Err("invalid_response")),
        ("secure", tls.address, "", Ok(())),
        ("clear", tls.address, "", Err("")),
        // What was expected, and what came.
        ("told", plain.address, "url_path = \"/unknown\"", Err("expected 0, got 5")),
        ("secure plain", plain.address, "", Err("SSL_HANDSHAKE_ERROR")),
        ("verified", tls.address, "", Err("SSL_HANDSHAKE_ERROR (certificate_unknown)")),
        ("trusted", tls.address, "", Ok(())),
        ("expired", expired.address, "", Err("SSL_HANDSHAKE_ERROR (certificate_expired)")),
        ("secure http1", http1.addr, "", Err("SSL_HANDSHAKE_ERROR")),
    ];
    let lines: Vec<String> = cases
        .iter()
        .map(|(name, _, more, _)| {
            let tls = match *name {
                "verified" => "tls = { verify = true, server_name = \"app.example\" }\n",
                "trusted" | "expired" => {
                    "tls = { verify = true, ca = \"ca\", server_name = \"app.example\" }\n"
                }
                name if name.starts_with("secure") => "tls = {}\n",
                _ => "",
            };
            format!("{tls}{}", check(more))
        })
        .collect();
    let members: Vec<[SocketAddr; 1]> = cases.iter().map(|case| [case.1]).collect();
    let pools: Vec<Pool<'_>> = (cases.iter().zip(&lines).zip(&members))
        .map(|((case, lines), members)| Pool { name: case.0, lines, members })
        .collect();
    let mut server = Server::start(&site.file(&pools));
    for (name, _, _, wanted) in &cases {
        until(name, || up(&server, name) == Some(wanted.is_ok()));
    }
    for (name, _, _, wanted) in cases {
        let Err(reason) = wanted else { continue };
        let words = format!("pool {name}");
        let line = match server.log.iter().find(|line| line.contains(&words)) {
            Some(line) => line.clone(),
            None => server.line_with(&words),
        };
        assert!(line.contains("first check failed") && line.contains(reason), "{name}: {line}");
    }
}

/// R8.9-4: a member that dies is found out.
#[test]
fn the_dead_are_found_out() {
    let site = Site::new();
    let mut member = Member::start("a", &[]);
    let members = [member.address];
    let lines = check("");
    let (mut server, _) = site.serve(Pool { name: "app", lines: &lines, members: &members });
    assert_eq!(up(&server, "app"), Some(true));
    member.peer.kill();
    let line = server.line_with("is down");
    assert!(line.contains("connect_refused"), "{line}");
    until("it to be shown", || up(&server, "app") == Some(false));
}
