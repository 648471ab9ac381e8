"""The jobs, and how one sample of each is taken.

A sample is a plain dictionary: it goes to the raw file as it is, and report.py reads nothing else.
"""

import dataclasses
import json
import os
import subprocess
import time

from side import memory
from side.peers import UDP_MEMBERS
from side.procs import TICK, Failure, use_all_descriptors
from side.results import read_h2load, read_iperf3, read_loadgen, read_result

WRK_SCRIPT = """\
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
# The paths of that many policies in turn; see configs.policy_path.
WRK_TURNS = """\
local asked, at = {}, 0
init = function(args)
  for n = 1, tonumber(args[1]) do asked[n] = wrk.format("GET", "/p/" .. n - 1) end
end
request = function()
  at = at % #asked + 1
  return asked[at]
end
"""
IDLE_WATCH_SECONDS = 20.0
UDP_WINDOW = 64  # flows that wait for an answer at a time: what the default receive buffers hold
KIB, MIB = 1 << 10, 1 << 20

BOTH = ("nginx", "haproxy")
NGINX = ("nginx",)


@dataclasses.dataclass(frozen=True)
class Job:
    """One kind of work. `bars` are the ratios Weir is held to, by kind of peer; None = only shown."""

    name: str
    title: str
    measure: str  # "load", "open", "memory", "shards", "asleep", "spin" or "features"
    connections: int = 64
    path: str = "/"
    policies: int = 0  # so many, a path each, that requests ask for in turn
    close: bool = False
    bulk: bool = False
    share: float = 0.0  # of nginx's maximum, open loop only
    bars: tuple = ()
    held: int = 0  # connections where memory is measured; 0 = --idle-connections
    most_descriptors: int = 0  # Weir's bar for them; 0 = none
    most_bytes: int = 0  # Weir's bar where memory is measured; 0 = only shown
    protocol: str = "http"  # of the listener: http, https, tcp, udp
    tool: str = "wrk"  # what makes the load: wrk, h2load, handshakes, flows, iperf3
    mode: str = ""  # of that program, or "active" where memory is measured: requests under way
    size: int = 128  # bytes of a message of flows
    unit: str = "request"  # what CPU is divided by

    @property
    def group(self):
        """The table that it belongs to."""
        return {"http": "http", "https": "tls"}.get(self.protocol, "l4")

    def suits(self, kind):
        """True when that kind of proxy can do it."""
        # nginx has a socket for each flow, HAProxy no UDP.
        return kind == "weir" if self.most_descriptors else self.protocol != "udp" or kind != "haproxy"


GROUPS = {"http": "HTTP", "tls": "TLS", "l4": "TCP and UDP"}

JOBS = [
    Job("keepalive64", "64 keep-alive connections, 128 bytes", "load", bars=((BOTH, 0.75),)),
    Job("keepalive1", "1 keep-alive connection, 128 bytes", "load", 1, bars=((BOTH, 1.05),)),
    Job("close", "connection per request, 64 at a time", "load", close=True, bars=((BOTH, 0.90),)),
    Job("body1m", "1 MiB bodies, 16 connections", "load", 16, "/large", bulk=True, bars=((NGINX, 0.70),)),
    Job("body1k", "1 KiB bodies, 64 connections", "load", path="/kib", bars=((BOTH, None),)),
    Job("body16m", "16 MiB bodies, 4 connections", "load", 4, "/16mib", bulk=True, bars=((BOTH, None),)),
    Job("policies", "10,000 forwarding policies, their paths in turn", "load", policies=10_000,
        bars=((BOTH, None),)),
    Job("open50", "open loop at 50 % of nginx's maximum", "open", share=0.5, bars=((NGINX, 1.10),)),
    Job("open80", "open loop at 80 % of nginx's maximum", "open", share=0.8, bars=((NGINX, 1.10),)),
    Job("memory", "resident bytes of an idle keep-alive connection", "memory", most_bytes=KIB),
    Job("active", "resident bytes of a connection with a request under way", "memory", mode="active"),
    Job("shards", "two shards against one, 64 connections", "shards"),
    Job("spin", "polls before sleep, 1 keep-alive connection", "spin", 1),
    Job("asleep", "idle process with two shards, 20 s", "asleep"),
    Job("features", "what features cost, 64 connections", "features"),
    Job("https64", "HTTPS, 64 keep-alive connections, 128 bytes", "load", protocol="https",
        bars=((NGINX, 0.80), (("haproxy",), 0.85))),
    Job("full", "full TLS handshakes, one request each", "load", protocol="https", tool="handshakes",
        mode="full", bars=((BOTH, 0.75),)),
    Job("resumed", "resumed TLS handshakes, one request each", "load", protocol="https", tool="handshakes",
        mode="resumed", bars=((BOTH, 0.80),)),
    Job("tls1m", "HTTPS, 1 MiB bodies, 16 connections", "load", 16, "/large", bulk=True, protocol="https",
        bars=((NGINX, 0.90),)),
    Job("h2", "HTTP/2, 10 connections, 10 streams each, 128 bytes", "load", 10, protocol="https",
        tool="h2load", bars=((NGINX, 1.0),)),
    Job("tlsmemory", "resident bytes of an idle TLS connection", "memory", protocol="https",
        tool="handshakes", most_bytes=12 * KIB),
    Job("tcp64", "TCP, 64 connections, 128 bytes there and back", "load", protocol="tcp", tool="flows",
        mode="tcp", bars=((BOTH, 0.80),), unit="exchange"),
    Job("tcpconn", "TCP, connection per exchange, 64 at a time", "load", protocol="tcp", tool="flows",
        mode="tcpconn", close=True, bars=((BOTH, 0.90),), unit="exchange"),
    Job("bulk", "TCP, one connection at full speed to the member", "load", 1, protocol="tcp", tool="iperf3",
        bars=((BOTH, 0.90),), unit="MiB"),
    Job("bulkback", "TCP, one connection at full speed from the member", "load", 1, protocol="tcp",
        tool="iperf3", mode="-R", bars=((BOTH, 0.90),), unit="MiB"),
    Job("tcpmemory", "resident bytes of an idle TCP connection", "memory", protocol="tcp", tool="flows",
        most_bytes=1536),
    Job("udp", "UDP, 1,000 flows, 64 bytes there and back", "load", 1000, protocol="udp", tool="flows",
        mode="udp", size=64, bars=((NGINX, 0.50),), unit="exchange"),
    Job("udpmemory", "resident bytes of an idle UDP flow", "memory", protocol="udp", tool="flows", size=64,
        most_bytes=512),
    Job("udpmany", "resident bytes of an idle UDP flow, of 100,000 over eight members", "memory", protocol="udp",
        tool="flows", size=64, most_bytes=512, held=100_000, most_descriptors=16_000),
]


class Bench:
    """What every measurement needs: tools, cores, times. One per run."""

    def __init__(self, options, work, tools):
        self.options, self.work, self.tools = options, work, tools
        self.script, self.turns = os.path.join(work, "result.lua"), os.path.join(work, "turns.lua")
        for path, text in ((self.script, WRK_SCRIPT), (self.turns, WRK_SCRIPT + WRK_TURNS)):
            with open(path, "w") as file:
                file.write(text)

    def load(self, job, port, seconds, cores, variant=None):
        """Runs a job's load once and returns its numbers (times in µs)."""
        argv, read = {
            "wrk": (self.wrk(job, port, seconds, variant), read_result),
            "h2load": (self.h2load(job, port, seconds), read_h2load),
            "handshakes": ([self.tools.handshakes, job.mode, port, job.connections, seconds], read_result),
            "flows": ([self.tools.flows, job.mode, port, job.connections, job.size, seconds]
                      + ([UDP_WINDOW] if job.protocol == "udp" else []), read_result),
            "iperf3": (["iperf3", "-J", "-c", "127.0.0.1", "-p", port, "-t", max(1, round(seconds))]
                       + ([job.mode] if job.mode else []), read_iperf3),
        }[job.tool]
        sample = read(run_pinned(argv, cores, seconds, self.tools.environment(job)))
        if job.mode in ("full", "resumed") and sample["resumed"] != (job.mode == "resumed") * sample["requests"]:
            raise Failure(f"{sample['resumed']} of {sample['requests']} handshakes were resumed in `{job.name}`")
        return sample

    def wrk(self, job, port, seconds, variant):
        """wrk's command line."""
        script = self.turns if job.policies else self.script
        argv = ["wrk", "-t1", f"-c{job.connections}", f"-d{seconds:g}s", "-s", script]
        argv += ["-H", "Connection: close"] if (variant or job).close else []
        argv += ["-H", f"Host: {variant.host}"] if variant and variant.host else []
        argv += [f"{job.protocol}://127.0.0.1:{port}{job.path}"]
        return argv + (["--", str(job.policies)] if job.policies else [])

    def h2load(self, job, port, seconds):
        """h2load's command line: so many connections of ten streams."""
        return ["h2load", "-t1", f"-c{job.connections}", "-m10", f"-D{max(1, round(seconds))}",
                "--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519",
                f"https://127.0.0.1:{port}{job.path}"]

    def loadgen(self, job, port, seconds, rate, cores):
        """Runs our own load generator at a constant rate; p50 and p99 in µs."""
        argv = [self.options.loadgen, f"http://127.0.0.1:{port}{job.path}",
                "--connections", job.connections, "--rate", round(rate),
                "--duration", f"{seconds:g}s", "--warmup", "0s", "--json", "-"]
        report = json.loads(run_pinned(argv, cores, seconds))
        return read_loadgen(report)

    def under_load(self, proxy, core, load):
        """Takes `load()` with the proxy's accounts before and after it."""
        busy, before = busy_seconds(core), proxy.usage()
        started = time.monotonic()
        sample = load()
        used, window = proxy.usage() - before, time.monotonic() - started
        requests = max(1, sample["requests"])
        sample.update(
            cpu_us=used.cpu * 1e6 / requests,
            cpu_share=used.cpu / window,
            foreign_share=max(0.0, busy_seconds(core) - busy - used.cpu) / window,
            rate=sample["requests"] / sample["seconds"],
            voluntary=used.voluntary / requests,
            involuntary=used.involuntary / requests,
        )
        return sample

    def load_sample(self, job, proxy, port, cores, proxy_core, variant=None):
        """Closed loop: warm-up, then one measured run of the tool."""
        if job.protocol == "https" and job.tool == "wrk":  # which does not tell what it has negotiated
            run_pinned([self.tools.handshakes, "full", port, 1, 0.1], cores, 1)
        self.load(job, port, self.options.warmup, cores, variant)
        return self.under_load(
            proxy, proxy_core, lambda: self.load(job, port, self.options.seconds, cores, variant))

    def open_sample(self, job, proxy, port, cores, proxy_core, rate):
        """Open loop at `rate` requests a second."""
        self.loadgen(job, port, self.options.warmup, rate, cores)
        sample = self.under_load(
            proxy, proxy_core, lambda: self.loadgen(job, port, self.options.seconds, rate, cores))
        sample["asked_rate"] = rate
        return sample

    def memory_sample(self, job, proxy, port):
        """Resident growth per connection."""
        count = job.held or self.options.idle_connections
        if job.mode == "active":
            held = memory.Asking(port)
        elif job.protocol in ("https", "udp"):
            held = memory.Held(self.holder(job, port, count))
        else:
            held = memory.Opened(port, job)
        sample = memory.sample(held, proxy, count)
        # A flow that was given up for another one would cost nothing.
        if job.most_descriptors and sample["descriptors"] < count / UDP_MEMBERS:
            raise Failure(f"{sample['descriptors']} descriptors do not carry {count} flows")
        return sample

    def holder(self, job, port, count):
        """The command line that makes idle connections or flows."""
        if job.protocol == "https":
            return [self.tools.handshakes, "hold", port, count]
        return [self.tools.flows, "hold-udp", port, count, job.size]

    def asleep_sample(self, proxy):
        """CPU of a process that nobody talks to."""
        before, started = proxy.usage(), time.monotonic()
        time.sleep(IDLE_WATCH_SECONDS)
        used = proxy.usage() - before
        window = time.monotonic() - started
        return {"cpu_share": used.cpu / window, "seconds": window, "errors": 0,
                "switches_per_second": (used.voluntary + used.involuntary) / window}


def run_pinned(argv, cores, seconds, environment=None):
    """Runs a load generator to its end on `cores`; fails with its own words."""
    argv = [str(a) for a in argv]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=seconds + 30, stdin=subprocess.DEVNULL,
            env=environment,
            preexec_fn=lambda: (os.sched_setaffinity(0, set(cores)), use_all_descriptors()))
    except FileNotFoundError as missing:
        raise Failure(f"no program `{argv[0]}`: install it (tests/run names the packages)") from missing
    except subprocess.TimeoutExpired as late:
        raise Failure(f"`{' '.join(argv)}` did not end in time") from late
    if done.returncode != 0:
        raise Failure(f"`{' '.join(argv)}` failed ({done.returncode}): "
                      f"{(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def busy_seconds(core):
    """Seconds that `core` has not been idle since boot, steal included."""
    with open("/proc/stat") as stat:
        for line in stat:
            if line.startswith(f"cpu{core} "):
                ticks = [int(n) for n in line.split()[1:9]]
                return (sum(ticks) - ticks[3] - ticks[4]) / TICK
    raise Failure(f"this machine has no core {core}")
