//! Rows of pools, their members and their checks.

use super::Effect::{Reload, Replace};
use super::Kind::{Bool, Choice, Duration, Integer, Minutes, Name, Seconds, Shape, Table, Uuid};
use super::Preset::{Absent, Number, Required, Text};
use super::Stage::{Later, Now};
use super::{ALL, EMPTY, ID, ID_DOC, Key, NO, NONE, keys};
use crate::config::bounds::MAX_CONNECTIONS;

const L7: &str = "HTTP, HTTPS, GRPC";
const TLS: &str = "HTTPS, GRPC";
const LIMITS: super::Stage = Later("member limits");

keys! {
    ["pool"]
    "id": Uuid, ID, ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Replace, "", Now,
        "Name, unique among pools.";
    "protocol": Choice(&["TCP", "UDP", "QUIC", "HTTP", "HTTPS", "GRPC"], &[]),
        Required, ALL, Replace, "R6.8-5", Now,
        "Protocol that members speak; must go with the listener's: TCP with TCP, UDP with UDP \
            and (dedicated) QUIC, HTTP with HTTP, HTTPS with HTTP and (dedicated) HTTPS and GRPC.";
    "lb_algorithm": Choice(&["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP", "QUIC_CID"], &[]),
        Text("\"ROUND_ROBIN\""), ALL, Reload, "R4.3-5", Now,
        "How a member is chosen; all but SOURCE_IP and QUIC_CID go by weight.";
    "quic_cid_hash_strategy": Table, Text("{ len = 3, offset = 1 }"), "QUIC", Reload, "R6.8-6",
        Now,
        "Which bytes of a connection id tell the connection, and are hashed by QUIC_CID.";
    "slow_start": Table, Text("{ enable = false, duration = 30 }"), L7, Reload, "", Now,
        "Give a new member its share gradually; ROUND_ROBIN only, not beside stickiness.";
    "session_persistence": Table, NONE, ALL, Reload, "R6.1-1", Now,
        "Send a session always to the same member; ROUND_ROBIN only (tables 6-1, 6-2).";
    "connection_drain": Table, Text("{ enable = false, timeout = 300 }"), ALL, Reload, "R7.14-4",
        Now,
        "How long flows of a removed member may run.";
    "pool_health": Table, Text("{ minimum_healthy_member_count = 0 }"), ALL, Reload, "", Now,
        "Forward to all members when too few are healthy (C18).";
    "outlier_detection": Table, Text("{ enable = false, consecutive_failures = 5, \
        base_ejection = \"30s\", max_ejected_percent = 50 }"), ALL, Reload, "", Now,
        "Leave out members that fail requests: [health.md](health.md#outlier-detection).";
    "member_max_connections": Integer(0, MAX_CONNECTIONS), Number(0), ALL, Reload, "", LIMITS,
        "Connections to each member, all shards together; 0 = no limit.";
    "queue_timeout": Duration(0, 300_000_000), Text("\"1s\""), ALL, Reload, "", LIMITS,
        "How long a request waits for a member below its limit; 503.";
    "proxy_protocol": Choice(&["none", "v1", "v2"], &[]), Text("\"none\""), ALL, Reload,
        "R9.1-16", Now,
        "Send the PROXY protocol to members; v1 on streams only. So far of TCP, UDP and QUIC \
            pools.";
    "tls": Table, Text("{ verify = false, ca = \"\", server_name = \"\" }"), TLS, Reload,
        "R10.1-4", Now,
        "How members are spoken to inside TLS, which HTTPS pools always are; GRPC pools only with \
            this table: [tls-to-members.md](tls-to-members.md).";

    ["pool.quic_cid_hash_strategy"]
    "len": Integer(1, 20), Number(3), "QUIC", Reload, "R6.8-6", Now,
        "How many bytes.";
    "offset": Integer(0, 19), Number(1), "QUIC", Reload, "R6.8-6", Now,
        "The first one.";

    ["pool.slow_start"]
    "enable": Bool, NO, L7, Reload, "", Now,
        "Off: a new member has its whole share at once.";
    "duration": Seconds(30, 1200), Number(30), L7, Reload, "", Now,
        "Until a member has its whole share.";

    ["pool.session_persistence"]
    "type": Choice(&["SOURCE_IP", "HTTP_COOKIE", "APP_COOKIE"], &[]),
        Absent("`\"SOURCE_IP\"` at Layer 4, `\"HTTP_COOKIE\"` at Layer 7 (R6.1-2)"),
        ALL, Reload, "R6.1-1", Now,
        "What a session is told by: the client's address, a cookie of Weir's, a cookie of the \
            members' (shared only).";
    "persistence_timeout": Minutes(1, 1440), Number(20), ALL, Reload, "R11.4-3", Now,
        "How long a binding lasts; at Layer 4 at most 60.";
    "cookie_name": Shape("string", "letters, digits, `!#$%&'*+-.^_|~`"), EMPTY, L7, Reload,
        "R11.4-3", Now,
        "Required for APP_COOKIE; for HTTP_COOKIE empty = `LBSTICKY`.";

    ["pool.connection_drain"]
    "enable": Bool, NO, ALL, Reload, "R7.14-4", Now,
        "Off: flows run until idle. On: at most for the timeout.";
    "timeout": Seconds(10, 4000), Number(300), ALL, Reload, "", Now,
        "How long a flow may still run.";

    ["pool.pool_health"]
    "minimum_healthy_member_count": Integer(0, 1), Number(0), ALL, Reload, "", Now,
        "1 = all members get traffic when none is healthy; 0 = none does, and clients get 503.";

    ["pool.outlier_detection"]
    "enable": Bool, NO, ALL, Reload, "", Now,
        "Watch requests and connections for failures.";
    "consecutive_failures": Integer(1, 1000), Number(5), ALL, Reload, "", Now,
        "Failures in a row, as one shard sees them, that leave a member out.";
    "base_ejection": Duration(1_000_000, 3_600_000_000), Text("\"30s\""), ALL, Reload, "", Now,
        "How long for the first time; so much longer for each one in a row, at most 300 s.";
    "max_ejected_percent": Integer(1, 100), Number(50), ALL, Reload, "", Now,
        "At most this share of the members at once, but always one; never the last that is well.";

    ["pool.tls"]
    "verify": Bool, NO, TLS, Reload, "R10.1-4", Now,
        "Off: any certificate will do.";
    "ca": Shape("name of a `[[certificate]]`", "of type `client`"), EMPTY, TLS, Reload,
        "R10.1-4", Now,
        "CA bundle that members' certificates must chain to; empty = the system's.";
    "server_name": Shape("string", "host name"), EMPTY, TLS, Reload, "R10.1-4", Now,
        "Name that is asked for and verified; empty = the request's host.";

    ["pool.members"]
    "id": Uuid, ID, ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Absent("`address:protocol_port`"), ALL, Reload, "", Now,
        "Name, unique in the pool.";
    "address": Shape("string", "an IP address; HTTP, HTTPS and GRPC pools: IPv4 (R3.17-4), shared: \
        IPv4 (R3.17-1)"), Required, ALL, Replace, "", Now,
        "Address of the service.";
    "protocol_port": Integer(1, 65535), Required, ALL, Replace, "R3.10-1", Now,
        "Port of the service; each member has its own.";
    "weight": Integer(0, 100), Number(1), ALL, Reload, "R2.1-4", Now,
        "Share of the traffic relative to the other members; 0 = none.";

    ["pool.healthmonitor"]
    "type": Choice(&["TCP", "HTTP", "HTTPS", "UDP_CONNECT", "GRPC"], &[]),
        Required, ALL, Reload, "R8.9-4", Now,
        "Kind of probe. UDP and QUIC pools: UDP_CONNECT; others: TCP, HTTP, on dedicated balancers \
            HTTPS, GRPC pools also GRPC.";
    "delay": Seconds(1, 50), Number(5), ALL, Reload, "R8.9-3", Now,
        "Time between the starts of two probes.";
    "timeout": Seconds(1, 50), Absent("`3`; UDP_CONNECT `10`"), ALL, Reload, "R8.9-3", Now,
        "Time for the answer.";
    "max_retries": Integer(1, 10), Number(3), ALL, Reload, "R8.7-1", Now,
        "Successes in a row until a member is up.";
    "max_retries_down": Integer(1, 10), Absent("`max_retries`"), ALL, Reload, "R8.7-1", Now,
        "Failures in a row until a member is down.";
    "url_path": Shape("string", "absolute, without host"), Text("\"/\""), L7, Reload,
        "R8.1-15", Now,
        "Path of the probe, a query included; for GRPC `/` or `/service`.";
    "http_method": Choice(&["GET", "HEAD", "POST"], &[]), Text("\"GET\""), "HTTP, HTTPS", Reload,
        "R8.1-21", Now,
        "Method of the probe.";
    "expected_codes": Shape("string", "`\"200\"`, `\"200,202\"`, `\"200-204\"`; 100–599, GRPC \
        0–99"),
        Absent("`\"200\"`; shared `\"200,202,401\"`, but `\"200\"` in a TCP pool (R8.1-22); GRPC \
            `\"0\"`"),
        L7, Reload, "R8.2-23", Now,
        "Status codes that count as success.";
    "domain_name": Shape("string", "host name or address"), EMPTY, L7, Reload, "R8.1-11", Now,
        "Host header of the probe, and of an HTTPS one the name that is asked for, where \
            `tls.server_name` is empty; empty = the member's address.";
    "monitor_port": Integer(0, 65535), Number(0), ALL, Reload, "R8.1-13", Now,
        "Port of the probe; 0 = the member's own.";
}
