"""The jobs, and how one sample of each is taken.

A sample is a plain dictionary: it goes to the raw file as it is, and report.py reads nothing else.
"""

import dataclasses
import json
import os
import re
import socket
import subprocess
import time

from side.procs import TICK, Failure, use_all_descriptors

WRK_SCRIPT = """\
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
QUIET_SECONDS = 5.0  # how long memory may take to settle
IDLE_WATCH_SECONDS = 20.0
FIRST = 8  # connections that pay for what exists once per process; the same in the C programs
UDP_WINDOW = 64  # flows that wait for an answer at a time: what the default receive buffers hold
KIB, MIB = 1 << 10, 1 << 20

BOTH = ("nginx", "haproxy")
NGINX = ("nginx",)


@dataclasses.dataclass(frozen=True)
class Job:
    """One kind of work. `bars` are the ratios Weir is held to, by kind of peer."""

    name: str
    title: str
    measure: str  # "load", "open", "memory", "shards", "asleep" or "features"
    connections: int = 64
    path: str = "/"
    close: bool = False
    bulk: bool = False
    share: float = 0.0  # of nginx's maximum, open loop only
    bars: tuple = ()
    most_bytes: int = 0  # Weir's bar where memory is measured
    protocol: str = "http"  # of the listener: http, https, tcp, udp
    tool: str = "wrk"  # what makes the load: wrk, h2load, handshakes, flows, iperf3
    mode: str = ""  # of that program
    size: int = 128  # bytes of a message of flows
    unit: str = "request"  # what CPU is divided by

    @property
    def group(self):
        """The table that it belongs to."""
        return {"http": "http", "https": "tls"}.get(self.protocol, "l4")

    def suits(self, kind):
        """True when that kind of proxy can do it."""
        return self.protocol != "udp" or kind != "haproxy"


GROUPS = {"http": "HTTP", "tls": "TLS", "l4": "TCP and UDP"}

JOBS = [
    Job("keepalive64", "64 keep-alive connections, 128 bytes", "load", bars=((BOTH, 0.75),)),
    Job("keepalive1", "1 keep-alive connection, 128 bytes", "load", 1, bars=((BOTH, 1.05),)),
    Job("close", "connection per request, 64 at a time", "load", close=True, bars=((BOTH, 0.90),)),
    Job("body1m", "1 MiB bodies, 16 connections", "load", 16, "/large", bulk=True, bars=((NGINX, 0.70),)),
    Job("open50", "open loop at 50 % of nginx's maximum", "open", share=0.5, bars=((NGINX, 1.10),)),
    Job("open80", "open loop at 80 % of nginx's maximum", "open", share=0.8, bars=((NGINX, 1.10),)),
    Job("memory", "resident bytes of an idle keep-alive connection", "memory", most_bytes=KIB),
    Job("shards", "two shards against one, 64 connections", "shards"),
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
]


class Bench:
    """What every measurement needs: tools, cores, times. One per run."""

    def __init__(self, options, work, tools):
        self.options, self.work, self.tools = options, work, tools
        self.script = os.path.join(work, "result.lua")
        with open(self.script, "w") as file:
            file.write(WRK_SCRIPT)

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
        argv = ["wrk", "-t1", f"-c{job.connections}", f"-d{seconds:g}s", "-s", self.script]
        argv += ["-H", "Connection: close"] if (variant or job).close else []
        argv += ["-H", f"Host: {variant.host}"] if variant and variant.host else []
        return argv + [f"{job.protocol}://127.0.0.1:{port}{job.path}"]

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
        """Resident growth per idle connection: one exchange on each, opened one after the other."""
        count = self.options.idle_connections
        held = Held(self.holder(job, port, count)) if job.protocol in ("https", "udp") else Opened(port, job)
        with held:
            held.open(FIRST)
            before = settled_bytes(proxy)
            held.open(count)
            after = settled_bytes(proxy)
            closed = held.lost()
        return {"bytes_per_connection": (after - before) / count, "connections": count,
                "resident_before": before, "resident_after": after, "errors": closed}

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


ECHO = b"x" * 128  # what comes back ends an HTTP answer as well


class Opened:
    """Idle connections of our own."""

    def __init__(self, port, job):
        use_all_descriptors()
        self.port, self.connections = port, []
        self.ask = ECHO if job.protocol == "tcp" else b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.connections:
            connection.close()

    def open(self, count):
        """So many more."""
        self.connections += (ask_once(self.port, self.ask) for _ in range(count))

    def lost(self):
        """How many are not quiet any more."""
        return sum(not is_quiet(connection) for connection in self.connections)


class Held:
    """Idle connections or flows that one of our C programs makes, in two steps; see hold() there."""

    def __init__(self, argv):
        self.child = subprocess.Popen(
            [str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=use_all_descriptors)
        self.started = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.terminate()
        self.child.wait()
        self.child.stdout.close()

    def open(self, _):
        """The next step: FIRST of them, then all."""
        if self.line() not in ("first", "all"):
            raise Failure(f"`{' '.join(self.child.args)}` did not make its connections")

    def lost(self):
        """How many are not quiet any more."""
        return read_result(self.line())["errors"]

    def line(self):
        """The program's next line; it goes on when we ask for the one after it."""
        if self.started:
            self.child.stdin.write("\n")
            self.child.stdin.flush()
        self.started = True
        return self.child.stdout.readline().strip()


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


