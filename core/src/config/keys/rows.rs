//! The rows themselves, in the order in which the reference lists them.
//!
//! A row reads: name, kind, default, protocols, effect, requirement row, stage, documentation.
//! The macro only keeps a row on two lines; every field becomes a field of [`Key`].

use super::{Effect, Key, Kind, Preset, Section, Stage};
use Effect::{Reload, Replace, Upgrade};
use Kind::{Choice, Integer, Name, Reference, Seconds, Shape, Uuid};
use Preset::{Absent, Number, Required, Text};
use Stage::{Later, Now};

use crate::config::bounds::{MAX_BACKLOG, MAX_SHUTDOWN_TIMEOUT};

const ALL: &str = "";
const L4: &str = "TCP, UDP";
const L7: &str = "HTTP, HTTPS";
const TLS: &str = "HTTPS";
const BOOL: Kind = Shape("boolean", "true, false");
const ACTIONS: &[&str] =
    &["REDIRECT_TO_POOL", "REDIRECT_TO_LISTENER", "REDIRECT_TO_URL", "FIXED_RESPONSE"];
const ID_DOC: &str = "Identity; without one it is UUIDv5 of kind, balancer and name, \
    the same after every reload and on every node.";

macro_rules! sections {
    ($($name:literal $repeats:literal $stage:ident $doc:literal)*) => {
        /// Every table of the format.
        pub(in crate::config) const SECTIONS: &[Section] =
            &[$(Section { name: $name, repeats: $repeats, stage: $stage, doc: $doc }),*];
    };
}

macro_rules! keys {
    ($([$section:literal] $(
        $name:literal: $kind:expr, $preset:expr, $protocols:expr, $effect:ident,
            $row:literal, $stage:ident,
            $doc:expr;
    )*)*) => {
        /// Every key of the format.
        pub(in crate::config) const KEYS: &[Key] = &[$($(Key {
            section: $section, name: $name, kind: $kind, preset: $preset, protocols: $protocols,
            effect: $effect, row: $row, stage: $stage, doc: $doc,
        },)*)*];
    };
}

sections! {
    ""                   false Now   "Keys that stand above the first section."
    "runtime"            false Now   "The core-pinning part: which cores carry a shard, and what \
        belongs to the process."
    "log"                false Later "The program's own messages."
    "compat"             false Later "Where the ELB is stricter than users like; the defaults \
        are the ELB's."
    "admin"              false Now   "The admin listener, which serves `/metrics` and \
        `/healthz`; absent = none."
    "access_log"         false Later "Default access log of all HTTP and HTTPS listeners; absent \
        = off."
    "connection_log"     false Later "Log of TCP and UDP connections, always JSON; absent = off."
    "loadbalancer"       true  Now   "A load balancer. Without one, listeners belong to \
        `default`: dedicated, on `0.0.0.0` and `::`."
    "listener"           true  Now   "What clients connect to: a protocol and a port on the \
        balancer's addresses."
    "pool"               true  Now   "A group of members and the way to choose among them."
    "pool.members"       true  Now   "The members of a pool: `[[pool.members]]` tables, or \
        `members = [{ … }, …]`."
    "pool.healthmonitor" false Later "Health checks of a pool; absent = no checks."
    "l7policy"           true  Later "A forwarding policy of an HTTP or HTTPS listener."
    "certificate"        true  Later "A server certificate, or a CA bundle for mutual TLS."
    "ipgroup"            true  Later "A list of client addresses for access control."
}

