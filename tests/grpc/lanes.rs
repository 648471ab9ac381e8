//! Clients of HTTP/1.1 in front of a GRPC pool: each request is a stream of a connection that they
//! share.

use std::net::SocketAddr;
use std::process::Command;

use crate::peers::{Member, Pool, Site};
use crate::process::count;

/// What curl hears to a call whose message is `message`, so many times on one connection.
fn call(address: SocketAddr, site: &Site, method: &str, message: &[u8], times: usize) -> Vec<u8> {
    let body = site.path("body");
    let framed = [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
    std::fs::write(&body, framed).unwrap();
    let port = address.port();
    let mut curl = Command::new("curl");
    curl.args(["-s", "--http1.1", "--noproxy", "*", "--max-time", "30", "--fail"])
        .args(["--resolve", &format!("app.example:{port}:{}", address.ip()), "--cacert"])
        .arg(site.path("ca.pem"))
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary"])
        .arg(format!("@{}", body.display()));
    (0..times).for_each(|_| {
        curl.arg(format!("https://app.example:{port}/weir.test/{method}"));
    });
    let out = curl.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    out.stdout
}

/// The messages of an answer.
fn messages(mut answer: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some((head, rest)) = answer.split_first_chunk::<5>() {
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (message, behind) = rest.split_at(len);
        found.push(message);
        answer = behind;
    }
    assert!(answer.is_empty(), "{} bytes too many", answer.len());
    found
}

/// R6.8-4, R6.8-5: a GRPC pool behind an HTTPS listener, in clear text and inside TLS; few
/// connections carry all.
#[test]
fn requests_share_connections() {
    let site = Site::new();
    let (pem, key) = (site.path("app.pem"), site.path("app.key"));
    let secure = ["--tls", pem.to_str().unwrap(), key.to_str().unwrap()];
    for (more, lines) in [(&[][..], ""), (&secure[..], "tls = { server_name = \"app.example\" }")] {
        let member = Member::start("a", more);
        let members = [member.address];
        let (server, address) = site.serve(Pool { name: "app", lines, members: &members });
        let times = count(50, 1_000);
        let heard = call(address, &site, "Unary", b"hello", times);
        assert_eq!(messages(&heard), vec![&b"hello"[..]; times]);
        let large: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect();
        assert_eq!(messages(&call(address, &site, "Unary", &large, 1)), [&large[..]]);
        assert_eq!(messages(&call(address, &site, "Down", b"300", 1)).len(), 300);
        let shards = std::thread::available_parallelism().unwrap().get();
        assert!(server.sum("weir_member_connections_total") <= shards as f64);
    }
}
