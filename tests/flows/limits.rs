//! Limits of a listener and of the process, over TCP and UDP: who is refused, and by which reason.

use std::net::SocketAddr;

use crate::echo::{self, Client};
use crate::plan;
use crate::process::{Server, address_after, until};

/// The listeners of a plan, with the schemes that they are told with.
const LISTENERS: [(&str, &str); 2] = [("web", "tcp"), ("dns", "udp")];

/// Every reason that a limit has.
const REASONS: [&str; 4] = ["connection_limit", "cps_limit", "source_limit", "process_limit"];

/// A server with one shard, this line for both listeners, and this one for the process.
fn start(listener: &str, process: &str) -> Server {
    let runtime = format!("[runtime]\ncores = [0]\n{process}\n");
    let text = plan(listener, "", &[(echo::member(), 1)], "").replace("[runtime]\n", &runtime);
    Server::start(&text)
}

/// What a listener counts: connections (or flows) let in, refused for this reason, and for others.
fn counts(server: &Server, name: &str, reason: &str) -> [f64; 3] {
    let refused = |reason: &&str| {
        let labels = format!("{{listener=\"{name}\",reason=\"{reason}\"}}");
        server.counted(&format!("weir_refused_connections_total{labels}"))
    };
    let let_in = server.metric(&format!("weir_connections_total{{listener=\"{name}\"}}"));
    let others = REASONS.iter().filter(|other| **other != reason);
    [let_in, refused(&reason), others.map(refused).sum()]
}

/// A newcomer's first words; is it served? What is refused over UDP is only counted.
fn is_served(server: &Server, ip: &str, scheme: &str, to: SocketAddr) -> bool {
    match Client::from(ip, scheme, to) {
        Ok(Client::Udp(socket)) => {
            let seen = || {
                let refused = server.sum("weir_refused_connections_total");
                (server.sum("weir_connections_total"), refused)
            };
            let before = seen();
            socket.send(b"hello").unwrap();
            until("the datagram to be judged", || seen() != before);
            seen().0 > before.0
        }
        client => client.and_then(|mut client| client.ask("hello")).is_ok(),
    }
}

/// Two may be served, who go on talking; the next ones are refused. `false` where a flow was not
/// heard for so long that it gave way to a newcomer: the machine stood still.
fn two_have_room((listener, process, reason): (&str, &str, &str), of: (&str, &str)) -> bool {
    let (server, (name, scheme)) = (start(listener, process), of);
    let to = address_after(&server.ready, &format!("{name} {scheme}://"));
    let mut held = [0; 2].map(|_| Client::from("127.0.0.1", scheme, to).unwrap());
    let mut refused = 0.0;
    for (ip, same_source) in [("127.0.0.1", true), ("127.0.0.1", true), ("127.0.0.2", false)] {
        held.iter_mut().for_each(|client| client.ask("again").unwrap());
        let expected = reason == "source_limit" && !same_source;
        let served = is_served(&server, ip, scheme, to);
        if served && !expected && scheme == "udp" {
            let how = format!("{{listener=\"{name}\",how=\"evicted\"}}");
            assert!(server.metric(&format!("weir_ended_connections_total{how}")) > 0.0);
            return false;
        }
        assert_eq!(served, expected, "{name}: {reason} from {ip}");
        refused += f64::from(u8::from(!expected));
        let let_in = 2.0 + f64::from(u8::from(expected));
        assert_eq!(counts(&server, name, reason), [let_in, refused, 0.0], "{name}");
    }
    held.iter_mut().for_each(|client| client.ask("again").unwrap());
    if scheme == "tcp" {
        drop(held);
        until("room", || is_served(&server, "127.0.0.1", scheme, to));
    }
    true
}

/// C19: each limit refuses over each protocol, for its own reason, those who are too many,
/// and nobody else.
#[test]
fn each_limit_refuses_for_its_reason() {
    for limit in [
        ("connection = 2", "", "connection_limit"),
        ("connections_per_source = 2", "", "source_limit"),
        ("", "max_connections = 2", "process_limit"),
    ] {
        for of in LISTENERS {
            until("a try that nothing disturbs", || two_have_room(limit, of));
        }
    }
}

/// C19: so many new ones a second, the others are refused, and the next second has room
/// for more.
#[test]
fn the_rate_refuses_for_its_reason() {
    for (name, scheme) in LISTENERS {
        let server = start("cps = 2", "");
        let to = address_after(&server.ready, &format!("{name} {scheme}://"));
        let (mut served, mut refused) = (0.0, 0.0);
        let mut come = || {
            let is_served = is_served(&server, "127.0.0.1", scheme, to);
            *(if is_served { &mut served } else { &mut refused }) += 1.0;
            assert_eq!(counts(&server, name, "cps_limit"), [served, refused, 0.0], "{name}");
            is_served
        };
        assert!(come() && come(), "{name}: a second's worth may come at once");
        until("a refusal", || !come());
        until("the next second", come);
    }
}
