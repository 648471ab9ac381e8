//! Rows of what belongs to the whole process.

use super::Effect::{Reload, Upgrade};
use super::Kind::{Addresses, Bool, Choice, Duration, Integer, Seconds, Shape, Table};
use super::Preset::{Number, Required, Text};
use super::Stage::Now;
use super::{ALL, Key, L4, L7, NO, NO_ENTRY, keys};
use crate::config::bounds::{MAX_BACKLOG, MAX_SHUTDOWN_TIMEOUT};

keys! {
    [""]
    "version": Integer(1, 1), Number(1), ALL, Upgrade, "", Now,
        "Version of this format.";
    "include": Shape("list of strings", "paths, globs"), NO_ENTRY, ALL, Reload, "", Now,
        "More files, relative to this one, as one name space; `*` and `?` stand for characters of \
            a name. Each file is read once; sections that stand once do so over all files.";

    ["runtime"]
    "cores": Shape("string or list of integers", "`\"auto\"`, `\"0-3,8\"`, `[0, 2]`; cores \
        0–1023, none twice"),
        Text("\"auto\""), ALL, Upgrade, "", Now,
        "Cores that carry a shard, one each; `auto` takes every core that the process may run on.";
    "smt": Choice(&["all", "one-per-core"], &[]), Text("\"all\""), ALL, Upgrade, "", Now,
        "With `auto`: all hardware threads, or one of each core.";
    "control_core": Shape("string or integer", "`\"none\"`, 0–1023"),
        Text("\"none\""), ALL, Upgrade, "", Now,
        "Core of the control thread; `none` = not pinned.";
    "numa_node": Shape("string or integer", "`\"any\"`, 0–1023"),
        Text("\"any\""), ALL, Upgrade, "", Now,
        "With `auto`: only the cores of this node.";
    "spin": Duration(0, 1_000_000), Text("\"0us\""), ALL, Upgrade, "", Now,
        "How long an idle shard polls before it sleeps (docs/tuning.md); its core is busy for so \
            long.";
    "backlog": Integer(1, MAX_BACKLOG), Number(4096), ALL, Upgrade, "", Now,
        "Length of each listening socket's accept queue; the kernel cuts it to \
            `net.core.somaxconn`.";
    "max_connections": Integer(0, 100_000_000), Number(0), ALL, Reload, "", Now,
        "Client connections of the whole process; 0 = what RLIMIT_NOFILE allows, two descriptors \
            each.";
    "max_skew_percent": Integer(0, 1_000), Number(0), ALL, Reload, "", Now,
        "A shard whose open connections exceed the mean by more hands new ones over to the least \
            busy one; 0 = each serves what it accepts.";
    "source_addresses": Addresses, NO_ENTRY, ALL, Reload, "R7.4-1", Now,
        "Addresses of this host that connections to members and probes come from, in turn for \
            each member; empty = the kernel chooses.";
    "tcp_keepalive": Table, Text("{ idle = 60, interval = 10, count = 6 }"), ALL, Reload,
        "R11.1-2", Now,
        "TCP keep-alive probes on both sides.";
    "shutdown_timeout": Seconds(0, MAX_SHUTDOWN_TIMEOUT), Number(30), ALL, Reload, "", Now,
        "How long a stopping process waits for what still runs; the rest is cut.";
    "run_dir": Shape("string", "absolute path"), Text("\"/run/weir\""), ALL, Upgrade, "", Now,
        "Folder of the control socket.";

    ["runtime.tcp_keepalive"]
    "idle": Seconds(1, 32_767), Number(60), ALL, Reload, "R11.1-2", Now,
        "Silence before the first probe.";
    "interval": Seconds(1, 32_767), Number(10), ALL, Reload, "R11.1-2", Now,
        "Time between probes.";
    "count": Integer(1, 127), Number(6), ALL, Reload, "R11.1-2", Now,
        "Unanswered probes that end the connection.";

    ["log"]
    "path": Shape("string", "`\"-\"` = stderr, or a file"), Text("\"-\""), ALL, Reload, "", Now,
        "Where messages go.";
    "level": Choice(&["error", "warn", "info", "debug", "trace"], &[]),
        Text("\"info\""), ALL, Reload, "", Now,
        "Least level that is written.";
    "format": Choice(&["text", "json"], &[]), Text("\"text\""), ALL, Reload, "", Now,
        "Form of a message.";

    ["compat"]
    "pool_per_policy": Choice(&["single", "shared"], &[]),
        Text("\"single\""), ALL, Reload, "R10.5-1", Now,
        "May a pool serve several policies and be a default pool too?";
    "policy_conflict": Choice(&["sticky", "recover"], &[]),
        Text("\"sticky\""), L7, Reload, "R10.3-2", Now,
        "What happens to a policy in conflict when the other one goes (C30); a file with a \
            conflict is refused.";
    "l7_ipv6_members": Bool, NO, "HTTP, HTTPS, GRPC", Reload, "R3.17-4", Now,
        "May an HTTP, HTTPS or GRPC pool have IPv6 members?";

    ["admin"]
    "listen": Shape("string", "`\"address:port\"`; port 0 = any free one"),
        Text("\"127.0.0.1:9180\""), ALL, Upgrade, "", Now,
        "Where the admin listener is bound.";

    ["access_log"]
    "path": Shape("string", "`\"-\"` or a file"), Required, L7, Reload, "R13.1-1", Now,
        "Where the log is written.";
    "format": Choice(&["elb", "json"], &[]), Text("\"elb\""), L7, Reload, "", Now,
        "Form of a line.";

    ["connection_log"]
    "path": Shape("string", "`\"-\"` or a file"), Required, L4, Reload, "", Now,
        "Where the log is written.";
}
