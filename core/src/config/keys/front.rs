//! Rows of balancers and listeners.

use super::Effect::{Reload, Replace};
use super::Kind::{
    Addresses, Bool, Choice, Integer, Name, Networks, Reference, References, Seconds, Shape, Table,
    Uuid,
};
use super::Preset::{Absent, Number, Required, Text};
use super::Stage::Now;
use super::{ALL, ID, ID_DOC, Key, L4, L7, NO, NO_ENTRY, NONE, YES, keys};
use crate::config::bounds::MAX_CONNECTIONS;
use crate::model::CIPHER_POLICIES;

const TLS: &str = "HTTPS";

keys! {
    ["loadbalancer"]
    "id": Uuid, ID, ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Replace, "", Now,
        "Name, unique among balancers.";
    "flavor": Choice(&["dedicated", "shared"], &[]),
        Text("\"dedicated\""), ALL, Replace, "R3.16-1", Now,
        "`dedicated` or `shared`; selects every difference that the requirements mark D or S.";
    "spec": Shape("list of strings", "`\"network\"`, `\"application\"`; at least one"),
        Text("[\"network\", \"application\"]"), ALL, Replace, "R6.9-1", Now,
        "Dedicated only: TCP and UDP listeners, HTTP and HTTPS listeners, or both.";
    "vip_address": Shape("string or list of strings", "1–64 IP addresses, none twice; shared: \
        IPv4 only (R3.17-1)"),
        Absent("every address of the host: `[\"0.0.0.0\", \"::\"]`, shared `[\"0.0.0.0\"]`"),
        ALL, Replace, "R3.17-2", Now,
        "Addresses that the balancer's listeners bind; an IPv6 entry binds IPv6 alone.";
    "network": Networks, NO_ENTRY, ALL, Replace, "R3.11-1", Now,
        "Members must lie in these where the balancer is shared or `ip_target_enable` is false; \
            empty = not checked. Only members inside see the client's own address.";
    "ip_target_enable": Bool, YES, ALL, Reload, "R3.11-2", Now,
        "May members be anywhere, so that Layer 4 uses the balancer's own address (C7)? `false` \
            needs CAP_NET_ADMIN and routes: `docs/transparent.md`.";
    "passthrough_fallback": Choice(&["error", "proxy_protocol", "none"], &[]),
        Text("\"error\""), L4, Reload, "", Now,
        "Where the process may not use the client's address (C7): refuse to start, tell members by \
            the PROXY protocol, or use the balancer's own.";
    "source_addresses": Addresses, NO_ENTRY, ALL, Reload, "R2.1-11", Now,
        "Overrides `[runtime]`.";
    "cores": Shape("string or list of integers", "as in `[runtime]`, without `\"auto\"`"),
        Absent("the cores that no balancer names"), ALL, Reload, "R5.11-2", Now,
        "Cores that serve only the balancers that name them; all others share the rest of \
            `[runtime] cores`.";

    ["listener"]
    "id": Uuid, ID, ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Now,
        "Name, unique among listeners.";
    "loadbalancer": Reference("loadbalancer"),
        Absent("`default`; required where the file has a `[[loadbalancer]]`"),
        ALL, Replace, "", Now,
        "The balancer whose addresses are bound.";
    "protocol": Choice(&["TCP", "UDP", "HTTP", "HTTPS"], &[]),
        Required, ALL, Replace, "R6.8-5", Now,
        "Protocol that clients speak.";
    "protocol_port": Integer(0, 65535), Absent("**required** without `port_ranges`"),
        ALL, Replace, "R2.1-1", Now,
        "Port; 0 = any free one, the same on every shard. No two listeners share address and port.";
    "port_ranges": Shape("list of strings", "`\"3000-3010\"`, at most 10, none overlapping"),
        NO_ENTRY, L4, Replace, "", Now,
        "Port ranges instead of one port.";
    "default_pool": Reference("pool"),
        Absent("none: requests are answered with 404"), ALL, Reload, "R2.3-404", Now,
        "Where requests go.";
    "keepalive_timeout": Shape("whole seconds", "0–4000; TCP, UDP 10–4000; shared UDP none"),
        Absent("`60`; TCP, UDP `300`; shared UDP `10`, not changeable (R6.7-8)"),
        ALL, Reload, "R6.7-4", Now,
        "Idle time after which a client's connection or flow ends; 0 = no persistent connections \
            (C21).";
    "client_timeout": Seconds(1, 300), Number(60), L7, Reload, "R6.7-5", Now,
        "Time for a whole request head from its first byte, then for each gap in the body; 408.";
    "member_timeout": Seconds(1, 300), Number(60), L7, Reload, "R6.7-6", Now,
        "How long a member may stay silent, before its response or inside it; 504.";
    "tunnel_timeout": Seconds(1, 86_400), Absent("`member_timeout`"), L7, Reload, "R6.6-2", Now,
        "Idle time of a tunnel after 101: it ends when nothing moved either way for so long.";
    "upgrade_protocols": Shape("list of strings", "at most 16, not `h2c`, `h2`, `HTTP`, `TLS`"),
        Text("[\"websocket\"]"), L7, Reload, "R6.6-1", Now,
        "Protocols that a client's `Upgrade` may ask for; of other requests `Upgrade` is removed.";
    "connect_timeout": Seconds(1, 60), Number(5), ALL, Reload, "R6.7-7", Now,
        "Time to connect to a member; 504.";
    "enable_member_retry": Bool, YES, L7, Reload, "R6.7-11", Now,
        "Try other members when one stays silent or can't be reached.";
    "max_attempts": Integer(1, 10), Number(3), L7, Reload, "R6.7-13", Now,
        "Attempts of one request, the first included.";
    "retry_non_idempotent": Bool, NO, L7, Reload, "R6.7-13", Now,
        "Retry requests that may have had an effect (C14).";
    "max_header_bytes": Integer(1024, 1_048_576), Number(65_536), L7, Reload, "R2.3-400c", Now,
        "Size of a request head; 400 above.";
    "max_headers": Integer(1, 10_000), Number(1000), L7, Reload, "", Now,
        "Header fields of a request; 400 above.";
    "max_uri_bytes": Integer(256, 1_048_576), Number(16_384), L7, Reload, "R2.3-414", Now,
        "Size of a request target; 414 above (C16).";
    "max_body_bytes": Integer(0, i64::MAX as u64), Number(10_737_418_240), L7, Reload, "R6.4-2",
        Now,
        "Size of a request body; 413 above; 0 = no limit.";
    "connection": Integer(0, MAX_CONNECTIONS), Number(0), ALL, Reload, "", Now,
        "Open client connections, all shards together; 0 = no limit. More are reset; UDP: dropped, \
            or the longest silent flow gives way.";
    "cps": Integer(0, MAX_CONNECTIONS), Number(0), ALL, Reload, "", Now,
        "New connections a second, all shards together, with bursts of one second's worth; 0 = no \
            limit.";
    "connections_per_source": Integer(0, MAX_CONNECTIONS), Number(0), ALL, Reload, "", Now,
        "Open connections of one client address, all shards together; 0 = no limit.";
    "trusted_proxies": Networks, NO_ENTRY, L7, Reload, "R9.1-4", Now,
        "Peers whose X-Forwarded-For and X-Request-ID are believed.";
    "insert_headers": Shape("table", "header = boolean; `X-Forwarded-For-Processing-Mode`: \
        `\"append\"`, `\"replace\"`, `\"remove\"`, `\"preserve\"`"),
        Text("{}"), L7, Reload, "R9.1-4", Now,
        "Headers that requests get; `docs/headers.md` lists them.";
    "ipgroup": Table, NONE, ALL, Reload, "R7.13-1", Now,
        "Access control by client address.";
    "server_timing": Bool, NO, L7, Reload, "", Now,
        "Add a Server-Timing header to responses.";
    "proxy_protocol": Table, Text("{ accept = false, from = [] }"), ALL, Reload, "", Now,
        "Accept the PROXY protocol from these peers.";
    "transparent_client_ip_enable": Bool, Absent("true for a dedicated balancer without \
        `ip_target_enable`, which can't turn it off; else false"), L4, Reload, "R9.1-10", Now,
        "Members see the client's own address (R9.1-11): `docs/transparent.md`.";
    "access_log": Shape("boolean or table", "`true` = where `[access_log]` says"),
        YES, L7, Reload, "R13.1-3", Now,
        "This listener's access log.";
    "default_certificate": Reference("certificate"), Absent("**required** for HTTPS"), TLS, Reload,
        "R6.2-2", Now,
        "Certificate for names that no other one matches (R6.2-1).";
    "sni_certificates": References("certificate"), NO_ENTRY, TLS, Reload, "R6.2-2", Now,
        "Certificates chosen by the requested name; at most 50 (R6.2-1).";
    "client_ca": Reference("certificate"), NONE, TLS, Reload, "R6.2-2", Now,
        "CA bundle that client certificates must chain to (R12.1-1).";
    "sni_match_algo": Choice(&["wildcard", "longest_suffix"], &[]),
        Absent("`\"wildcard\"`; shared `\"longest_suffix\"`, not changeable (R12.2-5)"), TLS,
        Reload, "R12.2-3", Now,
        "How wildcard certificates are matched.";
    "tls_ciphers_policy": Choice(&CIPHER_POLICIES, &[]),
        Text("\"tls-1-2-fs-with-1-3\""), TLS, Reload, "", Now,
        "Protocol versions and cipher suites.";
    "tls_handshake_timeout": Seconds(1, 300), Number(10), TLS, Reload, "", Now,
        "Time for a whole handshake.";
    "ssl_early_data_enable": Bool, NO, TLS, Reload, "", Now,
        "0-RTT data, which is never accepted: `true` is refused (`docs/tls.md`).";
    "ticket_keys": Shape("string", "file; `\"\"` = own keys, rotated"),
        Text("\"\""), TLS, Reload, "", Now,
        "Session ticket keys shared by several nodes.";
    "http2_enable": Bool, YES, TLS, Reload, "", Now,
        "Offer HTTP/2.";

    ["listener.ipgroup"]
    "name": References("ipgroup"), Required, ALL, Reload, "", Now,
        "The groups.";
    "type": Choice(&["white", "black"], &[]), Text("\"white\""), ALL, Reload, "R7.13-1", Now,
        "Are their addresses let in, or kept out?";
    "enable": Bool, YES, ALL, Reload, "", Now,
        "Off: everyone may connect.";

    ["listener.proxy_protocol"]
    "accept": Bool, NO, ALL, Reload, "", Now,
        "Connections begin with a header; one without is closed.";
    "from": Networks, NO_ENTRY, ALL, Reload, "", Now,
        "Peers that are believed; connections from elsewhere are closed.";

    ["listener.access_log"]
    "path": Shape("string", "`\"-\"` or a file"), Required, L7, Reload, "R13.1-1", Now,
        "Where the log is written.";
    "format": Choice(&["elb", "json"], &[]), Text("\"elb\""), L7, Reload, "", Now,
        "Form of a line.";
}
