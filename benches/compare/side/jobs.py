"""The jobs, and how one sample of each is taken.

A sample is a plain dictionary: it goes to the raw file as it is, and report.py reads nothing else.
"""

import dataclasses
import json
import os
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


BOTH = ("nginx", "haproxy")
JOBS = [
    Job("keepalive64", "64 keep-alive connections, 128 bytes", "load", bars=((BOTH, 0.75),)),
    Job("keepalive1", "1 keep-alive connection, 128 bytes", "load", 1, bars=((BOTH, 1.05),)),
    Job("close", "connection per request, 64 at a time", "load", close=True, bars=((BOTH, 0.90),)),
    Job("body1m", "1 MiB bodies, 16 connections", "load", 16, "/large", bulk=True,
        bars=((("nginx",), 0.70),)),
    Job("open50", "open loop at 50 % of nginx's maximum", "open", share=0.5,
        bars=((("nginx",), 1.10),)),
    Job("open80", "open loop at 80 % of nginx's maximum", "open", share=0.8,
        bars=((("nginx",), 1.10),)),
    Job("memory", "resident bytes of an idle keep-alive connection", "memory"),
    Job("shards", "two shards against one, 64 connections", "shards"),
    Job("asleep", "idle process with two shards, 20 s", "asleep"),
    Job("features", "what features cost, 64 connections", "features"),
]


class Bench:
    """What every measurement needs: tools, cores, times. One per run."""

    def __init__(self, options, work):
        self.options, self.work = options, work
        self.script = os.path.join(work, "result.lua")
        with open(self.script, "w") as file:
            file.write(WRK_SCRIPT)

    def wrk(self, job, port, seconds, cores, variant=None):
        """Runs wrk once and returns its numbers (times in µs)."""
        argv = ["wrk", "-t1", f"-c{job.connections}", f"-d{seconds:g}s", "-s", self.script]
        argv += ["-H", "Connection: close"] if (variant or job).close else []
        argv += ["-H", f"Host: {variant.host}"] if variant and variant.host else []
        said = run_pinned(argv + [f"http://127.0.0.1:{port}{job.path}"], cores, seconds)
        for line in said.splitlines():
            if line.startswith("RESULT"):
                requests, micros, errors, p50, p99 = (int(n) for n in line.split()[1:])
                return {"requests": requests, "seconds": micros / 1e6, "errors": errors,
                        "p50_us": p50, "p99_us": p99}
        raise Failure(f"wrk printed no result: {said[-500:]}")

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
        """Closed loop: warm-up, then one measured run of wrk."""
        self.wrk(job, port, self.options.warmup, cores, variant)
        return self.under_load(
            proxy, proxy_core, lambda: self.wrk(job, port, self.options.seconds, cores, variant))

    def open_sample(self, job, proxy, port, cores, proxy_core, rate):
        """Open loop at `rate` requests a second."""
        self.loadgen(job, port, self.options.warmup, rate, cores)
        sample = self.under_load(
            proxy, proxy_core, lambda: self.loadgen(job, port, self.options.seconds, rate, cores))
        sample["asked_rate"] = rate
        return sample

    def memory_sample(self, proxy, port):
        """Resident growth per idle connection: one request on each, opened one after the other."""
        use_all_descriptors()
        count, opened = self.options.idle_connections, []
        try:
            for _ in range(8):  # the first ones pay for what exists once per process
                opened.append(ask_once(port))
            before = settled_bytes(proxy)
            while len(opened) < count + 8:
                opened.append(ask_once(port))
            after = settled_bytes(proxy)
            closed = sum(not is_quiet(connection) for connection in opened)
        finally:
            for connection in opened:
                connection.close()
        return {"bytes_per_connection": (after - before) / count, "connections": count,
                "resident_before": before, "resident_after": after, "errors": closed}

    def asleep_sample(self, proxy):
        """CPU of a process that nobody talks to."""
        before, started = proxy.usage(), time.monotonic()
        time.sleep(IDLE_WATCH_SECONDS)
        used = proxy.usage() - before
        window = time.monotonic() - started
        return {"cpu_share": used.cpu / window, "seconds": window, "errors": 0,
                "switches_per_second": (used.voluntary + used.involuntary) / window}


def run_pinned(argv, cores, seconds):
    """Runs a load generator to its end on `cores`; fails with its own words."""
    argv = [str(a) for a in argv]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=seconds + 30, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: (os.sched_setaffinity(0, set(cores)), use_all_descriptors()))
    except FileNotFoundError as missing:
        raise Failure(f"no program `{argv[0]}`: install it (tests/run names the packages)") from missing
    except subprocess.TimeoutExpired as late:
        raise Failure(f"`{' '.join(argv)}` did not end in time") from late
    if done.returncode != 0:
        raise Failure(f"`{' '.join(argv)}` failed ({done.returncode}): {done.stderr[-500:]}")
    return done.stdout


def busy_seconds(core):
    """Seconds that `core` has not been idle since boot, steal included."""
    with open("/proc/stat") as stat:
        for line in stat:
            if line.startswith(f"cpu{core} "):
                ticks = [int(n) for n in line.split()[1:9]]
                return (sum(ticks) - ticks[3] - ticks[4]) / TICK
    raise Failure(f"this machine has no core {core}")


def ask_once(port):
    """A connection that has had one answer and stays open."""
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.settimeout(5)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
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
