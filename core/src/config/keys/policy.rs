//! Rows of forwarding policies, certificates and groups of addresses.

use super::Effect::{Reload, Replace};
use super::Kind::{Bool, Choice, Integer, Name, Reference, Shape, Table, Tables, Uuid};
use super::Preset::{Absent, Number, Required, Text};
use super::Stage::Now;
use super::{ALL, EMPTY, ID, ID_DOC, Key, NO, NO_ENTRY, NONE, keys};

keys! {
    ["l7policy"]
    "id": Uuid, ID, ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Now,
        "Name, unique among policies.";
    "listener": Reference("listener"), Required, ALL, Replace, "R10.4-1", Now,
        "Listener whose requests it sees.";
    "priority": Integer(1, 10_000), Absent("after those that have one"), ALL, Reload, "", Now,
        "Lower goes first; unique in its listener.";
    "rules": Tables, NO_ENTRY, ALL, Reload, "", Now,
        "Conditions, at most 10; HOST_NAME, PATH, METHOD and SOURCE_IP once each.";
    "action": Choice(&["REDIRECT_TO_POOL", "REDIRECT_TO_LISTENER", "REDIRECT_TO_URL",
        "FIXED_RESPONSE"], &[]), Required, ALL, Reload, "", Now,
        "What a match does.";
    "redirect_pool": Reference("pool"), NONE, ALL, Reload, "R10.5-1", Now,
        "REDIRECT_TO_POOL: pool that gets the request; of no other policy, and no default pool \
            (`[compat]`).";
    "redirect_pools": Tables, NONE, ALL, Reload, "R10.5-1", Now,
        "REDIRECT_TO_POOL: instead, up to 5 pools with weights.";
    "redirect_listener": Reference("listener"), NONE, ALL, Reload, "R5.5-2", Now,
        "REDIRECT_TO_LISTENER: HTTPS listener of the same balancer that clients of an HTTP one \
            are sent to.";
    "redirect_url_config": Table, NONE, ALL, Reload, "", Now,
        "REDIRECT_TO_URL: where clients are sent.";
    "fixed_response_config": Table, NONE, ALL, Reload, "", Now,
        "FIXED_RESPONSE: the answer itself.";

    ["l7policy.rules"]
    "type": Choice(&["HOST_NAME", "PATH", "METHOD", "HEADER", "QUERY_STRING", "COOKIE",
        "SOURCE_IP"], &[]), Required, ALL, Reload, "R10.5-3", Now,
        "What is looked at.";
    "compare_type": Choice(&["EQUAL_TO", "STARTS_WITH", "REGEX"], &[]),
        Text("\"EQUAL_TO\""), ALL, Reload, "R10.5-3", Now,
        "How; HOST_NAME, METHOD and SOURCE_IP take EQUAL_TO only.";
    "key": Shape("string", "1–1024 characters"), NONE, ALL, Reload, "", Now,
        "Name of the header, argument or cookie: for HEADER, QUERY_STRING and COOKIE only.";
    "value": Shape("string or list of strings", "1–10 values"), Required, ALL, Reload, "", Now,
        "Any of them; a host may begin with `*.`.";
    "invert": Bool, NO, ALL, Reload, "", Now,
        "The condition holds when no value matches.";

    ["l7policy.redirect_pools"]
    "pool": Reference("pool"), Required, ALL, Reload, "R10.5-1", Now,
        "The pool.";
    "weight": Integer(0, 100), Number(1), ALL, Reload, "", Now,
        "Its share of the requests.";

    ["l7policy.redirect_url_config"]
    "protocol": Shape("string", "`http`, `https`, `${protocol}`"), Text("\"${protocol}\""), ALL,
        Reload, "", Now,
        "Scheme.";
    "host": Shape("string", "host, `${host}`"), Text("\"${host}\""), ALL, Reload, "", Now,
        "Host.";
    "port": Shape("string", "`1`–`65535`, `${port}`"), Text("\"${port}\""), ALL, Reload, "", Now,
        "Port.";
    "path": Shape("string", "absolute, may hold `${…}`"), Text("\"${path}\""), ALL, Reload, "",
        Now,
        "Path.";
    "query": Shape("string", "may hold `${…}`"), Text("\"${query}\""), ALL, Reload, "", Now,
        "Query; empty = none.";
    "status_code": Shape("integer", "301, 302, 303, 307, 308"), Number(301), ALL, Reload, "", Now,
        "Status of the redirect.";

    ["l7policy.fixed_response_config"]
    "status_code": Shape("integer", "200–299, 400–599"), Required, ALL, Reload, "", Now,
        "Status of the answer.";
    "content_type": Choice(&["text/plain", "text/css", "text/html", "application/javascript",
        "application/json"], &[]), Text("\"text/plain\""), ALL, Reload, "", Now,
        "Media type of the body.";
    "message_body": Shape("string", "at most 1024 characters"), EMPTY, ALL, Reload, "", Now,
        "The body.";

    ["certificate"]
    "id": Uuid, ID, ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Now,
        "Name, unique among certificates.";
    "type": Choice(&["server", "client"], &[]), Text("\"server\""), ALL, Replace, "", Now,
        "A server certificate, or a CA bundle for mutual TLS.";
    "certificate": Shape("string", "path from this file, or PEM text"), Required, ALL, Reload,
        "R12.3-5", Now,
        "The chain, leaf first.";
    "private_key": Shape("string", "path from this file, or PEM text"),
        Absent("**required** for type `server`"), ALL, Reload, "", Now,
        "The key of a server certificate.";
    "domain": Shape("string", "host names by `,`, may begin with `*.`"), EMPTY, ALL, Reload, "",
        Now,
        "Names that it serves; empty = those inside.";
    "ocsp_response": Shape("string", "path from this file"), EMPTY, ALL, Reload, "", Now,
        "OCSP response to staple, DER; empty = none. One that is of no use is left out.";

    ["ipgroup"]
    "id": Uuid, ID, ALL, Replace, "", Now,
        ID_DOC;
    "name": Name, Required, ALL, Reload, "", Now,
        "Name, unique among groups.";
    "ip_list": Shape("list of strings or tables", "addresses, networks, none twice"),
        Required, ALL, Reload, "R5.14-1", Now,
        "Addresses and networks.";

    ["ipgroup.ip_list"]
    "ip": Shape("string", "address or network"), Required, ALL, Reload, "", Now,
        "The address or network.";
    "description": Shape("string", "at most 255 characters"), EMPTY, ALL, Reload, "", Now,
        "A note.";
}
