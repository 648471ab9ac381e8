//! How long quiet connections and flows live, to the second, and when the limit is changed.

use std::time::Duration;

use weir_core::time::clock;

use crate::echo::{self, Client};
use crate::plan;
use crate::process::{RUN_DIR, Server, address_after, pass_time, until};

/// Both listeners with this limit, and a log of what has ended.
fn text(limit: u32, member: std::net::SocketAddr) -> String {
    let log = format!("[connection_log]\npath = \"{RUN_DIR}.log\"");
    plan(&format!("keepalive_timeout = {limit}"), "", &[(member, 1)], "") + &log
}

/// One client of each protocol.
fn clients(server: &Server) -> [Client; 2] {
    [("web", "tcp"), ("dns", "udp")].map(|(name, scheme)| {
        let to = address_after(&server.ready, &format!("{name} {scheme}://"));
        let mut client = Client::from("127.0.0.1", scheme, to).unwrap();
        client.ask("hello").unwrap();
        client
    })
}

fn reload(server: &Server, text: &str) {
    let (code, out, err) = server.reload(text);
    assert_eq!(code, Some(0), "{out}{err}");
}

/// How many have ended, of either listener, for being idle.
fn ended(server: &Server) -> [f64; 2] {
    ["web", "dns"].map(|name| {
        let labels = format!("{{listener=\"{name}\",how=\"idle\"}}");
        server.counted(&format!("weir_ended_connections_total{labels}"))
    })
}

/// R6.7-14: a changed `keepalive_timeout` holds at once for connections and flows that there are:
/// they end at the new limit, they live on beyond the old one, and whoever was quiet for longer
/// than the new one ends with the change.
#[test]
fn a_changed_limit_holds_at_once() {
    let member = echo::member();
    let (long, short) = (text(4_000, member), text(10, member));
    let (shrinks, grows) = (Server::start(&long), Server::start(&short));
    let (_kept, begun) = ([clients(&shrinks), clients(&grows)], clock::mono());
    reload(&grows, &long);
    reload(&shrinks, &short);
    until("the new limit", || ended(&shrinks) == [1.0; 2]);
    assert!(clock::mono().since(begun) >= Duration::from_millis(9_900), "too early");
    // The old limit is over for good.
    pass_time(Duration::from_secs(12).saturating_sub(clock::mono().since(begun)));
    assert_eq!(grows.sum("weir_active_connections"), 2.0);
    assert_eq!(ended(&grows), [0.0; 2]);
    let changed = clock::mono();
    reload(&grows, &short);
    until("those that were quiet for longer to end", || ended(&grows) == [1.0; 2]);
    assert!(clock::mono().since(changed) < Duration::from_secs(8), "the limit began anew");
}

/// R6.7-15: no quiet connection or flow ends before its time, and of several at least one, which
/// the machine did not hold up, ends within a second behind it; by Weir's own clock.
#[test]
fn quiet_ones_end_on_time() {
    let server = Server::start(&text(10, echo::member()));
    let held: Vec<_> = (0..8).map(|_| clients(&server)).collect();
    until("the limit", || ended(&server) == [8.0; 2]);
    let path = server.file.run_dir().with_file_name("run.log");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    until("all lines", || text().lines().count() == 2 * held.len() && text().ends_with('\n'));
    for name in ["web", "dns"] {
        let lines = text();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        let of_this = |line: &serde_json::Value| line["listener_usr_name"] == name;
        let lived = |line: serde_json::Value| line["duration"].as_f64().unwrap();
        let lived: Vec<f64> = lines.filter(of_this).map(lived).collect();
        assert_eq!(lived.len(), held.len(), "{name}");
        assert!(lived.iter().all(|lived| *lived >= 10.0), "too early: {name} {lived:?}");
        assert!(lived.iter().any(|lived| *lived < 11.0), "too late: {name} {lived:?}");
    }
}
