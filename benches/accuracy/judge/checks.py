"""The measurements: each gives one sample, numbers only. What they have to be is page.py's."""

import json
import os
import resource

from judge.origin import Origin, quantile
from side.jobs import WRK_SCRIPT, read_result, run_pinned
from side.peers import start_http
from side.procs import Failure, Process, close_all

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
# What the origin waits, as its argument says it, in milliseconds in words.
DELAYS = {"1 ms": "1000", "10 ms": "10000", "1 ms, 5 % 100 ms": "1000,100000@5"}
RATES = (100, 1_000, 10_000, 50_000)
CLOSED_CONNECTIONS, OPEN_CONNECTIONS, OPEN_RATE = 4, 256, 2_000
RATE_CONNECTIONS, COST_CONNECTIONS = 64, 64
SPIN = "1s"  # loadgen's core never sleeps
# What nginx tries in vain for each request of `cost`: with it, it is the target that is at its limit, and not wrk.
COST_PATH = "p/0"
VAIN = "".join(f"    location ~ ^/p/.*/{n}$ {{ }}\n" for n in range(150))
LONGEST_SECONDS = 60  # of a run of loadgen
STALL_RATE, STALL_CONNECTIONS, STALL_SECONDS, STALL_FOR_MS, STALL_AFTER_MS = 1_000, 10, 10, 1_000, 4_000