keys! {
    [""]
    "version": Integer(1, 1), Number(1), ALL, Upgrade, "", Now,
        "Version of this format.";
    "include": Shape("list of strings", "paths, globs"), Text("[]"), ALL, Reload, "", Later,
        "More files, relative to this one; one name space.";

    ["runtime"]
    "cores": Shape("string or list of integers", "`\"auto\"`, `\"0-3,8\"`, `[0, 2]`; cores \
        0–1023, none twice"),
        Text("\"auto\""), ALL, Upgrade, "", Now,
        "Cores that carry a shard, one each; `auto` takes every core that the process may run on.";
    "smt": Choice(&[], &["all", "one-per-core"]), Text("\"all\""), ALL, Upgrade, "", Later,
        "With `auto`: all hardware threads, or one of each core.";
    "control_core": Shape("string or integer", "`\"none\"`, a core"),
        Text("\"none\""), ALL, Upgrade, "", Later,
        "Core of the control thread.";
    "numa_node": Shape("string or integer", "`\"any\"`, a node"),
        Text("\"any\""), ALL, Upgrade, "", Later,
        "With `auto`: only the cores of this node.";
    "spin": Shape("duration", "string with a unit"), Text("\"0us\""), ALL, Upgrade, "", Later,
        "How long an idle shard polls before it sleeps.";
    "backlog": Integer(1, MAX_BACKLOG), Number(4096), ALL, Upgrade, "", Now,
        "Length of each listening socket's accept queue; the kernel cuts it to \
            `net.core.somaxconn`.";
    "max_connections": Shape("integer", ""), Number(0), ALL, Reload, "", Later,
        "Client connections of the whole process; 0 = what RLIMIT_NOFILE allows.";
    "source_addresses": Shape("list of addresses", ""), Text("[]"), ALL, Reload, "", Later,
        "Source addresses towards members and for probes; empty = the kernel chooses.";
    "tcp_keepalive": Shape("table", "idle, interval, count"),
        Text("{ idle = 60, interval = 10, count = 6 }"), ALL, Reload, "R11.1-2", Later,
        "TCP keep-alive probes on both sides.";
    "shutdown_timeout": Seconds(0, MAX_SHUTDOWN_TIMEOUT), Number(30), ALL, Reload, "", Now,
        "How long a stopping process waits for what still runs; the rest is cut.";
    "run_dir": Shape("string", "absolute path"), Text("\"/run/weir\""), ALL, Upgrade, "", Now,
        "Folder of the control socket.";

    ["log"]
    "path": Shape("string", "`\"-\"` = stderr, or a file"), Text("\"-\""), ALL, Reload, "", Later,
        "Where messages go.";
    "level": Shape("string", ""), Text("\"info\""), ALL, Reload, "", Later,
        "Least level that is written.";
    "format": Choice(&[], &["text", "json"]), Text("\"text\""), ALL, Reload, "", Later,
        "Form of a message.";

    ["compat"]
    "pool_per_policy": Choice(&[], &["single", "shared"]),
        Text("\"single\""), ALL, Reload, "R10.5-1", Later,
        "May a pool serve several policies and be a default pool too?";
    "policy_conflict": Choice(&[], &["sticky", "recover"]),
        Text("\"sticky\""), L7, Reload, "", Later,
        "What happens to a policy in conflict when the other one goes (C30).";
    "l7_ipv6_members": BOOL, Text("false"), L7, Reload, "R3.17-4", Later,
        "May an HTTP pool have IPv6 members?";

    ["admin"]
    "listen": Shape("string", "`\"address:port\"`; port 0 = any free one"),
        Text("\"127.0.0.1:9180\""), ALL, Upgrade, "", Now,
        "Where the admin listener is bound.";

    ["access_log"]
    "path": Shape("string", "`\"-\"` or a file"), Required, L7, Reload, "", Later,
        "Where the log is written.";
    "format": Choice(&[], &["elb", "json"]), Text("\"elb\""), L7, Reload, "", Later,
        "Form of a line.";

    ["connection_log"]
    "path": Shape("string", "`\"-\"` or a file"), Required, L4, Reload, "", Later,
        "Where the log is written.";

    ["loadbalancer"]
    "id": Uuid, Absent("derived"), ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Replace, "", Now,
        "Name, unique among balancers.";
    "flavor": Choice(&["dedicated", "shared"], &[]),
        Text("\"dedicated\""), ALL, Replace, "R3.16-1", Now,
        "`dedicated` or `shared`; selects every difference that the requirements mark D or S.";
    "spec": Shape("list of strings", "network, application"),
        Text("[\"network\", \"application\"]"), ALL, Replace, "R6.9-1", Later,
        "Dedicated only: which listener protocols may be added.";
    "vip_address": Shape("string or list of strings", "IP addresses, none twice; shared: IPv4 \
        only (R3.17-1)"),
        Absent("every address of the host: `[\"0.0.0.0\", \"::\"]`, shared `[\"0.0.0.0\"]`"),
        ALL, Replace, "R3.17-2", Now,
        "Addresses that the balancer's listeners bind; an IPv6 entry binds IPv6 alone.";
    "network": Shape("list of networks", "CIDR"), Text("[]"), ALL, Replace, "R3.11-1", Later,
        "Shared: members must lie in these; empty = not checked.";
    "ip_target_enable": BOOL, Text("true"), ALL, Reload, "R3.11-2", Later,
        "May members be anywhere, so that Layer 4 uses the balancer's own address (C7)?";
    "passthrough_fallback": Choice(&[], &["error", "proxy_protocol", "none"]),
        Text("\"error\""), L4, Reload, "", Later,
        "What to do where the host can't keep the client's address (C7).";
    "source_addresses": Shape("list of addresses", ""), Text("[]"), ALL, Reload, "", Later,
        "Overrides `[runtime]`.";
    "cores": Shape("string or list of integers", "as in `[runtime]`"),
        Absent("the cores that no balancer names"), ALL, Upgrade, "", Later,
        "Cores that serve only the balancers that name them.";

    ["listener"]
    "id": Uuid, Absent("derived"), ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Now,
        "Name, unique among listeners.";
    "loadbalancer": Reference("loadbalancer"),
        Absent("`default`; required where the file has a `[[loadbalancer]]`"),
        ALL, Replace, "", Now,
        "The balancer whose addresses are bound.";
    "protocol": Choice(&["HTTP"], &["TCP", "UDP", "HTTPS"]), Required, ALL, Replace, "R6.8-3", Now,
        "Protocol that clients speak.";
    "protocol_port": Integer(0, 65535), Required, ALL, Replace, "R2.1-1", Now,
        "Port; 0 = any free one, the same on every shard. No two listeners share address and port.";
    "port_ranges": Shape("list of strings", "`\"3000-3010\"`, at most 10"),
        Absent("none"), L4, Replace, "", Later,
        "Port ranges instead of one port.";
    "default_pool": Reference("pool"),
        Absent("none: requests are answered with 404"), ALL, Reload, "R2.3-404", Now,
        "Where requests go.";
    "keepalive_timeout": Seconds(0, 4000), Number(60), L7, Reload, "R6.7-4", Now,
        "Idle time after which a client connection is closed; 0 = no persistent connections (C21).";
    "client_timeout": Seconds(1, 300), Number(60), L7, Reload, "R6.7-5", Now,
        "Time for a whole request head from its first byte, then for each gap in the body; 408.";
    "member_timeout": Seconds(1, 300), Number(60), L7, Reload, "R6.7-6", Now,
        "How long a member may stay silent, before its response or inside it; 504.";
    "tunnel_timeout": Shape("whole seconds", ""),
        Absent("`member_timeout`"), L7, Reload, "R6.6-2", Later,
        "Idle time of a tunnel after 101.";
    "connect_timeout": Seconds(1, 60), Number(5), ALL, Reload, "R6.7-7", Now,
        "Time to connect to a member; 504.";
    "enable_member_retry": BOOL, Text("true"), L7, Reload, "R6.7-11", Later,
        "Try other members when one stays silent or can't be reached.";
    "max_attempts": Shape("integer", ""), Number(3), L7, Reload, "R6.7-13", Later,
        "Attempts of one request, the first included.";
    "retry_non_idempotent": BOOL, Text("false"), L7, Reload, "R6.7-13", Later,
        "Retry requests that may have had an effect.";
    "max_header_bytes": Shape("integer", "bytes"), Number(65536), L7, Reload, "R2.3-400c", Later,
        "Size of a request head; 400 above.";
    "max_headers": Shape("integer", ""), Number(1000), L7, Reload, "", Later,
        "Header fields of a request; 400 above.";
    "max_uri_bytes": Shape("integer", "bytes"), Number(16384), L7, Reload, "", Later,
        "Size of a request target; 414 above (C16).";
    "max_body_bytes": Shape("integer", "bytes; 0 = no limit"),
        Number(10_737_418_240), L7, Reload, "R6.4-2", Later,
        "Size of a request body; 413 above.";
    "connection": Shape("integer", "0–1,000,000; 0 = no limit"), Number(0), ALL, Reload, "", Later,
        "Open client connections.";
    "cps": Shape("integer", "0–1,000,000; 0 = no limit"), Number(0), ALL, Reload, "", Later,
        "New connections a second.";
    "connections_per_source": Shape("integer", "0 = no limit"), Number(0), ALL, Reload, "", Later,
        "Open connections of one client address.";
    "trusted_proxies": Shape("list of networks", "CIDR"), Text("[]"), L7, Reload, "", Later,
        "Peers whose X-Forwarded-For is believed.";
    "insert_headers": Shape("table", "header = boolean or mode"),
        Absent("none"), L7, Reload, "", Later,
        "Headers that are added to requests.";
    "ipgroup": Shape("table", "name, type, enable"), Absent("none"), ALL, Reload, "", Later,
        "Access control by client address.";
    "server_timing": BOOL, Text("false"), L7, Reload, "", Later,
        "Add a Server-Timing header to responses.";
    "proxy_protocol": Shape("table", "accept, from"),
        Text("{ accept = false, from = [] }"), ALL, Reload, "", Later,
        "Accept the PROXY protocol from these peers.";
    "transparent_client_ip_enable": BOOL, Text("false"), L4, Reload, "R9.1-10", Later,
        "Use the client's own address towards members.";
    "access_log": Shape("boolean or table", "path, format"), Text("true"), L7, Reload, "", Later,
        "This listener's access log.";
    "default_certificate": Reference("certificate"), Required, TLS, Reload, "R6.2-1", Later,
        "Certificate for names that no other one matches.";
    "sni_certificates": Shape("list of names", "at most 50"),
        Text("[]"), TLS, Reload, "R6.2-1", Later,
        "Certificates chosen by the requested name.";
    "client_ca": Reference("certificate"), Absent("none"), TLS, Reload, "", Later,
        "CA bundle that client certificates must chain to.";
    "sni_match_algo": Choice(&[], &["wildcard", "longest_suffix"]),
        Text("\"wildcard\""), TLS, Reload, "", Later,
        "How wildcard certificates are matched.";
    "tls_ciphers_policy": Shape("string", ""),
        Text("\"tls-1-2-fs-with-1-3\""), TLS, Reload, "", Later,
        "Protocol versions and cipher suites.";
    "tls_handshake_timeout": Shape("whole seconds", ""), Number(10), TLS, Reload, "", Later,
        "Time for a whole handshake.";
    "ssl_early_data_enable": BOOL, Text("false"), TLS, Reload, "", Later,
        "Accept 0-RTT data.";
    "ticket_keys": Shape("string", "file; `\"\"` = own keys, rotated"),
        Text("\"\""), TLS, Reload, "", Later,
        "Session ticket keys shared by several nodes.";
    "http2_enable": BOOL, Absent("told with the support"), TLS, Reload, "", Later,
        "Offer HTTP/2.";

    ["pool"]
    "id": Uuid, Absent("derived"), ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Replace, "", Now,
        "Name, unique among pools.";
    "protocol": Choice(&["HTTP"], &["TCP", "UDP", "QUIC", "HTTPS", "GRPC"]),
        Required, ALL, Replace, "R6.8-5", Now,
        "Protocol that members speak; must go with the listener's.";
    "lb_algorithm": Choice(&["ROUND_ROBIN"], &["LEAST_CONNECTIONS", "SOURCE_IP", "QUIC_CID"]),
        Text("\"ROUND_ROBIN\""), ALL, Reload, "R4.3-5", Now,
        "How a member is chosen; ROUND_ROBIN is weighted.";
    "quic_cid_hash_strategy": Shape("table", "len, offset"),
        Text("{ len = 3, offset = 1 }"), "QUIC", Reload, "R6.8-6", Later,
        "Which bytes of a QUIC connection id are hashed.";
    "slow_start": Shape("table", "enable, duration 30–1200 s"),
        Text("{ enable = false, duration = 30 }"), "HTTP, HTTPS, GRPC", Reload, "", Later,
        "Give a new member its share gradually.";
    "session_persistence": Shape("table", "type, persistence_timeout, cookie_name"),
        Absent("none"), ALL, Reload, "R6.1-1", Later,
        "Send a session always to the same member.";
    "connection_drain": Shape("table", "enable, timeout 10–4000 s"),
        Text("{ enable = false, timeout = 300 }"), ALL, Reload, "R7.14-4", Later,
        "How long flows of a removed member may run.";
    "pool_health": Shape("table", "minimum_healthy_member_count"),
        Text("{ minimum_healthy_member_count = 0 }"), ALL, Reload, "", Later,
        "Forward to all members when too few are healthy (C18).";
    "outlier_detection": Shape("table", "enable, consecutive_failures, base_ejection, \
        max_ejected_percent"),
        Text("{ enable = false, … }"), L7, Reload, "", Later,
        "Leave out members that fail requests.";
    "member_max_connections": Shape("integer", "0 = no limit"), Number(0), ALL, Reload, "", Later,
        "Connections to each member, all shards together.";
    "queue_timeout": Shape("duration", "string with a unit"),
        Text("\"1s\""), ALL, Reload, "", Later,
        "How long a request waits for a member below its limit; 503.";
    "proxy_protocol": Choice(&[], &["none", "v1", "v2"]), Text("\"none\""), ALL, Reload, "", Later,
        "Send the PROXY protocol to members.";
    "tls": Shape("table", "verify, ca, server_name"),
        Text("{ verify = false, … }"), "HTTPS, GRPC", Reload, "", Later,
        "How members' certificates are verified.";

    ["pool.members"]
    "id": Uuid, Absent("derived"), ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Absent("`address:protocol_port`"), ALL, Reload, "", Now,
        "Name, unique in the pool.";
    "address": Shape("string", "an IPv4 address (R3.17-4)"), Required, ALL, Replace, "", Now,
        "Address of the service.";
    "protocol_port": Integer(1, 65535), Required, ALL, Replace, "R3.10-1", Now,
        "Port of the service; each member has its own.";
    "weight": Integer(0, 100), Number(1), ALL, Reload, "R2.1-4", Now,
        "Share of the traffic relative to the other members; 0 = none.";

    ["pool.healthmonitor"]
    "type": Choice(&[], &["TCP", "UDP_CONNECT", "HTTP", "HTTPS", "GRPC"]),
        Required, ALL, Reload, "", Later,
        "Kind of probe.";
    "delay": Shape("whole seconds", "1–50"), Number(5), ALL, Reload, "", Later,
        "Time between probes.";
    "timeout": Shape("whole seconds", "1–50"), Number(3), ALL, Reload, "", Later,
        "Time for the answer.";
    "max_retries": Shape("integer", "1–10"), Number(3), ALL, Reload, "", Later,
        "Successes until a member is up.";
    "max_retries_down": Shape("integer", "1–10"), Number(3), ALL, Reload, "", Later,
        "Failures until a member is down.";
    "url_path": Shape("string", ""), Text("\"/\""), L7, Reload, "", Later,
        "Path of the probe.";
    "http_method": Choice(&[], &["GET", "HEAD", "POST"]), Text("\"GET\""), L7, Reload, "", Later,
        "Method of the probe.";
    "expected_codes": Shape("string", ""), Text("\"200\""), L7, Reload, "", Later,
        "Status codes that count as success.";
    "domain_name": Shape("string", ""), Text("\"\""), L7, Reload, "", Later,
        "Host header of the probe.";
    "monitor_port": Shape("integer", "0 = the member's own"), Number(0), ALL, Reload, "", Later,
        "Port of the probe.";

    ["l7policy"]
    "id": Uuid, Absent("derived"), ALL, Replace, "", Later,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Later,
        "Name, unique among policies.";
    "listener": Reference("listener"), Required, ALL, Replace, "", Later,
        "Listener whose requests it sees.";
    "priority": Shape("integer", "1–10000, unique where given"),
        Absent("after those that have one"), ALL, Reload, "", Later,
        "Lower goes first.";
    "rules": Shape("list of tables", "type, compare_type, key, value, invert; at most 10"),
        Text("[]"), ALL, Reload, "", Later,
        "All rules must match; any value of one.";
    "action": Choice(&[], ACTIONS), Required, ALL, Reload, "", Later,
        "What a match does.";
    "redirect_pool": Reference("pool"), Absent("none"), ALL, Reload, "R10.5-1", Later,
        "Pool that gets the request.";
    "redirect_pools": Shape("list of tables", "pool, weight; at most 5"),
        Absent("none"), ALL, Reload, "", Later,
        "Several pools with weights.";
    "redirect_listener": Reference("listener"), Absent("none"), ALL, Reload, "", Later,
        "HTTPS listener that clients are sent to.";
    "redirect_url_config": Shape("table", "protocol, host, port, path, query, status_code"),
        Absent("none"), ALL, Reload, "", Later,
        "URL that clients are sent to.";
    "fixed_response_config": Shape("table", "status_code, content_type, message_body"),
        Absent("none"), ALL, Reload, "", Later,
        "The answer itself.";

    ["certificate"]
    "id": Uuid, Absent("derived"), ALL, Replace, "", Later,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Later,
        "Name, unique among certificates.";
    "type": Choice(&[], &["server", "client"]), Text("\"server\""), ALL, Replace, "", Later,
        "A server certificate, or a CA bundle for mutual TLS.";
    "certificate": Shape("string", "path, or PEM text"), Required, ALL, Reload, "", Later,
        "The chain.";
    "private_key": Shape("string", "path, or PEM text"), Absent("none"), ALL, Reload, "", Later,
        "The key of a server certificate.";
    "domain": Shape("string", ""), Text("\"\""), ALL, Reload, "", Later,
        "Names that it serves; empty = those inside.";
    "ocsp_response": Shape("string", "file"), Text("\"\""), ALL, Reload, "", Later,
        "Response to staple.";

    ["ipgroup"]
    "id": Uuid, Absent("derived"), ALL, Replace, "", Later,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Later,
        "Name, unique among groups.";
    "ip_list": Shape("list of networks", "CIDR, or { ip, description }"),
        Required, ALL, Reload, "", Later,
        "Addresses and networks.";
}