def ask_once(port, question):
    """A connection that has had one answer and stays open."""
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.settimeout(5)
    connection.sendall(question)
    got = b""
    while not got.endswith(b"x" * 128):
        more = connection.recv(4096)
        if not more:
            raise Failure(f"the proxy closed an idle connection: {got[:200]!r}")
        got += more
    return connection


def is_quiet(connection):
    """True while the other side has neither closed nor sent anything more."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def settled_bytes(proxy):
    """Resident bytes once three readings in a row agree."""
    deadline, last = time.monotonic() + QUIET_SECONDS, []
    while time.monotonic() < deadline and not (len(last) == 3 and len(set(last)) == 1):
        last = last[-2:] + [proxy.resident_bytes()]
        time.sleep(0.1)
    return last[-1]


def read_loadgen(report):
    """The numbers we compare out of loadgen's JSON report; latencies count from when a request was due."""
    total = report["latency"]["total"]
    late = report["rate"]["unsent"] + report["unfinished"]
    return {"requests": report["requests"], "seconds": report["duration"], "unsent": late,
            "errors": report["errors"]["total"], "p50_us": total["p50"] * 1e6,
            "p99_us": total["p99"] * 1e6}


def read_result(said):
    """The numbers of a result line: wrk's script prints it, and our C programs do."""
    for line in said.splitlines():
        if line.startswith("RESULT"):
            names = ("requests", "micros", "errors", "p50_us", "p99_us", "resumed")
            sample = dict(zip(names, (int(n) for n in line.split()[1:])))
            sample["seconds"] = sample.pop("micros") / 1e6
            return sample
    raise Failure(f"the load printed no result: {said[-500:]}")


def read_h2load(said):
    """h2load's summary; it tells what was negotiated, and knows no percentiles."""
    for wanted in ("TLS Protocol: TLSv1.3", "Cipher: TLS_AES_128_GCM_SHA256", "Server Temp Key: X25519",
                   "Application protocol: h2"):
        if wanted not in said:
            raise Failure(f"h2load did not get `{wanted}`: {said[-1500:]}")
    seconds, counts = re.search(r"finished in ([\d.]+)s", said), re.search(
        r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", said)
    good = re.search(r"status codes: (\d+) 2xx", said)
    if not (seconds and counts and good):
        raise Failure(f"h2load printed no result: {said[-500:]}")
    return {"requests": int(good.group(1)), "seconds": float(seconds.group(1)),
            "errors": int(counts.group(2)) + int(counts.group(3))}


def read_iperf3(said):
    """iperf3's report: MiB that arrived stand in for requests."""
    total = json.loads(said)["end"]["sum_received"]
    return {"requests": total["bytes"] / MIB, "seconds": total["seconds"], "errors": 0}