class Bench:
    """What every measurement needs: programs, cores, times. One per run."""

    def __init__(self, options, program, work):
        self.options, self.program, self.work = options, program, work
        self.script = os.path.join(work, "result.lua")
        with open(self.script, "w") as file:
            file.write(WRK_SCRIPT)

    def loadgen(self, port, *flags, path="", warmup="1s"):
        """Runs loadgen against a port; its report."""
        argv = [self.options.loadgen, f"http://127.0.0.1:{port}/{path}", "--cores", self.options.load_core,
                "--warmup", warmup, "--json", "-", "-q", *flags]
        report = json.loads(run_pinned(argv, [self.options.load_core], LONGEST_SECONDS))
        if report["errors"]["total"]:
            raise Failure(f"requests failed: {report['errors']}")
        return report

    def against(self, delays, *flags, stall=()):
        """The same against an origin of its own; the report, and the origin's arrivals and waits."""
        try:
            origin = Origin(self.program, self.options.target_core, self.work, delays, stall)
            report = self.loadgen(origin.port, *flags)
            return (report, *origin.end(report["requests"]))
        finally:
            close_all()

    def latency(self, name, delays, mode, spin=SPIN):
        """loadgen's percentiles beside those of what the origin made the same requests wait (µs)."""
        flags = ["--connections", OPEN_CONNECTIONS, "--rate", OPEN_RATE, *self.window()]
        if mode == "closed":
            # Counted, not timed: so both sides have the same requests.
            flags = ["--connections", CLOSED_CONNECTIONS, "--requests", self.quota(delays)]
        report, _, waits = self.against(delays, "--spin", spin, *flags)
        return {"check": "latency", "name": f"{name}, {mode}", **beside(report, waits)}

    def asleep(self):
        """The same of 1 ms where loadgen's core falls asleep between the answers."""
        return dict(self.latency("1 ms", DELAYS["1 ms"], "closed", spin="0s"), check="asleep")

    def window(self):
        """loadgen's flag for a window of the usual length."""
        return ["--duration", f"{self.options.seconds:g}s"]

    def quota(self, delays):
        """As many requests as a closed loop does in about a window."""
        usual, _, rest = delays.partition(",")
        later, _, percent = rest.partition("@")
        mean = float(usual) + float(percent or 0) / 100 * (float(later or 0) - float(usual))
        return round(CLOSED_CONNECTIONS * self.options.seconds * 1e6 / (mean + 150))

    def bare(self):
        """A round trip that waits for nothing, one at a time: what loadgen sees beyond the origin's wait (µs)."""
        report, _, waits = self.against("0", "--spin", SPIN, "--connections", 1, "--requests", 10_000)
        return {"check": "bare", "name": "bare round trip", **beside(report, waits)}

    def stall(self):
        """A target that says nothing for a second, at a constant rate: p99 beside what arithmetic says (s)."""
        report, arrivals, waits = self.against(
            "1000", "--connections", STALL_CONNECTIONS, "--rate", STALL_RATE, "--duration", f"{STALL_SECONDS}s",
            stall=[STALL_AFTER_MS * 1000, STALL_FOR_MS * 1000])
        service = report["latency"]["service"]
        stalled, usual = STALL_FOR_MS / 1e3, service["p50"]
        # The requests due in the stall, and those that the backlog holds up after it, wait from stall + usual
        # falling in a line to the usual time; the slowest hundredth of all are the first of them.
        capacity = STALL_CONNECTIONS / usual
        held_up = STALL_RATE * stalled * capacity / (capacity - STALL_RATE)
        theory = usual + stalled * (1 - 0.01 * STALL_RATE * STALL_SECONDS / held_up)
        return {"check": "stall", "name": "1 s stall", "requests": report["requests"], "theory_s": theory,
                "longest_wait_s": max(waits) / 1e9, "p99_s": report["latency"]["total"]["p99"],
                "uncorrected_p99_s": service["p99"], "arrivals": len(arrivals)}

    def rate(self, rate):
        """A constant rate, by loadgen's count and by the origin's clock; errors of the send times (µs)."""
        report, arrivals, _ = self.against(
            "0", "--connections", RATE_CONNECTIONS, "--rate", rate, *self.window())
        first, step = arrivals[0], 1e9 / rate
        errors = [at - first - number * step for number, at in enumerate(arrivals)]
        least = min(errors)
        errors = sorted(error - least for error in errors)
        # Absent when no request found a free connection in time.
        late = report["latency"].get("lateness")
        return {"check": "rate", "name": f"{rate}", "asked": rate, "requests": report["requests"],
                "achieved": report["rate"]["achieved"], "unsent": report["rate"]["unsent"],
                "seen_by_origin": (len(arrivals) - 1) * 1e9 / (arrivals[-1] - first),
                "late_us": late and {key: late[key] * 1e6 for key in ("p50", "p99")},
                "arrival_error_us": {key: quantile(errors, SHARES[key]) / 1e3 for key in ("p50", "p99")},
                "busy": report["loadgen_cpu"]["busy"]}

    def cost(self, tool):
        """Throughput against a saturated nginx, and the load generator's own CPU a request (µs)."""
        try:
            port = start_http("nginx", [self.options.target_core], self.work, VAIN)
            nginx = Process.alive[-1]
            self.run_tool(tool, port, 1)
            before, used = nginx.usage().cpu, children_cpu()
            sample = self.run_tool(tool, port, self.options.seconds)
            target, used = nginx.usage().cpu - before, children_cpu() - used
        finally:
            close_all()
        return {"check": "cost", "name": tool, "requests": sample["requests"],
                "throughput": sample["requests"] / sample["seconds"], "cpu_us": used * 1e6 / sample["requests"],
                "target_busy": target / sample["seconds"], "errors": sample["errors"]}

    def run_tool(self, tool, port, seconds):
        """One run of a load generator, without warm-up, so that its whole life is what is counted."""
        if tool == "wrk":
            argv = ["wrk", "-t1", f"-c{COST_CONNECTIONS}", f"-d{seconds:g}s", "-s", self.script,
                    f"http://127.0.0.1:{port}/{COST_PATH}"]
            return read_result(run_pinned(argv, [self.options.load_core], seconds))
        report = self.loadgen(port, "--connections", COST_CONNECTIONS, "--duration", f"{seconds:g}s",
                              path=COST_PATH, warmup="0s")
        return {"requests": report["requests"], "seconds": report["duration"], "errors": 0}


def beside(report, waits):
    """Percentiles of both sides, µs."""
    total, waits = report["latency"]["total"], sorted(waits)
    return {"requests": report["requests"], "loadgen_us": {key: total[key] * 1e6 for key in SHARES},
            "origin_us": {key: quantile(waits, share) / 1e3 for key, share in SHARES.items()}}


def children_cpu():
    """utime + stime of all programs that we have started and that have ended, seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
